//! MKCOL, DELETE, MOVE and changes of properties.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::AtFlags;

use super::apply::{self, Place};
use super::error::{At, Limit, VolumeError};
use super::exchange::Exchange;
use super::identity::{self, Identity, State};
use super::log::record::Record;
use super::path::ResourcePath;
use super::types::{Check, Found, Kind, PropChange, Replaced, unchecked};
use super::{
    Durability, Inner, Volume, cleaner, decode_props, now_ns, props, tree, visit, visit_unless,
};

impl Volume {
    /// Makes a collection. A taken name is [`VolumeError::Exists`], a missing parent [`VolumeError::Conflict`].
    pub async fn mkcol(&self, path: &ResourcePath, check: Check) -> Result<(), VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        let guard = inner.locks.lock(&[&path]).await;
        visit(&self.inner, move || {
            let _guard = guard;
            inner.mkcol(&path, check)
        })
        .await
    }

    /// Removes a file, or a collection with everything below it: at once for all who look.
    pub async fn remove(&self, path: &ResourcePath, check: Check) -> Result<(), VolumeError> {
        let (inner, at) = (Arc::clone(&self.inner), path.clone());
        let guard = inner.locks.lock(&[path]).await;
        let large = || self.inner.is_large(path);
        visit_unless(large, &self.inner, move || {
            let _guard = guard;
            inner.remove(&at, check)
        })
        .await
    }

    /// Gives a resource another name, atomically; ids and ETags stay. `check` gets the destination.
    ///
    /// A taken destination without `overwrite` is [`VolumeError::PreconditionFailed`].
    pub async fn rename(
        &self,
        from: &ResourcePath,
        to: &ResourcePath,
        overwrite: bool,
        check: Check,
    ) -> Result<Replaced, VolumeError> {
        let (inner, source, target) = (Arc::clone(&self.inner), from.clone(), to.clone());
        let guard = inner.locks.lock(&[from, to]).await;
        let large = || self.inner.is_large(to);
        visit_unless(large, &self.inner, move || {
            let _guard = guard;
            inner.rename(&source, &target, overwrite, check)
        })
        .await
    }

    /// Applies all changes of properties or none; `check` gets the resource as it is just before. Too much for the file system is [`VolumeError::NoSpace`].
    pub async fn patch_props(
        &self,
        path: &ResourcePath,
        changes: Vec<PropChange>,
        executable: Option<bool>,
        check: Check,
    ) -> Result<(), VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        let guard = inner.locks.lock(&[&path]).await;
        visit(&self.inner, move || {
            let _guard = guard;
            if !check(Some(&inner.found(&path)?.meta)) {
                return Err(VolumeError::PreconditionFailed { path });
            }
            inner.set_attributes(&path, changes, executable, false)
        })
        .await
    }

    /// Turns a resource that only a LOCK made into an ordinary empty one.
    pub async fn clear_lock_null(&self, path: &ResourcePath) -> Result<(), VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        let guard = inner.locks.lock(&[&path]).await;
        visit(&self.inner, move || {
            let _guard = guard;
            if inner.found(&path)?.meta.lock_null {
                inner.set_attributes(&path, Vec::new(), None, true)?;
            }
            Ok(())
        })
        .await
    }

    /// Removes a resource if a LOCK made it and nothing was done to it since, and it is `unlocked`; `true` when it went. One that was
    /// given properties becomes an ordinary empty one: that was acknowledged.
    pub async fn remove_lock_null(
        &self,
        path: &ResourcePath,
        unlocked: impl Fn() -> bool + Send + 'static,
    ) -> Result<bool, VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        let guard = inner.locks.lock(&[&path]).await;
        let removed = visit(&self.inner, move || {
            let _guard = guard;
            let (found, props) = inner.stored_props(&path)?;
            if !found.meta.lock_null || !unlocked() {
                return Ok(false);
            }
            if found.meta.executable || !props.is_empty() {
                inner.set_attributes(&path, Vec::new(), None, true)?;
                return Ok(false);
            }
            inner.remove(&path, unchecked())?;
            Ok(true)
        });
        match removed.await {
            Err(VolumeError::NotFound { .. }) => Ok(false),
            other => other,
        }
    }
}

fn forbidden(op: &'static str, path: &ResourcePath, why: &'static str) -> VolumeError {
    VolumeError::Forbidden {
        op,
        path: path.clone(),
        why,
    }
}

