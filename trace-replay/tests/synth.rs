//! `synth`: loads that are what their descriptions say, equal for equal seeds, and that replay with every byte right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use trace_replay::info::{Info, collect};
use trace_replay::read::open;
use trace_replay::trace::{Entry, Op};

fn tool(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{args:?}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

fn synth(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let mut all = vec!["synth"];
    all.extend(args);
    all.extend(["-o", path.to_str().unwrap()]);
    tool(&all);
    path
}

fn entries(path: &Path) -> Vec<Entry> {
    let mut reader = open(path).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry() {
        all.push(entry.unwrap());
    }
    assert_eq!(reader.unusable().lines, 0);
    assert!(all.is_sorted_by_key(|e| e.at_us));
    all
}

fn of(entries: &[Entry], op: Op) -> Vec<&Entry> {
    entries.iter().filter(|e| e.op == op).collect()
}

const SMALL: [&[&str]; 5] = [
    &["elasticsearch-load", "--bytes", "4MB"],
    &[
        "iot-ingest",
        "--bytes",
        "300kB",
        "--devices",
        "7",
        "--file-bytes",
        "20kB",
    ],
    &["image-dataset", "--bytes", "2MB", "--epochs", "2"],
    &[
        "zipf",
        "--objects",
        "20",
        "--object-bytes",
        "3000",
        "--accesses",
        "300",
        "--writes",
        "0.4",
    ],
    &[
        "scan",
        "--files",
        "5",
        "--file-bytes",
        "1500kB",
        "--passes",
        "2",
    ],
];

#[test]
fn equal_seeds_give_equal_traces() {
    let dir = tempfile::tempdir().unwrap();
    for kind in SMALL {
        let made = |seed| {
            let path = synth(dir.path(), "t.csv", &[kind, &["--seed", seed]].concat());
            std::fs::read(path).unwrap()
        };
        assert_eq!(made("7"), made("7"), "{kind:?}");
        // A scan has nothing to choose.
        assert_eq!(made("7") == made("8"), kind[0] == "scan", "{kind:?}");
    }
}

/// Every read returns what was written before it, and no operation names what does not exist.
#[test]
fn every_load_replays_with_every_byte_right() {
    let dir = tempfile::tempdir().unwrap();
    for kind in SMALL {
        let trace = synth(dir.path(), "t.csv", kind);
        let target = dir.path().join(kind[0]);
        std::fs::create_dir(&target).unwrap();
        let report = dir.path().join("report.json");
        let target = format!("dir:{}", target.display());
        tool(&[
            "replay",
            trace.to_str().unwrap(),
            "--target",
            &target,
            "--report",
            report.to_str().unwrap(),
        ]);
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        // Equal in every byte, or the tool's status would not be 0; what it did is no less than the trace.
        for part in ["set_up", "replay", "read_back"] {
            let part = &report[part];
            assert_eq!(
                (&part["broken"], &part["wrong_content"]),
                (&0.into(), &0.into()),
                "{kind:?}"
            );
        }
        assert!(
            report["replay"]["requests"].as_u64().unwrap() > 10,
            "{kind:?}: {report}"
        );
    }
}

#[test]
fn a_scan_reads_every_file_whole_once_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let all = entries(&synth(dir.path(), "t.csv", SMALL[4]));
    let mut read: HashMap<&str, u64> = HashMap::new();
    for e in of(&all, Op::FileRead) {
        *read.entry(&e.path).or_default() += e.length;
    }
    assert_eq!(read.len(), 5);
    assert!(
        read.values().all(|bytes| *bytes == 2 * 1_500_000),
        "{read:?}"
    );
    let opened: Vec<&str> = of(&all, Op::FileOpen).iter().map(|e| &*e.path).collect();
    assert_eq!(opened[..5], opened[5..]);
    assert!(of(&all, Op::FileWrite).is_empty());
}

#[test]
fn each_epoch_reads_each_image_once_in_another_order() {
    let dir = tempfile::tempdir().unwrap();
    let all = entries(&synth(dir.path(), "t.csv", SMALL[2]));
    let images: HashSet<&str> = of(&all, Op::FileCreate).iter().map(|e| &*e.path).collect();
    let written: u64 = of(&all, Op::FileWrite).iter().map(|e| e.length).sum();
    let read: u64 = of(&all, Op::FileRead).iter().map(|e| e.length).sum();
    assert!(
        written >= 2_000_000 && read == 2 * written,
        "{written} {read}"
    );
    let opened: Vec<&str> = of(&all, Op::FileOpen).iter().map(|e| &*e.path).collect();
    let (first, second) = opened.split_at(images.len());
    assert_eq!(first.iter().copied().collect::<HashSet<_>>(), images);
    assert_eq!(second.iter().copied().collect::<HashSet<_>>(), images);
    assert_ne!(first, second);
}

