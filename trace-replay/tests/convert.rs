//! `convert`: what was recorded is still there after a round trip, and what is lost is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use trace_replay::convert::{Args, EXAMPLES, convert};
use trace_replay::read::{Unusable, open};
use trace_replay::trace::{Entry, Level, Op, Outcome, normal_path};
use trace_replay::write::{CsvWriter, Writer};

fn read(path: &Path) -> (Level, Vec<Entry>, Unusable) {
    let mut reader = open(path).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry() {
        entries.push(entry.unwrap());
    }
    (reader.level(), entries, reader.unusable().clone())
}

fn write_csv(path: &Path, level: Level, entries: &[Entry]) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = CsvWriter::new(file, level).unwrap();
    for entry in entries {
        writer.write(entry).unwrap();
    }
    writer.finish().unwrap();
}

fn entry(ops: &'static [Op]) -> impl Strategy<Value = Entry> {
    let dav = ops[0].name().starts_with(char::is_uppercase);
    let path = "[a-z \"',%\u{e9}]{1,8}(/[a-z.]{1,4}){0,2}";
    (
        (
            0..1_i64 << 40,
            "[a-z0-9.:/]{0,9}",
            prop::sample::select(ops),
            path,
            path,
        ),
        (0..1_u64 << 40, 0..1_u64 << 31, 0..1_u64 << 40, 0..4_usize),
    )
        .prop_map(
            move |((at_us, client, op, path, path2), (offset, length, latency_us, kind))| {
                // What is asked about has no offset.
                let offset = match op {
                    Op::DavStat | Op::DavList => 0,
                    _ => offset,
                };
                let two = matches!(op, Op::FileRename | Op::DavMove | Op::DavCopy);
                let outcome = match (dav, kind) {
                    (true, 3) => Outcome::Status(404),
                    (true, _) => Outcome::Status(200),
                    (false, 3) => Outcome::Errno("ENOENT".into()),
                    (false, _) => Outcome::Ok,
                };
                Entry {
                    at_us,
                    client: client.into(),
                    thread: "".into(),
                    op,
                    path: normal_path(&path),
                    path2: two.then(|| normal_path(&path2)),
                    offset,
                    length,
                    latency_us,
                    outcome,
                    ranged: false,
                }
            },
        )
}

