//! Counters, gauges and latency histograms, rendered as Prometheus text.
//!
//! Labels are closed enums, never paths. Knows nothing of who calls it.

mod clients;
mod process;
mod rados;
mod shadow;
mod window;

pub use clients::{Client, Clients, Connected};
pub use process::{open_descriptors, resident_bytes};
pub use rados::{RadosFault, RadosMetrics, RadosOp, RadosPool, RadosRunning};
pub use window::{STEP, Sample, Span, Window, sum};

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::{Mutex, RwLock};
use tiering::{ActionKind, Tier};

/// Latencies above are counted as this, microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Histograms are kept so many times, each thread using one of them.
const SHARDS: usize = 4;
/// Upper bounds of the exported buckets, microseconds.
const BUCKETS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each variant is its label")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// All values, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The label in the exported text.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

use labels;

labels! {
    /// The method of a request.
    Method {
        Get => "get", Head => "head", Put => "put", Patch => "patch", Delete => "delete", Options => "options",
        Propfind => "propfind", Proppatch => "proppatch", Mkcol => "mkcol", Move => "move", Copy => "copy",
        Lock => "lock", Unlock => "unlock", Other => "other",
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        let known =
            |m: &&Method| m.as_str().eq_ignore_ascii_case(method.as_str()) && **m != Method::Other;
        Method::ALL
            .iter()
            .find(known)
            .copied()
            .unwrap_or(Method::Other)
    }
}

labels! {
    /// Object I/O for a client.
    ObjectOp { Read => "read", Write => "write", }
}

labels! {
    /// Why a login was refused.
    LoginFailure { BadCredentials => "bad_credentials", RateLimited => "rate_limited", Malformed => "malformed", }
}

labels! {
    /// Why a reply ended before its last byte: whoever asked for it went away, or did not take it, or the gateway had to stop; or its
    /// content could not be read.
    Broken { Gone => "gone", Unreadable => "unreadable", }
}

labels! {
    /// What became of a movement that was proposed.
    MoveResult { Ok => "ok", Failed => "failed", Dropped => "dropped", }
}

/// A family with one value that is read when the text is rendered: register it with [`Metrics::gauge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant's help text is in `describe`")]
pub enum Gauge {
    Locks,
    CacheCapacityBytes,
    CacheUsedBytes,
    ObjectsClean,
    ObjectsDirty,
    ObjectBytesClean,
    ObjectBytesDirty,
    MigratorQueue,
    PurgesWaiting,
    OldestDirtySeconds,
    LostObjects,
    DamageFound,
    CacheWriteErrors,
    TraceRecords,
    TraceDropped,
    TraceErrors,
    RootSizeBytes,
    CacheSizeBytes,
    RootAvailableBytes,
    CacheAvailableBytes,
    TlsNotAfter,
    LogBytes,
    LogKept,
}

impl Gauge {
    /// Name with labels, type and help. Variants of one family stand side by side in this order.
    const ALL: [Gauge; 23] = [
        Gauge::Locks,
        Gauge::CacheCapacityBytes,
        Gauge::CacheUsedBytes,
        Gauge::ObjectsClean,
        Gauge::ObjectsDirty,
        Gauge::ObjectBytesClean,
        Gauge::ObjectBytesDirty,
        Gauge::MigratorQueue,
        Gauge::PurgesWaiting,
        Gauge::OldestDirtySeconds,
        Gauge::LostObjects,
        Gauge::DamageFound,
        Gauge::CacheWriteErrors,
        Gauge::TraceRecords,
        Gauge::TraceDropped,
        Gauge::TraceErrors,
        Gauge::RootSizeBytes,
        Gauge::CacheSizeBytes,
        Gauge::RootAvailableBytes,
        Gauge::CacheAvailableBytes,
        Gauge::TlsNotAfter,
        Gauge::LogBytes,
        Gauge::LogKept,
    ];

