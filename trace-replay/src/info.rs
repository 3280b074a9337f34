//! `trace-replay info`: what a trace holds, in one streaming pass.

use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Level, Op};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// Footprint and reuse are counted in pieces of this size, the gateway's default object.
const PIECE_BYTES: u64 = 4 << 20;

/// Counts of one operation.
#[derive(Debug, Default, Clone, Serialize)]
pub struct OpInfo {
    /// How often it was recorded.
    pub count: u64,
    /// How many of those failed when recorded.
    pub failed: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Longest recorded latency.
    pub latency_us_max: u64,
    /// Mean recorded latency.
    pub latency_us_mean: u64,
}

/// What a trace holds.
#[derive(Debug, Serialize)]
pub struct Info {
    /// File operations or WebDAV requests.
    pub level: Level,
    /// Usable entries.
    pub entries: u64,
    /// Time from the first to the last entry's start.
    pub duration_us: u64,
    /// Clients seen.
    pub clients: Vec<String>,
    /// Paths named.
    pub paths: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes in the distinct 4 MiB pieces that were read or written, as far as the trace shows their size.
    pub working_set_bytes: u64,
    /// Distinct 4 MiB pieces read or written.
    pub pieces: u64,
    /// Share of pieces that are never read.
    pub never_read_share: f64,
    /// Read accesses to a piece that was read before, as a share of all read accesses.
    pub reread_share: f64,
    /// Read accesses to a piece written earlier in the trace, as a share of all read accesses.
    pub read_after_write_share: f64,
    /// Median and 90th percentile of the bytes of one read.
    pub read_size_bytes: [u64; 2],
    /// Median and 90th percentile of the bytes of one write.
    pub write_size_bytes: [u64; 2],
    /// Counts per operation.
    pub operations: BTreeMap<Op, OpInfo>,
    /// Lines that could not be used.
    pub unusable: Unusable,
}

#[derive(Default)]
struct Piece {
    end: u64,
    reads: u32,
    written: bool,
}

/// Reads the whole trace and counts.
pub fn collect(reader: &mut dyn Reader) -> Result<Info, ReadError> {
    let mut operations: BTreeMap<Op, OpInfo> = BTreeMap::new();
    let mut clients: HashSet<Arc<str>> = HashSet::new();
    let mut paths: HashMap<Arc<str>, u32> = HashMap::new();
    let mut pieces: HashMap<(u32, u64), Piece> = HashMap::new();
    let (mut read_sizes, mut write_sizes): (BTreeMap<u64, u64>, BTreeMap<u64, u64>) =
        Default::default();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let (mut entries, mut read_bytes, mut written_bytes) = (0_u64, 0_u64, 0_u64);
    let (mut accesses, mut rereads, mut after_write) = (0_u64, 0_u64, 0_u64);
    while let Some(entry) = reader.next_entry() {
        let entry = entry?;
        entries += 1;
        first = first.min(entry.at_us);
        last = last.max(entry.at_us);
        clients.insert(entry.client.clone());
        let ids = paths.len() as u32;
        let path = *paths.entry(entry.path.clone()).or_insert(ids);
        let op = operations.entry(entry.op).or_default();
        op.count += 1;
        op.failed += u64::from(!entry.outcome.is_ok());
        op.latency_us_max = op.latency_us_max.max(entry.latency_us);
        op.latency_us_mean += entry.latency_us;
        if !(entry.op.reads() || entry.op.writes()) || !entry.outcome.is_ok() {
            continue;
        }
        op.bytes += entry.length;
        let sizes = if entry.op.reads() {
            &mut read_sizes
        } else {
            &mut write_sizes
        };
        *sizes.entry(entry.length).or_default() += 1;
        *(if entry.op.reads() {
            &mut read_bytes
        } else {
            &mut written_bytes
        }) += entry.length;
        if entry.length == 0 {
            continue;
        }
        let end = entry.offset + entry.length;
        for index in entry.offset / PIECE_BYTES..=(end - 1) / PIECE_BYTES {
            let piece = pieces.entry((path, index)).or_default();
            piece.end = piece.end.max((end - index * PIECE_BYTES).min(PIECE_BYTES));
            if entry.op.reads() {
                accesses += 1;
                rereads += u64::from(piece.reads > 0);
                after_write += u64::from(piece.written);
                piece.reads += 1;
            } else {
                piece.written = true;
            }
        }
    }
    for op in operations.values_mut() {
        op.latency_us_mean /= op.count.max(1);
    }
    let share = |part: u64, whole: u64| {
        if whole == 0 {
            0.0
        } else {
            part as f64 / whole as f64
        }
    };
    let never_read = pieces.values().filter(|p| p.reads == 0).count() as u64;
    let mut clients: Vec<String> = clients.iter().map(ToString::to_string).collect();
    clients.sort();
    Ok(Info {
        level: reader.level(),
        entries,
        duration_us: if entries == 0 {
            0
        } else {
            last.abs_diff(first)
        },
        clients,
        paths: paths.len() as u64,
        read_bytes,
        written_bytes,
        working_set_bytes: pieces.values().map(|p| p.end).sum(),
        pieces: pieces.len() as u64,
        never_read_share: share(never_read, pieces.len() as u64),
        reread_share: share(rereads, accesses),
        read_after_write_share: share(after_write, accesses),
        read_size_bytes: [quantile(&read_sizes, 0.5), quantile(&read_sizes, 0.9)],
        write_size_bytes: [quantile(&write_sizes, 0.5), quantile(&write_sizes, 0.9)],
        operations,
        unusable: reader.unusable().clone(),
    })
}

