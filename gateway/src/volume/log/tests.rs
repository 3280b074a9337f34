#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::record::HEADER_BYTES;
use super::*;
use crate::volume::path::ResourcePath;
use tiering::FileId;

fn delete(i: u64) -> Record {
    Record::Delete {
        path: ResourcePath::parse(&format!("/{i}")).unwrap(),
        id: FileId(i),
    }
}

#[test]
fn concurrent_appends_are_all_recovered_in_order_and_checkpoint_drops_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    std::thread::scope(|s| {
        for t in 0..8u64 {
            let log = &log;
            s.spawn(move || {
                for i in 0..40 {
                    let (n, r) = log.append(&delete(t * 100 + i));
                    r.unwrap();
                    log.applied(n, |_| Ok(())).unwrap();
                }
            });
        }
    });
    let found = recover(dir.path()).unwrap();
    let numbers: Vec<u64> = found.records.iter().map(|r| r.0).collect();
    assert_eq!(numbers, (1..=320).collect::<Vec<_>>());
    let mut synced = false;
    let sync = || {
        synced = true;
        Ok(())
    };
    log.checkpoint(sync).unwrap();
    assert!(synced && recover(dir.path()).unwrap().records.is_empty());
    log.append(&delete(1)).1.unwrap();
    assert_eq!(recover(dir.path()).unwrap().records[0].0, 321);
}

#[test]
fn a_failed_checkpoint_keeps_the_segments_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    let change = |i| {
        let (n, r) = log.append(&delete(i));
        r.unwrap();
        log.applied(n, |_| Ok(())).unwrap();
    };
    let records = |numbers: std::ops::Range<u64>| -> u64 {
        let mut frames = Vec::new();
        numbers.for_each(|n| frame(n, &delete(n), 0, &mut frames));
        (HEADER_BYTES + frames.len()) as u64
    };
    change(1);
    log.checkpoint(|| Ok(())).unwrap();
    assert_eq!((log.bytes(), log.is_kept()), (0, false));
    change(2);
    log.checkpoint(|| Err(io::Error::other("no"))).unwrap_err();
    change(3);
    log.checkpoint(|| Ok(())).unwrap_err();
    assert_eq!(recover(dir.path()).unwrap().records.len(), 2);
    assert!(log.is_kept() && !log.is_full());
    assert_eq!(log.bytes(), records(2..3) + records(3..4));
}

/// The log's files with the extension, and how many bytes they have.
fn files(dir: &Path, extension: &str) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let named = entries.filter(|e| e.path().extension().is_some_and(|x| x == extension));
    named
        .map(|e| (e.path(), e.metadata().unwrap().len()))
        .collect()
}

fn put(i: u64, bytes: usize) -> Record {
    let path = ResourcePath::parse(&format!("/{i}")).unwrap();
    Record::Attributes {
        path,
        id: FileId(i),
        props: Bytes::from(vec![i as u8; bytes]),
        mode: None,
        unlock_null: false,
    }
}

fn payload_len(record: &Record) -> usize {
    let mut framed = Vec::new();
    frame(1, record, 0, &mut framed);
    framed.len() - record::FRAME_BYTES
}

fn numbers(dir: &Path) -> Vec<u64> {
    let found = recover(dir).unwrap().records;
    found.into_iter().map(|(number, _)| number).collect()
}

#[test]
fn a_segment_written_over_an_older_one_tells_of_its_own_records_only() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    let mut next = 1;
    // Long ones first, so that the later ones end in the middle of these; then ones that end at the end of a page.
    let fill = 4096 - HEADER_BYTES - record::FRAME_BYTES;
    let to_the_page = fill - payload_len(&put(1, 0));
    for (records, bytes) in [
        (40, 5000),
        (3, 10),
        (1, to_the_page),
        (7, 900),
        (0, 0),
        (2, 0),
    ] {
        let first = next;
        for _ in 0..records {
            let (n, r) = log.append(&put(next, bytes));
            r.unwrap();
            assert_eq!(n, next);
            next += 1;
            assert_eq!(numbers(dir.path()), (first..next).collect::<Vec<_>>());
            log.applied(n, |_| Ok(())).unwrap();
        }
        log.checkpoint(|| Ok(())).unwrap();
        assert!(numbers(dir.path()).is_empty());
        assert_eq!(files(dir.path(), "spare").len(), 1);
    }
    log.drop_spares();
    assert!(files(dir.path(), "spare").is_empty());
}

#[test]
fn records_come_over_bytes_that_the_file_has_already() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    log.append(&put(1, 4096)).1.unwrap();
    let before = files(dir.path(), "log");
    for i in 2..100 {
        log.append(&put(i, 4096)).1.unwrap();
    }
    assert_eq!(files(dir.path(), "log"), before);
    assert!(log.bytes() < before[0].1);
}