    const fn describe(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Gauge::Locks => ("tierdav_locks", "", "gauge", "WebDAV locks held."),
            Gauge::CacheCapacityBytes => (
                "tierdav_cache_capacity_bytes",
                "",
                "gauge",
                "Bytes that the cache tier may hold.",
            ),
            Gauge::CacheUsedBytes => (
                "tierdav_cache_used_bytes",
                "",
                "gauge",
                "Bytes that the cache tier holds.",
            ),
            Gauge::ObjectsClean => (
                "tierdav_cache_objects",
                "{state=\"clean\"}",
                "gauge",
                "Objects in the cache tier.",
            ),
            Gauge::ObjectsDirty => (
                "tierdav_cache_objects",
                "{state=\"dirty\"}",
                "gauge",
                "Objects in the cache tier.",
            ),
            Gauge::ObjectBytesClean => (
                "tierdav_cache_object_bytes",
                "{state=\"clean\"}",
                "gauge",
                "Bytes of objects in the cache tier.",
            ),
            Gauge::ObjectBytesDirty => (
                "tierdav_cache_object_bytes",
                "{state=\"dirty\"}",
                "gauge",
                "Bytes of objects in the cache tier.",
            ),
            Gauge::MigratorQueue => (
                "tierdav_migrator_queue_actions",
                "",
                "gauge",
                "Actions that wait for the migrator.",
            ),
            Gauge::PurgesWaiting => (
                "tierdav_purges_waiting_versions",
                "",
                "gauge",
                "Replaced and deleted versions whose objects are yet to be removed from the pools.",
            ),
            Gauge::OldestDirtySeconds => (
                "tierdav_dirty_age_max_seconds",
                "",
                "gauge",
                "How long the oldest dirty data has been in the cache tier only.",
            ),
            Gauge::LostObjects => (
                "tierdav_lost_objects",
                "",
                "gauge",
                "Objects of changed content whose bytes are lost: their files answer 503 until they are deleted or overwritten.",
            ),
            Gauge::DamageFound => (
                "tierdav_damage_found_total",
                "",
                "counter",
                "Reads that found an object damaged or gone, in either tier.",
            ),
            Gauge::CacheWriteErrors => (
                "tierdav_cache_write_errors_total",
                "",
                "counter",
                "Writes that the cache tier refused, and that went to the backing tier instead.",
            ),
            Gauge::TraceRecords => (
                "tierdav_trace_records_total",
                "",
                "counter",
                "Trace records written.",
            ),
            Gauge::TraceDropped => (
                "tierdav_trace_dropped_records_total",
                "",
                "counter",
                "Trace records dropped: the queue was full, or the disk did not take them.",
            ),
            Gauge::TraceErrors => (
                "tierdav_trace_errors_total",
                "",
                "counter",
                "Trace writes that failed.",
            ),
            Gauge::RootSizeBytes => (
                "tierdav_volume_size_bytes",
                "{volume=\"root\"}",
                "gauge",
                "Size of the file system under the tier.",
            ),
            Gauge::CacheSizeBytes => (
                "tierdav_volume_size_bytes",
                "{volume=\"cache\"}",
                "gauge",
                "Size of the file system under the tier.",
            ),
            Gauge::RootAvailableBytes => (
                "tierdav_volume_available_bytes",
                "{volume=\"root\"}",
                "gauge",
                "Bytes that are free on the file system under the tier.",
            ),
            Gauge::CacheAvailableBytes => (
                "tierdav_volume_available_bytes",
                "{volume=\"cache\"}",
                "gauge",
                "Bytes that are free on the file system under the tier.",
            ),
            Gauge::TlsNotAfter => (
                "tierdav_tls_certificate_not_after_timestamp_seconds",
                "",
                "gauge",
                "When the certificate in use expires, seconds since 1970.",
            ),
            Gauge::LogBytes => (
                "tierdav_intent_log_bytes",
                "",
                "gauge",
                "Bytes of the intent log that the next start would read.",
            ),
            Gauge::LogKept => (
                "tierdav_intent_log_kept",
                "",
                "gauge",
                "1 once a disk failed to sync what the intent log holds: the log is kept, and grows, until the next start.",
            ),
        }
    }
}

type Source = Box<dyn Fn() -> f64 + Send + Sync>;

/// Latencies in hdrhistograms of fixed bounds, sharded so that threads seldom meet.
struct Latency {
    shards: Vec<Mutex<Histogram<u64>>>,
    sum_ns: AtomicU64,
}

