//! A new version over the two directories: objects in files of the cache tier, or in the tree file.
//!
//! Writes gather in memory up to [`GATHER_BYTES`] and go to the stores in one blocking hop; content that is
//! smaller than that costs one hop in all, in [`LocalStaging::finish`].

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tiering::{FileId, Nanos, ObjectId, Tier};

use super::super::cache::{ObjectCache, blocking, entry_of};
use super::super::error::CacheError;
use super::super::file_system_sync::Writes;
use super::super::gathering::Gathered;
use super::super::io::{copy_range, read_full_at, sync_data, write_all_at};
use super::super::options::{Durability, IoContext, WritePolicy};
use super::super::reader::ContentReader;
use super::super::store::{Mark, Stored, read_verified};
use super::{INLINE_BYTES_MAX, Origin, Placed, Staged, StagedObject, TreeBytes};

/// Bytes that gather in memory before they are written.
pub(super) const GATHER_BYTES: usize = 1 << 20;
/// Most bytes of one version that the log carries: a record is made, and read back, in memory.
const INLINE_SUM_MAX: u64 = 1 << 20;
/// Files synced at the same time.
const SYNCS_AT_ONCE: usize = 8;

/// See [`Staging`](super::Staging).
pub(super) struct LocalStaging {
    work: Option<Box<Work>>,
    pending: Vec<(u64, Bytes)>,
    pending_bytes: usize,
    /// Room for what is pending.
    gathered: Option<Gathered>,
    expected: Option<u64>,
    tree_bytes: TreeBytes,
    cache: Arc<ObjectCache>,
}

/// One object of the new version.
#[derive(Default)]
struct Slot {
    in_tree: bool,
    copy: Option<CacheCopy>,
    io_ns: u64,
    /// The tree has it as the old version had it, in so many bytes.
    unchanged: Option<u32>,
}

/// An object's file in the cache tier, under a temporary name.
struct CacheCopy {
    path: PathBuf,
    file: Arc<File>,
    /// Bytes in the file.
    len: u32,
    /// Checksum of the first bytes, up to `.1`, when written in order.
    crc: Option<(u32, u32)>,
    /// Hard link to an object of the old version: copied before it is written to.
    shared: bool,
    reserved: u32,
}

struct Work {
    cache: Arc<ObjectCache>,
    file: FileId,
    tree: Arc<File>,
    io: IoContext,
    slots: BTreeMap<u32, Slot>,
    origin: Option<Origin>,
    started: Nanos,
    /// How the tree file is synced, if not alone.
    together: Option<Writes>,
    /// Content for the tree that the log will carry.
    logged: Option<Bytes>,
}

/// What is to be synced.
#[derive(Clone)]
enum ToSync {
    /// An object's file in the cache tier.
    Cached(Arc<File>),
    /// The tree file alone.
    Tree(Arc<File>),
    /// The tree file, with what others wrote to its file system.
    Together(Writes),
}

impl LocalStaging {
    pub fn new(cache: Arc<ObjectCache>, file: FileId, tree: Arc<File>, io: IoContext) -> Self {
        LocalStaging {
            work: Some(Box::new(Work {
                started: cache.recorder.now(),
                together: cache.begin_upload_together(),
                cache: cache.clone(),
                file,
                tree,
                io,
                slots: BTreeMap::new(),
                origin: None,
                logged: None,
            })),
            pending: Vec::new(),
            pending_bytes: 0,
            gathered: None,
            expected: None,
            tree_bytes: TreeBytes::Synced,
            cache,
        }
    }

    pub async fn from_old(
        cache: Arc<ObjectCache>,
        old: &ContentReader,
        file: FileId,
        tree: Arc<File>,
        io: IoContext,
    ) -> Result<LocalStaging, CacheError> {
        let mut staging = LocalStaging::new(cache, file, tree, io);
        let (old_file, old_len) = (old.file(), old.len());
        let Some(old_tree) = old.tree().cloned() else {
            return Err(CacheError::NoBacking);
        };
        staging
            .hop(move |work| {
                let objects = work.cache.objects_in(old_len);
                work.origin = Some(Origin {
                    file: old_file,
                    objects,
                });
                for index in 0..objects {
                    let len = work.cache.object_len(old_len, index);
                    work.share(ObjectId::new(old_file, index), len, &old_tree)?;
                }
                Ok(())
            })
            .await?;
        Ok(staging)
    }

    /// Announces the final length, so that the policy places objects by their real size.
    pub fn expect_len(&mut self, len: u64) {
        self.expected = Some(len);
    }

