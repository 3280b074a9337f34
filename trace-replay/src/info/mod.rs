//! `trace-replay info`: what a trace holds, in one streaming pass.

mod histogram;
mod html;
mod life;
mod reuse;
mod text;
mod time;

pub use self::histogram::{Bucket, Histogram};
pub use self::life::Lifetimes;
pub use self::time::{Interval, OverTime};

use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Shown with `--help`, and run by a test.
pub const EXAMPLES: &str = "Examples:
    trace-replay info fixtures/es/local_256.csv.xz
    trace-replay info fixtures/es/dav_apache_256_dav.csv.xz --html /tmp/load.html
    trace-replay info fixtures/es/smoke.csv.xz --json";

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trace of any format that `convert` reads.
    pub trace: PathBuf,
    /// Prints JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Writes a page with charts to this file, too: one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Footprint and reuse are counted in pieces of this size, the gateway's default object.
const PIECE_BYTES: u64 = 4 << 20;
/// Paths named as the hottest.
const HOTTEST: usize = 20;

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
    /// How reads follow each other.
    pub reads: Accesses,
    /// How writes follow each other.
    pub writes: Accesses,
    /// Median and 90th percentile of the bytes of one read.
    pub read_size_bytes: [u64; 2],
    /// Median and 90th percentile of the bytes of one write.
    pub write_size_bytes: [u64; 2],
    /// Counts per operation.
    pub operations: BTreeMap<Op, OpInfo>,
    /// Time from each entry's start to the next one's, in microseconds; 0 where a trace steps back.
    pub gap_us: Histogram,
    /// What happened when.
    pub over_time: OverTime,
    /// What became of files made here.
    pub lifetimes: Lifetimes,
    /// The paths with the most bytes read and written, most first.
    pub hottest: Vec<Hot>,
    /// Lines that could not be used.
    pub unusable: Unusable,
}

/// Sizes and order of reads, or of writes.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Accesses {
    /// Bytes of one access.
    pub size_bytes: Histogram,
    /// Share of the accesses that begin where the one before of the same path ended; for its first, at 0;
    /// and of whole GETs and PUTs.
    pub sequential_share: f64,
    /// Share of the bytes moved by those.
    pub sequential_bytes_share: f64,
    /// Bytes of other pieces used between two uses of a 4 MiB piece: what an LRU cache must hold to keep it.
    pub reuse_bytes: Histogram,
    /// Uses of pieces that had not been used before.
    pub first_uses: u64,
}

/// What happened on one path.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Hot {
    /// The path.
    pub path: String,
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// A path's counts, and where its last read and its last write ended.
#[derive(Default)]
struct PathInfo {
    hot: Hot,
    ends: [u64; 2],
}

/// Sums from which [`Accesses`] has its shares.
#[derive(Default)]
struct Order {
    accesses: u64,
    bytes: u64,
    sequential: u64,
    sequential_bytes: u64,
    found: Accesses,
}

impl Order {
    /// Adds an access, which begins where `end` says the one before ended or elsewhere.
    fn add(&mut self, entry: &Entry, end: &mut u64) {
        // A whole GET or PUT is one pass from the beginning, whatever came before.
        let whole = matches!(entry.op, Op::DavGet | Op::DavPut) && !entry.ranged;
        let sequential = whole || entry.offset == *end;
        self.accesses += 1;
        self.bytes += entry.length;
        self.sequential += u64::from(sequential);
        self.sequential_bytes += if sequential { entry.length } else { 0 };
        self.found.size_bytes.add(entry.length);
        *end = entry.offset.saturating_add(entry.length);
    }

