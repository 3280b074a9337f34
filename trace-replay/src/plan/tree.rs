//! The name space as it is while the trace is planned.

use crate::content::Content;
use crate::trace::with_all_beneath;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a path is.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A collection.
    Dir,
    /// A file.
    File(FileNode),
}

/// A file: what the application sees, and what the server has been sent.
#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    /// What the application sees.
    pub(super) content: Content,
    /// What the server has: an index into the plan's contents.
    pub(super) sent: Option<u32>,
    /// Changed extents not sent yet.
    pub(super) unsent: Vec<(u64, u64)>,
    /// Changed in a way that only a whole PUT can send.
    pub(super) whole: bool,
    /// Made by a LOCK alone.
    pub(super) lock_only: bool,
    /// Descriptors, when the replay makes calls.
    pub(super) open: Vec<OpenFile>,
}

/// A descriptor: who opened it, and by which request.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFile {
    pub(super) lane: u32,
    pub(super) handle: u32,
}

impl FileNode {
    /// Whether the server has an older state, or none.
    pub(super) fn is_behind(&self) -> bool {
        self.sent.is_none() || self.whole || !self.unsent.is_empty()
    }

    /// Notes a changed extent, joined with the one before where they touch.
    pub(super) fn touch(&mut self, start: u64, end: u64) {
        match self.unsent.last_mut() {
            Some((s, e)) if start <= *e && end >= *s => (*s, *e) = ((*s).min(start), (*e).max(end)),
            _ => self.unsent.push((start, end)),
        }
    }
}

/// All paths that exist.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<Arc<str>, (Node, u32)>,
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(|(n, _)| n)
    }

    pub(super) fn file(&mut self, path: &str) -> Option<&mut FileNode> {
        match self.nodes.get_mut(path) {
            Some((Node::File(file), _)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, path: Arc<str>, id: u32, node: Node) {
        self.nodes.insert(path, (node, id));
    }

    /// Removes the path and all beneath it.
    pub(super) fn remove(&mut self, path: &str) -> Vec<(Arc<str>, Node)> {
        with_all_beneath(&self.nodes, path)
            .into_iter()
            .filter_map(|p| self.nodes.remove(&p).map(|(n, _)| (p, n)))
            .collect()
    }

    /// The path and all beneath it, as they are.
    pub(super) fn with_all_beneath(&self, path: &str) -> Vec<(Arc<str>, Node)> {
        with_all_beneath(&self.nodes, path)
            .into_iter()
            .filter_map(|p| self.get(&p).cloned().map(|n| (p, n)))
            .collect()
    }

    /// Files beneath `path` (or it itself; all for the root) that the server lacks bytes of.
    pub(super) fn behind(&self, path: &str) -> Vec<Arc<str>> {
        let mut files = match path {
            "" => self.files(),
            path => with_all_beneath(&self.nodes, path),
        };
        files.retain(|p| matches!(self.get(p), Some(Node::File(f)) if f.is_behind()));
        files
    }

    /// All files.
    pub(super) fn files(&self) -> Vec<Arc<str>> {
        self.nodes
            .iter()
            .filter(|(_, (node, _))| matches!(node, Node::File(_)))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Every descriptor, with its file.
    pub(super) fn open_files(&self) -> Vec<(Arc<str>, u32)> {
        let mut open = Vec::new();
        for (path, (node, _)) in &self.nodes {
            if let Node::File(file) = node {
                open.extend(file.open.iter().map(|o| (path.clone(), o.handle)));
            }
        }
        open
    }

    /// Files the server holds, and what they hold.
    pub(super) fn sent_files(&self) -> Vec<(u32, u32)> {
        self.nodes
            .values()
            .filter_map(|(node, id)| match node {
                Node::File(f) if !f.lock_only => f.sent.map(|content| (*id, content)),
                _ => None,
            })
            .collect()
    }
}