impl Inner {
    fn mkcol(&self, path: &ResourcePath, check: Check) -> Result<(), VolumeError> {
        if path.is_root() {
            return Err(VolumeError::Exists { path: path.clone() });
        }
        let (dir, name) = self.place(path)?;
        let old = match self.tree.look(&dir, name, path).at("stat", path)? {
            tree::Entry::Absent => None,
            tree::Entry::Other => return Err(VolumeError::Exists { path: path.clone() }),
            tree::Entry::Found(found) => Some(found),
        };
        if !check(old.as_ref().map(|f| &f.meta)) {
            return Err(VolumeError::PreconditionFailed { path: path.clone() });
        }
        if old.is_some() {
            return Err(VolumeError::Exists { path: path.clone() });
        }
        let identity = fresh_dir(path)?;
        let sync = |made: &OwnedFd| match self.log.is_some() || self.tree.journals_inodes {
            true => Ok(()),
            // The sync of the parent would bring a name to the disk that leads nowhere.
            false => Ok(rustix::fs::fsync(made)?),
        };
        self.commit(
            path,
            || Record::Mkcol {
                path: path.clone(),
                identity,
            },
            &[&dir],
            || {
                let place = Place { dir: &dir, name };
                let made = match self.durability {
                    Durability::Relaxed => apply::make_dir_here(&place, &identity),
                    // Replay must find all of it, or nothing.
                    Durability::Commit => apply::make_dir(&self.tree, &place, &identity, sync),
                };
                made.at("mkdir", path)
            },
        )
    }

    fn remove(&self, path: &ResourcePath, check: Check) -> Result<(), VolumeError> {
        if path.is_root() {
            return Err(forbidden("delete", path, "the root stays"));
        }
        let (dir, name, found) = self.existing(path)?;
        if !check(Some(&found.meta)) {
            return Err(VolumeError::PreconditionFailed { path: path.clone() });
        }
        let place = Place { dir: &dir, name };
        // There is nothing in an empty one to be seen; and nothing of this is logged.
        if found.meta.kind == Kind::Collection
            && self.durability == Durability::Relaxed
            && apply::remove_empty(&place)
        {
            return Ok(());
        }
        self.all_seen(path, Some(&found))?;
        let record = || Record::Delete {
            path: path.clone(),
            id: found.meta.file_id,
        };
        let frees = self.usage.frees(&self.tree, &found);
        let left = self.commit(path, record, &[&dir], || {
            apply::remove(&self.tree, &place, &found).at("delete", path)
        })?;
        left.clear(&self.tree, &self.cache, &self.cleaner);
        if found.meta.kind == Kind::File {
            self.usage.name_gone(&found, frees);
        }
        Ok(())
    }

    fn rename(
        &self,
        from: &ResourcePath,
        to: &ResourcePath,
        overwrite: bool,
        check: Check,
    ) -> Result<Replaced, VolumeError> {
        if from.is_root() || to.is_root() {
            return Err(forbidden("move", from, "the root stays"));
        }
        if to.is_within(from) || from.is_within(to) {
            return Err(forbidden("move", from, "source and destination overlap"));
        }
        let (from_dir, from_name, found) = self.existing(from)?;
        let elsewhere = match from.parent() == to.parent() {
            true => None,
            false => Some(self.place(to)?.0),
        };
        let (to_dir, to_name) = (elsewhere.as_ref().unwrap_or(&from_dir), to.name());
        let mut old = self.occupant(to_dir, to_name, to)?;
        if let Some(old) = old
            .as_mut()
            .filter(|old| old.meta.file_id == found.meta.file_id)
        {
            // Two names of one file, or a placeholder and its copy: the version stays.
            old.links = old.links.max(2);
        }
        if !check(old.as_ref().map(|f| &f.meta)) || (old.is_some() && !overwrite) {
            return Err(VolumeError::PreconditionFailed { path: to.clone() });
        }
        self.all_seen(to, old.as_ref())?;
        let id = found.meta.file_id;
        let record = || Record::Move {
            from: from.clone(),
            to: to.clone(),
            id,
            replaced: old.as_ref().map(|f| f.meta.file_id),
        };
        let collection = |found: &Found| found.meta.kind == Kind::Collection;
        let noted = match old
            .as_ref()
            .filter(|old| collection(&found) || collection(old))
        {
            Some(old) if self.log.is_none() => {
                let noted = Exchange::note(&self.tree, from, old.meta.file_id);
                noted.at("note the move of", from)?
            }
            Some(_) | None => None,
        };
        let source = Place {
            dir: &from_dir,
            name: from_name,
        };
        let target = Place {
            dir: to_dir,
            name: to_name,
        };
        let frees = old
            .as_ref()
            .is_some_and(|old| self.usage.frees(&self.tree, old));
        // Where no journal keeps both together, a power cut between their syncs leaves two names rather than none.
        let moved = self.commit(to, record, &[to_dir, &from_dir], || {
            apply::rename_in(&self.tree, &source, found.meta.kind, &target, old.as_ref())
                .at("rename", to)
        });
        match (moved.is_err(), noted, &old) {
            (true, Some(noted), Some(old)) => noted.failed(&source, from, old.meta.file_id),
            (_, noted, _) => drop(noted),
        }
        let left = moved?;
        left.clear(&self.tree, &self.cache, &self.cleaner);
        // What was exchanged and set aside is the cleaner's; a file renamed over is ours.
        if let (Kind::File, Some(old)) = (found.meta.kind, &old)
            && old.meta.kind == Kind::File
            && old.meta.file_id != id
        {
            cleaner::forget(&self.tree, &self.cache, old);
            self.usage.name_gone(old, frees);
        }
        match found.meta.kind {
            Kind::File => {
                self.usage.moved(id, found.meta.len);
                self.tree.learn_given(found.identity, found.meta.bare, || {
                    tree::statx(to_dir, to_name, AtFlags::SYMLINK_NOFOLLOW)
                });
                self.recent.seen(id, to);
            }
            Kind::Collection => self.usage.collection_placed(0),
        }
        Ok(Replaced(old.is_some()))
    }

