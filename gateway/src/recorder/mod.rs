//! Records the trace off the request path.
//!
//! Not written yet: the segments. Every record is counted as dropped, every path and client is 0.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tiering::Nanos;
use tiering::trace::Record;

use crate::metrics::{Gauge, Metrics};

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
    /// Records accepted.
    pub records: u64,
    /// Records dropped because the queue was full.
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

/// Takes records from any thread. Cheap to clone; never blocks and never fails a request.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    anchor: Instant,
    counters: Arc<Counters>,
}

impl Recorder {
    /// Starts recording on its own thread.
    pub fn start(cfg: RecorderConfig) -> Result<Recorder, RecorderError> {
        std::fs::create_dir_all(&cfg.dir).map_err(|source| RecorderError::Io {
            path: cfg.dir,
            source,
        })?;
        Ok(Self::disabled())
    }

    /// A recorder that only tells the time.
    pub fn disabled() -> Recorder {
        Recorder {
            shared: Arc::new(Shared {
                anchor: Instant::now(),
                counters: Arc::default(),
            }),
        }
    }

    /// Nanoseconds since this recorder's anchor.
    pub fn now(&self) -> Nanos {
        self.shared.anchor.elapsed().into()
    }

    /// The number of a path; 0 when it cannot be recorded now.
    pub fn path_id(&self, path: &str) -> u32 {
        let _ = path;
        0
    }

    /// The number of a client; 0 when it cannot be recorded now.
    pub fn client_id(&self, client: &str) -> u32 {
        let _ = client;
        0
    }

    /// Queues a record, or drops and counts it when the queue is full.
    pub fn record(&self, r: Record) {
        let _ = r;
        self.shared.counters.dropped.fetch_add(1, Relaxed);
    }

    /// Writes what is queued and seals the segment. Blocks for as long as that takes; later records are ignored.
    pub fn finish(&self) {}

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
