//! Which versions clients use most, and which of their objects: a bounded table for people to look at.
//!
//! Space-saving (Metwally, Agrawal, El Abbadi 2005) with decay: the table holds [`TRACKED_MAX`] versions; one that is not in
//! it takes the place of the least used and inherits its weight as a possible error, so that a version with more than
//! 1/[`TRACKED_MAX`] of the recent uses is always there, however many versions there are. Weights decay forwards: a use
//! at time t counts 2^(t / half-life), which keeps old weights comparable without touching them.
//!
//! Must not know: the policy. Nothing is decided by this table.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tiering::{FileId, Nanos, ObjectId, Tier};

/// Versions in the table.
const TRACKED_MAX: usize = 256;
/// Parts of a version whose heat is kept apart.
pub const CELLS: usize = 48;
/// A use counts half after so long.
const HALF_LIFE: Nanos = Nanos(600_000_000_000);
/// All weights are scaled down after so many half-lives, long before cells (f32) overflow.
const RESCALE_AFTER: f64 = 32.0;

/// Uses of the versions that are used most.
pub(super) struct Heat {
    epoch: Nanos,
    index: HashMap<FileId, usize>,
    /// The weights, apart from the rows: the least one is looked for among them.
    weights: Vec<f64>,
    rows: Vec<Row>,
}

#[derive(Clone)]
struct Row {
    file: FileId,
    /// Part of the weight that may belong to versions that were here before.
    error: f64,
    since: Nanos,
    last: Nanos,
    reads: u64,
    writes: u64,
    served: [Served; 2],
    cells: [f32; CELLS],
    /// Each cell stands for 2^shift objects.
    shift: u32,
}

#[derive(Clone, Copy, Default)]
struct Served {
    reads: u64,
    ns: u64,
}

impl Served {
    fn mean_us(self) -> Option<u64> {
        Some(self.ns.checked_div(self.reads)? / 1000)
    }
}

/// What is known of a version's reads when one of its objects moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Object reads since the version entered the table.
    pub reads: u64,
    /// Seconds since then.
    pub within_s: u64,
    /// Mean time of its reads from the backing tier, microseconds.
    pub backing_us: Option<u64>,
    /// Mean time of its reads from the cache tier, microseconds.
    pub cache_us: Option<u64>,
}

/// A version of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HotVersion {
    pub file: FileId,
    /// Uses, each counting half after [`HALF_LIFE`]; never more than there were.
    pub recent: f64,
    pub reads: u64,
    pub writes: u64,
    pub last_use: Nanos,
    pub evidence: Evidence,
    pub cells: [f32; CELLS],
    pub shift: u32,
}

impl Default for Heat {
    fn default() -> Self {
        Heat {
            epoch: Nanos(0),
            index: HashMap::with_capacity(TRACKED_MAX),
            weights: Vec::with_capacity(TRACKED_MAX),
            rows: Vec::with_capacity(TRACKED_MAX),
        }
    }
}

fn half_lives(span: Nanos) -> f64 {
    span.0 as f64 / HALF_LIFE.0 as f64
}

impl Row {
    fn new(file: FileId, error: f64, now: Nanos) -> Row {
        Row {
            file,
            error,
            since: now,
            last: now,
            reads: 0,
            writes: 0,
            served: [Served::default(); 2],
            cells: [0.0; CELLS],
            shift: 0,
        }
    }

    fn heat_cell(&mut self, object: u32, weight: f64) {
        while object >> self.shift >= CELLS as u32 {
            // Two cells become one.
            for i in 0..CELLS {
                let pair = |j: usize| self.cells.get(j).copied().unwrap_or(0.0);
                self.cells[i] = pair(2 * i) + pair(2 * i + 1);
            }
            self.shift += 1;
        }
        if let Some(cell) = self.cells.get_mut((object >> self.shift) as usize) {
            *cell += weight as f32;
        }
    }
}

impl Heat {
    /// Counts a read of an object for a client, and how long it took.
    pub fn read(&mut self, now: Nanos, id: ObjectId, tier: Tier, ns: u64) {
        let row = self.used(now, id);
        row.reads += 1;
        let served = &mut row.served[usize::from(tier == Tier::Backing)];
        served.reads += 1;
        served.ns = served.ns.saturating_add(ns);
    }

    /// Counts an object written by a client.
    pub fn write(&mut self, now: Nanos, id: ObjectId) {
        self.used(now, id).writes += 1;
    }

    fn used(&mut self, now: Nanos, id: ObjectId) -> &mut Row {
        if half_lives(now.since(self.epoch)) > RESCALE_AFTER {
            self.rescale(now);
        }
        let weight = half_lives(now.since(self.epoch)).exp2();
        let at = match self.index.get(&id.file) {
            Some(at) => *at,
            None => self.admit(now, id.file),
        };
        self.weights[at] += weight;
        let row = &mut self.rows[at];
        row.last = now;
        row.heat_cell(id.index, weight);
        row
    }

    fn admit(&mut self, now: Nanos, file: FileId) -> usize {
        let at = if self.rows.len() < TRACKED_MAX {
            self.weights.push(0.0);
            self.rows.push(Row::new(file, 0.0, now));
            self.rows.len() - 1
        } else {
            let mut least = 0;
            for (i, weight) in self.weights.iter().enumerate() {
                if *weight < self.weights[least] {
                    least = i;
                }
            }
            self.index.remove(&self.rows[least].file);
            self.rows[least] = Row::new(file, self.weights[least], now);
            least
        };
        self.index.insert(file, at);
        at
    }

