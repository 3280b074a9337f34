//! A new version of a file, from its first byte to its name.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rustix::fs::AtFlags;
use tiering::FileId;

use super::apply::{self, Place};
use super::error::{At, Limit, VolumeError};
use super::identity::{self, Identity, State};
use super::log::record::{LoggedObject, Record};
use super::path::ResourcePath;
use super::recent::Checksum;
use super::tree::{self, id_name};
use super::types::{Check, Found, Kind, Meta, unchecked};
use super::usage::Reservation;
use super::{
    Durability, Inner, Volume, cache_error, cleaner, company, hop, now_ns, unavailable, visit,
    visit_unless,
};
use crate::objects::pools::Pools;
use crate::objects::{ContentReader, Gathered, IoContext, Staged, Staging, TreeBytes};
use crate::sync_failures::Moment;

/// Longest content that is written where the request is, if others may be waiting there.
const IN_PLACE_BYTES_MAX: usize = 16 << 10;

/// The temporary name of a version on its way; gone when dropped.
pub(crate) struct Prepared {
    inner: Arc<Inner>,
    pub id: FileId,
    pub tree: Arc<File>,
    /// Of all that is written to it, if known.
    content: Option<Checksum>,
    /// Its name and inode in the tree.
    changes: Moment,
    /// Its objects in pools, if it is known which they can be.
    begun: Option<Arc<AtomicU32>>,
    named: bool,
}

impl Prepared {
    pub fn new(inner: &Arc<Inner>, path: &ResourcePath) -> Result<Prepared, VolumeError> {
        let id = identity::fresh().at("draw an id for", path)?;
        let changes = inner.sync.begin();
        let tree = Arc::new(apply::create_tmp(&inner.tree, id).at("create", path)?);
        Ok(Prepared {
            inner: Arc::clone(inner),
            id,
            tree,
            content: None,
            changes,
            begun: None,
            named: true,
        })
    }

    /// If it comes to nothing, the objects that this has begun are removed, and no others are looked for.
    pub fn follow(&mut self, staging: &Staging) {
        self.begun = staging.begun();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.named {
            // No system call here: this may be an async thread.
            let begun = self.begun.as_ref().map(|n| n.load(Ordering::Relaxed));
            self.inner.cleaner.remove_upload(id_name(self.id), begun);
        }
    }
}

/// Where a new version's properties, permissions and rules come from.
pub(crate) enum Origin {
    /// Whole content by PUT.
    Whole,
    /// A change of this version, which must still be the current one.
    Partial(FileId),
    /// A copy: takes these along; may replace only if allowed.
    Copy {
        props: Vec<u8>,
        mode: u32,
        overwrite: bool,
    },
    /// An empty resource for a lock.
    LockNull,
}

/// Content being received. Dropping it discards it and leaves the old version untouched.
///
/// A whole PUT of as many bytes as the resource has is compared with them while they are in the kernel's memory; nothing is
/// written before the first difference, and content that is the same leaves the resource as it is, ETag and all. davfs2 sends
/// files again that were only opened for writing.
pub struct Upload {
    inner: Arc<Inner>,
    path: ResourcePath,
    io: IoContext,
    pub(super) stage: Stage,
    origin: Origin,
}

pub(super) enum Stage {
    /// The first `len` bytes are those of the current version; `crc` is their CRC-32C.
    Same {
        old: FileId,
        reader: ContentReader,
        len: u64,
        crc: u32,
    },
    Writing(Box<Writing>),
}

/// A version that is being written.
pub(super) struct Writing {
    prepared: Prepared,
    staging: Staging,
    reserved: Reservation,
}

/// What a whole PUT must comply with: where the version comes from, and what its request asks.
struct Change {
    origin: Origin,
    check: Check,
}

/// What the look before the end of an unchanged upload found.
enum Settled {
    Unchanged(Meta),
    /// Another version is there now.
    Changed(Check),
}

