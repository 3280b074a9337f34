//! A new version over two pools: objects are gathered whole in memory and written several at a time, each by one operation.
//!
//! Objects have their final names from the start: nobody asks for a version before it is published. What is discarded is
//! removed with the version's placeholder (`purge`), or by scrub.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tiering::{FileId, Nanos, ObjectId, Tier};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;

use super::super::cache::{ObjectCache, entry_of};
use super::super::error::CacheError;
use super::super::options::{IoContext, WritePolicy};
use super::super::pools::{ObjectInfo, PoolError, Pools};
use super::super::reader::ContentReader;
use super::super::residency::Entry;
use super::super::store::{Mark, Stored};
use super::{Origin, Placed, Staged};
use crate::parts::Parts;

/// Bytes of one version on their way to the pools, beyond the object being gathered.
const IN_FLIGHT_BYTES: u64 = 32 << 20;
/// Objects of one version on their way to the pools, when they are small.
const IN_FLIGHT_OBJECTS: usize = 32;

/// See [`Staging`](super::Staging).
pub(super) struct PooledStaging {
    shared: Arc<Shared>,
    slots: BTreeMap<u32, Slot>,
    /// The object that was changed last.
    changing: Option<u32>,
    origin: Option<Origin>,
    /// Of the old version, some of whose objects are read only when they are changed.
    _old: Option<Pinned>,
    flights: VecDeque<Flight>,
    flying_bytes: u64,
    expected: Option<u64>,
    /// No object was taken back to be changed: what is written first may lie in the data pool yet.
    first_hand: bool,
    /// Objects, from the first, beyond which no write was begun.
    begun: Arc<AtomicU32>,
    finished: bool,
}

/// What operations under way need; the pin goes with the last of them.
struct Shared {
    cache: Arc<ObjectCache>,
    pools: Arc<dyn Pools>,
    file: FileId,
    io: IoContext,
    started: Nanos,
}

/// Keeps a version's objects, though it may be replaced or deleted.
struct Pinned {
    cache: Arc<ObjectCache>,
    file: FileId,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.cache.unpin(self.file);
    }
}

type Outcome = Result<Written, CacheError>;

/// An object under way.
struct Flight {
    index: u32,
    bytes: u64,
    /// Never locked, only polled; the mutex is what lets threads share a reference to an upload.
    outcome: Mutex<BoxFuture<'static, Result<Outcome, JoinError>>>,
}

/// One object of the new version.
enum Slot {
    /// In memory, not yet written.
    Gathering { parts: Parts, len: u32 },
    /// In memory as a whole, being changed.
    Changing(BytesMut),
    /// The same bytes as this object of the old version.
    Same { old: ObjectId, len: u32 },
    /// On its way; the outcome is in `flights`.
    Flying,
    /// In its pools.
    Written(Written),
}

#[derive(Clone, Copy)]
struct Written {
    len: u32,
    crc: u32,
    cached: bool,
    in_data: bool,
    /// Nothing was ever asked of the data pool.
    alone: bool,
    io_ns: u64,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cache.unpin(self.file);
    }
}

impl PooledStaging {
    pub fn new(
        cache: Arc<ObjectCache>,
        pools: Arc<dyn Pools>,
        file: FileId,
        io: IoContext,
    ) -> PooledStaging {
        cache.pin(file, None);
        let started = cache.recorder.now();
        PooledStaging {
            shared: Arc::new(Shared {
                cache,
                pools,
                file,
                io,
                started,
            }),
            slots: BTreeMap::new(),
            changing: None,
            origin: None,
            _old: None,
            flights: VecDeque::new(),
            flying_bytes: 0,
            expected: None,
            first_hand: true,
            begun: Arc::default(),
            finished: false,
        }
    }

    /// Begins as a copy of an old version.
    pub fn share(&mut self, old: &ContentReader) {
        let cache = &self.shared.cache;
        let objects = cache.objects_in(old.len());
        cache.pin(old.file(), None);
        self._old = Some(Pinned {
            cache: Arc::clone(cache),
            file: old.file(),
        });
        self.origin = Some(Origin {
            file: old.file(),
            objects,
        });
        for index in 0..objects {
            let len = cache.object_len(old.len(), index);
            let old = ObjectId::new(old.file(), index);
            self.slots.insert(index, Slot::Same { old, len });
        }
    }

