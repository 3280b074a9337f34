//! What can go wrong with content, named so that one table can map it to an HTTP status.

use std::io;

use tiering::{FileId, ObjectId};

use super::pools::PoolError;
use super::store::StoreError;

/// An error of the object cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The backing tier is full. (A full cache tier is no error: the bytes go to the backing tier.)
    #[error("no space left in the backing tier")]
    NoSpace,
    /// The backing tier's file system grants no more: its quota is used up.
    #[error("the backing tier's quota is used up")]
    Quota,
    /// More bytes than the backing tier, or the number of objects, lets one version have.
    #[error("larger than a file of the backing tier may be")]
    TooLarge,
    /// The backing file ends before the announced length; the connection must be broken off.
    #[error("content of file {file} ends at or before byte {offset}")]
    Truncated {
        /// The version that was read.
        file: FileId,
        /// Offset of the first byte that could not be read.
        offset: u64,
    },
    /// Bytes do not match their checksum and there is no other copy to serve instead.
    #[error("object {id} is damaged, or gone")]
    Damaged {
        /// The damaged object.
        id: ObjectId,
    },
    /// The cache directory belongs to another root.
    #[error("cache directory {dir} belongs to root {found}, not to root {expected}")]
    WrongRoot {
        /// The cache directory.
        dir: String,
        /// The root id in its marker.
        found: String,
        /// The id of the root that is being opened.
        expected: String,
    },
    /// Movement was asked for before [`attach_backing`](super::ObjectCache::attach_backing).
    #[error("no backing tier is attached yet")]
    NoBacking,
    /// So many versions wait for their removal from the pools that an upload waited for one to go, and none went.
    #[error(
        "{waiting} versions wait for their removal from the pools, and none was removed for a while"
    )]
    Behind {
        /// How many.
        waiting: usize,
    },
    /// The blocking task died; what it did is unknown.
    #[error("blocking task failed: {0}")]
    Task(String),
    /// An I/O error; `op` says during what.
    #[error("{op}: {source}")]
    Io {
        /// The operation and its key.
        op: String,
        /// The system's error.
        source: io::Error,
    },
}

impl CacheError {
    /// Wraps an I/O error of the backing tier; a limit that was met has its own variant.
    pub(crate) fn backing(op: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull => CacheError::NoSpace,
            io::ErrorKind::QuotaExceeded => CacheError::Quota,
            io::ErrorKind::FileTooLarge => CacheError::TooLarge,
            _ => CacheError::Io {
                op: op.into(),
                source,
            },
        }
    }

    /// Wraps an error of a pool.
    pub(crate) fn pool(op: &'static str, id: ObjectId, e: PoolError) -> Self {
        match e {
            PoolError::Full => CacheError::NoSpace,
            PoolError::Damaged | PoolError::NotFound => CacheError::Damaged { id },
            e => CacheError::Io {
                op: format!("{op} object {id}"),
                source: e.into(),
            },
        }
    }

    /// Whether the same operation may succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        match self {
            CacheError::Io { .. } | CacheError::Task(_) | CacheError::Behind { .. } => true,
            CacheError::NoSpace
            | CacheError::Quota
            | CacheError::TooLarge
            | CacheError::Truncated { .. }
            | CacheError::Damaged { .. }
            | CacheError::WrongRoot { .. }
            | CacheError::NoBacking => false,
        }
    }
}

impl From<StoreError> for CacheError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NoSpace { .. } => CacheError::NoSpace,
            StoreError::Damaged { id } => CacheError::Damaged { id },
            StoreError::Truncated { id, at } => CacheError::Truncated {
                file: id.file,
                offset: u64::from(at),
            },
            StoreError::NotFound { id } => CacheError::Io {
                op: format!("find object {id}"),
                source: io::ErrorKind::NotFound.into(),
            },
            StoreError::Io { op, id, source } => {
                CacheError::backing(format!("{op} object {id}"), source)
            }
        }
    }
}
