//! Names that cannot be served, because they are not UTF-8 or too long: made beside the gateway, and in no listing.
//!
//! What nobody sees is not removed with the collection that it is in: an `rmdir` lists that, finds it empty, and sends DELETE.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{Dir, FileType};

use super::Inner;
use super::error::{At, VolumeError};
use super::path::ResourcePath;
use super::types::{Found, Kind};

/// Collections that are remembered for what was said of them.
const TOLD_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The collections with such names that somebody was told of.
pub(super) struct Told(Mutex<LruCache<ResourcePath, ()>>);

impl Default for Told {
    fn default() -> Told {
        Told(Mutex::new(LruCache::new(TOLD_MAX)))
    }
}

impl Inner {
    /// Says once that `collection` has a name that cannot be served.
    fn tell_unseen(&self, collection: &ResourcePath, name: &[u8]) {
        if self.unseen.0.lock().put(collection.clone(), ()).is_none() {
            let name = String::from_utf8_lossy(name);
            tracing::warn!(%collection, %name, "a name that is not UTF-8, or too long, is not served: rename it beside the gateway");
        }
    }

    /// `name` of a member of `collection`, if it can be served; else that is told.
    pub(super) fn seen(&self, collection: &ResourcePath, name: Vec<u8>) -> Option<String> {
        String::from_utf8(name)
            .inspect_err(|other| self.tell_unseen(collection, other.as_bytes()))
            .ok()
    }

    /// Refuses the end of what is `gone` from `collection` with a change, if that is one with names below it that cannot be served.
    pub(super) fn all_seen(
        &self,
        collection: &ResourcePath,
        gone: Option<&Found>,
    ) -> Result<(), VolumeError> {
        if gone.is_none_or(|found| found.meta.kind != Kind::Collection) {
            return Ok(());
        }
        let mut left = vec![collection.clone()];
        while let Some(path) = left.pop() {
            let Ok(dir) = self.tree.dir(&path) else {
                // None, or gone; or nobody may read it, and then its members cannot be removed either.
                continue;
            };
            for entry in Dir::new(dir).at("list", &path)? {
                let entry = entry.at("list", &path)?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let text = std::str::from_utf8(name).ok();
                let Some(member) = text.and_then(|name| path.join(name).ok()) else {
                    self.tell_unseen(&path, name);
                    return Err(VolumeError::Unseen {
                        path: collection.clone(),
                        place: path,
                    });
                };
                if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                    left.push(member);
                }
            }
        }
        Ok(())
    }
}