    pub fn begun(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.begun)
    }

    pub fn expect_len(&mut self, len: u64) {
        self.expected = Some(len);
    }

    /// Writes at `offset`, which is not past the end.
    pub async fn push(&mut self, mut offset: u64, mut data: Bytes) -> Result<(), CacheError> {
        let object_bytes = u64::from(self.shared.cache.opts.object_bytes);
        while !data.is_empty() {
            let index = u32::try_from(offset / object_bytes).map_err(|_| CacheError::TooLarge)?;
            let within = (offset % object_bytes) as u32;
            let n = (object_bytes - u64::from(within)).min(data.len() as u64) as usize;
            let part = data.split_to(n);
            self.put_part(index, within, part).await?;
            offset += n as u64;
        }
        Ok(())
    }

    async fn put_part(&mut self, index: u32, within: u32, part: Bytes) -> Result<(), CacheError> {
        let object_bytes = self.shared.cache.opts.object_bytes;
        let end = within + part.len() as u32;
        // A request writes upwards: what it has left behind need not wait in memory for its end.
        if let Some(behind) = self.changing.filter(|changed| *changed != index) {
            self.changing = None;
            self.launch(behind).await?;
        }
        let covers = |old: u32| within == 0 && end >= old;
        let slot = match self.slots.remove(&index) {
            None if within == 0 => Slot::Gathering {
                parts: Parts::default(),
                len: 0,
            },
            Some(Slot::Same { len, .. }) if covers(len) => Slot::Gathering {
                parts: Parts::default(),
                len: 0,
            },
            Some(gathering @ Slot::Gathering { len, .. }) if len == within => gathering,
            // Anything that is not an append: the object is taken into memory, changed, and written anew.
            other => {
                let mut whole = self.load(index, other).await?;
                if whole.len() < end as usize {
                    whole.resize(end as usize, 0);
                }
                whole[within as usize..end as usize].copy_from_slice(&part);
                self.slots.insert(index, Slot::Changing(whole));
                self.changing = Some(index);
                if end == object_bytes {
                    self.launch(index).await?;
                }
                return Ok(());
            }
        };
        let Slot::Gathering { mut parts, len } = slot else {
            return Ok(());
        };
        let len = len + part.len() as u32;
        parts.push(part);
        self.slots.insert(index, Slot::Gathering { parts, len });
        if len == object_bytes {
            self.launch(index).await?;
        }
        Ok(())
    }

    /// The bytes of an object of this version, from wherever they are.
    async fn load(&mut self, index: u32, slot: Option<Slot>) -> Result<BytesMut, CacheError> {
        Ok(match slot {
            None => BytesMut::new(),
            Some(Slot::Gathering { parts, len, .. }) => {
                let mut whole = BytesMut::with_capacity(len as usize);
                let parts = parts.into_vec();
                parts.iter().for_each(|p| whole.extend_from_slice(p));
                whole
            }
            Some(Slot::Changing(whole)) => whole,
            Some(Slot::Same { old, len }) => {
                let read = self.shared.cache.read_pooled(old, len, 0, len).await?;
                BytesMut::from(&read.bytes[..])
            }
            Some(Slot::Flying) => {
                while let Some((landed, written)) = self.land().await? {
                    self.slots.insert(landed, Slot::Written(written));
                    if landed == index {
                        break;
                    }
                }
                let landed = self.slots.remove(&index);
                Box::pin(self.load(index, landed)).await?
            }
            Some(Slot::Written(written)) => {
                self.first_hand = false;
                let id = ObjectId::new(self.shared.file, index);
                let tier = if written.cached {
                    Tier::Cache
                } else {
                    Tier::Backing
                };
                let (bytes, _) = self
                    .shared
                    .pools
                    .read(tier, id, 0, written.len)
                    .await
                    .map_err(|e| CacheError::pool("read", id, e))?;
                self.take_back(&written);
                BytesMut::from(&bytes[..])
            }
        })
    }

    /// The cached copy will be written anew, with a reservation of its own.
    fn take_back(&self, written: &Written) {
        if written.cached {
            self.shared.cache.release(u64::from(written.len));
        }
    }

    pub async fn truncate(&mut self, len: u64) -> Result<(), CacheError> {
        let objects = self.shared.cache.objects_in(len);
        if let Some(origin) = &mut self.origin {
            origin.cut(objects);
        }
        self.land_all().await?;
        for (index, slot) in self.slots.split_off(&objects) {
            if let Slot::Written(written) = slot {
                self.take_back(&written);
                let id = ObjectId::new(self.shared.file, index);
                for (tier, there) in [
                    (Tier::Cache, written.cached),
                    (Tier::Backing, written.in_data),
                ] {
                    if there {
                        self.shared
                            .pools
                            .remove(tier, id)
                            .await
                            .map_err(|e| CacheError::pool("remove", id, e))?;
                    }
                }
            }
        }
        let Some(last) = objects.checked_sub(1) else {
            return Ok(());
        };
        let keep = self.shared.cache.object_len(len, last);
        let slot = self.slots.remove(&last);
        let mut whole = self.load(last, slot).await?;
        whole.truncate(keep as usize);
        self.slots.insert(last, gathering(whole.freeze()));
        Ok(())
    }

    /// Writes a version of at most one object that is all in memory. The write has begun when this returns; nothing drives it but
    /// [`PooledStaging::finish`], which is to follow at once. Never blocks.
    pub fn begin_whole(&mut self, data: Vec<Bytes>, permit: Option<OwnedSemaphorePermit>) {
        let len = data.iter().map(|part| part.len() as u32).sum();
        if len == 0 {
            return;
        }
        let id = ObjectId::new(self.shared.file, 0);
        let write = Arc::clone(&self.shared).write(id, data, len, permit);
        self.takes_off(0, u64::from(len), write.map(Ok).boxed());
    }

    fn takes_off(
        &mut self,
        index: u32,
        bytes: u64,
        outcome: BoxFuture<'static, Result<Outcome, JoinError>>,
    ) {
        self.begun.fetch_max(index + 1, Ordering::Relaxed);
        self.slots.insert(index, Slot::Flying);
        self.flying_bytes += bytes;
        self.flights.push_back(Flight {
            index,
            bytes,
            outcome: Mutex::new(outcome),
        });
    }

    /// Begins to write an object that is in memory, or to copy one; waits for older ones first where too much is under way.
    async fn launch(&mut self, index: u32) -> Result<(), CacheError> {
        let id = ObjectId::new(self.shared.file, index);
        let shared = Arc::clone(&self.shared);
        let (parts, len) = match self.slots.remove(&index) {
            Some(Slot::Gathering { parts, len }) => (parts.into_vec(), len),
            Some(Slot::Changing(whole)) => {
                let len = whole.len() as u32;
                (vec![whole.freeze()], len)
            }
            Some(Slot::Same { old, len }) => {
                self.make_room(0).await?;
                let task = tokio::spawn(shared.copy(old, id, len));
                self.takes_off(index, 0, task.boxed());
                return Ok(());
            }
            Some(there @ (Slot::Flying | Slot::Written(_))) => {
                self.slots.insert(index, there);
                return Ok(());
            }
            None => return Ok(()),
        };
        self.make_room(u64::from(len)).await?;
        let permit = shared.cache.flight(len).await?;
        let task = tokio::spawn(shared.write(id, parts, len, permit));
        self.takes_off(index, u64::from(len), task.boxed());
        Ok(())
    }

    async fn make_room(&mut self, bytes: u64) -> Result<(), CacheError> {
        while !self.flights.is_empty()
            && (self.flying_bytes + bytes > IN_FLIGHT_BYTES
                || self.flights.len() >= IN_FLIGHT_OBJECTS)
        {
            if let Some((index, written)) = self.land().await? {
                self.slots.insert(index, Slot::Written(written));
            }
        }
        Ok(())
    }

    /// Waits for the oldest object under way. If this future is dropped, the object stays under way.
    async fn land(&mut self) -> Result<Option<(u32, Written)>, CacheError> {
        let Some(flight) = self.flights.front_mut() else {
            return Ok(None);
        };
        let (index, bytes) = (flight.index, flight.bytes);
        let outcome = flight.outcome.get_mut().await;
        self.flights.pop_front();
        self.flying_bytes -= bytes;
        match outcome {
            Ok(written) => Ok(Some((index, written?))),
            Err(e) => Err(CacheError::Task(e.to_string())),
        }
    }

    async fn land_all(&mut self) -> Result<(), CacheError> {
        while let Some((index, written)) = self.land().await? {
            self.slots.insert(index, Slot::Written(written));
        }
        Ok(())
    }

    pub async fn finish(mut self, len: u64) -> Result<Staged, CacheError> {
        let waiting: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, s)| !matches!(s, Slot::Flying | Slot::Written(_)))
            .map(|(index, _)| *index)
            .collect();
        for index in waiting {
            self.launch(index).await?;
        }
        self.land_all().await?;
        self.finished = true;
        let shared = &self.shared;
        let mut staged = Staged {
            len,
            dirty: Vec::new(),
            tree_written: false,
            logged: None,
            placed: Vec::new(),
            file: shared.file,
            io: shared.io,
            started: shared.started,
            published: false,
            pooled: true,
            cache: Arc::clone(&shared.cache),
        };
        let mut core = shared.cache.core.lock();
        for (index, slot) in std::mem::take(&mut self.slots) {
            let Slot::Written(w) = slot else { continue };
            if w.cached {
                let object = Stored {
                    id: ObjectId::new(shared.file, index),
                    len: w.len,
                    crc: w.crc,
                    mark: if w.in_data { Mark::Clean } else { Mark::Dirty },
                };
                core.staged_bytes -= u64::from(w.len);
                let entry = Entry {
                    alone: w.alone && self.first_hand,
                    ..entry_of(&object, true)
                };
                core.residency.insert(shared.file, entry);
            }
            staged.placed.push(Placed {
                index,
                len: w.len,
                cached: w.cached,
                dirty: !w.in_data,
                io_ns: w.io_ns,
            });
        }
        if let Some(origin) = self.origin {
            core.residency
                .hand_on(origin.file, shared.file, origin.objects);
        }
        drop(core);
        Ok(staged)
    }
}

