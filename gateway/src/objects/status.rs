//! What `tierdav status` shows of the object cache.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tiering::{Action, FileId, Nanos, Reason, Tier};

use super::cache::ObjectCache;
use super::heat::{CELLS, Evidence, HotVersion};
use super::options::CacheOptions;
use super::pools::PoolSpace;
use super::residency::{Amount, Entry, State};
use crate::config::{human_micros, human_size};

/// Actions kept for the status.
const RECENT_MAX: usize = 32;

/// The object cache at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Whether there is a cache tier.
    pub enabled: bool,
    /// The policy's name.
    pub policy: String,
    /// Bytes that the cache tier may hold.
    pub capacity_bytes: u64,
    /// Bytes in it, reservations included.
    pub used_bytes: u64,
    /// Objects in both tiers.
    pub clean: Amount,
    /// Objects only in the cache tier.
    pub dirty: Amount,
    /// Bytes reserved by writes under way.
    pub staged_bytes: u64,
    /// Dirty objects whose bytes are lost.
    pub damaged_objects: u64,
    /// Reads of cached or backing objects that found damage, since the start.
    pub damage_found: u64,
    /// Part of the object reads that the cache tier served, since the start.
    pub hit_ratio: f64,
    /// Part of the bytes read that the cache tier served, since the start.
    pub byte_hit_ratio: f64,
    /// Moves queued.
    pub queued_promotions: u64,
    /// Moves queued.
    pub queued_flushes: u64,
    /// Moves queued.
    pub queued_evictions: u64,
    /// Totals since the start.
    pub promoted: Amount,
    /// Totals since the start.
    pub flushed: Amount,
    /// Totals since the start.
    pub evicted: Amount,
    /// Dirty objects that went with their resource, deleted or overwritten: the backing tier never had their bytes. At
    /// least so many: those that were dirty at the start, or changed in part later, are not counted.
    #[serde(default)]
    pub spared: Amount,
    /// Moves that failed, since the start.
    pub failed_moves: u64,
    /// Cache-tier writes that went to the backing tier instead, since the start.
    pub cache_write_errors: u64,
    /// Memory of the residency map.
    pub map_bytes: u64,
    /// Seconds since the oldest dirty data was written.
    pub oldest_dirty_s: u64,
    /// The last moves, newest last.
    pub recent: Vec<RecentAction>,
}

/// A move that was done, or failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecentAction {
    /// When it ended, in milliseconds since the gateway started.
    pub at_ms: u64,
    /// `promote`, `flush` or `evict`.
    pub action: String,
    /// With which object.
    pub object: String,
    /// The version that the object is part of.
    pub file: FileId,
    /// The resource, if its path is still remembered and it still is there.
    pub path: Option<String>,
    /// Bytes moved.
    pub bytes: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Why, in words.
    pub reason: String,
    /// What was known of the version's reads, if it was among the most used.
    pub evidence: Option<Evidence>,
    /// Whether it was done.
    pub ok: bool,
}

/// A version that clients use much.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HotFile {
    /// The version.
    pub file: FileId,
    /// The resource, if its path is still remembered and it still is there.
    pub path: Option<String>,
    /// Bytes in it; 0 when unknown.
    pub bytes: u64,
    /// Object reads and writes by clients, each counting half after ten minutes.
    pub recent_uses: f64,
    /// Object reads since it is in the table of the most used.
    pub reads: u64,
    /// Object writes since then.
    pub writes: u64,
    /// Seconds since the last use.
    pub idle_s: u64,
    /// How its reads went.
    pub evidence: Evidence,
    /// Its objects by state.
    pub objects: HotObjects,
    /// Its objects in order, in at most [`CELLS`] parts of equal size.
    pub cells: Vec<Cell>,
}

