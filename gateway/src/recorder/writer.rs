//! The thread that appends to the live segment.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::time::{Duration, Instant};

use lru::LruCache;
use tiering::trace::{FrameWriter, Record, header};

use super::queue::Queue;
use super::{Counters, Message, RecorderConfig, seal};

/// Longest time that a record waits before it is handed to the kernel.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// Longest time that it then waits for the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Wait after a failure, before a segment is begun again: on a full disk each try would leave a name.
const RETRY_EVERY: Duration = Duration::from_secs(1);
const FRAME_BYTES: usize = 64 << 10;

pub(super) struct Writer {
    cfg: RecorderConfig,
    anchor_wall_us: u64,
    counters: Arc<Counters>,
    paths: LruCache<u32, Box<str>>,
    clients: LruCache<u32, Box<str>>,
    frame: FrameWriter,
    /// Records in it.
    framed: u64,
    segment: Option<Segment>,
    sequence: u32,
    /// The time in the name of the newest segment.
    newest_us: u64,
    sealer: Option<(Sender<PathBuf>, std::thread::JoinHandle<()>)>,
    failing: bool,
    /// No segment is begun before.
    retry_at: Instant,
}

struct Segment {
    path: PathBuf,
    file: File,
    bytes: u64,
    opened: Instant,
    synced: Instant,
    defined_paths: HashSet<u32>,
    defined_clients: HashSet<u32>,
}

impl Writer {
    pub fn new(
        cfg: RecorderConfig,
        anchor_wall_us: u64,
        counters: Arc<Counters>,
    ) -> io::Result<Writer> {
        let left = seal::live_segments(&cfg.dir)?;
        let newest_us = seal::newest(&cfg.dir)?;
        let (queue, paths) = channel::<PathBuf>();
        let (dir, retention, seal_counters) =
            (cfg.dir.clone(), cfg.retention_bytes, Arc::clone(&counters));
        let thread = std::thread::Builder::new().name("trace-seal".into()).spawn(move || {
            // Behind whatever serves requests. For this thread alone, by setpriority(2)'s "C library/kernel differences".
            if let Err(error) = rustix::process::setpriority_process(None, 19) {
                tracing::debug!(%error, "traces are sealed at full priority");
            }
            let mut left = VecDeque::new();
            for path in paths {
                let mut next = Some(path);
                // Where one could be sealed there may be room for one that could not.
                while let Some(path) = next {
                    let sealed = seal::seal(&path);
                    next = sealed.as_ref().ok().and_then(|()| left.pop_front());
                    if let Err(error) = sealed.and_then(|()| seal::retain(&dir, retention)) {
                        seal_counters.errors.fetch_add(1, Relaxed);
                        tracing::warn!(segment = %path.display(), %error, "trace segment not sealed");
                    }
                    if path.exists() {
                        left.push_back(path);
                    }
                }
            }
        })?;
        for path in left {
            // The receiver lives as long as this sender.
            let _ = queue.send(path);
        }
        // Twice what the front remembers, since records may name what it has just forgotten.
        let entries = NonZeroUsize::new(cfg.dictionary_entries.saturating_mul(2))
            .unwrap_or(NonZeroUsize::MIN);
        Ok(Writer {
            anchor_wall_us,
            counters,
            paths: LruCache::new(entries),
            clients: LruCache::new(entries),
            frame: FrameWriter::default(),
            framed: 0,
            segment: None,
            sequence: 0,
            newest_us,
            sealer: Some((queue, thread)),
            failing: false,
            retry_at: Instant::now(),
            cfg,
        })
    }

    pub fn run(mut self, queue: Arc<Queue<Message>>) {
        let mut messages = Vec::new();
        let mut flush_at = Instant::now() + FLUSH_EVERY;
        // Whoever waits for the end; told by dropping their senders.
        let mut done: Vec<SyncSender<()>> = Vec::new();
        while done.is_empty() {
            let wait = flush_at.saturating_duration_since(Instant::now());
            if !queue.take(&mut messages, wait) {
                break;
            }
            for message in messages.drain(..) {
                match message {
                    Message::Path(id, name) => {
                        self.paths.put(id, name);
                    }
                    Message::Client(id, name) => {
                        self.clients.put(id, name);
                    }
                    // What comes after the end is not written.
                    Message::Record(_) if !done.is_empty() => self.drop_records(1),
                    Message::Record(record) => self.add(&record),
                    Message::Finish(sender) => done.push(sender),
                }
                if self.frame.len() >= FRAME_BYTES {
                    self.flush();
                }
            }
            if flush_at <= Instant::now() {
                self.flush();
                flush_at = Instant::now() + FLUSH_EVERY;
            }
        }
        self.flush();
        self.rotate();
        if let Some((queue, thread)) = self.sealer.take() {
            drop(queue);
            let _ = thread.join();
        }
        // Later records find the queue closed, and are counted as dropped, before anybody is told that this is the end.
        queue.close();
        while queue.take(&mut messages, Duration::ZERO) {
            for message in messages.drain(..) {
                if let Message::Record(_) = message {
                    self.drop_records(1);
                }
            }
        }
        drop(done);
    }

