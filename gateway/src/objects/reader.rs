//! Reading one version, object by object, from whichever tier has it at that moment.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tiering::{Event, FileId, Nanos, ObjectId, Tier};

use super::cache::{ObjectCache, blocking};
use super::error::CacheError;
use super::io::{read_full_at, read_full_now};
use super::options::IoContext;
use super::read_ahead::ReadAhead;
use super::running::Running;
use super::store::{Mark, StoreError, Stored};

/// Bytes that one `read` returns at most.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Bytes compared at a time: they stay in the processor's cache.
const COMPARED_BYTES: usize = 64 << 10;
/// Bytes of a version compared first.
const FIRST_COMPARED_BYTES: usize = 4 << 10;
/// A tree read of at least this size at an object's start announces the rest of the object to the kernel.
const READ_AHEAD_FROM_BYTES: usize = 128 << 10;
/// Lookups of an object that moves away under the reader, before its file is taken to be lost.
const LOOKUPS_MAX: u32 = 4;

/// Reads one version of a file's content. Pins it: what [`ObjectCache::forget`] drops stays readable here
/// until the reader is dropped.
pub struct ContentReader {
    shared: Arc<Shared>,
}

struct Shared {
    cache: Arc<ObjectCache>,
    file: FileId,
    len: u64,
    /// `None`: the content is in pools.
    tree: Option<Arc<File>>,
    io: IoContext,
    state: Mutex<ReadState>,
    ahead: Option<tokio::sync::Mutex<ReadAhead>>,
}

#[derive(Default)]
struct ReadState {
    /// The cached object read last: its file stays readable when the object is evicted.
    open: Option<(Stored, Arc<File>)>,
    /// Checksum of the open object's first bytes, while they are read in order.
    running: Option<Running>,
    /// The object whose first parts came from memory: the next that comes from the device is checked with all before it.
    unchecked: Option<u32>,
    /// The run of adjacent reads not yet told to metrics, trace and policy.
    run: Option<Run>,
}

/// Where a part of a version is.
#[derive(Debug)]
pub enum Place {
    /// In the backing tier, where it is in the version.
    InTree,
    /// In this file of the cache, from this byte of it on.
    Cached(Arc<File>, CheckedObject, u64),
}

/// What is known of a cached object whose bytes were compared with their checksum since the start.
#[derive(Debug, Clone, Copy)]
pub struct CheckedObject {
    /// CRC-32C of all its bytes.
    pub crc: u32,
    /// Bytes.
    pub len: u32,
}

#[derive(Clone, Copy)]
struct Run {
    index: u32,
    offset: u32,
    len: u32,
    tier: Tier,
    started: Nanos,
    latency_ns: u64,
}

impl ContentReader {
    pub(super) fn new(
        cache: Arc<ObjectCache>,
        file: FileId,
        len: u64,
        tree: Option<Arc<File>>,
        io: IoContext,
    ) -> Self {
        cache.pin(file, tree.as_ref());
        let pooled = tree.is_none();
        ContentReader {
            shared: Arc::new(Shared {
                ahead: pooled
                    .then(|| tokio::sync::Mutex::new(ReadAhead::new(cache.clone(), file, len))),
                cache,
                file,
                len,
                tree,
                io,
                state: Mutex::default(),
            }),
        }
    }

    /// The version's length in bytes.
    pub fn len(&self) -> u64 {
        self.shared.len
    }

    /// Whether the version has no bytes.
    pub fn is_empty(&self) -> bool {
        self.shared.len == 0
    }

    /// The version.
    pub fn file(&self) -> FileId {
        self.shared.file
    }

    /// The version's tree file, if the content is there.
    pub fn tree(&self) -> Option<&Arc<File>> {
        self.shared.tree.as_ref()
    }

    /// Whether the content is in pools.
    pub fn is_pooled(&self) -> bool {
        self.shared.tree.is_none()
    }

