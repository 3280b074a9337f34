//! File operations as the same file operations: what a replay on a mounted directory calls.
//!
//! Every recorded operation becomes one call of the same kind; only what no call can repeat is left out (opens of
//! directories, `statfs`, locks, and failures that do not come from the name space). Descriptors are told apart by
//! the request that opened them, so a rename or unlink of an open file does not disturb them. An operation on a
//! file that the trace never opened opens it for that one call.

use super::tree::{FileNode, Node, OpenFile};
use super::{Builder, Kind, NO_HANDLE, Request};
use crate::content::{Content, Origin};
use crate::trace::{Entry, Op, Outcome};
use std::sync::Arc;

impl Builder {
    pub(super) fn call(&mut self, entry: &Entry) {
        let path = &entry.path;
        match &entry.outcome {
            Outcome::Errno(name) if errno(name).is_none() => {
                return self.skip("failed in the recording for another reason than the name space");
            }
            Outcome::Status(_) => return self.skip("a WebDAV request, not a file operation"),
            _ => {}
        }
        let ok = entry.outcome.is_ok();
        match entry.op {
            Op::FileCreate | Op::FileOpen => {
                if matches!(self.tree.get(path), Some(Node::Dir)) {
                    return self.skip("open of a directory");
                }
                // Only an exclusive creation fails because something is there already.
                let exclusive = matches!(&entry.outcome, Outcome::Errno(e) if &**e == "EEXIST");
                let new = self.tree.get(path).is_none();
                let makes = exclusive || (entry.op == Op::FileCreate && new);
                let kind = if makes { Kind::Create } else { Kind::Open };
                let mut request = self.request(entry, kind);
                // A creation opens for writing; of another open, the first write to it tells.
                request.writable = makes || entry.op == Op::FileCreate;
                let (id, lane) = (request.path, request.lane);
                let handle = self.send_call(request);
                if ok {
                    if self.tree.file(path).is_none() {
                        self.tree
                            .insert(path.clone(), id, Node::File(FileNode::default()));
                    }
                    if let Some(file) = self.tree.file(path) {
                        file.open.push(OpenFile { lane, handle });
                    }
                }
            }
            Op::FileWrite if ok => self.write_call(entry),
            Op::FileRead if ok => self.read_call(entry),
            Op::FileTruncate if ok && self.makes_hole(entry) => self.skip(super::files::HOLE),
            Op::FileTruncate if ok => {
                let Some(file) = self.tree.file(path) else {
                    return self.skip("truncation of something that is no file by the trace");
                };
                file.content.truncate(entry.length);
                file.sent = None;
                let mut request = self.request(entry, Kind::Truncate);
                request.length = entry.length;
                self.send_call(request);
            }
            Op::FileSync if ok => {
                let mut request = self.request(entry, Kind::Fsync);
                request.handle = self.handle(path, request.lane);
                self.send_call(request);
            }
            Op::FileClose if ok => {
                let mut request = self.request(entry, Kind::Close);
                request.handle = self.take_handle(path, request.lane);
                if request.handle == NO_HANDLE {
                    return self.skip("close of something that the trace did not open");
                }
                self.send_call(request);
            }
            Op::FileRename => {
                let request = self.request(entry, Kind::Rename);
                self.send_call(request);
                if ok {
                    if let Some(to) = &entry.path2 {
                        self.orphan(&to.clone());
                    }
                    self.rename(entry);
                }
            }
            Op::FileUnlink | Op::FileRmdir => {
                let kind = if entry.op == Op::FileUnlink {
                    Kind::Unlink
                } else {
                    Kind::Rmdir
                };
                let request = self.request(entry, kind);
                self.send_call(request);
                if ok {
                    self.orphan(path);
                    self.tree.remove(path);
                }
            }
            Op::FileMkdir if ok && self.is_collection(path) => self.skip(super::files::EARLY),
            Op::FileMkdir => {
                let request = self.request(entry, Kind::Mkdir);
                let id = request.path;
                self.send_call(request);
                if ok {
                    self.tree.insert(path.clone(), id, Node::Dir);
                }
            }
            Op::FileStat => {
                let request = self.request(entry, Kind::Stat);
                self.send_call(request);
            }
            Op::FileList => {
                let request = self.request(entry, Kind::List);
                self.send_call(request);
            }
            Op::FileOpendir | Op::FileStatfs | Op::FileLock => {
                self.skip("opendir, statfs, lock: a listing opens its directory itself");
            }
            _ => self.skip("failed in the recording; nothing to call"),
        }
    }

    fn send_call(&mut self, request: Request) -> u32 {
        let index = self.plan.requests.len() as u32;
        self.send(request);
        index
    }

