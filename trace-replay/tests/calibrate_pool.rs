//! `trace-replay calibrate --pool` on real clusters: that of the suite (`TIERDAV_CEPH_DIR`, see deploy/dev/ceph.sh), and one of
//! its own whose HDD the kernel throttles.
#![cfg(feature = "rados")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[expect(dead_code, reason = "the gateway's tests use the rest")]
#[path = "../../gateway/tests/common/cluster.rs"]
mod cluster;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cluster::{OwnCluster, ceph, ceph_in};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const POOL: &str = "tierdav-data";

fn conf() -> PathBuf {
    let dir = std::env::var("TIERDAV_CEPH_DIR").expect(
        "these tests need a cluster: deploy/dev/ceph.sh up, then eval \"$(deploy/dev/ceph.sh env)\"",
    );
    Path::new(&dir).join("ceph.conf")
}

/// With the gateway's key, which is what `calibrate` takes when nothing is said. Hanging is failing.
fn calibrate(conf: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5", "120", env!("CARGO_BIN_EXE_trace-replay")])
        .arg("calibrate")
        .arg("--ceph-conf")
        .arg(conf)
        .args(args);
    command
}

fn refused(conf: &Path, args: &[&str]) -> String {
    let out = calibrate(conf, args).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    String::from_utf8(out.stderr).unwrap()
}

fn lines(out: &Output) -> Vec<String> {
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().map(str::to_owned).collect()
}

/// Names in the namespace of the suite's cluster.
fn names(namespace: &str) -> Vec<String> {
    lines(&ceph(&["rados", "-p", POOL, "-N", namespace, "ls"]))
}

fn number(found: &Value, name: &str) -> f64 {
    found[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {found}"))
}

#[test]
fn the_example_of_the_help_runs_and_leaves_nothing() {
    let namespace = format!("calibrate-{}", std::process::id());
    let tool = || Command::new(env!("CARGO_BIN_EXE_trace-replay"));
    let help = tool()
        .args(["calibrate", "--help"])
        .env("COLUMNS", "400")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let examples = help.split("Examples:").nth(1).unwrap();
    let line = examples.lines().find(|l| l.contains("--pool")).unwrap();
    let line = line.replace("/etc/ceph/ceph.conf", conf().to_str().unwrap());
    let out = tool()
        .args(line.split_whitespace().skip(1))
        .args(["--ceph-namespace", &namespace])
        .args(["--size", "16MiB", "--seconds", "0.3"])
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    for part in [
        "positioning  ",
        "transfer     ",
        "writing      ",
        "--hdd ",
        "\ncost_benefit_seek_ms = ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("too good"), "{text}");
    assert_eq!(names(&namespace), [""; 0]);
}

/// The kernel gives OSD 1 no more than 120 operations and 160 MB a second, so no load on the machine can make it faster than that.
#[test]
fn a_throttled_pool_costs_what_its_device_does_and_no_cache_answers() {
    const IOPS: f64 = 120.0;
    const MIB_PER_S: f64 = 160e6 / 1_048_576.0;
    let cluster = OwnCluster::up_with(&["--hdd-iops", "120", "--hdd-mbps", "160"]);
    let conf = cluster.dir().join("ceph.conf");
    let hit_bytes = || {
        let asked = ["ceph", "tell", "osd.1", "perf", "dump", "bluestore"];
        let counters = ceph_in(cluster.dir(), &asked).stdout;
        let counters: Value = serde_json::from_slice(&counters).unwrap();
        let hits = &counters["bluestore"]["bluestore_buffer_hit_bytes"];
        hits.as_u64()
            .unwrap_or_else(|| panic!("no such counter: {counters}"))
    };
    let before = hit_bytes();
    let out = calibrate(&conf, &["--pool", POOL, "--size", "16MiB", "--json"])
        .args(["--seconds", "3"])
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    // Each of the four objects was read again and again. The OSD's own maps are some hundred bytes.
    let hit = hit_bytes() - before;
    assert!(hit < 4096, "{hit} bytes came from the OSD's cache");
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    // What the kernel lets pass at the start of three seconds is less than a tenth of all.
    let seek_ms = number(&found, "seek_ms");
    assert!((900.0 / IOPS..100.0).contains(&seek_ms), "{found}");
    let transfer = number(&found, "transfer_mib_per_s");
    assert!((1.0..1.1 * MIB_PER_S).contains(&transfer), "{found}");
    let object_ms = number(&found, "object_measured_ms");
    assert!(object_ms > 3600.0 / MIB_PER_S, "{found}");
    assert!(number(&found, "write_mib_per_s") > 0.0, "{found}");
    assert_eq!(found["direct"], true);
    let left = ["rados", "-p", POOL, "-N", "tierdav", "ls"];
    assert_eq!(lines(&ceph_in(cluster.dir(), &left)), [""; 0]);
}

/// Waits for the first object, whose name it answers with.
fn first_object(namespace: &str, running: &mut Child) -> String {
    let start = Instant::now();
    loop {
        if let Some(name) = names(namespace).into_iter().next() {
            return name;
        }
        assert_eq!(running.try_wait().unwrap(), None, "it ended");
        assert!(start.elapsed() < Duration::from_secs(60), "no object");
    }
}

#[test]
fn ctrl_c_leaves_nothing() {
    let namespace = format!("calibrate-stopped-{}", std::process::id());
    let mut running = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["calibrate", "--pool", POOL, "--ceph-namespace", &namespace])
        .args(["--size", "16GiB", "--ceph-conf"])
        .arg(conf())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let name = first_object(&namespace, &mut running);
    // `tierdav scrub` and a gateway's start leave it alone.
    assert!(name.starts_with("trace-replay.calibrate."), "{name}");
    assert_eq!(gateway::objects::pools::parse_object_name(&name), None);
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    let out = running.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains("stopped before everything was measured") && !said.contains("are left"),
        "{said}"
    );
    assert_eq!(names(&namespace), [""; 0]);
}

