//! The boundary to a pool of objects: keys and bytes, never heat, policy or WebDAV.

use std::io;

use tiering::ObjectId;

/// An object as a store knows it. Its name says everything, so that a listing rebuilds the residency map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Which object.
    pub id: ObjectId,
    /// Its length in bytes (at most the object size; shorter only at the end of a file).
    pub len: u32,
    /// crc32c of its bytes.
    pub crc: u32,
    /// Whether the backing tier has the same bytes.
    pub mark: Mark,
}

/// Whether the backing tier has a cached object's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Equal to the backing tier.
    Clean,
    /// Only in the cache tier.
    Dirty,
}

/// A pool of objects, blocking: callers are on blocking threads.
///
/// Every implementation passes the tests in `contract.rs`, bare and with faults injected.
///
/// The caller guarantees: an `id` is written by one thread at a time; the bytes of an `id` never change
/// (a repeated `put` carries the same bytes); `data.len() == object.len`.
///
/// The implementation MUST: make `put` repeatable after any failure; never show an object of which a `put`
/// has not succeeded as complete; never pad a read.
pub trait ObjectStore: Send + Sync {
    /// Fills `buf` from `offset` within the object. An absent object is `NotFound`; one that ends before
    /// `buf` is full is `Truncated` with what `buf` holds unspecified.
    fn read_at(&self, object: &Stored, offset: u32, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Stores all bytes of an object. With `sync`, they are on stable storage when it returns.
    fn put(&self, object: &Stored, data: &[u8], sync: bool) -> Result<(), StoreError>;
}

/// Reads a whole object and checks it against its checksum.
pub fn read_verified(store: &dyn ObjectStore, object: &Stored) -> Result<Vec<u8>, StoreError> {
    let mut buf = vec![0; object.len as usize];
    match store.read_at(object, 0, &mut buf) {
        Ok(()) if crc32c::crc32c(&buf) == object.crc => Ok(buf),
        Ok(()) | Err(StoreError::Truncated { .. }) => Err(StoreError::Damaged { id: object.id }),
        Err(e) => Err(e),
    }
}

/// An error of one store; the variant says what, the fields where.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store has no such object.
    #[error("object {id} not found")]
    NotFound {
        /// The object.
        id: ObjectId,
    },
    /// The object ends before the requested range does.
    #[error("object {id} ends before byte {at}")]
    Truncated {
        /// The object.
        id: ObjectId,
        /// End of the requested range, within the object.
        at: u32,
    },
    /// The bytes do not match the checksum.
    #[error("object {id} does not match its checksum")]
    Damaged {
        /// The object.
        id: ObjectId,
    },
    /// The store is full.
    #[error("no space for object {id}")]
    NoSpace {
        /// The object.
        id: ObjectId,
    },
    /// Any other I/O error.
    #[error("{op} object {id}: {source}")]
    Io {
        /// What was being done.
        op: &'static str,
        /// The object.
        id: ObjectId,
        /// The system's error.
        source: io::Error,
    },
}

impl StoreError {
    /// Wraps a system error.
    pub fn io(op: &'static str, id: ObjectId, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            StoreError::NoSpace { id }
        } else if source.kind() == io::ErrorKind::NotFound {
            StoreError::NotFound { id }
        } else {
            StoreError::Io { op, id, source }
        }
    }
}
