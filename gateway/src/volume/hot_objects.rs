//! Small files of pools, in memory: a version's content never changes, so what was read once needs no other look than at its name.
//!
//! Files outside of pools are kept with the open file ([`open_files`](super::open_files)); in pools there is none to keep, and what
//! is spared is not a system call but a question to the cluster.

use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use parking_lot::Mutex;
use tiering::FileId;

use super::open_files::Hot;
use super::path::ResourcePath;
use super::types::Meta;

/// Longest content that is kept: with more, the transfer costs more than the question.
pub(crate) const BYTES_MAX: usize = 16 << 10;
/// Bytes of all that is kept.
const ALL_BYTES_MAX: usize = 64 << 20;
/// How long after it was last asked for.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// What one costs beside its bytes and its name, about: table, allocations.
const OVERHEAD_BYTES: usize = 512;
/// Most that are given up at a time for their age: requests wait meanwhile.
const DROPPED_AT_ONCE: usize = 4096;

struct Kept {
    version: Version,
    hot: Hot,
    used: Instant,
}

/// What a file must still be for its content and the reply about it to hold.
type Version = (FileId, u64, SystemTime);

fn version(meta: &Meta) -> Version {
    (meta.file_id, meta.len, meta.modified)
}

impl Kept {
    fn bytes(&self, path: &ResourcePath) -> usize {
        path.relative().len() + self.hot.fields.len() + self.hot.content.len() + OVERHEAD_BYTES
    }
}

struct Inner {
    by_path: LruCache<ResourcePath, Kept>,
    bytes: usize,
}

/// The files, those asked for least lately going first.
pub(crate) struct HotObjects(Mutex<Inner>);

impl Default for HotObjects {
    fn default() -> HotObjects {
        HotObjects(Mutex::new(Inner {
            by_path: LruCache::unbounded(),
            bytes: 0,
        }))
    }
}

impl HotObjects {
    /// Whether something is kept under a name, whatever it means now.
    pub fn has(&self, path: &ResourcePath) -> bool {
        self.0.lock().by_path.contains(path)
    }

    /// What is kept of the file at `path`, if that still is what `now` says. Else it goes.
    pub fn get(&self, path: &ResourcePath, now: &Meta) -> Option<Hot> {
        let mut inner = self.0.lock();
        let kept = inner.by_path.get_mut(path)?;
        if kept.version == version(now) {
            kept.used = Instant::now();
            return Some(kept.hot.clone());
        }
        inner.forget(path);
        None
    }

    /// Keeps the whole content of a version.
    pub fn put(&self, path: &ResourcePath, meta: &Meta, hot: Hot) {
        let kept = Kept {
            version: version(meta),
            hot,
            used: Instant::now(),
        };
        let mut inner = self.0.lock();
        inner.forget(path);
        inner.bytes += kept.bytes(path);
        inner.by_path.put(path.clone(), kept);
        inner.drop_while(usize::MAX, |inner, _| inner.bytes > ALL_BYTES_MAX);
    }

    /// Gives up what nobody asked for lately. Call it about once a second.
    pub fn drop_old(&self, now: Instant) {
        let old = |_: &Inner, kept: &Kept| now.saturating_duration_since(kept.used) > KEPT_FOR;
        self.0.lock().drop_while(DROPPED_AT_ONCE, old);
    }
}

impl Inner {
    /// Gives up what was asked for least lately, as long as that is to go; `most` at most.
    fn drop_while(&mut self, most: usize, goes: impl Fn(&Inner, &Kept) -> bool) {
        for _ in 0..most {
            if let Some((_, last)) = self.by_path.peek_lru()
                && goes(self, last)
                && let Some((path, gone)) = self.by_path.pop_lru()
            {
                self.bytes -= gone.bytes(&path);
            } else {
                return;
            }
        }
    }

    fn forget(&mut self, path: &ResourcePath) {
        if let Some(gone) = self.by_path.pop(path) {
            self.bytes -= gone.bytes(path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use bytes::Bytes;

    use super::super::types::{EntityTag, Kind};
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_counted_to_the_byte() {
        let meta = |id: u64| {
            let time = std::time::UNIX_EPOCH;
            Meta {
                kind: Kind::File,
                len: BYTES_MAX as u64,
                modified: time,
                created: time,
                etag: EntityTag::of(FileId(id)),
                file_id: FileId(id),
                executable: false,
                lock_null: false,
                bare: false,
            }
        };
        let all = HotObjects::default();
        let hot = Hot {
            fields: Bytes::from_static(&[b'h'; 100]),
            content: Bytes::from(vec![7; BYTES_MAX]),
        };
        let path = |n: u64| ResourcePath::parse(&format!("/{n:08}")).unwrap();
        let each = path(0).relative().len() + 100 + BYTES_MAX + OVERHEAD_BYTES;
        let fit = (ALL_BYTES_MAX / each) as u64;
        for n in 0..fit {
            all.put(&path(n), &meta(n), hot.clone());
        }
        assert!(all.get(&path(0), &meta(0)).is_some());
        // The one that was asked for stays, the next oldest goes.
        all.put(&path(fit), &meta(fit), hot.clone());
        assert!(all.has(&path(0)) && !all.has(&path(1)) && all.has(&path(2)));
        // Another version under the name.
        assert!(all.get(&path(2), &meta(1 << 40)).is_none());
        assert!(!all.has(&path(2)));
        all.put(&path(3), &meta(3), hot);
        {
            let inner = all.0.lock();
            assert_eq!(inner.bytes, inner.by_path.len() * each);
            assert_eq!(inner.by_path.len() as u64, fit - 1);
        }
        all.drop_old(Instant::now());
        assert_eq!(all.0.lock().by_path.len() as u64, fit - 1);
        let later = Instant::now() + KEPT_FOR + Duration::from_secs(1);
        all.0.lock().by_path.get_mut(&path(5)).unwrap().used = later - KEPT_FOR;
        all.drop_old(later);
        let inner = all.0.lock();
        assert_eq!((inner.bytes, inner.by_path.len()), (each, 1));
        assert!(inner.by_path.contains(&path(5)));
    }
}
