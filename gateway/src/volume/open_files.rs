//! Files that were read a moment ago, kept open: the next read of the same name needs one `statx` instead of five calls.
//!
//! An entry is used only after a look at its name: if device, inode, change time, size and mode are those it was opened with,
//! then so are content and attributes. An open file keeps its name's directories in the kernel's memory, so that look waits for
//! no disk. A file whose change time is so recent that a further change might not alter it is not kept (file systems keep time
//! in steps of up to 10 ms before Linux 6.13).

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tiering::FileId;

use super::path::ResourcePath;
use super::tree::Stat;
use super::types::Found;

/// Files kept open: a quarter of the descriptors that a process has at least.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// How long: a file that is removed beside the gateway holds its space for as long.
const OPEN_FOR: Duration = Duration::from_secs(10);
/// Age of a change time from which on a further change alters it.
const SETTLED_NS: i64 = 50_000_000;

/// Device and inode.
pub(crate) type FileKey = ((u32, u32), u64);

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub dev: (u32, u32),
    pub ino: u64,
    pub ctime_ns: i64,
    pub mtime_ns: i64,
    pub len: u64,
    pub mode: u32,
}

impl Stamp {
    pub fn of(stat: &Stat) -> Stamp {
        Stamp {
            dev: stat.dev,
            ino: stat.ino,
            ctime_ns: stat.ctime_ns,
            mtime_ns: stat.mtime_ns,
            len: stat.len,
            mode: stat.mode,
        }
    }

    /// Which file this is a state of.
    pub fn file(&self) -> FileKey {
        (self.dev, self.ino)
    }

    /// What an identity record says of a file that it describes: time, length, inode.
    pub fn described(&self) -> (i64, u64, u64) {
        (self.mtime_ns, self.len, self.ino)
    }

    /// Whether a change from `now_ns` on would give another stamp.
    pub fn is_settled(&self, now_ns: i64) -> bool {
        self.ctime_ns.saturating_add(SETTLED_NS) < now_ns
    }
}

/// An open file, what it is, and how it looked then.
pub(crate) struct Opened {
    pub file: Arc<File>,
    pub found: Found,
    pub stamp: Stamp,
    since: Instant,
    /// Its content and what a reply says of it, once it was read whole.
    pub hot: OnceLock<Hot>,
    /// What a reply says of it, once it was read and is too long for `hot`, or was not read whole.
    pub fields: OnceLock<Bytes>,
    /// What was last said about it.
    pub told: Mutex<Option<Arc<Told>>>,
}

/// What a reply said of a file, and to what request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The request's body.
    pub asked: Bytes,
    /// What the asker sees as `/`.
    pub root: ResourcePath,
    /// The reply's head.
    pub head: Bytes,
    /// Its content.
    pub content: Bytes,
}

/// A small file in memory. At most [`HOT_BYTES_MAX`] each: 16 MiB of all that are open.
#[derive(Debug, Clone)]
pub(crate) struct Hot {
    /// What its reader wants to find with it.
    pub fields: Bytes,
    pub content: Bytes,
}

/// Longest content that is kept.
pub(crate) const HOT_BYTES_MAX: usize = 64 << 10;

impl Opened {
    pub fn new(file: File, found: Found, stamp: Stamp) -> Opened {
        Opened {
            file: Arc::new(file),
            found,
            stamp,
            since: Instant::now(),
            hot: OnceLock::new(),
            fields: OnceLock::new(),
            told: Mutex::new(None),
        }
    }
}

/// The open files, by name and by version.
pub(crate) struct OpenFiles(Mutex<Inner>);

struct Inner {
    by_path: LruCache<ResourcePath, Arc<Opened>>,
    by_id: HashMap<FileId, ResourcePath>,
}

impl Inner {
    fn close(&mut self, path: &ResourcePath) {
        if let Some(gone) = self.by_path.pop(path) {
            self.forget_id(&gone, path);
        }
    }

    fn forget_id(&mut self, gone: &Opened, path: &ResourcePath) {
        let id = gone.found.meta.file_id;
        if self.by_id.get(&id) == Some(path) {
            self.by_id.remove(&id);
        }
    }
}

impl Default for OpenFiles {
    fn default() -> OpenFiles {
        OpenFiles(Mutex::new(Inner {
            by_path: LruCache::new(OPEN_MAX),
            by_id: HashMap::new(),
        }))
    }
}

impl OpenFiles {
    /// What was open under a name. The caller looks whether it still is that.
    pub fn get(&self, path: &ResourcePath) -> Option<Arc<Opened>> {
        self.0.lock().by_path.get(path).cloned()
    }

    pub fn put(&self, path: ResourcePath, opened: Arc<Opened>) {
        let mut inner = self.0.lock();
        inner.close(&path);
        let id = opened.found.meta.file_id;
        if let Some(moved_from) = inner.by_id.insert(id, path.clone()) {
            inner.by_path.pop(&moved_from);
        }
        if let Some((at, pushed_out)) = inner.by_path.push(path, opened) {
            inner.forget_id(&pushed_out, &at);
        }
    }

    /// Closes the file under a name.
    pub fn close(&self, path: &ResourcePath) {
        self.0.lock().close(path);
    }

    /// Closes a version, so that its space is free as soon as its last reader is gone.
    pub fn close_version(&self, id: FileId) {
        let mut inner = self.0.lock();
        if let Some(path) = inner.by_id.remove(&id) {
            inner.by_path.pop(&path);
        }
    }

    /// Closes what has been open for long. Call it about once a second.
    pub fn close_old(&self, now: Instant) {
        let mut inner = self.0.lock();
        let old: Vec<ResourcePath> = inner
            .by_path
            .iter()
            .filter(|(_, o)| now.saturating_duration_since(o.since) > OPEN_FOR)
            .map(|(path, _)| path.clone())
            .collect();
        for path in old {
            inner.close(&path);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        let inner = self.0.lock();
        (inner.by_path.len(), inner.by_id.len())
    }
}
