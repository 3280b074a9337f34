//! What the tool says about itself: examples in every help, completions that a shell takes, manual pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Gateway;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn gateway_process() {
    common::serve();
}

fn tool(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .current_dir(root)
        .env("COLUMNS", "400")
        .args(args)
        .output()
        .unwrap()
}

fn help(args: &[&str]) -> String {
    let mut args = args.to_vec();
    args.push("--help");
    String::from_utf8(tool(&args).stdout).unwrap()
}

fn commands() -> Vec<String> {
    let text = help(&[]);
    let list = text
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names = list
        .lines()
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let names = names.map(|l| l.split_whitespace().next().unwrap().to_string());
    names.filter(|n| n != "help").collect()
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .arg("policies")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn every_command_shows_an_example() {
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        let text = help(&[&command]);
        let example = text
            .split("Examples:")
            .nth(1)
            .unwrap_or_else(|| panic!("{command}: {text}"));
        assert!(
            example.contains(&format!("trace-replay {command}")),
            "{example}"
        );
    }
}

/// The examples of the others, and that of `calibrate` with a pool, run in the tests of their commands, some with a server.
#[test]
fn examples_that_need_nothing_else_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut ran = 0;
    for command in [
        "info",
        "policies",
        "simulate",
        "calibrate",
        "synth",
        "completions",
        "man",
    ] {
        let text = help(&[command]).replace("\\\n", " ");
        let examples = text.split("Examples:").nth(1).unwrap();
        for line in examples
            .lines()
            .map(str::trim)
            .filter(|l| l.starts_with("trace-replay ") && !l.contains("--pool"))
        {
            let line = line.replace("/tmp", &dir.path().display().to_string());
            let args: Vec<&str> = line.split_whitespace().skip(1).collect();
            let out = tool(&args);
            assert!(
                out.status.success(),
                "{line}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            ran += 1;
        }
    }
    assert!(ran >= 12, "{ran}");
}

#[test]
fn bash_takes_the_completions_and_completes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace-replay.bash");
    std::fs::write(&file, tool(&["completions", "bash"]).stdout).unwrap();
    let script = "source \"$0\" && complete -p trace-replay && \
        COMP_WORDS=(trace-replay co) && COMP_CWORD=1 && _trace__replay trace-replay co trace-replay && echo \"${COMPREPLY[*]}\"";
    let out = Command::new("bash")
        .args(["--norc", "-c", script])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(
        said.contains("-F _trace__replay") && said.contains("convert") && said.contains("compare"),
        "{said}"
    );
    for shell in ["zsh", "fish"] {
        assert!(tool(&["completions", shell]).stdout.len() > 1000);
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("man1");
    assert!(tool(&["man", to.to_str().unwrap()]).status.success());
    for command in commands() {
        let page = std::fs::read_to_string(to.join(format!("trace-replay-{command}.1"))).unwrap();
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains("Examples"),
            "{command}"
        );
    }
    // Where groff or mandoc is there, it must have nothing to complain about.
    let page = to.join("trace-replay-replay.1");
    for (tool, args) in [
        ("groff", &["-man", "-Tutf8", "-ww"][..]),
        ("mandoc", &["-Wwarning"][..]),
    ] {
        if let Ok(out) = Command::new(tool).args(args).arg(&page).output() {
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(
                out.status.success() && text.contains("warmup"),
                "{tool}: {text}"
            );
        }
    }
}

/// What a report, as JSON or as text, says of failures.
fn failures(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stdout);
    let Ok(report) = serde_json::from_str::<serde_json::Value>(&text) else {
        return text.into_owned();
    };
    let phases = ["set_up", "warm_up", "replay", "read_back"].iter();
    phases
        .flat_map(|phase| report[phase]["examples"].as_array().into_iter().flatten())
        .map(|example| format!("{example}\n"))
        .collect()
}

/// Those at recorded speed are ended after a second of their own.
#[test]
fn the_examples_of_replay_run() {
    let dir = tempfile::tempdir().unwrap();
    let text = help(&["replay"]).replace("\\\n", " ");
    let examples = text.split("Examples:").nth(1).unwrap();
    let mut ran = 0;
    for line in examples
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with("trace-replay "))
    {
        let gateway = Gateway::start();
        let mut line = line
            .replace("dir:/tmp", &format!("dir:{}", dir.path().display()))
            .replace("http://127.0.0.1:4918/", &gateway.url)
            .replace("--duration 60 --warmup 10", "--duration 2 --warmup 1")
            .replace('\'', "");
        if line.contains("--speed") && !line.contains("model:") && !line.contains("--duration") {
            line += " --duration 1";
        }
        let args: Vec<&str> = line.split_whitespace().skip(1).collect();
        let out = tool(&args);
        assert!(
            out.status.success(),
            "{line}: {}\nfailures:\n{}\nthe gateway:\n{}",
            String::from_utf8_lossy(&out.stderr),
            failures(&out),
            gateway.log()
        );
        ran += 1;
    }
    assert_eq!(ran, 6);
}
