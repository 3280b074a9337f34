//! The lock table's journal: appended records, one `fdatasync` for all that wait, rewritten when mostly stale.
//!
//! Whoever waits for a disk is kept waiting by a thread of the journal's own. Where nothing is synced, a record is in the
//! kernel's hands after one short `write`, which costs less than waking a thread for it.
//!
//! A record is `length u32 LE, crc32c u32 LE, JSON`. A torn or damaged tail ends the reading: what was acknowledged
//! lies before it: after a failure, which may have left half a record or lost a whole one, nothing is appended any more until all
//! of it has been rewritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Lock, Moved};
use crate::zeros;

const NAME: &str = "locks.journal";
const NEW_NAME: &str = "locks.journal.new";
/// Longest record believed when reading.
const RECORD_MAX: usize = 4 << 20;
/// The journal is rewritten when this many records more than the live ones were appended.
const SLACK: usize = 4096;

/// Zeros that are written ahead where appends are synced.
const AHEAD_BYTES: u64 = 256 << 10;

/// One change of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// A lock was taken or refreshed.
    Put(Lock),
    /// A lock is gone.
    Drop(String),
    /// A lock's resource was moved away by its owner.
    Moved(Moved),
}

/// Tells when an appended record is as safe as it gets: on stable storage, or with the kernel.
#[derive(Debug)]
pub struct Ticket(Outcome);

#[derive(Debug)]
enum Outcome {
    Known(io::Result<()>),
    Coming(oneshot::Receiver<Result<(), io::ErrorKind>>),
}

impl Ticket {
    /// Waits for it.
    pub async fn wait(self) -> io::Result<()> {
        match self.0 {
            Outcome::Known(result) => result,
            Outcome::Coming(coming) => match coming.await {
                Ok(result) => result.map_err(io::Error::from),
                Err(_) => Err(io::Error::other("lock journal is closed")),
            },
        }
    }
}

enum Message {
    Append(Vec<u8>, oneshot::Sender<Result<(), io::ErrorKind>>),
    Rewrite(Vec<u8>),
}

/// The writing end.
pub(super) struct Journal {
    end: End,
    appended: AtomicUsize,
    live: AtomicUsize,
    /// It has to be rewritten first.
    failed: Arc<AtomicBool>,
}

enum End {
    /// A thread of its own, so that the table never waits for the disk.
    Thread {
        queue: Option<mpsc::Sender<Message>>,
        thread: Option<JoinHandle<()>>,
    },
    /// Nothing is synced.
    Here(Mutex<Writer>),
}

impl Journal {
    /// Rewrites the journal with what is live and starts the writer.
    pub(super) fn start(dir: &Path, sync: bool, live: &[Record]) -> io::Result<Journal> {
        let mut writer = Writer {
            dir: dir.to_path_buf(),
            sync,
            file: None,
            failed: Arc::default(),
        };
        let failed = Arc::clone(&writer.failed);
        writer.rewrite(&encode_all(live))?;
        let end = if sync {
            let (queue, messages) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name("lock-journal".into())
                .spawn(move || writer.run(&messages))?;
            End::Thread {
                queue: Some(queue),
                thread: Some(thread),
            }
        } else {
            End::Here(Mutex::new(writer))
        };
        Ok(Journal {
            end,
            appended: 0.into(),
            live: live.len().into(),
            failed,
        })
    }

    /// Appends; `live` is asked for the whole table when it is time to rewrite.
    pub(super) fn append(&self, record: Record, live: impl FnOnce() -> Vec<Record>) -> Ticket {
        let rewrite = self.is_due().then(|| {
            let live = live();
            // At least as many changes again before the next rewrite: its cost stays proportional.
            self.live.store(live.len(), Relaxed);
            self.appended.store(0, Relaxed);
            encode_all(&live)
        });
        match &self.end {
            End::Here(writer) => {
                let mut writer = writer.lock();
                if let Some(all) = rewrite {
                    writer.try_rewrite(&all);
                }
                let result = writer.append(&encode(&record));
                if let Err(error) = &result {
                    tracing::error!(%error, "lock journal cannot be written");
                }
                Ticket(Outcome::Known(result))
            }
            End::Thread { queue, .. } => {
                let (done, coming) = oneshot::channel();
                if let Some(queue) = queue {
                    if let Some(all) = rewrite {
                        let _ = queue.send(Message::Rewrite(all));
                    }
                    // If the thread is gone, the ticket's sender is dropped and waiting for it fails.
                    let _ = queue.send(Message::Append(encode(&record), done));
                }
                Ticket(Outcome::Coming(coming))
            }
        }
    }