    /// Says who makes durable what the tree file gets.
    pub fn leave_tree_bytes(&mut self, to: TreeBytes) {
        self.tree_bytes = to;
    }

    /// Cuts the content to `len` bytes.
    pub async fn truncate(&mut self, len: u64) -> Result<(), CacheError> {
        self.apply().await?;
        self.hop(move |work| work.cut(len)).await
    }

    /// Writes at `offset`, which is not past the end.
    pub async fn push(&mut self, offset: u64, data: Bytes) -> Result<(), CacheError> {
        let bytes = data.len() as u64;
        let room = match &mut self.gathered {
            Some(gathered) => gathered.grow(bytes),
            None => {
                self.gathered = self.cache.gathering.take(bytes);
                self.gathered.is_some()
            }
        };
        self.pending_bytes += data.len();
        self.pending.push((offset, data));
        if self.pending_bytes >= GATHER_BYTES || !room {
            self.apply().await?;
        }
        Ok(())
    }

    async fn apply(&mut self) -> Result<(), CacheError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let _gathered = self.gathered.take();
        let expected = self.expected;
        self.hop(move |work| work.write(pending, expected)).await
    }

    /// Runs `f` on a blocking thread. If this future is dropped, the work is discarded there.
    async fn hop<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut Work) -> Result<T, CacheError> + Send + 'static,
    ) -> Result<T, CacheError> {
        let Some(mut work) = self.work.take() else {
            return Err(CacheError::Task("write after a failed one".into()));
        };
        let _foreground = self.cache.foreground();
        let (work, done) = blocking(move || {
            let done = f(&mut work)?;
            Ok((work, done))
        })
        .await?;
        self.work = Some(work);
        Ok(done)
    }

    /// Completes the version of `len` bytes.
    pub async fn finish(mut self, len: u64) -> Result<Staged, CacheError> {
        let pending = std::mem::take(&mut self.pending);
        let sync_tree = self.tree_bytes != TreeBytes::Unsynced;
        let (staged, files) = self
            .hop(move |work| {
                work.write(pending, Some(len))?;
                work.complete(len, sync_tree)
            })
            .await?;
        let sync_names = has_cached(&files);
        for batch in files.chunks(SYNCS_AT_ONCE) {
            futures_util::future::try_join_all(batch.iter().cloned().map(|file| {
                let cache = self.cache.clone();
                blocking(move || sync_content(&cache, &file))
            }))
            .await?;
        }
        if sync_names {
            let (cache, file) = (self.cache.clone(), staged.file);
            blocking(move || sync_names_of(&cache, file)).await?;
        }
        Ok(staged)
    }

    /// [`LocalStaging::finish`] of content that is all here, on a blocking thread.
    pub fn finish_whole(mut self, data: Vec<Bytes>) -> Result<Staged, CacheError> {
        let Some(mut work) = self.work.take() else {
            return Err(CacheError::Task("write after a failed one".into()));
        };
        let _foreground = self.cache.foreground();
        let mut len = 0;
        let mut pending = Vec::with_capacity(data.len());
        for part in data {
            let at = len;
            len += part.len() as u64;
            pending.push((at, part));
        }
        if self.tree_bytes == TreeBytes::Logged && self.cache.leaves_to_log(len) {
            work.logged = Some(match pending.as_slice() {
                [(_, whole)] => whole.clone(),
                parts => {
                    let parts: Vec<&[u8]> = parts.iter().map(|(_, part)| &part[..]).collect();
                    parts.concat().into()
                }
            });
        }
        work.write(pending, Some(len))?;
        let (staged, files) = work.complete(len, self.tree_bytes != TreeBytes::Unsynced)?;
        for file in &files {
            sync_content(&self.cache, file)?;
        }
        if has_cached(&files) {
            sync_names_of(&self.cache, staged.file)?;
        }
        Ok(staged)
    }
}

fn has_cached(files: &[ToSync]) -> bool {
    files.iter().any(|file| matches!(file, ToSync::Cached(_)))
}

fn sync_content(cache: &ObjectCache, what: &ToSync) -> Result<(), CacheError> {
    let synced = match (what, &cache.dir) {
        (ToSync::Cached(file), Some(dir)) => sync_data(file, dir.faults()),
        (ToSync::Cached(file) | ToSync::Tree(file), _) => sync_data(file, &cache.tree_faults),
        (ToSync::Together(writes), _) => cache.sync_together(writes),
    };
    synced.map_err(|e| CacheError::backing("sync new content", e))
}

