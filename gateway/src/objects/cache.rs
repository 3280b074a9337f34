//! The object cache: residency, policy and queue behind one lock, and the operations of the namespace on it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tiering::trace::Op;
use tiering::{Action, ActionKind, CacheView, Event, FileId, Nanos, ObjectId, Policy, Tier};
use tokio::sync::Notify;

use super::dir::DirStore;
use super::error::CacheError;
use super::gathering::Gathering;
use super::heat::Heat;
use super::io::Faults;
use super::migrator::Queue;
use super::not_moved::Said;
use super::options::{Backing, CacheOptions, IoContext};
use super::pooled::PoolSide;
use super::purge::Purge;
use super::reader::ContentReader;
use super::residency::{Amount, Entry, Residency, State};
use super::shadow::{Feed, ShadowStatus, Shadowing};
use super::staging::Staging;
use super::status::History;
use super::store::{Mark, ObjectStore, Stored, read_verified};
use super::throttle::Throttle;
use super::tuning::Tuning;
use crate::metrics::{Gauge, Metrics, ObjectOp};
use crate::recorder::Recorder;

/// Objects up to this size are small.
const SMALL_BYTES_MAX: u32 = 64 << 10;
/// Part of the capacity that only small new objects get.
const SMALL_SHARE: u64 = 32;

/// The objects of all versions, over the cache tier and the backing tier. See the module's documentation.
pub struct ObjectCache {
    pub(super) opts: CacheOptions,
    /// Bytes of content that the cache tier may hold.
    pub(super) capacity_bytes: u64,
    pub(super) dir: Option<DirStore>,
    /// Content lives in pools instead of directories.
    pub(super) pools: Option<PoolSide>,
    pub(super) tree_faults: Faults,
    pub(super) core: Mutex<Core>,
    pub(super) recorder: Recorder,
    pub(super) metrics: Arc<Metrics>,
    pub(super) backing: OnceLock<Arc<dyn Backing>>,
    pub(super) throttle: Mutex<Throttle>,
    /// Locked with or without `core`, never before it.
    pub(super) shadow: Mutex<Option<Shadowing>>,
    pub(super) shadow_status: Mutex<Option<ShadowStatus>>,
    /// Something was queued, or the cache is over its high watermark.
    pub(super) wake: Notify,
    /// A move ended.
    pub(super) moved: Notify,
    /// What all uploads have in memory.
    pub(super) gathering: Arc<Gathering>,
    /// Foreground I/Os under way.
    pub(super) foreground: AtomicUsize,
    /// New content goes to the backing tier (draining).
    pub(super) write_around: AtomicBool,
    pub(super) counts: Counts,
    /// What clients use most. Locked briefly, with or without `core`, and nothing is locked while it is held.
    pub(super) heat: Mutex<Heat>,
    /// Files that were flushed, in part at least, and are not settled yet; tried again each second.
    pub(super) unsettled: Mutex<HashSet<FileId>>,
    /// What was said of moves and of writes to the cache tier that failed. Nothing is locked while it is held.
    pub(super) said: Mutex<Said>,
}

/// Totals since the start.
#[derive(Default)]
pub(super) struct Counts {
    pub read_cache_bytes: AtomicU64,
    pub read_backing_bytes: AtomicU64,
    pub reads_cache: AtomicU64,
    pub reads_backing: AtomicU64,
    pub damaged: AtomicU64,
    pub cache_write_errors: AtomicU64,
}

/// All that changes together. Locked briefly, never across I/O or await.
pub(super) struct Core {
    pub residency: Residency,
    /// Bytes reserved by content that is still being written.
    pub staged_bytes: u64,
    pub policy: Box<dyn Policy>,
    /// What is in force; `opts` says what it was at the start.
    pub tuning: Tuning,
    /// Promotions that the mover has in hand.
    pub promoting: HashSet<ObjectId>,
    /// Of these, those that another policy had proposed.
    pub adopted: HashSet<ObjectId>,
    pub pins: HashMap<FileId, Pin>,
    pub queue: Queue,
    /// For the shadow policies, if there are any.
    pub feed: Option<Feed>,
    pub history: History,
    /// Versions whose objects are being removed from the pools: nothing of them is promoted any more.
    pub purging: HashSet<FileId>,
    /// Dirty objects whose bytes are lost; never retried, never forgotten.
    pub damaged: BTreeSet<ObjectId>,
    scratch: Vec<Action>,
}

