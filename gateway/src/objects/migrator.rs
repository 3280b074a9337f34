//! Carries out what the policy proposes: promote, flush, evict, beside foreground I/O on the same objects.
//!
//! Races are settled by the residency map: a move marks its object (`Promoting`, `Flushing`, `Evicting`) and
//! looks at the mark again, under the lock, before its result counts. A version is pinned while its objects
//! move, so that `forget` takes effect after the move, and cancels what has not begun.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tiering::trace::Op;
use tiering::{Action, ActionKind, Event, FileId, ObjectId, Reason, Tier};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::cache::{Core, ObjectCache, blocking, entry_of};
use super::error::CacheError;
use super::not_moved::NotMoved;
use super::options::IoContext;
use super::residency::{Entry, State};
use super::status::Moved;
use super::store::{Mark, ObjectStore, StoreError, Stored};
use super::tree::TreeStore;
use crate::metrics::MoveResult;

/// Promotions that may wait; more are refused.
const PROMOTIONS_QUEUED_MAX: usize = 4096;
/// Files that are flushed together at most.
pub(super) const BATCH_FILES: usize = 256;
/// Bytes from which on no further file is flushed with them.
const BATCH_BYTES: u64 = 32 << 20;
/// Foreground I/Os beside which a move starts at once.
const FOREGROUND_BESIDE: usize = 1;
/// How long a move waits for foreground I/O at most.
const YIELD_MAX: Duration = Duration::from_millis(100);
/// Between two calls of the policy because the cache is over its high watermark: what it proposes may fail.
const RELIEF_PERIOD_MIN: Duration = Duration::from_millis(50);
/// How often a waiting move looks again.
const YIELD_STEP: Duration = Duration::from_millis(5);

/// What waits to be moved. Bounded: flushes and evictions by the resident objects.
#[derive(Default)]
pub(super) struct Queue {
    promotions: VecDeque<Action>,
    evictions: VecDeque<Action>,
    queued: HashSet<(ObjectId, ActionKind)>,
    flushes: BTreeMap<FileId, BTreeMap<u32, Reason>>,
    flush_order: VecDeque<FileId>,
    /// Objects in `flushes`.
    flushes_queued: u64,
}

/// Objects of one file to flush, by index: a sequential run.
pub(super) struct Run {
    pub file: FileId,
    pub objects: Vec<(u32, Reason)>,
}

/// One unit of work for the mover.
pub(super) enum Job {
    Promote(Action),
    Evict(Action),
    /// Objects of several files.
    Flush(Vec<Run>),
}

impl Queue {
    /// Queues an action; `false` when the queue is full. A queued one is not queued twice.
    pub fn push(&mut self, action: Action) -> bool {
        let Action { kind, id, reason } = action;
        match kind {
            ActionKind::Flush => {
                let run = self.flushes.entry(id.file).or_default();
                if run.is_empty() {
                    self.flush_order.push_back(id.file);
                }
                self.flushes_queued += u64::from(run.insert(id.index, reason).is_none());
                return true;
            }
            ActionKind::Promote if self.promotions.len() >= PROMOTIONS_QUEUED_MAX => return false,
            ActionKind::Promote | ActionKind::Evict => {}
        }
        if self.queued.insert((id, kind)) {
            match kind {
                ActionKind::Promote => self.promotions.push_back(action),
                ActionKind::Evict | ActionKind::Flush => self.evictions.push_back(action),
            }
        }
        true
    }

    /// Forgets what is queued for a version.
    pub fn cancel(&mut self, file: FileId) {
        if let Some(run) = self.flushes.remove(&file) {
            self.flushes_queued -= run.len() as u64;
            self.flush_order.retain(|f| *f != file);
        }
        let stays = |a: &Action| a.id.file != file;
        self.promotions.retain(stays);
        self.evictions.retain(stays);
        self.queued.retain(|(id, _)| id.file != file);
    }

    /// Room first, then safety of dirty data, then speed. At most `most` files are flushed as one.
    fn pop(&mut self, most: usize, len_of: impl Fn(ObjectId) -> u64) -> Option<Job> {
        if let Some(action) = self.evictions.pop_front() {
            self.queued.remove(&(action.id, action.kind));
            return Some(Job::Evict(action));
        }
        let bytes_of = |file: &FileId| {
            let indices = self.flushes.get(file).into_iter().flat_map(BTreeMap::keys);
            indices
                .map(|index| len_of(ObjectId::new(*file, *index)))
                .sum()
        };
        let together = batch_of(self.flush_order.iter().map(bytes_of), most);
        if together > 0 {
            let files = self.flush_order.drain(..together);
            let runs = files.map(|file| {
                let objects = self.flushes.remove(&file).unwrap_or_default();
                self.flushes_queued -= objects.len() as u64;
                Run {
                    file,
                    objects: objects.into_iter().collect(),
                }
            });
            return Some(Job::Flush(runs.collect()));
        }
        let action = self.promotions.pop_front()?;
        self.queued.remove(&(action.id, action.kind));
        Some(Job::Promote(action))
    }

