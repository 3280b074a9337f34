//! Replay of the intent log: repeats what was acknowledged and the tree does not show yet.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use tiering::{FileId, ObjectId};

use super::apply::{self, Place};
use super::change::write_attributes;
use super::cleaner::{self, Cleaner};
use super::dirty_set;
use super::identity::{Identity, State};
use super::log::applied::Applied;
use super::log::record::{LoggedObject, Record};
use super::logged;
use super::path::ResourcePath;
use super::start::{dirty_ids, is_version, store_applied};
use super::tree::{self, Entry, Tree, id_name};
use super::types::Kind;
use crate::objects::ObjectCache;

struct Replay<'a> {
    tree: &'a Tree,
    cache: &'a ObjectCache,
    cleaner: &'a Cleaner,
    /// Versions that are, or were, complete in the tree.
    settled: HashSet<FileId>,
    /// The last record that gave something a name.
    named: HashMap<FileId, u64>,
}

/// Applies every record that `applied` lacks, in order, then restores small objects.
pub(super) fn run(
    tree: &Tree,
    cache: &ObjectCache,
    cleaner: &Cleaner,
    records: &[(u64, Record)],
    applied: &mut Applied,
) -> io::Result<()> {
    let replay = Replay {
        tree,
        cache,
        cleaner,
        settled: settled(records),
        named: named(records),
    };
    let aborted: HashSet<u64> = records
        .iter()
        .filter_map(|(_, r)| {
            if let Record::Abort { number } = r {
                Some(*number)
            } else {
                None
            }
        })
        .collect();
    logged::restore(tree, records, &aborted)?;
    let mut redone = 0;
    for (number, record) in records {
        if !applied.contains(*number) {
            if !aborted.contains(number) {
                replay.redo(*number, record)?;
                redone += 1;
            }
            // In order, so everything below is settled too. Kept after each step: a crash during
            // replay must find the same rule as a crash during the changes themselves.
            applied.advance(*number);
            store_applied(tree, &applied.encode())?;
        }
    }
    if let Some((last, _)) = records.last() {
        applied.advance(*last);
    }
    applied.advance(applied.highest());
    store_applied(tree, &applied.encode())?;
    replay.settle()?;
    for (number, record) in records {
        if let (
            Record::Put {
                identity, objects, ..
            },
            false,
        ) = (record, aborted.contains(number))
        {
            replay.restore(identity.file_id, objects)?;
        }
    }
    if !records.is_empty() {
        tracing::info!(records = records.len(), redone, "intent log replayed");
    }
    Ok(())
}

fn named(records: &[(u64, Record)]) -> HashMap<FileId, u64> {
    let of = |(number, record): &(u64, Record)| match record {
        Record::Put { identity, .. } | Record::Mkcol { identity, .. } => {
            Some((identity.file_id, *number))
        }
        Record::Install { id, .. } | Record::Move { id, .. } => Some((*id, *number)),
        Record::Delete { .. }
        | Record::Attributes { .. }
        | Record::Settled { .. }
        | Record::Abort { .. } => None,
    };
    records.iter().filter_map(of).collect()
}

fn settled(records: &[(u64, Record)]) -> HashSet<FileId> {
    let of = |(_, record): &(u64, Record)| match record {
        Record::Settled { ids } => ids.clone(),
        _ => Vec::new(),
    };
    records.iter().flat_map(of).collect()
}

