//! What librados was asked for, and how it went: by operation and pool.
//!
//! An operation counts from the call that begins it to librados' answer, whether or not anyone still waits for that.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{BUCKETS_US, head, histogram, labels, single, zeros};

labels! {
    /// What was asked for. `Stat` reads attributes alone, `Mark` sets or takes the mark of a clean object, `Copy` is done
    /// by the OSDs, `Lock` is all that concerns the owner's lock, `Command` goes to the monitors.
    RadosOp {
        Read => "read", Write => "write", Copy => "copy", Stat => "stat", Mark => "mark", Remove => "remove",
        List => "list", Lock => "lock", Command => "command",
    }
}

labels! {
    /// Which pool was asked; `None`: the monitors.
    RadosPool { Cache => "cache", Data => "data", None => "none", }
}

labels! {
    /// How an operation failed. `NotFound` and `Busy` are everyday answers.
    RadosFault {
        NotFound => "not_found", Busy => "busy", Full => "full", Timeout => "timeout", Denied => "denied",
        Blocklisted => "blocklisted", Other => "other",
    }
}

impl From<&io::Error> for RadosFault {
    fn from(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NODATA) => RadosFault::NotFound,
            Some(Errno::BUSY | Errno::EXIST) => RadosFault::Busy,
            Some(Errno::NOSPC | Errno::DQUOT) => RadosFault::Full,
            Some(Errno::TIMEDOUT) => RadosFault::Timeout,
            Some(Errno::ACCESS | Errno::PERM) => RadosFault::Denied,
            Some(Errno::SHUTDOWN) => RadosFault::Blocklisted,
            Some(_) | None => RadosFault::Other,
        }
    }
}

/// One operation on one pool.
struct Row {
    /// Finished, by bucket of [`BUCKETS_US`]; the last is above all of them.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_ns: AtomicU64,
    bytes: AtomicU64,
    faults: Vec<AtomicU64>,
}

impl Default for Row {
    fn default() -> Self {
        Row {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            faults: zeros(RadosFault::ALL.len()),
        }
    }
}

impl Row {
    fn finished(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Relaxed)).sum()
    }
}

/// Counts of one gateway's operations in its pools.
pub struct RadosMetrics {
    rows: Vec<Row>,
    in_flight: Vec<AtomicI64>,
    connected: [AtomicU64; 2],
    owner: AtomicBool,
}

impl Default for RadosMetrics {
    fn default() -> Self {
        RadosMetrics {
            rows: zeros(RadosOp::ALL.len() * RadosPool::ALL.len()),
            in_flight: zeros(RadosPool::ALL.len()),
            connected: Default::default(),
            owner: AtomicBool::new(false),
        }
    }
}

/// An operation under way: counted as such until it is dropped, and as finished by [`RadosRunning::end`].
pub struct RadosRunning {
    metrics: Arc<RadosMetrics>,
    op: RadosOp,
    pool: RadosPool,
    began: Instant,
}

impl RadosRunning {
    /// Counts the operation as finished, with the bytes that it moved or the error that it met.
    pub fn end(self, outcome: Result<u64, &io::Error>) {
        self.metrics
            .finish(self.op, self.pool, outcome, self.began.elapsed());
    }
}

impl Drop for RadosRunning {
    fn drop(&mut self) {
        if let Some(running) = self.metrics.in_flight.get(self.pool as usize) {
            running.fetch_sub(1, Relaxed);
        }
    }
}

/// Which operations there are, with their pools: commands go to none, all else to one.
fn pairs() -> impl Iterator<Item = (RadosOp, RadosPool)> {
    let all = RadosOp::ALL.iter().flat_map(|op| {
        let pools = RadosPool::ALL.iter();
        pools.map(move |pool| (*op, *pool))
    });
    all.filter(|(op, pool)| (*op == RadosOp::Command) == (*pool == RadosPool::None))
}

fn labels_of(op: RadosOp, pool: RadosPool) -> String {
    format!("op=\"{}\",pool=\"{}\"", op.as_str(), pool.as_str())
}

impl RadosMetrics {
    /// Counts an operation as under way.
    #[must_use]
    pub fn begin(self: &Arc<Self>, op: RadosOp, pool: RadosPool) -> RadosRunning {
        if let Some(running) = self.in_flight.get(pool as usize) {
            running.fetch_add(1, Relaxed);
        }
        RadosRunning {
            metrics: Arc::clone(self),
            op,
            pool,
            began: Instant::now(),
        }
    }