    /// Counts records that came through the queue, and are not written.
    fn drop_records(&self, count: u64) {
        self.counters.dropped.fetch_add(count, Relaxed);
    }

    fn add(&mut self, record: &Record) {
        if self.segment.is_none() && self.retry_at <= Instant::now() {
            let opened = self.open();
            self.note(opened);
        }
        let Some(segment) = &mut self.segment else {
            self.drop_records(1);
            return;
        };
        for id in [record.path, record.path2] {
            if id != 0
                && segment.defined_paths.insert(id)
                && let Some(name) = self.paths.get(&id)
            {
                self.frame.path(id, name);
            }
        }
        if record.client != 0
            && segment.defined_clients.insert(record.client)
            && let Some(name) = self.clients.get(&record.client)
        {
            self.frame.client(record.client, name);
        }
        self.frame.record(record);
        self.framed += 1;
    }

    fn open(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        // A clock that was set back makes no segment older than those before.
        self.newest_us = now_us.max(self.newest_us.saturating_add(1));
        let name = seal::live_name(self.newest_us, self.sequence);
        let path = self.cfg.dir.join(name);
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)?;
        let head = header(self.anchor_wall_us);
        if let Err(error) = file.write_all(&head) {
            // Nothing is in it.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let now = Instant::now();
        self.segment = Some(Segment {
            path,
            file,
            bytes: head.len() as u64,
            opened: now,
            synced: now,
            defined_paths: HashSet::new(),
            defined_clients: HashSet::new(),
        });
        Ok(())
    }

    /// Hands the frame to the kernel, so that it survives a kill; to the disk once a second; rotates.
    fn flush(&mut self) {
        let Some(segment) = &mut self.segment else {
            return;
        };
        let mut out = Vec::new();
        if !self.frame.is_empty() {
            self.frame.finish(&mut out);
        }
        let framed = std::mem::take(&mut self.framed);
        let written = segment.file.write_all(&out);
        // Of a torn frame nothing can be read.
        let counter = match &written {
            Ok(()) => &self.counters.records,
            Err(_) => &self.counters.dropped,
        };
        counter.fetch_add(framed, Relaxed);
        let written = written.and_then(|()| {
            segment.bytes += out.len() as u64;
            if segment.synced.elapsed() >= SYNC_EVERY {
                segment.synced = Instant::now();
                segment.file.sync_data()?;
            }
            Ok(())
        });
        let full = segment.bytes >= self.cfg.segment_bytes
            || segment.opened.elapsed() >= self.cfg.segment_age;
        if full || written.is_err() {
            // After an error the segment ends here: a torn frame must stay its last.
            self.rotate();
        }
        self.note(written);
    }

    fn rotate(&mut self) {
        if let Some(segment) = self.segment.take()
            && let Some((queue, _)) = &self.sealer
        {
            let _ = queue.send(segment.path);
        }
    }

    /// Counts an error; logs the first of a row.
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.counters.errors.fetch_add(1, Relaxed);
                self.retry_at = Instant::now() + RETRY_EVERY;
                if !self.failing {
                    tracing::warn!(dir = %self.cfg.dir.display(), %error, "the trace cannot be written; records are lost");
                }
                self.failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tiering::trace::{Op, read_live};

    #[test]
    fn a_record_is_in_the_trace_or_is_counted_as_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::<Counters>::default();
        let cfg = RecorderConfig::new(dir.path());
        let mut writer = Writer::new(cfg, 0, Arc::clone(&counters)).unwrap();
        let add = |writer: &mut Writer, count: u64| {
            (0..count).for_each(|n| writer.add(&Record::new(Op::Get, n)));
        };
        let counted = || {
            let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
            (of(&counters.records), of(&counters.dropped))
        };
        add(&mut writer, 10);
        writer.flush();
        assert_eq!(counted(), (10, 0));
        add(&mut writer, 7);
        let segment = writer.segment.as_mut().unwrap();
        let first = segment.path.clone();
        segment.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        writer.flush();
        assert_eq!(counted(), (10, 7));
        // No segment is begun for a while.
        writer.retry_at += Duration::from_secs(3600);
        add(&mut writer, 3);
        writer.flush();
        assert_eq!(counted(), (10, 10));
        writer.retry_at = Instant::now();
        add(&mut writer, 5);
        writer.flush();
        assert_eq!(counted(), (15, 10));
        let second = writer.segment.as_ref().unwrap().path.clone();
        let bytes = std::fs::read(second).unwrap();
        assert_eq!(read_live(&bytes[..]).unwrap().count(), 5);
        writer.rotate();
        let (queue, sealer) = writer.sealer.take().unwrap();
        drop(queue);
        sealer.join().unwrap();
        let sealed = File::open(first.with_extension("parquet")).unwrap();
        let rows = tiering::trace::ParquetReader::new(sealed).unwrap();
        assert_eq!(rows.count(), 10);
    }
}
