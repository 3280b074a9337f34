//! Start, recovery and shutdown: the owner's lock, the markers, the log's replay.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, XattrFlags};
use rustix::io::Errno;
use tiering::FileId;
use tokio::sync::OnceCell;

use super::cleaner::Cleaner;
use super::error::VolumeError;
use super::log::{Log, applied, applied::Applied};
use super::ownership::{Ownership, host};
use super::path::{HIDDEN, ResourcePath};
use super::tree::{self, Entry, Tree};
use super::types::{Kind, VolumeOptions};
use super::usage::{self, Usage};
use super::{Durability, Inner, dirty_set, exchange, journal, locks, log, replay, swift, sync};
use crate::objects::ObjectCache;
use crate::objects::pools::{AttachError, Claim};

/// How often the log is looked at.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(15);
/// The log is emptied early when it has grown to this.
const CHECKPOINT_BYTES: u64 = 48 << 20;

/// Extension of a marker that does not count yet, or no more.
const ASIDE: &str = "new";

pub(super) fn fail(what: impl std::fmt::Display) -> VolumeError {
    VolumeError::Startup(what.to_string())
}

/// Opens everything; blocking.
pub(super) fn open(options: VolumeOptions) -> Result<Arc<Inner>, VolumeError> {
    let root = &options.root;
    let cache_dir = options.log_dir.as_deref().and_then(Path::parent);
    let owner_is_lent = options.ownership.is_some();
    let owner = match options.ownership {
        Some(taken) => taken,
        None => Arc::new(Ownership::take(root, cache_dir)?),
    };
    let pair = Markers::read(root, cache_dir)?;
    // Somebody else may have come and gone before the locks were taken.
    pair.check(root, cache_dir)?;
    let mut tree = Tree::open(root, options.symlinks, options.cache.options().in_place)
        .map_err(|e| fail(format!("root {}: cannot be opened: {e}", root.display())))?;
    if options.assume_journal {
        tree.assume_journal()
            .map_err(|e| fail(format!("root {}: {e}", root.display())))?;
    }
    match rustix::fs::fsetxattr(
        &tree.hidden,
        "user.tierdav.probe",
        b"1",
        XattrFlags::empty(),
    ) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => {
            return Err(fail(format!(
                "root {}: this file system keeps no extended attributes (user.*), which TierDAV needs; \
                 use ext4, xfs, btrfs or CephFS, or mount with user_xattr",
                root.display()
            )));
        }
        Err(e) => {
            return Err(fail(format!(
                "root {}: cannot set extended attributes: {e}",
                root.display()
            )));
        }
    }
    // Before anything is written: a start that is refused must not stand in the way of the right one.
    let marked = PoolMarkers::check(&tree, root, &options.cache)?;
    let root_id = pair.write(&tree, cache_dir)?;
    let claim = || claim(owner.root(), root, root_id);
    let pools_owner = marked.attach(&tree, claim, &options.cache)?;

    let state_dir = match cache_dir {
        Some(dir) => dir.join("state"),
        None => tree.hidden_path().join("state"),
    };
    std::fs::create_dir_all(&state_dir)
        .map_err(|e| fail(format!("{}: {e}", state_dir.display())))?;

    let tree = Arc::new(tree);
    let usage = Usage::new(options.quota_bytes);
    let cleaner = Cleaner::start(
        Arc::clone(&tree),
        Arc::clone(&options.cache),
        Arc::clone(&usage),
    )
    .map_err(|e| fail(format!("cannot start a thread: {e}")))?;
    let recovery = |e: io::Error| fail(format!("root {}: recovery failed: {e}", root.display()));

    if options.cache.pools().is_none() {
        keep_object_size(&tree, root, options.cache.object_bytes())?;
        replay::adopt_dirty(&tree, &options.cache).map_err(recovery)?;
    }
    let mut applied = load_applied(&tree).map_err(recovery)?;
    if let Some(dir) = &options.log_dir {
        let mut found = log::recover(dir)
            .map_err(|e| fail(format!("intent log {}: cannot be read: {e}", dir.display())))?;
        found.tell_gaps(&applied);
        replay::run(
            &tree,
            &options.cache,
            &cleaner,
            &found.records,
            &mut applied,
        )
        .map_err(recovery)?;
        if !found.records.is_empty() {
            tree.sync_all().map_err(|e| recovery(e.into()))?;
            options.cache.sync().map_err(recovery)?;
        }
        found.remove().map_err(recovery)?;
    }
    clean_up(&tree, &cleaner, options.cache.pools().is_some()).map_err(recovery)?;
    if options.cache.pools().is_none() {
        replay::reconcile_dirty(&tree, &options.cache).map_err(recovery)?;
    }

    if options.durability == Durability::Commit {
        // What an earlier run wrote without syncing it must not pass for durable when it is uploaded once more unchanged.
        tree.sync_all().map_err(|e| recovery(e.into()))?;
        options.cache.sync().map_err(recovery)?;
    }

    let log = match (&options.log_dir, options.durability) {
        (Some(dir), Durability::Commit) => {
            journal::warn_of_no_order(root, tree.root(), tree.journals_inodes).map_err(recovery)?;
            Some(Arc::new(Log::open(dir, applied).map_err(|e| {
                fail(format!("intent log {}: {e}", dir.display()))
            })?))
        }
        (Some(_), Durability::Relaxed) | (None, _) => None,
    };
    // Only on file systems of this machine; and what is to be durable waits for a disk anyway.
    let relaxed = options.durability == Durability::Relaxed;
    let swift = swift::Swift::new(relaxed && tree.in_memory() && options.cache.pools().is_none());
    let sends = Arc::new(swift::Swift::new(tree.in_memory()));
    let listings = super::listings::Listings::new(&tree);
    Ok(Arc::new(Inner {
        tree,
        swift,
        sends,
        listings,
        cache: options.cache,
        log,
        durability: options.durability,
        locks: Arc::new(locks::PathLocks::default()),
        usage,
        sync: sync::SharedSync::default(),
        cleaner,
        recent: super::recent::Recent::default(),
        room: super::room::Room::default(),
        hot: super::hot_objects::HotObjects::default(),
        state_dir,
        unseen: super::unseen::Told::default(),
        ready: AtomicBool::new(true),
        unsynced: AtomicBool::new(false),
        ended: OnceCell::new(),
        pools_owner: Mutex::new(pools_owner),
        owner,
        owner_is_lent,
    }))
}

