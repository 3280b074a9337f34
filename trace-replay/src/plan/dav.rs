//! WebDAV requests as recorded, with the model kept that says what each read must find.

use super::tree::{FileNode, Node};
use super::{Builder, Expect, Kind};
use crate::content::{Content, Origin};
use crate::trace::{Entry, Op, Outcome};
use std::sync::Arc;

impl Builder {
    pub(super) fn dav_request(&mut self, entry: &Entry) {
        let kind = match entry.op {
            Op::DavOptions => Kind::Options,
            Op::DavStat => Kind::Propfind0,
            Op::DavList => Kind::Propfind1,
            Op::DavHead => Kind::Head,
            Op::DavGet if entry.outcome == Outcome::Status(304) => Kind::GetIfChanged,
            Op::DavGet => Kind::Get,
            Op::DavPut if entry.ranged || entry.offset > 0 => Kind::PutRange,
            Op::DavPut => Kind::Put,
            Op::DavPatch => Kind::PutRange,
            Op::DavDelete => Kind::Delete,
            Op::DavMkcol => Kind::Mkcol,
            Op::DavMove => Kind::Move,
            Op::DavCopy => Kind::Copy,
            Op::DavProppatch => Kind::Proppatch,
            Op::DavLock => Kind::Lock,
            Op::DavUnlock => Kind::Unlock,
            _ => return self.skip("not a WebDAV request"),
        };
        if matches!(entry.outcome, Outcome::Status(401 | 408 | 500..)) {
            return self.skip("refused or failed on the recorded server's side");
        }
        let mut request = self.request(entry, kind);
        let (path, client, ok) = (request.path, request.client, entry.outcome.is_ok());
        if matches!(self.tree.get(&entry.path), Some(Node::File(f)) if f.lock_only)
            && ok
            && kind != Kind::Put
        {
            request.expect = Expect::SuccessOrAbsent;
        }
        match kind {
            Kind::Get | Kind::GetIfChanged | Kind::Head => {
                if let Some(file) = self.tree.file(&entry.path) {
                    let len = file.content.len();
                    request.content = file.sent;
                    if kind == Kind::Get && (entry.ranged || entry.offset > 0) {
                        request.offset = entry.offset.min(len);
                        request.length = entry.length.min(len - request.offset);
                        if request.length == 0 {
                            return self.skip("read of no bytes");
                        }
                    } else {
                        request.length = len;
                    }
                }
                self.send(request);
            }
            Kind::Put | Kind::PutRange => {
                if ok {
                    let version = self.next_version(path);
                    let origin = Origin { path, version };
                    let old = self.tree.file(&entry.path).cloned().unwrap_or_default();
                    request.creates = old.sent.is_none();
                    let mut content = if kind == Kind::Put {
                        Content::default()
                    } else {
                        old.content
                    };
                    content.write(origin, entry.offset, entry.length);
                    let index = self.add_content(content.clone());
                    (request.content, request.offset, request.length) =
                        (Some(index), entry.offset, entry.length);
                    let file = FileNode {
                        content,
                        sent: Some(index),
                        ..FileNode::default()
                    };
                    self.tree.insert(entry.path.clone(), path, Node::File(file));
                    self.send(request);
                } else {
                    self.skip("PUT that failed in the recording: its condition is not known");
                }
            }
            Kind::Lock => {
                if !ok {
                    return self
                        .skip("LOCK that failed in the recording: the other's lock is not known");
                }
                if self.tree.get(&entry.path).is_none() {
                    let file = FileNode {
                        lock_only: true,
                        ..FileNode::default()
                    };
                    self.tree.insert(entry.path.clone(), path, Node::File(file));
                }
                self.locks.insert((client, path), ());
                self.send(request);
            }
            Kind::Unlock => {
                if self.locks.remove(&(client, path)).is_none() {
                    return self.skip("UNLOCK of a lock that the trace did not take");
                }
                self.send(request);
            }
            Kind::Delete => {
                self.send(request);
                if ok {
                    for (name, _) in self.tree.remove(&entry.path) {
                        self.forget_locks(&name);
                    }
                }
            }
            Kind::Mkcol if ok && self.is_collection(&entry.path) => {
                self.skip(super::files::EARLY);
            }
            Kind::Mkcol => {
                self.send(request);
                if ok {
                    self.tree.insert(entry.path.clone(), path, Node::Dir);
                }
            }
            Kind::Move => {
                self.send(request);
                if ok {
                    self.forget_locks(&entry.path);
                    self.rename(entry);
                }
            }
            Kind::Copy => {
                self.send(request);
                if ok && let Some(to) = &entry.path2 {
                    let copied = self.tree.with_all_beneath(&entry.path);
                    self.tree.remove(to);
                    for (name, node) in copied {
                        let name: Arc<str> = format!("{to}{}", &name[entry.path.len()..]).into();
                        let id = self.path_id(&name);
                        self.tree.insert(name, id, node);
                    }
                }
            }
            // OPTIONS, PROPFIND, PROPPATCH: they leave the model as it is.
            _ => self.send(request),
        }
    }

    /// DELETE and MOVE end the locks of what they remove (RFC 4918, 9.6 and 9.9).
    fn forget_locks(&mut self, path: &str) {
        if let Some(&id) = self.path_ids.get(path) {
            self.locks.retain(|(_, locked), ()| *locked != id);
        }
    }
}
