//! What policies beside the one that decides would have achieved.

use std::fmt::Write as _;

use tiering::shadow::Estimate;

use super::{Metrics, head, single};
use crate::objects::ShadowStatus;

/// Asked when the text is rendered; none without shadows.
pub(super) type Source = Box<dyn Fn() -> Option<ShadowStatus> + Send + Sync>;

type Family = (&'static str, &'static str, fn(&Estimate) -> f64);

/// Per policy and size, scaled from the sample to the whole load.
const FAMILIES: [Family; 5] = [
    (
        "tierdav_shadow_reads_total",
        "Object reads, as estimated from the sample.",
        |e| e.reads,
    ),
    (
        "tierdav_shadow_read_hits_total",
        "Object reads that the cache tier would have served with this policy and so many times its size.",
        |e| e.read_hits,
    ),
    (
        "tierdav_shadow_read_bytes_total",
        "Bytes read, as estimated from the sample.",
        |e| e.read_bytes,
    ),
    (
        "tierdav_shadow_read_hit_bytes_total",
        "Bytes that the cache tier would have served with this policy and so many times its size.",
        |e| e.read_hit_bytes,
    ),
    (
        "tierdav_shadow_backing_busy_seconds_total",
        "Time in which the backing device would have been busy, moves included.",
        |e| e.head_seconds,
    ),
];

impl Metrics {
    /// Where to ask for what shadows do; the first call wins.
    pub fn shadow(&self, source: impl Fn() -> Option<ShadowStatus> + Send + Sync + 'static) {
        let _ = self.shadow.set(Box::new(source));
    }
}

pub(super) fn render(status: &ShadowStatus, o: &mut String) {
    for (name, help, value) in FAMILIES {
        head(o, name, "counter", help);
        for e in &status.estimates {
            let (policy, size, value) = (&e.policy, e.size, value(e));
            let _ = writeln!(o, "{name}{{policy=\"{policy}\",size=\"{size}x\"}} {value}");
        }
    }
    single(
        o,
        "tierdav_shadow_sampling_ratio",
        "gauge",
        "Share of all objects that shadow policies are told of.",
        status.sampling_ratio,
    );
    single(
        o,
        "tierdav_shadow_objects",
        "gauge",
        "Objects that shadow policies are told of.",
        status.objects,
    );
    single(
        o,
        "tierdav_shadow_dropped_total",
        "counter",
        "Requests that shadow policies were not told of, because too many came at once.",
        status.dropped,
    );
    single(
        o,
        "tierdav_shadow_switches_total",
        "counter",
        "Changes of the policy by policy = auto.",
        status.switched.count,
    );
    single(
        o,
        "tierdav_shadow_cpu_seconds_total",
        "counter",
        "CPU time that shadow policies took.",
        status.cpu_seconds,
    );
}
