//! Capturing what real programs do, with the real strace. Where strace may not trace, the tests say so and pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use trace_replay::capture::EXAMPLES;
use trace_replay::read::open;
use trace_replay::trace::{Entry, Op};

fn strace_works() -> bool {
    let works = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    let works = works.is_ok_and(|s| s.success());
    if !works {
        eprintln!("skipped: strace cannot run here");
    }
    works
}

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_trace-replay"))
}

fn entries(path: &Path) -> Vec<Entry> {
    let mut reader = open(path).unwrap();
    std::iter::from_fn(|| reader.next_entry())
        .map(Result::unwrap)
        .collect()
}

fn bytes(entries: &[Entry], op: Op, end: &str) -> Vec<(u64, u64)> {
    let hit = |e: &&Entry| e.op == op && e.path.ends_with(end) && e.length > 0;
    entries
        .iter()
        .filter(hit)
        .map(|e| (e.offset, e.length))
        .collect()
}

#[test]
fn a_command_and_its_children_are_recorded_and_its_status_is_passed_on() {
    if !strace_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("a"), vec![7; 100_000]).unwrap();
    let trace = dir.path().join("t.csv");
    let out = tool()
        .current_dir(&work)
        .arg("capture")
        .arg("-o")
        .arg(&trace)
        .arg("--within")
        .arg(&work)
        .args([
            "--",
            "sh",
            "-c",
            "cp a b && (cat b > c) && mv c d && rm b; exit 3",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(
        said.contains("left out: outside --within; first: "),
        "{said}"
    );
    assert!(!said.contains("mmap"), "of files outside: {said}");
    let seen = entries(&trace);
    let inside = work.canonicalize().unwrap();
    let inside = inside.to_str().unwrap().trim_start_matches('/');
    assert!(seen.iter().all(|e| e.path.starts_with(inside)));
    // Whichever way cp and cat copy here, all bytes are read once and written once.
    for (op, name) in [
        (Op::FileRead, "/a"),
        (Op::FileWrite, "/b"),
        (Op::FileRead, "/b"),
        (Op::FileWrite, "/c"),
    ] {
        let parts = bytes(&seen, op, name);
        assert_eq!(
            parts.iter().map(|p| p.1).sum::<u64>(),
            100_000,
            "{} {name}",
            op.name()
        );
        assert!(
            parts.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0),
            "{parts:?}"
        );
    }
    let moved = seen
        .iter()
        .find(|e| e.op == Op::FileRename && e.outcome.is_ok())
        .unwrap();
    assert!(moved.path.ends_with("/c") && moved.path2.as_deref().unwrap().ends_with("/d"));
    // What was recorded replays on a directory, each byte checked.
    let status = tool()
        .args(["replay", "--quiet", "--target"])
        .arg(format!("dir:{}", dir.path().display()))
        .args(["--prefix", "again"])
        .arg(&trace)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_directory_that_the_command_makes_can_be_watched_and_a_failure_that_touches_nothing_is_passed_on()
 {
    if !strace_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    let capture = |command: &str| {
        tool()
            .current_dir(dir.path())
            .args(["capture", "-o", "t.csv", "--within", "made", "--", "sh"])
            .args(["-c", command])
            .output()
            .unwrap()
    };
    let done = capture("mkdir made; echo a > made/a");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(bytes(&entries(&trace), Op::FileWrite, "made/a"), [(0, 2)]);
    assert_eq!(capture("exit 5").status.code(), Some(5));
}

/// Whether strace has seized the process, interrupted it, let it go on, and waits for what it does. Asked in this order: a process
/// that sleeps goes on sleeping when it is seized, and wakes when it is interrupted.
fn is_watched(pid: u32) -> bool {
    let field = |pid: &str, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim().to_owned()
    };
    let sleeps = |pid: &str| field(pid, "State:").starts_with('S');
    let pid = pid.to_string();
    let tracer = field(&pid, "TracerPid:");
    tracer != "0" && sleeps(&tracer) && sleeps(&pid)
}