/// Objects of one version by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotObjects {
    /// Only in the backing tier.
    pub cold: u64,
    /// In both tiers.
    pub clean: u64,
    /// Only in the cache tier.
    pub dirty: u64,
    /// Being promoted or evicted.
    pub moving: u64,
}

impl HotObjects {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.cold + self.clean + self.dirty + self.moving
    }
}

/// Neighbouring objects of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// By state.
    pub objects: HotObjects,
    /// Recent uses.
    pub uses: f32,
}

/// One finished move.
pub(super) struct Moved {
    pub at: Nanos,
    pub action: Action,
    pub bytes: u64,
    pub took: Nanos,
    pub evidence: Option<Evidence>,
    pub ok: bool,
}

/// The last moves and the totals.
#[derive(Default)]
pub(super) struct History {
    recent: VecDeque<Moved>,
    pub done: [Amount; 3],
    pub failed: u64,
}

impl History {
    pub fn add(&mut self, moved: Moved) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        if moved.ok {
            let total = &mut self.done[moved.action.kind as usize];
            total.objects += 1;
            total.bytes += moved.bytes;
        } else {
            self.failed += 1;
        }
        self.recent.push_back(moved);
    }
}

/// Why something moved, for people.
fn words(reason: Reason) -> String {
    match reason {
        Reason::FirstRead => "first read: this policy promotes at once".into(),
        Reason::Recency { periods } => format!("used in each of the last {periods} periods"),
        Reason::HeadTime { spent_us, cost_us } => format!(
            "its reads have cost the backing tier {}, moving it costs {}",
            human_micros(spent_us),
            human_micros(cost_us)
        ),
        Reason::DirtyAge { age_ms } => {
            format!("dirty for {}", human_micros(age_ms.saturating_mul(1000)))
        }
        Reason::SameRun => "beside an object of its file that had to be flushed".into(),
        Reason::Watermark {
            used_bytes,
            high_bytes,
        } => format!(
            "cache filled to {}, above its high watermark of {}",
            human_size(used_bytes),
            human_size(high_bytes)
        ),
        Reason::Room {
            used_bytes,
            most_bytes,
        } => format!(
            "cache filled to {}, room is made from {}",
            human_size(used_bytes),
            human_size(most_bytes)
        ),
        Reason::NotWanted => "this policy keeps nothing in the cache".into(),
        Reason::Drain => "the cache is being drained".into(),
    }
}

impl ObjectCache {
    /// The object cache at this moment.
    pub fn status(&self) -> CacheStatus {
        let count = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        let ratio = |part: u64, rest: u64| match part + rest {
            0 => 0.0,
            all => part as f64 / all as f64,
        };
        let c = &self.counts;
        let core = self.core.lock();
        let view = self.view(&core);
        let queued = core.queue.lengths();
        CacheStatus {
            enabled: self.has_cache(),
            policy: core.policy.name().to_owned(),
            capacity_bytes: view.capacity_bytes,
            used_bytes: view.used_bytes,
            clean: core.residency.clean(),
            dirty: core.residency.dirty(),
            staged_bytes: core.staged_bytes,
            damaged_objects: core.damaged.len() as u64,
            damage_found: count(&c.damaged),
            hit_ratio: ratio(count(&c.reads_cache), count(&c.reads_backing)),
            byte_hit_ratio: ratio(count(&c.read_cache_bytes), count(&c.read_backing_bytes)),
            queued_promotions: queued[0],
            queued_flushes: queued[1],
            queued_evictions: queued[2],
            promoted: core.history.done[0],
            flushed: core.history.done[1],
            evicted: core.history.done[2],
            spared: {
                let (objects, bytes) = self.metrics.spared_total();
                Amount { objects, bytes }
            },
            failed_moves: core.history.failed,
            cache_write_errors: count(&c.cache_write_errors),
            map_bytes: core.residency.memory_bytes() as u64,
            oldest_dirty_s: core.residency.oldest_dirty().as_secs(),
            recent: core
                .history
                .recent
                .iter()
                .map(|m| RecentAction {
                    at_ms: m.at.as_millis(),
                    action: m.action.kind.to_string(),
                    object: m.action.id.to_string(),
                    file: m.action.id.file,
                    path: None,
                    bytes: m.bytes,
                    took_us: m.took.0 / 1000,
                    reason: words(m.action.reason),
                    evidence: m.evidence,
                    ok: m.ok,
                })
                .collect(),
        }
    }

