//! The namespace: real names in a real directory, changed atomically and durably.
//!
//! Every change follows one path: checks under the hold of its names (`locks`), made durable
//! (`commit` below: the intent log on the cache tier, or fsyncs of the tree), applied to the tree
//! by atomic calls (`apply`). What content is and where its bytes are is the business of
//! [`objects`](crate::objects); what a request means is that of `dav`.
//!
//! | part | does |
//! | --- | --- |
//! | `path` | names below the root, checked |
//! | `tree` | looks and opens beneath the root, free of races |
//! | `identity`, `props` | what a file's extended attributes say |
//! | `upload` | a new version, from the first byte to its name |
//! | `change` | MKCOL, DELETE, MOVE, properties |
//! | `copy` | COPY, built aside |
//! | `log`, `start`, `ownership` | intent log; markers and recovery at start; locks on root and cache |
//! | `cleaner` | deletes behind the requests |
//! | `kept`, `content`, `page_cache` | what is answered at once: files in memory, here or with the kernel |
//! | `placeholders` | which files have their content in pools |
//! | `listings` | replies about collections in which nothing has changed |
//! | `unseen` | names that cannot be served |
//! | `swift`, `company` | whether a change may be made where the request is |

mod apply;
#[cfg(test)]
mod around_tests;
mod backing;
mod change;
mod cleaner;
mod company;
mod content;
mod copy;
mod dirty_set;
pub mod error;
mod exchange;
mod fine_time;
mod hot_objects;
pub mod identity;
mod journal;
mod kept;
#[cfg(test)]
mod kept_open_tests;
mod listings;
#[cfg(test)]
mod listings_tests;
mod locks;
pub mod log;
mod logged;
#[cfg(test)]
mod lost_tests;
mod open_files;
mod ownership;
mod page_cache;
pub mod path;
mod placeholders;
#[cfg(test)]
mod pooled_tests;
pub mod props;
mod recent;
mod records;
mod replay;
mod room;
mod start;
mod swift;
mod sync;
#[cfg(test)]
mod tests;
mod transfer;
mod tree;
mod types;
#[cfg(test)]
mod unchanged_tests;
mod unseen;
mod upload;
mod usage;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tiering::FileId;
use tokio::sync::OnceCell;

use crate::metrics::{Gauge, Metrics};
use crate::objects::pools::PoolSpace;
use crate::objects::{CacheError, ContentReader, IoContext, ObjectCache};
use crate::sync_failures::Moment;

pub use crate::objects::Durability;
pub use company::Company;
pub use content::{Content, FileContent};
pub use error::{Limit, VolumeError};
pub use kept::HotFile;
pub(crate) use listings::{Gathered, Listing, Piece, Watched};
pub(crate) use open_files::Opened;
pub use open_files::Told;
pub use ownership::Ownership;
pub use path::{PathError, ResourcePath};
pub use placeholders::Walked;
pub use start::{is_cache, is_known};
pub use transfer::Transfer;
pub use types::{
    Check, DeadProp, EntityTag, Kind, Meta, PropChange, Quota, Replaced, Symlinks, VolumeOptions,
    unchecked,
};
pub use upload::Upload;

use error::At;
use locks::PathGuard;
use log::Log;
use log::record::Record;
use tree::{Entry, Tree};
use types::{Found, Stale};

/// A file with more bytes than this has its blocks and objects removed by a thread that may wait.
const LARGE_BYTES: u64 = 4 << 20;

/// Longest file of pools that is read whole where it is asked for.
const SMALL_POOLED_BYTES_MAX: u64 = 64 << 10;
/// Tries of a read that races with overwrites of its resource before it gives up.
const READ_TRIES: usize = 16;

