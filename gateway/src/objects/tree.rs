//! The backing store: objects are ranges of the plain file beneath the root.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::io::{Faults, read_full_at, sync_data, write_all_at};
use super::store::{ObjectStore, StoreError, Stored};

/// The objects of one version, in its tree file. Object `i` is at `i * object_bytes`.
///
/// It has no checksums and no per-object existence: an object is `NotFound` when the file ends before it.
#[derive(Clone)]
pub struct TreeStore {
    file: Arc<File>,
    object_bytes: u32,
    faults: Faults,
}

impl TreeStore {
    /// The objects of the version in `file`.
    pub fn new(file: Arc<File>, object_bytes: u32, faults: Faults) -> Self {
        TreeStore {
            file,
            object_bytes,
            faults,
        }
    }

    fn base(&self, object: &Stored) -> u64 {
        u64::from(object.id.index) * u64::from(self.object_bytes)
    }

    /// Waits until everything written is on stable storage.
    pub fn sync(&self) -> io::Result<()> {
        sync_data(&self.file, &self.faults)
    }
}

impl ObjectStore for TreeStore {
    fn read_at(&self, object: &Stored, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        let n = read_full_at(
            &self.file,
            buf,
            self.base(object) + u64::from(offset),
            &self.faults,
        )
        .map_err(|e| StoreError::io("read", object.id, e))?;
        if n == buf.len() {
            return Ok(());
        }
        let len = self
            .file
            .metadata()
            .map_err(|e| StoreError::io("stat", object.id, e))?
            .len();
        if len <= self.base(object) && object.len > 0 {
            Err(StoreError::NotFound { id: object.id })
        } else {
            Err(StoreError::Truncated {
                id: object.id,
                at: offset.saturating_add(buf.len() as u32),
            })
        }
    }

    fn put(&self, object: &Stored, data: &[u8], sync: bool) -> Result<(), StoreError> {
        write_all_at(&self.file, data, self.base(object), &self.faults)
            .map_err(|e| StoreError::io("write", object.id, e))?;
        if sync {
            self.sync()
                .map_err(|e| StoreError::io("sync", object.id, e))?;
        }
        Ok(())
    }
}