#[test]
fn what_is_wrong_with_the_cluster_or_its_settings_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let conf = conf();
    let good = std::fs::read_to_string(&conf).unwrap();
    let with = |name: &str, key: &str, value: &str| {
        let file = dir.path().join(name);
        let lines = good.lines().map(|line| match line.split_once(" = ") {
            Some((k, _)) if k == key => format!("{key} = {value}\n"),
            _ => format!("{line}\n"),
        });
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        file
    };
    let contains = |said: String, parts: &[&str]| {
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    };
    let absent = ["--pool", "no-such-pool"];
    contains(
        refused(&conf, &absent),
        &["there is no pool \"no-such-pool\"", "user client.tierdav"],
    );
    let pool = ["--pool", POOL];
    let keyring = dir.path().join("keyring");
    let no_key = with("no-key.conf", "keyring", keyring.to_str().unwrap());
    let where_from = format!("keyring {}", keyring.display());
    contains(
        refused(&no_key, &pool),
        &["no key for this user", &where_from],
    );
    let wrong = "[client.tierdav]\nkey = AQAEaSdpVU3VBBAAiZ4qKV2g9HYSyyFe64BZDA==\n";
    std::fs::write(&keyring, wrong).unwrap();
    contains(
        refused(&no_key, &pool),
        &["the key or its capabilities are not accepted", &where_from],
    );
    // Nobody listens on port 1.
    let alone = with("alone.conf", "mon host", "v1:127.0.0.1:1");
    contains(
        refused(&alone, &pool),
        &["no answer", "monitors v1:127.0.0.1:1 "],
    );
    let nowhere = dir.path().join("nowhere.conf");
    contains(refused(&nowhere, &pool), &[nowhere.to_str().unwrap()]);
}

#[test]
fn a_user_who_may_not_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("client.reader-{}", std::process::id());
    let pool = format!("allow r pool={POOL}");
    let caps = ["mon", "allow r", "osd", &pool];
    let mut make = vec!["ceph", "auth", "get-or-create", &name];
    make.extend(caps);
    let key = ceph(&make);
    assert!(key.status.success(), "{key:?}");
    let keyring = dir.path().join("keyring");
    std::fs::write(&keyring, &key.stdout).unwrap();
    let text = std::fs::read_to_string(conf()).unwrap();
    let (head, _) = text.split_once("keyring = ").unwrap();
    let file = dir.path().join("reader.conf");
    std::fs::write(&file, format!("{head}keyring = {}\n", keyring.display())).unwrap();
    let said = refused(&file, &["--pool", POOL, "--ceph-user", &name]);
    let removed = ceph(&["ceph", "auth", "rm", &name]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(
        said.contains("cannot write an object: the key or its capabilities are not accepted"),
        "{said}"
    );
    assert!(!said.contains("are left"), "{said}");
}
