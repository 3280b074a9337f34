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

#[test]
fn what_is_no_text_in_the_environment_is_no_reason_to_panic() {
    use std::os::unix::ffi::OsStrExt;
    let run = |name: &str| {
        Command::new(env!("CARGO_BIN_EXE_tierdav"))
            .arg("check-config")
            .env_clear()
            .env(name, std::ffi::OsStr::from_bytes(b"/\xff"))
            .output()
            .unwrap()
    };
    let done = run("LS_COLORS");
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let refused = run("TIERDAV_ROOT");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("TIERDAV_ROOT): must be UTF-8"), "{said}");
}

#[test]
fn a_line_for_users_file_is_read_as_it_was_meant_or_not_made() {
    let hash = |name: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tierdav"))
            .args(["hash-password", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"secret\n").unwrap();
        drop(input);
        child.wait_with_output().unwrap()
    };
    assert!(hash("pi").stdout.starts_with(b"pi:$argon2id$"));
    for name in ["#pi", "", "a\nb", "a:b"] {
        let refused = hash(name);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{name:?}: {said}");
        assert!(
            refused.stdout.is_empty() && said.contains("user's name"),
            "{said}"
        );
    }
}

#[test]
fn a_server_that_never_answers_is_not_waited_for_for_ever() {
    // It takes connections, and no more.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = silent.local_addr().unwrap().to_string();
    for command in [&["status"][..], &["locks"], &["policy"]] {
        let done = tierdav(&[command, &["--admin", &admin]].concat());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("{admin} has not answered")),
            "{said}"
        );
    }
}