/// The served directory. Used as `Arc<Volume>`; cheap calls, all system calls that may wait on blocking threads.
///
/// Dropping it without [`shutdown`](Volume::shutdown) is a crash as far as the disk is concerned:
/// the next start recovers.
pub struct Volume {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    tree: Arc<Tree>,
    cache: Arc<ObjectCache>,
    log: Option<Arc<Log>>,
    durability: Durability,
    locks: Arc<locks::PathLocks>,
    usage: Arc<usage::Usage>,
    sync: sync::SharedSync,
    swift: swift::Swift,
    /// Whether the kernel may be asked to send files.
    sends: Arc<swift::Swift>,
    cleaner: cleaner::Cleaner,
    recent: recent::Recent,
    room: room::Room,
    hot: hot_objects::HotObjects,
    listings: listings::Listings,
    state_dir: PathBuf,
    unseen: unseen::Told,
    ready: AtomicBool,
    /// A change was made whose sync failed: what is in the tree, or in the kernel's memory of it, need not be on the disk.
    unsynced: AtomicBool,
    /// Keeps changes out once the volume is shut down: those of requests that were cut off, say.
    ended: OnceCell<PathGuard>,
    /// Keeps other instances out of the pools.
    pools_owner: Mutex<Option<Box<dyn std::any::Any + Send + Sync>>>,
    /// Keeps other instances out of root and cache.
    owner: Arc<Ownership>,
    /// Whoever lent it holds it until the process ends.
    owner_is_lent: bool,
}

impl Volume {
    /// Opens the volume: takes the owner's lock, checks the markers, recovers from the log.
    ///
    /// The migrator must not run yet. Errors are [`VolumeError::Startup`] with a message for people.
    pub async fn open(options: VolumeOptions) -> Result<Arc<Volume>, VolumeError> {
        let inner = hop(move || start::open(options)).await?;
        start::spawn_background(&inner)?;
        Ok(Arc::new(Volume { inner }))
    }

    /// What `path` names.
    pub async fn stat(&self, path: &ResourcePath) -> Result<Meta, VolumeError> {
        // Where a wait is accepted, one call does instead of three.
        if !self.inner.swift.is_on()
            && let Some(found) = self.inner.tree.find_now(path)
        {
            return Ok(found.meta);
        }
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        visit(&self.inner, move || Ok(inner.found(&path)?.meta)).await
    }

    /// [`Volume::stat`] for a [`Check`], which runs where it may wait; `None` also where it cannot be told.
    pub fn look(&self, path: &ResourcePath) -> Option<Meta> {
        self.inner.found(path).ok().map(|found| found.meta)
    }

