//! Dirty to clean: what is only in the cache goes to its plain files.
//!
//! Objects of many files are written first and synced together: on a disk, a sync costs as much as many small files do.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tiering::{Action, ActionKind, Event, FileId, Nanos, ObjectId, Reason};

use super::cache::{ObjectCache, blocking};
use super::error::CacheError;
use super::file_system_sync::{FileSystemSync, Writes};
use super::migrator::{BATCH_FILES, FlushReport, Job, Run, StepReport, batch_of};
use super::not_moved::NotMoved;
use super::residency::{Entry, State};
use super::store::{ObjectStore, StoreError, Stored, read_verified};
use super::tree::TreeStore;

/// Bytes written before they are synced.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;

/// Files that are written and not yet synced.
#[derive(Default)]
struct Batch {
    /// Where all of it can be synced at once.
    together: Option<Writes>,
    stores: Vec<(FileId, TreeStore)>,
    /// With the place of its file in `stores`.
    written: Vec<(Action, Stored, usize)>,
    bytes: u64,
}

impl Batch {
    /// What became of the bytes of each file.
    fn sync(&self, cache: &ObjectCache) -> Vec<Result<(), NotMoved>> {
        if self.written.is_empty() {
            return Vec::new();
        }
        if let Some(together) = &self.together {
            let synced = cache.sync_together(together);
            return vec![synced.map_err(NotMoved::from); self.stores.len()];
        }
        let synced = self.stores.iter().map(|(_, store)| store.sync());
        synced.map(|s| s.map_err(NotMoved::from)).collect()
    }
}

impl ObjectCache {
    /// Flushes everything that is dirty now; what is written meanwhile may stay dirty.
    pub async fn flush_all(self: &Arc<Self>) -> Result<FlushReport, CacheError> {
        if !self.has_cache() {
            return Ok(FlushReport::default());
        }
        if self.backing.get().is_none() {
            return Err(CacheError::NoBacking);
        }
        let mut report = FlushReport::default();
        let files = self.dirty_files();
        let mut next = 0;
        while next < files.len() {
            let dirty = files[next..].iter().map(|file| self.dirty_bytes(*file));
            let until = next + batch_of(dirty, BATCH_FILES);
            self.flush_files(&files[next..until], &mut report).await;
            next = until;
        }
        report.failed += self.retry_settle().await;
        let core = self.core.lock();
        for file in files {
            let rows = core.residency.rows(file);
            match rows.iter().filter(|e| e.is_dirty()).count() {
                0 if self.is_unsettled(&core, file) => {}
                0 => report.files += 1,
                _ if core.is_doomed(file) => {}
                n => report.failed += n as u64,
            }
        }
        // What vanished from the cache is in no row of the map.
        report.failed += core.gone().len() as u64;
        Ok(report)
    }

    fn dirty_bytes(&self, file: FileId) -> u64 {
        let core = self.core.lock();
        let dirty = core.residency.rows(file).iter().filter(|e| e.is_dirty());
        dirty.map(|e| u64::from(e.len)).sum()
    }

    /// Until nothing of `files` is dirty but what could not be flushed.
    async fn flush_files(self: &Arc<Self>, files: &[FileId], report: &mut FlushReport) {
        let mut given_up = HashSet::new();
        loop {
            let moved = self.moved.notified();
            let mut runs = Vec::new();
            let mut flushing = false;
            {
                let core = self.core.lock();
                for &file in files.iter().filter(|file| !given_up.contains(*file)) {
                    let rows: &[Entry] = core.residency.rows(file);
                    flushing |= rows.iter().any(|e| e.state == State::Flushing);
                    let dirty = rows.iter().filter(|e| e.state == State::Dirty);
                    let objects: Vec<_> = dirty.map(|e| (e.index, Reason::Drain)).collect();
                    if !objects.is_empty() {
                        runs.push(Run { file, objects });
                    }
                }
            }
            if runs.is_empty() {
                if !flushing {
                    return;
                }
                // The mover has the rest in hand.
                let _ = tokio::time::timeout(Duration::from_secs(1), moved).await;
                continue;
            }
            let tried: Vec<FileId> = runs.iter().map(|run| run.file).collect();
            let done = self.run_unthrottled(Job::Flush(runs)).await;
            report.objects += done.moved;
            if done.failed > 0 || done.moved == 0 {
                let core = self.core.lock();
                let dirty = |file: &FileId| {
                    let mut rows = core.residency.rows(*file).iter();
                    rows.any(|e| e.state == State::Dirty)
                };
                given_up.extend(tried.into_iter().filter(dirty));
            }
        }
    }

