//! The gateway's own segments, as [`crate::read::SegmentReader`] reads them.

use super::{FAILED, Kept};
use crate::trace::{Entry, Op, Outcome};
use std::io::Write;
use tiering::trace::{Op as GatewayOp, Record, Row, TraceError, write_parquet};

/// Writes the requests among `entries`; `seen` hears what became of each. Memory is bounded by one row group.
///
/// # Errors
/// What `entries` or the output report; the output is then not usable.
pub fn write<W: Write + Send>(
    out: W,
    entries: impl Iterator<Item = Result<Entry, TraceError>>,
    mut seen: impl FnMut(&Entry, Kept),
) -> Result<(), TraceError> {
    let mut first = None;
    let rows = entries.filter_map(|entry| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => return Some(Err(e)),
        };
        let first = *first.get_or_insert(entry.at_us);
        let row = row(&entry, first);
        let kept = row.as_ref().map_or_else(|why| Kept::No(why), |_| Kept::Yes);
        seen(&entry, kept);
        row.ok().map(Ok)
    });
    write_parquet(out, rows).map(drop)
}

/// A segment's times count from 1970. A trace without a known date begins one day after it, which leaves room for
/// entries before the first.
const FIRST_WALL_US: i64 = 86_400_000_000;

fn row(entry: &Entry, first: i64) -> Result<Row, &'static str> {
    let op = match entry.op {
        Op::DavGet => GatewayOp::Get,
        Op::DavPut => GatewayOp::Put,
        Op::DavPatch => GatewayOp::Patch,
        Op::DavHead => GatewayOp::Head,
        Op::DavStat | Op::DavList => GatewayOp::Propfind,
        Op::DavProppatch => GatewayOp::Proppatch,
        Op::DavMkcol => GatewayOp::Mkcol,
        Op::DavDelete => GatewayOp::Delete,
        Op::DavMove => GatewayOp::Move,
        Op::DavCopy => GatewayOp::Copy,
        Op::DavLock => GatewayOp::Lock,
        Op::DavUnlock => GatewayOp::Unlock,
        Op::DavOptions => GatewayOp::Options,
        _ => return Err("a file operation (segments hold WebDAV requests)"),
    };
    let wall = entry
        .at_us
        .saturating_sub(first)
        .saturating_add(FIRST_WALL_US);
    let wall_us = u64::try_from(wall).map_err(|_| "more than a day before the first entry")?;
    let status = match entry.outcome {
        Outcome::Status(status) => status,
        Outcome::Ok if entry.ranged => 206,
        Outcome::Ok => 200,
        Outcome::Errno(_) => return Err(FAILED),
    };
    let offset = match entry.op {
        Op::DavStat => 0,
        // The depth.
        Op::DavList => 1,
        _ => entry.offset,
    };
    let slashed = |path: &str| format!("/{path}").into();
    Ok(Row {
        record: Record {
            offset,
            len: entry.length,
            latency_ns: entry.latency_us.saturating_mul(1000),
            status,
            ..Record::new(op, wall_us.saturating_mul(1000))
        },
        wall_us,
        client: entry.client.clone(),
        path: slashed(&entry.path),
        path2: entry.path2.as_deref().map_or_else(|| "".into(), slashed),
    })
}