    fn accesses(self) -> Accesses {
        Accesses {
            sequential_share: share(self.sequential, self.accesses),
            sequential_bytes_share: share(self.sequential_bytes, self.bytes),
            ..self.found
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
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
    let mut latency_us_sums: BTreeMap<Op, u128> = BTreeMap::new();
    let mut clients: HashSet<Arc<str>> = HashSet::new();
    let mut paths: HashMap<Arc<str>, u32> = HashMap::new();
    let mut infos: Vec<PathInfo> = Vec::new();
    let mut pieces: HashMap<(u32, u64), Piece> = HashMap::new();
    let mut reuse = reuse::Reuse::new();
    let mut living = life::Living::default();
    let mut over_time = OverTime::default();
    let mut gap_us = Histogram::default();
    let (mut reads, mut writes) = (Order::default(), Order::default());
    let mut touched_bytes = 0;
    let (mut before, mut origin) = (None, None);
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
        if path == ids {
            infos.push(PathInfo::default());
        }
        if let Some(before) = before.replace(entry.at_us) {
            gap_us.add(entry.at_us.saturating_sub(before).max(0) as u64);
        }
        let origin = *origin.get_or_insert(entry.at_us);
        let at_us = entry.at_us.saturating_sub(origin).max(0) as u64;
        if entry.outcome.is_ok() {
            living.note(&entry);
        }
        let op = operations.entry(entry.op).or_default();
        op.count += 1;
        op.failed += u64::from(!entry.outcome.is_ok());
        op.latency_us_max = op.latency_us_max.max(entry.latency_us);
        *latency_us_sums.entry(entry.op).or_default() += u128::from(entry.latency_us);
        if !(entry.op.reads() || entry.op.writes()) || !entry.outcome.is_ok() {
            over_time.add(at_us, [0, 0], [touched_bytes, living.bytes]);
            continue;
        }
        op.bytes += entry.length;
        let info = &mut infos[path as usize];
        let (count, bytes, sizes, order, end) = if entry.op.reads() {
            let hot = &mut info.hot;
            (
                &mut hot.reads,
                &mut hot.read_bytes,
                &mut read_sizes,
                &mut reads,
                &mut info.ends[0],
            )
        } else {
            let hot = &mut info.hot;
            (
                &mut hot.writes,
                &mut hot.written_bytes,
                &mut write_sizes,
                &mut writes,
                &mut info.ends[1],
            )
        };
        *count += 1;
        *bytes += entry.length;
        *sizes.entry(entry.length).or_default() += 1;
        order.add(&entry, end);
        let moved = if entry.op.reads() {
            [entry.length, 0]
        } else {
            [0, entry.length]
        };
        read_bytes += moved[0];
        written_bytes += moved[1];
        let end = entry.offset.saturating_add(entry.length);
        let pieces_of_entry = match entry.length {
            0 => 0..0,
            _ => entry.offset / PIECE_BYTES..(end - 1) / PIECE_BYTES + 1,
        };
        for index in pieces_of_entry {
            let piece = pieces.entry((path, index)).or_default();
            let piece_end = piece.end.max((end - index * PIECE_BYTES).min(PIECE_BYTES));
            touched_bytes += piece_end - piece.end;
            piece.end = piece_end;
            match reuse.used((path, index), piece.end) {
                Some(distance) => order.found.reuse_bytes.add(distance),
                None => order.found.first_uses += 1,
            }
            if entry.op.reads() {
                accesses += 1;
                rereads += u64::from(piece.reads > 0);
                after_write += u64::from(piece.written);
                piece.reads += 1;
            } else {
                piece.written = true;
            }
        }
        over_time.add(at_us, moved, [touched_bytes, living.bytes]);
    }
    for (op, sum) in latency_us_sums {
        if let Some(op) = operations.get_mut(&op) {
            op.latency_us_mean = u64::try_from(sum / u128::from(op.count)).unwrap_or(u64::MAX);
        }
    }
    let never_read = pieces.values().filter(|p| p.reads == 0).count() as u64;
    let path_count = paths.len() as u64;
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
        paths: path_count,
        read_bytes,
        written_bytes,
        working_set_bytes: touched_bytes,
        pieces: pieces.len() as u64,
        never_read_share: share(never_read, pieces.len() as u64),
        reread_share: share(rereads, accesses),
        read_after_write_share: share(after_write, accesses),
        read_size_bytes: [quantile(&read_sizes, 0.5), quantile(&read_sizes, 0.9)],
        write_size_bytes: [quantile(&write_sizes, 0.5), quantile(&write_sizes, 0.9)],
        reads: reads.accesses(),
        writes: writes.accesses(),
        operations,
        gap_us,
        over_time,
        lifetimes: Lifetimes {
            died_bytes_share: share(living.found.died_bytes, written_bytes),
            ..living.found
        },
        hottest: hottest(paths, infos),
        unusable: reader.unusable().clone(),
    })
}

/// Most bytes first, then most accesses, then by name.
fn hottest(paths: HashMap<Arc<str>, u32>, infos: Vec<PathInfo>) -> Vec<Hot> {
    let mut named: Vec<Hot> = paths
        .into_iter()
        .map(|(path, id)| Hot {
            path: path.to_string(),
            ..infos[id as usize].hot.clone()
        })
        .filter(|hot| hot.reads + hot.writes > 0)
        .collect();
    named.sort_unstable_by_key(|hot| {
        let bytes = Reverse(hot.read_bytes + hot.written_bytes);
        (bytes, Reverse(hot.reads + hot.writes), hot.path.clone())
    });
    named.truncate(HOTTEST);
    named
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
