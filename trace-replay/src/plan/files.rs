//! File operations as WebDAV requests.
//!
//! | recorded | sent |
//! | --- | --- |
//! | create, write, truncate | nothing yet; the bytes go up with the next close, fsync or rename of the path, or before a read of it |
//! | close, fsync of a changed file | PUT: whole when the server has not got the file, else Content-Range for each changed extent |
//! | read | GET with Range |
//! | rename, unlink, rmdir | MOVE, DELETE, DELETE |
//! | mkdir | MKCOL |
//! | stat | PROPFIND Depth 0 |
//! | list | PROPFIND Depth 1, once for consecutive reads of one directory |
//! | open, opendir, statfs, lock | nothing |
//!
//! A file that the server has not been sent yet is known to the client alone: its stat needs no request, and
//! when it is removed before its first close no request was ever needed.

use super::tree::{FileNode, Node};
use super::{Builder, Existing, Expect, Kind, Writes};
use crate::content::{Content, Origin};
use crate::trace::{Entry, Op};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Why a recorded creation of a collection is not repeated.
pub(super) const EARLY: &str =
    "mkdir: exists from the start, for something in it whose making is not in the trace";

/// Why a recorded truncation is not repeated.
pub(super) const HOLE: &str = "truncate: would make a hole of more than 1 TiB";

/// An upload sends holes as bytes, and reading back reads them: a file that is mostly hole would fill the disk, or take days.
const HOLE_BYTES_MAX: u64 = 1 << 40;

/// Follows renames and copies back: under which name something was first known.
#[derive(Default)]
struct Names {
    /// First name of what was renamed or copied, by its new name.
    from: HashMap<Arc<str>, Arc<str>>,
}

impl Names {
    /// The name that `path` had before it, or a collection above it, was renamed or copied.
    fn first(&self, path: &str) -> Arc<str> {
        let ends = path.match_indices('/').map(|(at, _)| at);
        let deepest = ends
            .chain([path.len()])
            .collect::<Vec<_>>()
            .into_iter()
            .rev();
        for end in deepest.filter(|_| !self.from.is_empty()) {
            if let Some(from) = self.from.get(&path[..end]) {
                return format!("{from}{}", &path[end..]).into();
            }
        }
        path.into()
    }
}

impl Builder {
    /// Finds what existed before the trace: whatever is used with success before it is made.
    pub(super) fn find_existing(&mut self, entries: &[Entry]) {
        let mut made: HashSet<Arc<str>> = HashSet::new();
        let mut existed: BTreeMap<Arc<str>, (bool, u64)> = BTreeMap::new();
        let mut changed: HashSet<Arc<str>> = HashSet::new();
        let mut names = Names::default();
        for entry in entries.iter().filter(|e| e.outcome.is_ok()) {
            use Op::*;
            let new = match entry.op {
                FileCreate | FileMkdir | DavMkcol | DavPut | DavLock => Some(&entry.path),
                FileRename | DavMove | DavCopy => entry.path2.as_ref(),
                _ => None,
            };
            for name in [Some(&entry.path), entry.path2.as_ref()]
                .into_iter()
                .flatten()
            {
                for (at, _) in name.match_indices('/') {
                    let first = names.first(&name[..at]);
                    if !made.contains(&*first) {
                        existed.entry(first).or_default().0 = true;
                    }
                }
            }
            let is_dir = matches!(
                entry.op,
                FileList | FileOpendir | DavList | FileRmdir | FileMkdir | DavMkcol
            );
            let needed = !matches!(
                entry.op,
                FileCreate
                    | FileMkdir
                    | DavMkcol
                    | DavPut
                    | DavLock
                    | DavUnlock
                    | DavOptions
                    | FileStatfs
            );
            let first = names.first(&entry.path);
            if needed && !first.is_empty() && !made.contains(&first) {
                let seen = existed.entry(first.clone()).or_default();
                seen.0 |= is_dir;
                if entry.op.reads() && !changed.contains(&first) {
                    seen.1 = seen.1.max(entry.offset + entry.length);
                }
            }
            if entry.op.writes() {
                changed.insert(first.clone());
            }
            if let Some(new) = new {
                made.insert(new.clone());
                // What is made here has no earlier name, even where a collection above it has one.
                names.from.insert(new.clone(), new.clone());
            }
            if let (FileRename | DavMove | DavCopy, Some(to)) = (entry.op, &entry.path2) {
                names.from.insert(to.clone(), first);
            }
        }
        // A collection that is made later must exist already when something in it does: something that the trace, or what a
        // filter has left of it, does not show the making of.
        let paths: Vec<Arc<str>> = existed.keys().cloned().collect();
        for path in &paths {
            for (at, _) in path.match_indices('/') {
                existed.entry(path[..at].into()).or_default().0 = true;
            }
        }
        existed.remove("");
        for (path, (is_dir, len)) in existed {
            let id = self.path_id(&path);
            let content = if is_dir {
                self.tree.insert(path, id, Node::Dir);
                None
            } else {
                let content = Content::whole(
                    Origin {
                        path: id,
                        version: 0,
                    },
                    len,
                );
                let index = self.add_content(content.clone());
                let file = FileNode {
                    content,
                    sent: Some(index),
                    ..FileNode::default()
                };
                self.tree.insert(path, id, Node::File(file));
                Some(index)
            };
            self.plan.existing.push(Existing { path: id, content });
        }
    }