fn sync_names_of(cache: &ObjectCache, file: FileId) -> Result<(), CacheError> {
    cache
        .dir
        .as_ref()
        .map_or(Ok(()), |dir| dir.sync_names(file))
        .map_err(|e| CacheError::backing("sync new names", e))
}

impl Work {
    fn id(&self, index: u32) -> ObjectId {
        ObjectId::new(self.file, index)
    }

    fn base(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.cache.opts.object_bytes)
    }

    fn tree_error(&self, e: std::io::Error) -> CacheError {
        CacheError::backing(format!("write tree file of {}", self.file), e)
    }

    fn write(
        &mut self,
        pending: Vec<(u64, Bytes)>,
        expected: Option<u64>,
    ) -> Result<(), CacheError> {
        let object_bytes = u64::from(self.cache.opts.object_bytes);
        for (mut offset, mut data) in pending {
            while !data.is_empty() {
                let index =
                    u32::try_from(offset / object_bytes).map_err(|_| CacheError::TooLarge)?;
                let within = (offset % object_bytes) as u32;
                let n = (object_bytes - u64::from(within)).min(data.len() as u64) as usize;
                let part = data.split_to(n);
                let hint = match expected.map(|len| self.cache.object_len(len, index)) {
                    Some(len) if len > 0 => len,
                    _ => self.cache.opts.object_bytes,
                };
                self.write_object(index, within, &part, hint)?;
                offset += n as u64;
            }
        }
        Ok(())
    }

    fn write_object(
        &mut self,
        index: u32,
        within: u32,
        data: &[u8],
        hint: u32,
    ) -> Result<(), CacheError> {
        let started = self.cache.recorder.now();
        let id = self.id(index);
        let mut slot = match self.slots.remove(&index) {
            Some(slot) => self.lift(id, slot, within + data.len() as u32)?,
            None => self.place(id, hint),
        };
        if let Some(copy) = &mut slot.copy {
            let written = unshare(&self.cache, id, copy)
                .and_then(|()| grow(&self.cache, copy, within + data.len() as u32))
                .and_then(|()| write_copy(&self.cache, copy, within, data));
            if let Err(error) = written {
                self.fall_back(id, &mut slot, &error)?;
            }
        }
        let mut done = Ok(());
        if slot.in_tree {
            let at = self.base(index) + u64::from(within);
            done = write_all_at(&self.tree, data, at, &self.cache.tree_faults);
        }
        slot.io_ns += self.cache.recorder.now().since(started).0;
        self.slots.insert(index, slot);
        done.map_err(|e| self.tree_error(e))
    }

    fn place(&self, id: ObjectId, hint: u32) -> Slot {
        let mut slot = Slot {
            in_tree: self.cache.opts.write_policy == WritePolicy::Through,
            ..Slot::default()
        };
        let around = self.logged.is_some() || self.cache.writes_around(id, hint);
        if !around && self.cache.place(id, hint) == Tier::Cache {
            match self.cache.dir.as_ref().map(|dir| dir.create_temp(id)) {
                Some(Ok((path, file))) => {
                    slot.copy = Some(CacheCopy {
                        path,
                        file: Arc::new(file),
                        len: 0,
                        crc: Some((0, 0)),
                        shared: false,
                        reserved: hint,
                    });
                }
                Some(Err(error)) => {
                    self.cache.release(u64::from(hint));
                    self.cache.note_cache_error(id, &error);
                }
                None => {}
            }
        }
        slot.in_tree |= slot.copy.is_none();
        slot
    }

    /// A small object that only the tree has, and that is about to be changed up to `end`, goes to the cache if the policy wants a
    /// new one there: it is a sync of the tree less.
    fn lift(&self, id: ObjectId, mut slot: Slot, end: u32) -> Result<Slot, CacheError> {
        let Some(len) = slot.unchanged.take() else {
            return Ok(slot);
        };
        let end = end.max(len);
        if end > INLINE_BYTES_MAX || self.cache.opts.write_policy != WritePolicy::Back {
            return Ok(slot);
        }
        let mut lifted = self.place(id, end);
        let Some(copy) = &mut lifted.copy else {
            return Ok(slot);
        };
        let mut bytes = vec![0; len as usize];
        let at = self.base(id.index);
        let read = read_full_at(&self.tree, &mut bytes, at, &self.cache.tree_faults)
            .map_err(|e| self.tree_error(e));
        if read.as_ref().is_ok_and(|n| *n == bytes.len()) {
            match write_copy(&self.cache, copy, 0, &bytes) {
                Ok(()) => return Ok(lifted),
                Err(error) => self.cache.note_cache_error(id, &error),
            }
        }
        if let Some(copy) = lifted.copy.take() {
            discard(&self.cache, copy);
        }
        read.map(|_| slot)
    }

    /// The cache tier failed: what it has of the object goes to the tree.
    fn fall_back(
        &self,
        id: ObjectId,
        slot: &mut Slot,
        error: &std::io::Error,
    ) -> Result<(), CacheError> {
        self.cache.note_cache_error(id, error);
        let Some(copy) = slot.copy.take() else {
            return Ok(());
        };
        let moved = if slot.in_tree {
            Ok(())
        } else {
            slot.in_tree = true;
            let (at, len) = (self.base(id.index), u64::from(copy.len));
            copy_range(&copy.file, 0, &self.tree, at, len, &self.cache.tree_faults)
        };
        discard(&self.cache, copy);
        moved.map_err(|e| self.tree_error(e))
    }

    /// Gives the new version an object of the old one: by a hard link in the cache, else by a copy in the tree.
    fn share(&mut self, old: ObjectId, len: u32, old_tree: &File) -> Result<(), CacheError> {
        let id = self.id(old.index);
        let cache = self.cache.clone();
        let mut slot = Slot::default();
        // A flush or an eviction may rename or remove the object meanwhile: look again then.
        for _ in 0..3 {
            let (Some(dir), Some((object, verified))) = (&cache.dir, cache.lookup_or_lost(old)?)
            else {
                break;
            };
            let through = cache.opts.write_policy == WritePolicy::Through;
            let checked = if verified {
                Ok(())
            } else {
                read_verified(dir, &object).map(|_| cache.core.lock().residency.set_verified(old))
            };
            if let Err(e) = checked {
                if object.mark == Mark::Dirty {
                    return Err(e.into());
                }
                cache.drop_damaged(&object);
                break;
            }
            if object.mark == Mark::Dirty && through {
                // Only the cache has it, and it has to be in the tree.
                let Ok(from) = dir.open_object(&object) else {
                    continue;
                };
                let at = self.base(old.index);
                copy_range(&from, 0, &self.tree, at, u64::from(len), &cache.tree_faults)
                    .map_err(|e| self.tree_error(e))?;
                slot.in_tree = true;
                break;
            }
            let dirty = object.mark == Mark::Dirty;
            if !dirty && (through || !cache.reserve_now(len)) {
                break;
            }
            // What is dirty stays until the new version has taken its place: its bytes are counted already.
            let reserved = if dirty { 0 } else { len };
            match dir.link_temp(&object, id) {
                Ok((path, file)) => {
                    slot.copy = Some(CacheCopy {
                        path,
                        file: Arc::new(file),
                        len: object.len,
                        crc: Some((object.crc, object.len)),
                        shared: true,
                        reserved,
                    });
                    break;
                }
                Err(_) => cache.release(u64::from(reserved)),
            }
        }
        if slot.copy.is_none() && !slot.in_tree {
            if cache
                .lookup(old)
                .is_some_and(|(o, _)| o.mark == Mark::Dirty)
            {
                return Err(CacheError::Damaged { id: old });
            }
            let at = self.base(old.index);
            copy_range(
                old_tree,
                at,
                &self.tree,
                at,
                u64::from(len),
                &cache.tree_faults,
            )
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => CacheError::Truncated {
                    file: old.file,
                    offset: at,
                },
                _ => self.tree_error(e),
            })?;
            slot.in_tree = true;
            slot.unchanged = Some(len);
        }
        self.slots.insert(old.index, slot);
        Ok(())
    }

    fn cut(&mut self, len: u64) -> Result<(), CacheError> {
        let cache = self.cache.clone();
        if let Some(origin) = &mut self.origin {
            origin.cut(cache.objects_in(len));
        }
        for (_, slot) in self.slots.split_off(&cache.objects_in(len)) {
            if let Some(copy) = slot.copy {
                discard(&cache, copy);
            }
        }
        let on_disk = self.tree.metadata().map_err(|e| self.tree_error(e))?.len();
        if on_disk > len {
            self.tree.set_len(len).map_err(|e| self.tree_error(e))?;
        }
        let Some(index) = cache.objects_in(len).checked_sub(1) else {
            return Ok(());
        };
        let keep = cache.object_len(len, index);
        let id = self.id(index);
        let Some(mut slot) = self.slots.remove(&index) else {
            return Ok(());
        };
        let mut done = Ok(());
        slot.unchanged = slot.unchanged.map(|len| len.min(keep));
        if let Some(copy) = &mut slot.copy
            && copy.len > keep
        {
            let cut = unshare(&cache, id, copy).and_then(|()| copy.file.set_len(u64::from(keep)));
            copy.len = keep.min(copy.len);
            if copy.crc.is_some_and(|(_, end)| end > keep) {
                copy.crc = None;
            }
            if let Err(error) = cut {
                done = self.fall_back(id, &mut slot, &error);
            }
        }
        self.slots.insert(index, slot);
        done
    }

    /// Gives every object its name and its row; returns the files to sync, with whether each is in the cache.
    fn complete(&mut self, len: u64, sync_tree: bool) -> Result<(Staged, Vec<ToSync>), CacheError> {
        let cache = self.cache.clone();
        let commit = cache.opts.durability == Durability::Commit;
        let mark = match cache.opts.write_policy {
            WritePolicy::Back | WritePolicy::Around => Mark::Dirty,
            WritePolicy::Through => Mark::Clean,
        };
        let mut syncs = Vec::new();
        let mut inlined = 0;
        let mut staged = Staged {
            len,
            dirty: Vec::new(),
            tree_written: false,
            logged: self.logged.take(),
            placed: Vec::new(),
            file: self.file,
            io: self.io,
            started: self.started,
            published: false,
            pooled: false,
            cache: cache.clone(),
        };
        while let Some((index, mut slot)) = self.slots.pop_first() {
            let id = self.id(index);
            let object_len = cache.object_len(len, index);
            if let Some(copy) = &slot.copy {
                let in_log = commit
                    && mark == Mark::Dirty
                    && object_len <= INLINE_BYTES_MAX
                    && inlined + u64::from(object_len) <= INLINE_SUM_MAX;
                match name_copy(&cache, id, copy, object_len, mark, in_log) {
                    Ok((object, data)) => {
                        if object.mark == Mark::Dirty {
                            let inline = data.filter(|_| in_log);
                            inlined += inline.as_ref().map_or(0, |data| data.len() as u64);
                            if commit && inline.is_none() {
                                syncs.push(ToSync::Cached(copy.file.clone()));
                            }
                            staged.dirty.push(StagedObject {
                                id,
                                len: object.len,
                                crc: object.crc,
                                inline,
                            });
                        }
                        let mut core = cache.core.lock();
                        core.staged_bytes -= u64::from(copy.reserved);
                        core.residency.insert(self.file, entry_of(&object, true));
                        if let Some(origin) = &self.origin
                            && copy.shared
                        {
                            let old = ObjectId::new(origin.file, index);
                            core.residency.share(old, id);
                        }
                    }
                    Err(error) => self.fall_back(id, &mut slot, &error)?,
                }
            }
            staged.tree_written |= slot.in_tree && staged.logged.is_none();
            staged.placed.push(Placed {
                index,
                len: object_len,
                cached: slot.copy.is_some(),
                dirty: !slot.in_tree,
                io_ns: slot.io_ns,
            });
        }
        if let Some(origin) = self.origin {
            let mut core = cache.core.lock();
            core.residency
                .hand_on(origin.file, self.file, origin.objects);
        }
        // What is not synced here gets its length with its other attributes.
        if commit
            && staged.logged.is_none()
            && self.tree.metadata().map_err(|e| self.tree_error(e))?.len() != len
        {
            self.tree.set_len(len).map_err(|e| self.tree_error(e))?;
        }
        if commit && sync_tree && staged.tree_written {
            syncs.push(match self.together.take() {
                Some(writes) => ToSync::Together(writes),
                None => ToSync::Tree(self.tree.clone()),
            });
        }
        Ok((staged, syncs))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for (_, slot) in std::mem::take(&mut self.slots) {
            if let Some(copy) = slot.copy {
                discard(&self.cache, copy);
            }
        }
    }
}

