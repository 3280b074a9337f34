//! Plain caches without devices or moves: every miss is fetched at once, as papers and other simulators have it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use tiering::sim::{self, Access, Device, Replacement, Request, Run, Setup};
use tiering::{FileId, Nanos, ObjectId, PolicyConfig};

use super::load::{Source, Survey};
use super::{Args, Asked, Size};
use crate::parallel;
use crate::read::{CacheRecord, Format, ReadError, Reader, open_as};
use crate::write::oracle_object;

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
    /// Bytes, for the byte miss ratio. Only where a cache is measured in objects they may be 4 GiB and more.
    bytes: u64,
}

/// How much a cache holds.
#[derive(Clone, Copy)]
enum Room {
    Objects(u64),
    Bytes(u64),
}

/// A trace's accesses to objects, read as often as they are needed.
struct Accesses<'a> {
    path: &'a Path,
    args: &'a Args,
    source: Source,
    /// None for a trace of a cache or of block devices, whose records are the accesses.
    survey: Option<Survey>,
    /// Whether it was said which lines of a trace of a cache cannot be used; the survey says it of others.
    told: Cell<bool>,
}

impl<'a> Accesses<'a> {
    fn new(path: &'a Path, args: &'a Args) -> anyhow::Result<Self> {
        let source = Source::new(path, args.format, args.speed);
        let mut reader = open_as(path, args.format)?;
        let survey = match reader.cache_records().is_some() || reader.is_of_blocks() {
            true => None,
            false => Some(source.survey()?),
        };
        Ok(Self {
            path,
            args,
            source,
            survey,
            told: Cell::new(false),
        })
    }

    /// Calls `take` with all of them: one per record of a trace of a cache or of block devices, one per object touched of any
    /// other.
    /// Deletions are left out: other simulators do not know them.
    fn read<T>(
        &self,
        take: impl FnOnce(&mut dyn Iterator<Item = anyhow::Result<Touch>>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let sized = |touch: Touch| Touch {
            bytes: match self.args.ignore_object_size {
                true => 1,
                false => touch.bytes,
            },
            ..touch
        };
        if let Some(survey) = &self.survey {
            let touch = |Request { at, id, access }| match access {
                Access::Read {
                    object_len: bytes, ..
                }
                | Access::Write(bytes) => {
                    let bytes = u64::from(bytes);
                    Some(sized(Touch { at, id, bytes }))
                }
                Access::Delete(_) => None,
            };
            let requests = self.source.requests(survey)?;
            return take(
                &mut requests.filter_map(|r| r.map_err(Into::into).map(touch).transpose()),
            );
        }
        let by_objects = self.args.ignore_object_size || !self.args.cache_objects.is_empty();
        let touch = |record: Result<CacheRecord, ReadError>| {
            let record = record?;
            anyhow::ensure!(
                by_objects || u32::try_from(record.bytes).is_ok(),
                "{}: an object of {} bytes, and a cache is measured in bytes for objects below 4 GiB only: \
                 give --cache-objects, or --ignore-object-size",
                self.path.display(),
                record.bytes
            );
            let us = record.at_us.max(0) as f64 / self.args.speed;
            Ok(sized(Touch {
                at: Nanos((us * 1e3) as u64),
                id: ObjectId::new(FileId(record.object), 0),
                bytes: record.bytes.max(1),
            }))
        };
        let mut reader = open_as(self.path, self.args.format)?;
        let taken = match reader.cache_records() {
            Some(records) => take(&mut records.map(touch)),
            None => take(&mut Blocks(&mut *reader).map(touch)),
        }?;
        if !self.told.replace(true) {
            super::tell_unusable(self.path, reader.unusable());
        }
        Ok(taken)
    }

    /// Bytes of all objects, each by its last access.
    fn footprint(&self) -> anyhow::Result<u64> {
        self.read(|touches| {
            let mut sizes = HashMap::new();
            for touch in touches {
                let touch = touch?;
                sizes.insert(touch.id, touch.bytes);
            }
            Ok(sizes.values().sum())
        })
    }
}

/// The accesses of a trace of block devices, as `convert` writes them for libCacheSim.
struct Blocks<'a>(&'a mut dyn Reader);