    /// Whether the path is a collection already, as the plan has it.
    pub(super) fn is_collection(&self, path: &str) -> bool {
        matches!(self.tree.get(path), Some(Node::Dir))
    }

    /// Whether a truncation enlarges its file by more than is sensible.
    pub(super) fn makes_hole(&mut self, entry: &Entry) -> bool {
        let len = self.tree.file(&entry.path).map(|f| f.content.len());
        len.is_some_and(|len| entry.length.saturating_sub(len) > HOLE_BYTES_MAX)
    }

    pub(super) fn file_operation(&mut self, entry: &Entry) {
        let path = &entry.path;
        let ok = entry.outcome.is_ok();
        let lane = self.lane(entry);
        if entry.op != Op::FileList {
            self.last_list.remove(&lane);
        }
        match entry.op {
            Op::FileCreate if ok => {
                let id = self.path_id(path);
                if self.tree.file(path).is_none() {
                    self.tree
                        .insert(path.clone(), id, Node::File(FileNode::default()));
                }
                self.skip("create: goes up with its first close, fsync or rename");
            }
            Op::FileWrite if ok => self.write(entry),
            Op::FileTruncate if ok && self.makes_hole(entry) => self.skip(HOLE),
            Op::FileTruncate if ok => {
                if let Some(file) = self.tree.file(path) {
                    file.content.truncate(entry.length);
                    file.whole = true;
                }
                self.skip("truncate: goes up with the next close, fsync or rename");
            }
            Op::FileClose | Op::FileSync if ok => {
                if self.tree.file(path).is_some_and(|f| f.is_behind()) {
                    self.put(entry, path);
                } else {
                    self.skip("close or fsync with nothing new");
                }
            }
            Op::FileRead if ok => self.read(entry),
            Op::FileRename if ok => {
                for name in self.tree.behind(path) {
                    self.put(entry, &name);
                }
                let request = self.request(entry, Kind::Move);
                self.send(request);
                self.rename(entry);
            }
            Op::FileUnlink | Op::FileRmdir if ok => {
                if matches!(self.tree.file(path), Some(f) if f.sent.is_none()) {
                    self.skip("unlink of a file that was never sent");
                } else {
                    let request = self.request(entry, Kind::Delete);
                    self.send(request);
                }
                self.tree.remove(path);
            }
            Op::FileMkdir if ok && self.is_collection(path) => self.skip(EARLY),
            Op::FileMkdir => {
                let request = self.request(entry, Kind::Mkcol);
                let id = request.path;
                self.send(request);
                if ok {
                    self.tree.insert(path.clone(), id, Node::Dir);
                }
            }
            Op::FileStat => {
                if ok && matches!(self.tree.get(path), Some(Node::File(f)) if f.sent.is_none()) {
                    return self.skip("stat of a file that was not sent yet");
                }
                let request = self.request(entry, Kind::Propfind0);
                self.send(request);
            }
            Op::FileList => {
                if self.last_list.get(&lane) == Some(path) {
                    return self.skip("list: continuation of a listing");
                }
                self.last_list.insert(lane, path.clone());
                let request = self.request(entry, Kind::Propfind1);
                self.send(request);
            }
            Op::FileOpen | Op::FileOpendir | Op::FileStatfs | Op::FileLock => {
                self.skip("open, opendir, statfs, lock: no WebDAV counterpart");
            }
            _ => self.skip("failed in the recording; nothing to send"),
        }
    }

