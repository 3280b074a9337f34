//! The removal of versions from pools: a queue behind the requests, and what keeps it from growing for ever.
//!
//! Removals let requests go first, since both want the same OSDs. So uploads over the same names can make versions faster than
//! the old ones go, whose objects take room that nothing counts. Three rules bound that: few removals run at once while few wait;
//! more when more wait; and when far too many wait, each upload waits until one has gone.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tiering::{Event, FileId, ObjectId, Tier};
use tokio::sync::{Notify, mpsc};

use super::cache::ObjectCache;
use super::error::CacheError;
use super::pools::PoolError;
use super::residency::Entry;

/// Removals under way at once.
const REMOVED_AT_ONCE: usize = 16;
/// Versions that are removed at once: few, since requests want the same OSDs.
const PURGES_AT_ONCE: usize = 4;
/// As long as no more than this wait. Their objects take room in the pools that nothing counts.
const PURGE_BACKLOG: usize = 4096;
/// Versions that are removed at once when more wait.
const PURGES_AT_ONCE_BEHIND: usize = 32;
/// As long as no more than this wait, uploads do not wait for removals.
const PURGE_WAITING_MAX: usize = 65_536;
/// Longest wait of an upload for a removal. Where none is done for so long, the pools do not answer.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Versions whose placeholders are removed together.
const PURGED_TOGETHER: usize = 64;
/// After so many absent objects in a row, an unfinished version has no more: more than one upload has under way.
const ABSENT_ENDS: u32 = 64;
/// Until a failed removal is tried again.
const PURGE_RETRY: Duration = Duration::from_secs(5);

/// How long a version that is to be removed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many bytes.
    Whole(u64),
    /// An upload that came to nothing. Objects may be anywhere in so many bytes, and one after the other behind them.
    Unfinished(u64),
    /// An upload that was given up, when no more than so many objects, from the first, were begun.
    Begun(u32),
}

/// A version to be removed from the pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purge {
    pub file: FileId,
    pub extent: Extent,
    /// The data pool never had any object of it.
    pub alone: bool,
}

impl Purge {
    /// Its first object, to name it by.
    fn first(&self) -> ObjectId {
        ObjectId::new(self.file, 0)
    }
}

/// Versions that wait for their removal. That there are any, and which, is in the core (`purging`).
pub(super) struct PurgeQueue {
    sender: mpsc::UnboundedSender<Purge>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Purge>>>,
    /// Told of each removal while uploads may wait for one.
    removed: Notify,
}

impl Default for PurgeQueue {
    fn default() -> PurgeQueue {
        let (sender, receiver) = mpsc::unbounded_channel();
        PurgeQueue {
            sender,
            receiver: Mutex::new(Some(receiver)),
            removed: Notify::new(),
        }
    }
}

impl PurgeQueue {
    pub fn push(&self, purge: Purge) {
        // The receiver is gone only at the end of the process; the next start finds the placeholder.
        let _ = self.sender.send(purge);
    }

    /// The other end, for the one who removes.
    pub fn take(&self) -> Option<mpsc::UnboundedReceiver<Purge>> {
        self.receiver.lock().take()
    }

    /// So many versions were removed, and so many wait yet.
    fn note_removed(&self, removed: usize, waiting: usize) {
        if waiting < PURGE_WAITING_MAX {
            self.removed.notify_waiters();
            return;
        }
        for _ in 0..removed {
            self.removed.notify_one();
        }
    }
}

impl ObjectCache {
    /// Versions that wait for their removal.
    pub fn purges_waiting(&self) -> usize {
        self.core.lock().purging.len()
    }

    /// Lets an upload begin: at once, or where far too many versions wait for their removal, when one of them has gone. So
    /// uploads add nothing to what waits.
    ///
    /// # Errors
    /// [`CacheError::Behind`] when none went for [`PURGE_WAIT_MAX`].
    pub(crate) async fn turn_to_upload(&self) -> Result<(), CacheError> {
        let Some(side) = &self.pools else {
            return Ok(());
        };
        if self.purges_waiting() < PURGE_WAITING_MAX {
            return Ok(());
        }
        let removed = side.purges.removed.notified();
        tokio::pin!(removed);
        // Registered before the second look, so that the last removal is not missed.
        removed.as_mut().enable();
        let waiting = self.purges_waiting();
        if waiting < PURGE_WAITING_MAX {
            return Ok(());
        }
        match tokio::time::timeout(PURGE_WAIT_MAX, removed).await {
            Ok(()) => Ok(()),
            Err(_) => Err(CacheError::Behind { waiting }),
        }
    }

