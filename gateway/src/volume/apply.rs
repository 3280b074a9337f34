//! The changes of the tree themselves, shared by the live path and by replay.
//!
//! Each is atomic for those who look, and leaves the tree such that replay recognises by ids
//! whether it happened.

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tiering::FileId;

use super::cleaner::{Cleaner, forget};
use super::dirty_set;
use super::exchange::GoesBack;
use super::identity::{self, Identity, State};
use super::tree::{self, Stat, Tree, id_name};
use super::types::{Found, Kind};
use crate::objects::{FileSystemSync, ObjectCache};

/// What a change leaves in `.tierdav/tmp` and in the stores. It is removed only once the change is durable: objects would be gone for
/// good, while a power cut takes the change back. The next start removes it, too.
#[must_use]
#[derive(Default)]
pub(crate) enum Left {
    /// Nothing.
    #[default]
    Nothing,
    /// The objects of a version, and its placeholder.
    Version(Box<Found>),
    /// Something under this name.
    Aside(String),
}

impl Left {
    /// Removes it.
    pub fn clear(self, tree: &Tree, cache: &ObjectCache, cleaner: &Cleaner) {
        match self {
            Left::Nothing => {}
            Left::Version(found) => forget(tree, cache, &found),
            Left::Aside(name) => cleaner.remove(name, true),
        }
    }
}

/// A directory handle and a name in it.
pub(crate) struct Place<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a str,
}

