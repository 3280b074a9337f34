//! `tierdav import`, `export` and `scrub` over real pools (`TIERDAV_CEPH_DIR`), killed at random moments and run again.
//!
//! `TIERDAV_KILLS=200` runs the long form; `TIERDAV_SEED=n` repeats a run.
#![cfg(feature = "rados")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::cluster::ceph;
use common::{Gateway, Random, content, pool_flags};
use rustix::process::{Pid, Signal};

const FILES: u64 = 60;

struct Root {
    gateway: Gateway,
    flags: Vec<String>,
    files: Vec<(String, usize)>,
}

impl Root {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierdav"));
        let flags = self.flags.iter();
        command.arg(name).arg("--root").arg(self.gateway.root());
        command.args(flags.map(String::as_str));
        command
    }

    fn whole(&self, command: &str) -> Output {
        let done = self.command(command).output().expect("run");
        assert!(done.status.success(), "{command}: {done:?}");
        done
    }

    fn objects(&self) -> usize {
        let at = self.flags.iter().position(|f| f == "--ceph-namespace");
        let namespace = &self.flags[at.unwrap() + 1];
        let in_pool = |pool| {
            let listed = ceph(&["rados", "-p", pool, "-N", namespace, "ls"]);
            assert!(listed.status.success(), "{listed:?}");
            let names = String::from_utf8_lossy(&listed.stdout).into_owned();
            names.lines().filter(|n| *n != "tierdav.owner").count()
        };
        in_pool("tierdav-cache") + in_pool("tierdav-data")
    }

    /// Runs a command for a moment.
    fn cut_off(&self, name: &str, random: &mut Random) {
        let mut command = self.command(name);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("start");
        let pid = Pid::from_child(&child);
        // The moment of the end is the experiment, not a wait for something.
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        let (signal, status) = match random.below(3) {
            0 => (Signal::INT, Some(130)),
            1 => (Signal::TERM, Some(143)),
            _ => (Signal::KILL, None),
        };
        // It may have come to its end before.
        let _ = rustix::process::kill_process(pid, signal);
        let done = child.wait_with_output().expect("wait");
        let ended = done.status.code();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        // Before its first look at signals a process ends as any other does.
        assert!(
            ended == Some(0) || ended == status || ended.is_none(),
            "{name}: {done:?}"
        );
        if ended == Some(130) || ended == Some(143) {
            assert!(said.contains("interrupted"), "{said}");
        }
    }
}

#[test]
fn import_and_export_that_are_cut_off_at_any_moment_lose_and_double_nothing() {
    let mut random = Random::from_env();
    let mut flags = pool_flags();
    flags.extend(["--object-size", "64KiB"].map(str::to_owned));
    let gateway = Gateway::start(&["--cache-dir", "none"]);
    assert_eq!(gateway.request("MKCOL", "/d", &[], b"").status, 201);
    let mut files = Vec::new();
    for n in 0..FILES {
        let len = random.below(200_000) as usize;
        let path = format!("{}/{n}", if n % 2 == 0 { "" } else { "/d" });
        assert_eq!(gateway.put(&path, &content(n, len)).status, 201);
        files.push((path, len));
    }
    let mut root = Root {
        gateway,
        flags,
        files,
    };
    assert_eq!(root.gateway.terminate(), Some(0));
    let kills = std::env::var("TIERDAV_KILLS")
        .ok()
        .and_then(|k| k.parse().ok());
    let mut left: u64 = kills.unwrap_or(8);
    let each = |root: &Root| {
        root.files
            .iter()
            .map(|(_, len)| len.div_ceil(64 << 10))
            .sum::<usize>()
    };
    while left > 0 {
        for command in ["import", "export"] {
            for _ in 0..=random.below(3) {
                root.cut_off(command, &mut random);
                if random.below(4) == 0 {
                    root.cut_off("scrub", &mut random);
                }
                left = left.saturating_sub(1);
            }
            root.whole(command);
            if command == "import" {
                let mut scrub = root.command("scrub");
                let done = scrub.arg("--deep").output().expect("run");
                assert!(done.status.success(), "{done:?}");
                assert_eq!(
                    root.objects(),
                    each(&root),
                    "no object twice, none too many"
                );
            } else {
                assert_eq!(root.objects(), 0);
            }
        }
        for (n, (path, len)) in root.files.iter().enumerate() {
            let file = root.gateway.root().join(&path[1..]);
            assert!(
                std::fs::read(file).unwrap() == content(n as u64, *len),
                "{path}"
            );
        }
    }
}