    /// A version's name is gone: its objects go as soon as nobody uses them, and then its placeholder
    /// ([`Backing::purged`](super::Backing::purged)).
    pub fn purge(&self, file: FileId, extent: Extent) {
        let Some(side) = &self.pools else { return };
        let purge = Purge {
            file,
            extent,
            alone: false,
        };
        // Who found the name before it went has pinned the version after this.
        drop(side.looking.write());
        let mut core = self.core.lock();
        core.queue.cancel(file);
        match extent {
            Extent::Whole(len) => {
                let objects = self.objects_in(len);
                self.event(&mut core, &Event::Deleted { file, objects });
                core.queue.cancel(file);
            }
            Extent::Unfinished(_) | Extent::Begun(_) => core.residency.spare_nothing(file),
        }
        match core.pins.get_mut(&file) {
            Some(pin) => {
                pin.doomed = true;
                pin.purge = Some(purge);
            }
            None => {
                let rows = self.take_version(&mut core, file);
                core.purging.insert(file);
                side.purges.push(self.knowing(purge, &rows));
            }
        }
    }

    /// A removal, with what the rows that the map had of the version say of it.
    pub(super) fn knowing(&self, purge: Purge, rows: &[Entry]) -> Purge {
        let all_known = match purge.extent {
            Extent::Whole(len) => rows.len() == self.objects_in(len) as usize,
            Extent::Unfinished(_) | Extent::Begun(_) => false,
        };
        Purge {
            alone: all_known && rows.iter().all(|row| row.alone),
            ..purge
        }
    }

    /// Removes the version that has waited longest; how many wait then.
    #[cfg(test)]
    pub async fn purge_next(&self) -> usize {
        let purge = self.pools.as_ref().and_then(|side| {
            let mut receiver = side.purges.receiver.lock();
            receiver.as_mut().and_then(|queue| queue.try_recv().ok())
        });
        self.purge_some(purge, 1).await;
        self.purges_waiting()
    }

    /// Removes all versions that are waiting to be. For a gateway that does not serve.
    pub async fn purge_queued(&self) -> Result<(), CacheError> {
        let taken = self.pools.as_ref().and_then(|s| s.purges.take());
        let Some(mut queue) = taken else {
            return Ok(());
        };
        while let Ok(purge) = queue.try_recv() {
            if let Some(left) = self.purge_some([purge], 1).await.first() {
                return Err(CacheError::Io {
                    op: format!("remove the objects of {}", left.file),
                    source: std::io::Error::other("the pools did not answer"),
                });
            }
        }
        if let Some(side) = &self.pools {
            *side.purges.receiver.lock() = Some(queue);
        }
        Ok(())
    }

    /// Removes versions until the channel's other end is gone, or `stop`.
    pub(super) async fn purge_all(
        self: Arc<Self>,
        mut queue: mpsc::UnboundedReceiver<Purge>,
        mut stop: tokio::sync::watch::Receiver<bool>,
    ) {
        let mut failed: Vec<Purge> = Vec::new();
        let mut retry = tokio::time::interval(PURGE_RETRY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut batch = Vec::new();
            let mut again = false;
            tokio::select! {
                _ = stop.wait_for(|s| *s) => break,
                _ = queue.recv_many(&mut batch, PURGED_TOGETHER) => {}
                _ = retry.tick(), if !failed.is_empty() => {
                    again = true;
                    batch.extend(failed.drain(..failed.len().min(PURGED_TOGETHER)));
                }
            }
            let at_once = match queue.len() {
                0..PURGE_BACKLOG => PURGES_AT_ONCE,
                _ => PURGES_AT_ONCE_BEHIND,
            };
            // What is left at the end has its placeholder, and is found at the next start.
            let batch = batch.into_iter().take_while(|_| !*stop.borrow());
            let left = self.purge_some(batch, at_once).await;
            if again && left.is_empty() {
                // The trouble is over.
                retry.reset_immediately();
            }
            failed.extend(left);
        }
    }