/// Gives a prepared file its second, dirty name. Repeatable.
pub(crate) fn link_dirty(tree: &Tree, id: FileId) -> io::Result<()> {
    let name = id_name(id);
    match rustix::fs::linkat(
        &tree.tmp,
        name.as_str(),
        &tree.dirty,
        name.as_str(),
        AtFlags::empty(),
    ) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes a dirty name. Repeatable.
pub(crate) fn unlink_dirty(tree: &Tree, id: FileId) -> io::Result<()> {
    match rustix::fs::unlinkat(&tree.dirty, id_name(id).as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Gives the placeholder of a version that is about to be replaced a second name in `.tierdav/tmp`. With that name alone, after
/// the replacement, it says until the objects are gone that they have to go.
pub(crate) fn keep_replaced(tree: &Tree, at: &Place<'_>, old: &Found) -> io::Result<()> {
    if !old.pooled() || old.links > 1 {
        return Ok(());
    }
    let name = id_name(old.identity.file_id);
    let flags = AtFlags::empty();
    match rustix::fs::linkat(at.dir, at.name, &tree.tmp, name.as_str(), flags) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Takes [`keep_replaced`] back: the version stays.
fn unkeep(tree: &Tree, old: &Found) {
    if old.pooled() && old.links == 1 {
        // What stays is a second name of a live file: the next start only removes that.
        let _ = unlink_tmp(tree, old.identity.file_id);
    }
}

fn unlink_tmp(tree: &Tree, id: FileId) -> io::Result<()> {
    match rustix::fs::unlinkat(&tree.tmp, id_name(id).as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Moves the placeholder of a version that is to be removed into `.tierdav/tmp`, under the version's id. With other names
/// left it is only this one that goes; `false` then.
pub(crate) fn take_out(tree: &Tree, at: &Place<'_>, found: &Found) -> io::Result<bool> {
    if found.links > 1 {
        rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty())?;
        return Ok(false);
    }
    let id = found.identity.file_id;
    // A rename between two names of one file would do nothing.
    unlink_tmp(tree, id)?;
    rustix::fs::renameat(at.dir, at.name, &tree.tmp, id_name(id).as_str())?;
    Ok(true)
}

/// Renames `from` to `to`, replacing what `replaced` says is there.
///
/// What cannot be replaced by a plain rename (a collection on either side) is exchanged and then
/// moved aside, so that the destination exists at every instant. If that fails, the names are
/// exchanged back. The objects of a replaced version are the caller's to [`forget`].
pub(crate) fn rename_in(
    tree: &Tree,
    from: &Place<'_>,
    kind: Kind,
    to: &Place<'_>,
    replaced: Option<&Found>,
) -> io::Result<Left> {
    match (kind, replaced.map(|old| (old, old.meta.kind))) {
        (_, None) => rename_new(from, to)?,
        (Kind::File, Some((old, Kind::File))) if old.links > 1 && is_same(from, to)? => {
            // Two names of one file, between which a rename does nothing.
            rustix::fs::unlinkat(from.dir, from.name, AtFlags::empty())?;
        }
        (Kind::File, Some((old, Kind::File))) => {
            keep_replaced(tree, to, old)?;
            rustix::fs::renameat(from.dir, from.name, to.dir, to.name)
                .inspect_err(|_| unkeep(tree, old))?;
        }
        (_, Some(_)) => {
            let exchange = || {
                let flags = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags)
            };
            match exchange() {
                Err(e) if is_unknown(e) => return replace_plainly(tree, from, to),
                other => other?,
            }
            return set_aside(tree, from).inspect_err(|error| {
                if let Err(back) = exchange() {
                    let (from, to) = (from.name, to.name);
                    tracing::warn!(%error, %back, from, to, "a MOVE failed half-way: the two names are exchanged");
                }
            });
        }
    }
    Ok(Left::Nothing)
}

/// Whether two places have the same file.
fn is_same(a: &Place<'_>, b: &Place<'_>) -> io::Result<bool> {
    let file = |at: &Place<'_>| {
        let stat = tree::statx(at.dir, at.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok::<_, Errno>((stat.dev, stat.ino))
    };
    Ok(file(a)? == file(b)?)
}

/// Whether an error of `renameat2` says that the file system renames without flags only, as those of a network do: CephFS, NFS.
fn is_unknown(e: Errno) -> bool {
    matches!(e, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Gives `from` a name that nothing has. Without help of the file system that is looked at just before: the caller holds the name,
/// against all but writers beside the gateway.
fn rename_new(from: &Place<'_>, to: &Place<'_>) -> io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags) {
        Err(e) if is_unknown(e) => {}
        other => return Ok(other?),
    }
    match tree::statx(to.dir, to.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST.into()),
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(from.dir, from.name, to.dir, to.name)?),
        Err(e) => Err(e.into()),
    }
}

/// Sets aside what `to` names, and gives the name to `from`: for an instant nothing has it. What a crash leaves then is put back by
/// the next start.
fn replace_plainly(tree: &Tree, from: &Place<'_>, to: &Place<'_>) -> io::Result<Left> {
    let aside = id_name(identity::fresh()?);
    let back = GoesBack::note(tree, &aside, to)?;
    rustix::fs::renameat(to.dir, to.name, &tree.tmp, aside.as_str())?;
    if let Err(error) = rustix::fs::renameat(from.dir, from.name, to.dir, to.name) {
        let undone = rustix::fs::renameat(&tree.tmp, aside.as_str(), to.dir, to.name);
        if let Err(undone) = undone {
            back.keep();
            tracing::warn!(%error, %undone, name = to.name, "what a MOVE should have replaced is put back by the next start");
        }
        return Err(error.into());
    }
    Ok(Left::Aside(aside))
}

/// Moves a name into `.tierdav/tmp`.
pub(crate) fn set_aside(tree: &Tree, place: &Place<'_>) -> io::Result<Left> {
    let aside = id_name(identity::fresh()?);
    rustix::fs::renameat(place.dir, place.name, &tree.tmp, aside.as_str())?;
    Ok(Left::Aside(aside))
}

/// Makes a collection with its identity at once; `sync` gets it before it has its name.
pub(crate) fn make_dir(
    tree: &Tree,
    at: &Place<'_>,
    identity: &Identity,
    sync: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<()> {
    let name = id_name(identity.file_id);
    let prepared = prepare_dir(&tree.tmp, &name, identity)?;
    let from = Place {
        dir: &tree.tmp,
        name: &name,
    };
    sync(&prepared)
        .and_then(|()| rename_new(&from, at))
        .inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&tree.tmp, name.as_str(), AtFlags::REMOVEDIR);
        })
}

