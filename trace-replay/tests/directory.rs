//! Replays on a directory: every call, every byte, early ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use trace_replay::plan::{Plan, Settings, Shape, plan_with};
use trace_replay::read::{CsvReader, open};
use trace_replay::replay::{On, Options, Speed, run};
use trace_replay::report::Report;

fn calls(rows: &str) -> Plan {
    let text = format!("ts_us,client,thread,op,path,path2,offset,length,result\n{rows}");
    let settings = Settings {
        shape: Shape::Calls,
        ..Settings::default()
    };
    let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
    plan_with(&mut reader, &settings).unwrap()
}

async fn on_directory(plan: Plan, root: &Path, options: Options) -> Report {
    run(plan, On::Dir(root.to_path_buf()), options).await
}

const ROWS: &str = "1,c,a,mkdir,d,,,,ok\n2,c,a,create,d/f,,,,ok\n3,c,a,write,d/f,,0,600000,ok\n4,c,a,fsync,d/f,,,,ok
5,c,b,open,d/f,,,,ok\n6,c,b,read,d/f,,1000,500000,ok\n7,c,a,write,d/f,,100,50,ok\n8,c,b,read,d/f,,0,600000,ok
9,c,a,rename,d,e,,,ok\n10,c,b,stat,d,,,,ENOENT\n11,c,a,write,e/f,,700000,10,ok\n12,c,a,close,e/f,,,,ok
13,c,b,unlink,e/f,,,,ok\n14,c,b,close,e/f,,,,ok\n15,c,a,create,e/g,,,,ok\n16,c,a,write,e/g,,0,77,ok
17,c,a,truncate,e/g,,,30,ok\n18,c,b,list,e,,,,ok\n19,c,b,rmdir,e,,,,ENOTEMPTY\n20,c,b,read,old,,5,10,ok\n";

#[tokio::test]
async fn every_call_is_made_and_every_byte_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let plan = calls(ROWS);
    let made: Vec<&str> = plan.requests.iter().map(|r| r.kind.name()).collect();
    assert_eq!(
        made,
        [
            "mkdir", "create", "write", "fsync", "open", "read", "write", "read", "rename", "stat",
            "write", "close", "unlink", "close", "create", "write", "truncate", "list", "rmdir",
            "read", "close"
        ]
    );
    // The other thread only reads: it opened the file for reading.
    assert!(plan.requests[1].writable && !plan.requests[4].writable);
    let report = on_directory(plan, dir.path(), Options::default()).await;
    assert!(report.is_clean(), "{}", report.text());
    let json = report.json();
    assert_eq!(json["replay"]["written_bytes"], 600_000 + 50 + 10 + 77);
    assert_eq!(json["replay"]["read_bytes"], 500_000 + 600_000 + 10);
    // e/g and the file that was there before.
    assert_eq!(json["read_back"]["requests"], 2);
    assert_eq!(std::fs::metadata(dir.path().join("e/g")).unwrap().len(), 30);
    assert!(!dir.path().join("d").exists() && !dir.path().join("e/f").exists());
}

#[tokio::test]
async fn no_path_of_a_trace_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&kept, b"precious").unwrap();
    let plan = calls(
        "1,c,a,mkdir,..,,,,ok\n2,c,a,create,f,,,,ok\n3,c,a,write,f,,0,5,ok\n4,c,a,close,f,,,,ok
5,c,a,rename,f,../kept,,,ok\n6,c,a,unlink,x/../../kept,,,,ok\n7,c,a,stat,..f,,,,ENOENT\n",
    );
    assert_eq!(
        plan.not_sent.values().sum::<u64>(),
        3,
        "{:?}",
        plan.not_sent
    );
    let report = on_directory(plan, &root, Options::default()).await;
    assert!(report.is_clean(), "{}", report.text());
    assert_eq!(std::fs::read(&kept).unwrap(), b"precious");
}

