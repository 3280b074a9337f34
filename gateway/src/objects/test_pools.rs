//! Pools for tests: in memory, and any pools with faults in front.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tiering::{ObjectId, Tier};

use super::pools::{
    AttachError, Claim, ObjectInfo, Pending, PoolError, PoolListing, PoolSpace, Pools,
};

type Kept = (Bytes, ObjectInfo, bool);

/// Both pools in memory.
pub struct MemoryPools {
    pools: Arc<[Mutex<BTreeMap<ObjectId, Kept>>; 2]>,
    cache_pool: Option<&'static str>,
    /// Writes so far.
    pub writes: AtomicU64,
    /// Removals so far, of nothing, too.
    pub removals: AtomicU64,
}

impl Default for MemoryPools {
    fn default() -> Self {
        MemoryPools {
            pools: Arc::default(),
            cache_pool: Some("memory"),
            writes: AtomicU64::new(0),
            removals: AtomicU64::new(0),
        }
    }
}

impl MemoryPools {
    /// The same pools, by settings that name another cache pool, or none.
    pub fn with_cache_pool(&self, cache_pool: Option<&'static str>) -> MemoryPools {
        MemoryPools {
            pools: Arc::clone(&self.pools),
            cache_pool,
            writes: AtomicU64::new(0),
            removals: AtomicU64::new(0),
        }
    }
    fn pool(&self, tier: Tier) -> &Mutex<BTreeMap<ObjectId, Kept>> {
        &self.pools[usize::from(tier == Tier::Backing)]
    }
}

fn now<T: Send + 'static>(result: Result<T, PoolError>) -> Pending<T> {
    // Elsewhere other tasks run between the call and its result.
    Box::pin(async move {
        tokio::task::yield_now().await;
        result
    })
}

impl Pools for MemoryPools {
    fn cache_pool(&self) -> Option<&str> {
        self.cache_pool
    }
    fn describe(&self) -> String {
        "memory".into()
    }
    fn read(&self, tier: Tier, id: ObjectId, at: u32, len: u32) -> Pending<(Bytes, ObjectInfo)> {
        now(match self.pool(tier).lock().get(&id) {
            None => Err(PoolError::NotFound),
            Some((bytes, info, _)) => {
                let from = (at as usize).min(bytes.len());
                let to = (from + len as usize).min(bytes.len());
                Ok((bytes.slice(from..to), *info))
            }
        })
    }
    fn write(
        &self,
        tier: Tier,
        id: ObjectId,
        parts: Vec<Bytes>,
        info: ObjectInfo,
        clean: bool,
    ) -> Pending<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let bytes = Bytes::from(parts.concat());
        self.pool(tier).lock().insert(id, (bytes, info, clean));
        now(Ok(()))
    }
    fn copy(&self, from: (Tier, ObjectId), to: (Tier, ObjectId)) -> Pending<()> {
        let source = self.pool(from.0).lock().get(&from.1).cloned();
        now(match source {
            None => Err(PoolError::NotFound),
            Some(kept) => {
                self.pool(to.0).lock().insert(to.1, kept);
                Ok(())
            }
        })
    }
    fn mark_clean(&self, id: ObjectId) -> Pending<()> {
        now(match self.pool(Tier::Cache).lock().get_mut(&id) {
            None => Err(PoolError::NotFound),
            Some(kept) => {
                kept.2 = true;
                Ok(())
            }
        })
    }
    fn mark_dirty(&self, id: ObjectId) -> Pending<()> {
        now(match self.pool(Tier::Cache).lock().get_mut(&id) {
            None => Err(PoolError::NotFound),
            Some(kept) => {
                kept.2 = false;
                Ok(())
            }
        })
    }
    fn info(&self, tier: Tier, id: ObjectId) -> Pending<(ObjectInfo, bool)> {
        let found = self.pool(tier).lock().get(&id).map(|k| (k.1, k.2));
        now(found.ok_or(PoolError::NotFound))
    }
    fn remove(&self, tier: Tier, id: ObjectId) -> Pending<bool> {
        self.removals.fetch_add(1, Ordering::Relaxed);
        now(Ok(self.pool(tier).lock().remove(&id).is_some()))
    }
    fn list(&self, tier: Tier) -> Result<PoolListing, PoolError> {
        Ok(PoolListing {
            objects: self.pool(tier).lock().keys().copied().collect(),
            foreign: Vec::new(),
        })
    }
    fn own(self: Arc<Self>, _: Claim) -> Result<Box<dyn Any + Send + Sync>, AttachError> {
        Ok(Box::new(()))
    }
    fn space(&self, _: Tier) -> Result<PoolSpace, PoolError> {
        Ok(PoolSpace {
            used: 0,
            available: 1 << 40,
        })
    }
}

fn timed_out<T: Send + 'static>() -> Pending<T> {
    now(Err(PoolError::Io(io::ErrorKind::TimedOut.into())))
}

/// Pools that fail when told to.
pub struct FaultyPools {
    pub inner: Arc<dyn Pools>,
    /// Bytes that each pool takes yet; negative: no limit.
    room: [AtomicI64; 2],
    /// Operations that change the data pool are done, but answered with an error.
    pub unanswered: AtomicBool,
    /// The OSDs refuse to copy.
    pub copies_refused: AtomicBool,
    /// Nothing in the cache pool is answered.
    pub cache_away: AtomicBool,
    /// Writes are not answered in time, and their bytes kept here.
    pub hanging: Mutex<Option<Vec<Vec<Bytes>>>>,
    /// Reads and copies in the cache pool so far.
    pub cache_asked: AtomicU64,
}

