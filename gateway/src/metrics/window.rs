//! The last hour in steps of ten seconds: what happened in each step, for people to look at. Memory is bounded; Prometheus
//! keeps longer histories.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tiering::{ActionKind, Tier};

use super::{Broken, Method, Metrics, ObjectOp, tier_index};

/// Length of a step.
pub const STEP: Duration = Duration::from_secs(10);
/// Steps kept: one hour.
pub const STEPS_MAX: usize = 360;
/// The latencies that are kept.
const SPANS: usize = 4;

/// What happened in one span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it ended, seconds since 1970.
    pub at_s: u64,
    /// How long it was, seconds.
    pub seconds: f64,
    /// Requests finished.
    pub requests: u64,
    /// Of these, answered with 500 or more, or broken off because content could not be read.
    pub errors: u64,
    /// Bytes of request bodies.
    pub received_bytes: u64,
    /// Bytes of response bodies.
    pub sent_bytes: u64,
    /// Object reads for clients from the cache tier.
    pub cache_reads: u64,
    /// Object reads for clients from the backing tier.
    pub backing_reads: u64,
    /// Bytes that clients read from the cache tier.
    pub cache_read_bytes: u64,
    /// Bytes that clients read from the backing tier.
    pub backing_read_bytes: u64,
    /// Bytes that clients wrote to the cache tier.
    pub cache_written_bytes: u64,
    /// Bytes that clients wrote to the backing tier.
    pub backing_written_bytes: u64,
    /// Bytes promoted.
    pub promoted_bytes: u64,
    /// Bytes flushed.
    pub flushed_bytes: u64,
    /// Bytes evicted.
    pub evicted_bytes: u64,
    /// CPU time used, seconds.
    pub cpu_s: f64,
    /// GET requests.
    pub get: Span,
    /// PUT requests.
    pub put: Span,
    /// Object reads from the cache tier.
    pub cache_read: Span,
    /// Object reads from the backing tier.
    pub backing_read: Span,
}

/// Latencies of one kind. Without any, all zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// How many.
    pub count: u64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
}

impl Span {
    /// The median, if there were any.
    pub fn median(&self) -> Option<f64> {
        (self.count > 0).then_some(self.p50_us as f64)
    }

    /// The 99th percentile, if there were any.
    pub fn most(&self) -> Option<f64> {
        (self.count > 0).then_some(self.p99_us as f64)
    }
}

impl Sample {
    /// Part of the object reads that the cache tier served, if there were any.
    pub fn hit_ratio(&self) -> Option<f64> {
        ratio(self.cache_reads, self.backing_reads)
    }

    /// Part of the bytes read that the cache tier served, if there were any.
    pub fn byte_hit_ratio(&self) -> Option<f64> {
        ratio(self.cache_read_bytes, self.backing_read_bytes)
    }

    /// `count` per second.
    pub fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 {
            count as f64 / self.seconds
        } else {
            0.0
        }
    }
}

fn ratio(part: u64, rest: u64) -> Option<f64> {
    (part + rest > 0).then(|| part as f64 / (part + rest) as f64)
}

/// Totals since the start, at one moment.
#[derive(Clone)]
struct Totals {
    at: Instant,
    counts: Sample,
    spans: [Option<Histogram<u64>>; SPANS],
}