    /// The versions that clients used most, hottest first. `find` tells path and length of each; it may block, and is
    /// asked without any lock held.
    pub fn hot(
        &self,
        count: usize,
        find: impl Fn(FileId) -> Option<(String, u64)>,
    ) -> Vec<HotFile> {
        let now = self.recorder.now();
        let top = self.heat.lock().top(now, count);
        let describe = |version: HotVersion| {
            let found = find(version.file);
            let bytes = found.as_ref().map_or(0, |(_, len)| *len);
            let rows = self.core.lock().residency.rows(version.file).to_vec();
            let cells = cells_of(&version, &rows, self.objects_in(bytes));
            let mut objects = HotObjects::default();
            for cell in &cells {
                objects.cold += cell.objects.cold;
                objects.clean += cell.objects.clean;
                objects.dirty += cell.objects.dirty;
                objects.moving += cell.objects.moving;
            }
            HotFile {
                file: version.file,
                path: found.map(|(path, _)| path),
                bytes,
                recent_uses: version.recent,
                reads: version.reads,
                writes: version.writes,
                idle_s: now.since(version.last_use).as_millis() / 1000,
                evidence: version.evidence,
                objects,
                cells,
            }
        };
        top.into_iter().map(describe).collect()
    }

    /// Asks a pool for its space, if content is in pools. `None`: there is no such pool.
    pub fn pool_space(
        &self,
        tier: Tier,
    ) -> Option<impl Future<Output = Result<PoolSpace, String>> + use<>> {
        let pools = self.pools().cloned()?;
        (tier == Tier::Backing || pools.has_cache()).then_some(async move {
            match tokio::task::spawn_blocking(move || pools.space(tier)).await {
                Ok(asked) => asked.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            }
        })
    }

    /// What it was opened with. What of this may change is in [`ObjectCache::tuning`].
    pub fn options(&self) -> &CacheOptions {
        &self.opts
    }
}

/// A version's objects, in as many cells as the heat has, or fewer. `known` objects are in its resource.
fn cells_of(version: &HotVersion, rows: &[Entry], known: u32) -> Vec<Cell> {
    let cached = rows.last().map_or(0, |e| e.index.saturating_add(1));
    let used = version
        .cells
        .iter()
        .rposition(|heat| *heat > 0.0)
        .map_or(0, |last| (last as u64) << version.shift);
    let count = u64::from(known.max(cached)).max(used + 1);
    let mut shift = version.shift;
    while count.div_ceil(1 << shift) > CELLS as u64 {
        shift += 1;
    }
    let per_cell = 1_u64 << shift;
    let mut cells = vec![Cell::default(); count.div_ceil(per_cell) as usize];
    for (i, cell) in cells.iter_mut().enumerate() {
        cell.objects.cold = per_cell.min(count - i as u64 * per_cell);
    }
    for (i, heat) in version.cells.iter().enumerate() {
        if let Some(cell) = cells.get_mut(i >> (shift - version.shift)) {
            cell.uses += heat;
        }
    }
    for row in rows {
        let Some(cell) = cells.get_mut((row.index >> shift) as usize) else {
            continue;
        };
        cell.objects.cold = cell.objects.cold.saturating_sub(1);
        match row.state {
            State::Clean => cell.objects.clean += 1,
            State::Dirty | State::Flushing => cell.objects.dirty += 1,
            State::Promoting | State::Evicting => cell.objects.moving += 1,
        }
    }
    cells
}
