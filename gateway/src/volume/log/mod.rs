//! The intent log on the cache tier: what makes a change durable without waiting for the tree.
//!
//! A change is appended, then synced together with all others that wait at that moment (the first
//! waiter writes and syncs for everyone), then applied to the tree. `checkpoint` syncs the tree
//! and the cache and lets the segments that are no longer needed be written over.
//!
//! Written ahead, so that a change whose record is lost has not touched the tree: the old content
//! stays whole. See `applied` for why replay is exact, `record` for the format.

pub mod applied;
pub mod record;
mod scan;
mod segment;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use applied::{Applied, WINDOW};
use record::{Record, Unusable, frame, parse_segment};
use segment::{Closed, Segment, Spare};

use super::identity;

/// A segment is closed when it has grown to this.
pub const SEGMENT_BYTES: u64 = 32 << 20;
/// A log that is kept is at most about this long: the next start reads it into memory.
const KEPT_BYTES_MAX: u64 = 128 << 20;
/// Appenders wait while this much is not yet written.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Segments that are kept to be written over: one for the checkpoint under way, one more for a load that fills them.
const SPARES_MAX: usize = 2;

struct Tail {
    /// Frames not yet handed to a write.
    pending: Vec<u8>,
    /// Number of the next record.
    next: u64,
    /// Number of the first record not yet on stable storage.
    unsynced: u64,
    /// Someone writes and syncs now.
    syncing: bool,
    /// Number of the batch that is pending; the one being synced is the one before.
    batch: usize,
    /// A checkpoint waits for the segment that is being written to be closed.
    close: bool,
    /// Records below this were in a batch that failed (and at or above the failure's first).
    failures: Vec<(u64, u64)>,
    current: Option<Segment>,
    /// Older segments.
    closed: VecDeque<Closed>,
    spares: Vec<Spare>,
    applied: Applied,
}

impl Tail {
    /// Closes the segment that is written, unless nothing is in it.
    fn close_current(&mut self) {
        let unsynced = self.unsynced;
        if let Some(s) = self.current.take_if(|s| unsynced > s.first) {
            self.closed.push_back(s.close(unsynced));
        }
    }
}

/// An open log.
pub struct Log {
    dir: PathBuf,
    dir_file: File,
    salt: u64,
    tail: Mutex<Tail>,
    /// Where those of every other batch wait for its end, or for their turn to sync: who waits for one batch is not woken by another.
    batches: [Condvar; 2],
    /// Changes were applied, or a batch has ended.
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
    spares: Vec<PathBuf>,
    gaps: Vec<Gap>,
}

/// What a segment lacks.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    segment: PathBuf,
    /// Numbers of records, as others come after them; `None`: all that it had, its header being damaged.
    numbers: Option<Range<u64>>,
}

