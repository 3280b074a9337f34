//! What all policies share: watermarks, the age of dirty data, and no eviction before a confirmed flush.
//!
//! A [`Strategy`] says what is worth promoting and who leaves first; the planner alone proposes actions.

use std::collections::{BTreeSet, hash_map};

use super::{Plan, Policy, PolicyConfig};
use crate::event::{Action, ActionKind, CacheView, Event, Reason};
use crate::objects::{Objects, Table};
use crate::types::{FileId, Nanos, ObjectId, Tier};

/// Proposed and unanswered promotions at a time.
const PROMOTIONS_MAX: usize = 256;
/// No new flush is proposed while so many are unanswered: a short plan leaves DELETE more to cancel.
const FLUSHES_MAX: usize = 512;
/// Objects of one file flushed together at most.
const RUN_MAX: usize = 64;
/// Of those that waited, so many are judged at a time at most.
const RESUMED_MAX: usize = 8;
/// A failed flush is proposed again after this time.
const RETRY: Nanos = Nanos::from_secs(10);

/// One read, as strategies see it.
pub(crate) struct Access {
    pub id: ObjectId,
    pub offset: u32,
    pub len: u32,
    pub object_len: u32,
    pub resident: bool,
    /// A promotion fits without anyone leaving.
    pub free_room: bool,
}

/// How an object came to be in the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Written,
    Moved,
}

/// What distinguishes one policy from another. The planner tells of every resident that comes and goes.
pub(crate) trait Strategy: Send {
    fn name(&self) -> &'static str;
    /// As [`Policy::configure`].
    fn configure(&mut self, config: &PolicyConfig) -> bool;
    fn takes_writes(&self) -> bool {
        true
    }
    /// Whether a new object that fits into so many free bytes should go to the cache.
    fn admits(&mut self, _now: Nanos, _len: u32, _free_bytes: u64) -> bool {
        true
    }
    /// A new object went to the backing tier.
    fn passed_by(&mut self, _now: Nanos, _id: ObjectId, _len: u32) {}
    /// Told before every event: when dirty data is flushed at the latest.
    fn dirty_age(&mut self, _most: Nanos) {}
    /// Told before every event.
    fn capacity(&mut self, _bytes: u64) {}
    /// Notes a read; for one that missed, says why it should be promoted, if it should.
    fn read(&mut self, now: Nanos, access: &Access) -> Option<Reason>;
    /// Takes out one whose promotion had to wait and need not any longer, with its length.
    fn waited(&mut self, _now: Nanos) -> Option<(ObjectId, u32)> {
        None
    }
    /// Judges anew one that waited, as [`read`](Self::read) does.
    fn resumes(&mut self, _now: Nanos, _id: ObjectId, _free_room: bool) -> Option<Reason> {
        None
    }
    fn revalidated(&mut self, now: Nanos, file: FileId);
    fn entered(&mut self, now: Nanos, id: ObjectId, len: u32, dirty: bool, origin: Origin);
    fn flushed(&mut self, _now: Nanos, _id: ObjectId) {}
    fn left(&mut self, id: ObjectId);
    /// The version is gone: nothing of it need be remembered.
    fn forgot(&mut self, _now: Nanos, _file: FileId) {}
    /// Objects of which anything is held, ghosts included: what memory grows with.
    fn remembered(&self) -> usize;
    /// Takes the next victim out of the order.
    fn pop_victim(&mut self, now: Nanos) -> Option<ObjectId>;
    /// Takes one more resident out of the order that must leave whether or not the cache is full.
    fn expel(
        &mut self,
        _now: Nanos,
        _view: &CacheView,
        _planned_bytes: u64,
    ) -> Option<(ObjectId, Reason)> {
        None
    }
}

struct Resident {
    len: u32,
    dirty: bool,
    /// Proposed and unanswered.
    pending: Option<ActionKind>,
    dirty_since: Nanos,
}