    /// Removes versions, so many at once, and then all their placeholders in one visit to a blocking thread. Returns those that are
    /// to be tried again.
    async fn purge_some(
        &self,
        batch: impl IntoIterator<Item = Purge>,
        at_once: usize,
    ) -> Vec<Purge> {
        let removals = batch.into_iter().map(|purge| async move {
            match self.remove_version(purge).await {
                Ok(()) => Ok(purge),
                Err(error) => Err((purge, CacheError::pool("remove", purge.first(), error))),
            }
        });
        let mut removals = futures_util::stream::iter(removals).buffer_unordered(at_once);
        let (mut empty, mut failed) = (Vec::new(), Vec::new());
        while let Some(removed) = removals.next().await {
            match removed {
                Ok(purge) => empty.push(purge),
                Err(why) => failed.push(why),
            }
        }
        drop(removals);
        let (gone, left) = self.drop_placeholders(empty).await;
        failed.extend(left);
        let removed = gone.len();
        let waiting = {
            let mut core = self.core.lock();
            for purge in gone {
                core.purging.remove(&purge.file);
            }
            core.purging.len()
        };
        if let Some(side) = &self.pools {
            side.purges.note_removed(removed, waiting);
        }
        let again = failed.into_iter().map(|(purge, error)| {
            tracing::warn!(file = %purge.file, %error, "cannot remove a version's objects; tried again");
            purge
        });
        again.collect()
    }

    /// The placeholders of versions without objects go; which did, and which did not.
    async fn drop_placeholders(&self, empty: Vec<Purge>) -> (Vec<Purge>, Vec<(Purge, CacheError)>) {
        let Some(backing) = self.backing.get().cloned() else {
            let left = empty.into_iter().map(|p| (p, CacheError::NoBacking));
            return (Vec::new(), left.collect());
        };
        if empty.is_empty() {
            return (empty, Vec::new());
        }
        let all = empty.clone();
        let visit = super::cache::blocking(move || {
            let (mut gone, mut left) = (Vec::new(), Vec::new());
            for purge in all {
                match backing.purged(purge.file) {
                    Ok(()) => gone.push(purge),
                    Err(e) => left.push((purge, CacheError::backing("remove a placeholder", e))),
                }
            }
            Ok((gone, left))
        });
        match visit.await {
            Ok(done) => done,
            Err(error) => {
                let why = |purge| (purge, CacheError::Task(error.to_string()));
                (Vec::new(), empty.into_iter().map(why).collect())
            }
        }
    }

    async fn remove_version(&self, purge: Purge) -> Result<(), PoolError> {
        let Purge {
            file,
            extent,
            alone,
        } = purge;
        match extent {
            Extent::Whole(len) => {
                let objects = 0..self.objects_in(len);
                self.remove_objects(file, objects, alone).await.map(|_| ())
            }
            Extent::Unfinished(len) => {
                let within = self.objects_in(len);
                self.remove_objects(file, 0..within, false).await?;
                self.remove_until_absent(file, within).await
            }
            Extent::Begun(objects) => {
                let removed = self.remove_objects(file, 0..objects, false);
                removed.await.map(|_| ())
            }
        }
    }

    async fn remove_until_absent(&self, file: FileId, mut from: u32) -> Result<(), PoolError> {
        while self
            .remove_objects(file, from..from.saturating_add(ABSENT_ENDS), false)
            .await?
        {
            from = from.saturating_add(ABSENT_ENDS);
        }
        Ok(())
    }

    /// `true` if any of them was there. `alone`: the data pool is not asked, for which a removal of nothing is a write as well.
    async fn remove_objects(
        &self,
        file: FileId,
        objects: Range<u32>,
        alone: bool,
    ) -> Result<bool, PoolError> {
        let Some(pools) = &self.pools else {
            return Ok(false);
        };
        let removals = objects.flat_map(|index| {
            let id = ObjectId::new(file, index);
            let cache = pools.has_cache().then_some((Tier::Cache, id));
            let data = (!alone).then_some((Tier::Backing, id));
            cache.into_iter().chain(data)
        });
        let mut replies = futures_util::stream::iter(removals)
            .map(|(tier, id)| pools.remove(tier, id))
            .buffer_unordered(REMOVED_AT_ONCE);
        let mut any = false;
        while let Some(there) = replies.next().await {
            any |= there?;
        }
        Ok(any)
    }
}