    /// Flushes each run in order, syncs what was written, then makes it clean.
    pub(super) fn flush(&self, runs: &[Run]) -> StepReport {
        if self.pools.is_some() {
            return runs.iter().fold(StepReport::default(), |mut all, run| {
                all += self.flush_pooled(run.file, &run.objects);
                all
            });
        }
        let at = self.recorder.now();
        let mut report = StepReport::default();
        let mut batch = self.batch();
        for run in runs {
            let file = run.file;
            self.pin(file, None);
            self.unsettled.lock().insert(file);
            let tree = self
                .backing
                .get()
                .ok_or_else(|| io::ErrorKind::NotConnected.into())
                .and_then(|b| b.open_dirty(file));
            let store = match tree {
                Ok(tree) => TreeStore::new(tree, self.opts.object_bytes, self.tree_faults.clone()),
                Err(error) => {
                    // A version that a client has just ended is nobody's trouble.
                    let why = match self.has_ended(run) {
                        true => NotMoved::Dropped("nothing of its file is dirty any more"),
                        false => NotMoved::Failed(format!("open its file: {error}")),
                    };
                    for action in run.actions() {
                        report += self.confirm(action, 0, Err(why.clone()), at);
                    }
                    self.settle(&[file]);
                    continue;
                }
            };
            batch.stores.push((file, store.clone()));
            for action in run.actions() {
                match self.copy_down(&store, action.id) {
                    Ok(object) => {
                        batch.bytes += u64::from(object.len);
                        let place = batch.stores.len() - 1;
                        batch.written.push((action, object, place));
                    }
                    Err(why) => report += self.confirm(action, 0, Err(why), at),
                }
                if batch.bytes >= UNSYNCED_BYTES_MAX {
                    let full = std::mem::replace(&mut batch, self.batch());
                    batch.stores.push((file, store.clone()));
                    report += self.end_batch(&full, at);
                }
            }
        }
        report += self.end_batch(&batch, at);
        for run in runs {
            self.unpin(run.file);
        }
        report
    }

    /// Whether none of a run's objects is to be flushed any more: the version has ended, or is settled.
    fn has_ended(&self, run: &Run) -> bool {
        let core = self.core.lock();
        let dirty = |action: Action| core.may_move(action.id, ActionKind::Flush);
        !run.actions().any(dirty)
    }

    fn batch(&self) -> Batch {
        Batch {
            together: self.begin_together(),
            ..Batch::default()
        }
    }

    /// To be called before the first write to the tree that [`ObjectCache::sync_together`] is to cover, if there is such a sync.
    pub(super) fn begin_together(&self) -> Option<Writes> {
        let together = self.backing.get().and_then(|b| b.file_system_sync());
        together.map(FileSystemSync::begin)
    }

    /// Makes what was written to the tree since durable, together with what others wrote. Blocks.
    pub(super) fn sync_together(&self, writes: &Writes) -> io::Result<()> {
        self.tree_faults.before_sync()?;
        Ok(writes.sync()?)
    }

    /// Makes what was written durable, then clean. The policy is told when the files are settled: it may want what was flushed
    /// to leave, and until then it must stay.
    fn end_batch(&self, batch: &Batch, at: Nanos) -> StepReport {
        let synced = batch.sync(self);
        let mut done = Vec::with_capacity(batch.written.len());
        for (action, object, place) in &batch.written {
            let marked = match synced.get(*place) {
                Some(Ok(())) => self.mark_clean(object),
                // What the kernel kept of the writes is unknown: all of it again, later.
                Some(Err(why)) => Err(why.clone()),
                None => Err(NotMoved::Failed("not synced".to_owned())),
            };
            done.push((
                *action,
                object.len,
                self.end_flush(object.id, marked, false),
            ));
        }
        let files: Vec<FileId> = batch.stores.iter().map(|(file, _)| *file).collect();
        self.settle(&files);
        done.into_iter()
            .fold(StepReport::default(), |mut all, (action, len, event)| {
                all += self.confirm(action, u64::from(len), event, at);
                all
            })
    }