/// Someone uses a version's objects.
#[derive(Default)]
pub(super) struct Pin {
    pub holders: u32,
    /// Forgotten while in use: goes with the last holder.
    pub doomed: bool,
    /// What is to be removed from the pools then.
    pub purge: Option<Purge>,
    /// The tree file of a reader, if one is open.
    pub tree: Weak<File>,
}

/// Counts one foreground I/O for as long as it lives.
pub(super) struct Foreground<'a>(&'a ObjectCache);

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        self.0.foreground.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs blocking I/O off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(CacheError::Task(e.to_string())),
    }
}

impl ObjectCache {
    /// Opens the cache tier: removes unfinished files, reports foreign names, and rebuilds the residency map
    /// from the names of the objects.
    pub fn open(
        opts: CacheOptions,
        recorder: Recorder,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<ObjectCache>, CacheError> {
        Self::open_with_faults(
            opts,
            recorder,
            metrics,
            Faults::default(),
            Faults::default(),
        )
    }

    pub(super) fn open_with_faults(
        opts: CacheOptions,
        recorder: Recorder,
        metrics: Arc<Metrics>,
        cache_faults: Faults,
        tree_faults: Faults,
    ) -> Result<Arc<ObjectCache>, CacheError> {
        let io_error = |op: &str, source| CacheError::Io {
            op: format!("{op} cache directory"),
            source,
        };
        let mut found = Vec::new();
        let dir = match &opts.cache_dir {
            None => None,
            Some(path) => {
                let dir = DirStore::open(path, cache_faults).map_err(|e| io_error("open", e))?;
                let listing = dir.list().map_err(|e| io_error("list", e))?;
                for name in &listing.temporary {
                    let path = dir.objects_dir().join(name);
                    std::fs::remove_file(path).map_err(|e| io_error("clean", e))?;
                }
                for name in &listing.foreign {
                    tracing::warn!(name = %name.display(), "foreign name in the cache directory, left alone");
                }
                found = listing.objects;
                Some(dir)
            }
        };
        let pools = opts.pools.clone();
        let pools = pools.map(|p| PoolSide::new(p, tokio::runtime::Handle::current()));
        let policy = tiering::build(&opts.tuning.policy);
        let throttle = Throttle::new(
            opts.tuning.migrate_bytes_per_s,
            opts.tuning.migrate_ops_per_s,
        );
        let cached = found.iter().map(|object| u64::from(object.len)).sum();
        let cache = Arc::new(ObjectCache {
            capacity_bytes: opts.capacity.bytes(cached),
            gathering: Arc::default(),
            dir,
            pools,
            tree_faults,
            core: Mutex::new(Core {
                residency: Residency::default(),
                staged_bytes: 0,
                policy,
                tuning: opts.tuning.clone(),
                promoting: HashSet::new(),
                adopted: HashSet::new(),
                pins: HashMap::new(),
                queue: Queue::default(),
                feed: None,
                history: History::default(),
                purging: HashSet::new(),
                damaged: BTreeSet::new(),
                scratch: Vec::new(),
            }),
            recorder,
            metrics,
            backing: OnceLock::new(),
            throttle: Mutex::new(throttle),
            shadow: Mutex::default(),
            shadow_status: Mutex::default(),
            wake: Notify::new(),
            moved: Notify::new(),
            foreground: AtomicUsize::new(0),
            write_around: AtomicBool::new(false),
            counts: Counts::default(),
            heat: Mutex::default(),
            unsettled: Mutex::new(HashSet::new()),
            said: Mutex::default(),
            opts,
        });
        cache.restore_all(found);
        cache.register_gauges();
        Ok(cache)
    }

    /// Enters what a listing of the cache tier found, and tells the policy.
    pub(super) fn restore_all(&self, mut found: Vec<Stored>) {
        // A total order, so that the policy is told the same at each start.
        found.sort_unstable_by_key(|o| (o.id, o.mark == Mark::Clean, o.crc, o.len));
        let mut core = self.core.lock();
        for object in found {
            if core.residency.get(object.id).is_some() {
                tracing::warn!(object = %object.id, "second copy of an object in the cache tier, left alone");
                continue;
            }
            let entry = Entry {
                // What became of its bytes before this start is not known.
                fresh: false,
                ..entry_of(&object, false)
            };
            core.residency.insert(object.id.file, entry);
            self.event(
                &mut core,
                &Event::Restored {
                    id: object.id,
                    len: object.len,
                    dirty: object.mark == Mark::Dirty,
                },
            );
        }
    }

    fn register_gauges(self: &Arc<Self>) {
        let shadows = Arc::downgrade(self);
        let status = move || shadows.upgrade()?.shadow();
        self.metrics.shadow(status);
        let gauge = |gauge, value: fn(&ObjectCache, &Core) -> u64| {
            let cache = Arc::downgrade(self);
            self.metrics.gauge(gauge, move || {
                cache
                    .upgrade()
                    .map_or(0.0, |c| value(&c, &c.core.lock()) as f64)
            });
        };
        gauge(Gauge::CacheCapacityBytes, |c, _| c.capacity_bytes);
        gauge(Gauge::CacheUsedBytes, |c, core| c.view(core).used_bytes);
        gauge(Gauge::ObjectsClean, |_, core| {
            core.residency.clean().objects
        });
        gauge(Gauge::ObjectsDirty, |_, core| {
            core.residency.dirty().objects
        });
        gauge(Gauge::ObjectBytesClean, |_, core| {
            core.residency.clean().bytes
        });
        gauge(Gauge::ObjectBytesDirty, |_, core| {
            core.residency.dirty().bytes
        });
        gauge(Gauge::OldestDirtySeconds, |_, core| {
            core.residency.oldest_dirty().as_secs()
        });
        gauge(Gauge::LostObjects, |_, core| core.damaged.len() as u64);
        gauge(Gauge::DamageFound, |c, _| {
            c.counts.damaged.load(Ordering::Relaxed)
        });
        gauge(Gauge::CacheWriteErrors, |c, _| {
            c.counts.cache_write_errors.load(Ordering::Relaxed)
        });
        gauge(Gauge::PurgesWaiting, |_, core| core.purging.len() as u64);
        gauge(Gauge::MigratorQueue, |_, core| {
            core.queue.lengths().iter().sum()
        });
    }

    /// Whether anybody reads or writes a version.
    #[cfg(test)]
    pub fn is_in_use(&self) -> bool {
        !self.core.lock().pins.is_empty()
    }

    /// Gives the mover its way to the backing tier; the first call wins.
    pub fn attach_backing(&self, backing: Arc<dyn Backing>) {
        let _ = self.backing.set(backing);
    }

    /// Whether there is a cache tier.
    pub fn has_cache(&self) -> bool {
        self.dir.is_some() || self.pools.as_ref().is_some_and(|p| p.has_cache())
    }

    /// Whether there is anything to keep for those who still use a version that is gone.
    fn keeps_versions(&self) -> bool {
        self.dir.is_some() || self.pools.is_some()
    }

    /// Bytes per object.
    pub fn object_bytes(&self) -> u32 {
        self.opts.object_bytes
    }

    /// Versions with dirty objects, by id.
    pub fn dirty_files(&self) -> Vec<FileId> {
        let core = self.core.lock();
        let mut files = core.residency.dirty_files();
        files.retain(|f| !core.is_doomed(*f));
        files
    }

    /// What the backing tier is still to get: dirty objects, and bytes that are being written into the cache tier.
    pub fn unflushed(&self) -> Amount {
        let core = self.core.lock();
        let dirty = core.residency.dirty();
        Amount {
            bytes: dirty.bytes + core.staged_bytes,
            ..dirty
        }
    }

    /// From now on (or no longer), new content goes to the backing tier, as while draining.
    pub fn set_write_around(&self, on: bool) {
        self.write_around.store(on, Ordering::Relaxed);
    }

    /// Starts a new version. `tree` is its tree file, not yet visible to anyone.
    pub fn stage(self: &Arc<Self>, file: FileId, tree: Arc<File>, io: IoContext) -> Staging {
        Staging::new(self.clone(), file, tree, io)
    }

    /// Starts a new version that has the old one's bytes.
    pub async fn stage_from(
        self: &Arc<Self>,
        old: &ContentReader,
        file: FileId,
        tree: Arc<File>,
        io: IoContext,
    ) -> Result<Staging, CacheError> {
        Staging::from_old(self.clone(), old, file, tree, io).await
    }

    /// Reads a version of `len` bytes; pins it.
    pub fn reader(
        self: &Arc<Self>,
        file: FileId,
        len: u64,
        tree: Arc<File>,
        io: IoContext,
    ) -> ContentReader {
        ContentReader::new(self.clone(), file, len, Some(tree), io)
    }

    /// Reads a version of `len` bytes that is in the pools; pins it.
    pub fn pooled_reader(self: &Arc<Self>, file: FileId, len: u64, io: IoContext) -> ContentReader {
        ContentReader::new(self.clone(), file, len, None, io)
    }

    /// Tells the policy that a client still uses its own copy of a version (304).
    pub fn revalidated(&self, file: FileId, len: u64, _io: IoContext) {
        self.observe(
            file,
            &Event::Revalidated {
                file,
                objects: self.objects_in(len),
                len,
            },
        );
    }

    /// A version is gone (deleted or overwritten): cancels its flushes and drops its objects, once no reader
    /// and no move uses them.
    pub fn forget(&self, file: FileId, len: u64) {
        self.heat.lock().forget(file);
        let event = Event::Deleted {
            file,
            objects: self.objects_in(len),
        };
        self.drop_version(file, Some(&event));
    }

    pub(super) fn drop_version(&self, file: FileId, event: Option<&Event>) {
        if !self.keeps_versions() {
            return;
        }
        let gone = {
            let mut core = self.core.lock();
            core.queue.cancel(file);
            match event {
                Some(event) => {
                    self.event(&mut core, event);
                    core.queue.cancel(file);
                }
                // Nobody was told that it is there.
                None => core.residency.spare_nothing(file),
            }
            match core.pins.get_mut(&file) {
                Some(pin) => {
                    pin.doomed = true;
                    Vec::new()
                }
                None => self.take_version(&mut core, file),
            }
        };
        self.unlink(file, &gone);
    }

    /// Takes a version's rows out of the map, and counts what the backing tier is spared.
    pub(super) fn take_version(&self, core: &mut Core, file: FileId) -> Vec<Entry> {
        core.damaged.retain(|id| id.file != file);
        let gone = core.residency.remove_file(file);
        let (mut objects, mut bytes) = (0, 0);
        for row in gone.iter().filter(|row| row.spares_backing()) {
            (objects, bytes) = (objects + 1, bytes + u64::from(row.len));
        }
        self.metrics.spared(objects, bytes);
        gone
    }

    /// Drops the clean copies of a version: its tree file was written beside the gateway. Not those of one that is not settled:
    /// what was found is a copy of its file then.
    pub fn drop_clean(&self, file: FileId) {
        let gone: Vec<Entry> = {
            let mut core = self.core.lock();
            if self.is_unsettled(&core, file) {
                return;
            }
            let rows: Vec<Entry> = core
                .residency
                .rows(file)
                .iter()
                .filter(|e| matches!(e.state, State::Clean | State::Promoting))
                .copied()
                .collect();
            for e in &rows {
                let id = ObjectId::new(file, e.index);
                core.residency.remove(id);
                // A promotion under way finds its row gone, removes its copy and reports its failure.
                if e.state == State::Clean {
                    self.event(&mut core, &Event::Evicted { id });
                }
            }
            rows
        };
        self.unlink(file, &gone);
    }

    /// Replay of the log: makes a small dirty object again. Idempotent.
    pub fn restore(&self, id: ObjectId, data: &[u8]) -> Result<(), CacheError> {
        let Some(dir) = &self.dir else {
            return Err(CacheError::Io {
                op: format!("restore object {id}"),
                source: io::ErrorKind::Unsupported.into(),
            });
        };
        let object = Stored {
            id,
            len: data.len() as u32,
            crc: crc32c::crc32c(data),
            mark: Mark::Dirty,
        };
        if let Some((found, _)) = self.lookup(id) {
            // What the kernel has of it may never have reached the disk: a failed write leaves pages that pass for written.
            if (found.len, found.crc) == (object.len, object.crc)
                && dir.forget_pages(&found).is_ok()
                && read_verified(dir, &found).is_ok()
            {
                self.core.lock().residency.set_verified(id);
                return Ok(());
            }
            dir.remove(&found).map_err(|e| CacheError::Io {
                op: format!("replace object {id}"),
                source: e,
            })?;
        }
        dir.put(&object, data, false)?;
        let mut core = self.core.lock();
        core.damaged.remove(&id);
        core.residency.insert(id.file, entry_of(&object, true));
        self.event(
            &mut core,
            &Event::Restored {
                id,
                len: object.len,
                dirty: true,
            },
        );
        Ok(())
    }

    /// Whether the cache tier has all of these objects of a version.
    pub fn contains_all(&self, file: FileId, objects: &[ObjectId]) -> bool {
        let core = self.core.lock();
        objects.iter().all(|id| {
            id.file == file
                && core
                    .residency
                    .get(*id)
                    .is_some_and(|e| e.stored(file).is_some())
        })
    }

    /// Marks dirty objects of a version as lost: the cache does not have them any more, the backing tier
    /// never had them. They are refused until the version is deleted or overwritten.
    pub fn set_lost(&self, file: FileId, indices: &[u32]) {
        let mut core = self.core.lock();
        core.damaged
            .extend(indices.iter().map(|index| ObjectId::new(file, *index)));
    }

    /// Says that a version without dirty objects could not be settled: that is tried again, and its objects stay until then.
    pub fn set_unsettled(&self, file: FileId) {
        self.unsettled.lock().insert(file);
    }

    /// Waits until all of the cache tier is on stable storage.
    pub fn sync(&self) -> io::Result<()> {
        self.dir.as_ref().map_or(Ok(()), DirStore::sync_everything)
    }

    // --- for the other files of this module ---

    pub(super) fn objects_in(&self, len: u64) -> u32 {
        len.div_ceil(u64::from(self.opts.object_bytes)) as u32
    }

    /// Length of object `index` in a version of `len` bytes.
    pub(super) fn object_len(&self, len: u64, index: u32) -> u32 {
        let size = u64::from(self.opts.object_bytes);
        len.saturating_sub(u64::from(index) * size).min(size) as u32
    }

    pub(super) fn view(&self, core: &Core) -> CacheView {
        CacheView {
            capacity_bytes: self.capacity_bytes,
            used_bytes: core.used_bytes(),
            dirty_bytes: core.residency.dirty().bytes,
            high_watermark: core.tuning.high_watermark,
            low_watermark: core.tuning.low_watermark,
            max_dirty_age: core.tuning.max_dirty_age.into(),
        }
    }

    /// Tells the policy, and queues what it wants.
    pub(super) fn event(&self, core: &mut Core, event: &Event) {
        if !self.has_cache() {
            return;
        }
        let view = self.view(core);
        let mut actions = std::mem::take(&mut core.scratch);
        let now = self.recorder.now();
        core.policy.on_event(now, event, &view, &mut actions);
        if let Some(feed) = &mut core.feed {
            feed.note(now, event);
        }
        self.enqueue(core, &mut actions);
        core.scratch = actions;
        if view.used_bytes > view.high_bytes() {
            self.wake.notify_one();
        }
    }

    /// Lets the policy act on time and fill level.
    pub(super) fn tick_policy(&self) {
        if !self.has_cache() {
            return;
        }
        let mut core = self.core.lock();
        let core = &mut *core;
        let view = self.view(core);
        let mut actions = std::mem::take(&mut core.scratch);
        core.policy.tick(self.recorder.now(), &view, &mut actions);
        self.enqueue(core, &mut actions);
        core.scratch = actions;
    }

    fn enqueue(&self, core: &mut Core, actions: &mut Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        for action in actions.drain(..) {
            if !core.queue.push(action) {
                refused.push(action);
            }
        }
        let now = self.recorder.now();
        for action in refused {
            let view = self.view(core);
            let failed = Event::Failed {
                id: action.id,
                action: action.kind,
            };
            // What the policy proposes now waits for its next tick: no recursion.
            core.policy.on_event(now, &failed, &view, &mut Vec::new());
        }
        self.wake.notify_one();
    }

    /// An event of a reader: nothing about a version that is gone.
    pub(super) fn observe(&self, file: FileId, event: &Event) {
        if self.has_cache() {
            let mut core = self.core.lock();
            if !core.is_doomed(file) {
                self.event(&mut core, event);
            }
        }
    }

    /// What the cache has of an object.
    pub(super) fn lookup(&self, id: ObjectId) -> Option<(Stored, bool)> {
        self.lookup_or_lost(id).ok().flatten()
    }

    /// [`ObjectCache::lookup_or_lost`] of a file that is in the tree. Over pools such a one has nothing in the cache, whatever has
    /// got its id there.
    pub(super) fn lookup_beside_tree(
        &self,
        id: ObjectId,
    ) -> Result<Option<(Stored, bool)>, CacheError> {
        match self.pools {
            Some(_) => Ok(None),
            None => self.lookup_or_lost(id),
        }
    }

    /// What the cache has of an object; an error if only the cache had it, and it is gone.
    pub(super) fn lookup_or_lost(
        &self,
        id: ObjectId,
    ) -> Result<Option<(Stored, bool)>, CacheError> {
        let core = self.core.lock();
        match core.residency.get(id) {
            Some(entry) => Ok(entry.stored(id.file).map(|o| (o, entry.verified))),
            None if core.damaged.contains(&id) => Err(CacheError::Damaged { id }),
            None => Ok(None),
        }
    }

    pub(super) fn open_object(&self, object: &Stored) -> io::Result<File> {
        match &self.dir {
            Some(dir) => dir.open_object(object),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Drops a clean copy that cannot be read; the backing tier has the bytes.
    pub(super) fn drop_damaged(&self, object: &Stored) {
        let dropped = {
            let mut core = self.core.lock();
            let same = core
                .residency
                .get(object.id)
                .is_some_and(|e| e.state == State::Clean && e.crc == object.crc);
            if same {
                core.residency.remove(object.id);
                self.event(&mut core, &Event::Evicted { id: object.id });
            }
            // Until its version is settled, the name of a flushed object says that it was flushed.
            same && !self.is_unsettled(&core, object.id.file)
        };
        if dropped {
            self.unlink(object.id.file, &[entry_of(object, false)]);
        }
    }

    pub(super) fn pin(&self, file: FileId, tree: Option<&Arc<File>>) {
        if self.keeps_versions() {
            let mut core = self.core.lock();
            let pin = core.pins.entry(file).or_default();
            pin.holders += 1;
            if let Some(tree) = tree {
                pin.tree = Arc::downgrade(tree);
            }
        }
    }

    pub(super) fn unpin(&self, file: FileId) {
        if !self.keeps_versions() {
            return;
        }
        let gone = {
            let mut core = self.core.lock();
            let Some(pin) = core.pins.get_mut(&file) else {
                return;
            };
            pin.holders -= 1;
            if pin.holders > 0 {
                return;
            }
            let (doomed, purge) = (pin.doomed, pin.purge);
            core.pins.remove(&file);
            let gone = if doomed {
                self.take_version(&mut core, file)
            } else {
                Vec::new()
            };
            if let (Some(side), Some(purge)) = (&self.pools, purge) {
                // The purge removes the objects.
                core.purging.insert(file);
                side.purges.push(self.knowing(purge, &gone));
                return;
            }
            gone
        };
        self.unlink(file, &gone);
    }

    /// Removes the files of objects that have left the map.
    pub(super) fn unlink(&self, file: FileId, rows: &[Entry]) {
        let Some(dir) = &self.dir else {
            return self.unlink_pooled(file, rows);
        };
        for row in rows {
            let Some(object) = row.stored(file) else {
                continue;
            };
            if let Err(error) = dir.remove(&object) {
                // It stays as an orphan that `scrub` names and removes.
                tracing::warn!(object = %object.id, %error, "cannot remove a cached object");
            }
        }
    }

    /// Whether a new object of `len` bytes fits. Large ones leave a little room: past the cache a large one pays the disk for its
    /// bytes, a small one almost only for its positioning and its sync.
    pub(super) fn fits(&self, core: &Core, len: u32) -> bool {
        let kept = match len > SMALL_BYTES_MAX {
            true => {
                // Room is made from the high watermark on: large ones must be able to get there.
                let high = self.view(core).high_bytes();
                let over_high = self.capacity_bytes.saturating_sub(high);
                (self.capacity_bytes / SMALL_SHARE).min(over_high / 2)
            }
            false => 0,
        };
        core.used_bytes() + u64::from(len) + kept <= self.capacity_bytes
    }

    /// Reserves room for an object that is about to be written.
    pub(super) fn reserve(&self, core: &mut Core, bytes: u32) -> bool {
        if core.used_bytes() + u64::from(bytes) > self.capacity_bytes {
            return false;
        }
        core.staged_bytes += u64::from(bytes);
        true
    }

    /// Asks the policy where a new object goes, and reserves its room.
    pub(super) fn place(&self, id: ObjectId, len: u32) -> Tier {
        if !self.has_cache() || self.write_around.load(Ordering::Relaxed) || self.is_cache_away() {
            return Tier::Backing;
        }
        let mut core = self.core.lock();
        let view = self.view(&core);
        let wanted = core.policy.place_write(self.recorder.now(), id, len, &view);
        if wanted == Tier::Cache && self.fits(&core, len) && self.reserve(&mut core, len) {
            Tier::Cache
        } else {
            if wanted == Tier::Cache {
                self.wake.notify_one();
            }
            Tier::Backing
        }
    }

    pub(super) fn release(&self, bytes: u64) {
        self.core.lock().staged_bytes -= bytes;
    }

    pub(super) fn foreground(&self) -> Foreground<'_> {
        self.foreground.fetch_add(1, Ordering::Relaxed);
        Foreground(self)
    }

    pub(super) fn count_read(&self, tier: Tier, bytes: u64, latency_ns: u64) {
        let (count, total) = match tier {
            Tier::Cache => (&self.counts.reads_cache, &self.counts.read_cache_bytes),
            Tier::Backing => (&self.counts.reads_backing, &self.counts.read_backing_bytes),
        };
        count.fetch_add(1, Ordering::Relaxed);
        total.fetch_add(bytes, Ordering::Relaxed);
        super::telemetry::object_io(&self.metrics, ObjectOp::Read, tier, bytes, latency_ns);
    }

    pub(super) fn count_write(&self, tier: Tier, bytes: u64, latency_ns: u64) {
        super::telemetry::object_io(&self.metrics, ObjectOp::Write, tier, bytes, latency_ns);
    }

    pub(super) fn count_damage(&self) {
        self.counts.damaged.fetch_add(1, Ordering::Relaxed);
    }

    #[expect(clippy::too_many_arguments, reason = "one row of the trace")]
    pub(super) fn trace_object(
        &self,
        op: Op,
        id: ObjectId,
        offset: u64,
        len: u64,
        tier: Tier,
        at: Nanos,
        latency_ns: u64,
        io: IoContext,
    ) {
        match op {
            Op::ObjectRead => self
                .heat
                .lock()
                .read(self.recorder.now(), id, tier, latency_ns),
            Op::ObjectWrite => self.heat.lock().write(self.recorder.now(), id),
            _ => {}
        }
        super::telemetry::record(
            &self.recorder,
            op,
            id,
            offset,
            len,
            tier,
            at,
            latency_ns,
            io,
        );
    }
}

impl Core {
    /// Bytes that the cache tier holds or will soon hold.
    pub fn used_bytes(&self) -> u64 {
        self.residency.bytes() + self.staged_bytes
    }

    pub fn is_doomed(&self, file: FileId) -> bool {
        self.pins.get(&file).is_some_and(|p| p.doomed)
    }

    /// Whether bytes of a version are lost, damaged or gone.
    pub fn has_lost(&self, file: FileId) -> bool {
        let all = ObjectId::new(file, 0)..=ObjectId::new(file, u32::MAX);
        self.damaged.range(all).next().is_some()
    }

    /// Dirty objects that are gone from the cache tier, by id.
    pub fn gone(&self) -> Vec<ObjectId> {
        let gone = |id: &&ObjectId| self.residency.get(**id).is_none();
        self.damaged.iter().filter(gone).copied().collect()
    }

    /// Objects that a move may be started on.
    pub fn may_move(&self, id: ObjectId, kind: ActionKind) -> bool {
        if self.is_doomed(id.file) || self.purging.contains(&id.file) || self.damaged.contains(&id)
        {
            return false;
        }
        let state = self.residency.get(id).map(|e| e.state);
        match kind {
            ActionKind::Promote => state.is_none(),
            ActionKind::Flush => state == Some(State::Dirty),
            ActionKind::Evict => state == Some(State::Clean),
        }
    }
}

pub(super) fn entry_of(object: &Stored, verified: bool) -> Entry {
    Entry {
        index: object.id.index,
        len: object.len,
        crc: object.crc,
        state: match object.mark {
            Mark::Clean => State::Clean,
            Mark::Dirty => State::Dirty,
        },
        verified,
        fresh: object.mark == Mark::Dirty,
        alone: false,
    }
}