impl Latency {
    fn new() -> Self {
        let make = |_| {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)
                .ok()
                .map(Mutex::new)
        };
        Self {
            shards: (0..SHARDS).filter_map(make).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }

    fn record(&self, span: Duration) {
        if let Some(shard) = self.shards.get(thread_shard()) {
            let micros = u64::try_from(span.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
            shard.lock().saturating_record(micros);
        }
        self.sum_ns
            .fetch_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// All shards together.
    fn merged(&self) -> Option<Histogram<u64>> {
        let mut shards = self.shards.iter();
        let mut all = shards.next()?.lock().clone();
        for shard in shards {
            all.add(&*shard.lock()).ok()?;
        }
        Some(all)
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let Some(all) = self.merged().filter(|h| !h.is_empty()) else {
            return;
        };
        let below = BUCKETS_US.map(|bound| all.count_between(0, bound));
        let sum_ns = self.sum_ns.load(Relaxed);
        histogram(out, name, labels, below, all.len(), sum_ns);
    }
}

/// The shard of this thread: threads take turns.
fn thread_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % SHARDS);
    MINE.with(|mine| *mine)
}

/// Quantiles of one histogram, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LatencySummary {
    /// Recorded values.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Largest.
    pub max_us: u64,
}

#[derive(Default)]
struct Moved {
    results: [AtomicU64; 3],
    bytes: AtomicU64,
}

#[derive(Default)]
struct ObjectCount {
    ops: AtomicU64,
    bytes: AtomicU64,
}

/// All that the gateway counts. Share it as `Arc<Metrics>`; recording never blocks for long and never fails.
pub struct Metrics {
    requests: Vec<[AtomicU64; 600]>,
    request_latency: Vec<Latency>,
    bytes_in: AtomicU64,
    unchanged_uploads: AtomicU64,
    unchanged_upload_bytes: AtomicU64,
    spared_objects: AtomicU64,
    spared_bytes: AtomicU64,
    bytes_out: AtomicU64,
    broken: [AtomicU64; Broken::ALL.len()],
    in_flight: AtomicI64,
    connections: AtomicI64,
    connections_total: AtomicU64,
    objects: Vec<ObjectCount>,
    object_latency: Vec<Latency>,
    moved: [Moved; 3],
    throttled_ns: AtomicU64,
    login_failures: Vec<AtomicU64>,
    gauges: RwLock<Vec<(Gauge, Source)>>,
    clients: Clients,
    rados: OnceLock<Arc<RadosMetrics>>,
    shadow: OnceLock<shadow::Source>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One running request or connection: counted until dropped.
pub struct Running {
    metrics: Arc<Metrics>,
    gauge: fn(&Metrics) -> &AtomicI64,
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.gauge)(&self.metrics).fetch_sub(1, Relaxed);
    }
}

fn zeros<T: Default>(count: usize) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

fn tier_index(tier: Tier) -> usize {
    match tier {
        Tier::Cache => 0,
        Tier::Backing => 1,
    }
}

