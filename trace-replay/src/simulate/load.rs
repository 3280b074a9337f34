//! From a recorded trace to accesses to objects.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiering::sim::{Access, Request};
use tiering::{DEFAULT_OBJECT_BYTES, FileId, Nanos, ObjectId};

use crate::read::{Format, ReadError, Reader, open_as};
use crate::trace::{Entry, Op, Outcome};

/// A trace, read as often as it is needed.
pub struct Source {
    path: PathBuf,
    format: Option<Format>,
    speed: f64,
}

/// What a first reading finds out, for the second one: some 8 bytes per version of a file, 40 per object.
#[derive(Debug, Default)]
pub struct Survey {
    /// Accesses to objects, deletions included.
    pub requests: u64,
    /// Bytes of all distinct objects that were read or written.
    pub footprint: u64,
    /// Where each version ends, as far as reads and writes tell, by its number.
    pub(super) ends: Arc<[u64]>,
}

impl Source {
    /// The trace at `path`; `speed` divides the recorded times. Without a `format` it is told by the content.
    pub fn new(path: &Path, format: Option<Format>, speed: f64) -> Self {
        Self {
            path: path.to_path_buf(),
            format,
            speed,
        }
    }

    /// Reads all of it, and keeps what does not grow with the number of accesses.
    ///
    /// # Errors
    /// When the trace cannot be read, or nothing in it reads or writes data.
    pub fn survey(&self) -> anyhow::Result<Survey> {
        let mut requests = self.requests_to(Arc::default())?;
        let blocks = requests.reader.is_of_blocks();
        let (mut count, mut written) = (0, BTreeMap::new());
        for request in &mut requests {
            let Request { id, access, .. } = request?;
            count += 1;
            match access {
                // Versions of a block take each other's place; the last of each is in the builder.
                _ if blocks => {}
                // How long it is, all ends will tell.
                Access::Read { .. } => _ = written.insert(id, None),
                Access::Write(len) => _ = written.insert(id, Some(len)),
                Access::Delete(_) => {}
            }
        }
        super::tell_unusable(&self.path, requests.reader.unusable());
        let ends = requests.builder.ends;
        let lens = written.into_iter();
        let footprint = match blocks {
            true => requests.builder.files.values().map(|f| f.len).sum(),
            false => lens
                .map(|(id, len)| u64::from(len.unwrap_or(object_len(&ends, id))))
                .sum(),
        };
        let survey = Survey {
            requests: count,
            footprint,
            ends: ends.into(),
        };
        let name = self.path.display();
        anyhow::ensure!(
            survey.footprint > 0,
            "{name}: nothing in it reads or writes data"
        );
        Ok(survey)
    }

    /// All accesses, in the order of time.
    ///
    /// A file's change is published as a whole new version, as the gateway does it: at `close`, `fsync` or PUT. A block device
    /// has neither: what starts at one offset of it is an object, and each write of that a new version.
    ///
    /// # Errors
    /// When the trace cannot be opened; later ones are items.
    pub fn requests(&self, survey: &Survey) -> Result<Requests, ReadError> {
        self.requests_to(Arc::clone(&survey.ends))
    }

    fn requests_to(&self, ends: Arc<[u64]>) -> Result<Requests, ReadError> {
        Ok(Requests {
            reader: open_as(&self.path, self.format)?,
            builder: Builder::default(),
            ends,
            speed: self.speed,
            first: None,
            last: Nanos(0),
        })
    }
}

/// Bytes of an object, by where its file ends.
pub(super) fn object_len(ends: &[u64], id: ObjectId) -> u32 {
    let begin = u64::from(id.index) * u64::from(DEFAULT_OBJECT_BYTES);
    let end = ends.get(id.file.0 as usize).copied().unwrap_or(0);
    let left = u32::try_from(end.saturating_sub(begin)).unwrap_or(u32::MAX);
    left.min(DEFAULT_OBJECT_BYTES)
}

/// The accesses of a trace, one by one; memory grows with the files that exist at one time.
pub struct Requests {
    reader: Box<dyn Reader>,
    builder: Builder,
    /// Where all versions will end.
    ends: Arc<[u64]>,
    speed: f64,
    first: Option<i64>,
    last: Nanos,
}