impl Totals {
    fn now(metrics: &Metrics) -> Totals {
        let object = |op, tier| metrics.object_counts(op, tier);
        let (cache_reads, cache_read_bytes) = object(ObjectOp::Read, Tier::Cache);
        let (backing_reads, backing_read_bytes) = object(ObjectOp::Read, Tier::Backing);
        let all = metrics.requests.iter().flatten();
        let failed = metrics.requests.iter().flat_map(|row| row.iter().skip(500));
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let request = |m: Method| metrics.request_latency.get(m as usize)?.merged();
        let read = |tier| {
            let at = ObjectOp::Read as usize * super::TIERS.len() + tier_index(tier);
            metrics.object_latency.get(at)?.merged()
        };
        Totals {
            at: Instant::now(),
            counts: Sample {
                at_s: since.unwrap_or_default().as_secs(),
                requests: all.map(|c| c.load(Relaxed)).sum(),
                errors: failed.map(|c| c.load(Relaxed)).sum::<u64>()
                    + metrics.replies_broken(Broken::Unreadable),
                received_bytes: metrics.bytes_in.load(Relaxed),
                sent_bytes: metrics.bytes_out.load(Relaxed),
                cache_reads,
                backing_reads,
                cache_read_bytes,
                backing_read_bytes,
                cache_written_bytes: object(ObjectOp::Write, Tier::Cache).1,
                backing_written_bytes: object(ObjectOp::Write, Tier::Backing).1,
                promoted_bytes: metrics.moved_bytes(ActionKind::Promote),
                flushed_bytes: metrics.moved_bytes(ActionKind::Flush),
                evicted_bytes: metrics.moved_bytes(ActionKind::Evict),
                cpu_s: super::process::cpu_seconds().unwrap_or(0.0),
                ..Sample::default()
            },
            spans: [
                request(Method::Get),
                request(Method::Put),
                read(Tier::Cache),
                read(Tier::Backing),
            ],
        }
    }

    /// What happened since `earlier`.
    fn since(&self, earlier: &Totals) -> Sample {
        let (new, old) = (&self.counts, &earlier.counts);
        let d = |pick: fn(&Sample) -> u64| pick(new).saturating_sub(pick(old));
        let span = |at: usize| span(self.spans.get(at), earlier.spans.get(at));
        Sample {
            at_s: new.at_s,
            seconds: self.at.saturating_duration_since(earlier.at).as_secs_f64(),
            requests: d(|s| s.requests),
            errors: d(|s| s.errors),
            received_bytes: d(|s| s.received_bytes),
            sent_bytes: d(|s| s.sent_bytes),
            cache_reads: d(|s| s.cache_reads),
            backing_reads: d(|s| s.backing_reads),
            cache_read_bytes: d(|s| s.cache_read_bytes),
            backing_read_bytes: d(|s| s.backing_read_bytes),
            cache_written_bytes: d(|s| s.cache_written_bytes),
            backing_written_bytes: d(|s| s.backing_written_bytes),
            promoted_bytes: d(|s| s.promoted_bytes),
            flushed_bytes: d(|s| s.flushed_bytes),
            evicted_bytes: d(|s| s.evicted_bytes),
            cpu_s: (new.cpu_s - old.cpu_s).max(0.0),
            get: span(0),
            put: span(1),
            cache_read: span(2),
            backing_read: span(3),
        }
    }
}

fn span(new: Option<&Option<Histogram<u64>>>, old: Option<&Option<Histogram<u64>>>) -> Span {
    let Some(Some(new)) = new else {
        return Span::default();
    };
    let mut new = new.clone();
    if let Some(Some(old)) = old
        && new.subtract(old).is_err()
    {
        return Span::default();
    }
    if new.is_empty() {
        return Span::default();
    }
    Span {
        count: new.len(),
        p50_us: new.value_at_quantile(0.5),
        p99_us: new.value_at_quantile(0.99),
    }
}

/// The ring of steps.
pub struct Window {
    ring: Mutex<Ring>,
}

struct Ring {
    /// At the end of each step and at the start of the first; histograms only where they are needed.
    first: Totals,
    last: Totals,
    steps: VecDeque<Sample>,
}

impl Window {
    /// Begins now.
    pub fn new(metrics: &Metrics) -> Window {
        let now = Totals::now(metrics);
        Window {
            ring: Mutex::new(Ring {
                first: now.clone(),
                last: now,
                steps: VecDeque::with_capacity(STEPS_MAX),
            }),
        }
    }

    /// Ends a step: call it every [`STEP`].
    pub fn step(&self, metrics: &Metrics) {
        let now = Totals::now(metrics);
        let mut ring = self.ring.lock();
        if ring.steps.len() == STEPS_MAX {
            ring.steps.pop_front();
        }
        let sample = now.since(&ring.last);
        ring.steps.push_back(sample);
        ring.last = now;
    }

