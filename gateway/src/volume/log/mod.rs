//! The intent log on the cache tier: what makes a change durable without waiting for the tree.
//!
//! A change is appended, then synced together with all others that wait at that moment (the first
//! waiter writes and syncs for everyone), then applied to the tree. `checkpoint` syncs the tree
//! and the cache and drops the segments that are no longer needed.
//!
//! Written ahead, so that a change whose record is lost has not touched the tree: the old content
//! stays whole. See `applied` for why replay is exact, `record` for the format.

pub mod applied;
pub mod record;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use applied::{Applied, WINDOW};
use record::{Record, frame, parse_segment, segment_header};

/// A segment is closed when it has grown to this.
pub const SEGMENT_BYTES: u64 = 32 << 20;
/// A log that is kept is at most about this long: the next start reads it into memory.
const KEPT_BYTES_MAX: u64 = 128 << 20;
/// Appenders wait while this much is not yet written.
const PENDING_BYTES_MAX: usize = 16 << 20;

struct Segment {
    file: Arc<File>,
    path: PathBuf,
    first: u64,
    end: u64,
}

struct Tail {
    /// Frames not yet handed to a write.
    pending: Vec<u8>,
    /// Number of the next record.
    next: u64,
    /// Number of the first record not yet on stable storage.
    unsynced: u64,
    /// Someone writes and syncs now.
    syncing: bool,
    /// Records below this were in a batch that failed (and at or above the failure's first).
    failures: Vec<(u64, u64)>,
    current: Option<Segment>,
    /// Older segments.
    closed: VecDeque<Closed>,
    applied: Applied,
}

/// A segment that is not written any more.
struct Closed {
    path: PathBuf,
    bytes: u64,
    /// The number after its last record.
    until: u64,
}

impl Closed {
    fn of(segment: Segment, until: u64) -> Closed {
        Closed {
            path: segment.path,
            bytes: segment.end,
            until,
        }
    }
}

/// An open log.
pub struct Log {
    dir: PathBuf,
    dir_file: File,
    tail: Mutex<Tail>,
    moved: Condvar,
    /// Of all segments.
    bytes: AtomicU64,
    /// A checkpoint failed.
    kept: AtomicBool,
}

/// What an existing log directory holds.
pub struct Recovered {
    /// All whole records in order.
    pub records: Vec<(u64, Record)>,
    segments: Vec<PathBuf>,
}