impl Iterator for Blocks<'_> {
    type Item = Result<CacheRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.0.next_entry()? {
                Ok(entry) => entry,
                Err(e) => return Some(Err(e)),
            };
            if (entry.op.reads() || entry.op.writes()) && entry.outcome.is_ok() {
                return Some(Ok(CacheRecord {
                    at_us: entry.at_us,
                    object: oracle_object(&entry.path, entry.offset),
                    bytes: entry.length,
                }));
            }
        }
    }
}

/// Whether the arguments ask for plain caches.
pub(super) fn wanted(args: &Args) -> bool {
    args.plain
        || args.ignore_object_size
        || !args.cache_objects.is_empty()
        || matches!(args.format, Some(Format::OracleGeneral | Format::CacheCsv))
}

/// How many accesses, and bytes in them.
#[derive(Clone, Copy, Default)]
struct Sums {
    accesses: u64,
    bytes: u64,
}

impl Sums {
    fn add(&mut self, touch: &Touch) {
        self.accesses += 1;
        self.bytes += touch.bytes;
    }
}

/// What hears of every access.
enum Job {
    All(Sums),
    /// A replacement algorithm, whether every object counts as one, and what it missed.
    Cache(Replacement, bool, Sums),
    /// What is more than a replacement algorithm: with devices that need no time, so that what the policy wants
    /// happens at once.
    Tiered(Box<Run>, bool, Sums),
    /// Keeps all, for the one that must know what will come.
    Keep(Vec<Touch>),
    /// Needs the whole trace.
    Later,
}

impl Job {
    fn new(asked: &Asked, room: Room) -> Self {
        let (room, unit) = room.units();
        let policy = match asked {
            Asked::Belady => return Job::Later,
            Asked::Policy(candidate) => candidate.as_libcachesim(),
        };
        match Replacement::new(&policy, room) {
            Some(cache) => Job::Cache(cache, unit, Sums::default()),
            None => Job::Tiered(Box::new(at_once(policy, room)), unit, Sums::default()),
        }
    }

    fn step(&mut self, touches: &[Touch]) {
        match self {
            Job::All(all) => touches.iter().for_each(|t| all.add(t)),
            Job::Cache(cache, unit, missed) => {
                for touch in touches {
                    if !cache.access(touch.id, touch.len(*unit)) {
                        missed.add(touch);
                    }
                }
            }
            Job::Tiered(run, unit, missed) => {
                for touch in touches {
                    let misses = run.so_far().0.read_misses;
                    run.step(touch.read(*unit));
                    if run.so_far().0.read_misses > misses {
                        missed.add(touch);
                    }
                }
            }
            Job::Keep(all) => all.extend_from_slice(touches),
            Job::Later => {}
        }
    }
}

impl Room {
    /// How much it is, and whether every object counts as one.
    fn units(self) -> (u64, bool) {
        match self {
            Room::Objects(objects) => (objects, true),
            Room::Bytes(bytes) => (bytes, false),
        }
    }
}

impl Touch {
    fn len(&self, unit: bool) -> u32 {
        match unit {
            true => 1,
            false => u32::try_from(self.bytes).unwrap_or(u32::MAX),
        }
    }

    fn read(&self, unit: bool) -> Request {
        let len = self.len(unit);
        Request {
            at: self.at,
            id: self.id,
            access: Access::Read {
                offset: 0,
                len,
                object_len: len,
            },
        }
    }
}