    /// Marks a dirty object as being flushed.
    pub(super) fn begin_flush(&self, id: ObjectId) -> Result<Stored, NotMoved> {
        let mut core = self.core.lock();
        if !core.may_move(id, ActionKind::Flush) {
            return Err(NotMoved::Dropped("not dirty"));
        }
        let object = core.residency.get(id).and_then(|e| e.stored(id.file));
        core.residency.set_state(id, State::Flushing);
        object.ok_or(NotMoved::Dropped("not dirty"))
    }

    /// The object is clean, or dirty again. `lost`: its bytes are gone.
    pub(super) fn end_flush(
        &self,
        id: ObjectId,
        flushed: Result<(), NotMoved>,
        lost: bool,
    ) -> Result<Event, NotMoved> {
        let state = match flushed {
            Ok(()) => State::Clean,
            Err(_) => State::Dirty,
        };
        let mut core = self.core.lock();
        core.residency.set_state(id, state);
        if lost {
            tracing::error!(object = %id, "a dirty object is damaged: its bytes are lost");
            core.damaged.insert(id);
        }
        flushed.map(|()| Event::Flushed { id })
    }

    fn copy_down(&self, store: &TreeStore, id: ObjectId) -> Result<Stored, NotMoved> {
        let Some(dir) = &self.dir else {
            return Err(NotMoved::Dropped("no cache tier"));
        };
        let object = self.begin_flush(id)?;
        let copied = read_verified(dir, &object).and_then(|data| store.put(&object, &data, false));
        copied.map(|()| object).map_err(|e| {
            let lost = matches!(e, StoreError::Damaged { .. } | StoreError::NotFound { .. });
            let why = NotMoved::from(e);
            // The answer to the policy is the caller's.
            let _ = self.end_flush(id, Err(why.clone()), lost);
            why
        })
    }

    fn mark_clean(&self, object: &Stored) -> Result<(), NotMoved> {
        let Some(dir) = &self.dir else {
            return Err(NotMoved::Dropped("no cache tier"));
        };
        Ok(dir.mark_clean(object)?)
    }

    /// Ends the dirty time of those versions of which nothing is dirty, or lost, any more. Returns for how many that failed.
    fn settle(&self, files: &[FileId]) -> u64 {
        let mut whole = Vec::with_capacity(files.len());
        {
            let core = self.core.lock();
            for &file in files {
                if core.is_doomed(file) {
                    self.unsettled.lock().remove(&file);
                } else if !core.residency.is_dirty(file) && !core.has_lost(file) {
                    whole.push(file);
                }
            }
        }
        let Some(backing) = self.backing.get() else {
            return whole.len() as u64;
        };
        let settled = backing.settle(&whole);
        let mut unsettled = self.unsettled.lock();
        let mut failed = 0;
        for (file, settled) in whole.into_iter().zip(settled) {
            match settled {
                Ok(()) => {
                    unsettled.remove(&file);
                }
                Err(error) => {
                    tracing::warn!(%file, %error, "cannot settle a flushed file; tried again");
                    failed += 1;
                }
            }
        }
        failed
    }

    /// Settles again what could not be settled. Returns for how many files that failed once more.
    pub(super) async fn retry_settle(self: &Arc<Self>) -> u64 {
        let files: Vec<FileId> = self.unsettled.lock().iter().copied().collect();
        if files.is_empty() {
            return 0;
        }
        let (cache, tried) = (self.clone(), files.len() as u64);
        let settle = move || Ok(cache.settle(&files));
        blocking(settle).await.unwrap_or_else(|error| {
            tracing::error!(%error, "settling died");
            tried
        })
    }
}