impl Volume {
    /// Begins a whole PUT. `expected_len` lets a full volume refuse before any byte is sent.
    pub async fn create(
        &self,
        path: &ResourcePath,
        io: IoContext,
        expected_len: Option<u64>,
    ) -> Result<Upload, VolumeError> {
        let inner = Arc::clone(&self.inner);
        inner.turn_to_upload(path).await?;
        let same = match expected_len {
            // What is in pools is never compared: it would have to be read.
            Some(len) if len > 0 && self.inner.cache.pools().is_none() => {
                Inner::open_same_length(&inner, path, io, len).await
            }
            _ => None,
        };
        let stage = match same {
            Some((old, reader)) => Stage::Same {
                old,
                reader,
                len: 0,
                crc: 0,
            },
            None => {
                let begun = Writing::begin(&inner, path, io, expected_len).await?;
                Stage::Writing(Box::new(begun))
            }
        };
        Ok(Upload {
            inner,
            path: path.clone(),
            io,
            stage,
            origin: Origin::Whole,
        })
    }

    /// Begins a partial change: an upload that already holds the current content.
    pub async fn patch(&self, path: &ResourcePath, io: IoContext) -> Result<Upload, VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        inner.turn_to_upload(&path).await?;
        let cache = Arc::clone(&inner.cache);
        let (path, old, reader, mut prepared, reserved) = hop(move || {
            let (found, reader) = inner.open_read(&path, io)?;
            let mut reserved = inner.reservation(Some(&found));
            inner.check_room(&path, found.meta.len, &mut reserved)?;
            let prepared = Prepared::new(&inner, &path)?;
            if found.pooled() {
                // What is written first may lie anywhere: where its objects are to be looked for, should it come to nothing.
                let extended = prepared.tree.set_len(found.meta.len);
                extended.at("extend the placeholder of", &path)?;
            }
            Ok((path, found.meta.file_id, reader, prepared, reserved))
        })
        .await?;
        let mut staging = cache
            .stage_from(&reader, prepared.id, Arc::clone(&prepared.tree), io)
            .await
            .map_err(|e| cache_error("patch", &path, e))?;
        self.inner.tune(&mut staging);
        prepared.follow(&staging);
        Ok(Upload {
            inner: Arc::clone(&self.inner),
            path,
            io,
            stage: Stage::Writing(Box::new(Writing {
                prepared,
                staging,
                reserved,
            })),
            origin: Origin::Partial(old),
        })
    }

    /// Bytes up to which [`Volume::put_whole`] takes content; 0 when it takes none.
    pub fn whole_bytes_max(&self) -> u64 {
        self.inner.cache.whole_bytes_max()
    }

    /// Room in memory for so many bytes of it, to be held until [`Volume::put_whole`] is over; `None` while uploads have enough there.
    pub fn gather(&self, bytes: u64) -> Option<Gathered> {
        self.inner.cache.gather(bytes)
    }

    /// A whole PUT of content that is all here: [`Volume::create`], the writes and [`Upload::commit`] in one visit to a blocking
    /// thread; over pools in two, with the wait for the pools between them.
    pub async fn put_whole(
        &self,
        path: &ResourcePath,
        io: IoContext,
        data: Vec<Bytes>,
        check: Check,
    ) -> Result<(Meta, bool), VolumeError> {
        self.put_from(path, io, data, Origin::Whole, check).await
    }

    async fn put_from(
        &self,
        path: &ResourcePath,
        io: IoContext,
        data: Vec<Bytes>,
        origin: Origin,
        check: Check,
    ) -> Result<(Meta, bool), VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        if let Some(pools) = inner.cache.pools().cloned() {
            inner.turn_to_upload(&path).await?;
            let change = Change { origin, check };
            let begun = Writing::begin_whole(&inner, &path, &pools, io, data, change).await?;
            let (writing, Change { origin, check }) = begun;
            return writing.commit(inner, path, origin, check).await;
        }
        let len: usize = data.iter().map(Bytes::len).sum();
        // Copying more than this takes longer than handing it over.
        let guard = inner.locks.lock(&[&path]).await;
        let at = path.clone();
        let long = len > IN_PLACE_BYTES_MAX && !company::is_alone();
        let replaces = !matches!(origin, Origin::LockNull);
        let large = || long || (replaces && self.inner.is_large(&at));
        visit_unless(large, &self.inner, move || {
            let _guard = guard;
            inner.put_whole(&path, io, data, &origin, &check)
        })
        .await
    }

    /// Makes an empty resource for a LOCK of an unmapped URL. An existing one is [`VolumeError::Exists`].
    pub async fn touch_locked(&self, path: &ResourcePath) -> Result<Meta, VolumeError> {
        let io = IoContext::default();
        let made = self.put_from(path, io, Vec::new(), Origin::LockNull, unchecked());
        Ok(made.await?.0)
    }
}