    fn write(&mut self, entry: &Entry) {
        let before = self.tree.file(&entry.path).map_or(0, |f| f.content.len());
        self.write_content(entry);
        let Some(file) = self.tree.file(&entry.path) else {
            return;
        };
        let start = entry.offset.min(before);
        if entry.length > 0 {
            file.touch(start, entry.offset + entry.length);
        }
        self.skip("write: goes up with the next close, fsync or rename");
    }

    fn read(&mut self, entry: &Entry) {
        if self.tree.file(&entry.path).is_some_and(|f| f.is_behind()) {
            self.put(entry, &entry.path.clone());
        }
        let Some(file) = self.tree.file(&entry.path) else {
            return self.skip("read of something that is no file by the trace");
        };
        let len = file.content.len();
        let length = entry.length.min(len.saturating_sub(entry.offset));
        let content = file.sent;
        if length == 0 {
            return self.skip("read of no bytes");
        }
        let mut request = self.request(entry, Kind::Get);
        (request.content, request.offset, request.length) = (content, entry.offset, length);
        self.send(request);
    }

    /// Sends what the server lacks of a file.
    fn put(&mut self, entry: &Entry, path: &Arc<str>) {
        let id = self.path_id(path);
        let Some(file) = self.tree.file(path) else {
            return;
        };
        let content = file.content.clone();
        let unsent = std::mem::take(&mut file.unsent);
        let creates = file.sent.is_none();
        let whole = creates || file.whole || self.writes == Writes::Whole;
        file.whole = false;
        let len = content.len();
        let index = self.add_content(content);
        if let Some(file) = self.tree.file(path) {
            file.sent = Some(index);
        }
        let extents = if whole { vec![(0, len)] } else { unsent };
        for (start, end) in extents {
            let mut request = self.request(entry, if whole { Kind::Put } else { Kind::PutRange });
            request.path = id;
            request.path2 = id;
            request.expect = Expect::Success;
            (request.content, request.offset, request.length) = (Some(index), start, end - start);
            request.creates = creates;
            self.send(request);
        }
    }

    /// Moves the model's nodes.
    pub(super) fn rename(&mut self, entry: &Entry) {
        let Some(to) = &entry.path2 else { return };
        let moved = self.tree.remove(&entry.path);
        self.tree.remove(to);
        for (name, node) in moved {
            let name: Arc<str> = format!("{to}{}", &name[entry.path.len()..]).into();
            let id = self.path_id(&name);
            self.tree.insert(name, id, node);
        }
    }

    /// What was never closed goes up at the end, as it does when davfs2 unmounts.
    pub(super) fn send_what_is_left(&mut self) {
        let at_us = self.plan.requests.last().map_or(0, |r| r.at_us);
        for path in self.tree.behind("") {
            let entry = Entry::new(
                self.start_us.saturating_add_unsigned(at_us),
                "trace-replay".into(),
                Op::FileClose,
                path.clone(),
            );
            self.put(&entry, &path);
        }
    }
}