/// Refuses another size of objects while there are files that are counted in the one before: of what is lost of them, the wrong part
/// would be refused, and zeros served for the rest. The cache directory keeps it, too, but may be lost.
fn keep_object_size(tree: &Tree, root: &Path, bytes: u32) -> Result<(), VolumeError> {
    let wrong = |e: io::Error| fail(format!("root {}: .tierdav/dirty: {e}", root.display()));
    match dirty_set::object_bytes(&tree.dirty).map_err(wrong)? {
        Some(kept) if kept == bytes => Ok(()),
        Some(kept) if !dirty_ids(tree).map_err(wrong)?.is_empty() => Err(fail(format!(
            "object_size = {bytes}, but root {} has files that were not flushed from objects of {kept} bytes: set object_size to that \
             until they are flushed, or, if the cache is lost, overwritten or deleted",
            root.display()
        ))),
        Some(_) | None => dirty_set::set_object_bytes(&tree.dirty, bytes).map_err(wrong),
    }
}

/// What the marker files of a root and its cache say.
pub(super) struct Markers {
    root_id: Option<String>,
    /// The cache that holds what the root lacks; absent after a clean end.
    attached: Option<String>,
    cache: Option<(String, String)>,
}

impl Markers {
    pub(super) fn read(root: &Path, cache_dir: Option<&Path>) -> Result<Markers, VolumeError> {
        if !root.is_dir() {
            return Err(fail(format!("root {}: no such directory", root.display())));
        }
        let hidden = root.join(HIDDEN);
        let root_id = read_field(&hidden.join("format"), "root")?;
        let attached = read_field(&hidden.join("cache"), "cache")?;
        let cache = match cache_dir {
            None => None,
            Some(dir) => {
                let volume = dir.join("volume");
                read_field(&volume, "root")?.zip(read_field(&volume, "cache")?)
            }
        };
        Ok(Markers {
            root_id,
            attached,
            cache,
        })
    }