fn at_once(policy: PolicyConfig, room: u64) -> Run {
    let at_once = Device {
        seek_ms: 0.0,
        transfer_mib_per_s: f64::INFINITY,
    };
    Run::new(Setup {
        policy,
        cache_bytes: room,
        hdd: at_once,
        ssd: at_once,
        high_watermark: 1.0,
        low_watermark: 1.0,
        max_dirty_age: Nanos(u64::MAX),
    })
}

/// The caches that are asked for. Shares need to know how much there is: one more reading.
fn rooms(accesses: &Accesses) -> anyhow::Result<Vec<Room>> {
    let args = accesses.args;
    if !args.cache_objects.is_empty() {
        let objects = args.cache_objects.iter().copied();
        return Ok(objects.map(Room::Objects).collect());
    }
    let shares = args
        .cache_size
        .iter()
        .any(|s| matches!(s, Size::Percent(_)));
    let footprint = if shares { accesses.footprint()? } else { 0 };
    let room = |size: &Size| match size {
        Size::Bytes(_) if args.ignore_object_size => anyhow::bail!(
            "--cache-size in bytes means nothing with --ignore-object-size: give --cache-objects or a share"
        ),
        // Every object is one byte now.
        size if args.ignore_object_size => Ok(Room::Objects(size.bytes(footprint))),
        size => Ok(Room::Bytes(size.bytes(footprint))),
    };
    args.cache_size.iter().map(room).collect()
}

/// The rows of one trace: all policies and sizes in one reading. Only `belady` needs the trace in memory.
pub(super) fn rows(path: &Path, args: &Args) -> anyhow::Result<Vec<Row>> {
    let accesses = Accesses::new(path, args)?;
    let rooms = rooms(&accesses)?;
    let pairs = rooms
        .iter()
        .flat_map(|room| args.policy.iter().map(move |p| (*room, p)));
    let pairs: Vec<(Room, &Asked)> = pairs.collect();
    let mut jobs = vec![Job::All(Sums::default())];
    jobs.extend(pairs.iter().map(|(room, asked)| Job::new(asked, *room)));
    if pairs
        .iter()
        .any(|(_, asked)| matches!(asked, Asked::Belady))
    {
        jobs.push(Job::Keep(Vec::new()));
    }
    let done =
        accesses.read(|touches| parallel::feed(touches, jobs, |job, touches| job.step(touches)))?;
    let (mut all, mut kept, mut sums) = (Sums::default(), Vec::new(), Vec::new());
    for job in done {
        match job {
            Job::All(counted) => all = counted,
            Job::Cache(_, _, missed) | Job::Tiered(_, _, missed) => sums.push(Some(missed)),
            Job::Later => sums.push(None),
            Job::Keep(touches) => kept = touches,
        }
    }
    let name = path.display();
    anyhow::ensure!(
        all.accesses > 0,
        "{name}: nothing in it reads or writes data"
    );
    let pairs: Vec<_> = pairs.into_iter().zip(sums).collect();
    Ok(parallel::map(&pairs, |((room, asked), missed)| {
        let missed = missed.unwrap_or_else(|| belady(*room, &kept));
        let (cache_objects, cache_bytes) = match *room {
            Room::Objects(objects) => (Some(objects), None),
            Room::Bytes(bytes) => (None, Some(bytes)),
        };
        Row {
            trace: path.display().to_string(),
            policy: asked.label().to_owned(),
            cache_objects,
            cache_bytes,
            requests: all.accesses,
            misses: missed.accesses,
            miss_ratio: missed.accesses as f64 / all.accesses as f64,
            byte_miss_ratio: missed.bytes as f64 / all.bytes.max(1) as f64,
        }
    }))
}

fn belady(room: Room, touches: &[Touch]) -> Sums {
    let (room, unit) = room.units();
    let accesses: Vec<_> = touches.iter().map(|t| (t.id, t.len(unit))).collect();
    let mut missed = Sums::default();
    for place in sim::belady_misses(&accesses, room) {
        missed.add(&touches[place]);
    }
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
