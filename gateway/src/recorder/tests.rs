#![allow(clippy::unwrap_used)]

use std::path::Path;

use tiering::trace::{NO_OBJECT, Op, ParquetReader, Row, read_live};

use super::*;

fn sealed_rows(dir: &Path) -> Vec<Row> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    let open = |p: &PathBuf| ParquetReader::new(std::fs::File::open(p).unwrap()).unwrap();
    files.iter().flat_map(open).map(Result::unwrap).collect()
}

fn put(recorder: &Recorder, n: u64) {
    let (path, client) = (
        recorder.path_id(&format!("/f{}", n % 7)),
        recorder.client_id("10.0.0.1"),
    );
    recorder.record(Record {
        path,
        client,
        len: n,
        ..Record::new(Op::Put, n)
    });
}

#[test]
fn every_record_is_in_the_sealed_segments_with_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut cfg = RecorderConfig::new(dir.path());
    cfg.segment_bytes = 4096; // rotates often; definitions are repeated
    let recorder = Recorder::start(cfg).unwrap();
    for n in 0..1000 {
        put(&recorder, n);
        if n % 100 == 0 {
            std::thread::yield_now();
        }
    }
    recorder.finish();
    let rows = sealed_rows(dir.path());
    assert_eq!(rows.len(), 1000);
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(
            (row.record.len, &*row.path, &*row.client),
            (n as u64, &*format!("/f{}", n % 7), "10.0.0.1")
        );
        assert_eq!(row.record.object, NO_OBJECT);
    }
    assert_eq!(
        recorder.stats(),
        RecorderStats {
            records: 1000,
            dropped: 0,
            errors: 0
        }
    );
    put(&recorder, 1);
    assert_eq!(recorder.stats().dropped, 1, "after finish");
}

#[test]
fn what_reached_the_kernel_is_sealed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(RecorderConfig::new(dir.path())).unwrap();
    put(&recorder, 5);
    // As after a kill: the live segment is on disk, nobody finished it.
    let flushed = || {
        let live = seal::live_segments(dir.path()).unwrap();
        live.first().is_some_and(|p| {
            read_live(&std::fs::read(p).unwrap()[..]).is_ok_and(|r| r.count() == 1)
        })
    };
    while !flushed() {
        std::thread::yield_now();
    }
    let copy = tempfile::tempdir().unwrap();
    for path in seal::live_segments(dir.path()).unwrap() {
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let next = Recorder::start(RecorderConfig::new(copy.path())).unwrap();
    next.finish();
    assert_eq!(sealed_rows(copy.path()).len(), 1);
    assert!(seal::live_segments(copy.path()).unwrap().is_empty());
    recorder.finish();
}

#[test]
fn the_oldest_segments_go_beyond_the_limit_and_the_newest_stays() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..4 {
        std::fs::write(dir.path().join(format!("trace-{n}.parquet")), [0; 100]).unwrap();
    }
    seal::retain(dir.path(), 250).unwrap();
    let left = |n: u32| dir.path().join(format!("trace-{n}.parquet")).exists();
    assert_eq!(
        [left(0), left(1), left(2), left(3)],
        [false, false, true, true]
    );
    seal::retain(dir.path(), 0).unwrap();
    assert_eq!([left(2), left(3)], [false, true]);
}

#[test]
fn segments_from_before_the_clock_was_set_back_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let before = dir.path().join("trace-00099999999999999999-000007.parquet");
    std::fs::write(&before, [0; 100]).unwrap();
    let mut cfg = RecorderConfig::new(dir.path());
    cfg.retention_bytes = 0;
    let recorder = Recorder::start(cfg).unwrap();
    put(&recorder, 5);
    recorder.finish();
    assert!(!before.exists());
    assert_eq!(sealed_rows(dir.path()).len(), 1);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let queue = Arc::new(Queue::new(2));
    let sender = Some(Sender(Arc::clone(&queue)));
    let recorder = Recorder::with(Instant::now(), Arc::default(), sender, 8);
    for n in 0..5 {
        recorder.record(Record::new(Op::Get, n));
    }
    assert_eq!(recorder.path_id("/late"), 0);
    assert_eq!(
        recorder.stats(),
        RecorderStats {
            records: 0,
            dropped: 3,
            errors: 0
        }
    );
    let mut taken = Vec::new();
    assert!(queue.take(&mut taken, Duration::from_secs(60)));
    assert_eq!(taken.len(), 2);
    drop(recorder);
    taken.clear();
    assert!(!queue.take(&mut taken, Duration::from_secs(60)));
}

#[test]
fn racing_threads_lose_no_record_and_keep_their_order() {
    const EACH: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(RecorderConfig::new(dir.path())).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let recorder = recorder.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    recorder.record(Record {
                        offset: thread,
                        ..Record::new(Op::Get, n)
                    });
                }
            });
        }
    });
    recorder.finish();
    let stats = recorder.stats();
    assert_eq!(stats.records + stats.dropped, 4 * EACH);
    let rows = sealed_rows(dir.path());
    assert_eq!(rows.len() as u64, stats.records);
    let mut last = [None; 4];
    for row in rows {
        let last = &mut last[row.record.offset as usize];
        assert!(last.is_none_or(|at| at < row.record.at_ns));
        *last = Some(row.record.at_ns);
    }
}

#[test]
fn a_lost_directory_is_counted_and_nothing_panics() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(RecorderConfig::new(dir.path().join("t"))).unwrap();
    std::fs::remove_dir_all(dir.path().join("t")).unwrap();
    for n in 0..1000 {
        put(&recorder, n);
    }
    recorder.finish();
    // Tried again after a second, not for each record.
    let stats = recorder.stats();
    assert!((1..10).contains(&stats.errors), "{stats:?}");
    assert_eq!(stats.dropped, 1000);
}

#[test]
fn a_segment_that_has_no_head_yet_is_no_trouble_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a.live", &b""[..]), ("b.live", b"TD")] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let recorder = Recorder::start(RecorderConfig::new(dir.path())).unwrap();
    recorder.finish();
    assert_eq!(recorder.stats().errors, 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_segment_that_could_not_be_sealed_is_sealed_after_the_next_that_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut cfg = RecorderConfig::new(dir.path());
    cfg.segment_bytes = 4096;
    let recorder = Recorder::start(cfg).unwrap();
    put(&recorder, 0);
    let live = loop {
        if let Some(live) = seal::live_segments(dir.path()).unwrap().pop() {
            break live;
        }
        std::thread::yield_now();
    };
    // Where it would be written aside there is something else.
    let obstacle = live.with_extension("tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let mut count = 1;
    while recorder.stats().errors == 0 {
        put(&recorder, count);
        count += 1;
        std::thread::yield_now();
    }
    std::fs::remove_dir(&obstacle).unwrap();
    put(&recorder, count);
    recorder.finish();
    assert!(seal::live_segments(dir.path()).unwrap().is_empty());
    let stats = recorder.stats();
    assert_eq!(stats.records + stats.dropped, count + 1);
    assert_eq!(sealed_rows(dir.path()).len() as u64, stats.records);
}