    /// Refuses a pair that does not belong together, above all a disk that is not mounted.
    pub(super) fn check(&self, root: &Path, cache_dir: Option<&Path>) -> Result<(), VolumeError> {
        let root = root.display();
        if let (Some((owner, _)), Some(dir)) = (&self.cache, cache_dir) {
            let dir = dir.display();
            match &self.root_id {
                None => {
                    return Err(fail(format!(
                        "root {root} is new, but cache {dir} belongs to root {owner}: \
                         is the root's volume mounted?"
                    )));
                }
                Some(id) if id != owner => {
                    return Err(fail(format!(
                        "cache {dir} belongs to root {owner}, not to {root} ({id})"
                    )));
                }
                Some(_) => {}
            }
        }
        match (&self.attached, &self.cache, cache_dir) {
            (None, _, _) => Ok(()),
            (Some(want), Some((_, id)), _) if id == want => Ok(()),
            (Some(want), _, Some(dir)) => Err(fail(format!(
                "root {root} has data in cache {want}, which {} is not: is the cache's volume mounted? If it is \
                 lost, so is that data; without the file {root}/.tierdav/cache the rest is served",
                dir.display()
            ))),
            (Some(want), _, None) => Err(fail(format!(
                "root {root} has data in cache {want}: give its cache directory, or drain it first"
            ))),
        }
    }

    /// Writes what is missing, and that this cache is attached from now on.
    fn write(&self, tree: &Tree, cache_dir: Option<&Path>) -> Result<String, VolumeError> {
        let new_id = || Ok::<_, VolumeError>(uuid::Uuid::new_v4().to_string());
        let hidden = tree.hidden_path();
        let root_id = match &self.root_id {
            Some(id) => id.clone(),
            None => new_id()?,
        };
        if self.root_id.is_none() {
            write_small(
                &hidden.join("format"),
                &format!("tierdav 1\nroot {root_id}\n"),
            )?;
        }
        if let Some(dir) = cache_dir {
            let cache_id = match &self.cache {
                Some((_, id)) => id.clone(),
                None => new_id()?,
            };
            if self.cache.is_none() {
                std::fs::create_dir_all(dir)
                    .map_err(|e| fail(format!("{}: {e}", dir.display())))?;
                let text = format!("tierdav 1\nroot {root_id}\ncache {cache_id}\n");
                write_small(&dir.join("volume"), &text)?;
            }
            if self.attached.is_none() {
                write_small(
                    &hidden.join("cache"),
                    &format!("tierdav 1\ncache {cache_id}\n"),
                )?;
            }
        }
        Ok(root_id)
    }
}

/// Name of the marker with the cache pool that holds what the data pool lacks; absent after a clean end.
const CACHE_POOL: &str = "cache_pool";

/// What the root knows of pools.
struct PoolMarkers {
    /// Whether its content is in some.
    known: bool,
    /// The cache pool that holds what the data pool lacks.
    attached: Option<String>,
}

impl PoolMarkers {
    /// Refuses pools that are not the root's.
    fn check(tree: &Tree, root: &Path, cache: &ObjectCache) -> Result<PoolMarkers, VolumeError> {
        let root = root.display();
        let pools = tree.hidden_path().join("pools");
        let known = read_field(&pools, "pools")?.zip(read_field(&pools, "object_size")?);
        let attached = read_field(&tree.hidden_path().join(CACHE_POOL), CACHE_POOL)?;
        let Some(pools) = cache.pools() else {
            return match known {
                None => Ok(PoolMarkers {
                    known: false,
                    attached,
                }),
                Some((pools, _)) => Err(fail(format!(
                    "root {root} has its content in Ceph pools ({pools}): give ceph_conf and data_pool"
                ))),
            };
        };
        let (here, size) = (pools.describe(), cache.object_bytes().to_string());
        match &known {
            Some((there, _)) if *there != here => {
                return Err(fail(format!(
                    "root {root} has its content in the pools {there}, not in {here} (cluster, data pool, namespace)"
                )));
            }
            Some((_, made)) if *made != size => {
                return Err(fail(format!(
                    "object_size = {size}, but root {root} has its content in objects of {made} bytes: set object_size to that"
                )));
            }
            Some(_) | None => {}
        }
        if let Some(there) = &attached
            && pools.cache_pool() != Some(there)
        {
            return Err(fail(format!(
                "root {root} has data in the cache pool {there}: set cache_pool to that, or drain it first and stop cleanly \
                 (if that pool is lost for good: docs/ceph.md, \"A cache pool that is lost\")"
            )));
        }
        Ok(PoolMarkers {
            known: known.is_some(),
            attached,
        })
    }

