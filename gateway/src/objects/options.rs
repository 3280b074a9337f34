//! What the object cache is told, and what it asks of the namespace.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tiering::FileId;

use super::file_system_sync::FileSystemSync;
use super::pools::Pools;
use super::tuning::Tuning;

/// Settings of an [`ObjectCache`](super::ObjectCache), already validated.
#[derive(Clone)]
pub struct CacheOptions {
    /// Directory of the cache tier; `None`: everything is in the backing tier.
    pub cache_dir: Option<PathBuf>,
    /// Pools that hold the content, instead of the tree and a directory.
    pub pools: Option<Arc<dyn Pools>>,
    /// Bytes per object.
    pub object_bytes: u32,
    /// How much content the cache tier may hold.
    pub capacity: Capacity,
    /// Whether new bytes may stay in the cache tier alone for a while.
    pub write_policy: WritePolicy,
    /// What may change later, as it is at the start.
    pub tuning: Tuning,
    /// Whether `finish` leaves bytes on stable storage.
    pub durability: Durability,
    /// Whether what the kernel has in memory is read on whatever thread asks, rather than on one that may wait.
    pub in_place: bool,
}

impl CacheOptions {
    /// Options without a cache tier.
    pub fn uncached() -> Self {
        CacheOptions {
            cache_dir: None,
            pools: None,
            object_bytes: tiering::DEFAULT_OBJECT_BYTES,
            capacity: Capacity::Bytes(0),
            write_policy: WritePolicy::Back,
            tuning: Tuning::default(),
            durability: Durability::Commit,
            in_place: true,
        }
    }
}

/// How much content the cache tier may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// So many bytes.
    Bytes(u64),
    /// Half of what is free, bytes, but for what the cache tier holds already: that counts as free, or each start would leave it less.
    HalfOf {
        /// Free bytes of its device.
        free: u64,
        /// At most so many bytes.
        most: u64,
    },
}

impl Capacity {
    /// In bytes, for a cache tier that holds `cached` bytes.
    pub(super) fn bytes(self, cached: u64) -> u64 {
        match self {
            Capacity::Bytes(bytes) => bytes,
            Capacity::HalfOf { free, most } => (free.saturating_add(cached) / 2).min(most),
        }
    }
}

/// Whether new bytes may stay in the cache tier alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritePolicy {
    /// New objects may be dirty: flushed later.
    Back,
    /// The backing tier has every byte before a write is finished; the cache gets clean copies.
    Through,
    /// The cache tier is no faster than the backing tier, being on the same file system: content goes past it, or it would be
    /// written twice. But small content that is to be durable is in the log anyway, and goes through the cache like
    /// [`WritePolicy::Back`]. Over directories only.
    Around,
}

impl WritePolicy {
    /// Its name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            WritePolicy::Back => "back",
            WritePolicy::Through => "through",
            WritePolicy::Around => "around",
        }
    }
}

/// What a 2xx promises about a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On stable storage before the reply.
    Commit,
    /// In the kernel's hands: survives a kill, not a power cut.
    Relaxed,
}

/// Who does an I/O, for the trace: ids from the recorder's dictionaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoContext {
    /// Client id.
    pub client: u32,
    /// Path id.
    pub path: u32,
}

/// What the namespace offers to the mover. Called on blocking threads, never with a lock of this module held.
pub trait Backing: Send + Sync + 'static {
    /// Opens the tree file of a version that has dirty objects, for reading and writing.
    fn open_dirty(&self, file: FileId) -> io::Result<Arc<File>>;
    /// Opens the tree file of a version read-only, if its path is known and still holds that version.
    fn open_clean(&self, file: FileId) -> io::Result<Option<Arc<File>>>;
    /// Whether an open tree file, which held this version when it was opened, does so now: others may have written to it.
    fn is_still(&self, file: FileId, tree: &File) -> io::Result<bool> {
        let _ = (file, tree);
        Ok(true)
    }
    /// Makes the tree files ordinary ones: all their bytes are in them and on stable storage now. Answers for each, in order.
    /// Must be idempotent; a version that is gone meanwhile is `Ok`.
    fn settle(&self, files: &[FileId]) -> Vec<io::Result<()>>;
    /// Syncs all tree files at once, where they share a file system and `syncfs` is as strong there as a sync of each.
    fn file_system_sync(&self) -> Option<&Arc<FileSystemSync>> {
        None
    }
    /// A version's objects are gone from the pools: removes its placeholder, where there are such. Must be idempotent.
    fn purged(&self, file: FileId) -> io::Result<()> {
        let _ = file;
        Ok(())
    }
}