/// Removes a temporary copy and gives its room back. Litter at worst: the next start removes it.
fn discard(cache: &ObjectCache, copy: CacheCopy) {
    let _ = std::fs::remove_file(&copy.path);
    cache.release(u64::from(copy.reserved));
}

/// Makes a copy of its own of an object that is still the old version's file.
fn unshare(cache: &ObjectCache, id: ObjectId, copy: &mut CacheCopy) -> std::io::Result<()> {
    let (true, Some(dir)) = (copy.shared, &cache.dir) else {
        return Ok(());
    };
    grow(cache, copy, copy.len)?;
    let (path, file) = dir.create_temp(id)?;
    if let Err(e) = copy_range(&copy.file, 0, &file, 0, u64::from(copy.len), dir.faults()) {
        let _ = std::fs::remove_file(&path);
        return Err(e);
    }
    let _ = std::fs::remove_file(&copy.path);
    copy.path = path;
    copy.file = Arc::new(file);
    copy.shared = false;
    Ok(())
}

/// Makes room for a copy that turns out longer than was expected.
fn grow(cache: &ObjectCache, copy: &mut CacheCopy, end: u32) -> std::io::Result<()> {
    let more = end.saturating_sub(copy.reserved);
    if more > 0 {
        if !cache.reserve_now(more) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        copy.reserved += more;
    }
    Ok(())
}

