//! What `tierdav status` shows of the object cache.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tiering::{Action, Nanos};

use super::cache::ObjectCache;
use super::residency::Amount;

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
    /// Moves that failed, since the start.
    pub failed_moves: u64,
    /// Cache-tier writes that went to the backing tier instead, since the start.
    pub cache_write_errors: u64,
    /// Memory of the residency map.
    pub map_bytes: u64,
    /// The last moves, newest last.
    pub recent: Vec<RecentAction>,
}

/// A move that was done, or failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecentAction {
    /// When, in milliseconds since the gateway started.
    pub at_ms: u64,
    /// What.
    pub action: String,
    /// With which object.
    pub object: String,
    /// Why.
    pub reason: String,
    /// Whether it was done.
    pub ok: bool,
}

/// The last moves and the totals.
#[derive(Default)]
pub(super) struct History {
    recent: VecDeque<(Nanos, Action, bool)>,
    pub done: [Amount; 3],
    pub failed: u64,
}

impl History {
    pub fn add(&mut self, now: Nanos, action: Action, bytes: u64, ok: bool) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, action, ok));
        if ok {
            let total = &mut self.done[action.kind as usize];
            total.objects += 1;
            total.bytes += bytes;
        } else {
            self.failed += 1;
        }
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
            failed_moves: core.history.failed,
            cache_write_errors: count(&c.cache_write_errors),
            map_bytes: core.residency.memory_bytes() as u64,
            recent: core
                .history
                .recent
                .iter()
                .map(|(at, action, ok)| RecentAction {
                    at_ms: at.as_millis(),
                    action: action.kind.to_string(),
                    object: action.id.to_string(),
                    reason: action.reason.to_string(),
                    ok: *ok,
                })
                .collect(),
        }
    }
}
