//! `trace-replay tune` from the command line to the gateway's configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use gateway::config::{Config, Raw};

fn tune(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .current_dir(root)
        .arg("tune")
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn the_gateway_accepts_what_is_found_for_every_policy() {
    let dir = tempfile::tempdir().unwrap();
    for &policy in tiering::PolicyConfig::NAMES {
        let file = dir.path().join(format!("{policy}.toml"));
        let path = file.to_str().unwrap();
        let out = tune(&[
            "fixtures/es/smoke.csv.xz",
            "--candidates",
            "3",
            "--budget",
            "2s",
            "--policy",
            policy,
            "--toml",
            path,
        ]);
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{policy}: {out:?}");
        let toml = std::fs::read_to_string(&file).unwrap();
        assert!(said.contains(&toml), "{said}");
        let mut raw = Raw::default();
        raw.read_file(&file);
        let config = Config::check(&raw).unwrap();
        assert_eq!(config.policy.name(), policy);
        assert_eq!(raw.warnings(), [""; 0]);
    }
}

#[test]
fn a_search_without_any_time_answers_with_the_defaults() {
    let trace = "fixtures/es/smoke.csv.xz";
    let out = tune(&[trace, "--budget", "0.001s", "--json", "--quiet"]);
    assert!(out.status.success(), "{out:?}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["tried"], 1);
    assert_eq!(json["cases"][0]["seen"]["score"], 1.0);
}

/// A search that has begun, and what it says on standard error from its second line on.
fn search(file: &Path, stdout: Stdio) -> (Child, BufReader<ChildStderr>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .current_dir(root)
        .args(["tune", "fixtures/es/local_256.csv.xz", "--toml"])
        .arg(file)
        .args(["--candidates", "60", "--budget", "1h"])
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of progress shows that the search has begun, and the second rung takes much longer than this test.
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("60 settings on 10 %"), "{line}");
    (child, said)
}

#[test]
fn ctrl_c_ends_the_search_with_the_best_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("made/on/the/way.toml");
    let (child, mut said) = search(&file, Stdio::piped());
    common::signal("-INT", &child);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("Ctrl-C again"), "{rest}");
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let toml = std::fs::read_to_string(&file).unwrap();
    assert!(String::from_utf8(out.stdout).unwrap().contains(&toml));
}

#[test]
fn ctrl_c_ends_the_search_though_nobody_hears_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("best.toml");
    let (mut child, said) = search(&file, Stdio::null());
    drop(said);
    common::signal("-INT", &child);
    assert!(common::ended(&mut child).success());
    assert!(std::fs::read_to_string(&file).unwrap().contains("policy"));
}

#[test]
fn json_has_the_best_the_front_and_what_was_held_out() {
    let args = [
        "fixtures/es/smoke.csv.xz",
        "fixtures/es/dav_restart_dav.csv.xz",
        "--candidates",
        "12",
        "--budget",
        "10m",
        "--objective",
        "hdd-time",
        "--json",
        "--quiet",
    ];
    let out = tune(&args);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["objective"], "hdd-time");
    let score = |v: &serde_json::Value| v["score"].as_f64().unwrap();
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    let worst = cases.iter().map(|c| score(&c["seen"])).fold(0.0, f64::max);
    let front = json["front"].as_array().unwrap();
    // The defaults, which are 1, were tried too: the best is never worse.
    assert!(
        worst <= 1.0 && (score(&front[0]) - worst).abs() < 1e-9,
        "{json}"
    );
    assert_eq!(json["best"], front[0]["parameters"]);
    assert!(cases.iter().all(|c| score(&c["held_out"]) > 0.0));
    // With the same number of settings and enough time the result is the same.
    assert_eq!(tune(&args).stdout, out.stdout);
}

#[test]
fn traces_that_are_not_kept_in_memory_give_the_same_result() {
    let tuned = |keep: &str| {
        let out = tune(&[
            "fixtures/es/smoke.csv.xz",
            "fixtures/es/dav_restart_dav.csv.xz",
            "--candidates",
            "9",
            "--budget",
            "10m",
            "--json",
            "--quiet",
            "--keep-up-to",
            keep,
        ]);
        assert!(out.status.success(), "{out:?}");
        out.stdout
    };
    let in_memory = tuned("1000000");
    // None of them; the first one.
    assert_eq!(tuned("0"), in_memory);
    assert_eq!(tuned("1000"), in_memory);
}

#[test]
fn a_wrong_argument_says_what_is_right() {
    for (args, message) in [
        (["--budget", "5"], "write a number with s, m or h"),
        (
            ["--policy", "cost-benefit:theta=0"],
            "`theta` is 0: allowed is 0.001 to 1000",
        ),
        (["--policy", "best"], "known policies"),
        (["--objective", "hits"], "hdd-time"),
    ] {
        let out = tune(&["fixtures/es/smoke.csv.xz", args[0], args[1]]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(message), "{said}");
    }
}

#[test]
fn a_policy_without_parameters_is_told_as_that() {
    let out = tune(&["fixtures/es/smoke.csv.xz", "--policy", "lru"]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("no parameters to search"), "{said}");
}

#[test]
fn the_example_of_the_help_runs() {
    let dir = tempfile::tempdir().unwrap();
    let line = trace_replay::tune::EXAMPLES.lines().nth(1).unwrap();
    let line = line.replace("/tmp/", &format!("{}/", dir.path().display()));
    let args: Vec<&str> = line.split_whitespace().skip(2).collect();
    assert!(tune(&args).status.success());
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let (page, toml) = (read("tuned.html"), read("tuned.toml"));
    assert_eq!(page.matches("<figure").count(), 2);
    let setting = toml
        .lines()
        .find(|l| l.starts_with("cost_benefit_theta"))
        .unwrap();
    assert!(
        page.contains("the last third") && page.contains(setting),
        "{toml}"
    );
}