#[test]
fn a_running_process_is_watched_with_its_offsets_and_let_go() {
    if !strace_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    // Writes 5 bytes for each line it is given, through a descriptor that is open before strace comes.
    let mut shell = Command::new("sh")
        .args(["-c", "exec 5>log; echo early >&5; echo ready; while read line; do echo late >&5; echo done; done"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(shell.stdout.take().unwrap()).lines();
    assert_eq!(says.next().unwrap().unwrap(), "ready");
    let capture = tool()
        .args(["capture", "--pid", &shell.id().to_string(), "-o"])
        .arg(&trace)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_watched(shell.id()) {
        std::thread::yield_now();
    }
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    assert_eq!(says.next().unwrap().unwrap(), "done");
    let pid = rustix::process::Pid::from_raw(capture.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let out = capture.wait_with_output().unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    // The process goes on without us.
    stdin.write_all(b"go\n").unwrap();
    assert_eq!(says.next().unwrap().unwrap(), "done");
    drop(stdin);
    assert!(shell.wait().unwrap().success());
    assert_eq!(bytes(&entries(&trace), Op::FileWrite, "/log"), [(6, 5)]);
}

/// strace has each program take half a second to begin.
#[test]
fn a_signal_while_the_command_begins_ends_the_capture_with_its_trace() {
    if !strace_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    let mut slow = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "trace=execve"])
        .args(["-e", "inject=execve:delay_enter=500000"])
        .arg(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["capture", "--proxy", "127.0.0.1:0=http://127.0.0.1:1", "-o"])
        .arg(&trace)
        .args(["--", "sleep", "60"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let children = |pid: u32| -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
        let threads = threads.into_iter().flatten().flatten();
        let lists = threads.map(|t| std::fs::read_to_string(t.path().join("children")));
        let lists: Vec<String> = lists.flatten().collect();
        let pids = lists.iter().flat_map(|list| list.split_whitespace());
        pids.map(|pid| pid.parse().unwrap()).collect()
    };
    let is_capture = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "trace-replay\n")
    };
    let capture = loop {
        assert!(slow.try_wait().unwrap().is_none(), "it ended early");
        let capture = children(slow.id()).into_iter().find(is_capture);
        // Its command is there, and has not begun.
        if let Some(capture) = capture.filter(|pid| !children(*pid).is_empty()) {
            break rustix::process::Pid::from_raw(capture as i32).unwrap();
        }
        std::thread::yield_now();
    };
    rustix::process::kill_process(capture, rustix::process::Signal::TERM).unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(143));
    assert!(trace.exists());
}

#[test]
fn what_cannot_be_captured_is_named_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let out = tool()
            .current_dir(dir.path())
            .arg("capture")
            .args(args)
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(run(&["-o", "t.csv"]).contains("nothing to capture"));
    assert!(run(&["-o", "t.csv", "--pid", "999999999"]).contains("--pid"));
    assert!(run(&["-o", "t", "--", "true"]).contains("--to"));
    assert!(run(&["-o", "no/t.csv", "--", "true"]).contains("no/t.csv"));
    let said = run(&["-o", "t.parquet", "--", "touch", "ran"]);
    assert!(said.contains("WebDAV requests only"), "{said}");
    if strace_works() {
        assert!(run(&["-o", "t.csv", "--", "/no/such/command"]).contains("recorded nothing"));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_examples_of_the_help_run() {
    if !strace_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for line in EXAMPLES.lines().filter(|l| l.contains("trace-replay ")) {
        // A process to attach to is what the test above has; only its syntax is tried here.
        let line = line.replace("/tmp", &dir.path().display().to_string());
        if line.contains("--pid") {
            assert!(line.contains("--pid 1234"));
            continue;
        }
        let script = line
            .trim()
            .replacen("trace-replay", env!("CARGO_BIN_EXE_trace-replay"), 1);
        let out = Command::new("sh")
            .arg("-c")
            .arg(&script)
            .current_dir(root)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