impl Iterator for Requests {
    type Item = Result<Request, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(mut request) = self.builder.requests.pop_front() {
                if let Access::Read {
                    offset,
                    len,
                    object_len: known,
                } = &mut request.access
                {
                    *known = object_len(&self.ends, request.id).max(*offset + *len);
                }
                return Some(Ok(request));
            }
            let entry = match self.reader.next_entry()? {
                Ok(entry) => entry,
                Err(e) => return Some(Err(e)),
            };
            if !entry.outcome.is_ok() {
                continue;
            }
            let begin = *self.first.get_or_insert(entry.at_us);
            let us = entry.at_us.saturating_sub(begin).max(0) as f64;
            // Lines may be a little out of order: time never runs backwards here.
            self.last = self.last.max(Nanos((us * 1000.0 / self.speed) as u64));
            match self.reader.is_of_blocks() {
                true => self.builder.take_block(&entry, self.last),
                false => self.builder.take(&entry, self.last),
            }
        }
    }
}

#[derive(Default)]
struct Builder {
    /// Not yet handed on.
    requests: VecDeque<Request>,
    files: BTreeMap<Arc<str>, File>,
    /// Where each version ends, as far as reads and writes have told so far, by its number.
    ends: Vec<u64>,
}

#[derive(Clone, Copy)]
struct File {
    id: FileId,
    len: u64,
    /// Written and not yet published: a version is made when the file is closed or synced.
    changed: bool,
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
        // Identities begin with 1.
        let id = self.ends.len().max(1);
        self.ends.resize(id + 1, 0);
        FileId(id as u64)
    }

    fn ends_at(&mut self, id: FileId, end: u64) {
        if let Some(known) = self.ends.get_mut(id.0 as usize) {
            *known = (*known).max(end);
        }
    }

    fn push(&mut self, at: Nanos, id: ObjectId, access: Access) {
        self.requests.push_back(Request { at, id, access });
    }

    fn take(&mut self, entry: &Entry, at: Nanos) {
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
            Op::DavPut if entry.offset == 0 && !entry.ranged => {
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
            Op::DavCopy => {
                if let Some(to) = &entry.path2 {
                    self.copy(at, &entry.path, to);
                }
            }
            _ => {}
        }
    }

    fn take_block(&mut self, entry: &Entry, at: Nanos) {
        let block = format!("{}@{}", entry.path, entry.offset).into();
        match entry.op {
            Op::FileRead => self.read(at, &block, 0, entry.length),
            Op::FileWrite => {
                self.change(&block, |_| entry.length);
                self.publish(at, &block);
            }
            _ => {}
        }
    }

    fn read(&mut self, at: Nanos, path: &Arc<str>, offset: u64, length: u64) {
        let file = self.file(path);
        // What is not published yet is served from where it is staged.
        if file.changed || length == 0 {
            return;
        }
        let object = u64::from(DEFAULT_OBJECT_BYTES);
        let end = offset.saturating_add(length);
        self.ends_at(file.id, end);
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
        self.ends_at(id, old.len);
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
        let end = self.ends.get(file.id.0 as usize).copied().unwrap_or(0);
        if end == 0 {
            return;
        }
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
        let inside = self.beneath(collection);
        let (skip, files) = (collection.len() + 1, &mut self.files);
        inside
            .into_iter()
            .filter_map(|path| Some((path[skip..].to_owned(), files.remove(&path)?)))
            .collect()
    }

    /// The paths of all files of a collection, in order.
    fn beneath(&self, collection: &str) -> Vec<Arc<str>> {
        let beneath = format!("{collection}/");
        self.files
            .range(Arc::<str>::from(beneath.as_str())..)
            .take_while(|(path, _)| path.starts_with(&beneath))
            .map(|(path, _)| Arc::clone(path))
            .collect()
    }

    /// A copy is made where the backing tier is, without a request for its content; what had its name is gone.
    fn copy(&mut self, at: Nanos, from: &Arc<str>, to: &Arc<str>) {
        if from == to {
            return;
        }
        self.delete(at, to);
        let file = self.files.get(from).map(|file| (Arc::clone(to), file.len));
        let beneath = self.beneath(from);
        let inside = beneath
            .iter()
            .filter_map(|path| Some((path, self.files.get(path)?.len)))
            .map(|(path, len)| (format!("{to}{}", &path[from.len()..]).into(), len));
        let copies: Vec<(Arc<str>, u64)> = file.into_iter().chain(inside).collect();
        for (path, len) in copies {
            let copy = self.file(&path);
            self.ends_at(copy.id, len);
            self.files.insert(path, File { len, ..copy });
        }
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::read::Unusable;
    use crate::trace::Level;

    struct Given(std::vec::IntoIter<Entry>, Unusable);

    impl Reader for Given {
        fn level(&self) -> Level {
            Level::FileOperations
        }
        fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
            self.0.next().map(Ok)
        }
        fn unusable(&self) -> &Unusable {
            &self.1
        }
    }

    fn entry(op: Op, path: &str, offset: u64, length: u64) -> Entry {
        Entry {
            offset,
            length,
            ..Entry::new(0, "".into(), op, path.into())
        }
    }

    #[test]
    fn a_change_becomes_a_version_when_the_file_is_closed() {
        let object = u64::from(DEFAULT_OBJECT_BYTES);
        let entries = vec![
            entry(Op::FileCreate, "a", 0, 0),
            entry(Op::FileWrite, "a", 0, object + 5),
            entry(Op::FileRead, "a", 0, 5),
            entry(Op::FileClose, "a", 0, 0),
            entry(Op::FileRead, "a", object - 1, 3),
            entry(Op::FileUnlink, "a", 0, 0),
        ];
        let requests = |ends| Requests {
            reader: Box::new(Given(entries.clone().into_iter(), Unusable::default())),
            builder: Builder::default(),
            ends,
            speed: 1.0,
            first: None,
            last: Nanos(0),
        };
        let mut first = requests(Arc::default());
        assert_eq!(first.by_ref().count(), 5);
        let seen = requests(first.builder.ends.into()).map(|r| r.unwrap().access);
        let seen: Vec<Access> = seen.collect();
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
    }

    #[test]
    fn a_copy_takes_the_place_of_what_had_its_name() {
        let put = |path: &str, length| entry(Op::DavPut, path, 0, length);
        let copy = |from: &str, to: &str| Entry {
            path2: Some(to.into()),
            ..entry(Op::DavCopy, from, 0, 0)
        };
        let entries = vec![
            put("a", 100),
            put("b", 7),
            copy("a", "b"),
            entry(Op::DavGet, "b", 0, 100),
            entry(Op::DavDelete, "b", 0, 0),
            put("d/x", 5),
            copy("d", "e"),
            entry(Op::DavDelete, "e", 0, 0),
            entry(Op::DavGet, "d/x", 0, 5),
        ];
        let requests = Requests {
            reader: Box::new(Given(entries.into_iter(), Unusable::default())),
            builder: Builder::default(),
            ends: Arc::default(),
            speed: 1.0,
            first: None,
            last: Nanos(0),
        };
        let seen: Vec<(u64, Access)> = requests
            .map(|r| r.unwrap())
            .map(|r| (r.id.file.0, r.access))
            .collect();
        let read = |len| Access::Read {
            offset: 0,
            len,
            object_len: len,
        };
        let [a, b] = [seen[0].0, seen[1].0];
        let copied = seen[3].0;
        assert!(copied != a && copied != b);
        let x = seen[5].0;
        assert_eq!(seen[..2], [(a, Access::Write(100)), (b, Access::Write(7))]);
        assert_eq!(seen[2], (b, Access::Delete(1)));
        assert_eq!(
            seen[3..5],
            [(copied, read(100)), (copied, Access::Delete(1))]
        );
        assert_eq!(seen[5].1, Access::Write(5));
        assert!(matches!(seen[6], (e, Access::Delete(1)) if e != x));
        assert_eq!(seen[7..], [(x, read(5))]);
    }

    #[test]
    fn a_put_of_the_first_bytes_keeps_the_rest() {
        let put = |length, ranged| Entry {
            ranged,
            ..entry(Op::DavPut, "a", 0, length)
        };
        let requests = Requests {
            reader: Box::new(Given(
                vec![put(100, false), put(10, true)].into_iter(),
                Unusable::default(),
            )),
            builder: Builder::default(),
            ends: Arc::default(),
            speed: 1.0,
            first: None,
            last: Nanos(0),
        };
        let seen: Vec<Access> = requests.map(|r| r.unwrap().access).collect();
        let want = [Access::Write(100), Access::Delete(1), Access::Write(100)];
        assert_eq!(seen, want);
    }
}