    /// The steps, oldest first; the last one is the one under way, if it is a second old.
    pub fn steps(&self, metrics: &Metrics) -> Vec<Sample> {
        let ring = self.ring.lock();
        let mut steps: Vec<Sample> = ring.steps.iter().copied().collect();
        let running = Totals::now(metrics).since(&ring.last);
        if running.seconds >= 1.0 {
            steps.push(running);
        }
        steps
    }

    /// Everything since the start in one sample.
    pub fn since_start(&self, metrics: &Metrics) -> Sample {
        Totals::now(metrics).since(&self.ring.lock().first)
    }
}

/// Several steps as one. Medians and percentiles are the counts' weighted means of the steps' own: near enough to look at.
pub fn sum(steps: &[Sample]) -> Sample {
    let mut all = Sample::default();
    let mut spans = [(0_u64, 0.0, 0.0); SPANS];
    for s in steps {
        all.at_s = s.at_s;
        all.seconds += s.seconds;
        all.requests += s.requests;
        all.errors += s.errors;
        all.received_bytes += s.received_bytes;
        all.sent_bytes += s.sent_bytes;
        all.cache_reads += s.cache_reads;
        all.backing_reads += s.backing_reads;
        all.cache_read_bytes += s.cache_read_bytes;
        all.backing_read_bytes += s.backing_read_bytes;
        all.cache_written_bytes += s.cache_written_bytes;
        all.backing_written_bytes += s.backing_written_bytes;
        all.promoted_bytes += s.promoted_bytes;
        all.flushed_bytes += s.flushed_bytes;
        all.evicted_bytes += s.evicted_bytes;
        all.cpu_s += s.cpu_s;
        for (sum, span) in spans
            .iter_mut()
            .zip([s.get, s.put, s.cache_read, s.backing_read])
        {
            sum.0 += span.count;
            sum.1 += span.count as f64 * span.p50_us as f64;
            sum.2 += span.count as f64 * span.p99_us as f64;
        }
    }
    let mean = |(count, p50, p99): (u64, f64, f64)| Span {
        count,
        p50_us: (p50 / count.max(1) as f64) as u64,
        p99_us: (p99 / count.max(1) as f64) as u64,
    };
    [all.get, all.put, all.cache_read, all.backing_read] = spans.map(mean);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_step_tells_what_happened_in_it_and_the_hour_is_bounded() {
        let metrics = Metrics::new();
        let ms = Duration::from_millis;
        metrics.object_io(ObjectOp::Read, Tier::Backing, 100, ms(11));
        let window = Window::new(&metrics);
        metrics.object_io(ObjectOp::Read, Tier::Cache, 300, ms(1));
        metrics.object_io(ObjectOp::Read, Tier::Backing, 100, ms(20));
        metrics.request(Method::Get, 200, 0, 400, ms(21));
        metrics.request(Method::Put, 503, 7, 0, ms(5));
        metrics.reply_broken(Broken::Unreadable);
        metrics.reply_broken(Broken::Gone);
        window.step(&metrics);
        metrics.request(Method::Get, 200, 0, 1, ms(1));
        window.step(&metrics);
        let steps = window.steps(&metrics);
        assert_eq!(steps[0].byte_hit_ratio(), Some(0.75));
        assert_eq!((steps[0].requests, steps[0].errors), (2, 2));
        assert_eq!((steps[0].received_bytes, steps[0].sent_bytes), (7, 400));
        assert!((20_000..20_300).contains(&steps[0].backing_read.p50_us));
        assert_eq!(steps[1].hit_ratio(), None);
        assert_eq!((steps[1].get.count, steps[1].put.count), (1, 0));
        let all = sum(&steps);
        assert_eq!((all.requests, all.get.count, all.sent_bytes), (3, 2, 401));
        assert_eq!(window.since_start(&metrics).requests, 3);
        for _ in 0..STEPS_MAX {
            window.step(&metrics);
        }
        assert_eq!(window.steps(&metrics).len(), STEPS_MAX);
        assert_eq!(sum(&window.steps(&metrics)).requests, 0);
    }
}