/// A strategy under the common rules.
///
/// Memory: some 60 bytes per resident here, 50 more while it is dirty; promotions in flight are bounded.
pub(crate) struct Planner<S> {
    strategy: S,
    residents: Objects<Resident>,
    /// Residents to be evicted as soon as they are clean, and why.
    leaving: Table<ObjectId, Reason>,
    /// Dirty residents without a pending flush, oldest first.
    dirty: BTreeSet<(Nanos, ObjectId)>,
    promoting: Objects<u32>,
    promoting_bytes: u64,
    leaving_bytes: u64,
    flushing: usize,
}

/// All objects that `file` can have.
pub(crate) fn objects_of(file: FileId) -> std::ops::RangeInclusive<ObjectId> {
    ObjectId::new(file, 0)..=ObjectId::new(file, u32::MAX)
}

impl<S: Strategy> Planner<S> {
    pub(crate) fn new(strategy: S) -> Self {
        Self {
            strategy,
            residents: Objects::default(),
            leaving: Table::default(),
            dirty: BTreeSet::new(),
            promoting: Objects::default(),
            promoting_bytes: 0,
            leaving_bytes: 0,
            flushing: 0,
        }
    }

    /// Bytes in use once all that is proposed has happened.
    fn planned_bytes(&self, view: &CacheView) -> u64 {
        view.used_bytes
            .saturating_add(self.promoting_bytes)
            .saturating_sub(self.leaving_bytes)
    }

    fn read(&mut self, now: Nanos, mut access: Access, view: &CacheView, out: &mut Vec<Action>) {
        let (id, len) = (access.id, access.object_len);
        access.resident = self.residents.contains(id);
        access.free_room = self.free_room(len, view);
        let reason = self.strategy.read(now, &access);
        if let Some(reason) = reason.filter(|_| !access.resident) {
            self.promote(now, id, len, reason, view, out);
        }
    }

    /// Whether so much can come without anyone leaving.
    fn free_room(&self, len: u32, view: &CacheView) -> bool {
        self.planned_bytes(view).saturating_add(u64::from(len)) <= view.low_bytes()
    }

    /// Proposes a promotion, or makes room for the next time that it is wanted.
    fn promote(
        &mut self,
        now: Nanos,
        id: ObjectId,
        len: u32,
        reason: Reason,
        view: &CacheView,
        out: &mut Vec<Action>,
    ) {
        let fits = view
            .used_bytes
            .saturating_add(self.promoting_bytes)
            .saturating_add(u64::from(len))
            <= view.capacity_bytes;
        if !fits {
            self.relieve(now, view, u64::from(len), out);
        } else if self.promoting.len() < PROMOTIONS_MAX && !self.promoting.contains(id) {
            self.promoting.insert(id, len);
            self.promoting_bytes += u64::from(len);
            out.push(Action {
                kind: ActionKind::Promote,
                id,
                reason,
            });
        }
    }

    /// Judges those that waited and need not any longer.
    fn resume(&mut self, now: Nanos, view: &CacheView, out: &mut Vec<Action>) {
        for _ in 0..RESUMED_MAX {
            let Some((id, len)) = self.strategy.waited(now) else {
                return;
            };
            if self.residents.contains(id) || self.promoting.contains(id) {
                continue;
            }
            let free_room = self.free_room(len, view);
            if let Some(reason) = self.strategy.resumes(now, id, free_room) {
                self.promote(now, id, len, reason, view, out);
            }
        }
    }

    fn enter(&mut self, now: Nanos, id: ObjectId, len: u32, dirty: bool, origin: Origin) {
        self.remove(id);
        let resident = Resident {
            len,
            dirty,
            pending: None,
            dirty_since: now,
        };
        self.residents.insert(id, resident);
        if dirty {
            self.dirty.insert((now, id));
        }
        self.strategy.entered(now, id, len, dirty, origin);
    }

    fn remove(&mut self, id: ObjectId) {
        let Some(resident) = self.residents.remove(id) else {
            return;
        };
        self.dirty.remove(&(resident.dirty_since, id));
        self.flushing -= usize::from(resident.pending == Some(ActionKind::Flush));
        if self.leaving.remove(&id).is_some() {
            self.leaving_bytes -= u64::from(resident.len);
        }
        self.strategy.left(id);
    }

    fn promotion_over(&mut self, id: ObjectId) -> Option<u32> {
        let len = self.promoting.remove(id)?;
        self.promoting_bytes -= u64::from(len);
        Some(len)
    }

