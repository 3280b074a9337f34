//! Where versions are, for who has only their id, and a checksum of what small ones contain, for who has only new content.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tiering::FileId;

use super::ResourcePath;

/// Versions that are remembered.
const RECENT_FILES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Longest content of which a checksum is made: of longer content it costs more than looking at the first bytes of what is
/// there.
const CHECKED_BYTES_MAX: u64 = 16 << 10;

/// CRC-32C of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// Of content of `len` bytes; `None` if that is too long.
    pub fn of(data: &[Bytes], len: u64) -> Option<Checksum> {
        let sum = |crc, part: &Bytes| crc32c::crc32c_append(crc, part);
        (len <= CHECKED_BYTES_MAX).then(|| Checksum(data.iter().fold(0, sum)))
    }
}

struct Version {
    path: ResourcePath,
    content: Option<Checksum>,
}

/// The versions that were read or written last.
pub(crate) struct Recent(Mutex<LruCache<FileId, Version>>);

impl Default for Recent {
    fn default() -> Recent {
        Recent(Mutex::new(LruCache::new(RECENT_FILES_MAX)))
    }
}

impl Recent {
    /// The version is at `path`.
    pub fn seen(&self, id: FileId, path: &ResourcePath) {
        let mut versions = self.0.lock();
        match versions.get_mut(&id) {
            Some(version) if version.path == *path => {}
            Some(version) => version.path = path.clone(),
            None => {
                let path = path.clone();
                versions.put(
                    id,
                    Version {
                        path,
                        content: None,
                    },
                );
            }
        }
    }

    /// The version was written to `path`.
    pub fn written(&self, id: FileId, path: &ResourcePath, content: Option<Checksum>) {
        let path = path.clone();
        self.0.lock().put(id, Version { path, content });
    }

    /// Where a version was last.
    pub fn path(&self, id: FileId) -> Option<ResourcePath> {
        Some(self.0.lock().get(&id)?.path.clone())
    }

    /// Whether the version's content is known to be another than the one with this checksum.
    pub fn differs(&self, id: FileId, content: Option<Checksum>) -> bool {
        let known = self.0.lock().peek(&id).and_then(|v| v.content);
        known.is_some() && content.is_some() && known != content
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn path(text: &str) -> ResourcePath {
        ResourcePath::parse(text).unwrap()
    }

    fn sum(text: &'static str) -> Option<Checksum> {
        Checksum::of(&[Bytes::from_static(text.as_bytes())], text.len() as u64)
    }

    #[test]
    fn content_differs_only_where_both_checksums_are_known() {
        let recent = Recent::default();
        recent.written(FileId(1), &path("/a"), sum("abc"));
        recent.written(FileId(2), &path("/b"), None);
        assert!(recent.differs(FileId(1), sum("abd")));
        assert!(!recent.differs(FileId(1), sum("abc")));
        assert!(!recent.differs(FileId(1), None));
        assert!(!recent.differs(FileId(2), sum("abd")) && !recent.differs(FileId(3), sum("abd")));
        // A move changes the place, not the content.
        recent.seen(FileId(1), &path("/c"));
        assert_eq!(recent.path(FileId(1)), Some(path("/c")));
        assert!(recent.differs(FileId(1), sum("abd")));
        assert_eq!(recent.path(FileId(3)), None);
    }

    #[test]
    fn a_checksum_does_not_depend_on_how_content_is_cut() {
        let parts = [
            Bytes::from_static(b"a"),
            Bytes::new(),
            Bytes::from_static(b"bc"),
        ];
        assert_eq!(Checksum::of(&parts, 3), sum("abc"));
        let long = [Bytes::from(vec![0; CHECKED_BYTES_MAX as usize + 1])];
        assert_eq!(Checksum::of(&long, CHECKED_BYTES_MAX + 1), None);
    }
}