    /// Takes the pools for this root: both sides remember each other.
    fn attach(
        self,
        tree: &Tree,
        claim: impl FnOnce() -> Result<Claim, VolumeError>,
        cache: &ObjectCache,
    ) -> Result<Option<Box<dyn std::any::Any + Send + Sync>>, VolumeError> {
        let Some(pools) = cache.pools() else {
            return Ok(None);
        };
        let owner = std::sync::Arc::clone(pools).own(claim()?)?;
        if !self.known {
            let (here, size) = (pools.describe(), cache.object_bytes());
            let text = format!("tierdav 1\npools {here}\nobject_size {size}\n");
            write_small(&tree.hidden_path().join("pools"), &text)?;
        }
        cache
            .load_pools()
            .map_err(|e| AttachError::passing(format!("the cache pool cannot be read: {e}")))?;
        // Not before: a wrong name must not keep the right one from starting.
        if let (None, Some(here)) = (self.attached, pools.cache_pool()) {
            let text = format!("tierdav 1\n{CACHE_POOL} {here}\n");
            write_small(&tree.hidden_path().join(CACHE_POOL), &text)?;
        }
        Ok(Some(owner))
    }
}

/// Whether a root has been served before.
///
/// # Errors
/// When that cannot be told.
pub fn is_known(root: &Path) -> Result<bool, VolumeError> {
    Ok(read_small(&root.join(HIDDEN).join("format"))?.is_some())
}

/// Whether a directory is the cache of some root.
///
/// # Errors
/// When that cannot be told.
pub fn is_cache(dir: &Path) -> Result<bool, VolumeError> {
    Ok(read_small(&dir.join("volume"))?.is_some())
}

/// A field of a marker, if that is there.
fn read_field(path: &Path, name: &str) -> Result<Option<String>, VolumeError> {
    let Some(text) = read_small(path)? else {
        return Ok(None);
    };
    let mut lines = text.lines();
    let known = lines.next() == Some("tierdav 1");
    let mut fields = lines.filter_map(|l| l.split_once(' '));
    match fields.find(|(key, _)| known && *key == name) {
        Some((_, value)) => Ok(Some(value.to_owned())),
        None => Err(fail(format!(
            "marker {}: it is damaged, or a later version of TierDAV wrote it: use that version, or bring the file back from a backup",
            path.display()
        ))),
    }
}

fn read_small(path: &Path) -> Result<Option<String>, VolumeError> {
    match File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            let read = file.take(4096).read_to_string(&mut text);
            read.map(|_| Some(text))
                .map_err(|e| fail(format!("{}: {e}", path.display())))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail(format!("{}: {e}", path.display()))),
    }
}

/// Writes a marker whole or not at all, durably. On a full disk, too, if it was [taken back](take_back) before: over the blocks that
/// it had then.
fn write_small(path: &Path, text: &str) -> Result<(), VolumeError> {
    let aside = path.with_extension(ASIDE);
    let write = || -> io::Result<()> {
        let mut how = File::options();
        let mut file = how.write(true).create(true).truncate(false).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        path.parent()
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|e| fail(format!("{}: {e}", path.display())))
}