    /// Says that reads up to `until` will follow in order, so that they can be begun ahead.
    pub fn announce(&self, until: u64) {
        if let Some(ahead) = &self.shared.ahead
            && let Ok(mut ahead) = ahead.try_lock()
        {
            ahead.announce(until);
        }
    }

    /// Whether the version has exactly `data` at `offset`, as far as that can be told from what the kernel has in memory: `false`
    /// means that it differs or is not known. Waits only for file systems that cannot tell what they have in memory
    /// (`in_place = false`). No access in the policy's or the trace's sense.
    pub async fn holds(&self, offset: u64, data: &Bytes) -> bool {
        if self.shared.cache.opts.in_place {
            return self.shared.holds(offset, data);
        }
        let (shared, data) = (self.shared.clone(), data.clone());
        let held = blocking(move || Ok(shared.holds(offset, &data))).await;
        held.unwrap_or(false)
    }

    /// Whether the version is exactly `data`, as [`ContentReader::holds`] tells it; for a blocking thread.
    pub fn is_exactly(&self, data: &[Bytes]) -> bool {
        let mut at = 0;
        let all = data.iter().all(|part| {
            let held = self.shared.holds(at, part);
            at += part.len() as u64;
            held
        });
        all && at == self.len()
    }

    /// Reads up to `max_len` bytes (at most 1 MiB) from `offset`, at most to the end of the object there.
    /// Empty only at the end of the version. The tier is the one that served.
    ///
    /// Cancel-safe. An error means that the announced length cannot be delivered: break the connection off.
    pub async fn read(&self, offset: u64, max_len: usize) -> Result<(Bytes, Tier), CacheError> {
        if offset >= self.shared.len || max_len == 0 {
            return Ok((Bytes::new(), Tier::Backing));
        }
        let shared = self.shared.clone();
        if let Some(ahead) = &self.shared.ahead {
            return shared.read_ahead(ahead, offset, max_len).await;
        }
        let _foreground = self.shared.cache.foreground();
        if shared.cache.opts.in_place
            && let Some(read) = shared.read_chunk_now(offset, max_len)
        {
            return Ok(read);
        }
        blocking(move || shared.read_chunk(offset, max_len)).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(run) = self.state.get_mut().run.take() {
            self.report(run);
        }
        self.cache.unpin(self.file);
    }
}

impl Shared {
    async fn read_ahead(
        &self,
        ahead: &tokio::sync::Mutex<ReadAhead>,
        offset: u64,
        max_len: usize,
    ) -> Result<(Bytes, Tier), CacheError> {
        let _foreground = self.cache.foreground();
        let mut ahead = ahead.lock().await;
        let max_len = max_len.min(CHUNK_BYTES_MAX);
        let (bytes, tier, stretch) = ahead.next(offset, max_len).await?;
        if let Some(s) = stretch {
            self.note(s.index, s.within, s.len, tier, s.started, s.latency_ns);
        }
        Ok((bytes, tier))
    }

    fn read_chunk(&self, offset: u64, max_len: usize) -> Result<(Bytes, Tier), CacheError> {
        let started = self.cache.recorder.now();
        let (index, within, want) = self.chunk(offset, max_len);
        let mut buf = vec![0; want];
        let tier = self.read_object(index, within, &mut buf)?;
        Ok(self.chunk_read(index, within, buf, tier, started))
    }

    /// [`Shared::read_chunk`] from what the kernel has in memory, on whatever thread; `None` when that cannot be, or anything is
    /// out of the ordinary.
    fn read_chunk_now(&self, offset: u64, max_len: usize) -> Option<(Bytes, Tier)> {
        let started = self.cache.recorder.now();
        let (index, within, want) = self.chunk(offset, max_len);
        let mut buf = vec![0; want];
        let tier = self.read_object_now(index, within, &mut buf)?;
        Some(self.chunk_read(index, within, buf, tier, started))
    }