#[test]
fn of_a_write_that_was_torn_the_whole_records_before_the_tear_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    let change = |i, bytes| {
        let (n, r) = log.append(&put(i, bytes));
        r.unwrap();
        log.applied(n, |_| Ok(())).unwrap();
    };
    (1..40).for_each(|i| change(i, 3000));
    log.checkpoint(|| Ok(())).unwrap();
    (40..45).for_each(|i| change(i, 3000));
    let (path, _) = files(dir.path(), "log").remove(0);
    let before = std::fs::read(&path).unwrap();
    change(45, 9000);
    let after = std::fs::read(&path).unwrap();
    assert_eq!(numbers(dir.path()), (40..46).collect::<Vec<_>>());
    // Any of the pages of the last write may be missing after a power cut; what stood there is of an older use.
    let changed: Vec<usize> = (0..after.len())
        .step_by(4096)
        .filter(|at| before[*at..][..4096] != after[*at..][..4096])
        .collect();
    assert!(changed.len() >= 3);
    for missing in 1..1u32 << changed.len() {
        let mut torn = after.clone();
        for (bit, at) in changed.iter().enumerate() {
            if missing & (1 << bit) != 0 {
                torn[*at..][..4096].copy_from_slice(&before[*at..][..4096]);
            }
        }
        std::fs::write(&path, torn).unwrap();
        assert_eq!(numbers(dir.path()), (40..45).collect::<Vec<_>>());
    }
}

#[test]
fn what_an_earlier_run_kept_to_write_over_is_gone_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("0000000000000001.spare"), b"old").unwrap();
    recover(dir.path()).unwrap().remove().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    log.append(&delete(1)).1.unwrap();
    assert!(files(dir.path(), "spare").is_empty());
    assert_eq!(numbers(dir.path()), [1]);
}

#[test]
fn a_lost_log_directory_is_an_error_for_those_who_wait_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&dir.path().join("log"), Applied::default()).unwrap();
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let (n, r) = log.append(&delete(1));
    r.unwrap_err();
    log.applied(n, |_| Ok(())).unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    assert!(log.append(&delete(2)).1.is_ok());
}

#[test]
fn records_that_a_damaged_segment_lacks_are_told_and_the_later_segments_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    let mut applied = Applied::default();
    for n in 1..=9 {
        log.append(&put(n, 100)).1.unwrap();
        log.applied(n, |_| Ok(())).unwrap();
        if n % 3 == 0 {
            log.checkpoint(|| Err(io::Error::other("kept")))
                .unwrap_err();
        }
    }
    drop(log);
    assert_eq!(recover(dir.path()).unwrap().gaps, []);
    let mut segments = files(dir.path(), "log");
    segments.sort();
    let (second, _) = segments[1].clone();
    let mut bytes = std::fs::read(&second).unwrap();
    let frame = record::FRAME_BYTES + payload_len(&put(4, 100));
    bytes[HEADER_BYTES + frame + 40] ^= 1;
    std::fs::write(&second, bytes).unwrap();
    let found = recover(dir.path()).unwrap();
    assert_eq!(numbers(dir.path()), [1, 2, 3, 4, 6, 7, 8, 9]);
    let gap = |from, to| Gap {
        segment: second.clone(),
        numbers: Some(from..to),
    };
    assert_eq!(found.gaps, [gap(5, 6)]);
    let mut cut = std::fs::read(&second).unwrap();
    cut.truncate(HEADER_BYTES + frame + 40);
    std::fs::write(&second, cut).unwrap();
    let found = recover(dir.path()).unwrap();
    assert_eq!(found.gaps, [gap(5, 7)]);
    // The tree may have come further than what is missing.
    let mut found = found;
    (1..7).for_each(|n| applied.insert(n));
    found.tell_gaps(&applied);
    assert_eq!(found.gaps, []);
    let mut found = recover(dir.path()).unwrap();
    found.tell_gaps(&Applied::default());
    found.remove().unwrap();
    assert!(files(dir.path(), "log").is_empty());
    let kept = files(dir.path(), "damaged");
    assert_eq!(kept[0].0, second.with_extension("damaged"));
    assert_eq!(kept.len(), 1);
}

#[test]
fn the_only_segment_is_not_thrown_away_for_a_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    (1..=3).for_each(|n| log.append(&put(n, 100)).1.unwrap());
    drop(log);
    let (path, _) = files(dir.path(), "log").remove(0);
    let whole = std::fs::read(&path).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        std::fs::write(&path, bytes).unwrap();
    };
    // A record in the middle.
    let frame = record::FRAME_BYTES + payload_len(&put(1, 100));
    with(HEADER_BYTES + frame + 40, 99);
    let found = recover(dir.path()).unwrap();
    assert_eq!(numbers(dir.path()), [1, 3]);
    assert_eq!(found.gaps[0].numbers, Some(2..3));
    // Its length.
    with(HEADER_BYTES + frame + 1, 99);
    let found = recover(dir.path()).unwrap();
    assert_eq!(numbers(dir.path()), [1, 3]);
    assert_eq!(found.gaps[0].numbers, Some(2..3));
    // The header, and one of a later version.
    with(17, !whole[17]);
    let mut found = recover(dir.path()).unwrap();
    found.tell_gaps(&Applied::default());
    assert_eq!(found.gaps[0].numbers, None);
    with(7, b'9');
    assert!(recover(dir.path()).is_err());
    found.remove().unwrap();
    assert!(files(dir.path(), "log").is_empty());
    assert_eq!(files(dir.path(), "damaged").len(), 1);
}

/// Others begin the next batch before the last one's end is noticed, again and again.
#[test]
fn a_checkpoint_comes_to_its_end_beside_changes_without_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Applied::default()).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let (n, r) = log.append(&delete(1));
                    r.unwrap();
                    log.applied(n, |_| Ok(())).unwrap();
                }
            });
        }
        for _ in 0..20 {
            log.checkpoint(|| Ok(())).unwrap();
        }
        over.store(true, Relaxed);
    });
}
