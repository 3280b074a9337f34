//! The one place where this module speaks to the recorder and the metrics.

use std::time::Duration;

use tiering::trace::{Op, Record};
use tiering::{Nanos, ObjectId, Tier};

use super::options::IoContext;
use crate::metrics::{Metrics, ObjectOp};
use crate::recorder::Recorder;

#[expect(clippy::too_many_arguments, reason = "one row of the trace")]
pub fn record(
    recorder: &Recorder,
    op: Op,
    id: ObjectId,
    offset: u64,
    len: u64,
    tier: Tier,
    at: Nanos,
    latency_ns: u64,
    io: IoContext,
) {
    recorder.record(Record {
        client: io.client,
        path: io.path,
        file: id.file,
        object: id.index,
        offset,
        len,
        tier: Some(tier).into(),
        latency_ns,
        ..Record::new(op, at.0)
    });
}

pub fn object_io(metrics: &Metrics, op: ObjectOp, tier: Tier, bytes: u64, latency_ns: u64) {
    metrics.object_io(op, tier, bytes, Duration::from_nanos(latency_ns));
}