    fn deleted(&mut self, now: Nanos, file: FileId) {
        let gone: Vec<ObjectId> = self.residents.of_file(file).map(|(id, _)| id).collect();
        gone.into_iter().for_each(|id| self.remove(id));
        for (_, len) in self.promoting.remove_file(file) {
            self.promoting_bytes -= u64::from(len);
        }
        self.strategy.forgot(now, file);
    }

    fn flushed(&mut self, now: Nanos, id: ObjectId, out: &mut Vec<Action>) {
        // A second answer finds it clean: were it heeded, its eviction would be proposed twice.
        let Some(resident) = self.residents.get_mut(id).filter(|r| r.dirty) else {
            return;
        };
        self.dirty.remove(&(resident.dirty_since, id));
        self.flushing -= usize::from(resident.pending == Some(ActionKind::Flush));
        resident.dirty = false;
        resident.pending = None;
        self.strategy.flushed(now, id);
        if let Some(reason) = self.leaving.get(&id).copied() {
            resident.pending = Some(ActionKind::Evict);
            out.push(Action {
                kind: ActionKind::Evict,
                id,
                reason,
            });
        }
    }

    fn failed(&mut self, now: Nanos, id: ObjectId, action: ActionKind, view: &CacheView) {
        if action == ActionKind::Promote {
            self.promotion_over(id);
            return;
        }
        let Some(resident) = self
            .residents
            .get_mut(id)
            .filter(|r| r.pending == Some(action))
        else {
            return;
        };
        resident.pending = None;
        if action == ActionKind::Flush {
            self.flushing -= 1;
            resident.dirty_since = now.plus(RETRY).since(view.max_dirty_age);
            self.dirty.insert((resident.dirty_since, id));
        }
        if self.leaving.remove(&id).is_some() {
            self.leaving_bytes -= u64::from(resident.len);
            let (len, dirty) = (resident.len, resident.dirty);
            self.strategy.entered(now, id, len, dirty, Origin::Moved);
        }
    }

    /// Proposes to flush `first` and what follows it in its file, at `most` so many.
    fn flush_run(&mut self, first: ObjectId, most: usize, reason: Reason, out: &mut Vec<Action>) {
        for (id, resident) in self
            .residents
            .starting_at_mut(first)
            .filter(|(_, r)| r.dirty && r.pending.is_none())
            .take(most)
        {
            self.dirty.remove(&(resident.dirty_since, id));
            resident.pending = Some(ActionKind::Flush);
            self.flushing += 1;
            let reason = if id == first { reason } else { Reason::SameRun };
            out.push(Action {
                kind: ActionKind::Flush,
                id,
                reason,
            });
        }
    }

    /// Sends a resident, already out of the strategy's order, down: a dirty one is flushed first.
    fn demote(&mut self, id: ObjectId, reason: Reason, out: &mut Vec<Action>) {
        let Some(resident) = self.residents.get_mut(id) else {
            return;
        };
        let hash_map::Entry::Vacant(place) = self.leaving.entry(id) else {
            return;
        };
        place.insert(reason);
        self.leaving_bytes += u64::from(resident.len);
        match (resident.dirty, resident.pending) {
            (false, None) => {
                resident.pending = Some(ActionKind::Evict);
                out.push(Action {
                    kind: ActionKind::Evict,
                    id,
                    reason,
                });
            }
            // It alone: what follows may be deleted before it is due.
            (true, None) => self.flush_run(id, 1, reason, out),
            (_, Some(_)) => {}
        }
    }

    /// Over the high watermark, makes victims leave until the low one is planned.
    fn relieve(&mut self, now: Nanos, view: &CacheView, wanted: u64, out: &mut Vec<Action>) {
        while self.flushing < FLUSHES_MAX {
            let planned_bytes = self.planned_bytes(view);
            let Some((id, reason)) = self.strategy.expel(now, view, planned_bytes) else {
                break;
            };
            self.demote(id, reason, out);
        }
        let used_bytes = self.planned_bytes(view).saturating_add(wanted);
        let reason = Reason::Watermark {
            used_bytes,
            high_bytes: view.high_bytes(),
        };
        if used_bytes <= view.high_bytes() {
            return;
        }
        while self.planned_bytes(view) > view.low_bytes() && self.flushing < FLUSHES_MAX {
            let Some(id) = self.strategy.pop_victim(now) else {
                break;
            };
            self.demote(id, reason, out);
        }
    }