/// [`make_dir`] in place: for an instant, and after a crash just then, it is a collection that somebody made beside the gateway.
/// It takes its group and default permissions (setgid, ACL) after its parent, and not after the directory of temporary names.
pub(crate) fn make_dir_here(at: &Place<'_>, identity: &Identity) -> io::Result<()> {
    rustix::fs::mkdirat(at.dir, at.name, Mode::from(0o777))?;
    let identified = identify_dir(at.dir, at.name, identity);
    if identified.is_err() {
        let _ = rustix::fs::unlinkat(at.dir, at.name, AtFlags::REMOVEDIR);
    }
    identified.map(drop)
}

/// Makes directory `name` in `parent` and gives it its record.
pub(crate) fn prepare_dir(
    parent: &OwnedFd,
    name: &str,
    identity: &Identity,
) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    identify_dir(parent, name, identity)
}

/// Gives directory `name` in `parent` its record.
fn identify_dir(parent: &OwnedFd, name: &str, identity: &Identity) -> io::Result<OwnedFd> {
    let dir = tree::open_dir_raw(parent, name.as_bytes())?;
    tree::set_identity(&dir, identity)?;
    Ok(dir)
}

/// Removes a resource; a collection with all below it, at once.
pub(crate) fn remove(tree: &Tree, at: &Place<'_>, found: &Found) -> io::Result<Left> {
    match found.meta.kind {
        Kind::Collection => match remove_empty(at) {
            true => Ok(Left::Nothing),
            // It has members, which go with it at once.
            false => set_aside(tree, at),
        },
        Kind::File if found.pooled() => Ok(match take_out(tree, at, found)? {
            true => Left::Version(Box::new(found.clone())),
            false => Left::Nothing,
        }),
        Kind::File => {
            rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty())?;
            Ok(Left::Version(Box::new(found.clone())))
        }
    }
}

/// Removes a collection without members, if it is one.
pub(crate) fn remove_empty(at: &Place<'_>) -> bool {
    rustix::fs::unlinkat(at.dir, at.name, AtFlags::REMOVEDIR).is_ok()
}

/// Creates `.tierdav/tmp/<id>` to be filled.
pub(crate) fn create_tmp(tree: &Tree, id: FileId) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        &tree.tmp,
        id_name(id).as_str(),
        flags,
        Mode::from(0o666),
    )?))
}

/// Opens `.tierdav/tmp/<id>` or `.tierdav/dirty/<id>` for reading and writing.
pub(crate) fn open_rw(dir: &OwnedFd, id: FileId) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        dir,
        id_name(id).as_str(),
        flags,
        Mode::empty(),
    )?))
}

/// Gives a prepared file its size, times, permissions, properties and record, and notes which of its objects are `dirty`.
///
/// Returns the record as stored (the file system may keep coarser times, and the inode is known only here) and the mode.
pub(crate) fn dress(
    file: &File,
    identity: &Identity,
    mode: Option<u32>,
    props: &[u8],
    dirty: impl IntoIterator<Item = u32>,
) -> io::Result<(Identity, u32)> {
    let stat = tree::statx(file, "", AtFlags::EMPTY_PATH)?;
    dress_as_seen(file, stat, identity, mode, props, dirty)
}

/// [`dress`] a file whose status is known.
pub(crate) fn dress_as_seen(
    file: &File,
    seen: Stat,
    identity: &Identity,
    mode: Option<u32>,
    props: &[u8],
    dirty: impl IntoIterator<Item = u32>,
) -> io::Result<(Identity, u32)> {
    let mut kept = seen;
    let cut = kept.len != identity.len;
    if cut {
        // It may take bits of the mode away.
        rustix::fs::ftruncate(file, identity.len)?;
    }
    if let Some(mode) = mode.map(tree::kept_mode).filter(|m| *m != kept.mode) {
        tree::set_mode(file, mode)?;
        kept.mode = mode;
    }
    if !props.is_empty() {
        tree::set_props(file, props)?;
    }
    if cut || kept.mtime_ns != identity.mtime_ns {
        tree::set_mtime(file, identity.mtime_ns)?;
        kept = tree::statx(file, "", AtFlags::EMPTY_PATH)?;
    }
    let identity = Identity {
        mtime_ns: kept.mtime_ns,
        ino: kept.ino,
        ..*identity
    };
    tree::set_identity(file, &identity)?;
    if identity.state == State::Dirty && !identity.all_dirty {
        let indices: Vec<u32> = dirty.into_iter().collect();
        dirty_set::store(file, &indices)?;
    }
    Ok((identity, kept.mode))
}