    /// Forgets all that is queued.
    pub fn clear(&mut self) {
        *self = Queue::default();
    }

    /// Queued promotions, flushes, evictions.
    pub fn lengths(&self) -> [u64; 3] {
        [
            self.promotions.len() as u64,
            self.flushes_queued,
            self.evictions.len() as u64,
        ]
    }
}

/// How many files of so many bytes each, in their order, are flushed together: `most` at most.
pub(super) fn batch_of(bytes: impl Iterator<Item = u64>, most: usize) -> usize {
    let mut before = 0;
    let fits = |bytes: &u64| {
        let fits = before < BATCH_BYTES;
        before += bytes;
        fits
    };
    bytes.take(most).take_while(fits).count()
}

pub(super) fn flush_action(file: FileId, (index, reason): (u32, Reason)) -> Action {
    Action {
        kind: ActionKind::Flush,
        id: ObjectId::new(file, index),
        reason,
    }
}

impl Run {
    pub fn actions(&self) -> impl Iterator<Item = Action> {
        self.objects
            .iter()
            .map(|what| flush_action(self.file, *what))
    }
}

impl Job {
    /// What the policy waits for an answer to.
    fn actions(&self) -> Vec<Action> {
        match self {
            Job::Promote(action) | Job::Evict(action) => vec![*action],
            Job::Flush(runs) => runs.iter().flat_map(Run::actions).collect(),
        }
    }
}

/// What one step of the mover did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Objects moved.
    pub moved: u64,
    /// Moves that failed.
    pub failed: u64,
}

impl AddAssign for StepReport {
    fn add_assign(&mut self, other: StepReport) {
        self.moved += other.moved;
        self.failed += other.failed;
    }
}

/// What a complete flush did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlushReport {
    /// Files that are plain now.
    pub files: u64,
    /// Objects flushed.
    pub objects: u64,
    /// Dirty objects that could not be flushed, and files that could not be settled after it.
    pub failed: u64,
}

/// The running mover.
pub struct MigratorHandle {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl MigratorHandle {
    /// Stops after the moves under way, and waits for them.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

impl ObjectCache {
    /// Starts the mover on the current tokio runtime.
    pub fn start_migrator(self: &Arc<Self>, backing: Arc<dyn super::Backing>) -> MigratorHandle {
        self.attach_backing(backing);
        let (stop, mut stopped) = watch::channel(false);
        let purges = self.pools.as_ref().and_then(|p| p.purges.take());
        let purges =
            purges.map(|queue| tokio::spawn(self.clone().purge_all(queue, stop.subscribe())));
        self.replace_shadows(&mut self.core.lock());
        tokio::spawn(self.clone().run_shadows_until(stop.subscribe()));
        let cache = self.clone();
        let task = tokio::spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut jobs: JoinSet<StepReport> = JoinSet::new();
            let mut last_relief = Instant::now();
            loop {
                tokio::select! {
                    _ = stopped.changed() => break,
                    _ = second.tick() => {
                        cache.tick_policy();
                        cache.retry_settle().await;
                    }
                    () = cache.wake.notified() => {
                        if last_relief.elapsed() >= RELIEF_PERIOD_MIN && cache.is_over_high() {
                            last_relief = Instant::now();
                            cache.tick_policy();
                        }
                    }
                    Some(_) = jobs.join_next(), if !jobs.is_empty() => {}
                }
                let most = cache.core.lock().tuning.migrate_in_flight.max(1);
                while jobs.len() < most {
                    let Some(job) = cache.next_job() else { break };
                    let (cache, mut stopped) = (cache.clone(), stopped.clone());
                    jobs.spawn(async move {
                        // What waits for the throttle has not begun, and the next start finds what is dirty.
                        let go = tokio::select! {
                            biased;
                            _ = stopped.wait_for(|stopped| *stopped) => false,
                            () = cache.wait_for_turn(&job) => true,
                        };
                        match go {
                            true => cache.run_unthrottled(job).await,
                            false => cache.give_up(job.actions(), || NotMoved::Dropped("stopping")),
                        }
                    });
                }
            }
            while jobs.join_next().await.is_some() {}
            if let Some(purges) = purges {
                let _ = purges.await;
            }
        });
        MigratorHandle { stop, task }
    }