impl Replay<'_> {
    fn clear(&self, left: apply::Left) {
        left.clear(self.tree, self.cache, self.cleaner);
    }

    fn redo(&self, number: u64, record: &Record) -> io::Result<()> {
        match record {
            Record::Put {
                path,
                identity,
                mode,
                in_tree,
                props,
                objects,
            } => self.put(number, path, identity, (*mode, *in_tree), props, objects),
            Record::Install { path, id, replaced } => self.install(path, *id, *replaced),
            Record::Mkcol { path, identity } => self.at(path, |place, entry| match entry {
                Entry::Absent => apply::make_dir(self.tree, place, identity, |_| Ok(())),
                Entry::Found(_) | Entry::Other => Ok(()),
            }),
            Record::Move {
                from,
                to,
                id,
                replaced,
            } => self.rename(from, to, *id, *replaced),
            Record::Delete { path, id } => self.at(path, |place, entry| match &entry {
                Entry::Found(found) if found.meta.file_id == *id => {
                    self.clear(apply::remove(self.tree, place, found)?);
                    Ok(())
                }
                Entry::Found(_) | Entry::Absent | Entry::Other => Ok(()),
            }),
            Record::Attributes {
                path,
                id,
                props,
                mode,
                unlock_null,
            } => {
                let file = match self.tree.file(path) {
                    Err(e) if tree::is_absent(&e) => return Ok(()),
                    other => OwnedFd::from(other?),
                };
                if is_version(&tree::look_fd(&file)?, *id) {
                    write_attributes(&file, props, *mode, *unlock_null)?;
                }
                Ok(())
            }
            Record::Abort { .. } | Record::Settled { .. } => Ok(()),
        }
    }

    /// Calls `then` with a path's place and what is there. Without a parent nothing can be redone.
    fn at(
        &self,
        path: &ResourcePath,
        then: impl FnOnce(&Place<'_>, Entry) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.tree.parent(path) {
            Ok((dir, name)) => {
                let entry = self.tree.look(&dir, name, path)?;
                then(&Place { dir: &dir, name }, entry)
            }
            Err(e) if tree::is_absent(&e) => {
                tracing::warn!(%path, "intent log: the parent collection is gone, change skipped");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn put(
        &self,
        number: u64,
        path: &ResourcePath,
        identity: &Identity,
        (mode, in_tree): (u32, bool),
        props: &[u8],
        objects: &[LoggedObject],
    ) -> io::Result<()> {
        self.at(path, |place, entry| {
            let id = identity.file_id;
            if is_version(&entry, id) {
                return Ok(());
            }
            let synced: Vec<ObjectId> = objects
                .iter()
                .filter(|o| o.inline.is_none())
                .map(|o| ObjectId::new(id, o.index))
                .collect();
            // Gone from the cache since: later records replaced or deleted it, and have to find it here rather than what it
            // replaced. Not so if the tree has come further than this record, or had all of it.
            let gone = !self.cache.contains_all(id, &synced);
            let ahead = || {
                matches!(&entry, Entry::Found(found)
                    if self.named.get(&found.meta.file_id) > Some(&number))
            };
            let file = match apply::open_rw(&self.tree.tmp, id) {
                _ if gone && ahead() => {
                    tracing::debug!(%path, %id, "intent log: the tree is ahead of a change");
                    return Ok(());
                }
                Ok(file) => file,
                Err(e) if !tree::is_absent(&e) => return Err(e),
                // Settled before it had its name, it would still be here.
                Err(_) if gone && self.settled.contains(&id) => {
                    tracing::debug!(%path, %id, "intent log: a settled version has its name, or had it");
                    return Ok(());
                }
                Err(_) if in_tree => {
                    tracing::warn!(%path, %id, "intent log: the prepared file is gone, change skipped");
                    return Ok(());
                }
                Err(_) => apply::create_tmp(self.tree, id)?,
            };
            // All its bytes may have come into the tree since, and its name have been lost.
            let whole = identity.state == State::Dirty
                && matches!(tree::look_fd(&file)?, Entry::Found(found)
                    if found.meta.file_id == id && found.identity.state == State::Inline);
            if !whole {
                if let Some(content) = logged::content(identity, objects) {
                    file.write_all_at(content, 0)?;
                }
                let dirty = objects.iter().map(|o| o.index);
                apply::dress(&file, identity, Some(mode), props, dirty)?;
                if identity.state == State::Dirty {
                    apply::link_dirty(self.tree, id)?;
                }
            }
            let old = match &entry {
                Entry::Found(found) => Some(&**found),
                Entry::Absent | Entry::Other => None,
            };
            let tmp = id_name(id);
            let from = Place { dir: &self.tree.tmp, name: &tmp };
            self.clear(apply::rename_in(self.tree, &from, Kind::File, place, old)?);
            if let Some(old) = old.filter(|f| f.meta.kind == Kind::File) {
                cleaner::forget(self.tree, self.cache, old);
            }
            Ok(())
        })
    }

    fn install(&self, path: &ResourcePath, id: FileId, replaced: Option<FileId>) -> io::Result<()> {
        self.at(path, |place, entry| {
            let tmp = id_name(id);
            let from = Place {
                dir: &self.tree.tmp,
                name: &tmp,
            };
            let prepared = is_version(
                &tree::look_at(from.dir, from.name)?.unwrap_or(Entry::Absent),
                id,
            );
            let old = match &entry {
                Entry::Found(found) if Some(found.meta.file_id) == replaced => Some(&**found),
                Entry::Absent => None,
                // Already there (what it replaced is swept up with the temporary names), or foreign.
                Entry::Found(_) | Entry::Other => return Ok(()),
            };
            if !prepared {
                tracing::warn!(%path, %id, "intent log: the prepared copy is gone, change skipped");
                return Ok(());
            }
            let left = apply::rename_in(self.tree, &from, Kind::Collection, place, old)?;
            self.clear(left);
            Ok(())
        })
    }

    fn rename(
        &self,
        from: &ResourcePath,
        to: &ResourcePath,
        id: FileId,
        replaced: Option<FileId>,
    ) -> io::Result<()> {
        self.at(from, |source, moving| {
            self.at(to, |target, entry| {
                if is_version(&entry, id) {
                    // Died between the exchange and the removal of what was replaced?
                    if replaced.is_some_and(|r| is_version(&moving, r)) {
                        self.clear(apply::set_aside(self.tree, source)?);
                    }
                    return Ok(());
                }
                let Entry::Found(found) = &moving else {
                    return Ok(());
                };
                if found.meta.file_id != id {
                    return Ok(());
                }
                let old = match &entry {
                    Entry::Found(old) => Some(&**old),
                    Entry::Absent | Entry::Other => None,
                };
                let kind = found.meta.kind;
                self.clear(apply::rename_in(self.tree, source, kind, target, old)?);
                if let (Kind::File, Some(old)) = (found.meta.kind, old)
                    && old.meta.kind == Kind::File
                {
                    cleaner::forget(self.tree, self.cache, old);
                }
                Ok(())
            })
        })
    }

    /// Settles again what was settled and may have left the cache since. Whatever name it has, its bytes were in the tree before.
    fn settle(&self) -> io::Result<()> {
        let ids: Vec<FileId> = self.settled.iter().copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        apply::settle(self.tree, &ids).into_iter().collect()
    }

    /// Gives a still dirty version the small objects whose files were not synced.
    fn restore(&self, id: FileId, objects: &[LoggedObject]) -> io::Result<()> {
        let alive = match tree::statx(&self.tree.dirty, &id_name(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat.links > 1,
            Err(Errno::NOENT) => false,
            Err(e) => return Err(e.into()),
        };
        if alive {
            for object in objects {
                if let Some(data) = &object.inline {
                    let id = ObjectId {
                        file: id,
                        index: object.index,
                    };
                    self.cache.restore(id, data).map_err(io::Error::other)?;
                }
            }
        }
        Ok(())
    }
}

/// Lets the files of unsettled versions be those of a root that was copied, where they are others. Before the log is replayed, which
/// looks for versions.
///
/// # Errors
/// Of a file whose two names have become two files, nobody knows which one is whose.
pub(super) fn adopt_dirty(tree: &Tree, cache: &ObjectCache) -> io::Result<()> {
    let cached: HashSet<FileId> = cache.dirty_files().into_iter().collect();
    for id in dirty_ids(tree)? {
        let look = || {
            let file = apply::open_rw(&tree.dirty, id)?;
            let stat = tree::statx(&file, "", AtFlags::EMPTY_PATH)?;
            let record = tree::get_identity(&file)?;
            Ok((file, stat, record))
        };
        let (file, stat, record) = look().map_err(|e| of_dirty(e, id))?;
        let Some(record) =
            record.filter(|r| r.file_id == id && r.state == State::Dirty && r.ino != stat.ino)
        else {
            continue;
        };
        if stat.links < 2 && cached.contains(&id) {
            return Err(io::Error::other(format!(
                "it was copied without its hard links, so that data which only the cache has would be lost: copy it again with them \
                 (rsync -H, cp -a), or remove .tierdav/dirty/{id} to give that file's data up"
            )));
        }
        let own = Identity {
            ino: stat.ino,
            ..record
        };
        tree::set_identity(&file, &own)?;
    }
    Ok(())
}

/// The objects of an unsettled version that were dirty at its commit and have left the cache since; `None` if it is settled: its
/// file says so, and has all its bytes, as they were synced before.
fn lost_objects(tree: &Tree, cache: &ObjectCache, id: FileId) -> io::Result<Option<Vec<u32>>> {
    let file = apply::open_rw(&tree.dirty, id)?;
    let Some(record) = tree::get_identity(&file)?.filter(|r| r.file_id == id) else {
        return Ok(Some(Vec::new()));
    };
    if record.state != State::Dirty {
        return Ok(None);
    }
    let objects = record.len.div_ceil(u64::from(cache.object_bytes())) as u32;
    let mut dirty = if record.all_dirty {
        (0..objects).collect()
    } else {
        dirty_set::load(&file, objects)?
    };
    dirty.retain(|index| {
        !cache.contains_all(
            id,
            &[ObjectId {
                file: id,
                index: *index,
            }],
        )
    });
    Ok(Some(dirty))
}

/// An error about a file with dirty objects, which has another name in the root.
fn of_dirty(error: io::Error, id: FileId) -> io::Error {
    let name = format!(".tierdav/dirty/{}", id_name(id));
    let text = format!("{name}: {error} (`find ROOT -samefile ROOT/{name}` tells its other name)");
    io::Error::new(error.kind(), text)
}

/// Makes dirty names, tree files and cached objects agree, after replay and clean-up.
pub(super) fn reconcile_dirty(tree: &Tree, cache: &ObjectCache) -> io::Result<()> {
    let named = dirty_ids(tree)?;
    let cached: HashSet<FileId> = cache.dirty_files().into_iter().collect();
    let mut flushed = Vec::new();
    for id in &named {
        let stat = tree::statx(&tree.dirty, &id_name(*id), AtFlags::SYMLINK_NOFOLLOW)?;
        let lost = match stat.links {
            ..2 => None,
            _ => lost_objects(tree, cache, *id).map_err(|e| of_dirty(e, *id))?,
        };
        let Some(lost) = lost else {
            // What the cache calls dirty must not be flushed once more: the file would be another version for as long.
            cache.forget(*id, stat.len);
            apply::unlink_dirty(tree, *id)?;
            continue;
        };
        if let Some(first) = lost.first() {
            tracing::error!(
                file = %id,
                objects = lost.len(),
                first,
                "objects that only the cache had are gone from it: their ranges cannot be read"
            );
            cache.set_lost(*id, &lost);
        } else if !cached.contains(id) {
            flushed.push(*id);
        }
    }
    for (settled, id) in apply::settle(tree, &flushed).into_iter().zip(&flushed) {
        if let Err(error) = settled {
            // One file is no reason to serve none. It keeps its dirty name, and its objects stay in the cache.
            let error = of_dirty(error, *id);
            tracing::error!(%error, "a flushed file cannot be settled; tried again");
            cache.set_unsettled(*id);
        }
    }
    // Objects of uploads that were never acknowledged.
    for id in cached.difference(&named) {
        cache.forget(*id, 0);
    }
    Ok(())
}