impl Drop for PooledStaging {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let slots = std::mem::take(&mut self.slots);
        for slot in slots.values() {
            if let Slot::Written(written) = slot {
                self.take_back(written);
            }
        }
        // What is under way cannot be recalled: its room is given back, and the version's pin let go, when it has landed.
        let flights = std::mem::take(&mut self.flights);
        let shared = Arc::clone(&self.shared);
        if flights.is_empty() {
            return;
        }
        shared.cache.clone().in_background(async move {
            for flight in flights {
                if let Ok(Ok(written)) = flight.outcome.into_inner().await
                    && written.cached
                {
                    shared.cache.release(u64::from(written.len));
                }
            }
        });
    }
}

/// Bytes on their way, and the room that they take as long as anybody has them: the client of a cluster that does not answer
/// may hold them long after their write has timed out.
struct Lent {
    bytes: Bytes,
    _room: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn lend(bytes: Bytes, room: &Arc<OwnedSemaphorePermit>) -> Bytes {
    let _room = Arc::clone(room);
    Bytes::from_owner(Lent { bytes, _room })
}

fn gathering(whole: Bytes) -> Slot {
    let len = whole.len() as u32;
    let mut parts = Parts::default();
    parts.push(whole);
    Slot::Gathering { parts, len }
}

impl Shared {
    /// Writes an object of `len` bytes where the policy wants it; what the cache pool does not take goes to the data pool. The first
    /// writes have begun when this returns.
    fn write(
        self: Arc<Self>,
        id: ObjectId,
        parts: Vec<Bytes>,
        len: u32,
        permit: Option<OwnedSemaphorePermit>,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let permit = permit.map(Arc::new);
        let parts = match &permit {
            Some(room) => parts.into_iter().map(|part| lend(part, room)).collect(),
            None => parts,
        };
        let started = self.cache.recorder.now();
        let through = self.cache.opts.write_policy == WritePolicy::Through;
        let wanted = self.cache.place(id, len) == Tier::Cache;
        let object_bytes = self.cache.opts.object_bytes;
        let to_cache = wanted.then(|| {
            self.pools
                .write_new(Tier::Cache, id, parts.clone(), object_bytes, through)
        });
        let to_data = (through || !wanted).then(|| {
            self.pools
                .write_new(Tier::Backing, id, parts.clone(), object_bytes, false)
        });
        async move {
            let _foreground = self.cache.foreground();
            let _permit = permit;
            let in_cache = match to_cache {
                None => None,
                Some(wait) => Some(wait.await),
            };
            let mut in_data = match to_data {
                None => None,
                Some(wait) => Some(wait.await),
            };
            let cached = matches!(in_cache, Some(Ok(_)));
            if let Some(Err(error)) = &in_cache {
                self.cache.release(u64::from(len));
                self.cache.note_cache_error(id, error);
                if !matches!(error, PoolError::Full) {
                    self.cache.leave_cache_alone();
                }
                if in_data.is_none() {
                    in_data = Some(
                        self.pools
                            .write_new(Tier::Backing, id, parts, object_bytes, false)
                            .await,
                    );
                }
            }
            let alone = in_data.is_none();
            let info = match (in_data, in_cache) {
                (Some(Err(e)), _) => {
                    if cached {
                        self.cache.release(u64::from(len));
                    }
                    return Err(CacheError::pool("write", id, e));
                }
                (Some(Ok(info)), _) | (None, Some(Ok(info))) => info,
                (None, _) => return Err(CacheError::NoBacking),
            };
            Ok(Written {
                len,
                crc: info.crc,
                cached,
                in_data: !alone,
                alone,
                io_ns: self.cache.recorder.now().since(started).0,
            })
        }
    }