impl Writing {
    async fn begin(
        inner: &Arc<Inner>,
        path: &ResourcePath,
        io: IoContext,
        expected_len: Option<u64>,
    ) -> Result<Writing, VolumeError> {
        let (inner, path) = (Arc::clone(inner), path.clone());
        hop(move || {
            let old = inner.target_of_put(&path)?;
            let (mut prepared, reserved) = inner.prepare(&path, old.as_ref(), expected_len)?;
            let mut staging = inner
                .cache
                .stage(prepared.id, Arc::clone(&prepared.tree), io);
            if let Some(len) = expected_len {
                staging.expect_len(len);
            }
            inner.tune(&mut staging);
            prepared.follow(&staging);
            Ok(Writing {
                prepared,
                staging,
                reserved,
            })
        })
        .await
    }

    /// [`Writing::begin`] over pools, of content that is all here: it is on its way to them when this returns. What is refused as
    /// things are now writes nothing.
    async fn begin_whole(
        inner: &Arc<Inner>,
        path: &ResourcePath,
        pools: &Arc<dyn Pools>,
        io: IoContext,
        data: Vec<Bytes>,
        change: Change,
    ) -> Result<(Writing, Change), VolumeError> {
        let (inner, path, pools) = (Arc::clone(inner), path.clone(), Arc::clone(pools));
        let len: u64 = data.iter().map(|part| part.len() as u64).sum();
        let room = inner.cache.flight(u32::try_from(len).unwrap_or(u32::MAX));
        let room = room.await.map_err(|e| cache_error("write", &path, e))?;
        hop(move || {
            let old = inner.target_of_put(&path)?;
            admit(&path, old.as_ref(), &change.origin, &change.check)?;
            // The placeholder first: what is left of an upload that a crash ends is found by it.
            let (mut prepared, reserved) = inner.prepare(&path, old.as_ref(), Some(len))?;
            let cache = &inner.cache;
            let staging = cache.stage_whole_pooled(&pools, prepared.id, io, data, room);
            prepared.follow(&staging);
            let writing = Writing {
                prepared,
                staging,
                reserved,
            };
            Ok((writing, change))
        })
        .await
    }

    /// Waits until all bytes are in their stores, and gives the version its name.
    async fn commit(
        self,
        inner: Arc<Inner>,
        path: ResourcePath,
        origin: Origin,
        check: Check,
    ) -> Result<(Meta, bool), VolumeError> {
        let Writing {
            prepared,
            staging,
            reserved,
        } = self;
        let coming = inner.cache.pools().map(|_| inner.sync.announce());
        let staged = staging
            .finish()
            .await
            .map_err(|e| cache_error("finish", &path, e))?;
        let guard = inner.locks.lock(&[&path]).await;
        hop(move || {
            let result = inner.publish(&path, prepared, staged, &origin, &check);
            drop((guard, reserved, coming));
            result
        })
        .await
    }

    fn reserve(&mut self, path: &ResourcePath, len: u64) -> Result<(), VolumeError> {
        if self.reserved.grow(len) {
            return Ok(());
        }
        Err(quota_exceeded(path))
    }

    async fn append(&mut self, path: &ResourcePath, data: Bytes) -> Result<(), VolumeError> {
        self.reserve(path, self.staging.len().saturating_add(data.len() as u64))?;
        self.staging
            .write(data)
            .await
            .map_err(|e| cache_error("write", path, e))
    }
}