const FILES: &[Op] = &[
    Op::FileCreate,
    Op::FileRead,
    Op::FileWrite,
    Op::FileClose,
    Op::FileSync,
    Op::FileTruncate,
    Op::FileRename,
    Op::FileUnlink,
    Op::FileMkdir,
    Op::FileStat,
    Op::FileList,
];
const DAV: &[Op] = &[
    Op::DavStat,
    Op::DavList,
    Op::DavGet,
    Op::DavPut,
    Op::DavDelete,
    Op::DavMkcol,
    Op::DavMove,
    Op::DavCopy,
    Op::DavHead,
    Op::DavLock,
    Op::DavUnlock,
    Op::DavOptions,
    Op::DavProppatch,
    Op::DavPatch,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn csv_keeps_everything(files in prop::collection::vec(entry(FILES), 0..30),
                            dav in prop::collection::vec(entry(DAV), 0..30)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        for (level, entries) in [(Level::FileOperations, files), (Level::WebdavRequests, dav)] {
            write_csv(&path, level, &entries);
            let (read_level, back, unusable) = read(&path);
            prop_assert_eq!(unusable.lines, 0, "{:?}", unusable.examples);
            prop_assert_eq!(read_level, level);
            prop_assert_eq!(back, entries);
        }
    }

    #[test]
    fn parquet_keeps_times_clients_and_sizes(mut dav in prop::collection::vec(entry(DAV), 1..30)) {
        dav.sort_by_key(|e| e.at_us);
        let first = dav[0].at_us;
        dav.iter_mut().for_each(|e| e.at_us -= first);
        let dir = tempfile::tempdir().unwrap();
        let (csv, sealed) = (dir.path().join("t.csv"), dir.path().join("t.parquet"));
        write_csv(&csv, Level::WebdavRequests, &dav);
        let summary = convert(&Args::new(&csv, &sealed)).unwrap();
        prop_assert_eq!(summary.written, dav.len() as u64);
        prop_assert_eq!(read(&sealed).1, dav);
    }

    #[test]
    fn oracle_general_keeps_seconds_and_sizes_and_knows_what_comes_next(
        mut files in prop::collection::vec(entry(&[Op::FileRead, Op::FileWrite]), 1..60)) {
        for (i, e) in files.iter_mut().enumerate() {
            e.at_us = i as i64 * 700_000;
            e.path = format!("{}", i * i % 7).into();
            e.offset = 0;
            e.outcome = Outcome::Ok;
        }
        let dir = tempfile::tempdir().unwrap();
        let (csv, out) = (dir.path().join("t.csv"), dir.path().join("t.oracleGeneral"));
        write_csv(&csv, Level::FileOperations, &files);
        convert(&Args::new(&csv, &out)).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        for (i, record) in bytes.chunks(24).enumerate() {
            let next = i64::from_le_bytes(record[16..].try_into().unwrap());
            let expected = files.iter().skip(i + 1).position(|e| e.path == files[i].path);
            prop_assert_eq!(next, expected.map_or(-1, |p| (p + i + 1) as i64));
        }
        let (_, back, _) = read(&out);
        prop_assert_eq!(back.len(), files.len());
        for (b, e) in back.iter().zip(&files) {
            prop_assert_eq!((&b.path, b.length), (&e.path, e.length));
            prop_assert_eq!(b.at_us, e.at_us / 1_000_000 * 1_000_000);
        }
    }

    #[test]
    fn fio_keeps_times_and_sizes(mut files in prop::collection::vec(entry(&[Op::FileRead, Op::FileWrite]), 1..30)) {
        for (i, e) in files.iter_mut().enumerate() {
            e.at_us = i as i64 * 7;
            e.length += 1;
            e.path = format!("d/{}", i % 3).into();
            e.outcome = Outcome::Ok;
        }
        let dir = tempfile::tempdir().unwrap();
        let (csv, out) = (dir.path().join("t.csv"), dir.path().join("t.fio"));
        write_csv(&csv, Level::FileOperations, &files);
        convert(&Args::new(&csv, &out)).unwrap();
        let (_, mut back, unusable) = read(&out);
        prop_assert_eq!(unusable.lines, 0);
        back.retain(|e| e.op.reads() || e.op.writes());
        let what = |e: &Entry| (e.at_us, e.op, e.path.clone(), e.offset, e.length);
        prop_assert_eq!(back.iter().map(what).collect::<Vec<_>>(), files.iter().map(what).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300),
                                    lines in "[0-9a-z ,.\n]{0,200}") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        for head in ["", "fio version 2 iolog\n", "fio version 3 iolog\n", "1,a,0,Read,1,1,1\n"] {
            for rest in [&bytes[..], lines.as_bytes()] {
                std::fs::write(&path, [head.as_bytes(), rest].concat()).unwrap();
                if let Ok(mut reader) = open(&path) {
                    while reader.next_entry().is_some() {}
                }
            }
        }
    }
}