fn write_copy(
    cache: &ObjectCache,
    copy: &mut CacheCopy,
    within: u32,
    data: &[u8],
) -> std::io::Result<()> {
    let Some(dir) = &cache.dir else {
        return Err(std::io::ErrorKind::Unsupported.into());
    };
    write_all_at(&copy.file, data, u64::from(within), dir.faults())?;
    let end = within + data.len() as u32;
    copy.crc = match copy.crc {
        Some((crc, upto)) if upto == within => Some((crc32c::crc32c_append(crc, data), end)),
        _ => None,
    };
    copy.len = copy.len.max(end);
    Ok(())
}

/// Renames a complete copy to its object's name; returns the bytes as well for one that goes `in_log`.
fn name_copy(
    cache: &ObjectCache,
    id: ObjectId,
    copy: &CacheCopy,
    len: u32,
    mark: Mark,
    in_log: bool,
) -> std::io::Result<(Stored, Option<Bytes>)> {
    let Some(dir) = &cache.dir else {
        return Err(std::io::ErrorKind::Unsupported.into());
    };
    let known = copy
        .crc
        .filter(|(_, upto)| *upto == len)
        .map(|(crc, _)| crc);
    let mut data = None;
    if known.is_none() || in_log {
        let mut buf = vec![0; len as usize];
        if copy.len != len || read_full_at(&copy.file, &mut buf, 0, dir.faults())? < buf.len() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        data = Some(Bytes::from(buf));
    }
    let crc = match (known, &data) {
        (Some(crc), _) => crc,
        (None, Some(data)) => crc32c::crc32c(data),
        (None, None) => 0,
    };
    let object = Stored { id, len, crc, mark };
    dir.adopt(&copy.path, &object)?;
    Ok((object, data))
}