impl Upload {
    /// Appends `data`.
    pub async fn write(&mut self, data: Bytes) -> Result<(), VolumeError> {
        if let Stage::Same {
            reader, len, crc, ..
        } = &mut self.stage
            && reader.holds(*len, &data).await
        {
            *len += data.len() as u64;
            *crc = crc32c::crc32c_append(*crc, &data);
            return Ok(());
        }
        let (writing, path) = self.writing().await?;
        writing.append(path, data).await
    }

    /// Writes `data` at `offset`; a gap before it reads as zeros.
    pub async fn write_at(&mut self, offset: u64, data: Bytes) -> Result<(), VolumeError> {
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or_else(|| VolumeError::TooLarge {
                path: self.path.clone(),
            })?;
        let (writing, path) = self.writing().await?;
        writing.reserve(path, end.max(writing.staging.len()))?;
        writing
            .staging
            .write_at(offset, data)
            .await
            .map_err(|e| cache_error("write", path, e))
    }

    /// Cuts or extends (with zeros) the content to `len` bytes.
    pub async fn truncate(&mut self, len: u64) -> Result<(), VolumeError> {
        let (writing, path) = self.writing().await?;
        writing.reserve(path, len)?;
        writing
            .staging
            .truncate(len)
            .await
            .map_err(|e| cache_error("truncate", path, e))
    }

    /// Bytes of content so far.
    pub fn len(&self) -> u64 {
        match &self.stage {
            Stage::Same { len, .. } => *len,
            Stage::Writing(writing) => writing.staging.len(),
        }
    }

    /// Whether there is no content yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is written to: begun, with what was the same so far, if it was not.
    async fn writing(&mut self) -> Result<(&mut Writing, &ResourcePath), VolumeError> {
        if let Stage::Same {
            reader, len, crc, ..
        } = &self.stage
        {
            let whole = Some(reader.len());
            let mut copied = 0;
            let mut writing = Writing::begin(&self.inner, &self.path, self.io, whole).await?;
            while writing.staging.len() < *len {
                let at = writing.staging.len();
                let left = usize::try_from(len - at).unwrap_or(usize::MAX);
                let (data, _) = reader.read(at, left).await?;
                if data.is_empty() {
                    let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(unavailable("read the old content of", &self.path, source));
                }
                copied = crc32c::crc32c_append(copied, &data);
                writing.append(&self.path, data).await?;
            }
            if copied != *crc {
                // Others wrote to the file since it was compared: what the client sent is nowhere any more.
                let source = io::Error::other("changed beside the gateway meanwhile");
                return Err(unavailable("write", &self.path, source));
            }
            self.stage = Stage::Writing(Box::new(writing));
        }
        match &mut self.stage {
            Stage::Writing(writing) => Ok((writing, &self.path)),
            Stage::Same { .. } => Err(unavailable(
                "write",
                &self.path,
                io::Error::other("not begun"),
            )),
        }
    }

    /// Makes the content durable and gives it its name; `true` when the name was free.
    ///
    /// Once begun it runs to its end even if the caller goes away.
    pub async fn commit(mut self, check: Check) -> Result<(Meta, bool), VolumeError> {
        let check = match &self.stage {
            Stage::Same {
                old, reader, len, ..
            } if *len == reader.len() => match self.settle(*old, check).await? {
                Settled::Unchanged(meta) => return Ok((meta, false)),
                Settled::Changed(check) => check,
            },
            _ => check,
        };
        self.writing().await?;
        let Upload {
            inner,
            path,
            stage,
            origin,
            ..
        } = self;
        match stage {
            Stage::Writing(writing) => writing.commit(inner, path, origin, check).await,
            Stage::Same { .. } => Err(unavailable("write", &path, io::Error::other("not begun"))),
        }
    }

