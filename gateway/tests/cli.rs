//! What the program says about itself: completions that a shell takes, manual pages that render.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output, Stdio};

fn tierdav(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tierdav"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tierdav"))
        .arg("check-config")
        // A key that is set for the tests only would be warned of.
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

fn completes(script: &std::path::Path, words: &str) -> String {
    let bash = format!(
        "source \"$0\" && complete -p tierdav && COMP_WORDS=({words}) && COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && \
         _tierdav tierdav \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" && echo \"${{COMPREPLY[*]}}\""
    );
    let out = Command::new("bash")
        .args(["--norc", "-c", &bash])
        .arg(script)
        .output()
        .unwrap();
    let trouble = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{trouble}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn bash_completes_commands_and_the_flags_of_every_key() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("tierdav.bash");
    std::fs::write(&script, tierdav(&["completions", "bash"]).stdout).unwrap();
    let said = completes(&script, "tierdav ch");
    assert!(said.contains("check-config"), "{said}");
    let said = completes(&script, "tierdav serve --high");
    assert!(said.contains("--high-watermark"), "{said}");
    let said = completes(&script, "tierdav completions z");
    assert!(said.contains("zsh"), "{said}");
    for shell in ["zsh", "fish"] {
        let out = tierdav(&["completions", shell]);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("high-watermark") && text.contains("hash-password"));
    }
    assert!(!tierdav(&["completions", "dcl"]).status.success());
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("man1");
    assert!(tierdav(&["man", to.to_str().unwrap()]).status.success());
    let help = String::from_utf8(tierdav(&["--help"]).stdout).unwrap();
    let list = help.split("Commands:\n").nth(1).unwrap();
    let mut seen = 0;
    for line in list.lines().take_while(|l| l.starts_with("  ")) {
        let command = line.split_whitespace().next().unwrap();
        if command == "help" {
            continue;
        }
        let page = to.join(format!("tierdav-{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{command}");
        // Where groff is there, it must have nothing to complain about.
        if let Ok(out) = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww"])
            .arg(&page)
            .output()
        {
            let trouble = String::from_utf8_lossy(&out.stderr);
            assert!(
                out.status.success() && trouble.is_empty(),
                "{command}: {trouble}"
            );
        }
        seen += 1;
    }
    assert!(seen >= 13, "{help}");
    // A directory that cannot be made is named.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let out = tierdav(&["man", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("file"), "{said}");
}
