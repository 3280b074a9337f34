//! `trace-replay replay --target model:` and loads that are made larger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn replay(trace: &str, args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trace-replay"));
    command
        .current_dir(root)
        .args(["replay", trace, "--quiet"])
        .args(args)
        .output()
        .unwrap()
}

fn json(trace: &str, args: &[&str]) -> Value {
    let out = replay(trace, &[args, &["--json"]].concat());
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Two reads, 5 ms apart, of 64 KiB each of one file; the second goes on where the first ended.
fn two_reads(dir: &Path) -> String {
    let path = dir.join("two.csv");
    let rows =
        "ts_us,client,op,path,offset,length\n0,a,read,f,0,65536\n5000,b,read,f,65536,65536\n";
    std::fs::write(&path, rows).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_device_takes_what_positioning_and_transfer_cost() {
    let dir = tempfile::tempdir().unwrap();
    let trace = two_reads(dir.path());
    // 10 ms and 64 KiB at 10 MiB/s: 16.25 ms; the second needs no positioning, and waits for the first.
    let timed = json(&trace, &["--target", "model:10,10", "--mode", "timed"]);
    let reads = &timed["replay"]["operations"]["read"];
    let near = |value: &Value, ms: f64| (value.as_f64().unwrap() / 1e3 - ms).abs() < ms * 0.002;
    assert!(
        near(&reads["latency_us"]["max"], 17.5) && near(&reads["latency_us"]["p50"], 16.25),
        "{reads}"
    );
    assert!(near(&timed["replay"]["elapsed_us"], 22.5), "{timed}");
    // As fast as possible with one at a time: 16.25 and 6.25 ms, none waits.
    let one = json(&trace, &["--target", "model:10,10", "--clients", "1"]);
    assert!(
        near(
            &one["replay"]["operations"]["read"]["latency_us"]["max"],
            16.25
        ),
        "{one}"
    );
    assert!(near(&one["replay"]["elapsed_us"], 22.5), "{one}");
    let part = json(
        &trace,
        &[
            "--target",
            "model:10,10",
            "--mode",
            "timed",
            "--duration",
            "0.001",
        ],
    );
    assert_eq!(part["partial"]["not_started"], 1);
    assert_eq!(timed["target"], "model:10,10");
}

#[test]
fn copies_and_larger_files_make_a_larger_load() {
    let count = |args: &[&str]| {
        let all = json(
            "fixtures/es/smoke.csv.xz",
            &[&["--target", "model:ssd"], args].concat(),
        );
        let replay = &all["replay"];
        let operations = replay["operations"].as_object().unwrap().values();
        let sum: u64 = operations.map(|o| o["count"].as_u64().unwrap()).sum();
        (
            sum,
            replay["read_bytes"].as_u64().unwrap() + replay["written_bytes"].as_u64().unwrap(),
        )
    };
    let (operations, bytes) = count(&[]);
    assert_eq!(count(&["--copies", "3"]), (3 * operations, 3 * bytes));
    let (same, twice) = count(&["--scale-size", "2"]);
    assert_eq!((same, twice), (operations, 2 * bytes));
}

#[test]
fn copies_run_side_by_side_on_a_directory_and_every_byte_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", dir.path().display());
    let args = [
        "--target",
        &target,
        "--prefix",
        "/run",
        "--copies",
        "2",
        "--scale-size",
        "0.1",
    ];
    let report = json("fixtures/es/smoke.csv.xz", &args);
    assert_eq!(
        (&report["clean"], &report["replay"]["wrong_content"]),
        (&true.into(), &0.into())
    );
    assert!(report["read_back"]["requests"].as_u64().unwrap() > 0);
    let copy = |n: u8| dir.path().join(format!("run/copy-{n}"));
    assert!(copy(1).is_dir() && copy(2).is_dir());
}

#[test]
fn a_device_that_is_none_is_refused() {
    let out = replay("fixtures/es/smoke.csv.xz", &["--target", "model:tape"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("sd-card"));
    let out = replay(
        "fixtures/es/smoke.csv.xz",
        &["--target", "model:hdd", "--scale-size", "0"],
    );
    assert!(!out.status.success());
}
