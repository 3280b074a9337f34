//! Plain caches without devices or moves: every miss is fetched at once, as papers and other simulators have it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use tiering::sim::{self, Access, Device, Replacement, Request, Setup};
use tiering::{FileId, Nanos, ObjectId, PolicyConfig};

use super::{Args, Asked, Size};
use crate::parallel;
use crate::read::{Format, open_as};

/// One policy at one size on one trace.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The trace's path.
    pub trace: String,
    /// The policy, with the parameters that were given.
    pub policy: String,
    /// Objects that the cache could hold, if it was measured so.
    pub cache_objects: Option<u64>,
    /// Bytes that it could hold, if it was measured so.
    pub cache_bytes: Option<u64>,
    /// Accesses to objects.
    pub requests: u64,
    /// Of these, the ones that found nothing.
    pub misses: u64,
    /// Share of the accesses that found nothing.
    pub miss_ratio: f64,
    /// Share of the bytes accessed that were not found.
    pub byte_miss_ratio: f64,
}

/// One access to a whole object.
#[derive(Clone, Copy)]
struct Touch {
    at: Nanos,
    id: ObjectId,
    /// Bytes, for the byte miss ratio.
    bytes: u32,
}

/// How much a cache holds.
#[derive(Clone, Copy)]
enum Room {
    Objects(u64),
    Bytes(u64),
}

/// All accesses of a trace: one per record of a cache trace, one per object touched of any other. Deletions are
/// left out: other simulators do not know them.
fn touches(path: &Path, args: &Args) -> anyhow::Result<Vec<Touch>> {
    let mut reader = open_as(path, args.format)?;
    let mut touches = Vec::new();
    if !reader.is_cache_trace() {
        let load = super::load(&mut *reader, args.speed)?;
        for Request { at, id, access } in load.requests {
            if let Access::Read {
                object_len: bytes, ..
            }
            | Access::Write(bytes) = access
            {
                touches.push(Touch { at, id, bytes });
            }
        }
    } else {
        let mut files = HashMap::new();
        while let Some(entry) = reader.next_entry() {
            let entry = entry?;
            let next = files.len() as u64;
            let file = *files.entry(entry.path).or_insert(next);
            let us = entry.at_us.max(0) as f64 / args.speed;
            touches.push(Touch {
                at: Nanos((us * 1e3) as u64),
                id: ObjectId::new(FileId(file), 0),
                bytes: u32::try_from(entry.length).unwrap_or(u32::MAX).max(1),
            });
        }
    }
    let name = path.display();
    anyhow::ensure!(
        !touches.is_empty(),
        "{name}: nothing in it reads or writes data"
    );
    if args.ignore_object_size {
        touches.iter_mut().for_each(|t| t.bytes = 1);
    }
    Ok(touches)
}

/// Whether the arguments ask for plain caches.
pub(super) fn wanted(args: &Args) -> bool {
    args.plain
        || args.ignore_object_size
        || !args.cache_objects.is_empty()
        || args.format == Some(Format::OracleGeneral)
}