/// Reads every segment below `dir`.
pub fn recover(dir: &Path) -> io::Result<Recovered> {
    let mut segments = Vec::new();
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            for e in entries {
                let path = e?.path();
                if path.extension().is_some_and(|x| x == "log") {
                    segments.push(path);
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // Names are zero-padded hexadecimal first numbers: the order of names is the order of records.
    segments.sort();
    let mut records: Vec<(u64, Record)> = Vec::new();
    for path in &segments {
        for (number, record) in parse_segment(Bytes::from(std::fs::read(path)?)) {
            if records.last().is_none_or(|(last, _)| number > *last) {
                records.push((number, record));
            }
        }
    }
    Ok(Recovered { records, segments })
}

impl Recovered {
    /// Removes the segments, after everything they hold is applied and synced.
    pub fn remove(self) -> io::Result<()> {
        self.segments.iter().try_for_each(std::fs::remove_file)
    }
}

impl Log {
    /// Opens a log that continues after `applied` and must hold no segments.
    pub fn open(dir: &Path, applied: Applied) -> io::Result<Log> {
        std::fs::create_dir_all(dir)?;
        let next = applied.next;
        Ok(Log {
            dir: dir.to_owned(),
            dir_file: File::open(dir)?,
            tail: Mutex::new(Tail {
                pending: Vec::new(),
                next,
                unsynced: next,
                syncing: false,
                failures: Vec::new(),
                current: None,
                closed: VecDeque::new(),
                applied,
            }),
            moved: Condvar::new(),
            bytes: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        })
    }

    /// Appends `record` and waits until it is on stable storage. Blocks; returns its number.
    ///
    /// On an error the record may or may not survive a crash; it has a number nevertheless, to
    /// be passed to [`Log::applied`].
    pub fn append(&self, record: &Record) -> (u64, io::Result<()>) {
        let mut tail = self.tail.lock();
        while tail.next >= tail.applied.next + WINDOW || tail.pending.len() >= PENDING_BYTES_MAX {
            if tail.pending.len() >= PENDING_BYTES_MAX && !tail.syncing {
                self.sync_batch(&mut tail);
            } else {
                self.moved.wait(&mut tail);
            }
        }
        let number = tail.next;
        tail.next += 1;
        frame(number, record, &mut tail.pending);
        while tail.unsynced <= number {
            if tail.syncing {
                self.moved.wait(&mut tail);
            } else {
                self.sync_batch(&mut tail);
            }
        }
        let failed = tail
            .failures
            .iter()
            .any(|(from, to)| (*from..*to).contains(&number));
        (
            number,
            if failed {
                Err(io::Error::other("the intent log could not be written"))
            } else {
                Ok(())
            },
        )
    }

    /// Writes and syncs all that is pending, the lock released meanwhile.
    fn sync_batch(&self, tail: &mut parking_lot::MutexGuard<'_, Tail>) {
        tail.syncing = true;
        let (from, to) = (tail.unsynced, tail.next);
        let batch = std::mem::take(&mut tail.pending);
        let current = tail.current.take();
        let (current, closed, result) = parking_lot::MutexGuard::unlocked(tail, || {
            let (mut current, mut closed) = match current {
                Some(s) if s.end >= SEGMENT_BYTES => (None, Some(s)),
                other => (other, None),
            };
            let result = self.write(&mut current, from, &batch);
            if result.is_err() {
                // What a failed write left behind is unknown: go on in a new segment.
                closed = closed.or(current.take());
            }
            (current, closed, result)
        });
        if let Some(s) = closed {
            tail.closed.push_back(Closed::of(s, to));
        }
        tail.current = current;
        if let Err(error) = result {
            tracing::error!(%error, from, to, "intent log: write failed");
            tail.failures.push((from, to));
        }
        tail.unsynced = to;
        tail.syncing = false;
        self.moved.notify_all();
    }

    fn write(&self, current: &mut Option<Segment>, first: u64, batch: &[u8]) -> io::Result<()> {
        let segment = match current {
            Some(s) => s,
            None => current.insert(self.new_segment(first)?),
        };
        segment.file.write_all_at(batch, segment.end)?;
        segment.end += batch.len() as u64;
        self.bytes.fetch_add(batch.len() as u64, Relaxed);
        rustix::fs::fdatasync(&segment.file)?;
        Ok(())
    }

    fn new_segment(&self, first: u64) -> io::Result<Segment> {
        let path = self.dir.join(format!("{first:016x}.log"));
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let header = segment_header(first);
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        self.dir_file.sync_all()?;
        self.bytes.fetch_add(header.len() as u64, Relaxed);
        Ok(Segment {
            file: Arc::new(file),
            path,
            first,
            end: header.len() as u64,
        })
    }

    /// Notes that change `number` is applied (or given up) and lets `store` keep the new state.
    pub fn applied(
        &self,
        number: u64,
        store: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut tail = self.tail.lock();
        tail.applied.insert(number);
        let low = tail.applied.next;
        tail.failures.retain(|(_, to)| *to > low);
        // Under the lock, so that an older state never overwrites a newer one.
        let result = store(&tail.applied.encode());
        self.moved.notify_all();
        result
    }

    /// Bytes of all segments, which a crash would replay now. Never waits.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether a checkpoint failed. Never waits.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Relaxed)
    }

    /// Whether it must not grow: the next start reads all of what is kept.
    pub fn is_full(&self) -> bool {
        self.is_kept() && self.bytes() >= KEPT_BYTES_MAX
    }

    /// Closes the current segment, makes tree and cache durable with `sync`, drops what that covers.
    ///
    /// Appends go on meanwhile, in a new segment.
    ///
    /// # Errors
    /// Once one failed, all do, and no segment goes any more: what the disk lost then, no later sync writes. The next start applies
    /// the segments to what is there.
    pub fn checkpoint(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let upto = {
            let mut tail = self.tail.lock();
            while tail.syncing {
                self.moved.wait(&mut tail);
            }
            if let Some(s) = tail.current.take() {
                if tail.unsynced > s.first {
                    let end = tail.unsynced;
                    tail.closed.push_back(Closed::of(s, end));
                } else {
                    tail.current = Some(s);
                }
            }
            let Some(upto) = tail.closed.back().map(|closed| closed.until) else {
                return Ok(());
            };
            // Every change in these segments must have reached the tree before the tree is synced.
            while tail.applied.next < upto {
                self.moved.wait(&mut tail);
            }
            upto
        };
        if self.is_kept() {
            return Err(io::Error::other("an earlier one failed"));
        }
        sync()
            .and_then(|()| self.drop_until(upto))
            .inspect_err(|_| self.kept.store(true, Relaxed))
    }

    /// Removes the segments of records below `upto`, if no other checkpoint has failed meanwhile.
    fn drop_until(&self, upto: u64) -> io::Result<()> {
        let mut tail = self.tail.lock();
        if self.is_kept() {
            return Err(io::Error::other("another one failed"));
        }
        while tail.closed.front().is_some_and(|c| c.until <= upto) {
            if let Some(closed) = tail.closed.pop_front() {
                std::fs::remove_file(closed.path)?;
                self.bytes.fetch_sub(closed.bytes, Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
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
        let bytes = || -> u64 {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries.map(|e| e.unwrap().metadata().unwrap().len()).sum()
        };
        change(1);
        log.checkpoint(|| Ok(())).unwrap();
        assert_eq!((log.bytes(), bytes(), log.is_kept()), (0, 0, false));
        change(2);
        log.checkpoint(|| Err(io::Error::other("no"))).unwrap_err();
        change(3);
        log.checkpoint(|| Ok(())).unwrap_err();
        assert_eq!(recover(dir.path()).unwrap().records.len(), 2);
        assert!(log.is_kept() && !log.is_full());
        assert_eq!(log.bytes(), bytes());
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
}