    /// Compares `data` with the content at `offset`, piece by piece until the first difference.
    fn holds(&self, offset: u64, data: &[u8]) -> bool {
        let end = offset.checked_add(data.len() as u64);
        if self.tree.is_none() || end.is_none_or(|end| end > self.len) {
            return false;
        }
        let mut buf = vec![0; data.len().min(COMPARED_BYTES)];
        let (mut at, mut rest) = (offset, data);
        // Most files that differ do so from the beginning.
        let mut step = match offset {
            0 => FIRST_COMPARED_BYTES,
            _ => COMPARED_BYTES,
        };
        while !rest.is_empty() {
            let (index, within, want) = self.chunk(at, rest.len().min(step));
            step = COMPARED_BYTES;
            let (part, more) = rest.split_at(want);
            let buf = &mut buf[..want];
            let read = if self.cache.opts.in_place {
                self.read_object_now(index, within, buf)
            } else {
                self.read_object(index, within, buf).ok()
            };
            if read.is_none() || buf != part {
                return false;
            }
            at += want as u64;
            rest = more;
        }
        true
    }

    /// What is read at a time from `offset`: the object, the offset in it, and how many bytes.
    fn chunk(&self, offset: u64, max_len: usize) -> (u32, u32, usize) {
        let object_bytes = u64::from(self.cache.opts.object_bytes);
        let index = (offset / object_bytes) as u32;
        let within = (offset % object_bytes) as u32;
        let left = u64::from(self.cache.object_len(self.len, index) - within);
        let want = left.min(max_len.min(CHUNK_BYTES_MAX) as u64) as usize;
        (index, within, want)
    }

    fn chunk_read(
        &self,
        index: u32,
        within: u32,
        buf: Vec<u8>,
        tier: Tier,
        started: Nanos,
    ) -> (Bytes, Tier) {
        let latency_ns = self.cache.recorder.now().0.saturating_sub(started.0);
        self.note(index, within, buf.len() as u32, tier, started, latency_ns);
        (Bytes::from(buf), tier)
    }

    fn read_object_now(&self, index: u32, within: u32, buf: &mut [u8]) -> Option<Tier> {
        let id = ObjectId::new(self.file, index);
        let open = self.state.lock().open.clone().filter(|(o, _)| o.id == id);
        let cached = match open {
            Some(open) => Some(open),
            None => match self.cache.lookup_beside_tree(id).ok()? {
                Some((_, false)) => return None,
                Some((object, true)) => {
                    let file = self.cache.dir.as_ref()?.open_object_now(&object)?;
                    Some((object, file))
                }
                None => None,
            },
        };
        match (cached, &self.cache.dir) {
            (Some((object, file)), Some(dir)) => {
                if !dir.read_open_now(&file, within, buf) {
                    return None;
                }
                // These bytes were checked when they came from the device, or came from a client.
                let mut state = self.state.lock();
                state.running = None;
                state.unchecked = Some(index);
                state.open = Some((object, file));
                Some(Tier::Cache)
            }
            _ => {
                let offset = u64::from(index) * u64::from(self.cache.opts.object_bytes);
                let offset = offset + u64::from(within);
                let tree = self.tree.as_ref()?;
                read_full_now(tree, buf, offset, &self.cache.tree_faults).then_some(Tier::Backing)
            }
        }
    }

