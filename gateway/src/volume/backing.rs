//! What the migrator needs of the namespace: a version's plain file, by id.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tiering::FileId;

use super::log::Log;
use super::log::record::Record;
use super::tree::{self, Entry};
use super::{Inner, ResourcePath, Volume, apply, start};
use crate::objects::{Backing, FileSystemSync};

impl Volume {
    /// Path and length of a version, if it still is where it was last opened or written. Blocks for one look at the tree.
    pub fn locate(&self, file: FileId) -> Option<(ResourcePath, u64)> {
        let path = self.inner.recent.path(file)?;
        match self.inner.tree.find(&path).ok()? {
            Entry::Found(found) if found.meta.file_id == file => Some((path, found.meta.len)),
            Entry::Found(_) | Entry::Absent | Entry::Other => None,
        }
    }
}

impl Inner {
    /// Makes durable by the log, without waiting for the tree, that these versions are settled there.
    pub(super) fn note_settled(&self, log: &Log, ids: &[FileId]) -> io::Result<()> {
        let (number, logged) = log.append(&Record::Settled { ids: ids.to_vec() });
        log.applied(number, |state| start::store_applied(&self.tree, state))?;
        logged.or_else(|_| Ok(self.tree.sync_all()?))
    }
}

impl Backing for Volume {
    fn open_dirty(&self, file: FileId) -> io::Result<Arc<File>> {
        Ok(Arc::new(apply::open_rw(&self.inner.tree.dirty, file)?))
    }

    /// By the path it was last opened under, if that still is this version.
    fn open_clean(&self, file: FileId) -> io::Result<Option<Arc<File>>> {
        let Some(path) = self.inner.recent.path(file) else {
            return Ok(None);
        };
        let opened = match self.inner.tree.file(&path) {
            Ok(opened) => opened,
            Err(e) if tree::is_absent(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        match tree::look_fd(&opened)? {
            Entry::Found(found) if found.meta.file_id == file => Ok(Some(Arc::new(opened))),
            Entry::Found(_) | Entry::Absent | Entry::Other => Ok(None),
        }
    }

    fn is_still(&self, file: FileId, tree: &File) -> io::Result<bool> {
        Ok(start::is_version(&tree::look_fd(&tree)?, file))
    }

    fn purged(&self, file: FileId) -> io::Result<()> {
        match rustix::fs::unlinkat(
            &self.inner.tree.tmp,
            tree::id_name(file).as_str(),
            rustix::fs::AtFlags::empty(),
        ) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn settle(&self, files: &[FileId]) -> Vec<io::Result<()>> {
        let inner = &self.inner;
        match &inner.log {
            // In a journal the dirty name goes after the rest: it is there, or the file is settled. Elsewhere only a sync says so.
            Some(log) if inner.tree.journals_inodes => {
                apply::settle_by(&inner.tree, files, |whole| inner.note_settled(log, whole))
            }
            _ => apply::settle(&inner.tree, files),
        }
    }

    fn file_system_sync(&self) -> Option<&Arc<FileSystemSync>> {
        self.inner.tree.file_system_sync.as_ref()
    }
}
