//! What a trace says: one [`Entry`] per recorded operation, whatever format it came from.

use serde::Serialize;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound::Excluded;
use std::sync::Arc;

/// Which of the two kinds of load a trace holds. They share almost no read pattern, so results always name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// System calls of an application, as seen above any client cache.
    FileOperations,
    /// Requests as they reached a WebDAV server.
    WebdavRequests,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::FileOperations => "file operations",
            Level::WebdavRequests => "WebDAV requests",
        })
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A recorded operation: file operations in lower case, WebDAV methods in capitals.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op { $($(#[$doc])* $variant),+ }

        impl Op {
            /// The name as in the trace and in every table.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$variant => $name),+ }
            }

            /// Finds an operation by its name.
            pub fn from_name(name: &str) -> Option<Op> {
                match name { $($name => Some(Op::$variant),)+ _ => None }
            }
        }
    };
}

ops! {
    /// `open` that made the file.
    FileCreate = "create",
    /// `open` of something that exists.
    FileOpen = "open",
    /// Consecutive reads of one descriptor.
    FileRead = "read",
    /// Consecutive writes of one descriptor.
    FileWrite = "write",
    /// `close`.
    FileClose = "close",
    /// `fsync` or `fdatasync`.
    FileSync = "fsync",
    /// `truncate` or `ftruncate`; the length is the new size.
    FileTruncate = "truncate",
    /// `rename` of `path` to `path2`.
    FileRename = "rename",
    /// `unlink`.
    FileUnlink = "unlink",
    /// `mkdir`.
    FileMkdir = "mkdir",
    /// `rmdir`.
    FileRmdir = "rmdir",
    /// `stat` and its family.
    FileStat = "stat",
    /// `getdents`.
    FileList = "list",
    /// `open` of a directory.
    FileOpendir = "opendir",
    /// `statfs`.
    FileStatfs = "statfs",
    /// `flock` or `fcntl` locks.
    FileLock = "lock",
    /// OPTIONS.
    DavOptions = "OPTIONS",
    /// PROPFIND with Depth 0.
    DavStat = "PROPFIND 0",
    /// PROPFIND with Depth 1.
    DavList = "PROPFIND 1",
    /// HEAD.
    DavHead = "HEAD",
    /// GET, whole or a range.
    DavGet = "GET",
    /// PUT, whole or with Content-Range.
    DavPut = "PUT",
    /// PATCH with X-Update-Range.
    DavPatch = "PATCH",
    /// DELETE.
    DavDelete = "DELETE",
    /// MKCOL.
    DavMkcol = "MKCOL",
    /// MOVE of `path` to `path2`.
    DavMove = "MOVE",
    /// COPY of `path` to `path2`.
    DavCopy = "COPY",
    /// PROPPATCH.
    DavProppatch = "PROPPATCH",
    /// LOCK.
    DavLock = "LOCK",
    /// UNLOCK.
    DavUnlock = "UNLOCK",
}

impl Serialize for Op {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl Op {
    /// Whether the operation's length counts as bytes read.
    pub const fn reads(self) -> bool {
        matches!(self, Op::FileRead | Op::DavGet)
    }

    /// Whether the operation's length counts as bytes written.
    pub const fn writes(self) -> bool {
        matches!(self, Op::FileWrite | Op::DavPut | Op::DavPatch)
    }
}

/// How the operation ended when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded, and nothing more is known.
    Ok,
    /// The system call's error name, for example `ENOENT`.
    Errno(Arc<str>),
    /// The HTTP status.
    Status(u16),
}

impl Outcome {
    /// Whether it succeeded. 304 counts: the client got what it asked for.
    pub fn is_ok(&self) -> bool {
        match self {
            Outcome::Ok => true,
            Outcome::Errno(_) => false,
            Outcome::Status(s) => *s < 400,
        }
    }
}

/// One recorded operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Start, in microseconds since the trace's own anchor; may be negative.
    pub at_us: i64,
    /// Who did it.
    pub client: Arc<str>,
    /// Which thread of that client, where known: operations of one thread follow each other.
    pub thread: Arc<str>,
    /// What was done.
    pub op: Op,
    /// On which path, without leading and trailing slash; empty is the root.
    pub path: Arc<str>,
    /// Destination of a rename, MOVE or COPY.
    pub path2: Option<Arc<str>>,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes moved; for a truncation the new size.
    pub length: u64,
    /// How long it took when recorded.
    pub latency_us: u64,
    /// How it ended when recorded.
    pub outcome: Outcome,
    /// Whether a GET asked for a range.
    pub ranged: bool,
}

impl Entry {
    /// An operation that succeeded: no thread, second path, range or latency.
    pub fn new(at_us: i64, client: Arc<str>, op: Op, path: Arc<str>) -> Entry {
        Entry {
            at_us,
            client,
            thread: Arc::from(""),
            op,
            path,
            path2: None,
            offset: 0,
            length: 0,
            latency_us: 0,
            outcome: Outcome::Ok,
            ranged: false,
        }
    }
}

/// Removes slashes at both ends, and segments that are empty or `.`.
pub fn normal_path(path: &str) -> Arc<str> {
    let says_nothing = |name: &str| matches!(name, "" | ".");
    if path.split('/').any(says_nothing) {
        let parts: Vec<&str> = path.split('/').filter(|p| !says_nothing(p)).collect();
        return parts.join("/").into();
    }
    path.into()
}

/// Whether a path (without its first slash) is one of `roots` or beneath one; all are when there are none.
pub fn is_beneath(path: &str, roots: &[String]) -> bool {
    roots.is_empty()
        || roots.iter().any(|root| {
            path.strip_prefix(root.as_str())
                .is_some_and(|rest| root.is_empty() || rest.is_empty() || rest.starts_with('/'))
        })
}

/// What `names` has beneath a directory, which it need not have itself.
pub fn beneath<K: Borrow<str> + Ord + Clone, V>(names: &BTreeMap<K, V>, directory: &str) -> Vec<K> {
    // `0` follows `/`.
    let (first, last) = (format!("{directory}/"), format!("{directory}0"));
    let range = (Excluded(first.as_str()), Excluded(last.as_str()));
    let range = names.range::<str, _>(range);
    range.map(|(name, _)| name.clone()).collect()
}

/// `name`, if `names` has it, and all that it has beneath it.
pub fn with_all_beneath<K: Borrow<str> + Ord + Clone, V>(
    names: &BTreeMap<K, V>,
    name: &str,
) -> Vec<K> {
    let itself = names.get_key_value(name).map(|(name, _)| name.clone());
    itself.into_iter().chain(beneath(names, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_normal_without_what_says_nothing_in_it() {
        for (given, normal) in [
            ("./a/.//b/", "a/b"),
            ("/a", "a"),
            ("..a/.b./../c", "..a/.b./../c"),
            ("/./", ""),
            ("", ""),
        ] {
            assert_eq!(&*normal_path(given), normal, "{given}");
        }
    }
}
