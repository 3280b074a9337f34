//! Comparing reports of replays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use trace_replay::compare::{Args, Comparison, EXAMPLES, compare};

fn report(file: &Path, latency_us: u64, elapsed_us: u64) {
    let text = format!(
        r#"{{"level":"file-operations","speed":"max","clients":8,"entries":10,"clean":true,"partial":null,"replay":
        {{"elapsed_us":{elapsed_us},"operations":{{"read":{{"count":10,"latency_us":{{"p50":{latency_us},"p99":{latency_us},"mean":{latency_us}}}}}}}}}}}"#
    );
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn run(sides: [PathBuf; 2], fail_above: f64) -> Comparison {
    let args = Args {
        sides: sides.to_vec(),
        fail_above: Some(fail_above),
        json: false,
        html: None,
    };
    compare(&args).unwrap()
}

#[test]
fn single_runs_fail_by_their_ratio_in_either_direction() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.json"), dir.path().join("b.json"));
    report(&a, 100, 1_000_000);
    report(&b, 120, 500_000);
    let slower = run([a.clone(), b.clone()], 1.1);
    let failed: Vec<&str> = slower
        .rows
        .iter()
        .filter(|r| r.failed)
        .map(|r| r.measure)
        .collect();
    assert_eq!(failed, ["p50", "p99", "mean"]);
    assert!((slower.rows[0].ratio - 1.2).abs() < 1e-9 && slower.rows[0].interval.is_none());
    assert!(
        (slower.rows[3].base - 10.0).abs() < 1e-9 && (slower.rows[3].value - 20.0).abs() < 1e-9
    );
    // Turned round, the throughput has halved.
    let turned = run([b.clone(), a.clone()], 1.1);
    let failed: Vec<&str> = turned
        .rows
        .iter()
        .filter(|r| r.failed)
        .map(|r| r.measure)
        .collect();
    assert_eq!(failed, ["throughput"]);
    assert!(!run([a, b], 1.21).failed());
}

#[test]
fn a_run_with_failures_passes_no_threshold_however_fast_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name).with_extension("json"));
    report(&a, 100, 1_000_000);
    let text = std::fs::read_to_string(&a).unwrap();
    std::fs::write(&b, text.replace("\"clean\":true", "\"clean\":false")).unwrap();
    std::fs::write(&c, text.replace("{\"read\"", "{\"write\"")).unwrap();
    for (new, why) in [(&b, "FAILED: "), (&c, "FAILED: read: not in every side")] {
        let compared = run([a.clone(), new.clone()], 2.0);
        assert!(compared.failed() && compared.text().contains(why));
    }
    let cut = text.replace(
        "\"partial\":null",
        "\"partial\":{\"because\":\"interrupted\"}",
    );
    std::fs::write(&c, cut.replace("{\"read\"", "{\"write\"")).unwrap();
    assert!(run([a.clone(), c.clone()], 2.0).failed());
    // A run that was cut short and came to all operations can be held against it.
    std::fs::write(&c, cut).unwrap();
    assert!(!run([a.clone(), c], 2.0).failed());
    // Without a threshold there is nothing to pass.
    let args = Args {
        sides: vec![a, b],
        fail_above: None,
        json: false,
        html: None,
    };
    assert!(!compare(&args).unwrap().failed());
}

#[test]
fn repeated_runs_have_an_interval_and_fail_only_beyond_doubt() {
    let dir = tempfile::tempdir().unwrap();
    for (i, (a, b, c)) in [(100, 90, 198), (110, 120, 210), (90, 180, 202)]
        .into_iter()
        .enumerate()
    {
        for (side, latency) in [("a", a), ("b", b), ("c", c)] {
            report(
                &dir.path().join(side).join(format!("{i}.json")),
                latency,
                1_000_000,
            );
        }
    }
    let side = |name: &str| dir.path().join(name);
    let noisy = run([side("a"), side("b")], 1.1);
    let [low, high] = noisy.rows[0].interval.unwrap();
    assert!(noisy.rows[0].ratio > 1.1 && low < 1.0 && high > noisy.rows[0].ratio);
    assert!(!noisy.failed(), "{}", noisy.text());
    let clear = run([side("a"), side("c")], 1.1);
    // Welch by hand: difference of the log means 0.71273, standard error 0.06047, 2.35 degrees of freedom, t(2) 4.303.
    let [low, high] = clear.rows[0].interval.unwrap();
    assert!(
        (low - 1.574).abs() < 0.01 && (high - 2.642).abs() < 0.02,
        "{low} {high}"
    );
    assert!(clear.failed());
}

#[test]
fn what_is_no_report_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.json");
    std::fs::write(&file, "{}").unwrap();
    let args = Args {
        sides: vec![file.clone(), file],
        fail_above: None,
        json: false,
        html: None,
    };
    let error = format!("{:#}", compare(&args).unwrap_err());
    assert!(error.contains("x.json: no report of"), "{error}");
}

#[test]
fn the_examples_of_the_help_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for line in EXAMPLES.lines().filter(|l| l.contains("trace-replay ")) {
        let line = line.replace("/tmp", &dir.path().display().to_string());
        let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
            .current_dir(root)
            .args(line.split_whitespace().skip(1))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{line}: {said}");
    }
    let text = std::fs::read_to_string(dir.path().join("a/replay-read.hgrm")).unwrap();
    assert!(text.contains("#[Max     ="), "{text}");
    assert!(dir.path().join("a/latencies.hlog").exists());
    let page = std::fs::read_to_string(dir.path().join("compare.html")).unwrap();
    for item in [
        "95 % interval",
        "share of requests",
        "requests a second",
        "Mean latency",
    ] {
        assert!(page.contains(item), "{item}");
    }
    assert!(
        !page.contains("No data.") && !page.contains("NaN"),
        "{page}"
    );
}

#[test]
fn settings_that_make_runs_hard_to_compare_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let replay = |name: &str, args: &[&str]| {
        let file = dir.path().join(name);
        let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
            .current_dir(root)
            .args([
                "replay",
                "fixtures/es/smoke.csv.xz",
                "--target",
                "model:hdd",
                "--quiet",
                "--report",
            ])
            .arg(&file)
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        file
    };
    let base = replay("a.json", &[]);
    let same = replay("b.json", &["--mode", "afap"]);
    assert_eq!(run([base.clone(), same], 9.0).warnings, [""; 0]);
    let other = replay(
        "c.json",
        &[
            "--mode",
            "closed",
            "--scale-size",
            "2",
            "--filter",
            "op=read,open",
        ],
    );
    let said = run([base, other], 9.0).warnings.join("\n");
    for want in [
        "mode \"closed\", where the first run has \"afap\"",
        "scale_size 2.0",
        "filter [\"op=read,open\"]",
    ] {
        assert!(said.contains(want), "{said}");
    }
}
