//! What can go wrong in the namespace, said once: operation, path, source.

use std::io;

use super::path::{PathError, ResourcePath};
use crate::objects::CacheError;
use crate::objects::pools::AttachError;

/// A failed namespace operation. Mapped to HTTP once, in `dav::status`.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The resource, or a collection above it, does not exist.
    #[error("{path}: not found")]
    NotFound {
        /// The resource asked for.
        path: ResourcePath,
    },
    /// The collection that should hold the resource does not exist.
    #[error("{path}: its parent collection does not exist")]
    Conflict {
        /// The resource to be made.
        path: ResourcePath,
    },
    /// The name is taken.
    #[error("{path}: exists already")]
    Exists {
        /// The resource to be made.
        path: ResourcePath,
    },
    /// A file was wanted, a collection found.
    #[error("{path}: is a collection")]
    IsCollection {
        /// The collection.
        path: ResourcePath,
    },
    /// A collection was wanted, a file found.
    #[error("{path}: is not a collection")]
    NotCollection {
        /// The file.
        path: ResourcePath,
    },
    /// The caller's `Check` said no.
    #[error("{path}: a precondition does not hold")]
    PreconditionFailed {
        /// The resource checked.
        path: ResourcePath,
    },
    /// The operation is never allowed on this resource (the root, a symbolic link, into itself).
    #[error("{op} {path}: not allowed: {why}")]
    Forbidden {
        /// The operation.
        op: &'static str,
        /// The resource.
        path: ResourcePath,
        /// The reason.
        why: &'static str,
    },
    /// The collection cannot go: what nobody sees would go with it.
    #[error("{path}: {place} has a name that is not UTF-8, or too long")]
    Unseen {
        /// The collection.
        path: ResourcePath,
        /// The collection, it or below it, that has the name.
        place: ResourcePath,
    },
    /// A name or the whole path is longer than the file system takes.
    #[error("{path}: name too long")]
    NameTooLong {
        /// The resource.
        path: ResourcePath,
    },
    /// The text is no path below the root.
    #[error(transparent)]
    InvalidPath(#[from] PathError),
    /// The volume, its quota, or the room for a resource's properties is full.
    #[error("{op} {path}: no space: {why}")]
    NoSpace {
        /// The operation.
        op: &'static str,
        /// The resource.
        path: ResourcePath,
        /// Which limit was met.
        limit: Limit,
        /// The same for people.
        why: String,
    },
    /// More bytes than one resource may have.
    #[error("{path}: too large")]
    TooLarge {
        /// The resource.
        path: ResourcePath,
    },
    /// Trouble of ours that may pass: a store is away, read-only or shutting down.
    #[error("{op} {path}: unavailable")]
    Unavailable {
        /// The operation.
        op: &'static str,
        /// The resource.
        path: ResourcePath,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("{op} {path}")]
    Io {
        /// The operation.
        op: &'static str,
        /// The resource.
        path: ResourcePath,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The volume cannot be opened as configured.
    #[error("{0}")]
    Startup(String),
    /// The pools cannot be taken into use.
    #[error(transparent)]
    Pools(#[from] AttachError),
    /// The object cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl VolumeError {
    /// Whether the same request may succeed later without anything else changing.
    pub fn is_retryable(&self) -> bool {
        match self {
            VolumeError::Unavailable { .. } => true,
            VolumeError::Io { .. } => true,
            VolumeError::Cache(_) => true,
            VolumeError::Pools(e) => e.may_pass(),
            VolumeError::NotFound { .. }
            | VolumeError::Conflict { .. }
            | VolumeError::Exists { .. }
            | VolumeError::IsCollection { .. }
            | VolumeError::NotCollection { .. }
            | VolumeError::PreconditionFailed { .. }
            | VolumeError::Forbidden { .. }
            | VolumeError::Unseen { .. }
            | VolumeError::NameTooLong { .. }
            | VolumeError::InvalidPath(_)
            | VolumeError::NoSpace { .. }
            | VolumeError::TooLarge { .. }
            | VolumeError::Startup(_) => false,
        }
    }
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A quota: the gateway's, or the file system's for names and attributes.
    Quota,
    /// The disk, or the pools.
    Disk,
    /// The room for a resource's properties.
    Properties,
}

/// Adds operation and path to a failed system call, and sorts it into its variant.
pub(crate) fn classify(op: &'static str, path: &ResourcePath, source: io::Error) -> VolumeError {
    use rustix::io::Errno;
    let path = path.clone();
    let errno = source.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        // What these need beside the path they are told is the gateway's own: its directory of unfinished files.
        Some(Errno::NOENT) if matches!(op, "create" | "prepare" | "link" | "name" | "mkdir") => {
            VolumeError::Unavailable { op, path, source }
        }
        // What is made, moved or removed passes through the gateway's own directory.
        Some(Errno::XDEV) if matches!(op, "mkdir" | "delete" | "rename" | "name") => {
            VolumeError::Forbidden {
                op,
                path,
                why: "it is on another file system than the root's own directory",
            }
        }
        Some(Errno::BUSY) if matches!(op, "delete" | "rename" | "name") => VolumeError::Forbidden {
            op,
            path,
            why: "a file system is mounted there",
        },
        // ELOOP and, but for calls with two names, EXDEV come from openat2: a link is refused or leads out.
        Some(Errno::NOENT | Errno::LOOP) => VolumeError::NotFound { path },
        Some(Errno::NOTDIR) => VolumeError::NotFound { path },
        Some(Errno::XDEV) if !matches!(op, "link" | "copy") => VolumeError::NotFound { path },
        Some(Errno::EXIST | Errno::NOTEMPTY) => VolumeError::Exists { path },
        Some(Errno::ISDIR) => VolumeError::IsCollection { path },
        Some(Errno::NAMETOOLONG) => VolumeError::NameTooLong { path },
        Some(Errno::FBIG) => VolumeError::TooLarge { path },
        Some(Errno::ACCESS | Errno::PERM) => VolumeError::Forbidden {
            op,
            path,
            why: "the file system refuses it",
        },
        Some(errno @ (Errno::NOSPC | Errno::DQUOT)) => VolumeError::NoSpace {
            op,
            path,
            limit: match errno {
                _ if op == "set properties" => Limit::Properties,
                Errno::DQUOT => Limit::Quota,
                _ => Limit::Disk,
            },
            why: source.to_string(),
        },
        Some(
            Errno::ROFS | Errno::IO | Errno::NODEV | Errno::NXIO | Errno::STALE | Errno::TIMEDOUT,
        )
        | Some(Errno::NOTCONN | Errno::SHUTDOWN | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            VolumeError::Unavailable { op, path, source }
        }
        Some(_) | None => VolumeError::Io { op, path, source },
    }
}

/// `result.at("unlink", &path)?`: see [`classify`].
pub(crate) trait At<T> {
    fn at(self, op: &'static str, path: &ResourcePath) -> Result<T, VolumeError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, op: &'static str, path: &ResourcePath) -> Result<T, VolumeError> {
        self.map_err(|e| classify(op, path, e.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn another_file_system_is_a_lasting_no_for_what_would_cross_to_it() {
        let path = ResourcePath::parse("/mounted/x").unwrap();
        let of = |op, errno: rustix::io::Errno| classify(op, &path, errno.into());
        for op in ["mkdir", "delete", "rename", "name"] {
            let error = of(op, rustix::io::Errno::XDEV);
            assert!(
                matches!(error, VolumeError::Forbidden { .. }),
                "{op}: {error}"
            );
        }
        // A link that leads out.
        let error = of("open", rustix::io::Errno::XDEV);
        assert!(matches!(error, VolumeError::NotFound { .. }), "{error}");
        let error = of("delete", rustix::io::Errno::BUSY);
        assert!(matches!(error, VolumeError::Forbidden { .. }), "{error}");
    }
}
