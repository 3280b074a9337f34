//! From a recorded trace to accesses to objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use tiering::sim::{Access, Request};
use tiering::{DEFAULT_OBJECT_BYTES, FileId, Nanos, ObjectId};

use crate::read::{ReadError, Reader};
use crate::trace::{Entry, Op, Outcome};

/// A load in memory: some 40 bytes per access to an object.
#[derive(Debug, Default)]
pub struct Load {
    /// In the order of time.
    pub requests: Vec<Request>,
    /// Bytes of all distinct objects that were read or written.
    pub footprint: u64,
    /// The trace's operations that moved data or deleted.
    pub operations: u64,
}

#[derive(Default)]
struct Builder {
    requests: Vec<Request>,
    files: BTreeMap<Arc<str>, File>,
    /// Where each version ends, as far as reads and writes tell.
    ends: BTreeMap<FileId, u64>,
    ids: u64,
    operations: u64,
}

#[derive(Clone, Copy)]
struct File {
    id: FileId,
    len: u64,
    /// Written and not yet published: a version is made when the file is closed or synced.
    changed: bool,
}

/// Reads all of a trace. `speed` divides the recorded times.
///
/// A file's change is published as a whole new version, as the gateway does it: at `close`, `fsync` or PUT.
///
/// # Errors
/// When the trace cannot be read.
pub fn load(reader: &mut dyn Reader, speed: f64) -> Result<Load, ReadError> {
    let mut builder = Builder::default();
    let mut first = None;
    let mut last = Nanos(0);
    while let Some(entry) = reader.next_entry() {
        let entry = entry?;
        if !entry.outcome.is_ok() {
            continue;
        }
        let begin = *first.get_or_insert(entry.at_us);
        let us = entry.at_us.saturating_sub(begin).max(0) as f64;
        // Lines may be a little out of order: time never runs backwards here.
        last = last.max(Nanos((us * 1000.0 / speed) as u64));
        builder.take(&entry, last);
    }
    Ok(builder.finish())
}

impl Builder {
    fn file(&mut self, path: &Arc<str>) -> File {
        if let Some(file) = self.files.get(path) {
            return *file;
        }
        let id = self.next_id();
        let file = File {
            id,
            len: 0,
            changed: false,
        };
        self.files.insert(Arc::clone(path), file);
        file
    }

    fn next_id(&mut self) -> FileId {
        self.ids += 1;
        FileId(self.ids)
    }

    fn push(&mut self, at: Nanos, id: ObjectId, access: Access) {
        self.requests.push(Request { at, id, access });
    }

    fn take(&mut self, entry: &Entry, at: Nanos) {
        let before = self.requests.len();
        let end = entry.offset.saturating_add(entry.length);
        match entry.op {
            Op::FileRead => self.read(at, &entry.path, entry.offset, entry.length),
            Op::DavGet if entry.outcome != Outcome::Status(304) => {
                self.read(at, &entry.path, entry.offset, entry.length);
            }
            Op::FileWrite => self.change(&entry.path, |len| len.max(end)),
            Op::FileTruncate => self.change(&entry.path, |_| entry.length),
            Op::FileCreate => self.change(&entry.path, |_| 0),
            Op::FileClose | Op::FileSync => self.publish(at, &entry.path),
            Op::DavPut if entry.offset == 0 => {
                self.change(&entry.path, |_| entry.length);
                self.publish(at, &entry.path);
            }
            Op::DavPut | Op::DavPatch => {
                self.change(&entry.path, |len| len.max(end));
                self.publish(at, &entry.path);
            }
            Op::FileUnlink | Op::DavDelete => self.delete(at, &entry.path),
            Op::FileRename | Op::DavMove => {
                if let Some(to) = &entry.path2 {
                    self.rename(at, &entry.path, to);
                }
            }
            _ => {}
        }
        self.operations += u64::from(self.requests.len() > before);
    }

    fn read(&mut self, at: Nanos, path: &Arc<str>, offset: u64, length: u64) {
        let file = self.file(path);
        // What is not published yet is served from where it is staged.
        if file.changed || length == 0 {
            return;
        }
        let object = u64::from(DEFAULT_OBJECT_BYTES);
        let end = offset.saturating_add(length);
        let known = self.ends.entry(file.id).or_insert(0);
        *known = (*known).max(end);
        if let Some(file) = self.files.get_mut(path) {
            file.len = file.len.max(end);
        }
        let mut from = offset;
        while from < end {
            let index = from / object;
            let to = end.min((index + 1) * object);
            let access = Access::Read {
                offset: (from % object) as u32,
                len: (to - from) as u32,
                object_len: 0,
            };
            let Ok(index) = u32::try_from(index) else {
                return;
            };
            self.push(at, ObjectId::new(file.id, index), access);
            from = to;
        }
    }

    fn change(&mut self, path: &Arc<str>, len: impl Fn(u64) -> u64) {
        self.file(path);
        if let Some(file) = self.files.get_mut(path) {
            file.len = len(file.len);
            file.changed = true;
        }
    }