    /// The end of an upload of the bytes that version `id` has.
    async fn settle(&self, id: FileId, check: Check) -> Result<Settled, VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
        let guard = inner.locks.lock(&[&path]).await;
        visit(&self.inner, move || {
            let _guard = guard;
            let (dir, name) = inner.place(&path)?;
            match inner.occupant(&dir, name, &path)? {
                Some(found)
                    if found.meta.file_id == id && comparable(&inner, &found, found.meta.len) =>
                {
                    admit(&path, Some(&found), &Origin::Whole, &check)?;
                    inner.cache.note_unchanged(found.meta.len);
                    Ok(Settled::Unchanged(found.meta))
                }
                _ => Ok(Settled::Changed(check)),
            }
        })
        .await
    }
}

pub(crate) fn quota_exceeded(path: &ResourcePath) -> VolumeError {
    VolumeError::NoSpace {
        op: "write",
        path: path.clone(),
        limit: Limit::Quota,
        why: "the quota is used up".to_owned(),
    }
}

fn same_second(a_ns: i64, b_ns: i64) -> bool {
    let second = |ns: i64| ns.div_euclid(1_000_000_000);
    second(a_ns) == second(b_ns)
}

/// Whether an upload of `len` bytes may turn out to be what is there: only content that the gateway wrote is as durable as a PUT
/// promises, and that only as long as no sync of a change failed.
fn comparable(inner: &Inner, found: &Found, len: u64) -> bool {
    !inner.unsynced.load(Ordering::Relaxed)
        && found.meta.kind == Kind::File
        && !found.pooled()
        && found.meta.len == len
        && len > 0
        && !identity::is_derived(found.meta.file_id)
}

/// Whether the change may be made, the path being as it is now.
fn admit(
    path: &ResourcePath,
    old: Option<&Found>,
    origin: &Origin,
    check: &Check,
) -> Result<(), VolumeError> {
    if !check(old.map(|f| &f.meta)) {
        return Err(VolumeError::PreconditionFailed { path: path.clone() });
    }
    match (origin, old) {
        (
            Origin::Copy {
                overwrite: false, ..
            },
            Some(_),
        ) => return Err(VolumeError::PreconditionFailed { path: path.clone() }),
        (Origin::LockNull, Some(_)) => return Err(VolumeError::Exists { path: path.clone() }),
        (Origin::Partial(base), found) if found.map(|f| f.meta.file_id) != Some(*base) => {
            let source = io::Error::other("changed by another request meanwhile");
            return Err(unavailable("patch", path, source));
        }
        _ => {}
    }
    let collection = old.is_some_and(|f| f.meta.kind == Kind::Collection);
    if collection && !matches!(origin, Origin::Copy { .. }) {
        return Err(VolumeError::IsCollection { path: path.clone() });
    }
    Ok(())
}

/// What the record of a version has of its content.
fn objects_for_log(staged: &Staged) -> Vec<LoggedObject> {
    let in_cache = staged.dirty.iter().map(|o| LoggedObject {
        index: o.id.index,
        len: o.len,
        inline: o.inline.clone(),
    });
    let in_tree = staged.logged.iter().map(|content| LoggedObject {
        index: 0,
        len: content.len() as u32,
        inline: Some(content.clone()),
    });
    in_cache.chain(in_tree).collect()
}

impl Inner {
    /// Waits while so many versions are to be removed from the pools that there should be no further ones.
    pub(super) async fn turn_to_upload(&self, path: &ResourcePath) -> Result<(), VolumeError> {
        let turn = self.cache.turn_to_upload().await;
        turn.map_err(|e| cache_error("begin", path, e))
    }

    /// The file a PUT would replace; refuses what no PUT can replace.
    fn target_of_put(&self, path: &ResourcePath) -> Result<Option<Found>, VolumeError> {
        if path.is_root() {
            return Err(VolumeError::IsCollection { path: path.clone() });
        }
        let (dir, name) = self.place(path)?;
        match self.occupant(&dir, name, path)? {
            Some(found) if found.meta.kind == Kind::Collection => {
                Err(VolumeError::IsCollection { path: path.clone() })
            }
            found => Ok(found),
        }
    }

