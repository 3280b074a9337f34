//! Writing a new version: bytes go object by object to the tier that the policy chose, unseen until published.

mod local;
mod pooled;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use tiering::trace::Op;
use tiering::{Event, FileId, Nanos, ObjectId, Tier};
use tokio::sync::OwnedSemaphorePermit;

use super::cache::ObjectCache;
use super::error::CacheError;
use super::gathering::Gathered;
use super::options::IoContext;
use super::pools::Pools;
use super::reader::ContentReader;

use local::LocalStaging;
use pooled::PooledStaging;

/// Objects up to this size are returned as [`StagedObject::inline`] and not synced: the log carries them.
pub const INLINE_BYTES_MAX: u32 = 64 << 10;
/// Zeros written at once into a gap.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A version that is being written. Dropping it discards everything.
///
/// After an error or a cancelled call the content is incomplete: drop it.
pub struct Staging {
    to: To,
    len: u64,
}

enum To {
    Local(LocalStaging),
    Pools(PooledStaging),
}

/// A dirty object of a staged version, for the log.
#[derive(Debug, Clone)]
pub struct StagedObject {
    /// The object.
    pub id: ObjectId,
    /// Its length.
    pub len: u32,
    /// Its crc32c.
    pub crc: u32,
    /// Its bytes, if it is small and not synced: the log must carry them (`durability = commit` only).
    pub inline: Option<Bytes>,
}

/// Who makes durable what a version has in its tree file (`durability = commit` only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeBytes {
    /// Staging syncs them.
    Synced,
    /// The caller syncs the file, once, after its own changes to it.
    Unsynced,
    /// As `Synced`, but what goes past the cache, is short and comes as a whole is left to the caller's log: [`Staged::logged`].
    Logged,
}

/// A version whose bytes are all in their stores. Readable already, by its id; dropping it without
/// [`Staged::publish`] discards it.
pub struct Staged {
    /// Length of the version.
    pub len: u64,
    /// Objects whose bytes are only in the cache tier. Empty: the tree file is complete.
    pub dirty: Vec<StagedObject>,
    /// Whether the tree file has some of the bytes, which the log has not.
    pub tree_written: bool,
    /// All of the bytes, if they are in the tree file and not synced: the log must carry them.
    pub logged: Option<Bytes>,
    placed: Vec<Placed>,
    file: FileId,
    io: IoContext,
    started: Nanos,
    published: bool,
    /// The bytes are in pools; the tree has a placeholder.
    pub(crate) pooled: bool,
    cache: Arc<ObjectCache>,
}

pub(super) struct Placed {
    pub index: u32,
    pub len: u32,
    pub cached: bool,
    pub dirty: bool,
    pub io_ns: u64,
}

/// The version that a staged one began as, and how many of its objects, from the first, came along.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub file: FileId,
    pub objects: u32,
}

impl Origin {
    /// The staged version was cut to so many objects; what is written behind them is its own.
    pub fn cut(&mut self, objects: u32) {
        self.objects = self.objects.min(objects);
    }
}

impl Staging {
    pub(super) fn new(
        cache: Arc<ObjectCache>,
        file: FileId,
        tree: Arc<File>,
        io: IoContext,
    ) -> Self {
        let to = match cache.pools().cloned() {
            Some(pools) => To::Pools(PooledStaging::new(cache, pools, file, io)),
            None => To::Local(LocalStaging::new(cache, file, tree, io)),
        };
        Staging { to, len: 0 }
    }

    pub(super) async fn from_old(
        cache: Arc<ObjectCache>,
        old: &ContentReader,
        file: FileId,
        tree: Arc<File>,
        io: IoContext,
    ) -> Result<Staging, CacheError> {
        let (to, len) = match cache.pools().cloned() {
            None => {
                let local = LocalStaging::from_old(cache, old, file, tree, io).await?;
                (To::Local(local), old.len())
            }
            Some(pools) if old.is_pooled() => {
                let mut pooled = PooledStaging::new(cache, pools, file, io);
                pooled.share(old);
                (To::Pools(pooled), old.len())
            }
            Some(_) => {
                // The old version is a plain file.
                let mut staging = Staging::new(cache, file, tree, io);
                while staging.len < old.len() {
                    let (data, _) = old.read(staging.len, usize::MAX).await?;
                    staging.write(data).await?;
                }
                return Ok(staging);
            }
        };
        Ok(Staging { to, len })
    }

    /// Length so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many objects, from the first, may be in pools by now, as long as this lives; `None` when they go elsewhere.
    pub fn begun(&self) -> Option<Arc<AtomicU32>> {
        match &self.to {
            To::Local(_) => None,
            To::Pools(pooled) => Some(pooled.begun()),
        }
    }

    /// Announces the final length, so that the policy places objects by their real size.
    pub fn expect_len(&mut self, len: u64) {
        match &mut self.to {
            To::Local(local) => local.expect_len(len),
            To::Pools(pooled) => pooled.expect_len(len),
        }
    }

    /// Says who makes durable what the tree file gets; without that it is staging.
    pub fn leave_tree_bytes(&mut self, to: TreeBytes) {
        if let To::Local(local) = &mut self.to {
            local.leave_tree_bytes(to);
        }
    }

