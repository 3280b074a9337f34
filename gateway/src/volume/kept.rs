//! What is kept of files for an answer at once: their content, here or with the kernel, and what was said of them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tiering::{FileId, Nanos, Tier};

use super::content::{Content, FileContent};
use super::open_files::{self, Opened, Told};
use super::path::ResourcePath;
use super::types::Meta;
use super::{Inner, Volume, hot_objects};
use crate::objects::{IoContext, Place};

/// A part of a file in memory, most often all of it.
#[derive(Debug, Clone)]
pub struct HotFile {
    /// The version.
    pub file: FileId,
    /// Its bytes.
    pub len: u64,
    /// What was given to [`Volume::keep_hot`].
    pub fields: Bytes,
    /// Which part.
    pub part: Range<u64>,
    /// Its content.
    pub content: Content,
}

impl Volume {
    /// Keeps the whole content of a version that was just read, with the `fields` of a reply about it, for [`Volume::hot`]; nothing
    /// if the file is neither kept open nor in pools, has changed, or is large.
    pub fn keep_hot(
        &self,
        path: &ResourcePath,
        meta: &Meta,
        fields: impl FnOnce() -> Bytes,
        content: &Bytes,
    ) {
        if content.len() > open_files::HOT_BYTES_MAX || content.len() as u64 != meta.len {
            return;
        }
        if let Some(opened) = self.inner.tree.open_files.get(path)
            && opened.found.meta == *meta
        {
            opened.hot.get_or_init(|| open_files::Hot {
                fields: fields(),
                content: content.clone(),
            });
        } else if self.inner.cache.pools().is_some()
            && content.len() <= hot_objects::BYTES_MAX
            && self.inner.hot.get(path, meta).is_none()
        {
            // Of its own, so that no reply of the cluster is held by it.
            let content = Bytes::copy_from_slice(content);
            let fields = fields();
            let hot = open_files::Hot { fields, content };
            self.inner.hot.put(path, meta, hot);
        }
    }

    /// [`Volume::keep_hot`] for a version that is longer, or was not read whole: content is left to the kernel.
    pub fn keep_long(&self, path: &ResourcePath, meta: &Meta, fields: impl FnOnce() -> Bytes) {
        if let Some(opened) = self.inner.tree.open_files.get(path)
            && opened.found.meta == *meta
        {
            opened.fields.get_or_init(fields);
        }
    }

    /// Opens a file that is in memory, before its properties are looked at for [`Volume::keep_told`]; `None` for any other.
    pub(crate) fn open_to_tell(&self, path: &ResourcePath) -> Option<Arc<Opened>> {
        self.inner.tree.open_now(path)
    }

    /// Keeps what was said about a file since it was `opened`, for [`Volume::told`]; nothing if it has changed since.
    pub(crate) fn keep_told(&self, path: &ResourcePath, opened: &Opened, told: Told) {
        if self.inner.tree.is_still(path, opened) {
            *opened.told.lock() = Some(Arc::new(told));
        }
    }

    /// What was last said about the file at `path`, if it is unchanged since. Waits for nothing.
    pub fn told(&self, path: &ResourcePath) -> Option<Arc<Told>> {
        let opened = self.inner.tree.open_files.get(path)?;
        let told = opened.told.lock().clone()?;
        self.inner.tree.is_still(path, &opened).then_some(told)
    }

    /// What was kept of the file at `path`, if the name still means that very version, unchanged: the part that `part` names when it is
    /// told the file's length. `long`: even if its content is with the kernel. Waits for nothing.
    pub fn hot(
        &self,
        path: &ResourcePath,
        long: bool,
        part: impl Fn(u64) -> Option<Range<u64>>,
    ) -> Option<HotFile> {
        self.hot_open(path, long, &part)
            .or_else(|| self.hot_pooled(path, part))
    }

    fn hot_open(
        &self,
        path: &ResourcePath,
        long: bool,
        part: impl Fn(u64) -> Option<Range<u64>>,
    ) -> Option<HotFile> {
        let opened = self.inner.tree.open_files.get(path)?;
        let (hot, fields) = (opened.hot.get(), opened.fields.get());
        if hot.is_none() && (fields.is_none() || !long) {
            return None;
        }
        let len = opened.found.meta.len;
        let part = part(len)?;
        if !self.inner.tree.is_still(path, &opened) {
            return None;
        }
        let found = |fields: &Bytes, part, content| HotFile {
            file: opened.found.meta.file_id,
            len,
            fields: fields.clone(),
            part,
            content,
        };
        if let Some(fields) = fields.or(hot.map(|hot| &hot.fields))
            && long
            && FileContent::is_worth(part.end - part.start, len)
            && let Some(content) = self.inner.file_content(&opened, &part)
        {
            return Some(found(fields, part, Content::File(content)));
        }
        let hot = hot?;
        let content = Content::Memory(slice(&hot.content, &part)?);
        Some(found(&hot.fields, part, content))
    }

    fn hot_pooled(
        &self,
        path: &ResourcePath,
        part: impl Fn(u64) -> Option<Range<u64>>,
    ) -> Option<HotFile> {
        if !self.inner.hot.has(path) {
            return None;
        }
        let found = self.inner.tree.find_now(path).filter(|f| f.pooled())?;
        let hot = self.inner.hot.get(path, &found.meta)?;
        let part = part(found.meta.len)?;
        Some(HotFile {
            file: found.meta.file_id,
            len: found.meta.len,
            fields: hot.fields,
            content: Content::Memory(slice(&hot.content, &part)?),
            part,
        })
    }

    /// Tells policy and trace that a client read what [`Volume::hot`] found. Returns the tier it is in; `None`, and nothing
    /// is told, if the object is damaged, not known to be whole, or elsewhere than its content was found.
    pub fn hot_read(&self, hot: &HotFile, started: Nanos, io: IoContext) -> Option<Tier> {
        let found = match &hot.content {
            Content::Memory(_) => None,
            Content::File(file) => Some(file.tier()),
        };
        self.inner
            .cache
            .read_in_memory(hot.file, (hot.len, &hot.part), found, started, io)
    }
}

impl Inner {
    /// The content of an open file, if the kernel can send it at once, and that costs less than a copy.
    fn file_content(&self, opened: &Opened, part: &Range<u64>) -> Option<FileContent> {
        let meta = &opened.found.meta;
        let (file, from, object) = match self.cache.find_part(meta.file_id, meta.len, part)? {
            Place::Cached(file, object, from) => (file, from, Some(object)),
            // Nobody holds the version: what was only in the cache may have been given up since the look at the name.
            Place::InTree if opened.found.dirty() => return None,
            Place::InTree => (Arc::clone(&opened.file), part.start, None),
        };
        let part = from..from + (part.end - part.start);
        FileContent::now(file, part, object, &self.sends)
    }
}

/// A part of `bytes`; `None` if they end before.
fn slice(bytes: &Bytes, part: &Range<u64>) -> Option<Bytes> {
    let part = usize::try_from(part.start).ok()?..usize::try_from(part.end).ok()?;
    bytes.get(part.clone())?;
    Some(bytes.slice(part))
}