    /// A name in waiting and the room for a PUT of `len` bytes, if that is known, in place of `old`.
    fn prepare(
        self: &Arc<Self>,
        path: &ResourcePath,
        old: Option<&Found>,
        len: Option<u64>,
    ) -> Result<(Prepared, Reservation), VolumeError> {
        let mut reserved = self.reservation(old);
        if let Some(len) = len {
            self.check_room(path, len, &mut reserved)?;
        }
        Ok((Prepared::new(self, path)?, reserved))
    }

    /// A reservation for what takes the place of `old`.
    fn reservation(&self, old: Option<&Found>) -> Reservation {
        let freed = old.filter(|old| self.usage.frees(&self.tree, old));
        self.usage.reservation(freed.map_or(0, |old| old.meta.len))
    }

    /// Who makes the tree's part of new content durable. Without a log the commit syncs the file itself, once, with its attributes.
    /// Content that only the log has relies on the order of a journal, until a checkpoint's sync of the whole file system has it; and
    /// on paths that say where a file is, without links.
    fn tree_bytes(&self) -> TreeBytes {
        let lasts = self.tree.journals_inodes && !self.tree.follows_links();
        match self.log {
            Some(_) if lasts => TreeBytes::Logged,
            Some(_) => TreeBytes::Synced,
            None => TreeBytes::Unsynced,
        }
    }

    /// Tells a staging who makes the tree's part durable.
    pub(super) fn tune(&self, staging: &mut Staging) {
        staging.leave_tree_bytes(self.tree_bytes());
    }

    /// Refuses `len` bytes that the quota or the file system cannot take.
    pub(super) fn check_room(
        &self,
        path: &ResourcePath,
        len: u64,
        reserved: &mut Reservation,
    ) -> Result<(), VolumeError> {
        if !reserved.grow(len) {
            return Err(quota_exceeded(path));
        }
        self.check_disk(path, len)
    }

    /// Refuses `len` bytes that the file system cannot take.
    pub(super) fn check_disk(&self, path: &ResourcePath, len: u64) -> Result<(), VolumeError> {
        if len == 0 {
            return Ok(());
        }
        let asked = Instant::now();
        if self.room.take(len, asked) {
            return Ok(());
        }
        let free = match self.space(path) {
            Ok(space) => space.available,
            // A cluster that does not answer is found out by the write itself.
            Err(VolumeError::Unavailable { .. }) => return Ok(()),
            Err(e) => return Err(e),
        };
        self.room.answered(free, asked);
        if free < len {
            return Err(VolumeError::NoSpace {
                op: "write",
                path: path.clone(),
                limit: Limit::Disk,
                why: format!("{len} bytes announced, {free} free"),
            });
        }
        Ok(())
    }

    /// The commit of a staged version. The caller holds the path.
    pub(super) fn publish(
        &self,
        path: &ResourcePath,
        prepared: Prepared,
        staged: Staged,
        origin: &Origin,
        check: &Check,
    ) -> Result<(Meta, bool), VolumeError> {
        let (dir, name) = self.place(path)?;
        let old = self.occupant(&dir, name, path)?;
        admit(path, old.as_ref(), origin, check)?;
        self.all_seen(path, old.as_ref())?;
        let place = Place { dir: &dir, name };
        self.put_in_place(path, &place, old, prepared, staged, origin)
    }

    /// The current version under a name, if it has `len` bytes that might be compared now.
    async fn open_same_length(
        inner: &Arc<Inner>,
        path: &ResourcePath,
        io: IoContext,
        len: u64,
    ) -> Option<(FileId, ContentReader)> {
        let opened = match inner.open_read_now(path, io) {
            Some(opened) => Some(opened),
            None if inner.cache.in_place() => None,
            None => {
                let (inner, path) = (Arc::clone(inner), path.clone());
                hop(move || inner.open_read(&path, io)).await.ok()
            }
        };
        let (found, reader) = opened?;
        comparable(inner, &found, len).then_some((found.meta.file_id, reader))
    }