/// Takes a marker back, if it is there.
fn take_back(dir: &OwnedFd, marker: &str) -> io::Result<()> {
    match rustix::fs::renameat(dir, marker, dir, format!("{marker}.{ASIDE}")) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// For the pools: which root this is, and where. A block device that was cloned has the same files with the same numbers;
/// what tells the clone from the original, while both are mounted, is the kernel's number of the device, and on which boot
/// of which machine it holds.
fn claim(owner: &File, root: &Path, root_id: String) -> Result<Claim, VolumeError> {
    let stat = rustix::fs::fstat(owner)
        .map_err(|e| fail(format!("root {}: owner.lock: {e}", root.display())))?;
    // Without a boot id no lock file proves anything to a later process.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
    Ok(Claim {
        root_id,
        place: format!("{}/{:x}/{}", boot.trim(), stat.st_dev, stat.st_ino),
        description: format!("{} on {}", root.display(), host()),
    })
}

fn load_applied(tree: &Tree) -> io::Result<Applied> {
    let mut buf = [0u8; 64];
    match rustix::fs::fgetxattr(&tree.hidden, applied::ATTRIBUTE, &mut buf[..]) {
        Ok(n) => Applied::decode(&buf[..n])
            .ok_or_else(|| io::Error::other("damaged record of applied changes")),
        Err(Errno::NODATA) => Ok(Applied::default()),
        Err(e) => Err(e.into()),
    }
}

/// Writes down which logged changes the tree shows.
pub(super) fn store_applied(tree: &Tree, state: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        &tree.hidden,
        applied::ATTRIBUTE,
        state,
        XattrFlags::empty(),
    )?)
}