fn sample(name: &str, text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn msr_rows_become_reads_and_writes_of_one_file_per_disk() {
    let (_dir, path) = sample("usr.csv", b"128166372003061629,usr,0,Read,7014609920,24576,41286\n128166372003061729,usr,1,Write,512,1024,10\n128166372003061829,usr,1,Trim,512,1024,10\n");
    let (level, entries, unusable) = read(&path);
    assert_eq!(level, Level::FileOperations);
    assert_eq!(
        (&*entries[0].path, entries[0].op, entries[0].latency_us),
        ("usr.0", Op::FileRead, 4128)
    );
    assert_eq!(
        (&*entries[1].path, entries[1].op, entries[1].at_us),
        ("usr.1", Op::FileWrite, 10)
    );
    assert_eq!(unusable.reasons["neither Read nor Write"], 1);
    let place = format!(
        "{}:3: column 26: neither Read nor Write: `Trim`",
        path.display()
    );
    assert_eq!(unusable.examples, [place]);
}

#[test]
fn compressed_inputs_say_the_same_and_a_cut_one_is_an_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (_, plain, _) = read(&root.join("fixtures/es/smoke.csv.xz"));
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("smoke.csv");
    write_csv(&csv, Level::FileOperations, &plain);
    let text = std::fs::read(&csv).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &text).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(&text[..], 1).unwrap();
    for (name, bytes) in [("smoke.csv.gz", gz), ("smoke.csv.zst", zst)] {
        let path = dir.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).1, plain, "{name}");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let out = dir.path().join("out.csv");
        let error = convert(&Args::new(&path, &out)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(&format!("{name}: line ")), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn fio_version_2_waits() {
    let (_dir, path) = sample("log", b"fio version 2 iolog\n/f add\n/f open\n/f wait 500 0\n/f write 0 4096\n/f trim 0 4096\n/f wait 5000000000 0\n/f close\n");
    let (_, entries, unusable) = read(&path);
    let seen: Vec<_> = entries.iter().map(|e| (e.at_us, e.op, e.length)).collect();
    assert_eq!(
        seen,
        [
            (0, Op::FileOpen, 0),
            (500, Op::FileWrite, 4096),
            (5_000_000_500, Op::FileClose, 0)
        ]
    );
    assert_eq!(unusable.reasons["an action without counterpart"], 1);
}

/// The suite installs fio; without it there is nothing to compare with, and the test says so.
#[test]
fn fio_writes_what_is_read_and_reads_what_is_written() {
    if Command::new("fio").arg("--version").output().is_err() {
        eprintln!("skipped: no fio");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("real.log");
    let fio = |args: &[String]| {
        let out = Command::new("fio")
            .current_dir(dir.path())
            .args(args)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()["jobs"][0].clone()
    };
    let common = [
        "--name=j".into(),
        "--output-format=json".into(),
        "--ioengine=psync".into(),
    ];
    let job = [
        "--rw=randrw".into(),
        "--bs=4k".into(),
        "--size=256k".into(),
        "--fsync=8".into(),
        format!("--write_iolog={}", log.display()),
    ];
    let ran = fio(&[&common[..], &job[..]].concat());
    let (_, entries, unusable) = read(&log);
    assert_eq!(unusable.lines, 0, "{:?}", unusable.examples);
    let count = |op: Op| entries.iter().filter(|e| e.op == op).count() as u64;
    assert_eq!(
        count(Op::FileRead),
        ran["read"]["total_ios"].as_u64().unwrap()
    );
    assert_eq!(
        count(Op::FileWrite),
        ran["write"]["total_ios"].as_u64().unwrap()
    );
    assert!(count(Op::FileSync) > 0 && entries.is_sorted_by_key(|e| e.at_us));

    let again = dir.path().join("again.fio");
    convert(&Args::new(&log, &again)).unwrap();
    let replayed = fio(&[&common[..], &[format!("--read_iolog={}", again.display())]].concat());
    for side in ["read", "write"] {
        assert_eq!(replayed[side]["io_bytes"], ran[side]["io_bytes"], "{side}");
    }
}

#[test]
fn what_cannot_be_expressed_is_counted_and_named() {
    let (dir, path) = sample("t.csv", b"ts_us,op,path,length,result,path2\n0,read,a b,5,,\n1,read,c,5,EIO,\n2,rename,c,,,d\n3,read,d,5,,\n");
    let summary = convert(&Args::new(&path, &dir.path().join("t.fio"))).unwrap();
    assert_eq!(summary.written, 1);
    assert_eq!(summary.left_out.values().sum::<u64>(), 3);
    assert!(summary.text().contains(
        "1 entries left out: operation without counterpart; first: rename c at 0.000002 s"
    ));
}

#[test]
fn what_can_be_expressed_in_no_part_is_an_error_and_an_empty_trace_is_none() {
    let (dir, path) = sample("t.csv", b"ts_us,op,path,length\n0,read,a,5\n");
    let out = dir.path().join("t.parquet");
    let error = convert(&Args::new(&path, &out)).unwrap_err().to_string();
    assert!(error.contains("not written, since nothing of"), "{error}");
    assert!(
        error.contains("1 entries left out: a file operation"),
        "{error}"
    );
    assert!(!out.exists());
    std::fs::write(&path, "ts_us,op,path\n").unwrap();
    assert_eq!(convert(&Args::new(&path, &out)).unwrap().written, 0);
    assert!(out.exists());
}

#[test]
fn failures_leave_nothing_under_the_name_and_say_what_to_do() {
    let (dir, path) = sample("t.bin", b"\0\xff\0\xff");
    let error = convert(&Args::new(&path, &dir.path().join("t.csv"))).unwrap_err();
    assert!(format!("{error:#}").contains("--from"), "{error:#}");
    let error = convert(&Args::new(
        &dir.path().join("no.csv"),
        &dir.path().join("t.csv"),
    ));
    let error = format!("{:#}", error.unwrap_err());
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    let error = convert(&Args::new(&path, &dir.path().join("t.what"))).unwrap_err();
    assert!(format!("{error:#}").contains("--to"), "{error:#}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_trace_is_not_replaced_by_what_is_made_of_it() {
    let text = b"ts_us,op,path\n1,read,a\nx,read,b\n";
    let (dir, path) = sample("t.csv", text);
    let link = dir.path().join("link.csv");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for (input, output) in [(&path, &path), (&link, &path), (&path, &link)] {
        let error = convert(&Args::new(input, output)).unwrap_err().to_string();
        assert!(error.contains("is what is read"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), text);
    // What is there and something else is replaced, as ever.
    let other = dir.path().join("other.csv");
    std::fs::write(&other, "old").unwrap();
    assert_eq!(convert(&Args::new(&path, &other)).unwrap().written, 1);
}

#[test]
fn a_column_that_means_nothing_is_named_once() {
    let text = b"ts_us,op,path,bytes,\x1b[31m,n\n1,read,a,9,,\n2,read,b,9,,\n";
    let (dir, path) = sample("t.csv", text);
    let out = dir.path().join("out.csv");
    let convert = format!("convert {} -o {}", path.display(), out.display());
    let others = ["info", "simulate --cache-size 1MiB"];
    let others = others.map(|command| format!("{command} {}", path.display()));
    for command in others.into_iter().chain([convert]) {
        let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
            .args(command.split(' '))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        let want = "t.csv: columns not used: `bytes`, `\\u{1b}[31m`\n";
        assert_eq!(said.matches(want).count(), 1, "{command}: {said}");
    }
}

#[test]
fn a_name_with_a_space_in_a_log_of_fio_is_told_as_that() {
    let log = b"fio version 3 iolog\n1 /tmp/my file add\n2 /tmp/my file open\n3 /tmp/my file read 0 4096\n4 /tmp/f trim 0 4096\n";
    let (_dir, path) = sample("t.log", log);
    let (_, entries, unusable) = read(&path);
    assert!(entries.is_empty());
    let counts: Vec<u64> = unusable.reasons.values().copied().collect();
    assert_eq!((unusable.lines, &counts[..]), (4, &[3, 1][..]));
    let why = &unusable.examples[0];
    assert!(
        why.ends_with(
            ":2: column 3: a space in the file's name, where it ends for fio, too: `/tmp/my`"
        ),
        "{why}"
    );
}

#[test]
fn the_examples_of_the_help_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for line in EXAMPLES.lines().filter(|l| l.contains("trace-replay ")) {
        let line = line.replace("/tmp/", &format!("{}/", dir.path().display()));
        let args: Vec<&str> = line.split_whitespace().skip(1).collect();
        let out = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
            .current_dir(root)
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success() && said.contains("entries written"),
            "{line}: {said}"
        );
    }
}

#[test]
fn the_rows_on_the_page_are_read_as_the_page_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/trace-replay.md")).unwrap();
    let mut tables = page.split("    ts_us,").skip(1).map(|rest| {
        let rows: Vec<&str> = rest
            .lines()
            .take_while(|line| !line.is_empty())
            .map(str::trim)
            .collect();
        let (_dir, path) = sample("t.csv", format!("ts_us,{}\n", rows.join("\n")).as_bytes());
        let (level, entries, unusable) = read(&path);
        assert_eq!((unusable.lines, entries.len()), (0, 3), "{unusable:?}");
        (level, entries)
    });
    let (level, files) = tables.next().unwrap();
    assert_eq!(
        (level, files[1].op, &files[2].outcome),
        (
            Level::FileOperations,
            Op::FileRename,
            &Outcome::Errno("ENOENT".into())
        )
    );
    let (level, dav) = tables.next().unwrap();
    let ops: Vec<_> = dav.iter().map(|e| (e.op, e.ranged)).collect();
    let want = [
        (Op::DavPut, false),
        (Op::DavList, false),
        (Op::DavGet, true),
    ];
    assert_eq!((level, &ops[..]), (Level::WebdavRequests, &want[..]));
    assert!(tables.next().is_none());
}