#[tokio::test]
async fn a_foreign_file_in_the_way_fails_the_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"foreign").unwrap();
    let plan = calls("1,c,a,create,f,,,,ok\n");
    let report = on_directory(plan, dir.path(), Options::default()).await;
    assert_eq!(report.replay.wrong_status, 1);
    let text = report.text();
    assert!(text.contains("create /f: File exists"), "{text}");
}

#[tokio::test]
async fn the_recorded_elasticsearch_node_replays_clean_in_every_order() {
    for free_lanes in [false, true] {
        let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/es/smoke.csv.xz");
        let settings = Settings {
            shape: Shape::Calls,
            free_lanes,
            ..Settings::default()
        };
        let plan = plan_with(&mut *open(&trace).unwrap(), &settings).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let report = on_directory(plan, dir.path(), Options::default()).await;
        assert!(report.is_clean(), "{}", report.text());
    }
}

#[tokio::test]
async fn the_warm_up_is_counted_apart() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        speed: Speed::Timed(1.0),
        warmup: Duration::from_millis(50),
        ..Options::default()
    };
    let plan = calls("0,c,a,mkdir,a,,,,ok\n100000,c,a,mkdir,b,,,,ok\n");
    let json = on_directory(plan, dir.path(), options).await.json();
    assert_eq!(json["warm_up"]["requests"], 1);
    assert_eq!(json["replay"]["requests"], 1);
    assert_eq!(json["partial"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_duration_ends_the_run_with_a_report_of_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        speed: Speed::Timed(1.0),
        duration: Some(Duration::from_secs(1)),
        ..Options::default()
    };
    let plan = calls("0,c,a,mkdir,a,,,,ok\n3600000000,c,a,mkdir,b,,,,ok\n");
    let report = on_directory(plan, dir.path(), options).await;
    let json = report.json();
    assert_eq!(json["replay"]["requests"], 1);
    assert_eq!(json["partial"]["not_started"], 1);
    assert!(report.text().contains("PARTIAL: --duration is over"));
    assert!(dir.path().join("a").exists() && !dir.path().join("b").exists());
}

/// As on a machine that takes longer than `duration` to begin.
#[tokio::test]
async fn what_begins_with_the_run_is_part_of_the_shortest_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        speed: Speed::Timed(1.0),
        duration: Some(Duration::from_nanos(1)),
        ..Options::default()
    };
    let plan = calls("0,c,a,mkdir,a,,,,ok\n3600000000,c,a,mkdir,b,,,,ok\n");
    let json = on_directory(plan, dir.path(), options).await.json();
    assert_eq!(json["replay"]["requests"], 1);
    assert_eq!(json["partial"]["not_started"], 1);
}

/// A server of metrics that takes its time.
#[test]
fn the_first_look_at_the_metrics_comes_before_the_first_call() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    std::fs::write(&trace, "ts_us,client,op,path,result\n0,c,mkdir,a,ok\n").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["replay", "--quiet", "--target"])
        .arg(format!("dir:{}", dir.path().display()))
        .args(["--prefix", "run", "--metrics"])
        .arg(format!("http://{}/m", server.local_addr().unwrap()))
        .arg("--report")
        .args([&dir.path().join("report.json"), &trace])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut first, _) = server.accept().unwrap();
    assert!(first.read(&mut [0; 4096]).unwrap() > 0);
    // The time in which the run must not begin is the experiment.
    std::thread::sleep(Duration::from_millis(300));
    let begun = dir.path().join("run/a").exists();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    first.write_all(answer).unwrap();
    // The later looks find nobody.
    drop((first, server));
    assert!(common::ended(&mut child).success());
    assert!(!begun && dir.path().join("run/a").exists());
}