/// Ends the dirty time of files: content complete and synced, so the plain file speaks for itself. Answers for each, in order.
pub(crate) fn settle(tree: &Tree, ids: &[FileId]) -> Vec<io::Result<()>> {
    if let Some(together) = tree.file_system_sync.as_ref().map(FileSystemSync::begin) {
        return settle_by(tree, ids, |_| Ok(together.sync()?));
    }
    let each = |id: &FileId| {
        settle_unsynced(tree, *id, true)?;
        unlink_dirty(tree, *id)
    };
    ids.iter().map(each).collect()
}

/// [`settle`] where `keep` makes it durable, for all those that it is given, that they are settled. Until then each keeps its dirty
/// name, and what is known by that.
pub(crate) fn settle_by(
    tree: &Tree,
    ids: &[FileId],
    keep: impl FnOnce(&[FileId]) -> io::Result<()>,
) -> Vec<io::Result<()>> {
    let mut settled: Vec<io::Result<()>> = ids
        .iter()
        .map(|id| settle_unsynced(tree, *id, false))
        .collect();
    let whole: Vec<FileId> = ids
        .iter()
        .zip(&settled)
        .filter_map(|(id, settled)| settled.is_ok().then_some(*id))
        .collect();
    if !whole.is_empty()
        && let Err(e) = keep(&whole)
    {
        let failed = |_| Err(io::Error::new(e.kind(), e.to_string()));
        settled = ids.iter().map(failed).collect();
    }
    ids.iter()
        .zip(settled)
        .map(|(id, settled)| settled.and_then(|()| unlink_dirty(tree, *id)))
        .collect()
}

/// Lets the plain file speak for itself; `sync`: durably.
fn settle_unsynced(tree: &Tree, id: FileId, sync: bool) -> io::Result<()> {
    let file = match open_rw(&tree.dirty, id) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => return Ok(()),
        Err(e) => return Err(e),
    };
    let record = tree::get_identity(&file)?;
    let Some(record) = record.filter(|r| r.file_id == id && r.state == State::Dirty) else {
        return Ok(());
    };
    let mut stat = tree::statx(&file, "", AtFlags::EMPTY_PATH)?;
    match stat.len.cmp(&record.len) {
        Ordering::Less => {
            return Err(io::Error::other(format!(
                "file {id} should have {} bytes in the tree but has {}: was it cut beside the gateway? An overwrite or DELETE ends this",
                record.len, stat.len
            )));
        }
        Ordering::Equal => {
            tree::set_mtime(&file, record.mtime_ns)?;
            stat = tree::statx(&file, "", AtFlags::EMPTY_PATH)?;
        }
        // The record does not describe it then, so that it is another version with all that it has, like any file that is written
        // beside the gateway.
        Ordering::Greater => tracing::warn!(
            file = %id,
            bytes = record.len,
            found = stat.len,
            "somebody appended to a file beside the gateway before it was flushed: it keeps what was appended, as another version"
        ),
    }
    let settled = Identity {
        mtime_ns: stat.mtime_ns,
        ino: stat.ino,
        state: State::Inline,
        all_dirty: false,
        ..record
    };
    tree::set_identity(&file, &settled)?;
    if !record.all_dirty {
        dirty_set::remove(&file)?;
    }
    if sync {
        rustix::fs::fsync(&file)?;
    }
    Ok(())
}