    fn write_call(&mut self, entry: &Entry) {
        if entry.length == 0 {
            return self.skip("write of no bytes");
        }
        let origin = self.write_content(entry);
        let mut written = Content::default();
        written.write(origin, entry.offset, entry.length);
        let mut request = self.request(entry, Kind::Write);
        request.handle = self.handle(&entry.path, request.lane);
        request.writable = true;
        if let Some(open) = self.plan.requests.get_mut(request.handle as usize) {
            open.writable = true;
        }
        request.content = Some(self.add_content(written));
        (request.offset, request.length) = (entry.offset, entry.length);
        if let Some(file) = self.tree.file(&entry.path) {
            file.sent = None;
        }
        self.send_call(request);
    }

    fn read_call(&mut self, entry: &Entry) {
        let Some(content) = self.content_now(&entry.path) else {
            return self.skip("read of something that is no file by the trace");
        };
        let len = self.plan.contents[content as usize].len();
        let length = entry.length.min(len.saturating_sub(entry.offset));
        if length == 0 {
            return self.skip("read of no bytes");
        }
        let mut request = self.request(entry, Kind::Read);
        request.handle = self.handle(&entry.path, request.lane);
        (request.content, request.offset, request.length) = (Some(content), entry.offset, length);
        self.send_call(request);
    }

    /// The index of what the file holds now.
    fn content_now(&mut self, path: &Arc<str>) -> Option<u32> {
        let file = self.tree.file(path)?;
        if file.sent.is_none() {
            let content = file.content.clone();
            let index = self.add_content(content);
            self.tree.file(path)?.sent = Some(index);
            return Some(index);
        }
        file.sent
    }

    /// The descriptor that this lane opened last, or else whoever's.
    fn handle(&mut self, path: &str, lane: u32) -> u32 {
        let open = match self.tree.file(path) {
            Some(file) => &file.open[..],
            None => self.orphans.get(path).map_or(&[][..], |o| o),
        };
        let own = open.iter().rev().find(|o| o.lane == lane);
        own.or(open.last()).map_or(NO_HANDLE, |o| o.handle)
    }

    fn take_handle(&mut self, path: &str, lane: u32) -> u32 {
        let handle = self.handle(path, lane);
        let open = match self.tree.file(path) {
            Some(file) if !file.open.is_empty() => Some(&mut file.open),
            _ => self.orphans.get_mut(path),
        };
        let Some(open) = open else { return NO_HANDLE };
        match open.iter().rposition(|o| o.handle == handle) {
            Some(at) => open.remove(at).handle,
            None => open.pop().map_or(NO_HANDLE, |o| o.handle),
        }
    }

    /// Keeps the descriptors of a file that is about to lose its name.
    fn orphan(&mut self, path: &Arc<str>) {
        if let Some(file) = self.tree.file(path) {
            let open = std::mem::take(&mut file.open);
            if !open.is_empty() {
                self.orphans.entry(path.clone()).or_default().extend(open);
            }
        }
    }

    /// What was never closed is closed at the end, as the end of the process does it.
    pub(super) fn close_what_is_left(&mut self) {
        let at_us = self.plan.requests.last().map_or(0, |r| r.at_us);
        let mut open: Vec<(Arc<str>, u32)> = self
            .orphans
            .drain()
            .flat_map(|(path, open)| open.into_iter().map(move |o| (path.clone(), o.handle)))
            .collect();
        open.extend(self.tree.open_files());
        open.sort_by_key(|(_, handle)| *handle);
        for (path, handle) in open {
            let entry = Entry::new(
                self.start_us.saturating_add_unsigned(at_us),
                "trace-replay".into(),
                Op::FileClose,
                path,
            );
            let mut request = self.request(&entry, Kind::Close);
            request.handle = handle;
            self.send_call(request);
        }
        for path in self.tree.files() {
            self.content_now(&path);
        }
    }

    /// Changes the model by a write, and answers where its bytes come from.
    pub(super) fn write_content(&mut self, entry: &Entry) -> Origin {
        let id = self.path_id(&entry.path);
        if self.tree.file(&entry.path).is_none() {
            self.tree
                .insert(entry.path.clone(), id, Node::File(FileNode::default()));
        }
        let next = Origin {
            path: id,
            version: self.next_version(id),
        };
        let Some(file) = self.tree.file(&entry.path) else {
            return next;
        };
        // An append continues the version at hand: its bytes never existed before.
        let appends = entry.offset >= file.content.len();
        let origin = file.content.last_origin().filter(|_| appends);
        let origin = origin.unwrap_or(next);
        file.content.write(origin, entry.offset, entry.length);
        origin
    }
}

/// The numbers of errors that come from what exists under which name: only these can be expected again.
pub(super) fn errno(name: &str) -> Option<u16> {
    use rustix::io::Errno;
    let errno = match name {
        "ENOENT" => Errno::NOENT,
        "EEXIST" => Errno::EXIST,
        "ENOTDIR" => Errno::NOTDIR,
        "EISDIR" => Errno::ISDIR,
        "ENOTEMPTY" => Errno::NOTEMPTY,
        _ => return None,
    };
    u16::try_from(errno.raw_os_error()).ok()
}