    /// Copies an object of another version inside the pools, on the tier where it is: one that is on the SSD now should not
    /// wait for the HDD. The copy is dirty then.
    async fn copy(self: Arc<Self>, old: ObjectId, id: ObjectId, len: u32) -> Outcome {
        /// Tries while the object moves between the tiers under us.
        const TRIES: usize = 4;
        let started = self.cache.recorder.now();
        let back = self.cache.opts.write_policy == WritePolicy::Back;
        let mut last = PoolError::NotFound;
        for _ in 0..TRIES {
            let cached = self.cache.lookup_or_lost(old)?.map(|(object, _)| object);
            let stays = back
                && cached.is_some()
                && !self.cache.is_cache_away()
                && self.cache.reserve_now(len);
            let (source, to) = match cached {
                Some(_) if stays => (Tier::Cache, Tier::Cache),
                Some(object) if object.mark == Mark::Dirty => (Tier::Cache, Tier::Backing),
                _ => (Tier::Backing, Tier::Backing),
            };
            let copied = async {
                self.pools.copy((source, old), (to, id)).await?;
                if stays {
                    // The mark was copied as well, but the data pool has no twin of the copy.
                    self.pools.mark_dirty(id).await?;
                }
                self.pools.info(to, id).await
            };
            match copied.await {
                Ok((info, _)) => {
                    return Ok(self.copied(info, started, stays));
                }
                Err(e) => {
                    if stays {
                        self.cache.release(u64::from(len));
                        self.cache.leave_cache_if_away(&e);
                    }
                    let gone = matches!(e, PoolError::NotFound);
                    last = e;
                    if stays && !gone {
                        // The cache pool is full or away: on the data pool, if that has it.
                        let cold = self.pools.copy((Tier::Backing, old), (Tier::Backing, id));
                        if cold.await.is_ok()
                            && let Ok((info, _)) = self.pools.info(Tier::Backing, id).await
                        {
                            return Ok(self.copied(info, started, false));
                        }
                    }
                    if !gone && !stays {
                        break;
                    }
                }
            }
        }
        match last {
            // The OSDs cannot copy between these pools. One that did not answer in time would not answer a read either.
            PoolError::Io(error) if error.kind() != std::io::ErrorKind::TimedOut => {
                tracing::debug!(object = %old, %error, "the OSDs do not copy; the bytes are carried");
                self.carry(old, id, len).await
            }
            last => Err(CacheError::pool("copy", old, last)),
        }
    }

    /// Copies an object through this process.
    async fn carry(self: Arc<Self>, old: ObjectId, id: ObjectId, len: u32) -> Outcome {
        let permit = self.cache.flight(len).await?;
        let read = self.cache.read_pooled(old, len, 0, len).await?;
        self.write(id, vec![read.bytes], len, permit).await
    }

    /// An object that was copied, to one of the pools.
    fn copied(&self, info: ObjectInfo, started: Nanos, cached: bool) -> Written {
        Written {
            len: info.len,
            crc: info.crc,
            cached,
            in_data: !cached,
            alone: false,
            io_ns: self.cache.recorder.now().since(started).0,
        }
    }
}