#[tokio::test]
async fn a_command_runs_between_set_up_and_replay_and_its_failure_ends_the_run() {
    let existing = "0,c,a,read,old,0,4,,ok\n1,c,a,mkdir,new,,,,ok\n";
    for (status, replayed) in [(0, true), (3, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let (old, new) = (old.display(), new.display());
        let options = Options {
            after_set_up: Some(format!("test -e {old} && ! test -e {new} && exit {status}")),
            ..Options::default()
        };
        let report = on_directory(calls(existing), dir.path(), options).await;
        assert_eq!(report.is_clean(), replayed, "{}", report.text());
        assert_eq!(dir.path().join("new").exists(), replayed);
        assert_eq!(report.text().contains("exit status: 3"), !replayed);
    }
}

#[test]
fn a_filter_that_leaves_nothing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    std::fs::write(&trace, "ts_us,op,path\n0,mkdir,a\n").unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["replay", "--target", "model:hdd", "--filter", "path=b"])
        .arg(&trace)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("1 left out by --filter"), "{said}");
}

#[test]
fn a_trace_of_which_no_line_can_be_used_is_no_clean_replay() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    std::fs::write(&trace, "ts_us,op,path\n0,delete,a\n").unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["replay", "--target", "model:hdd"])
        .arg(&trace)
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("t.csv:2: column 2 (op)"), "{said}");
}

#[test]
fn ctrl_c_and_sigterm_end_the_run_with_a_report_where_it_was_to_go() {
    for signal in ["-INT", "-TERM"] {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("t.csv");
        std::fs::write(
            &trace,
            "ts_us,client,op,path,result\n0,c,mkdir,a,ok\n3600000000,c,mkdir,b,ok\n",
        )
        .unwrap();
        let report = dir.path().join("reports/of/today.json");
        let child = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
            .args(["replay", "--speed", "1", "--json", "--quiet", "--target"])
            .arg(format!("dir:{}", dir.path().display()))
            .args(["--prefix", "run", "--report"])
            .args([&report, &trace])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The first call shows that the run, and with it the handler, is there.
        let begun = || dir.path().join("run/a").exists().then_some(());
        common::wait_for("the first call", begun);
        // As timeout(1) does, which signals the process and then its group.
        let id = child.id().to_string();
        let kill = Command::new("kill").args([signal, &id, &id]).status();
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("Ctrl-C again"), "{said}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["partial"]["because"], "interrupted");
        assert_eq!(json["partial"]["not_started"], 1);
        assert_eq!(json["replay"]["operations"]["mkdir"]["count"], 1);
        assert!(report.exists());
    }
}

/// As with `2>&1 | tee log`: Ctrl-C ends `tee`, too.
#[test]
fn ctrl_c_ends_the_run_with_a_report_though_nobody_hears_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.csv");
    let rows = "ts_us,client,op,path,result\n0,c,mkdir,a,ok\n3600000000,c,mkdir,b,ok\n";
    std::fs::write(&trace, rows).unwrap();
    let report = dir.path().join("report.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["replay", "--speed", "1", "--target"])
        .arg(format!("dir:{}", dir.path().display()))
        .args(["--prefix", "run", "--report"])
        .args([&report, &trace])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = || dir.path().join("run/a").exists().then_some(());
    common::wait_for("the first call", begun);
    drop(child.stderr.take());
    common::signal("-INT", &child);
    let status = common::ended(&mut child);
    assert_eq!(status.code(), Some(0));
    let json = std::fs::read_to_string(report).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["partial"]["because"], "interrupted");
}

#[test]
fn more_clients_than_the_system_has_threads_for_are_a_failure_with_a_report() {
    let dir = tempfile::tempdir().unwrap();
    // Each thread wants 2 MiB of address space for its stack.
    let out = Command::new("sh")
        .args(["-c", "ulimit -v 3000000; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_trace-replay"))
        .args([
            "replay",
            "../fixtures/es/smoke.csv.xz",
            "--clients",
            "5000",
            "--quiet",
        ])
        .args(["--target", &format!("dir:{}", dir.path().display())])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(
        said.contains("threads are too many for this system"),
        "{said}"
    );
}