impl FaultyPools {
    pub fn new(inner: Arc<dyn Pools>) -> FaultyPools {
        FaultyPools {
            inner,
            room: [AtomicI64::new(-1), AtomicI64::new(-1)],
            unanswered: AtomicBool::new(false),
            copies_refused: AtomicBool::new(false),
            cache_away: AtomicBool::new(false),
            hanging: Mutex::default(),
            cache_asked: AtomicU64::new(0),
        }
    }
    pub fn fill(&self, tier: Tier, room: i64) {
        self.room[usize::from(tier == Tier::Backing)].store(room, Ordering::Relaxed);
    }
    pub fn clear(&self) {
        self.fill(Tier::Cache, -1);
        self.fill(Tier::Backing, -1);
        self.unanswered.store(false, Ordering::Relaxed);
    }
    fn takes(&self, tier: Tier, len: i64) -> bool {
        let room = &self.room[usize::from(tier == Tier::Backing)];
        let left = room.load(Ordering::Relaxed);
        if left < 0 {
            return true;
        }
        if left < len {
            room.store(0, Ordering::Relaxed);
            return false;
        }
        room.fetch_sub(len, Ordering::Relaxed);
        true
    }
    /// Asks a pool; `true` if it is the cache pool, and away.
    fn asks(&self, tier: Tier) -> bool {
        let cache = tier == Tier::Cache;
        self.cache_asked
            .fetch_add(u64::from(cache), Ordering::Relaxed);
        cache && self.cache_away.load(Ordering::Relaxed)
    }
    fn answer(&self, tier: Tier, done: Pending<()>) -> Pending<()> {
        if tier == Tier::Backing && self.unanswered.load(Ordering::Relaxed) {
            return Box::pin(async move {
                done.await?;
                Err(PoolError::Io(io::ErrorKind::TimedOut.into()))
            });
        }
        done
    }
}

impl Pools for FaultyPools {
    fn cache_pool(&self) -> Option<&str> {
        self.inner.cache_pool()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn read(&self, tier: Tier, id: ObjectId, at: u32, len: u32) -> Pending<(Bytes, ObjectInfo)> {
        if self.asks(tier) {
            return timed_out();
        }
        self.inner.read(tier, id, at, len)
    }
    fn write(
        &self,
        tier: Tier,
        id: ObjectId,
        parts: Vec<Bytes>,
        info: ObjectInfo,
        clean: bool,
    ) -> Pending<()> {
        if let Some(kept) = &mut *self.hanging.lock() {
            kept.push(parts);
            return timed_out();
        }
        if !self.takes(tier, i64::from(info.len)) {
            return now(Err(PoolError::Full));
        }
        self.answer(tier, self.inner.write(tier, id, parts, info, clean))
    }
    fn copy(&self, from: (Tier, ObjectId), to: (Tier, ObjectId)) -> Pending<()> {
        if self.copies_refused.load(Ordering::Relaxed) {
            return now(Err(PoolError::Io(io::ErrorKind::Unsupported.into())));
        }
        if self.asks(from.0) {
            return timed_out();
        }
        if !self.takes(to.0, 1) {
            return now(Err(PoolError::Full));
        }
        self.answer(to.0, self.inner.copy(from, to))
    }
    fn mark_clean(&self, id: ObjectId) -> Pending<()> {
        self.answer(Tier::Backing, self.inner.mark_clean(id))
    }
    fn mark_dirty(&self, id: ObjectId) -> Pending<()> {
        self.inner.mark_dirty(id)
    }
    fn info(&self, tier: Tier, id: ObjectId) -> Pending<(ObjectInfo, bool)> {
        self.inner.info(tier, id)
    }
    fn remove(&self, tier: Tier, id: ObjectId) -> Pending<bool> {
        self.inner.remove(tier, id)
    }
    fn list(&self, tier: Tier) -> Result<PoolListing, PoolError> {
        self.inner.list(tier)
    }
    fn own(self: Arc<Self>, _: Claim) -> Result<Box<dyn Any + Send + Sync>, AttachError> {
        Ok(Box::new(()))
    }
    fn space(&self, tier: Tier) -> Result<PoolSpace, PoolError> {
        self.inner.space(tier)
    }
}

/// The pools of the cluster in `TIERDAV_CEPH_DIR`, in a namespace of their own.
#[cfg(feature = "rados")]
pub fn rados(name: &str) -> Arc<crate::rados::RadosPools> {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use crate::config::PoolSettings;
    use crate::rados::RadosPools;

    static NEXT: AtomicU64 = AtomicU64::new(0);
    let dir = std::env::var("TIERDAV_CEPH_DIR")
        .expect("needs a cluster: deploy/dev/ceph.sh up, then eval \"$(deploy/dev/ceph.sh env)\"");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let pools = RadosPools::connect(
        PoolSettings {
            conf: std::path::Path::new(&dir).join("ceph.conf"),
            user: "client.tierdav".into(),
            cache_pool: Some("tierdav-cache".into()),
            data_pool: "tierdav-data".into(),
            namespace: format!("{name}-{}-{n}", now.as_nanos()),
            op_timeout: Duration::from_secs(30),
        },
        Arc::default(),
    );
    Arc::new(pools.unwrap())
}