/// Removes what uploads and deletions of the last run left: files at once, collections behind.
///
/// With `pools`, objects have to go with each file.
fn clean_up(tree: &Tree, cleaner: &Cleaner, pools: bool) -> io::Result<()> {
    let names = tree::names(&tree.tmp)?;
    for name in &names {
        exchange::finish(tree, cleaner, name)?;
    }
    for name in names {
        if pools {
            cleaner.remove(String::from_utf8_lossy(&name).into_owned(), false);
            continue;
        }
        match rustix::fs::unlinkat(&tree.tmp, &name[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                cleaner.remove(String::from_utf8_lossy(&name).into_owned(), false);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Starts what runs beside the requests: checkpoints, and the first count for a quota.
pub(super) fn spawn_background(inner: &Arc<Inner>) -> Result<(), VolumeError> {
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    if inner.log.is_some() {
        let weak = Arc::downgrade(inner);
        thread("tierdav-log")
            .spawn(move || {
                let mut waited = Duration::ZERO;
                loop {
                    std::thread::sleep(Duration::from_millis(500));
                    waited += Duration::from_millis(500);
                    let Some(inner) = weak.upgrade() else { return };
                    let Some(log) = inner.log.as_ref().filter(|log| !log.is_kept()) else {
                        continue;
                    };
                    let bytes = log.bytes();
                    if bytes >= CHECKPOINT_BYTES || (bytes > 0 && waited >= CHECKPOINT_PERIOD) {
                        waited = Duration::ZERO;
                        if let Err(error) = checkpoint(&inner) {
                            tracing::error!(
                                %error,
                                "intent log: a checkpoint failed; the log is kept from here on: look at the disks, then restart"
                            );
                        }
                    }
                }
            })
            .map_err(|e| fail(format!("cannot start a thread: {e}")))?;
    }
    // Without a quota it is not kept up to date, and must not be found by a later start.
    let known = load_used(inner);
    if inner.usage.quota.is_some() && !known {
        // Before any client comes: what they change from now on is in the count.
        inner.usage.begin_count();
        let weak = Arc::downgrade(inner);
        let runtime = tokio::runtime::Handle::current();
        thread("tierdav-count")
            .spawn(move || {
                let mut left = vec![ResourcePath::root()];
                loop {
                    let Some(inner) = weak.upgrade() else { return };
                    let Some(path) = left.pop() else {
                        if end_count(&inner, &runtime) {
                            return;
                        }
                        inner.usage.begin_count();
                        left.push(ResourcePath::root());
                        continue;
                    };
                    // Gone since it was listed: nothing to count.
                    let Ok((entries, _)) = inner.list(&path, false) else {
                        continue;
                    };
                    for (name, meta) in entries {
                        match (meta.kind, path.join(&name)) {
                            (Kind::Collection, Ok(child)) => left.push(child),
                            (Kind::File, _) => inner.usage.add(meta.file_id, meta.len),
                            (Kind::Collection, Err(_)) => {}
                        }
                    }
                }
            })
            .map_err(|e| fail(format!("cannot start a thread: {e}")))?;
    }
    Ok(())
}

/// Ends the count at a moment when no change is under way: one that has its name already, but not yet its bytes in the sum,
/// would be added to a sum that has them, and one that takes bytes off would take what was never counted.
fn end_count(inner: &Inner, runtime: &tokio::runtime::Handle) -> bool {
    loop {
        inner.cleaner.finish();
        let _no_change = runtime.block_on(inner.locks.lock(&[&ResourcePath::root()]));
        if !inner.cleaner.has_counted() {
            return inner.usage.end_count();
        }
    }
}

/// Takes over the last run's sum, once.
fn load_used(inner: &Inner) -> bool {
    let mut buf = [0u8; 8];
    let kept = rustix::fs::fgetxattr(&inner.tree.hidden, usage::ATTRIBUTE, &mut buf[..]);
    let removed = rustix::fs::fremovexattr(&inner.tree.hidden, usage::ATTRIBUTE);
    if let Err(error) = removed
        && error != Errno::NODATA
    {
        tracing::warn!(%error, "the sum of an earlier run cannot be removed: a later one may take it for its quota");
    }
    let usable = matches!(kept, Ok(8)) && removed.is_ok();
    if usable {
        inner.usage.set(u64::from_le_bytes(buf));
    }
    usable
}

/// Makes tree and cache durable and empties the log.
pub(super) fn checkpoint(inner: &Inner) -> io::Result<()> {
    match &inner.log {
        Some(log) => log.checkpoint(|| {
            inner.tree.sync_all()?;
            inner.cache.sync()
        }),
        None => Ok(()),
    }
}

/// The clean end. After it, a root without dirty files no longer insists on its cache.
pub(super) fn shutdown(inner: &Inner) -> Result<(), VolumeError> {
    if !inner.ready.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    let at = |source: io::Error| super::unavailable("shut down", &ResourcePath::root(), source);
    inner.cleaner.finish();
    checkpoint(inner).map_err(at)?;
    if let Some(log) = &inner.log {
        log.drop_spares();
    }
    // Without it the next start counts.
    if inner.usage.quota.is_some() && inner.usage.is_sure() {
        let used = inner.usage.used().to_le_bytes();
        rustix::fs::fsetxattr(
            &inner.tree.hidden,
            usage::ATTRIBUTE,
            &used,
            XattrFlags::empty(),
        )
        .map_err(|e| at(e.into()))?;
    }
    let detach = |marker: &str| take_back(&inner.tree.hidden, marker).map_err(at);
    if dirty_ids(&inner.tree).map_err(at)?.is_empty() {
        detach("cache")?;
    }
    if inner.cache.pools().is_some() && inner.cache.dirty_files().is_empty() {
        detach(CACHE_POOL)?;
    }
    if inner.durability == Durability::Commit {
        inner.tree.sync_all().map_err(|e| at(e.into()))?;
    }
    inner.pools_owner.lock().take();
    match inner.owner_is_lent {
        // What else this process does with root and cache may outlast this: its end is theirs.
        true => Ok(()),
        false => inner.owner.release().map_err(|e| at(e.into())),
    }
}

/// The versions that have a dirty name.
pub(super) fn dirty_ids(tree: &Tree) -> io::Result<HashSet<FileId>> {
    let names = tree::names(&tree.dirty)?;
    Ok(names
        .iter()
        .filter_map(|n| std::str::from_utf8(n).ok())
        .filter_map(|n| u64::from_str_radix(n, 16).ok())
        .map(FileId)
        .collect())
}

/// Whether an entry is the version `id`.
pub(super) fn is_version(entry: &Entry, id: FileId) -> bool {
    matches!(entry, Entry::Found(found) if found.meta.file_id == id)
}