#[test]
fn devices_append_and_full_files_are_read_whole_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let all = entries(&synth(dir.path(), "t.csv", SMALL[1]));
    let (mut size, mut read) = (HashMap::<&str, u64>::new(), HashMap::<&str, u64>::new());
    for e in &all {
        match e.op {
            Op::FileWrite => {
                let end = size.entry(&e.path).or_default();
                assert_eq!(*end, e.offset, "{e:?}");
                *end += e.length;
            }
            Op::FileRead => *read.entry(&e.path).or_default() += e.length,
            _ => {}
        }
    }
    let gone = of(&all, Op::FileUnlink);
    assert!(gone.len() >= 7, "{}", gone.len());
    for e in gone {
        let whole = size[&*e.path];
        assert!(whole >= 20_000 && read[&*e.path] == whole, "{e:?}");
    }
    let devices: HashSet<&str> = of(&all, Op::FileWrite).iter().map(|e| &*e.client).collect();
    assert_eq!(devices.len(), 7);
    assert!((300_000..310_000).contains(&size.values().sum::<u64>()));
}

#[test]
fn popularity_follows_zipf_and_the_share_of_writes() {
    let dir = tempfile::tempdir().unwrap();
    let kind = [
        "zipf",
        "--objects",
        "100",
        "--object-bytes",
        "1000",
        "--accesses",
        "50000",
        "--writes",
        "0.25",
        "--skew",
        "1.0",
    ];
    let all = entries(&synth(dir.path(), "t.csv", &kind));
    let opened = of(&all, Op::FileOpen);
    assert_eq!(opened.len(), 50_000);
    let writes = of(&all, Op::FileWrite).len() as f64 / 50_000.0;
    assert!((writes - 0.25).abs() < 0.01, "{writes}");
    let mut counts: HashMap<&str, u32> = HashMap::new();
    opened
        .iter()
        .for_each(|e| *counts.entry(&e.path).or_default() += 1);
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    // The harmonic number of 100 is 5.187: the first has 19.3 % of the accesses, the tenth a tenth of that.
    let first = f64::from(counts[0]) / 50_000.0;
    let tenth = f64::from(counts[9]) / f64::from(counts[0]);
    assert!(
        (first - 0.1928).abs() < 0.01 && (tenth - 0.1).abs() < 0.02,
        "{first} {tenth}"
    );
}

fn near(what: &str, made: u64, recorded: u64, ratio: f64) {
    let r = made as f64 / recorded as f64;
    assert!(
        (1.0 - ratio..1.0 + ratio).contains(&r),
        "{what}: {made} against {recorded}"
    );
}

/// The node of `fixtures/es/local_256.csv.xz` was given 256 MB of images.
#[test]
fn the_elasticsearch_load_fits_the_recorded_node() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/es");
    let describe = |path: &Path| -> Info { collect(&mut *open(path).unwrap()).unwrap() };
    let made = describe(&synth(
        dir.path(),
        "t.csv",
        &["elasticsearch-load", "--bytes", "256MB"],
    ));
    let recorded = describe(&fixtures.join("local_256.csv.xz"));
    near("entries", made.entries, recorded.entries, 0.2);
    near("bytes read", made.read_bytes, recorded.read_bytes, 0.15);
    near(
        "bytes written",
        made.written_bytes,
        recorded.written_bytes,
        0.15,
    );
    near(
        "working set",
        made.working_set_bytes,
        recorded.working_set_bytes,
        0.15,
    );
    let gone = |i: &Info| i.lifetimes.died_bytes_share;
    assert!((gone(&made) - gone(&recorded)).abs() < 0.03);
}

#[test]
fn wrong_arguments_say_what_is_wrong() {
    for (args, says) in [
        (&["zipf"][..], "-o FILE"),
        (&["zipf", "-o", "/nowhere/x.csv"], "/nowhere"),
        (&["zipf", "-o", "x.parquet"], "WebDAV requests only"),
        (&["zipf", "--skew=-1", "-o", "x.csv"], "skew"),
        (&["zipf", "--writes", "1.5", "-o", "x.csv"], "from 0 to 1"),
        (
            &["scan", "--file-bytes", "3 apples", "-o", "x.csv"],
            "no number of bytes",
        ),
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
            .arg("synth")
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            !out.status.success() && said.contains(says),
            "{args:?}: {said}"
        );
    }
}