    /// The resources in a collection, by name. Names that are not UTF-8 are left out.
    pub async fn list(&self, path: &ResourcePath) -> Result<Vec<(String, Meta)>, VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        hop(move || Ok(inner.list(&path, false)?.0)).await
    }

    /// [`Volume::list`], and what [`Volume::keep_listing`] wants to keep what is said of it.
    pub(crate) async fn list_watched(
        &self,
        path: &ResourcePath,
    ) -> Result<(Vec<(String, Meta)>, Option<Watched>), VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        hop(move || inner.list(&path, true)).await
    }

    /// Keeps what was said of a collection since it is watched, for [`Volume::listed`]; nothing if anything has changed since.
    pub(crate) fn keep_listing(&self, watched: Watched, listing: Listing) {
        self.inner.listings.keep(watched, listing);
    }

    /// What was last said of a collection and its members, if nothing has changed since. Waits for nothing.
    pub(crate) fn listed(&self, path: &ResourcePath) -> Option<Arc<Listing>> {
        self.inner.listings.get(&self.inner.tree, path)
    }

    /// Opens a file's current version; the reader keeps it whatever happens to the name.
    pub async fn open_read(
        &self,
        path: &ResourcePath,
        io: IoContext,
    ) -> Result<(Meta, ContentReader), VolumeError> {
        let now = match self.inner.cache.pools() {
            Some(_) => self.inner.open_pooled_now(path, io),
            None => None,
        };
        if let Some((found, reader)) = now.or_else(|| self.inner.open_read_now(path, io)) {
            return Ok((found.meta, reader));
        }
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        hop(move || {
            inner
                .open_read(&path, io)
                .map(|(found, reader)| (found.meta, reader))
        })
        .await
    }

    /// Whether content lives in pools.
    pub fn has_pools(&self) -> bool {
        self.inner.cache.pools().is_some()
    }

    /// Opens a file that one short read from the pools has all of; `None` for any other, and when anything is out of the ordinary.
    /// Waits for nothing.
    pub fn open_small_pooled(
        &self,
        path: &ResourcePath,
        io: IoContext,
    ) -> Option<(Meta, ContentReader)> {
        let (found, reader) = self.inner.open_pooled_now(path, io)?;
        let len = found.meta.len;
        let one_object = u64::from(self.inner.cache.object_bytes());
        let is_small = len > 0 && len <= one_object.min(SMALL_POOLED_BYTES_MAX);
        is_small.then_some((found.meta, reader))
    }

    /// Notes that a client found its copy still valid (304).
    pub fn revalidated(&self, meta: &Meta, io: IoContext) {
        self.inner.cache.revalidated(meta.file_id, meta.len, io);
    }

    /// The dead properties of a resource.
    pub async fn props(&self, path: &ResourcePath) -> Result<Vec<DeadProp>, VolumeError> {
        if let Some(value) = self.inner.tree.props_now(path) {
            return decode_props(path, &value);
        }
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        hop(move || inner.props(&path)).await
    }

    /// The dead properties of members of a collection, in the order of `names`; `None` for one that is gone.
    pub async fn member_props(
        &self,
        at: &ResourcePath,
        names: Vec<String>,
    ) -> Result<Vec<Option<Vec<DeadProp>>>, VolumeError> {
        let (inner, at) = (Arc::clone(&self.inner), at.clone());
        hop(move || inner.member_props(&at, &names)).await
    }

    /// RFC 4331 figures: of the configured quota, else of the file system.
    pub async fn quota(&self) -> Result<Quota, VolumeError> {
        let inner = Arc::clone(&self.inner);
        hop(move || inner.quota()).await
    }

    /// A directory for the state of other parts, on the cache tier when there is one.
    pub fn state_dir(&self) -> &Path {
        &self.inner.state_dir
    }

    /// Whether the volume serves (it is open and not shut down).
    pub fn ready(&self) -> bool {
        self.inner.ready.load(Ordering::Relaxed)
    }

    /// Closes files that are kept open for no reader, and forgets old listings. Call it about once a second.
    pub fn close_old(&self) {
        let now = Instant::now();
        self.inner.tree.open_files.close_old(now);
        self.inner.hot.drop_old(now);
        self.inner.listings.forget_old(now);
    }

    /// Has `metrics` read the intent log's figures: zeros without one.
    pub fn register(&self, metrics: &Metrics) {
        let gauge = |gauge, figure: fn(&Log) -> u64| {
            let log = self.inner.log.clone();
            metrics.gauge(gauge, move || log.as_deref().map_or(0, figure) as f64);
        };
        gauge(Gauge::LogBytes, Log::bytes);
        gauge(Gauge::LogKept, |log| u64::from(log.is_kept()));
    }

    /// Makes everything durable in the tree, empties the log, finishes deletions. Idempotent.
    ///
    /// Call it after the last request and after the migrator has stopped.
    pub async fn shutdown(&self) -> Result<(), VolumeError> {
        let inner = Arc::clone(&self.inner);
        let root = ResourcePath::root();
        let all = async || inner.locks.lock(&[&root]).await;
        inner.ended.get_or_init(all).await;
        hop(move || start::shutdown(&inner)).await
    }
}

/// Runs `work` on a blocking thread.
pub(crate) async fn hop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(VolumeError::Io {
            op: "run",
            path: ResourcePath::root(),
            source: io::Error::other(e),
        }),
    }
}

/// Does something small here if that waits for no disk ([`swift`]), else on a blocking thread. Once begun it runs to its end.
async fn visit<T: Send + 'static>(
    inner: &Inner,
    change: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    visit_unless(|| false, inner, change).await
}

/// [`visit`], but for a change that is `large`: that goes to a blocking thread.
async fn visit_unless<T: Send + 'static>(
    large: impl FnOnce() -> bool,
    inner: &Inner,
    change: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    match inner.swift.here_unless(large, change) {
        Ok(result) => result,
        Err(change) => hop(change).await,
    }
}

/// Now, in ns since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A limit of the backing tier is the volume's; everything else keeps its own name.
pub(crate) fn cache_error(op: &'static str, path: &ResourcePath, e: CacheError) -> VolumeError {
    let (limit, why) = match e {
        CacheError::NoSpace => (Limit::Disk, "the volume is full"),
        CacheError::Quota => (Limit::Quota, "the file system's quota is used up"),
        CacheError::TooLarge => return VolumeError::TooLarge { path: path.clone() },
        other => return VolumeError::Cache(other),
    };
    VolumeError::NoSpace {
        op,
        path: path.clone(),
        limit,
        why: why.to_owned(),
    }
}

impl Inner {
    /// Whether what is there takes its time to remove, whatever the disk.
    fn is_large(&self, path: &ResourcePath) -> bool {
        self.tree.is_large(path, LARGE_BYTES)
    }