/// The rows of one trace.
pub(super) fn rows(path: &Path, args: &Args) -> anyhow::Result<Vec<Row>> {
    let touches = touches(path, args)?;
    let sizes: BTreeMap<ObjectId, u32> = touches.iter().map(|t| (t.id, t.bytes)).collect();
    let footprint = sizes.values().map(|bytes| u64::from(*bytes)).sum();
    let mut rooms: Vec<Room> = args
        .cache_objects
        .iter()
        .copied()
        .map(Room::Objects)
        .collect();
    if rooms.is_empty() {
        for size in &args.cache_size {
            rooms.push(match size {
                Size::Bytes(_) if args.ignore_object_size => anyhow::bail!(
                    "--cache-size in bytes means nothing with --ignore-object-size: give --cache-objects or a share"
                ),
                // Every object is one byte now.
                size if args.ignore_object_size => Room::Objects(size.bytes(footprint)),
                size => Room::Bytes(size.bytes(footprint)),
            });
        }
    }
    let jobs = rooms
        .iter()
        .flat_map(|room| args.policy.iter().map(move |p| (*room, p)));
    let jobs: Vec<(Room, &Asked)> = jobs.collect();
    let total: u64 = touches.iter().map(|t| u64::from(t.bytes)).sum();
    Ok(parallel::map(&jobs, |(room, asked)| {
        let misses = misses(asked, *room, &touches);
        let missed: u64 = misses.iter().map(|at| u64::from(touches[*at].bytes)).sum();
        let (cache_objects, cache_bytes) = match *room {
            Room::Objects(objects) => (Some(objects), None),
            Room::Bytes(bytes) => (None, Some(bytes)),
        };
        Row {
            trace: path.display().to_string(),
            policy: asked.label().to_owned(),
            cache_objects,
            cache_bytes,
            requests: touches.len() as u64,
            misses: misses.len() as u64,
            miss_ratio: misses.len() as f64 / touches.len() as f64,
            byte_miss_ratio: missed as f64 / total.max(1) as f64,
        }
    }))
}

/// Which accesses miss, by their places.
fn misses(asked: &Asked, room: Room, touches: &[Touch]) -> Vec<usize> {
    let (room, unit) = match room {
        Room::Objects(objects) => (objects, true),
        Room::Bytes(bytes) => (bytes, false),
    };
    let len = |t: &Touch| if unit { 1 } else { t.bytes };
    let policy = match asked {
        Asked::Belady => {
            let accesses: Vec<_> = touches.iter().map(|t| (t.id, len(t))).collect();
            return sim::belady_misses(&accesses, room);
        }
        Asked::Policy(candidate) => candidate.as_libcachesim(),
    };
    if let Some(mut cache) = Replacement::new(&policy, room) {
        let touches = touches.iter().enumerate();
        let missed = touches.filter(|(_, t)| !cache.access(t.id, len(t)));
        return missed.map(|(at, _)| at).collect();
    }
    tiered(policy, room, touches, len)
}

/// The same for what is more than a replacement algorithm: with devices that need no time, so that what the
/// policy wants happens at once.
fn tiered(
    policy: PolicyConfig,
    room: u64,
    touches: &[Touch],
    len: impl Fn(&Touch) -> u32,
) -> Vec<usize> {
    let at_once = Device {
        seek_ms: 0.0,
        transfer_mib_per_s: f64::INFINITY,
    };
    let setup = Setup {
        policy,
        cache_bytes: room,
        hdd: at_once,
        ssd: at_once,
        high_watermark: 1.0,
        low_watermark: 1.0,
        max_dirty_age: Nanos(u64::MAX),
    };
    let requests = touches.iter().map(|t| Request {
        at: t.at,
        id: t.id,
        access: Access::Read {
            offset: 0,
            len: len(t),
            object_len: len(t),
        },
    });
    let mut missed = Vec::new();
    sim::run_seeing(&setup, requests, |at, hit| {
        if !hit {
            missed.push(at);
        }
    });
    missed
}

/// The rows for people.
pub(super) fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut trace = "";
    for row in rows {
        if row.trace != trace {
            trace = &row.trace;
            let _ = writeln!(
                out,
                "{trace}: {} requests; every miss is fetched at once\n{:<13} {:>14} {:>10} {:>8} {:>12}",
                row.requests, "policy", "cache", "misses", "miss %", "byte miss %"
            );
        }
        let cache = match (row.cache_objects, row.cache_bytes) {
            (Some(objects), _) => format!("{objects} obj"),
            (None, bytes) => format!("{:.1} MiB", bytes.unwrap_or(0) as f64 / 1_048_576.0),
        };
        let _ = writeln!(
            out,
            "{:<13} {cache:>14} {:>10} {:>8.2} {:>12.2}",
            row.policy,
            row.misses,
            row.miss_ratio * 100.0,
            row.byte_miss_ratio * 100.0
        );
    }
    out
}