const TIERS: [Tier; 2] = [Tier::Cache, Tier::Backing];

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        Self {
            requests: Method::ALL
                .iter()
                .map(|_| std::array::from_fn(|_| AtomicU64::new(0)))
                .collect(),
            request_latency: Method::ALL.iter().map(|_| Latency::new()).collect(),
            bytes_in: AtomicU64::new(0),
            unchanged_uploads: AtomicU64::new(0),
            unchanged_upload_bytes: AtomicU64::new(0),
            spared_objects: AtomicU64::new(0),
            spared_bytes: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            broken: Default::default(),
            in_flight: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            connections_total: AtomicU64::new(0),
            objects: zeros(ObjectOp::ALL.len() * TIERS.len()),
            object_latency: (0..ObjectOp::ALL.len() * TIERS.len())
                .map(|_| Latency::new())
                .collect(),
            moved: Default::default(),
            throttled_ns: AtomicU64::new(0),
            login_failures: zeros(LoginFailure::ALL.len()),
            gauges: RwLock::default(),
            clients: Clients::default(),
            rados: OnceLock::new(),
            shadow: OnceLock::new(),
        }
    }

    /// Counts one finished request: so many bytes came and left, and it took so long from its head to the end of its reply. A status that HTTP does not have counts as 0.
    pub fn request(
        &self,
        method: Method,
        status: u16,
        bytes_in: u64,
        bytes_out: u64,
        latency: Duration,
    ) {
        if let Some(row) = self.requests.get(method as usize) {
            let known = row.get(usize::from(status)).or(row.first());
            known.inspect(|count| _ = count.fetch_add(1, Relaxed));
        }
        if let Some(histogram) = self.request_latency.get(method as usize) {
            histogram.record(latency);
        }
        self.bytes_in.fetch_add(bytes_in, Relaxed);
        self.bytes_out.fetch_add(bytes_out, Relaxed);
    }

    /// Counts a reply that did not leave as a whole.
    pub fn reply_broken(&self, why: Broken) {
        self.broken[why as usize].fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn replies_broken(&self, why: Broken) -> u64 {
        self.broken[why as usize].load(Relaxed)
    }

    /// Counts an upload of the bytes that the resource had already.
    pub fn unchanged_upload(&self, bytes: u64) {
        self.unchanged_uploads.fetch_add(1, Relaxed);
        self.unchanged_upload_bytes.fetch_add(bytes, Relaxed);
    }

    /// How many such uploads there were, and their bytes.
    pub fn unchanged_uploads(&self) -> (u64, u64) {
        (
            self.unchanged_uploads.load(Relaxed),
            self.unchanged_upload_bytes.load(Relaxed),
        )
    }

    /// Counts dirty objects that went with their resource: the backing tier never had their bytes.
    pub fn spared(&self, objects: u64, bytes: u64) {
        self.spared_objects.fetch_add(objects, Relaxed);
        self.spared_bytes.fetch_add(bytes, Relaxed);
    }

    /// How many such objects there were, and their bytes.
    pub fn spared_total(&self) -> (u64, u64) {
        (
            self.spared_objects.load(Relaxed),
            self.spared_bytes.load(Relaxed),
        )
    }

    /// Counts a request as running until the guard is dropped.
    #[must_use]
    pub fn request_started(self: &Arc<Self>) -> Running {
        self.in_flight.fetch_add(1, Relaxed);
        Running {
            metrics: self.clone(),
            gauge: |m| &m.in_flight,
        }
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn connection_opened(self: &Arc<Self>) -> Running {
        self.connections.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
        Running {
            metrics: self.clone(),
            gauge: |m| &m.connections,
        }
    }

    /// Who is connected.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Counts of what is asked of Ceph; exported from the first call on.
    pub fn rados(&self) -> &Arc<RadosMetrics> {
        self.rados.get_or_init(Arc::default)
    }

    /// The value of a gauge now, if someone provides it.
    pub fn gauge_value(&self, gauge: Gauge) -> Option<f64> {
        let gauges = self.gauges.read();
        let (_, source) = gauges.iter().find(|(known, _)| *known == gauge)?;
        Some(source())
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.load(Relaxed)).unwrap_or(0)
    }

    /// Requests running now.
    pub fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.load(Relaxed)).unwrap_or(0)
    }

    /// Counts one object read or written for a client, by the tier that did it.
    pub fn object_io(&self, op: ObjectOp, tier: Tier, bytes: u64, latency: Duration) {
        let at = op as usize * TIERS.len() + tier_index(tier);
        if let (Some(count), Some(histogram)) = (self.objects.get(at), self.object_latency.get(at))
        {
            count.ops.fetch_add(1, Relaxed);
            count.bytes.fetch_add(bytes, Relaxed);
            histogram.record(latency);
        }
    }

    /// Operations and bytes of `op` that `tier` did so far.
    pub fn object_counts(&self, op: ObjectOp, tier: Tier) -> (u64, u64) {
        let count = self
            .objects
            .get(op as usize * TIERS.len() + tier_index(tier));
        count.map_or((0, 0), |c| (c.ops.load(Relaxed), c.bytes.load(Relaxed)))
    }

    /// Quantiles of object I/O so far.
    pub fn object_latency(&self, op: ObjectOp, tier: Tier) -> LatencySummary {
        let all = self
            .object_latency
            .get(op as usize * TIERS.len() + tier_index(tier))
            .and_then(Latency::merged);
        all.map_or_else(LatencySummary::default, |h| LatencySummary {
            count: h.len(),
            p50_us: h.value_at_quantile(0.5),
            p99_us: h.value_at_quantile(0.99),
            max_us: h.max(),
        })
    }

    /// Counts one movement between the tiers that was proposed, whatever became of it.
    pub fn moved(&self, kind: ActionKind, bytes: u64, result: MoveResult) {
        let row = &self.moved[kind as usize];
        row.results[result as usize].fetch_add(1, Relaxed);
        if result == MoveResult::Ok {
            row.bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// Counts a movement's wait for the throttle.
    pub fn throttled(&self, wait: Duration) {
        let ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.throttled_ns.fetch_add(ns, Relaxed);
    }

    /// Bytes moved so far.
    pub fn moved_bytes(&self, kind: ActionKind) -> u64 {
        self.moved[kind as usize].bytes.load(Relaxed)
    }

    /// Counts a refused login.
    pub fn login_failed(&self, why: LoginFailure) {
        if let Some(count) = self.login_failures.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Reads `gauge` from `source` whenever the text is rendered; replaces an earlier source.
    /// `source` must be quick and must not call back into the metrics.
    pub fn gauge(&self, gauge: Gauge, source: impl Fn() -> f64 + Send + Sync + 'static) {
        let mut gauges = self.gauges.write();
        gauges.retain(|(known, _)| *known != gauge);
        gauges.push((gauge, Box::new(source)));
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        let o = &mut out;
        head(o, "tierdav_build_info", "gauge", "Version of the gateway.");
        let _ = writeln!(
            o,
            "tierdav_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        self.render_requests(o);
        self.render_objects(o);
        head(
            o,
            "tierdav_login_failures_total",
            "counter",
            "Logins refused.",
        );
        for (reason, count) in LoginFailure::ALL.iter().zip(&self.login_failures) {
            let count = count.load(Relaxed);
            let _ = writeln!(
                o,
                "tierdav_login_failures_total{{reason=\"{}\"}} {count}",
                reason.as_str()
            );
        }
        self.render_gauges(o);
        if let Some(rados) = self.rados.get() {
            rados.render(o);
        }
        if let Some(status) = self.shadow.get().and_then(|source| source()) {
            shadow::render(&status, o);
        }
        process::render(o);
        out
    }

    fn render_requests(&self, o: &mut String) {
        head(
            o,
            "tierdav_requests_total",
            "counter",
            "Requests finished, however much of the response left.",
        );
        for (method, row) in Method::ALL.iter().zip(&self.requests) {
            for (status, count) in row.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    let method = method.as_str();
                    let _ = writeln!(
                        o,
                        "tierdav_requests_total{{method=\"{method}\",status=\"{status}\"}} {count}"
                    );
                }
            }
        }
        let name = "tierdav_request_duration_seconds";
        head(
            o,
            name,
            "histogram",
            "Time from the head of a request to the end of its response.",
        );
        for (method, latency) in Method::ALL.iter().zip(&self.request_latency) {
            latency.render(o, name, &format!("method=\"{}\"", method.as_str()));
        }
        single(
            o,
            "tierdav_received_bytes_total",
            "counter",
            "Bytes of request bodies.",
            self.bytes_in.load(Relaxed),
        );
        single(
            o,
            "tierdav_unchanged_uploads_total",
            "counter",
            "Uploads of the bytes that the resource had already: nothing was written.",
            self.unchanged_uploads().0,
        );
        single(
            o,
            "tierdav_unchanged_upload_bytes_total",
            "counter",
            "Bytes of such uploads.",
            self.unchanged_uploads().1,
        );
        single(
            o,
            "tierdav_spared_bytes_total",
            "counter",
            "Bytes written to the cache tier and deleted or overwritten before they were flushed: the backing tier never had them.",
            self.spared_total().1,
        );
        single(
            o,
            "tierdav_sent_bytes_total",
            "counter",
            "Bytes of response bodies that left.",
            self.bytes_out.load(Relaxed),
        );
        let name = "tierdav_replies_broken_total";
        head(
            o,
            name,
            "counter",
            "Replies that ended before their last byte; unreadable: the content could not be read; gone: the client went away, or took nothing for too long, or a stop came first.",
        );
        for why in Broken::ALL {
            let count = self.replies_broken(*why);
            let _ = writeln!(o, "{name}{{reason=\"{}\"}} {count}", why.as_str());
        }
        single(
            o,
            "tierdav_requests_in_flight",
            "gauge",
            "Requests running.",
            self.in_flight(),
        );
        single(
            o,
            "tierdav_connections",
            "gauge",
            "Connections open.",
            self.connections(),
        );
        let opened = self.connections_total.load(Relaxed);
        single(
            o,
            "tierdav_connections_opened_total",
            "counter",
            "Connections accepted.",
            opened,
        );
    }

    fn render_objects(&self, o: &mut String) {
        let pairs = || {
            ObjectOp::ALL
                .iter()
                .flat_map(|op| TIERS.iter().map(move |tier| (*op, *tier)))
        };
        let labels =
            |op: ObjectOp, tier: Tier| format!("op=\"{}\",tier=\"{}\"", op.as_str(), tier.as_str());
        head(
            o,
            "tierdav_object_operations_total",
            "counter",
            "Object reads and writes for clients, by tier; adjacent reads of one object by one request are one.",
        );
        for (op, tier) in pairs() {
            let count = self.object_counts(op, tier).0;
            let _ = writeln!(
                o,
                "tierdav_object_operations_total{{{}}} {count}",
                labels(op, tier)
            );
        }
        head(
            o,
            "tierdav_object_bytes_total",
            "counter",
            "Bytes of object reads and writes for clients, by tier.",
        );
        for (op, tier) in pairs() {
            let bytes = self.object_counts(op, tier).1;
            let _ = writeln!(
                o,
                "tierdav_object_bytes_total{{{}}} {bytes}",
                labels(op, tier)
            );
        }
        let name = "tierdav_object_duration_seconds";
        head(
            o,
            name,
            "histogram",
            "Time of object reads and writes for clients, by tier.",
        );
        for ((op, tier), latency) in pairs().zip(&self.object_latency) {
            latency.render(o, name, &labels(op, tier));
        }
        head(
            o,
            "tierdav_moves_total",
            "counter",
            "Movements between the tiers; dropped: no longer wanted, or no room.",
        );
        for kind in ActionKind::ALL {
            for result in MoveResult::ALL {
                let count = self.moved[kind as usize].results[*result as usize].load(Relaxed);
                let result = result.as_str();
                let _ = writeln!(
                    o,
                    "tierdav_moves_total{{kind=\"{kind}\",result=\"{result}\"}} {count}"
                );
            }
        }
        head(
            o,
            "tierdav_moved_bytes_total",
            "counter",
            "Bytes moved between the tiers.",
        );
        for kind in ActionKind::ALL {
            let bytes = self.moved_bytes(kind);
            let _ = writeln!(o, "tierdav_moved_bytes_total{{kind=\"{kind}\"}} {bytes}");
        }
        let name = "tierdav_migrator_throttle_wait_seconds_total";
        let help = "Time that movements waited for migrate_bandwidth and migrate_ops.";
        let seconds = self.throttled_ns.load(Relaxed) as f64 / 1e9;
        single(o, name, "counter", help, seconds);
    }

    fn render_gauges(&self, o: &mut String) {
        let sources = self.gauges.read();
        let mut family = "";
        for gauge in Gauge::ALL {
            let Some((_, source)) = sources.iter().find(|(known, _)| *known == gauge) else {
                continue;
            };
            let (name, labels, kind, help) = gauge.describe();
            if name != family {
                head(o, name, kind, help);
                family = name;
            }
            let _ = writeln!(o, "{name}{labels} {}", source());
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A family of one value.
fn single(out: &mut String, name: &str, kind: &str, help: &str, value: impl fmt::Display) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

/// The lines of one histogram: `below` counts what is at most each of [`BUCKETS_US`].
fn histogram(
    out: &mut String,
    name: &str,
    labels: &str,
    below: [u64; BUCKETS_US.len()],
    count: u64,
    sum_ns: u64,
) {
    for (bound, below) in BUCKETS_US.iter().zip(below) {
        let le = *bound as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {below}");
    }
    let sum = sum_ns as f64 / 1e9;
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}