    fn flush_aged(&mut self, now: Nanos, view: &CacheView, out: &mut Vec<Action>) {
        let from = out.len();
        while self.flushing < FLUSHES_MAX {
            let Some(&(since, id)) = self.dirty.first() else {
                break;
            };
            let age = now.since(since);
            if age < view.max_dirty_age {
                break;
            }
            self.flush_run(
                id,
                RUN_MAX,
                Reason::DirtyAge {
                    age_ms: age.as_millis(),
                },
                out,
            );
        }
        out[from..].sort_by_key(|action| action.id);
    }
}

impl<S: Strategy> Policy for Planner<S> {
    fn name(&self) -> &'static str {
        self.strategy.name()
    }

    fn place_write(&mut self, now: Nanos, _: ObjectId, len: u32, view: &CacheView) -> Tier {
        let used_bytes = view.used_bytes.saturating_add(self.promoting_bytes);
        let free_bytes = view.capacity_bytes.saturating_sub(used_bytes);
        if self.strategy.takes_writes()
            && u64::from(len) <= free_bytes
            && self.strategy.admits(now, len, free_bytes)
        {
            Tier::Cache
        } else {
            Tier::Backing
        }
    }

    fn on_event(&mut self, now: Nanos, event: &Event, view: &CacheView, out: &mut Vec<Action>) {
        self.strategy.capacity(view.capacity_bytes);
        self.strategy.dirty_age(view.max_dirty_age);
        match *event {
            Event::Read {
                id,
                offset,
                len,
                object_len,
                served: _,
            } => {
                let access = Access {
                    id,
                    offset,
                    len,
                    object_len,
                    resident: false,
                    free_room: false,
                };
                self.read(now, access, view, out);
            }
            Event::Revalidated { file, .. } => self.strategy.revalidated(now, file),
            Event::Written {
                id,
                len,
                placed: Tier::Cache,
            } => self.enter(now, id, len, true, Origin::Written),
            Event::Written {
                id,
                len,
                placed: Tier::Backing,
            } => self.strategy.passed_by(now, id, len),
            Event::Deleted { file, .. } => self.deleted(now, file),
            Event::Promoted { id, .. } => {
                let len = self.promotion_over(id);
                // Never over a resident: it may be dirty, and the cache's only copy is not forgotten.
                if let Some(len) = len.filter(|_| !self.residents.contains(id)) {
                    self.enter(now, id, len, false, Origin::Moved);
                }
            }
            Event::Flushed { id } => self.flushed(now, id, out),
            Event::Evicted { id } => self.remove(id),
            Event::Failed { id, action } => self.failed(now, id, action, view),
            Event::Restored { id, len, dirty } => self.enter(now, id, len, dirty, Origin::Moved),
        }
        // After a failure the next tick tries again, not this call: a victim that cannot leave must not spin.
        if !matches!(event, Event::Failed { .. }) {
            self.resume(now, view, out);
            self.relieve(now, view, 0, out);
        }
    }

    fn tick(&mut self, now: Nanos, view: &CacheView, out: &mut Vec<Action>) {
        self.flush_aged(now, view, out);
        self.resume(now, view, out);
        self.relieve(now, view, 0, out);
    }

    fn configure(&mut self, config: &PolicyConfig) -> bool {
        self.strategy.configure(config)
    }

    fn plan(&self) -> Plan {
        let pending = |kind| {
            let of_kind = self
                .residents
                .iter()
                .filter(|(_, r)| r.pending == Some(kind));
            of_kind.count() as u64
        };
        Plan {
            residents: self.residents.len() as u64,
            promotions: self.promoting.len() as u64,
            flushes: pending(ActionKind::Flush),
            evictions: pending(ActionKind::Evict),
            promoting_bytes: self.promoting_bytes,
            leaving_bytes: self.leaving_bytes,
            remembered: self.strategy.remembered() as u64,
        }
    }
}