    /// Counts a record; whether the journal is to be rewritten before it is appended.
    fn is_due(&self) -> bool {
        let stale = self.appended.fetch_add(1, Relaxed) >= SLACK.max(self.live.load(Relaxed));
        stale || self.failed.load(Relaxed)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let End::Thread { queue, thread } = &mut self.end {
            *queue = None;
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

struct Writer {
    dir: PathBuf,
    sync: bool,
    /// None after a failure.
    file: Option<Appended>,
    failed: Arc<AtomicBool>,
}

/// A journal that is appended to.
struct Appended {
    file: File,
    /// Bytes of records.
    end: u64,
    /// Bytes of the file: zeros from `end` on, which end the reading as a damaged record does.
    filled: u64,
}

impl Appended {
    fn append(&mut self, bytes: &[u8], ahead: bool) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        if self.end > self.filled {
            self.filled = self.end;
            if ahead {
                self.filled = zeros::fill(&self.file, self.end, self.end + AHEAD_BYTES);
            }
        }
        Ok(())
    }
}

impl Writer {
    fn run(mut self, messages: &mpsc::Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut buffer = Vec::new();
            let mut waiting = Vec::new();
            let mut result = Ok(());
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Append(bytes, done) => {
                        buffer.extend_from_slice(&bytes);
                        waiting.push(done);
                    }
                    Message::Rewrite(bytes) => {
                        result = result.and_then(|()| self.append(&buffer));
                        buffer.clear();
                        if self.try_rewrite(&bytes) {
                            // What came before is in it.
                            result = Ok(());
                        }
                    }
                }
            }
            let wanted = waiting.iter().any(|w| !w.is_closed());
            result = result
                .and_then(|()| self.append(&buffer))
                .and_then(|()| if wanted { self.sync() } else { Ok(()) });
            if let Err(error) = &result {
                tracing::error!(%error, "lock journal cannot be written");
            }
            let result = result.map_err(|e| e.kind());
            for done in waiting {
                let _ = done.send(result);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let written = file.append(bytes, self.sync);
        self.unless_failed(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        let synced = match &self.file {
            Some(journal) if self.sync => journal.file.sync_data(),
            _ => Ok(()),
        };
        self.unless_failed(synced)
    }

    /// Nothing can be relied on that follows what failed.
    fn unless_failed(&mut self, done: io::Result<()>) -> io::Result<()> {
        done.inspect_err(|_| {
            self.file = None;
            self.failed.store(true, Relaxed);
        })
    }

    /// Whether it was possible; if not, what there is goes on growing, unless it has failed itself.
    fn try_rewrite(&mut self, bytes: &[u8]) -> bool {
        let rewritten = self.rewrite(bytes);
        if let Err(error) = &rewritten {
            tracing::warn!(%error, "lock journal could not be rewritten");
        }
        rewritten.is_ok()
    }

    fn rewrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join(NEW_NAME);
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&new)?;
        let mut journal = Appended {
            file,
            end: 0,
            filled: 0,
        };
        journal.append(bytes, self.sync)?;
        if self.sync {
            journal.file.sync_all()?;
        }
        let placed = std::fs::rename(&new, self.dir.join(NAME)).and_then(|()| match self.sync {
            true => File::open(&self.dir)?.sync_all(),
            false => Ok(()),
        });
        // Which of the two has the name after a power cut is not known otherwise.
        self.unless_failed(placed)?;
        self.file = Some(journal);
        self.failed.store(false, Relaxed);
        Ok(())
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).unwrap_or_default();
    let mut out = Vec::with_capacity(json.len() + 8);
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&json).to_le_bytes());
    out.extend_from_slice(&json);
    out
}

fn encode_all(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(encode).collect()
}

/// Reads whole records up to the first damaged one.
pub(super) fn decode(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > RECORD_MAX {
            break;
        }
        let Some((json, rest)) = rest.split_at_checked(len) else {
            break;
        };
        if crc32c::crc32c(json) != u32::from_le_bytes([e, f, g, h]) {
            break;
        }
        let Ok(record) = serde_json::from_slice(json) else {
            break;
        };
        records.push(record);
        bytes = rest;
    }
    records
}

/// For [`crate::fuzzing`]: as it is, and behind a head that is right; how many records were read.
pub(super) fn fuzz(data: &[u8]) -> usize {
    let check = |bytes: &[u8]| {
        let records = decode(bytes);
        assert_eq!(decode(&encode_all(&records)), records);
        records.len()
    };
    let as_is = check(data);
    let mut whole = (data.len() as u32).to_le_bytes().to_vec();
    whole.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    whole.extend_from_slice(data);
    as_is + check(&whole)
}

/// For [`crate::fuzzing`]: a journal, and what its records say.
pub(super) fn fuzz_seeds() -> Vec<Vec<u8>> {
    let json = br#"{"Drop":"urn:uuid:1"}"#.to_vec();
    vec![encode(&Record::Drop("urn:uuid:1".into())), json]
}

pub(super) fn load(dir: &Path) -> io::Result<Vec<Record>> {
    let mut bytes = Vec::new();
    match File::open(dir.join(NAME)) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    Ok(decode(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_torn_or_flipped_tail_keeps_what_lies_before(n in 1usize..6, cut in 0usize..400, flip: bool) {
            let records: Vec<Record> = (0..n).map(|i| Record::Drop(format!("urn:{i}"))).collect();
            let mut bytes = encode_all(&records);
            let cut = cut % bytes.len();
            if flip { bytes[cut] ^= 0x40 } else { bytes.truncate(cut) }
            let whole = cut / (bytes.len().max(encode_all(&records).len()) / n);
            prop_assert_eq!(decode(&bytes), &records[..whole]);
        }
    }
}