    fn publish(&mut self, at: Nanos, path: &Arc<str>) {
        let Some(old) = self.files.get(path).copied().filter(|f| f.changed) else {
            return;
        };
        self.gone(at, old);
        let id = self.next_id();
        let object = u64::from(DEFAULT_OBJECT_BYTES);
        self.ends.insert(id, old.len);
        for index in 0..old.len.div_ceil(object) {
            let Ok(at_index) = u32::try_from(index) else {
                break;
            };
            let len = (old.len - index * object).min(object) as u32;
            self.push(at, ObjectId::new(id, at_index), Access::Write(len));
        }
        let new = File {
            id,
            changed: false,
            ..old
        };
        self.files.insert(Arc::clone(path), new);
    }

    fn gone(&mut self, at: Nanos, file: File) {
        let Some(end) = self.ends.get(&file.id).copied() else {
            return;
        };
        let objects = end.div_ceil(u64::from(DEFAULT_OBJECT_BYTES));
        let objects = u32::try_from(objects).unwrap_or(u32::MAX);
        self.push(at, ObjectId::new(file.id, 0), Access::Delete(objects));
    }

    fn delete(&mut self, at: Nanos, path: &Arc<str>) {
        if let Some(file) = self.files.remove(path) {
            self.gone(at, file);
            return;
        }
        for (_, file) in self.take_beneath(path) {
            self.gone(at, file);
        }
    }

    /// Takes all files of a collection, in the order of their paths, each by its path below the collection.
    fn take_beneath(&mut self, collection: &str) -> Vec<(String, File)> {
        let beneath = format!("{collection}/");
        let inside: Vec<Arc<str>> = self
            .files
            .range(Arc::<str>::from(beneath.as_str())..)
            .take_while(|(path, _)| path.starts_with(&beneath))
            .map(|(path, _)| Arc::clone(path))
            .collect();
        let files = &mut self.files;
        inside
            .into_iter()
            .filter_map(|path| Some((path[beneath.len()..].to_owned(), files.remove(&path)?)))
            .collect()
    }

    fn rename(&mut self, at: Nanos, from: &Arc<str>, to: &Arc<str>) {
        if let Some(file) = self.files.remove(from) {
            self.delete(at, to);
            self.files.insert(Arc::clone(to), file);
            return;
        }
        for (name, file) in self.take_beneath(from) {
            self.files.insert(format!("{to}/{name}").into(), file);
        }
    }

    /// Now that all ends are known, every read learns the length of its object.
    fn finish(self) -> Load {
        let Builder {
            mut requests,
            ends,
            operations,
            ..
        } = self;
        let mut objects = BTreeMap::new();
        for Request { id, access, .. } in &mut requests {
            match access {
                Access::Read {
                    offset,
                    len,
                    object_len,
                } => {
                    let begin = u64::from(id.index) * u64::from(DEFAULT_OBJECT_BYTES);
                    let left = ends
                        .get(&id.file)
                        .map_or(0, |end| end.saturating_sub(begin));
                    let known = u32::try_from(left).unwrap_or(DEFAULT_OBJECT_BYTES);
                    *object_len = known.min(DEFAULT_OBJECT_BYTES).max(*offset + *len);
                    objects.insert(*id, *object_len);
                }
                Access::Write(len) => _ = objects.insert(*id, *len),
                Access::Delete(_) => {}
            }
        }
        Load {
            requests,
            footprint: objects.values().map(|len| u64::from(*len)).sum(),
            operations,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn entry(op: Op, path: &str, offset: u64, length: u64) -> Entry {
        Entry {
            offset,
            length,
            ..Entry::new(0, "".into(), op, path.into())
        }
    }

    #[test]
    fn a_change_becomes_a_version_when_the_file_is_closed() {
        let mut b = Builder::default();
        let object = u64::from(DEFAULT_OBJECT_BYTES);
        for e in [
            entry(Op::FileCreate, "a", 0, 0),
            entry(Op::FileWrite, "a", 0, object + 5),
            entry(Op::FileRead, "a", 0, 5),
            entry(Op::FileClose, "a", 0, 0),
            entry(Op::FileRead, "a", object - 1, 3),
            entry(Op::FileUnlink, "a", 0, 0),
        ] {
            b.take(&e, Nanos(0));
        }
        let load = b.finish();
        let seen: Vec<Access> = load.requests.iter().map(|r| r.access).collect();
        let read = |offset, len, object_len| Access::Read {
            offset,
            len,
            object_len,
        };
        let full = DEFAULT_OBJECT_BYTES;
        assert_eq!(
            seen,
            [
                Access::Write(full),
                Access::Write(5),
                read(full - 1, 1, full),
                read(0, 2, 5),
                Access::Delete(2),
            ]
        );
        assert_eq!(load.footprint, object + 5);
    }
}
