//! Replies about collections that were listed a moment ago, told again while the kernel says that nothing in them has changed.
//!
//! A look at each member is most of what a listing costs. Instead, inotify(7) is asked to tell of the first change in the
//! directory: a member that appears, goes, or changes its content, attributes or extended attributes. It is asked *before*
//! the listing looks, and what it tells is in its queue before the call that made the change returns, whoever made it: so an
//! empty queue means that the listing still holds. Two things it does not tell of are looked after here: changes *inside* a
//! subcollection give that a new time, which is compared; and changes through another name of a file (a hard link), so that
//! a collection with such a file is not kept (nor one with a file that is dirty in a cache directory, as its tree file has a
//! second name then). Another file system mounted below the root may be another host's, and is left out. What is left are
//! other programs that write through a memory map (mmap(2)), which changes a file's time without notice, or through a hard link
//! that they made in these very seconds: therefore a listing is told again for [`KEPT_FOR`] at most.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::AtFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::open_files::FileKey;
use super::path::ResourcePath;
use super::tree::{Stat, Tree, proc_path, statx};
use super::types::{Found, Kind};

/// Longest time that a listing is told again.
const KEPT_FOR: Duration = Duration::from_secs(120);
/// Collections watched.
const WATCHES_MAX: usize = 256;
/// Bytes of a listing that is kept, as they are kept.
pub const LISTING_BYTES_MAX: usize = 8 << 20;
/// How many of them are kept as they were said: what follows is compressed. A listing says the same of most members, so that
/// zstd makes a twentieth of it, and 100 000 members have room.
const PLAIN_BYTES_MAX: usize = 4 << 20;
/// Bytes of all of them.
const BYTES_MAX: usize = 16 << 20;
/// Subcollections whose times are compared.
const SUBCOLLECTIONS_MAX: usize = 64;

/// A reply about a collection and its members, and to what request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The request's body.
    pub asked: Bytes,
    /// What the asker sees as `/`.
    pub root: ResourcePath,
    /// Properties that are missing were not to be named.
    pub minimal: bool,
    /// The reply's content.
    pub pieces: Vec<Piece>,
}

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it was said.
    Plain(Bytes),
    /// Compressed by zstd, from so many bytes.
    Packed(Vec<u8>, usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Plain(bytes) => bytes.len(),
            Piece::Packed(bytes, _) => bytes.capacity(),
        }
    }

    /// As it was said.
    ///
    /// # Errors
    /// None but of damaged memory.
    pub fn said(&self) -> io::Result<Bytes> {
        match self {
            Piece::Plain(bytes) => Ok(bytes.clone()),
            Piece::Packed(bytes, len) => Ok(zstd::bulk::decompress(bytes, *len)?.into()),
        }
    }
}

/// Gathers the pieces of a reply.
#[derive(Default)]
pub struct Gathered {
    pieces: Vec<Piece>,
    len: usize,
}

impl Gathered {
    /// Adds the next piece; `false` if they are too many to be kept.
    pub fn add(&mut self, said: &Bytes) -> bool {
        let piece = match self.len + said.len() <= PLAIN_BYTES_MAX {
            true => Piece::Plain(said.clone()),
            false => match zstd::bulk::compress(said, 1) {
                Ok(mut packed) => {
                    packed.shrink_to_fit();
                    Piece::Packed(packed, said.len())
                }
                Err(_) => return false,
            },
        };
        self.len += piece.len();
        self.pieces.push(piece);
        self.len <= LISTING_BYTES_MAX
    }

    /// All of them.
    pub fn pieces(self) -> Vec<Piece> {
        self.pieces
    }
}

impl Listing {
    fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }
}

/// A collection that is watched since before its members were read.
#[derive(Debug)]
pub struct Watched {
    watch: i32,
    /// Numbers of watches may come again, these don't.
    number: u64,
    state: State,
}

/// What inotify does not tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    directory: FileKey,
    /// The collection's time.
    mtime_ns: i64,
    /// Names and times of its subcollections.
    subcollections: Vec<(String, i64)>,
}

/// The kept listings. Without inotify there are none.
pub(crate) struct Listings(Option<(Device, Mutex<Inner>)>);

/// A device number.
type Device = (u32, u32);

struct Inner {
    inotify: OwnedFd,
    /// By the kernel's number.
    watches: LruCache<i32, Watch>,
    by_path: HashMap<ResourcePath, i32>,
    bytes: usize,
    number: u64,
}

struct Watch {
    path: ResourcePath,
    number: u64,
    /// When it was begun, or last kept.
    since: Instant,
    kept: Option<Arc<Kept>>,
}

struct Kept {
    listing: Arc<Listing>,
    state: State,
}

impl Listings {
    /// None where inotify does not hear of every change, as it does on file systems of this machine.
    pub fn new(tree: &Tree) -> Listings {
        if !tree.in_memory() || tree.follows_links() {
            return Listings(None);
        }
        let start = || {
            let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            let device = statx(&tree.root(), "", AtFlags::EMPTY_PATH)?.dev;
            let inner = Inner {
                inotify,
                watches: LruCache::unbounded(),
                by_path: HashMap::new(),
                bytes: 0,
                number: 0,
            };
            Ok::<_, Errno>((device, Mutex::new(inner)))
        };
        Listings(match start() {
            Ok(started) => Some(started),
            Err(error) => {
                tracing::debug!(%error, "listings are made anew each time: no inotify");
                None
            }
        })
    }