    fn is_over_high(&self) -> bool {
        let view = self.view(&self.core.lock());
        view.used_bytes > view.high_bytes()
    }

    fn next_job(&self) -> Option<Job> {
        let most = if self.pools.is_some() { 1 } else { BATCH_FILES };
        let mut core = self.core.lock();
        let Core {
            queue, residency, ..
        } = &mut *core;
        let len_of = |id| residency.get(id).map_or(0, |e| u64::from(e.len));
        let job = queue.pop(most, len_of);
        if let Some(Job::Promote(action)) = &job {
            core.promoting.insert(action.id);
        }
        job
    }

    /// Lets the policy act, then does all that is queued, one move at a time.
    pub async fn step(self: &Arc<Self>) -> StepReport {
        self.tick_policy();
        let mut report = StepReport::default();
        while let Some(job) = self.next_job() {
            report += self.run(job).await;
        }
        report
    }

    /// Removes every clean copy; returns how many objects left.
    pub async fn evict_all_clean(self: &Arc<Self>) -> Result<u64, CacheError> {
        let cache = self.clone();
        blocking(move || {
            let rows = cache.core.lock().residency.all();
            let mut evicted = 0;
            for (file, entry) in rows {
                if entry.state == State::Clean {
                    let action = Action {
                        kind: ActionKind::Evict,
                        id: ObjectId::new(file, entry.index),
                        reason: Reason::Drain,
                    };
                    evicted += cache.evict(action).moved;
                }
            }
            Ok(evicted)
        })
        .await
    }

    /// Sends new content to the backing tier, flushes everything and removes every clean copy: the cache
    /// tier is empty when nothing failed and nothing was being written or promoted meanwhile.
    pub async fn drain(self: &Arc<Self>) -> Result<FlushReport, CacheError> {
        self.set_write_around(true);
        let report = self.flush_all().await?;
        self.evict_all_clean().await?;
        Ok(report)
    }