#[test]
fn a_placeholder_that_may_not_be_read_keeps_its_objects_in_a_repair() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let mut gateway = Gateway::start(&["--cache-dir", "none"]);
    assert_eq!(gateway.put("/f", &content(1, 200_000)).status, 201);
    assert_eq!(gateway.put("/g", &content(2, 20_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    let mut flags = pool_flags();
    flags.extend(["--object-size", "64KiB"].map(str::to_owned));
    // The cluster's own directory may be root's alone.
    let cluster = std::path::PathBuf::from(std::env::var("TIERDAV_CEPH_DIR").unwrap());
    let (conf, keyring) = (
        gateway.dir.path().join("ceph.conf"),
        gateway.dir.path().join("keyring"),
    );
    std::fs::copy(cluster.join("ceph.client.tierdav.keyring"), &keyring).unwrap();
    let settings = std::fs::read_to_string(cluster.join("ceph.conf")).unwrap();
    let own = |line: &&str| {
        let key = line.split(" = ").next().unwrap_or_default();
        ![
            "keyring",
            "log file",
            "admin socket",
            "run dir",
            "crash dir",
        ]
        .contains(&key)
    };
    let mut kept: Vec<&str> = settings.lines().filter(own).collect();
    let key = format!("keyring = {}", keyring.display());
    kept.insert(1, &key);
    std::fs::write(&conf, kept.join("\n") + "\n").unwrap();
    flags.extend(["--ceph-conf", conf.to_str().unwrap()].map(str::to_owned));
    let root = Root {
        gateway,
        flags,
        files: Vec::new(),
    };
    root.whole("import");
    assert_eq!(root.objects(), 5);
    // As the service has a user of its own, and the file came back from a backup as root's.
    let chown = |to: &str, path: &std::path::Path| {
        let done = Command::new("chown").args(["-R", to]).arg(path).status();
        assert!(done.unwrap().success(), "needs root");
    };
    let file = root.gateway.root().join("f");
    chown("65534:65534", root.gateway.dir.path());
    chown("0:0", &file);
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let repair = || {
        let mut scrub = root.command("scrub");
        scrub.arg("--repair").uid(65534).gid(65534);
        scrub.output().unwrap()
    };
    let found = repair();
    let said = String::from_utf8_lossy(&found.stdout).into_owned();
    assert_eq!(found.status.code(), Some(3), "{found:?}");
    assert!(
        said.contains("\"unseen\"") && said.contains("\"/f\""),
        "{said}"
    );
    assert_eq!(root.objects(), 5);
    // An export moves what it may, and names the rest.
    let mut export = root.command("export");
    let left = export.uid(65534).gid(65534).output().unwrap();
    assert_eq!(left.status.code(), Some(3), "{left:?}");
    let report: serde_json::Value = serde_json::from_slice(&left.stdout).unwrap();
    assert_eq!(report["unseen"], serde_json::json!(["/f"]));
    assert_eq!(report["files"], 1);
    assert_eq!(root.objects(), 4);
    chown("65534:65534", &file);
    assert!(repair().status.success());
    root.whole("export");
    assert!(std::fs::read(&file).unwrap() == content(1, 200_000));
}

#[test]
fn an_export_that_has_to_leave_a_file_with_two_names_is_not_whole() {
    let mut gateway = Gateway::start(&["--cache-dir", "none"]);
    assert_eq!(gateway.put("/f", &content(1, 20_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    let mut flags = pool_flags();
    flags.extend(["--object-size", "64KiB"].map(str::to_owned));
    let root = Root {
        gateway,
        flags,
        files: Vec::new(),
    };
    root.whole("import");
    let (file, second) = (root.gateway.root().join("f"), root.gateway.root().join("g"));
    std::fs::hard_link(&file, &second).unwrap();
    let left = root.command("export").output().unwrap();
    assert_eq!(left.status.code(), Some(3), "{left:?}");
    let said = String::from_utf8_lossy(&left.stderr).into_owned();
    assert!(said.contains("cannot be served without them"), "{said}");
    std::fs::remove_file(&second).unwrap();
    root.whole("export");
    assert!(std::fs::read(&file).unwrap() == content(1, 20_000));
}
