//! Sharing a load between a directory and the real gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Gateway;
use std::path::Path;
use std::process::Command;
use trace_replay::split::EXAMPLES;

#[test]
fn gateway_process() {
    common::serve();
}

fn split(args: &[&str]) -> (Option<i32>, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .current_dir(root)
        .arg("split")
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn every_way_moves_the_whole_load_checks_it_and_leaves_nothing() {
    let gateway = Gateway::start();
    let device = tempfile::tempdir().unwrap();
    let dir = format!("dir:{}", device.path().display());
    let args = [
        "fixtures/es/smoke.csv.xz",
        "--device",
        &dir,
        "--pod",
        &gateway.url,
        "--prefix",
        "/p",
        "--json",
    ];
    let (code, said, err) = split(&args);
    assert_eq!(code, Some(0), "{said}{err}");
    let results: serde_json::Value = serde_json::from_str(&said).unwrap();
    let outcomes = results["outcomes"].as_array().unwrap();
    let shares: Vec<&str> = outcomes
        .iter()
        .map(|o| o["share"].as_str().unwrap())
        .collect();
    assert_eq!(shares, ["1", "0", "0.5", "auto"]);
    let parts = results["parts"].as_u64().unwrap();
    for outcome in outcomes {
        let side = |side: &str, field: &str| outcome[side][field].as_u64().unwrap();
        assert_eq!(side("device", "parts") + side("pod", "parts"), parts);
        let through = side("device", "through_us").max(side("pod", "through_us"));
        assert_eq!(outcome["makespan_us"].as_u64().unwrap(), through);
    }
    assert_eq!(outcomes[0]["pod"]["operations"], 0);
    assert_eq!(outcomes[1]["device"]["operations"], 0);
    for both in &outcomes[2..] {
        assert!(
            both["device"]["bytes"].as_u64() > Some(0) && both["pod"]["bytes"].as_u64() > Some(0)
        );
    }
    assert_eq!(std::fs::read_dir(device.path()).unwrap().count(), 0);
    let left = std::fs::read_dir(gateway.dir.path().join("root/p")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_directory_that_was_there_before_stays() {
    let gateway = Gateway::start();
    let device = tempfile::tempdir().unwrap();
    std::fs::create_dir(device.path().join("mine")).unwrap();
    let dir = format!("dir:{}", device.path().display());
    for (prefix, stays) in [("/mine", true), ("/made", false)] {
        let trace = "fixtures/es/smoke.csv.xz";
        let to = ["--device", &dir, "--pod", &gateway.url, "--prefix", prefix];
        let (code, said, err) = split(&[&[trace, "--share", "1"], &to[..]].concat());
        assert_eq!(code, Some(0), "{said}{err}");
        let left = std::fs::read_dir(device.path().join(&prefix[1..]));
        assert_eq!(left.is_ok(), stays);
        assert_eq!(left.map_or(0, Iterator::count), 0);
    }
}

#[test]
fn what_cannot_be_split_or_reached_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let device = format!("dir:{}", dir.path().display());
    let trace = "fixtures/es/smoke.csv.xz";
    let pod = "http://127.0.0.1:1/";
    let dav = "fixtures/es/dav_restart_dav.csv.xz";
    for (args, why) in [
        (
            [trace, "--device", "/tmp", "--pod", pod],
            "expected dir:/path",
        ),
        (
            [trace, "--device", &device, "--pod", "ftp://h"],
            "--pod ftp://h",
        ),
        (
            [trace, "--device", &device, "--pod", pod],
            "cannot connect to 127.0.0.1:1",
        ),
        (
            [dav, "--device", &device, "--pod", pod],
            "holds WebDAV requests",
        ),
    ] {
        let (code, _, err) = split(&args);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(why), "{err}");
    }
    let nowhere = format!("{device}/not-mounted");
    let (code, _, err) = split(&[trace, "--device", &nowhere, "--pod", pod]);
    assert_eq!(code, Some(2));
    assert!(err.contains("no such directory"), "{err}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_examples_of_the_help_run() {
    let gateway = Gateway::start();
    let dir = tempfile::tempdir().unwrap();
    let text = EXAMPLES.replace("\\\n", "");
    let mut run = 0;
    for line in text.lines().filter(|l| l.contains("trace-replay ")) {
        let line = line
            .replace("dir:/tmp", &format!("dir:{}", dir.path().display()))
            .replace("http://127.0.0.1:4918/", &gateway.url);
        let args: Vec<&str> = line.split_whitespace().skip(2).collect();
        let (code, _, err) = split(&args);
        assert_eq!(code, Some(0), "{line}: {err}");
        run += 1;
    }
    assert_eq!(run, 2);
}

#[test]
fn a_report_holds_the_reads_by_tier_of_the_real_gateway() {
    let gateway = Gateway::start();
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let tool = |args: &[&std::ffi::OsStr]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trace-replay"));
        let out = command.current_dir(root).args(args).output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    let report = dir.path().join("run");
    let args = [
        "replay",
        "fixtures/es/smoke.csv.xz",
        "--target",
        &gateway.url,
        "-q",
        "--metrics",
        &gateway.metrics,
    ];
    let mut args: Vec<&std::ffi::OsStr> = args.iter().map(std::ffi::OsStr::new).collect();
    args.extend([std::ffi::OsStr::new("--report"), report.as_os_str()]);
    tool(&args);
    let text = std::fs::read_to_string(report.join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let samples = json["tiers"]["samples"].as_array().unwrap();
    let reads = |s: &serde_json::Value| {
        s["reads"]["cache"].as_u64().unwrap() + s["reads"]["backing"].as_u64().unwrap()
    };
    assert!(samples.len() >= 2 && reads(&samples[0]) == 0, "{samples:?}");
    assert!(reads(samples.last().unwrap()) > 0, "{samples:?}");
    let page = dir.path().join("page.html");
    let sides = [
        std::ffi::OsStr::new("compare"),
        report.as_os_str(),
        report.as_os_str(),
    ];
    tool(
        &[
            &sides[..],
            &[std::ffi::OsStr::new("--html"), page.as_os_str()],
        ]
        .concat(),
    );
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains("Reads served by the cache tier")
    );
}