    /// [`ObjectCache::drain`] beside clients; afterwards the cache is used again as before.
    pub async fn drain_running(self: &Arc<Self>) -> Result<FlushReport, CacheError> {
        /// Turns the cache on again, also when whoever asked has gone away.
        struct Again<'a>(&'a ObjectCache);
        impl Drop for Again<'_> {
            fn drop(&mut self) {
                self.0.set_write_around(false);
            }
        }
        let _again = Again(self);
        self.drain().await
    }

    async fn run(self: &Arc<Self>, job: Job) -> StepReport {
        self.wait_for_turn(&job).await;
        self.run_unthrottled(job).await
    }

    /// Answers for moves that did not come to an outcome of their own.
    fn give_up(&self, actions: Vec<Action>, why: impl Fn() -> NotMoved) -> StepReport {
        let mut report = StepReport::default();
        for action in actions {
            report += self.confirm(action, 0, Err(why()), self.recorder.now());
        }
        report
    }

    /// Waits for the throttle, and a little for clients.
    async fn wait_for_turn(&self, job: &Job) {
        let bytes = match job {
            Job::Evict(_) => 0,
            Job::Promote(_) => u64::from(self.opts.object_bytes),
            Job::Flush(runs) => {
                let core = self.core.lock();
                runs.iter()
                    .flat_map(Run::actions)
                    .filter_map(|action| core.residency.get(action.id))
                    .map(|e| u64::from(e.len))
                    .sum()
            }
        };
        if bytes > 0 {
            let wait = self.throttle.lock().take(self.recorder.now(), bytes);
            if !wait.is_zero() {
                self.metrics.throttled(wait);
                tokio::time::sleep(wait).await;
            }
            let mut waited = Duration::ZERO;
            // Where room is short, clients wait for what the move frees more than they wait beside it.
            while waited < YIELD_MAX
                && self.foreground.load(Ordering::Relaxed) > FOREGROUND_BESIDE
                && !self.is_over_high()
            {
                tokio::time::sleep(YIELD_STEP).await;
                waited += YIELD_STEP;
            }
        }
    }

    pub(super) async fn run_unthrottled(self: &Arc<Self>, job: Job) -> StepReport {
        let cache = self.clone();
        let proposed = job.actions();
        let done = blocking(move || {
            Ok(match job {
                Job::Promote(action) => cache.promote(action),
                Job::Evict(action) => cache.evict(action),
                Job::Flush(runs) => cache.flush(&runs),
            })
        })
        .await;
        self.moved.notify_waiters();
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "a move died");
            self.give_up(proposed, || NotMoved::Failed(error.to_string()))
        })
    }

    pub(super) fn confirm(
        &self,
        action: Action,
        bytes: u64,
        outcome: Result<Event, NotMoved>,
        at: tiering::Nanos,
    ) -> StepReport {
        let ok = outcome.is_ok();
        // Where a version ended meanwhile, nobody misses the move.
        let wrong = outcome.as_ref().err().is_some_and(NotMoved::is_failure)
            && !self.core.lock().is_doomed(action.id.file);
        let op = match action.kind {
            ActionKind::Promote => Op::Promote,
            ActionKind::Flush => Op::Flush,
            ActionKind::Evict => Op::Evict,
        };
        let event = outcome.unwrap_or_else(|why| {
            tracing::debug!(object = %action.id, action = %action.kind, %why, "not moved");
            if wrong {
                let now = self.recorder.now();
                self.said.lock().not_moved(now, &action, &why.to_string());
            }
            Event::Failed {
                id: action.id,
                action: action.kind,
            }
        });
        let now = self.recorder.now();
        if ok {
            self.trace_object(
                op,
                action.id,
                0,
                bytes,
                Tier::Cache,
                at,
                now.since(at).0,
                IoContext::default(),
            );
        }
        let moved = Moved {
            at: now,
            action,
            bytes,
            took: now.since(at),
            evidence: self.heat.lock().evidence(now, action.id.file),
            ok,
        };
        let mut core = self.core.lock();
        self.metrics.moved(
            action.kind,
            bytes,
            match (ok, wrong) {
                (true, _) => MoveResult::Ok,
                (false, true) => MoveResult::Failed,
                (false, false) => MoveResult::Dropped,
            },
        );
        if ok || wrong {
            core.history.add(moved);
        }
        let event = core.answer(action.kind, event);
        if !core.is_doomed(action.id.file) {
            self.event(&mut core, &event);
        }
        StepReport {
            moved: u64::from(ok),
            failed: u64::from(!ok),
        }
    }

    fn evict(&self, action: Action) -> StepReport {
        let at = self.recorder.now();
        let id = action.id;
        let object = match self.begin_eviction(id) {
            Ok(object) => object,
            Err(answer) => return self.confirm(action, 0, answer, at),
        };
        let removed = match &self.dir {
            Some(dir) => dir.remove(&object).map_err(NotMoved::from),
            None => self.remove_cached_pooled(id),
        };
        {
            let mut core = self.core.lock();
            // A forgotten version's row may be gone already.
            if core
                .residency
                .get(id)
                .is_some_and(|e| e.state == State::Evicting)
            {
                match &removed {
                    Ok(()) => {
                        core.residency.remove(id);
                    }
                    Err(_) => {
                        core.residency.set_state(id, State::Clean);
                    }
                }
            }
        }
        let outcome = removed.map(|()| Event::Evicted { id });
        self.confirm(action, u64::from(object.len), outcome, at)
    }

    /// Marks a clean object as leaving; otherwise says what the policy is told.
    fn begin_eviction(&self, id: ObjectId) -> Result<Stored, Result<Event, NotMoved>> {
        let mut core = self.core.lock();
        let unsettled = self.is_unsettled(&core, id.file);
        if unsettled {
            // Its name says at the next start that it was flushed. The rest of the version first.
            self.flush_rest(&mut core, id.file);
        }
        let Some(entry) = core.residency.get(id) else {
            return Err(Ok(Event::Evicted { id }));
        };
        if unsettled {
            return Err(Err(NotMoved::Dropped("its version has dirty objects")));
        }
        match entry.stored(id.file) {
            Some(object) if core.may_move(id, ActionKind::Evict) => {
                core.residency.set_state(id, State::Evicting);
                Ok(object)
            }
            _ => Err(Err(NotMoved::Dropped(
                "not clean, or in use by another move",
            ))),
        }
    }

    /// Whether a version's cached objects still tell which of its bytes the backing tier has.
    pub(super) fn is_unsettled(&self, core: &Core, file: FileId) -> bool {
        // In pools, each object tells for itself. A version that has lost bytes is never settled.
        self.pools.is_none()
            && (core.residency.is_dirty(file)
                || core.has_lost(file)
                || self.unsettled.lock().contains(&file))
    }

    fn flush_rest(&self, core: &mut Core, file: FileId) {
        let dirty: Vec<u32> = core
            .residency
            .rows(file)
            .iter()
            .filter(|e| e.state == State::Dirty)
            .map(|e| e.index)
            .filter(|index| core.may_move(ObjectId::new(file, *index), ActionKind::Flush))
            .collect();
        for index in dirty {
            core.queue
                .push(flush_action(file, (index, Reason::SameRun)));
        }
        self.wake.notify_one();
    }

    fn open_for_promotion(&self, file: FileId) -> io::Result<Arc<File>> {
        let (tree, dirty) = {
            let core = self.core.lock();
            let tree = core.pins.get(&file).and_then(|p| p.tree.upgrade());
            (tree, core.residency.is_dirty(file))
        };
        if let Some(tree) = tree {
            return Ok(tree);
        }
        let Some(backing) = self.backing.get() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if dirty {
            return backing.open_dirty(file);
        }
        backing
            .open_clean(file)?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn promote(&self, action: Action) -> StepReport {
        let at = self.recorder.now();
        self.pin(action.id.file, None);
        let outcome = match self.pools {
            Some(_) => self.promote_pooled(action.id),
            None => self.copy_up(action.id),
        };
        let bytes = *outcome.as_ref().unwrap_or(&0);
        let event = outcome.map(|len| Event::Promoted {
            id: action.id,
            len: len as u32,
        });
        let report = self.confirm(action, bytes, event, at);
        self.unpin(action.id.file);
        report
    }

    /// Enters a cold object as promoting, if there is room for it.
    pub(super) fn begin_promotion(&self, id: ObjectId, len: u32) -> Result<(), NotMoved> {
        let mut core = self.core.lock();
        if len == 0 || !core.may_move(id, ActionKind::Promote) {
            return Err(NotMoved::Dropped("not cold"));
        }
        if !self.fits(&core, len) {
            return Err(NotMoved::Dropped("the cache is full"));
        }
        core.residency.insert(
            id.file,
            Entry {
                index: id.index,
                len,
                crc: 0,
                state: State::Promoting,
                verified: true,
                fresh: false,
                alone: false,
            },
        );
        Ok(())
    }

    /// Enters what was copied, unless its version was dropped meanwhile; returns its bytes.
    pub(super) fn end_promotion(
        &self,
        id: ObjectId,
        copied: Result<Stored, NotMoved>,
    ) -> Result<u64, NotMoved> {
        let mut core = self.core.lock();
        let still = core
            .residency
            .get(id)
            .is_some_and(|e| e.state == State::Promoting);
        if still {
            core.residency.remove(id);
        }
        let object = copied?;
        let entry = entry_of(&object, true);
        if !still {
            drop(core);
            self.unlink(id.file, &[entry]);
            return Err(NotMoved::Dropped("its version ended meanwhile"));
        }
        core.residency.insert(id.file, entry);
        Ok(u64::from(object.len))
    }

    fn copy_up(&self, id: ObjectId) -> Result<u64, NotMoved> {
        let Some(dir) = &self.dir else {
            return Err(NotMoved::Dropped("no cache tier"));
        };
        let tree = match self.open_for_promotion(id.file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(NotMoved::Dropped("its version is gone"));
            }
            opened => opened?,
        };
        let before = tree.metadata()?;
        let len = self.object_len(before.len(), id.index);
        let empty = Stored {
            id,
            len,
            crc: 0,
            mark: Mark::Clean,
        };
        self.begin_promotion(id, len)?;
        let store = TreeStore::new(
            tree.clone(),
            self.opts.object_bytes,
            self.tree_faults.clone(),
        );
        let mut data = vec![0; len as usize];
        let mut copy = || {
            store.read_at(&empty, 0, &mut data)?;
            let object = Stored {
                crc: crc32c::crc32c(&data),
                ..empty
            };
            let after = tree.metadata().map_err(|e| StoreError::io("stat", id, e))?;
            // A reader may have opened it before somebody changed it in place.
            let still = self
                .backing
                .get()
                .map_or(Ok(true), |b| b.is_still(id.file, &tree));
            if (before.len(), before.modified().ok()) != (after.len(), after.modified().ok())
                || !still.map_err(|e| StoreError::io("look at", id, e))?
            {
                return Err(NotMoved::Dropped("its file was changed beside the gateway"));
            }
            dir.put(&object, &data, false)?;
            Ok(object)
        };
        let copied = copy();
        self.end_promotion(id, copied)
    }
}