    /// Counts a try to connect to the cluster.
    pub fn connected(&self, ok: bool) {
        self.connected[usize::from(!ok)].fetch_add(1, Relaxed);
    }

    /// Says whether this gateway holds its pools' lock.
    pub fn set_owner(&self, owner: bool) {
        self.owner.store(owner, Relaxed);
    }

    /// Operations finished so far.
    pub fn finished(&self, op: RadosOp, pool: RadosPool) -> u64 {
        self.row(op, pool).map_or(0, Row::finished)
    }

    /// Bytes read or written so far.
    pub fn bytes(&self, op: RadosOp, pool: RadosPool) -> u64 {
        self.row(op, pool).map_or(0, |row| row.bytes.load(Relaxed))
    }

    /// Bytes read and written so far, in all pools.
    pub fn moved_bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes.load(Relaxed)).sum()
    }

    /// Operations that failed in a pool so far, by kind, without the everyday ones.
    pub fn faults(&self, pool: RadosPool) -> Vec<(&'static str, u64)> {
        let everyday = |f: &RadosFault| matches!(f, RadosFault::NotFound | RadosFault::Busy);
        let of = |fault: RadosFault| {
            let rows = RadosOp::ALL.iter().filter_map(|op| self.row(*op, pool));
            let counts = rows.filter_map(|row| row.faults.get(fault as usize));
            counts.map(|count| count.load(Relaxed)).sum()
        };
        let kinds = RadosFault::ALL.iter().filter(|f| !everyday(f));
        kinds.map(|f| (f.as_str(), of(*f))).collect()
    }

    fn row(&self, op: RadosOp, pool: RadosPool) -> Option<&Row> {
        self.rows
            .get(op as usize * RadosPool::ALL.len() + pool as usize)
    }

    fn finish(
        &self,
        op: RadosOp,
        pool: RadosPool,
        outcome: Result<u64, &io::Error>,
        took: Duration,
    ) {
        let Some(row) = self.row(op, pool) else {
            return;
        };
        let micros = u64::try_from(took.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < micros);
        row.buckets[bucket].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        row.sum_ns.fetch_add(nanos, Relaxed);
        match outcome {
            Ok(bytes) => _ = row.bytes.fetch_add(bytes, Relaxed),
            Err(error) => {
                let fault = RadosFault::from(error);
                if let Some(count) = row.faults.get(fault as usize) {
                    count.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Adds the families to `o`.
    pub(super) fn render(&self, o: &mut String) {
        let name = "tierdav_rados_operations_total";
        head(o, name, "counter", "RADOS operations finished.");
        for (op, pool) in pairs() {
            let count = self.finished(op, pool);
            let _ = writeln!(o, "{name}{{{}}} {count}", labels_of(op, pool));
        }
        let name = "tierdav_rados_errors_total";
        let help =
            "RADOS operations that ended with an error; not_found and busy are everyday answers.";
        head(o, name, "counter", help);
        for (op, pool) in pairs() {
            let faults = self.row(op, pool).map(|row| row.faults.as_slice());
            for (fault, count) in RadosFault::ALL.iter().zip(faults.unwrap_or_default()) {
                let (labels, fault) = (labels_of(op, pool), fault.as_str());
                let count = count.load(Relaxed);
                let _ = writeln!(o, "{name}{{{labels},error=\"{fault}\"}} {count}");
            }
        }
        let name = "tierdav_rados_bytes_total";
        let help = "Bytes that the gateway read from the pools and wrote to them; what OSDs copy is not in it.";
        head(o, name, "counter", help);
        let moving = |(op, _): &(RadosOp, _)| matches!(op, RadosOp::Read | RadosOp::Write);
        for (op, pool) in pairs().filter(moving) {
            let bytes = self.bytes(op, pool);
            let _ = writeln!(o, "{name}{{{}}} {bytes}", labels_of(op, pool));
        }
        self.render_durations(o);
        let name = "tierdav_rados_operations_in_flight";
        head(o, name, "gauge", "RADOS operations under way.");
        for (pool, count) in RadosPool::ALL.iter().zip(&self.in_flight) {
            let (pool, count) = (pool.as_str(), count.load(Relaxed));
            let _ = writeln!(o, "{name}{{pool=\"{pool}\"}} {count}");
        }
        let name = "tierdav_rados_connects_total";
        head(o, name, "counter", "Tries to connect to the Ceph cluster.");
        for (result, count) in ["ok", "failed"].iter().zip(&self.connected) {
            let count = count.load(Relaxed);
            let _ = writeln!(o, "{name}{{result=\"{result}\"}} {count}");
        }
        let name = "tierdav_rados_owner";
        let help = "1 while the gateway holds its pools' lock; without it, it serves nothing.";
        single(o, name, "gauge", help, u8::from(self.owner.load(Relaxed)));
    }

    fn render_durations(&self, o: &mut String) {
        let name = "tierdav_rados_operation_duration_seconds";
        let help = "Time from the beginning of a RADOS operation to its answer.";
        head(o, name, "histogram", help);
        for (op, pool) in pairs() {
            let Some(row) = self.row(op, pool).filter(|row| row.finished() > 0) else {
                continue;
            };
            let mut below = [0; BUCKETS_US.len()];
            let mut count = 0;
            for (below, bucket) in below.iter_mut().zip(&row.buckets) {
                count += bucket.load(Relaxed);
                *below = count;
            }
            let count = count + row.buckets.last().map_or(0, |b| b.load(Relaxed));
            let sum_ns = row.sum_ns.load(Relaxed);
            histogram(o, name, &labels_of(op, pool), below, count, sum_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn text(metrics: &RadosMetrics) -> String {
        let mut out = String::new();
        metrics.render(&mut out);
        out
    }

    #[test]
    fn an_operation_is_in_flight_until_it_ends_and_then_in_its_bucket() {
        let metrics = Arc::new(RadosMetrics::default());
        let running = metrics.begin(RadosOp::Write, RadosPool::Data);
        let in_flight = "tierdav_rados_operations_in_flight{pool=\"data\"}";
        assert!(text(&metrics).contains(&format!("{in_flight} 1\n")));
        running.end(Ok(7));
        drop(metrics.begin(RadosOp::Write, RadosPool::Data));
        let after = text(&metrics);
        assert!(after.contains(&format!("{in_flight} 0\n")), "{after}");
        assert_eq!(metrics.finished(RadosOp::Write, RadosPool::Data), 1);
        assert_eq!(metrics.bytes(RadosOp::Write, RadosPool::Data), 7);
    }

    #[test]
    fn buckets_hold_their_bound_and_are_cumulative() {
        let metrics = RadosMetrics::default();
        let read = |us| {
            let took = Duration::from_micros(us);
            metrics.finish(RadosOp::Read, RadosPool::Cache, Ok(0), took);
        };
        read(100);
        read(101);
        read(30_000_001);
        let text = text(&metrics);
        let name = "tierdav_rados_operation_duration_seconds";
        for (le, count) in [("0.0001", 1), ("0.00025", 2), ("30", 2), ("+Inf", 3)] {
            let line = format!("{name}_bucket{{op=\"read\",pool=\"cache\",le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains(&format!(
            "{name}_sum{{op=\"read\",pool=\"cache\"}} 30.000202\n"
        )));
    }

    #[test]
    fn errors_are_told_apart() {
        let cases = [
            (Errno::NOENT, RadosFault::NotFound),
            (Errno::NODATA, RadosFault::NotFound),
            (Errno::BUSY, RadosFault::Busy),
            (Errno::DQUOT, RadosFault::Full),
            (Errno::TIMEDOUT, RadosFault::Timeout),
            (Errno::PERM, RadosFault::Denied),
            (Errno::SHUTDOWN, RadosFault::Blocklisted),
            (Errno::IO, RadosFault::Other),
        ];
        for (number, fault) in cases {
            assert_eq!(RadosFault::from(&io::Error::from(number)), fault);
        }
        let metrics = RadosMetrics::default();
        let full = io::Error::from(Errno::NOSPC);
        metrics.finish(
            RadosOp::Write,
            RadosPool::Data,
            Err(&full),
            Duration::from_millis(1),
        );
        let line = "tierdav_rados_errors_total{op=\"write\",pool=\"data\",error=\"full\"} 1\n";
        assert!(text(&metrics).contains(line));
        let everyday = io::Error::from(Errno::NOENT);
        metrics.finish(
            RadosOp::Read,
            RadosPool::Data,
            Err(&everyday),
            Duration::from_millis(1),
        );
        let found = |pool| -> Vec<_> {
            let faults = metrics.faults(pool).into_iter();
            faults.filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(found(RadosPool::Data), [("full", 1)]);
        assert_eq!(found(RadosPool::Cache), []);
    }
}