impl ObjectCache {
    /// Whether a new object of `len` bytes goes to the backing tier whatever the policy says.
    fn writes_around(&self, id: ObjectId, len: u32) -> bool {
        // The end of long content may be short, but the rest of it is in the tree then.
        let in_log = id.index == 0 && self.fits_log(u64::from(len));
        self.opts.write_policy == WritePolicy::Around && !in_log
    }

    /// Whether content of `len` bytes goes to the tree and need not be synced there, if the log carries it.
    fn leaves_to_log(&self, len: u64) -> bool {
        self.opts.write_policy == WritePolicy::Around && len > 0 && self.fits_log(len)
    }

    /// Whether a commit has a log that carries content of `len` bytes.
    fn fits_log(&self, len: u64) -> bool {
        self.opts.durability == Durability::Commit && len <= u64::from(INLINE_BYTES_MAX)
    }

    /// An upload past the cache shares its sync with flushes and other uploads, where the tree is on a slower disk than the cache:
    /// there a sync costs as much as megabytes. On the cache's own file system each has its own, and so it has where others write
    /// beside the gateway, for whose bytes it would wait.
    fn begin_upload_together(&self) -> Option<Writes> {
        let slower = self.dir.is_some() && self.opts.write_policy == WritePolicy::Back;
        match slower && self.opts.durability == Durability::Commit {
            true => self.begin_together(),
            false => None,
        }
    }

    pub(in crate::objects) fn reserve_now(&self, bytes: u32) -> bool {
        let mut core = self.core.lock();
        self.reserve(&mut core, bytes)
    }

    pub(super) fn note_cache_error(&self, id: ObjectId, error: &dyn std::fmt::Display) {
        self.counts
            .cache_write_errors
            .fetch_add(1, Ordering::Relaxed);
        let now = self.recorder.now();
        self.said.lock().not_cached(now, id, error);
    }
}
