//! Objects of versions whose content is in pools: reads, moves, and the removal of versions.
//!
//! Moves pass through this process, although an OSD can copy an object from another one by itself: measured
//! (benches/rados.rs) that takes 20 ms instead of 16 for 4 MiB and 4.3 ms instead of 1.5 for 4 KiB, and the bytes would
//! not be checked against their checksum on the way. It costs this process a ninth of the time of its CPU, though, which
//! is why COPY is done that way.
//!
//! An object's bytes never change, so a copy can only be absent, complete or damaged: a move needs no guard against
//! writers, only against the version being removed, which waits for those who have it pinned.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::{Mutex, RwLock};
use tiering::{Event, FileId, ObjectId, Reason, Tier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::cache::ObjectCache;
use super::error::CacheError;
use super::migrator::{StepReport, flush_action};
use super::pools::{ObjectInfo, Pending, PoolError, Pools};
use super::residency::Entry;
use super::store::{Mark, Stored};

/// Bytes of objects in memory on their way to the pools, and as many read ahead, all requests together.
const FLIGHT_BYTES: usize = 256 << 20;
/// Unit in which they are counted.
const FLIGHT_UNIT: u32 = 16 << 10;
/// Lookups of an object that moves away under a reader.
const LOOKUPS_MAX: usize = 4;
/// Objects whose attributes are asked for at once, at start.
const ASKED_AT_ONCE: usize = 256;
/// Objects of one run that are flushed at once.
const FLUSHED_AT_ONCE: usize = 4;
/// Removals under way at once.
const REMOVED_AT_ONCE: usize = 16;
/// Versions that are removed at once: few, since requests want the same OSDs.
const PURGES_AT_ONCE: usize = 4;
/// As long as no more than this wait. Their objects take room in the pools that nothing counts.
const PURGE_BACKLOG: usize = 4096;
/// Versions that are removed at once when more wait.
const PURGES_AT_ONCE_BEHIND: usize = 32;
/// Versions whose placeholders are removed together.
const PURGED_TOGETHER: usize = 64;
/// After so many absent objects in a row, a version of unknown length has no more: more than one upload has under way.
const ABSENT_ENDS: u32 = 64;
/// How long a cache pool that did not answer gets no new objects.
const CACHE_AWAY: Duration = Duration::from_secs(10);
/// Until a failed removal is tried again.
const PURGE_RETRY: Duration = Duration::from_secs(5);

/// A version to be removed from the pools; `None`: an upload of unknown length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purge {
    pub file: FileId,
    pub len: Option<u64>,
    /// The data pool never had any object of it.
    pub alone: bool,
}

impl Purge {
    /// Its first object, to name it by.
    fn first(&self) -> ObjectId {
        ObjectId::new(self.file, 0)
    }
}

/// The pools, and what a cache over them has besides.
pub(super) struct PoolSide {
    pub store: Arc<dyn Pools>,
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    away_until: Mutex<Option<Instant>>,
    /// Held by readers from the look at a name to the pin of its version.
    looking: RwLock<()>,
    pub purges: mpsc::UnboundedSender<Purge>,
    pub queue: Mutex<Option<mpsc::UnboundedReceiver<Purge>>>,
    pub runtime: tokio::runtime::Handle,
}

impl PoolSide {
    pub fn new(store: Arc<dyn Pools>, runtime: tokio::runtime::Handle) -> PoolSide {
        let (purges, queue) = mpsc::unbounded_channel();
        let room = || Arc::new(Semaphore::new(FLIGHT_BYTES / FLIGHT_UNIT as usize));
        PoolSide {
            store,
            writes: room(),
            reads: room(),
            away_until: Mutex::new(None),
            looking: RwLock::new(()),
            purges,
            queue: Mutex::new(Some(queue)),
            runtime,
        }
    }

    /// Waits for an operation, on a blocking thread.
    fn wait<T>(&self, operation: impl Future<Output = T>) -> T {
        self.runtime.block_on(operation)
    }
}