fn quantile(sizes: &BTreeMap<u64, u64>, q: f64) -> u64 {
    let total: u64 = sizes.values().sum();
    let mut left = (total as f64 * q).ceil() as u64;
    for (&size, &count) in sizes {
        if left <= count {
            return size;
        }
        left -= count;
    }
    0
}

/// Bytes with a unit, for people.
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

impl Info {
    /// The page for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let pair = |sizes: [u64; 2]| format!("{} / {}", human(sizes[0]), human(sizes[1]));
        let rows = [
            ("level", self.level.to_string()),
            ("entries", self.entries.to_string()),
            (
                "duration",
                format!("{:.1} s", self.duration_us as f64 / 1e6),
            ),
            ("clients", self.clients.join(", ")),
            ("paths", self.paths.to_string()),
            ("bytes read", human(self.read_bytes)),
            ("bytes written", human(self.written_bytes)),
            (
                "working set",
                format!(
                    "{} in {} pieces of 4 MiB",
                    human(self.working_set_bytes),
                    self.pieces
                ),
            ),
            ("pieces never read", percent(self.never_read_share)),
            ("reads of a piece read before", percent(self.reread_share)),
            (
                "reads of a piece written here",
                percent(self.read_after_write_share),
            ),
            ("read size, p50 / p90", pair(self.read_size_bytes)),
            ("write size, p50 / p90", pair(self.write_size_bytes)),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "{name:<31}{value}");
        }
        let _ = writeln!(
            out,
            "\n{:<12}{:>10}{:>8}{:>12}{:>12}{:>12}",
            "operation", "count", "failed", "bytes", "mean us", "max us"
        );
        for (op, i) in &self.operations {
            let bytes = if i.bytes == 0 {
                "-".into()
            } else {
                human(i.bytes)
            };
            let _ = writeln!(
                out,
                "{:<12}{:>10}{:>8}{:>12}{:>12}{:>12}",
                op.name(),
                i.count,
                i.failed,
                bytes,
                i.latency_us_mean,
                i.latency_us_max
            );
        }
        if self.unusable.lines > 0 {
            let _ = writeln!(
                out,
                "\n{} lines could not be used, for example:",
                self.unusable.lines
            );
            for example in &self.unusable.examples {
                let _ = writeln!(out, "  {example}");
            }
        }
        out
    }
}
