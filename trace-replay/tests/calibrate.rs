//! `trace-replay calibrate` from the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn calibrate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trace-replay"));
    command.arg("calibrate").args(args).output().unwrap()
}

#[test]
fn a_directory_is_measured_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let out = calibrate(&[path, "--size", "32MiB", "--seconds", "0.3", "--json"]);
    assert!(out.status.success(), "{out:?}");
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    for name in [
        "transfer_mib_per_s",
        "write_mib_per_s",
        "object_measured_ms",
        "object_predicted_ms",
    ] {
        assert!(found[name].as_f64().unwrap() > 0.0, "{found}");
    }
    assert!(found["seek_ms"].as_f64().unwrap() >= 0.0 && found["direct"].is_boolean());
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
}

#[test]
fn what_it_prints_is_what_simulate_and_the_gateway_take() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let out = calibrate(&[path, "--size", "16MiB", "--seconds", "0.1"]);
    let text = String::from_utf8(out.stdout).unwrap();
    let model = text
        .split("--hdd ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let (seek, transfer) = model.split_once(',').unwrap();
    assert!(
        text.contains(&format!("\ncost_benefit_seek_ms = {seek}\n")),
        "{text}"
    );
    assert!(
        text.contains(&format!("\ncost_benefit_transfer_mib_per_s = {transfer}\n")),
        "{text}"
    );
    let mut simulate = Command::new(env!("CARGO_BIN_EXE_trace-replay"));
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/es/smoke.csv.xz");
    let out = simulate
        .args(["simulate", trace, "--hdd", model, "--policy", "lru"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let out = calibrate(&["/nowhere-at-all", "--size", "16MiB"]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nowhere-at-all"));
    assert!(
        String::from_utf8_lossy(&calibrate(&["/tmp", "--size", "1MiB"]).stderr)
            .contains("at least 8MiB")
    );
    for unclear in [
        &[][..],
        &["/tmp", "--pool", "x"],
        &["/tmp", "--ceph-user", "client.x"],
        &["--pool", "x", "--ceph-user", "x"],
    ] {
        let out = calibrate(unclear);
        assert_eq!(out.status.code(), Some(2), "{unclear:?}: {out:?}");
        assert!(out.stdout.is_empty(), "{unclear:?}: {out:?}");
    }
}

#[cfg(not(feature = "rados"))]
#[test]
fn without_ceph_a_pool_is_refused_with_the_way_out() {
    let out = calibrate(&["--pool", "tierdav-data"]);
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("build it with --features rados"),
        "{out:?}"
    );
}

#[test]
fn ctrl_c_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .arg("calibrate")
        .arg(dir.path())
        .args(["--size", "16MiB", "--seconds", "600"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while std::fs::read_dir(dir.path()).unwrap().count() == 0 {
        assert_eq!(running.try_wait().unwrap(), None, "it ended");
    }
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let out = running.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("stopped before everything was measured"),
        "{out:?}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