impl Deref for PoolSide {
    type Target = dyn Pools;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl ObjectCache {
    /// The pools, when content lives there.
    pub fn pools(&self) -> Option<&Arc<dyn Pools>> {
        self.pools.as_ref().map(|side| &side.store)
    }

    /// Looks a version up and pins it: as long as `look` runs, no version that it may find is removed.
    pub fn while_looking<T>(&self, look: impl FnOnce() -> T) -> T {
        let _looking = self.pools.as_ref().map(|side| side.looking.read());
        look()
    }

    /// [`ObjectCache::while_looking`] without waiting for anybody; `None` too when it would have to.
    pub fn try_while_looking<T>(&self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let _looking = match &self.pools {
            Some(side) => Some(side.looking.try_read()?),
            None => None,
        };
        look()
    }

    /// The cache pool did not answer: for a while, nobody else needs to wait for it.
    pub(super) fn leave_cache_alone(&self) {
        if let Some(side) = &self.pools {
            *side.away_until.lock() = Some(Instant::now() + CACHE_AWAY);
        }
    }

    /// Whether the cache pool did not answer a moment ago.
    pub(super) fn is_cache_away(&self) -> bool {
        let until = self.pools.as_ref().and_then(|s| *s.away_until.lock());
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Runs `work` behind the requests.
    pub(super) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(side) = &self.pools {
            side.runtime.spawn(work);
        }
    }

    /// Room for `len` bytes on their way to the pools; waits while there is none.
    pub(crate) async fn flight(&self, len: u32) -> Option<OwnedSemaphorePermit> {
        let side = self.pools.as_ref()?;
        let units = len.div_ceil(FLIGHT_UNIT);
        Arc::clone(&side.writes)
            .acquire_many_owned(units)
            .await
            .ok()
    }

    /// Room for `len` bytes read ahead, if there is some now.
    pub(super) fn try_flight(&self, len: u32) -> Option<OwnedSemaphorePermit> {
        let side = self.pools.as_ref()?;
        let units = len.div_ceil(FLIGHT_UNIT);
        Arc::clone(&side.reads).try_acquire_many_owned(units).ok()
    }

    /// Fills the residency map from the cache pool. Blocking; before anything else.
    pub fn load_pools(&self) -> Result<(), CacheError> {
        let Some(pools) = self.pools.as_ref().filter(|p| p.has_cache()) else {
            return Ok(());
        };
        let failed = |e: PoolError| CacheError::Io {
            op: "list the cache pool".into(),
            source: e.into(),
        };
        let listing = pools.list(Tier::Cache).map_err(failed)?;
        for name in &listing.foreign {
            tracing::warn!(%name, "foreign name in the cache pool, left alone");
        }
        let mut found: Vec<Stored> = Vec::with_capacity(listing.objects.len());
        pools.wait(async {
            let ask = |id| {
                let wait = pools.info(Tier::Cache, id);
                async move { (id, wait.await) }
            };
            let mut replies = futures_util::stream::iter(listing.objects)
                .map(ask)
                .buffer_unordered(ASKED_AT_ONCE);
            while let Some((id, reply)) = replies.next().await {
                match reply {
                    Ok((info, marked)) => found.push(Stored {
                        id,
                        len: info.len,
                        crc: info.crc,
                        mark: if marked { Mark::Clean } else { Mark::Dirty },
                    }),
                    Err(PoolError::NotFound) => {}
                    Err(PoolError::Damaged) => {
                        tracing::warn!(object = %id, "object in the cache pool without information, left alone");
                    }
                    Err(e) => return Err(failed(e)),
                }
            }
            Ok(())
        })?;
        self.restore_all(found);
        Ok(())
    }

    /// Bytes of an object of `object_len` bytes, from the tier that has it. A whole object is checked against its checksum.
    pub(super) async fn read_pooled(
        &self,
        id: ObjectId,
        object_len: u32,
        within: u32,
        want: u32,
    ) -> Result<(Bytes, Tier), CacheError> {
        let Some(pools) = &self.pools else {
            return Err(CacheError::NoBacking);
        };
        for _ in 0..LOOKUPS_MAX {
            let cached = self.lookup_or_lost(id)?.map(|(object, _)| object);
            let mut lost = None;
            if let Some(object) = cached {
                match read_checked(&*pools.store, Tier::Cache, id, object_len, within, want).await {
                    Ok(bytes) => return Ok((bytes, Tier::Cache)),
                    Err(error) => {
                        self.note_unreadable(&object, &error);
                        lost = Some(error);
                    }
                }
            }
            // An object's bytes never change: the data pool's copy is right, whatever the map says of it.
            match (
                read_checked(&*pools.store, Tier::Backing, id, object_len, within, want).await,
                lost,
            ) {
                (Ok(bytes), _) => return Ok((bytes, Tier::Backing)),
                // The cache pool alone has it, and cannot be reached.
                (
                    Err(PoolError::NotFound),
                    Some(
                        e @ (PoolError::Io(_)
                        | PoolError::Blocklisted
                        | PoolError::NotOwner
                        | PoolError::Full),
                    ),
                ) => {
                    return Err(CacheError::pool("read", id, e));
                }
                // It may have moved since the lookup: look again.
                (Err(PoolError::NotFound), _) => {}
                (Err(e), _) => {
                    if matches!(e, PoolError::Damaged) {
                        tracing::error!(object = %id, "object in the data pool is damaged");
                        self.count_damage();
                    }
                    return Err(CacheError::pool("read", id, e));
                }
            }
        }
        tracing::error!(object = %id, "object is in neither pool");
        self.count_damage();
        Err(CacheError::Damaged { id })
    }

    /// A cached copy that cannot be read. A clean one that is wrong, not just out of reach, goes.
    fn note_unreadable(&self, object: &Stored, error: &PoolError) {
        let wrong = matches!(error, PoolError::Damaged | PoolError::NotFound);
        let current = self.lookup(object.id).map(|(o, _)| o);
        if wrong && current.is_none() {
            // Evicted since the lookup.
            return;
        }
        tracing::error!(object = %object.id, %error, "cached object cannot be read; the data pool is asked");
        if wrong {
            self.count_damage();
            if current.is_some_and(|o| o.mark == Mark::Clean) {
                self.drop_damaged(object);
            }
        }
    }

    /// Removes cached objects that have left the map; an orphan at worst, which scrub finds.
    pub(super) fn unlink_pooled(&self, file: FileId, rows: &[Entry]) {
        let Some(pools) = &self.pools else { return };
        for row in rows.iter().filter(|r| r.stored(file).is_some()) {
            let id = ObjectId::new(file, row.index);
            let removed = pools.remove(Tier::Cache, id);
            self.in_background(async move {
                if let Err(error) = removed.await {
                    tracing::warn!(object = %id, %error, "cannot remove a cached object; scrub finds it");
                }
            });
        }
    }

    // --- moves ---

    pub(super) fn promote_pooled(&self, id: ObjectId) -> Result<u64, String> {
        let Some(pools) = &self.pools else {
            return Err("no pools".into());
        };
        let text = |e: PoolError| e.to_string();
        let (info, _) = pools.wait(pools.info(Tier::Backing, id)).map_err(text)?;
        self.begin_promotion(id, info.len)?;
        let copied = pools.wait(copy_up(&pools.store, id, info)).map_err(text);
        let object = Stored {
            id,
            len: info.len,
            crc: info.crc,
            mark: Mark::Clean,
        };
        self.end_promotion(id, copied.map(|()| object))
    }

    /// Flushes objects of one version, a few at a time, each confirmed by itself.
    pub(super) fn flush_pooled(&self, file: FileId, run: &[(u32, Reason)]) -> StepReport {
        let at = self.recorder.now();
        let mut report = StepReport::default();
        let Some(pools) = &self.pools else {
            return report;
        };
        self.pin(file, None);
        for part in run.chunks(FLUSHED_AT_ONCE) {
            let mut begun = Vec::new();
            for what in part {
                let action = flush_action(file, *what);
                match self.begin_flush(action.id) {
                    Ok(object) => begun.push((action, object)),
                    Err(why) => report += self.confirm(action, 0, Err(why), at),
                }
            }
            let copies = begun
                .iter()
                .map(|(_, object)| copy_down(&pools.store, *object));
            let copied = pools.wait(futures_util::future::join_all(copies));
            for ((action, object), outcome) in begun.into_iter().zip(copied) {
                let lost = matches!(outcome, Err(PoolError::Damaged | PoolError::NotFound));
                let flushed = outcome.map_err(|e| e.to_string());
                let event = self.end_flush(object.id, flushed, lost);
                report += self.confirm(action, u64::from(object.len), event, at);
            }
        }
        self.unpin(file);
        report
    }

    pub(super) fn remove_cached_pooled(&self, id: ObjectId) -> Result<(), String> {
        let Some(pools) = &self.pools else {
            return Err("no pools".into());
        };
        let removed = pools.wait(pools.remove(Tier::Cache, id));
        removed.map(|_| ()).map_err(|e| e.to_string())
    }

    // --- removal of versions ---

    /// A version's name is gone: its objects go as soon as nobody uses them, and then its placeholder
    /// ([`Backing::purged`](super::Backing::purged)). `None`: an upload of unknown length.
    pub fn purge(&self, file: FileId, len: Option<u64>) {
        let Some(side) = &self.pools else { return };
        let purge = Purge {
            file,
            len,
            alone: false,
        };
        // Who found the name before it went has pinned the version after this.
        drop(side.looking.write());
        let mut core = self.core.lock();
        core.queue.cancel(file);
        if let Some(len) = len {
            let objects = self.objects_in(len);
            self.event(&mut core, &Event::Deleted { file, objects });
            core.queue.cancel(file);
        } else {
            core.residency.spare_nothing(file);
        }
        match core.pins.get_mut(&file) {
            Some(pin) => {
                pin.doomed = true;
                pin.purge = Some(purge);
            }
            None => {
                let rows = self.take_version(&mut core, file);
                core.purging.insert(file);
                let _ = side.purges.send(self.knowing(purge, &rows));
            }
        }
    }

    /// A removal, with what the rows that the map had of the version say of it.
    pub(super) fn knowing(&self, purge: Purge, rows: &[Entry]) -> Purge {
        let all = purge.len.map(|len| self.objects_in(len) as usize);
        Purge {
            alone: all == Some(rows.len()) && rows.iter().all(|row| row.alone),
            ..purge
        }
    }

    /// Removes all versions that are waiting to be. For a gateway that does not serve.
    pub async fn purge_queued(&self) -> Result<(), CacheError> {
        let taken = self.pools.as_ref().and_then(|s| s.queue.lock().take());
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
            *side.queue.lock() = Some(queue);
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
            tokio::select! {
                _ = stop.wait_for(|s| *s) => break,
                _ = queue.recv_many(&mut batch, PURGED_TOGETHER) => {}
                _ = retry.tick(), if !failed.is_empty() => {
                    batch.extend(failed.drain(..failed.len().min(PURGED_TOGETHER)));
                }
            }
            let at_once = match queue.len() {
                0..PURGE_BACKLOG => PURGES_AT_ONCE,
                _ => PURGES_AT_ONCE_BEHIND,
            };
            // What is left at the end has its placeholder, and is found at the next start.
            let batch = batch.into_iter().take_while(|_| !*stop.borrow());
            failed.extend(self.purge_some(batch, at_once).await);
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
        let mut core = self.core.lock();
        for purge in gone {
            core.purging.remove(&purge.file);
        }
        drop(core);
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
        let Purge { file, len, alone } = purge;
        match len {
            Some(len) => {
                let objects = 0..self.objects_in(len);
                self.remove_objects(file, objects, alone).await.map(|_| ())
            }
            None => self.remove_until_absent(file).await,
        }
    }

    async fn remove_until_absent(&self, file: FileId) -> Result<(), PoolError> {
        let mut from = 0;
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
        objects: std::ops::Range<u32>,
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

/// Reads from one pool; a whole object is checked.
pub(super) async fn read_checked(
    pools: &dyn Pools,
    tier: Tier,
    id: ObjectId,
    object_len: u32,
    within: u32,
    want: u32,
) -> Result<Bytes, PoolError> {
    let (bytes, info) = pools.read(tier, id, within, want).await?;
    let whole = within == 0 && want == object_len;
    let right = info.len == object_len
        && bytes.len() == want as usize
        && (!whole || crc32c::crc32c(&bytes) == info.crc);
    if right {
        Ok(bytes)
    } else {
        Err(PoolError::Damaged)
    }
}

/// Copies an object to the cache pool through this process: the checksum is looked at on the way.
fn copy_up(
    pools: &Arc<dyn Pools>,
    id: ObjectId,
    info: ObjectInfo,
) -> impl Future<Output = Result<(), PoolError>> + use<> {
    let pools = Arc::clone(pools);
    async move {
        let bytes = read_checked(&*pools, Tier::Backing, id, info.len, 0, info.len).await?;
        let write: Pending<()> = pools.write(Tier::Cache, id, vec![bytes], info, true);
        write.await
    }
}

/// Copies an object to the data pool through this process, and marks it then.
fn copy_down(
    pools: &Arc<dyn Pools>,
    object: Stored,
) -> impl Future<Output = Result<(), PoolError>> + use<> {
    let pools = Arc::clone(pools);
    async move {
        let id = object.id;
        let (bytes, info) = pools.read(Tier::Cache, id, 0, object.len).await?;
        if bytes.len() != object.len as usize || crc32c::crc32c(&bytes) != object.crc {
            return Err(PoolError::Damaged);
        }
        pools
            .write(Tier::Backing, id, vec![bytes], info, false)
            .await?;
        pools.mark_clean(id).await
    }
}
