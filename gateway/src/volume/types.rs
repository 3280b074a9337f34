//! The words of the namespace's interface.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tiering::FileId;

use super::identity::{Identity, State};
use super::ownership::Ownership;
use crate::objects::{Durability, ObjectCache};

/// What becomes of symbolic links below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// They do not exist for WebDAV.
    #[default]
    Refuse,
    /// They are followed as long as every step stays beneath the root.
    InsideRoot,
}

/// How to open a [`Volume`](super::Volume).
#[derive(Clone)]
pub struct VolumeOptions {
    /// The directory to serve.
    pub root: PathBuf,
    /// The object cache, opened and scanned, its migrator not yet started.
    pub cache: Arc<ObjectCache>,
    /// `<cache_dir>/log`, when there is a cache tier. Its parent carries the cache's format marker.
    pub log_dir: Option<PathBuf>,
    /// What a reply promises.
    pub durability: Durability,
    /// Treatment of symbolic links.
    pub symlinks: Symlinks,
    /// The most bytes of content the volume may hold; `None`: what the file system holds.
    pub quota_bytes: Option<u64>,
    /// Takes the root's file system for one with a journal, whatever it is: for tests, which end processes and cut no power.
    pub assume_journal: bool,
    /// The locks of both directories, where the cache was opened under them; `None`: they are taken now.
    pub ownership: Option<Arc<Ownership>>,
}

/// File or collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A resource with content.
    File,
    /// A directory.
    Collection,
}

/// A strong entity tag with its quotes (RFC 9110 section 8.8.3): a version's id in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntityTag([u8; 18]);

impl EntityTag {
    /// The tag of a version.
    pub fn of(id: FileId) -> EntityTag {
        let mut tag = [b'"'; 18];
        let mut rest = id.0;
        for digit in tag[1..17].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        EntityTag(tag)
    }
}

impl std::ops::Deref for EntityTag {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// What a listing says about one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// File or collection.
    pub kind: Kind,
    /// Bytes of content; 0 for a collection.
    pub len: u64,
    /// Last-Modified.
    pub modified: SystemTime,
    /// Creation date; kept over overwrites.
    pub created: SystemTime,
    /// Strong entity tag with its quotes. Changes with every change of content, and only then.
    pub etag: EntityTag,
    /// Names this version of the content (a collection: the collection).
    pub file_id: FileId,
    /// The owner's execute bit of a file.
    pub executable: bool,
    /// Made by a LOCK; nothing was PUT yet.
    pub lock_null: bool,
    /// Known to have no dead properties; `false` when it has some, or nobody has asked yet.
    pub bare: bool,
}

impl Meta {
    pub(crate) fn of(identity: &Identity, kind: Kind, executable: bool) -> Meta {
        Meta {
            kind,
            len: if kind == Kind::File { identity.len } else { 0 },
            modified: time_of(identity.mtime_ns),
            created: time_of(identity.created_ns),
            etag: EntityTag::of(identity.file_id),
            file_id: identity.file_id,
            executable,
            lock_null: identity.lock_null,
            bare: false,
        }
    }
}

/// A file that is not the version that its record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stale {
    /// That version was written over beside the gateway.
    Changed(FileId),
    /// The record came with a copy that somebody made: the version itself may be well.
    Copied,
}

impl Stale {
    /// The version that is no more.
    pub fn gone(self) -> Option<FileId> {
        match self {
            Stale::Changed(id) => Some(id),
            Stale::Copied => None,
        }
    }
}

/// A found resource, with what only the namespace needs to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub meta: Meta,
    pub identity: Identity,
    /// The record says something else than what the file now is.
    pub stale: Option<Stale>,
    pub mode: u32,
    /// Names of the file; of a placeholder that is a copy of another one, or changed by others, two at least: its version may have
    /// another name, and its objects stay when this one goes (scrub finds them). A symbolic link counts as a name of what it leads to.
    pub links: u32,
}

impl Found {
    pub fn dirty(&self) -> bool {
        self.identity.state == State::Dirty
    }

    pub fn pooled(&self) -> bool {
        self.identity.state == State::Pooled
    }
}

fn time_of(ns: i64) -> SystemTime {
    let d = Duration::from_nanos(ns.unsigned_abs());
    let t = if ns >= 0 {
        UNIX_EPOCH.checked_add(d)
    } else {
        UNIX_EPOCH.checked_sub(d)
    };
    t.unwrap_or(UNIX_EPOCH)
}

/// A property the server stores without understanding it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadProp {
    /// XML namespace; may be empty.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// The whole element as XML.
    pub xml: Vec<u8>,
}

/// One step of a PROPPATCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropChange {
    /// Adds or replaces.
    Set(DeadProp),
    /// Takes away; an absent property is no error.
    Remove {
        /// XML namespace.
        ns: String,
        /// Local name.
        name: String,
    },
}

/// RFC 4331.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that may still be written.
    pub available: u64,
}

/// Whether MOVE or COPY replaced something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced(pub bool);

/// Asked just before the change, while nothing else can change the target: does it still hold? Where much is written for
/// the change, asked before that as well.
///
/// Gets the target's current [`Meta`] (MOVE and COPY: the destination's), `None` when unmapped.
/// `false` makes the operation fail with [`PreconditionFailed`](super::VolumeError::PreconditionFailed).
pub type Check = Box<dyn Fn(Option<&Meta>) -> bool + Send>;

/// A [`Check`] that always holds.
pub fn unchecked() -> Check {
    Box::new(|_| true)
}