    fn read_object(&self, index: u32, within: u32, buf: &mut [u8]) -> Result<Tier, CacheError> {
        let id = ObjectId {
            file: self.file,
            index,
        };
        let open = self.state.lock().open.clone();
        if let Some((object, file)) = open
            && object.id == id
        {
            match self.read_cached(&object, &file, true, within, buf) {
                Ok(()) => return Ok(Tier::Cache),
                Err(e) => self.give_up_on(&object, within, e)?,
            }
        }
        // Without a cache, too: what was lost with one is not in the tree.
        for attempt in 1..=LOOKUPS_MAX {
            let Some((object, verified)) = self.cache.lookup_beside_tree(id)? else {
                break;
            };
            match self.cache.open_object(&object) {
                Ok(file) => {
                    let file = Arc::new(file);
                    match self.read_cached(&object, &file, verified, within, buf) {
                        Ok(()) => {
                            let mut state = self.state.lock();
                            state.open = Some((object, file));
                            return Ok(Tier::Cache);
                        }
                        Err(e) => self.give_up_on(&object, within, e)?,
                    }
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < LOOKUPS_MAX => {}
                Err(e) => {
                    self.give_up_on(&object, within, StoreError::io("open", id, e))?;
                    break;
                }
            }
        }
        self.read_tree(index, within, buf)?;
        Ok(Tier::Backing)
    }

    /// Reads from an open cached object; checks its checksum when the whole object passes by, in one read or
    /// in order, and always before its first use after a start.
    fn read_cached(
        &self,
        object: &Stored,
        file: &File,
        verified: bool,
        within: u32,
        buf: &mut [u8],
    ) -> Result<(), StoreError> {
        let Some(dir) = &self.cache.dir else {
            return Err(StoreError::NotFound { id: object.id });
        };
        let damaged = || StoreError::Damaged { id: object.id };
        let unchecked = self.state.lock().unchecked.take() == Some(object.id.index);
        if !verified || (unchecked && within > 0) {
            let mut whole = vec![0; object.len as usize];
            dir.read_open(file, object, 0, &mut whole)?;
            if crc32c::crc32c(&whole) != object.crc {
                return Err(damaged());
            }
            self.cache.core.lock().residency.set_verified(object.id);
            self.state.lock().running = None;
            let from = within as usize;
            let part = whole.get(from..from + buf.len()).ok_or_else(damaged)?;
            buf.copy_from_slice(part);
            return Ok(());
        }
        dir.read_open(file, object, within, buf)?;
        let mut state = self.state.lock();
        let whole = (object.len, object.crc);
        let running = Running::checked(state.running, object.id.index, whole, within, buf);
        state.running = running.ok_or_else(damaged)?;
        Ok(())
    }

    /// A cached object that cannot be read: `Ok` when the backing tier has the same bytes, and the reader may
    /// go on there.
    fn give_up_on(
        &self,
        object: &Stored,
        within: u32,
        error: StoreError,
    ) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        let part_given =
            within > 0 && state.running.is_some() && matches!(error, StoreError::Damaged { .. });
        state.open = None;
        state.running = None;
        drop(state);
        let current = self.cache.lookup(object.id).map(|(object, _)| object);
        let dirty = current.is_some_and(|o| o.mark == Mark::Dirty);
        tracing::error!(object = %object.id, dirty, %error, "cached object cannot be read");
        self.cache.count_damage();
        if dirty {
            return Err(match error {
                StoreError::Io { .. } => error.into(),
                _ => CacheError::Damaged { id: object.id },
            });
        }
        self.cache.drop_damaged(object);
        // Earlier chunks of this object went out before its checksum could be known: break off.
        if part_given {
            return Err(CacheError::Damaged { id: object.id });
        }
        Ok(())
    }

    fn read_tree(&self, index: u32, within: u32, buf: &mut [u8]) -> Result<(), CacheError> {
        let Some(tree) = &self.tree else {
            return Err(CacheError::NoBacking);
        };
        let object_bytes = u64::from(self.cache.opts.object_bytes);
        let offset = u64::from(index) * object_bytes + u64::from(within);
        if within == 0 && buf.len() >= READ_AHEAD_FROM_BYTES && buf.len() < object_bytes as usize {
            let rest = u64::from(self.cache.object_len(self.len, index));
            // A hint: a file system that does not take it reads as well without.
            let _ = rustix::fs::fadvise(
                tree,
                offset,
                std::num::NonZeroU64::new(rest),
                rustix::fs::Advice::WillNeed,
            );
        }
        let n = read_full_at(tree, buf, offset, &self.cache.tree_faults)
            .map_err(|e| CacheError::backing(format!("read file {} at {offset}", self.file), e))?;
        if n < buf.len() {
            return Err(CacheError::Truncated {
                file: self.file,
                offset: offset + n as u64,
            });
        }
        Ok(())
    }