    /// Opens the parent of a resource that must exist, and says what it is.
    pub(super) fn existing<'p>(
        &self,
        path: &'p ResourcePath,
    ) -> Result<(Arc<OwnedFd>, &'p str, Found), VolumeError> {
        let (dir, name) = self.tree.parent(path).at("open the parent of", path)?;
        match self.tree.look(&dir, name, path).at("stat", path)? {
            tree::Entry::Found(found) => Ok((dir, name, *found)),
            tree::Entry::Absent | tree::Entry::Other => {
                Err(VolumeError::NotFound { path: path.clone() })
            }
        }
    }

    fn set_attributes(
        &self,
        path: &ResourcePath,
        changes: Vec<PropChange>,
        executable: Option<bool>,
        unlock_null: bool,
    ) -> Result<(), VolumeError> {
        let (found, stored) = self.stored_props(path)?;
        let value = props::encode(&props::apply(decode_props(path, &stored)?, changes));
        if value.len() > props::VALUE_BYTES_MAX {
            let why = format!("properties of {} bytes", value.len());
            return Err(VolumeError::NoSpace {
                op: "set properties",
                path: path.clone(),
                limit: Limit::Properties,
                why,
            });
        }
        let mode = match executable {
            Some(true) if found.meta.kind == Kind::File => {
                Some(found.mode | (found.mode & 0o444) >> 2)
            }
            Some(false) if found.meta.kind == Kind::File => Some(found.mode & !0o111),
            _ => None,
        };
        let file = self.tree.file(path).at("open", path)?;
        let id = found.meta.file_id;
        let fd = OwnedFd::from(file);
        // What does not fit fails in the file system; the commit then takes its record back.
        self.commit(
            path,
            || Record::Attributes {
                path: path.clone(),
                id,
                props: Bytes::copy_from_slice(&value),
                mode,
                unlock_null,
            },
            &[&fd],
            || write_attributes(&fd, &value, mode, unlock_null).at("set properties", path),
        )
    }
}

/// Properties first: they are what may not fit, and then nothing else has changed.
pub(super) fn write_attributes(
    fd: &OwnedFd,
    props: &[u8],
    mode: Option<u32>,
    unlock_null: bool,
) -> std::io::Result<()> {
    tree::set_props(fd, props)?;
    if let Some(mode) = mode {
        // By now it may be another file than the one whose mode was looked at.
        tree::set_mode(fd, mode)?;
    }
    if unlock_null && let Some(record) = tree::get_identity(fd)? {
        tree::set_identity(
            fd,
            &Identity {
                lock_null: false,
                ..record
            },
        )?;
    }
    Ok(())
}

pub(super) fn fresh_dir(path: &ResourcePath) -> Result<Identity, VolumeError> {
    let now = now_ns();
    Ok(Identity {
        file_id: identity::fresh().at("draw an id for", path)?,
        len: 0,
        mtime_ns: now,
        created_ns: now,
        ino: 0,
        state: State::Inline,
        all_dirty: false,
        lock_null: false,
    })
}