    /// Begins to watch a collection, before its members are read.
    pub fn watch(&self, dir: &OwnedFd, path: &ResourcePath) -> Option<Watched> {
        let (device, inner) = self.0.as_ref()?;
        let mut inner = inner.lock();
        inner.hear();
        let at = proc_path(dir, None);
        let tell = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONESHOT
            | WatchFlags::ONLYDIR;
        let watch = inotify::add_watch(&inner.inotify, at.as_str(), tell).ok()?;
        let number = inner.register(watch, path);
        drop(inner);
        let stat = statx(dir, "", AtFlags::EMPTY_PATH).ok()?;
        (stat.dev == *device).then(|| Watched {
            watch,
            number,
            state: State {
                directory: (stat.dev, stat.ino),
                mtime_ns: stat.mtime_ns,
                subcollections: Vec::new(),
            },
        })
    }

    /// Keeps what was said of a watched collection, if nothing has changed since.
    pub fn keep(&self, watched: Watched, listing: Listing) {
        let Some((_, inner)) = &self.0 else { return };
        let len = listing.len();
        if len > LISTING_BYTES_MAX {
            return;
        }
        let mut inner = inner.lock();
        inner.hear();
        if let Some(watch) = inner.watches.get_mut(&watched.watch)
            && watch.number == watched.number
        {
            let kept = Kept {
                listing: Arc::new(listing),
                state: watched.state,
            };
            watch.since = Instant::now();
            let before = watch.kept.replace(Arc::new(kept));
            inner.bytes += len;
            inner.bytes -= before.map_or(0, |b| b.listing.len());
        }
        inner.shrink();
    }

    /// What was said of the collection at `path`, if all of it still holds. Waits for nothing.
    pub fn get(&self, tree: &Tree, path: &ResourcePath) -> Option<Arc<Listing>> {
        let mut inner = self.0.as_ref()?.1.lock();
        inner.hear();
        let watch = *inner.by_path.get(path)?;
        let kept = inner.watches.get(&watch)?.kept.clone()?;
        drop(inner);
        let holds = kept.state.holds(tree, path);
        holds.then(|| Arc::clone(&kept.listing))
    }

    /// Forgets what has been kept for long. Call it about once a second.
    pub fn forget_old(&self, now: Instant) {
        let Some((_, inner)) = &self.0 else { return };
        let mut inner = inner.lock();
        inner.hear();
        let is_old = |w: &Watch| now.saturating_duration_since(w.since) > KEPT_FOR;
        let old: Vec<i32> = inner
            .watches
            .iter()
            .filter(|(_, w)| is_old(w))
            .map(|(watch, _)| *watch)
            .collect();
        old.into_iter().for_each(|watch| inner.end(watch));
    }
}

impl Watched {
    /// Notes a member; `false` if what is said of it may change without notice.
    pub fn note(&mut self, name: &str, found: &Found) -> bool {
        match found.meta.kind {
            Kind::File => found.links == 1,
            Kind::Collection => {
                let of = &mut self.state.subcollections;
                of.push((name.to_owned(), found.identity.mtime_ns));
                of.len() <= SUBCOLLECTIONS_MAX
            }
        }
    }
}

impl State {
    /// Whether this still is what `path` names, as far as the kernel can tell from memory.
    fn holds(&self, tree: &Tree, path: &ResourcePath) -> bool {
        let same =
            |stat: &Stat| (stat.dev, stat.ino) == self.directory && stat.mtime_ns == self.mtime_ns;
        tree.status_now(path).is_some_and(|own| same(&own))
            && self.subcollections.iter().all(|(name, mtime_ns)| {
                let below = path.join(name).ok().and_then(|p| tree.status_now(&p));
                below.is_some_and(|stat| stat.mtime_ns == *mtime_ns)
            })
    }
}

impl Inner {
    /// Takes what the kernel has told.
    fn hear(&mut self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut told = Vec::new();
        let mut lost = false;
        let mut reader = Reader::new(&self.inotify, &mut space);
        loop {
            match reader.next() {
                Ok(event) => {
                    lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    told.push(event.wd());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::warn!(%error, "inotify does not answer; listings are made anew");
                    lost = true;
                    break;
                }
            }
        }
        if lost {
            told = self.watches.iter().map(|(watch, _)| *watch).collect();
        }
        // Told once, they are gone by themselves.
        for watch in told {
            if lost {
                self.end(watch);
            } else {
                self.forget(watch);
            }
        }
    }

    /// Notes a watch of the kernel's for `path`; returns its number here.
    fn register(&mut self, watch: i32, path: &ResourcePath) -> u64 {
        if let Some(known) = self.watches.get(&watch)
            && known.path == *path
        {
            return known.number;
        }
        // The directory was known under another name, or the name was another directory's.
        self.forget(watch);
        if let Some(other) = self.by_path.insert(path.clone(), watch) {
            self.end(other);
        }
        self.number += 1;
        let entry = Watch {
            path: path.clone(),
            number: self.number,
            since: Instant::now(),
            kept: None,
        };
        self.watches.put(watch, entry);
        self.shrink();
        self.number
    }

    fn forget(&mut self, watch: i32) {
        let Some(gone) = self.watches.pop(&watch) else {
            return;
        };
        self.bytes -= gone.kept.map_or(0, |k| k.listing.len());
        if self.by_path.get(&gone.path) == Some(&watch) {
            self.by_path.remove(&gone.path);
        }
    }

    /// Forgets a watch, and lets the kernel do so.
    fn end(&mut self, watch: i32) {
        self.forget(watch);
        // It may just have told, and be gone.
        let _ = inotify::remove_watch(&self.inotify, watch);
    }

    fn shrink(&mut self) {
        while (self.bytes > BYTES_MAX || self.watches.len() > WATCHES_MAX)
            && let Some((&oldest, _)) = self.watches.peek_lru()
        {
            self.end(oldest);
        }
    }
}
