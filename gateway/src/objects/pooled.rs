//! Objects of versions whose content is in pools: reads and moves. Their removal is in `purge`.
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::{Mutex, RwLock};
use tiering::{FileId, ObjectId, Reason, Tier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cache::ObjectCache;
use super::error::CacheError;
use super::migrator::{StepReport, flush_action};
use super::not_moved::NotMoved;
use super::pools::{ObjectInfo, Pending, PoolError, Pools};
use super::purge::PurgeQueue;
use super::residency::Entry;
use super::store::{Mark, Stored};

/// Bytes of objects in memory on their way to the pools, and as many read ahead, all requests together.
pub(super) const FLIGHT_BYTES: usize = 256 << 20;
/// Unit in which they are counted.
const FLIGHT_UNIT: u32 = 16 << 10;
/// Lookups of an object that moves away under a reader.
const LOOKUPS_MAX: usize = 4;
/// Objects whose attributes are asked for at once, at start.
const ASKED_AT_ONCE: usize = 256;
/// Objects of one run that are flushed at once.
const FLUSHED_AT_ONCE: usize = 4;
/// Longest wait for room for what is on its way, while nobody else gets any.
const FLIGHT_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a cache pool that did not answer gets no new objects.
const CACHE_AWAY: Duration = Duration::from_secs(10);

/// What was read of an object.
pub(super) struct Read {
    pub bytes: Bytes,
    pub tier: Tier,
    /// Checksum of all of the object, to which these bytes were compared if they are all.
    pub crc: u32,
}

/// The pools, and what a cache over them has besides.
pub(super) struct PoolSide {
    pub store: Arc<dyn Pools>,
    writes: Arc<Semaphore>,
    /// How often somebody got room for a write.
    flights: AtomicU64,
    reads: Arc<Semaphore>,
    away_until: Mutex<Option<Instant>>,
    /// Held by readers from the look at a name to the pin of its version.
    pub looking: RwLock<()>,
    pub purges: PurgeQueue,
    pub runtime: tokio::runtime::Handle,
}

impl PoolSide {
    pub fn new(store: Arc<dyn Pools>, runtime: tokio::runtime::Handle) -> PoolSide {
        let room = || Arc::new(Semaphore::new(FLIGHT_BYTES / FLIGHT_UNIT as usize));
        PoolSide {
            store,
            writes: room(),
            flights: AtomicU64::new(0),
            reads: room(),
            away_until: Mutex::new(None),
            looking: RwLock::new(()),
            purges: PurgeQueue::default(),
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

    /// The same, if that is what this error means: it may as well be about one object.
    pub(super) fn leave_cache_if_away(&self, error: &PoolError) {
        if matches!(error, PoolError::Io(e) if e.kind() == std::io::ErrorKind::TimedOut) {
            self.leave_cache_alone();
        }
    }

    /// Whether the cache pool did not answer a moment ago.
    pub(crate) fn is_cache_away(&self) -> bool {
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
    ///
    /// # Errors
    /// Nobody has got any for [`FLIGHT_WAIT_MAX`]: OSDs that do not answer have it all.
    pub(crate) async fn flight(
        &self,
        len: u32,
    ) -> Result<Option<OwnedSemaphorePermit>, CacheError> {
        let Some(side) = &self.pools else {
            return Ok(None);
        };
        let units = len.div_ceil(FLIGHT_UNIT);
        let room = Arc::clone(&side.writes).acquire_many_owned(units);
        tokio::pin!(room);
        loop {
            let before = side.flights.load(Ordering::Relaxed);
            match tokio::time::timeout(FLIGHT_WAIT_MAX, &mut room).await {
                Ok(room) => {
                    side.flights.fetch_add(1, Ordering::Relaxed);
                    return Ok(room.ok());
                }
                Err(_) if side.flights.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    return Err(CacheError::Io {
                        op: "wait for room on the way to the pools".into(),
                        source: std::io::ErrorKind::TimedOut.into(),
                    });
                }
            }
        }
    }

    /// Room that is free for what is on its way to the pools.
    #[cfg(test)]
    pub(super) fn free_flight_bytes(&self) -> usize {
        let free = |side: &PoolSide| side.writes.available_permits() * FLIGHT_UNIT as usize;
        self.pools.as_ref().map_or(0, free)
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
    ) -> Result<Read, CacheError> {
        let Some(pools) = &self.pools else {
            return Err(CacheError::NoBacking);
        };
        for lookup in 0..LOOKUPS_MAX {
            let cached = self.lookup_or_lost(id)?.map(|(object, _)| object);
            let mut lost = None;
            // Of a clean one the data pool has the same bytes, and nobody waits in vain. If it has not, the cache pool is asked after all.
            let spared = |o: &Stored| lookup == 0 && o.mark == Mark::Clean && self.is_cache_away();
            if let Some(object) = cached.filter(|o| !spared(o)) {
                match read_cached(&*pools.store, &object, object_len, within, want).await {
                    Ok(bytes) => {
                        return Ok(Read {
                            bytes,
                            tier: Tier::Cache,
                            crc: object.crc,
                        });
                    }
                    Err(error) => {
                        self.leave_cache_if_away(&error);
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
                (Ok((bytes, crc)), _) => {
                    return Ok(Read {
                        bytes,
                        tier: Tier::Backing,
                        crc,
                    });
                }
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
        if matches!(error, PoolError::NotFound) && current.is_some_and(|o| o.mark == Mark::Clean) {
            // As after an eviction that was done, but not answered. Where the data pool has it, nothing is lost.
            tracing::warn!(object = %object.id, "a clean object is not in the cache pool any more; the data pool is asked");
            self.drop_damaged(object);
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

    pub(super) fn promote_pooled(&self, id: ObjectId) -> Result<u64, NotMoved> {
        let Some(pools) = &self.pools else {
            return Err(NotMoved::Dropped("no pools"));
        };
        let (info, _) = match pools.wait(pools.info(Tier::Backing, id)) {
            Err(PoolError::NotFound) => return Err(NotMoved::Dropped("its version is gone")),
            asked => asked?,
        };
        self.begin_promotion(id, info.len)?;
        let copied = pools.wait(copy_up(&pools.store, id, info));
        let object = Stored {
            id,
            len: info.len,
            crc: info.crc,
            mark: Mark::Clean,
        };
        self.end_promotion(id, copied.map(|()| object).map_err(NotMoved::from))
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
                let flushed = outcome.map_err(NotMoved::from);
                let event = self.end_flush(object.id, flushed, lost);
                report += self.confirm(action, u64::from(object.len), event, at);
            }
        }
        self.unpin(file);
        report
    }

    pub(super) fn remove_cached_pooled(&self, id: ObjectId) -> Result<(), NotMoved> {
        let Some(pools) = &self.pools else {
            return Err(NotMoved::Dropped("no pools"));
        };
        let removed = pools.wait(pools.remove(Tier::Cache, id));
        Ok(removed.map(|_| ())?)
    }
}

/// Reads from the cache pool, of whose objects the residency map knows the checksums; a whole object is checked.
async fn read_cached(
    pools: &dyn Pools,
    object: &Stored,
    object_len: u32,
    within: u32,
    want: u32,
) -> Result<Bytes, PoolError> {
    let (bytes, sum) = pools
        .read_summed(Tier::Cache, object.id, within, want)
        .await?;
    let whole = within == 0 && want == object_len;
    let right = object.len == object_len && (!whole || sum == object.crc);
    all_of(bytes, want, right)
}

/// Reads from one pool; a whole object is checked. The checksum is that of all of it.
pub(super) async fn read_checked(
    pools: &dyn Pools,
    tier: Tier,
    id: ObjectId,
    object_len: u32,
    within: u32,
    want: u32,
) -> Result<(Bytes, u32), PoolError> {
    let (bytes, info) = pools.read(tier, id, within, want).await?;
    let whole = within == 0 && want == object_len;
    let right = info.len == object_len && (!whole || crc32c::crc32c(&bytes) == info.crc);
    Ok((all_of(bytes, want, right)?, info.crc))
}

/// What was read, if it is all that was wanted, and `right`.
fn all_of(bytes: Bytes, want: u32, right: bool) -> Result<Bytes, PoolError> {
    match right && bytes.len() == want as usize {
        true => Ok(bytes),
        false => Err(PoolError::Damaged),
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
        let (bytes, _) = read_checked(&*pools, Tier::Backing, id, info.len, 0, info.len).await?;
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