    /// Whether the version `old` is `data`, of `len` bytes.
    fn is_exactly(
        &self,
        path: &ResourcePath,
        io: IoContext,
        old: &Found,
        len: u64,
        data: &[Bytes],
    ) -> bool {
        if !comparable(self, old, len) {
            return false;
        }
        let opened = self.open_read_now(path, io);
        opened
            .or_else(|| self.open_read(path, io).ok())
            .is_some_and(|(found, reader)| {
                found.meta.file_id == old.meta.file_id && reader.is_exactly(data)
            })
    }

    /// See [`Volume::put_whole`]. The caller holds the path.
    fn put_whole(
        self: &Arc<Self>,
        path: &ResourcePath,
        io: IoContext,
        data: Vec<Bytes>,
        origin: &Origin,
        check: &Check,
    ) -> Result<(Meta, bool), VolumeError> {
        if path.is_root() {
            return Err(VolumeError::IsCollection { path: path.clone() });
        }
        let (dir, name) = self.place(path)?;
        let old = self.occupant(&dir, name, path)?;
        admit(path, old.as_ref(), origin, check)?;
        let len = data.iter().map(|part| part.len() as u64).sum();
        let content = Checksum::of(&data, len);
        if let Some(old) = &old
            && !self.recent.differs(old.meta.file_id, content)
            && self.is_exactly(path, io, old, len, &data)
        {
            self.cache.note_unchanged(len);
            return Ok((old.meta.clone(), false));
        }
        let mut reserved = self.reservation(old.as_ref());
        self.check_room(path, len, &mut reserved)?;
        let mut prepared = Prepared::new(self, path)?;
        prepared.content = content;
        let staged = self
            .cache
            .stage_whole(
                prepared.id,
                Arc::clone(&prepared.tree),
                io,
                data,
                self.tree_bytes(),
            )
            .map_err(|e| cache_error("write", path, e))?;
        let place = Place { dir: &dir, name };
        self.put_in_place(path, &place, old, prepared, staged, origin)
    }