    fn rescale(&mut self, now: Nanos) {
        let factor = (-half_lives(now.since(self.epoch))).exp2();
        self.epoch = now;
        for (weight, row) in self.weights.iter_mut().zip(&mut self.rows) {
            *weight *= factor;
            row.error *= factor;
            for cell in &mut row.cells {
                *cell *= factor as f32;
            }
        }
    }

    /// Drops a version that is gone.
    pub fn forget(&mut self, file: FileId) {
        if let Some(at) = self.index.remove(&file) {
            self.weights.swap_remove(at);
            self.rows.swap_remove(at);
            if let Some(moved) = self.rows.get(at) {
                self.index.insert(moved.file, at);
            }
        }
    }

    /// What is known of a version, if it is in the table.
    pub fn evidence(&self, now: Nanos, file: FileId) -> Option<Evidence> {
        let row = self.rows.get(*self.index.get(&file)?)?;
        Some(Evidence {
            reads: row.reads,
            within_s: now.since(row.since).as_millis() / 1000,
            backing_us: row.served[1].mean_us(),
            cache_us: row.served[0].mean_us(),
        })
    }

    /// The `count` versions that were surely used most, hottest first; ties by id.
    pub fn top(&self, now: Nanos, count: usize) -> Vec<HotVersion> {
        let mut order: Vec<(f64, FileId, usize)> = self
            .rows
            .iter()
            .enumerate()
            .map(|(at, row)| (self.weights[at] - row.error, row.file, at))
            .collect();
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let unit = half_lives(now.since(self.epoch)).exp2();
        let hot = |(sure, file, at): &(f64, FileId, usize)| {
            let row = &self.rows[*at];
            Some(HotVersion {
                file: *file,
                recent: sure / unit,
                reads: row.reads,
                writes: row.writes,
                last_use: row.last,
                evidence: self.evidence(now, *file)?,
                cells: row.cells.map(|c| (f64::from(c) / unit) as f32),
                shift: row.shift,
            })
        };
        order.iter().take(count).filter_map(hot).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn id(file: u64, index: u32) -> ObjectId {
        ObjectId::new(FileId(file), index)
    }

    fn secs(s: u64) -> Nanos {
        Nanos(s * 1_000_000_000)
    }

    #[test]
    fn uses_count_half_after_each_half_life_and_never_vanish_by_rescaling() {
        let mut heat = Heat::default();
        for _ in 0..8 {
            heat.read(secs(1), id(1, 0), Tier::Backing, 11_000_000);
        }
        let later = Nanos(secs(1).0 + 2 * HALF_LIFE.0);
        let top = heat.top(later, 1);
        assert!((top[0].recent - 2.0).abs() < 1e-9, "{}", top[0].recent);
        assert_eq!(top[0].evidence.backing_us, Some(11_000));
        assert_eq!(top[0].evidence.cache_us, None);
        let much_later = Nanos(HALF_LIFE.0 * 100);
        heat.write(much_later, id(2, 0));
        let top = heat.top(much_later, 2);
        assert_eq!((top[0].file, top[1].file), (FileId(2), FileId(1)));
        assert!((top[0].recent - 1.0).abs() < 1e-9);
        assert!(top[1].recent < 1e-6);
    }

    #[test]
    fn a_scan_over_100_000_versions_neither_grows_the_table_nor_hides_what_is_hot() {
        let mut heat = Heat::default();
        for n in 0..100_000_u64 {
            let now = Nanos(n * 1_000_000);
            heat.read(now, id(1_000 + n, 0), Tier::Backing, 1);
            if n % 20 == 0 {
                heat.read(now, id(n / 20 % 4, 7), Tier::Cache, 1);
            }
        }
        assert_eq!(heat.rows.len(), TRACKED_MAX);
        assert_eq!(heat.index.len(), TRACKED_MAX);
        let top = heat.top(secs(100), 5);
        let mut hottest: Vec<u64> = top.iter().take(4).map(|v| v.file.0).collect();
        hottest.sort_unstable();
        assert_eq!(hottest, [0, 1, 2, 3]);
        assert!(top[3].recent > 1000.0 && top[4].recent < 3.0);
        assert!(top[0].cells[7] > 1000.0 && top[0].cells[6] == 0.0);
    }

    #[test]
    fn cells_fold_when_a_version_has_more_objects_than_cells() {
        let mut heat = Heat::default();
        for index in 0..100 {
            heat.read(secs(0), id(1, index), Tier::Cache, 1);
        }
        let top = heat.top(secs(0), 1);
        assert_eq!(top[0].shift, 2);
        assert_eq!(top[0].cells[..26], [[4.0; 25].as_slice(), &[0.0]].concat());
        heat.read(secs(0), id(1, u32::MAX), Tier::Cache, 1);
        assert_eq!(heat.top(secs(0), 1)[0].shift, 27);
    }

    #[test]
    fn what_is_forgotten_leaves_the_others_in_place() {
        let mut heat = Heat::default();
        for file in 0..5 {
            heat.write(secs(0), id(file, 0));
        }
        heat.forget(FileId(1));
        heat.forget(FileId(1));
        heat.read(secs(60), id(4, 0), Tier::Cache, 2_000);
        assert_eq!(heat.evidence(secs(60), FileId(1)), None);
        let known = heat.evidence(secs(60), FileId(4)).expect("tracked");
        assert_eq!(
            (known.reads, known.within_s, known.cache_us),
            (1, 60, Some(2))
        );
        assert_eq!(heat.top(secs(60), 9).len(), 4);
        assert_eq!(heat.top(secs(60), 9)[0].file, FileId(4));
    }
}
