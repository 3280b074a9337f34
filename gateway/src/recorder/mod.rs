//! Records the trace off the request path.
//!
//! Requests put records on a bounded queue and never wait; what does not fit is dropped and counted. One thread appends
//! them to the live segment, another seals finished segments as Parquet, so that sealing delays no record.

mod queue;
mod seal;
mod writer;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lru::LruCache;
use parking_lot::Mutex;
use tiering::Nanos;
use tiering::trace::Record;

use crate::metrics::{Gauge, Metrics};
use queue::Queue;

/// Where and how to record.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Directory of the segments; made when absent.
    pub dir: PathBuf,
    /// Records that may wait for the writer; more are dropped and counted.
    pub queue_records: usize,
    /// A live segment is sealed when it is this large.
    pub segment_bytes: u64,
    /// A live segment is sealed when it is this old.
    pub segment_age: Duration,
    /// Sealed segments are removed, oldest first, beyond this total.
    pub retention_bytes: u64,
    /// Paths remembered for their number; the least recently used is renumbered when it comes back.
    pub dictionary_entries: usize,
}

impl RecorderConfig {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            queue_records: 65_536,
            segment_bytes: 32 << 20,
            segment_age: Duration::from_secs(15 * 60),
            retention_bytes: 1 << 30,
            dictionary_entries: 65_536,
        }
    }
}

/// Why recording could not start.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The directory or its first segment cannot be made.
    #[error("cannot record the trace in {path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Counters of a recorder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RecorderStats {
    /// Records handed to the kernel.
    pub records: u64,
    /// Records that never were: the queue was full, or the disk did not take them.
    pub dropped: u64,
    /// Writes, seals or removals that failed.
    pub errors: u64,
}

#[derive(Debug, Default)]
struct Counters {
    records: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
}

/// What goes to the writer.
enum Message {
    Path(u32, Box<str>),
    Client(u32, Box<str>),
    Record(Record),
    /// Write everything, seal, and answer by dropping the sender.
    Finish(SyncSender<()>),
}

/// Takes records from any thread. Cheap to clone; never blocks and never fails a request.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// The requests' end of the queue: closes it when the last recorder is gone.
struct Sender(Arc<Queue<Message>>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Shared {
    anchor: Instant,
    counters: Arc<Counters>,
    queue: Option<Sender>,
    paths: Mutex<Dictionary>,
    clients: Mutex<Dictionary>,
}

/// Numbers for names; the least recently used are forgotten and numbered anew when they come back.
struct Dictionary {
    ids: LruCache<Box<str>, u32>,
    next: u32,
}

impl Dictionary {
    fn new(entries: usize) -> Mutex<Dictionary> {
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        Mutex::new(Dictionary {
            ids: LruCache::new(entries),
            next: 1,
        })
    }

    /// The number of `name`; a new one is first told to the writer by `define`.
    fn id(&mut self, name: &str, define: impl FnOnce(u32, Box<str>) -> bool) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.next;
        if !define(id, name.into()) {
            return 0;
        }
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.ids.put(name.into(), id);
        id
    }
}

impl Recorder {
    /// Starts recording on its own threads. Segments that a crash left are sealed in the background.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn start(cfg: RecorderConfig) -> Result<Recorder, RecorderError> {
        let io = |source| RecorderError::Io {
            path: cfg.dir.clone(),
            source,
        };
        std::fs::create_dir_all(&cfg.dir).map_err(io)?;
        let queue = Arc::new(Queue::new(cfg.queue_records));
        let messages = Arc::clone(&queue);
        let anchor = Instant::now();
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let anchor_wall_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let counters = Arc::<Counters>::default();
        let writer =
            writer::Writer::new(cfg.clone(), anchor_wall_us, Arc::clone(&counters)).map_err(io)?;
        let thread = std::thread::Builder::new().name("trace".into());
        thread.spawn(move || writer.run(messages)).map_err(io)?;
        Ok(Self::with(
            anchor,
            counters,
            Some(Sender(queue)),
            cfg.dictionary_entries,
        ))
    }

    /// A recorder that only tells the time.
    pub fn disabled() -> Recorder {
        Self::with(Instant::now(), Arc::default(), None, 1)
    }

    fn with(
        anchor: Instant,
        counters: Arc<Counters>,
        queue: Option<Sender>,
        entries: usize,
    ) -> Recorder {
        let (paths, clients) = (Dictionary::new(entries), Dictionary::new(entries));
        Recorder {
            shared: Arc::new(Shared {
                anchor,
                counters,
                queue,
                paths,
                clients,
            }),
        }
    }

    /// Nanoseconds since this recorder's anchor.
    pub fn now(&self) -> Nanos {
        self.shared.anchor.elapsed().into()
    }

    /// The number of a path; 0 when it cannot be recorded now.
    pub fn path_id(&self, path: &str) -> u32 {
        let Some(queue) = &self.shared.queue else {
            return 0;
        };
        self.shared.paths.lock().id(path, |id, name| {
            queue.0.try_send(Message::Path(id, name)).is_ok()
        })
    }

    /// The number of a client; 0 when it cannot be recorded now.
    pub fn client_id(&self, client: &str) -> u32 {
        let Some(queue) = &self.shared.queue else {
            return 0;
        };
        self.shared.clients.lock().id(client, |id, name| {
            queue.0.try_send(Message::Client(id, name)).is_ok()
        })
    }

    /// Queues a record, or drops and counts it when the queue is full.
    pub fn record(&self, r: Record) {
        let Some(queue) = &self.shared.queue else {
            return;
        };
        if queue.0.try_send(Message::Record(r)).is_err() {
            self.shared.counters.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Writes what is queued and seals the segment. Blocks for as long as that takes; later records are dropped.
    pub fn finish(&self) {
        if let Some(queue) = &self.shared.queue {
            let (done, finished) = sync_channel(0);
            if queue.0.send_now(Message::Finish(done)).is_ok() {
                // The writer drops its end when everything is sealed.
                let _ = finished.recv();
            }
        }
    }

    /// Counters so far.
    pub fn stats(&self) -> RecorderStats {
        let c = &self.shared.counters;
        RecorderStats {
            records: c.records.load(Relaxed),
            dropped: c.dropped.load(Relaxed),
            errors: c.errors.load(Relaxed),
        }
    }

    /// Lets `metrics` show this recorder's counters.
    pub fn register(&self, metrics: &Metrics) {
        let read = |gauge, pick: fn(&RecorderStats) -> u64| {
            let recorder = self.clone();
            metrics.gauge(gauge, move || pick(&recorder.stats()) as f64);
        };
        read(Gauge::TraceRecords, |s| s.records);
        read(Gauge::TraceDropped, |s| s.dropped);
        read(Gauge::TraceErrors, |s| s.errors);
    }
}

#[cfg(test)]
mod tests;