    /// Appends.
    pub async fn write(&mut self, data: Bytes) -> Result<(), CacheError> {
        self.write_at(self.len, data).await
    }

    /// Writes anywhere; a gap between the end and `offset` becomes zeros.
    pub async fn write_at(&mut self, offset: u64, data: Bytes) -> Result<(), CacheError> {
        if data.is_empty() {
            return Ok(());
        }
        self.fill_to(offset).await?;
        self.push(offset, data).await
    }

    /// Cuts the content, or extends it with zeros.
    pub async fn truncate(&mut self, len: u64) -> Result<(), CacheError> {
        if len >= self.len {
            return self.fill_to(len).await;
        }
        self.len = len;
        match &mut self.to {
            To::Local(local) => local.truncate(len).await,
            To::Pools(pooled) => pooled.truncate(len).await,
        }
    }

    async fn fill_to(&mut self, end: u64) -> Result<(), CacheError> {
        while self.len < end {
            let n = (end - self.len).min(ZEROS.len() as u64) as usize;
            self.push(self.len, Bytes::from_static(&ZEROS[..n])).await?;
        }
        Ok(())
    }

    async fn push(&mut self, offset: u64, data: Bytes) -> Result<(), CacheError> {
        self.len = self.len.max(offset + data.len() as u64);
        match &mut self.to {
            To::Local(local) => local.push(offset, data).await,
            To::Pools(pooled) => pooled.push(offset, data).await,
        }
    }

    /// Completes the version: all bytes are in their stores; with `durability = commit`, objects that are not
    /// returned inline and the tree file's bytes are on stable storage.
    pub async fn finish(self) -> Result<Staged, CacheError> {
        match self.to {
            To::Local(local) => local.finish(self.len).await,
            To::Pools(pooled) => pooled.finish(self.len).await,
        }
    }
}

impl ObjectCache {
    /// Bytes up to which [`ObjectCache::stage_whole`] and [`ObjectCache::stage_whole_pooled`] take a version.
    pub fn whole_bytes_max(&self) -> u64 {
        u64::from(self.opts.object_bytes).min(local::GATHER_BYTES as u64)
    }

    /// Room in memory for content of so many bytes that [`ObjectCache::stage_whole`] is to take; `None` while uploads have enough there.
    pub fn gather(&self, bytes: u64) -> Option<Gathered> {
        self.gathering.take(bytes)
    }

    /// Whether content is looked at where the request is, as far as the kernel has it in memory.
    pub fn in_place(&self) -> bool {
        self.opts.in_place
    }

    /// Counts an upload of what was there already.
    pub fn note_unchanged(&self, bytes: u64) {
        self.metrics.unchanged_upload(bytes);
    }

    /// Such uploads and their bytes so far.
    #[cfg(test)]
    pub fn unchanged(&self) -> (u64, u64) {
        self.metrics.unchanged_uploads()
    }

    /// Makes a new version of content that is all in memory, as [`Staging`] would. Blocking, and over directories only.
    pub fn stage_whole(
        self: &Arc<Self>,
        file: FileId,
        tree: Arc<File>,
        io: IoContext,
        data: Vec<Bytes>,
        tree_bytes: TreeBytes,
    ) -> Result<Staged, CacheError> {
        let mut staging = LocalStaging::new(self.clone(), file, tree, io);
        staging.leave_tree_bytes(tree_bytes);
        staging.finish_whole(data)
    }

    /// Begins a new version over pools whose content, of at most [`ObjectCache::whole_bytes_max`] bytes, is all in memory; `room` is
    /// what [`ObjectCache::flight`] gave for it. Never blocks. Wait for the returned staging to [`finish`](Staging::finish).
    pub fn stage_whole_pooled(
        self: &Arc<Self>,
        pools: &Arc<dyn Pools>,
        file: FileId,
        io: IoContext,
        data: Vec<Bytes>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Staging {
        let len = data.iter().map(|part| part.len() as u64).sum();
        let mut pooled = PooledStaging::new(self.clone(), Arc::clone(pools), file, io);
        pooled.begin_whole(data, room);
        Staging {
            to: To::Pools(pooled),
            len,
        }
    }
}

impl Staged {
    /// The version is visible: tells the policy and the trace. Never blocks.
    pub fn publish(mut self) {
        self.published = true;
        for object in &self.placed {
            let id = ObjectId::new(self.file, object.index);
            let placed = if object.cached {
                Tier::Cache
            } else {
                Tier::Backing
            };
            self.cache
                .count_write(placed, u64::from(object.len), object.io_ns);
            self.cache.trace_object(
                Op::ObjectWrite,
                id,
                0,
                u64::from(object.len),
                placed,
                self.started,
                object.io_ns,
                self.io,
            );
            let len = object.len;
            self.cache
                .observe(self.file, &Event::Written { id, len, placed });
            if object.cached && !object.dirty {
                self.cache.observe(self.file, &Event::Flushed { id });
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            self.cache.drop_version(self.file, None);
        }
    }
}