    /// Gives a staged version its name. The caller holds the path and has admitted the change.
    fn put_in_place(
        &self,
        path: &ResourcePath,
        to: &Place<'_>,
        old: Option<Found>,
        mut prepared: Prepared,
        staged: Staged,
        origin: &Origin,
    ) -> Result<(Meta, bool), VolumeError> {
        // Dead properties and permissions belong to the resource, not to a version of its content.
        let (props, mode) = match (origin, &old) {
            (Origin::Copy { props, mode, .. }, _) => (props.clone(), Some(*mode)),
            (_, Some(found)) => (self.kept_props(path, to, found)?, Some(found.mode)),
            (_, None) => (Vec::new(), None),
        };
        let now = now_ns();
        let stat = tree::statx(&prepared.tree, "", AtFlags::EMPTY_PATH);
        let stat = stat.map_err(io::Error::from).at("stat", path)?;
        // A file that was just made and written has a time that HTTP cannot tell from now, and need not be given one.
        let just_written = staged.dirty.is_empty()
            && !staged.pooled
            && self.tree.in_memory()
            && stat.len == staged.len
            && same_second(stat.mtime_ns, now);
        let created_ns = match (origin, &old) {
            (Origin::Copy { .. }, _) | (_, None) => now,
            (_, Some(found)) => found.identity.created_ns,
        };
        let identity = Identity {
            file_id: prepared.id,
            len: staged.len,
            mtime_ns: if just_written { stat.mtime_ns } else { now },
            created_ns,
            ino: 0,
            state: if staged.pooled {
                State::Pooled
            } else if staged.dirty.is_empty() {
                State::Inline
            } else {
                State::Dirty
            },
            all_dirty: staged.dirty.len() as u64
                == staged.len.div_ceil(u64::from(self.cache.object_bytes())),
            lock_null: matches!(origin, Origin::LockNull),
        };
        let dirty = staged.dirty.iter().map(|o| o.id.index);
        let (identity, mode) =
            apply::dress_as_seen(&prepared.tree, stat, &identity, mode, &props, dirty)
                .at("prepare", path)?;
        self.settle_before_commit(path, &prepared, &staged)?;

        let bare = props.is_empty();
        let record = || Record::Put {
            path: path.clone(),
            identity,
            mode,
            in_tree: staged.tree_written,
            props: Bytes::from(props),
            objects: objects_for_log(&staged),
        };
        let (id, len) = (identity.file_id, identity.len);
        // The record is made before the staged objects are consumed below. Of what fails they go after it was taken back: whoever
        // finds a record, but not its objects, takes them for replaced or deleted.
        let record = record();
        let frees = old
            .as_ref()
            .is_some_and(|old| self.usage.frees(&self.tree, old));
        let (mut staged, mut refused) = (Some(staged), false);
        let placed = self.commit_since(
            prepared.changes,
            path,
            || record,
            &[to.dir],
            || {
                if identity.state == State::Dirty {
                    apply::link_dirty(&self.tree, id).at("link", path)?;
                }
                // Before the name exists nobody can ask for this version, after it somebody may.
                if let Some(staged) = staged.take() {
                    staged.publish();
                }
                let tmp = id_name(id);
                let from = Place {
                    dir: &self.tree.tmp,
                    name: &tmp,
                };
                let renamed = apply::rename_in(&self.tree, &from, Kind::File, to, old.as_ref());
                refused = renamed.is_err();
                renamed.at("name", path)
            },
        );
        if refused {
            self.cache.forget(id, len);
            if let Err(error) = apply::unlink_dirty(&self.tree, id) {
                tracing::warn!(%error, %id, "could not remove a dirty name; the next start tries again");
            }
        }
        let left = placed?;
        prepared.named = false;
        self.tree.learn_given(identity, bare, || {
            tree::statx(&prepared.tree, "", AtFlags::EMPTY_PATH)
        });
        left.clear(&self.tree, &self.cache, &self.cleaner);
        // A replaced collection is the cleaner's.
        if let Some(old) = old.as_ref().filter(|f| f.meta.kind == Kind::File) {
            cleaner::forget(&self.tree, &self.cache, old);
            self.usage.name_gone(old, frees);
        }
        self.usage.add(id, len);
        self.recent.written(id, path, prepared.content);
        let executable = mode & 0o100 != 0;
        Ok((Meta::of(&identity, Kind::File, executable), old.is_none()))
    }

    /// The encoded dead properties that new content of `found` takes over.
    fn kept_props(
        &self,
        path: &ResourcePath,
        at: &Place<'_>,
        found: &Found,
    ) -> Result<Vec<u8>, VolumeError> {
        let mut props = Vec::new();
        if found.meta.bare {
            return Ok(props);
        }
        if self.tree.follows_links() {
            return match self.stored_props(path) {
                // A link that leads nowhere is replaced like any name.
                Err(VolumeError::NotFound { .. }) => Ok(props),
                stored => Ok(stored?.1),
            };
        }
        tree::get_props_at(at.dir, at.name, &mut props).at("read properties", path)?;
        Ok(props)
    }

    /// Syncs what the log or the directory entry will rely on.
    fn settle_before_commit(
        &self,
        path: &ResourcePath,
        prepared: &Prepared,
        staged: &Staged,
    ) -> Result<(), VolumeError> {
        let in_tree = staged.tree_written;
        match (self.durability, self.log.is_some()) {
            (Durability::Relaxed, _) => Ok(()),
            // Staging synced the bytes; replay restores attributes, but must find the file. A journal has a file's first
            // name in the transaction that made it, or before.
            (Durability::Commit, true) if in_tree && !self.tree.journals_inodes => self
                .sync
                .sync(prepared.changes, &self.tree.tmp)
                .map_err(|e| unavailable("sync", path, e)),
            (Durability::Commit, true) => Ok(()),
            // A placeholder has no bytes, only an inode: the journal has that before the name.
            (Durability::Commit, false) if staged.pooled && self.tree.journals_inodes => Ok(()),
            (Durability::Commit, false) => {
                rustix::fs::fsync(&prepared.tree).map_err(|e| unavailable("sync", path, e.into()))
            }
        }
    }
}