    fn found(&self, path: &ResourcePath) -> Result<Found, VolumeError> {
        match self.tree.find(path).at("stat", path)? {
            Entry::Found(found) => Ok(*found),
            Entry::Absent | Entry::Other => Err(VolumeError::NotFound { path: path.clone() }),
        }
    }

    /// The members of a collection; which is watched since before they were read, if that is wanted and possible.
    #[expect(clippy::type_complexity, reason = "two results of one visit")]
    fn list(
        &self,
        path: &ResourcePath,
        watch: bool,
    ) -> Result<(Vec<(String, Meta)>, Option<Watched>), VolumeError> {
        let dir = match self.tree.dir(path) {
            Err(e) if tree::is_absent(&e) => {
                return Err(match self.found(path) {
                    Ok(_) => VolumeError::NotCollection { path: path.clone() },
                    Err(e) => e,
                });
            }
            other => other.at("list", path)?,
        };
        let mut watched = match watch {
            true => self.listings.watch(&dir, path),
            false => None,
        };
        let names = tree::names(&dir).at("list", path)?;
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            let Some(name) = self.seen(path, name) else {
                continue;
            };
            if path.is_root() && name == path::HIDDEN {
                continue;
            }
            if let Entry::Found(found) = self.tree.look_in(&dir, &name, path).at("list", path)? {
                watched.take_if(|w| !w.note(&name, &found));
                out.push((name, found.meta));
            }
        }
        out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok((out, watched))
    }

    fn open_read(
        &self,
        path: &ResourcePath,
        io: IoContext,
    ) -> Result<(Found, ContentReader), VolumeError> {
        if self.cache.pools().is_some()
            && let Some(opened) = self.open_pooled(path, io)?
        {
            return Ok(opened);
        }
        for _ in 0..READ_TRIES {
            let file = self.tree.file(path).at("open", path)?;
            let found = match tree::look_fd(&file).at("open", path)? {
                Entry::Found(found) if found.meta.kind == Kind::File => *found,
                Entry::Found(_) => return Err(VolumeError::IsCollection { path: path.clone() }),
                Entry::Absent | Entry::Other => {
                    return Err(VolumeError::NotFound { path: path.clone() });
                }
            };
            if let Some(gone) = found.stale.and_then(Stale::gone) {
                self.cache.drop_clean(gone);
            }
            let id = found.meta.file_id;
            if found.pooled() {
                // It was a plain file a moment ago.
                match self.open_pooled(path, io)? {
                    Some(opened) => return Ok(opened),
                    None => continue,
                }
            }
            let reader = self.cache.reader(id, found.meta.len, Arc::new(file), io);
            // Objects of a dirty version vanish with its name. Pinned now; was it in time?
            if found.dirty() && !self.still(path, id)? {
                continue;
            }
            self.recent.seen(id, path);
            return Ok((found, reader));
        }
        Err(VolumeError::Unavailable {
            op: "open",
            path: path.clone(),
            source: io::Error::other("overwritten again and again"),
        })
    }

    /// [`Inner::open_read`] of a plain file that the kernel knows by heart, on whatever thread; `None` for any other, and when
    /// anything is out of the ordinary.
    fn open_read_now(&self, path: &ResourcePath, io: IoContext) -> Option<(Found, ContentReader)> {
        let opened = self.tree.open_now(path)?;
        let found = &opened.found;
        if found.pooled() {
            return None;
        }
        let id = found.meta.file_id;
        let tree = Arc::clone(&opened.file);
        let reader = self.cache.reader(id, found.meta.len, tree, io);
        // Objects of a version vanish with its name. Pinned now; was it in time?
        if !self.tree.is_still(path, &opened) {
            return None;
        }
        self.recent.seen(id, path);
        Some((found.clone(), reader))
    }

    /// Opens a file whose content is in pools, if this is one: the placeholder itself need not be opened.
    fn open_pooled(
        &self,
        path: &ResourcePath,
        io: IoContext,
    ) -> Result<Option<(Found, ContentReader)>, VolumeError> {
        self.cache
            .while_looking(|| match self.tree.find(path).at("open", path)? {
                Entry::Found(found) if found.meta.kind == Kind::File && found.pooled() => {
                    let reader = self
                        .cache
                        .pooled_reader(found.meta.file_id, found.meta.len, io);
                    Ok(Some((*found, reader)))
                }
                Entry::Found(_) | Entry::Absent | Entry::Other => Ok(None),
            })
    }

    /// [`Inner::open_pooled`] of what the kernel knows by heart, on whatever thread.
    fn open_pooled_now(
        &self,
        path: &ResourcePath,
        io: IoContext,
    ) -> Option<(Found, ContentReader)> {
        self.cache.try_while_looking(|| {
            let found = self.tree.find_now(path)?;
            if found.meta.kind != Kind::File || !found.pooled() {
                return None;
            }
            let reader = self
                .cache
                .pooled_reader(found.meta.file_id, found.meta.len, io);
            Some((found, reader))
        })
    }

    fn still(&self, path: &ResourcePath, id: FileId) -> Result<bool, VolumeError> {
        match self.tree.find(path).at("stat", path)? {
            Entry::Found(found) => Ok(found.meta.file_id == id),
            Entry::Absent | Entry::Other => Ok(false),
        }
    }

    fn props(&self, path: &ResourcePath) -> Result<Vec<DeadProp>, VolumeError> {
        let (_, value) = self.stored_props(path)?;
        decode_props(path, &value)
    }

    fn member_props(
        &self,
        at: &ResourcePath,
        names: &[String],
    ) -> Result<Vec<Option<Vec<DeadProp>>>, VolumeError> {
        let dir = match self.tree.dir(at) {
            Err(e) if tree::is_absent(&e) => return Ok(vec![None; names.len()]),
            other => other.at("open", at)?,
        };
        let mut value = Vec::new();
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            let path = at.join(name)?;
            if self.tree.follows_links() {
                out.push(match self.props(&path) {
                    Err(VolumeError::NotFound { .. }) => None,
                    found => Some(found?),
                });
                continue;
            }
            let found = self.tree.props_in(&dir, name, &mut value);
            let found = found.at("read properties", &path)?;
            out.push(found.then(|| decode_props(&path, &value)).transpose()?);
        }
        Ok(out)
    }

    /// The resource, and its dead properties as stored.
    fn stored_props(&self, path: &ResourcePath) -> Result<(Found, Vec<u8>), VolumeError> {
        let file = self.tree.file(path).at("open", path)?;
        match tree::look_fd(&file).at("stat", path)? {
            Entry::Found(found) => {
                Ok((*found, tree::get_props(&file).at("read properties", path)?))
            }
            Entry::Absent | Entry::Other => Err(VolumeError::NotFound { path: path.clone() }),
        }
    }

    /// The encoded dead properties of a version that was opened at `path`: its name may mean another one by now.
    fn props_of(
        &self,
        reader: &ContentReader,
        path: &ResourcePath,
    ) -> Result<Vec<u8>, VolumeError> {
        match reader.tree() {
            Some(file) => tree::get_props(file).at("read properties", path),
            None => Ok(self.stored_props(path)?.1),
        }
    }

    fn quota(&self) -> Result<Quota, VolumeError> {
        let space = self.space(&ResourcePath::root())?;
        Ok(match self.usage.quota {
            Some(quota) => {
                let used = self.usage.used();
                Quota {
                    used,
                    available: quota.saturating_sub(used).min(space.available),
                }
            }
            None => Quota {
                used: space.used,
                available: space.available,
            },
        })
    }

    /// Bytes used and free where content goes: the data pool, or the root's file system, for which what is not flushed yet counts.
    fn space(&self, path: &ResourcePath) -> Result<PoolSpace, VolumeError> {
        if let Some(pools) = self.cache.pools() {
            return pools
                .space(tiering::Tier::Backing)
                .map_err(|e| unavailable("ask the data pool for", path, e.into()));
        }
        let s = rustix::fs::fstatvfs(self.tree.root()).at("statvfs", path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
        // What only the cache has takes no block here yet, but will: up to one more than its bytes, for each object.
        let unflushed = self.cache.unflushed();
        let coming = unflushed.bytes.saturating_add(bytes(unflushed.objects));
        Ok(PoolSpace {
            used: bytes(s.f_blocks.saturating_sub(s.f_bfree)).saturating_add(coming),
            available: bytes(s.f_bavail).saturating_sub(coming),
        })
    }

    /// The open collection a new resource goes into, and its name there.
    fn place<'p>(&self, path: &'p ResourcePath) -> Result<(Arc<OwnedFd>, &'p str), VolumeError> {
        match self.tree.parent(path) {
            Err(e) if tree::is_absent(&e) => Err(VolumeError::Conflict { path: path.clone() }),
            other => other.at("open the parent of", path),
        }
    }

    /// What now has a name that is to be given away; `None` when free.
    fn occupant(
        &self,
        dir: &OwnedFd,
        name: &str,
        path: &ResourcePath,
    ) -> Result<Option<Found>, VolumeError> {
        match self.tree.look(dir, name, path).at("stat", path)? {
            Entry::Absent => Ok(None),
            Entry::Found(found) => Ok(Some(*found)),
            Entry::Other => Err(VolumeError::Forbidden {
                op: "replace",
                path: path.clone(),
                why: "the name belongs to something that is no resource",
            }),
        }
    }

    /// Makes a change durable and applies it.
    ///
    /// With a log: the record first, then the tree, and fsyncs of those of `dirs` that are on file systems mounted below the root,
    /// which no checkpoint syncs. Without: the tree first, then fsyncs of all `dirs`, in their order. The caller holds the change's
    /// paths and has synced whatever the record relies on.
    fn commit<R>(
        &self,
        path: &ResourcePath,
        record: impl FnOnce() -> Record,
        dirs: &[&OwnedFd],
        apply: impl FnOnce() -> Result<R, VolumeError>,
    ) -> Result<R, VolumeError> {
        self.commit_since(self.sync.begin(), path, record, dirs, apply)
    }

    /// The same where the fsyncs of `dirs` have to cover what was changed before, too: since `changes`.
    fn commit_since<R>(
        &self,
        changes: Moment,
        path: &ResourcePath,
        record: impl FnOnce() -> Record,
        dirs: &[&OwnedFd],
        apply: impl FnOnce() -> Result<R, VolumeError>,
    ) -> Result<R, VolumeError> {
        match (&self.log, self.durability) {
            (_, Durability::Relaxed) => apply(),
            (None, Durability::Commit) => {
                let result = apply()?;
                for dir in dirs {
                    self.sync
                        .sync(changes, dir)
                        .inspect_err(|_| self.unsynced.store(true, Ordering::Relaxed))
                        .map_err(|e| unavailable("sync", path, e))?;
                }
                Ok(result)
            }
            (Some(log), Durability::Commit) => {
                if log.is_full() {
                    let why = "the intent log is kept since a disk failed to sync, and is full: look at the disks, then restart";
                    return Err(unavailable("log", path, io::Error::other(why)));
                }
                let (number, logged) = log.append(&record());
                let synced = match logged {
                    Ok(()) => Ok(()),
                    // Without the log the change still can be made durable, only slower.
                    Err(_) => self.cache.sync().and_then(|()| Ok(self.tree.sync_all()?)),
                };
                let result = match synced {
                    Ok(()) => apply(),
                    Err(e) => Err(unavailable("sync the cache for", path, e)),
                }
                .and_then(|result| {
                    self.sync
                        .sync_elsewhere(changes, self.tree.device, dirs)
                        .inspect_err(|_| self.unsynced.store(true, Ordering::Relaxed))
                        .map_err(|e| unavailable("sync", path, e))?;
                    Ok(result)
                });
                // Whatever became of it: others wait for this number.
                let noted = log.applied(number, |state| start::store_applied(&self.tree, state));
                if result.is_err() {
                    // Whatever else fails: a start must not make up for what was refused.
                    let (abort, told) = log.append(&Record::Abort { number });
                    log.applied(abort, |state| start::store_applied(&self.tree, state))
                        .map_err(|e| unavailable("note", path, e))?;
                    if told.is_err() {
                        // Only the note says so then.
                        self.tree
                            .sync_all()
                            .map_err(|e| unavailable("sync the note about", path, e.into()))?;
                    }
                }
                noted.map_err(|e| unavailable("note", path, e))?;
                if logged.is_err() {
                    self.tree
                        .sync_all()
                        .inspect_err(|_| self.unsynced.store(true, Ordering::Relaxed))
                        .map_err(|e| unavailable("sync the volume for", path, e.into()))?;
                }
                result
            }
        }
    }
}

fn unavailable(op: &'static str, path: &ResourcePath, source: io::Error) -> VolumeError {
    VolumeError::Unavailable {
        op,
        path: path.clone(),
        source,
    }
}

fn decode_props(path: &ResourcePath, value: &[u8]) -> Result<Vec<DeadProp>, VolumeError> {
    props::decode(value).ok_or_else(|| VolumeError::Io {
        op: "read properties",
        path: path.clone(),
        source: io::Error::new(io::ErrorKind::InvalidData, "the attribute is damaged"),
    })
}