/// Reads every segment below `dir`.
///
/// # Errors
/// Also of a segment of another version: what it holds, only that one can apply.
pub fn recover(dir: &Path) -> io::Result<Recovered> {
    let (mut segments, mut spares) = (Vec::new(), Vec::new());
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            for e in entries {
                let path = e?.path();
                if Spare::is_name(&path) {
                    spares.push(path);
                } else if path.extension().is_some_and(|x| x == "log") {
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
    let mut gaps = Vec::new();
    // The number that comes next, and the segment that should have it.
    let mut expected: Option<(u64, &PathBuf)> = None;
    let gap = |expected: Option<(u64, &PathBuf)>, found: u64| {
        let (next, segment) = expected.filter(|(next, _)| *next < found)?;
        Some(Gap {
            segment: segment.clone(),
            numbers: Some(next..found),
        })
    };
    for path in &segments {
        if let Some(first) = number_of(path) {
            gaps.extend(gap(expected, first));
            expected = Some((expected.map_or(first, |(next, _)| next.max(first)), path));
        }
        let found = match parse_segment(Bytes::from(std::fs::read(path)?)) {
            Ok(found) => found,
            Err(Unusable::Damaged) => {
                gaps.push(Gap {
                    segment: path.clone(),
                    numbers: None,
                });
                continue;
            }
            Err(Unusable::Foreign) => {
                return Err(io::Error::other(format!(
                    "{} was written by another version: start that one, and end it cleanly",
                    path.display()
                )));
            }
        };
        for (number, record) in found {
            if records.last().is_none_or(|(last, _)| number > *last) {
                gaps.extend(gap(expected, number));
                expected = Some((number.saturating_add(1), path));
                records.push((number, record));
            }
        }
    }
    Ok(Recovered {
        records,
        segments,
        spares,
        gaps,
    })
}

/// The number of its first record, by its name.
fn number_of(segment: &Path) -> Option<u64> {
    u64::from_str_radix(segment.file_stem()?.to_str()?, 16).ok()
}

impl Recovered {
    /// Tells of records that are gone and that the tree, which shows what is `applied`, does not show.
    pub fn tell_gaps(&mut self, applied: &Applied) {
        self.gaps.retain(|Gap { segment, numbers }| {
            let lost = numbers.as_ref().is_none_or(|numbers| {
                // What is below is applied, and nothing far above is: this looks at few.
                (numbers.start.max(applied.next)..numbers.end).any(|n| !applied.contains(n))
            });
            if lost {
                tracing::error!(
                    segment = %segment.display(), ?numbers,
                    "intent log: changes are missing from a damaged segment, which is kept as .damaged. Those that were \
                     acknowledged are lost; all others are applied"
                );
            }
            lost
        });
    }

    /// Removes the segments, after everything they hold is applied and synced; what lacks something gets another name.
    pub fn remove(self) -> io::Result<()> {
        let damaged = |path: &PathBuf| self.gaps.iter().any(|gap| gap.segment == *path);
        self.segments
            .iter()
            .try_for_each(|path| match damaged(path) {
                true => std::fs::rename(path, path.with_extension("damaged")),
                false => std::fs::remove_file(path),
            })?;
        self.spares.iter().try_for_each(std::fs::remove_file)
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
            salt: identity::fresh()?.0,
            tail: Mutex::new(Tail {
                pending: Vec::new(),
                next,
                unsynced: next,
                syncing: false,
                batch: 0,
                close: false,
                failures: Vec::new(),
                current: None,
                closed: VecDeque::new(),
                spares: Vec::new(),
                applied,
            }),
            batches: [Condvar::new(), Condvar::new()],
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
        frame(number, record, self.salt, &mut tail.pending);
        let batch = tail.batch;
        while tail.unsynced <= number {
            if tail.syncing {
                self.batches[batch % 2].wait(&mut tail);
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
        let ended = tail.batch;
        tail.batch += 1;
        let (from, to) = (tail.unsynced, tail.next);
        let batch = std::mem::take(&mut tail.pending);
        let mut current = tail.current.take();
        let mut closed: Vec<Segment> = current
            .take_if(|s| s.end >= SEGMENT_BYTES)
            .into_iter()
            .collect();
        let spare = match current {
            None => tail.spares.pop(),
            Some(_) => None,
        };
        let (current, closed, result) = parking_lot::MutexGuard::unlocked(tail, || {
            let result = self.write(&mut current, from, batch, spare);
            if result.is_err() {
                // What a failed write left behind is unknown: go on in a new segment.
                closed.extend(current.take());
            }
            (current, closed, result)
        });
        tail.closed.extend(closed.into_iter().map(|s| s.close(to)));
        tail.current = current;
        if let Err(error) = result {
            tracing::error!(%error, from, to, "intent log: write failed");
            tail.failures.push((from, to));
        }
        tail.unsynced = to;
        tail.syncing = false;
        // Now: before the checkpoint were awake, the next batch might be under way, again and again.
        if std::mem::take(&mut tail.close) {
            tail.close_current();
        }
        self.batches[ended % 2].notify_all();
        // One of the next batch syncs it.
        self.batches[(ended + 1) % 2].notify_one();
        self.moved.notify_all();
    }

    fn write(
        &self,
        current: &mut Option<Segment>,
        first: u64,
        batch: Vec<u8>,
        spare: Option<Spare>,
    ) -> io::Result<()> {
        let segment = match current {
            Some(s) => s,
            None => {
                let place = (self.dir.as_path(), &self.dir_file);
                let begun = Segment::begin(place, first, self.salt, spare)?;
                self.bytes.fetch_add(begun.end, Relaxed);
                current.insert(begun)
            }
        };
        let before = segment.end;
        segment.append(batch)?;
        self.bytes.fetch_add(segment.end - before, Relaxed);
        Ok(())
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
            tail.close = tail.syncing;
            while tail.close {
                self.moved.wait(&mut tail);
            }
            tail.close_current();
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

    /// Gives back what is only kept to be written over.
    pub fn drop_spares(&self) {
        let spares = std::mem::take(&mut self.tail.lock().spares);
        spares.into_iter().for_each(Spare::remove);
    }

    /// Retires the segments of records below `upto`, if no other checkpoint has failed meanwhile.
    fn drop_until(&self, upto: u64) -> io::Result<()> {
        let mut tail = self.tail.lock();
        if self.is_kept() {
            return Err(io::Error::other("another one failed"));
        }
        while tail.closed.front().is_some_and(|c| c.until <= upto) {
            if let Some(closed) = tail.closed.pop_front() {
                let (bytes, keep) = (closed.bytes, tail.spares.len() < SPARES_MAX);
                tail.spares.extend(closed.retire(keep)?);
                self.bytes.fetch_sub(bytes, Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