    /// Joins adjacent reads of an object into one event, and reports the run that this read ends.
    fn note(&self, index: u32, offset: u32, len: u32, tier: Tier, started: Nanos, ns: u64) {
        let finished = {
            let mut state = self.state.lock();
            match &mut state.run {
                Some(run)
                    if run.index == index && run.tier == tier && run.offset + run.len == offset =>
                {
                    run.len += len;
                    run.latency_ns += ns;
                    None
                }
                run => run.replace(Run {
                    index,
                    offset,
                    len,
                    tier,
                    started,
                    latency_ns: ns,
                }),
            }
        };
        if let Some(run) = finished {
            self.report(run);
        }
    }

    fn report(&self, run: Run) {
        self.cache.report(self.file, self.len, self.io, run);
    }
}

impl ObjectCache {
    /// Tells metrics, trace and policy that `run` of a version of `len` bytes was read: to all of them it is one read.
    fn report(&self, file: FileId, len: u64, io: IoContext, run: Run) {
        self.count_read(run.tier, u64::from(run.len), run.latency_ns);
        let id = ObjectId::new(file, run.index);
        self.trace_object(
            tiering::trace::Op::ObjectRead,
            id,
            u64::from(run.offset),
            u64::from(run.len),
            run.tier,
            run.started,
            run.latency_ns,
            io,
        );
        self.observe(
            file,
            &Event::Read {
                id,
                offset: run.offset,
                len: run.len,
                object_len: self.object_len(len, run.index),
                served: run.tier,
            },
        );
    }

    /// The object that all of a `part` lies in, and where.
    fn object_of(&self, file: FileId, part: &Range<u64>) -> Option<(ObjectId, u32)> {
        let object_bytes = u64::from(self.opts.object_bytes);
        let index = part.start / object_bytes;
        let last = part.end.checked_sub(1)? / object_bytes;
        let id = ObjectId::new(file, u32::try_from(index).ok()?);
        (index == last).then_some((id, (part.start % object_bytes) as u32))
    }

    /// Where a `part` of a version of `len` bytes is, if it is in a cached object that was checked and whose file can be opened without
    /// a disk, or if its object is not in the cache. `None`: nothing is certain, or it is in more than one object.
    pub fn find_part(&self, file: FileId, len: u64, part: &Range<u64>) -> Option<Place> {
        if self.pools.is_some() {
            return None;
        }
        let (id, within) = self.object_of(file, part)?;
        match self.lookup_or_lost(id).ok()? {
            None => Some(Place::InTree),
            Some((object, true)) if object.len == self.object_len(len, id.index) => {
                let file = self.dir.as_ref()?.open_object_now(&object)?;
                let checked = CheckedObject {
                    crc: object.crc,
                    len: object.len,
                };
                Some(Place::Cached(file, checked, u64::from(within)))
            }
            Some(_) => None,
        }
    }

    /// A client read a `part` of a version of `len` bytes from memory: tells metrics, trace and policy. Returns the tier that has
    /// it; `None` if that is not certain, or is not the one where it was `found`, or has not been read since the start, or there are two.
    pub fn read_in_memory(
        &self,
        file: FileId,
        (len, part): (u64, &Range<u64>),
        found: Option<Tier>,
        started: Nanos,
        io: IoContext,
    ) -> Option<Tier> {
        if part.is_empty() {
            return Some(Tier::Backing);
        }
        let (id, offset) = self.object_of(file, part)?;
        let part_len = u32::try_from(part.end - part.start).ok()?;
        let tier = match self.lookup_or_lost(id).ok()? {
            // What came from a pool was checked when it came.
            Some((_, false)) if self.pools.is_none() => return None,
            Some(_) => Tier::Cache,
            None => Tier::Backing,
        };
        if found.is_some_and(|found| found != tier) {
            return None;
        }
        let latency_ns = self.recorder.now().0.saturating_sub(started.0);
        let run = Run {
            index: id.index,
            offset,
            len: part_len,
            tier,
            started,
            latency_ns,
        };
        self.report(file, len, io, run);
        Some(tier)
    }
}
