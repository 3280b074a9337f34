//! Who holds which descriptor at which offset, and how large files are as far as the log shows.

use crate::trace::{Op, with_all_beneath};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// The kernel's open file description: duplicated and inherited descriptors share it.
#[derive(Clone, Copy, Default)]
struct OpenFile {
    offset: u64,
    append: bool,
}

#[derive(Clone, Default)]
struct Process {
    files: HashMap<i64, Rc<Cell<OpenFile>>>,
    cwd: Option<String>,
}

/// All processes of a log.
#[derive(Default)]
pub struct Tables {
    processes: HashMap<u32, Rc<RefCell<Process>>>,
    /// Calls that make a process and have not returned: who, and whether it is a thread.
    forking: Vec<(u32, bool)>,
    /// Ordered, so that what lies beneath a directory is found without looking at the rest.
    sizes: BTreeMap<String, u64>,
}

impl Tables {
    fn process(&mut self, pid: u32) -> Rc<RefCell<Process>> {
        if let Some(process) = self.processes.get(&pid) {
            return process.clone();
        }
        // A child may run before its parent's call returns: it is the child of who is making one.
        let parent = self.forking.iter().rposition(|(parent, _)| *parent != pid);
        if let Some(index) = parent {
            let (parent, thread) = self.forking.remove(index);
            self.inherit(parent, pid, thread);
        }
        self.processes.entry(pid).or_default().clone()
    }

    fn inherit(&mut self, parent: u32, child: u32, thread: bool) {
        let parent = self.processes.entry(parent).or_default().clone();
        let process = if thread {
            parent
        } else {
            Rc::new(RefCell::new(parent.borrow().clone()))
        };
        self.processes.insert(child, process);
    }

    fn file(&mut self, pid: u32, fd: i64) -> Rc<Cell<OpenFile>> {
        let process = self.process(pid);
        let mut process = process.borrow_mut();
        process.files.entry(fd).or_default().clone()
    }

    /// A call that makes a process has begun.
    pub fn begin_fork(&mut self, pid: u32, thread: bool) {
        self.process(pid);
        self.forking.push((pid, thread));
    }

    /// `parent` has made `child`.
    pub fn fork(&mut self, parent: u32, child: u32, thread: bool) {
        self.forking.retain(|(pid, _)| *pid != parent);
        if !self.processes.contains_key(&child) {
            self.process(parent);
            self.inherit(parent, child, thread);
        }
    }

    /// The process is gone.
    pub fn exit(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.forking.retain(|(parent, _)| *parent != pid);
    }

    /// A descriptor was made by `open`.
    pub fn open(&mut self, pid: u32, fd: i64, append: bool) {
        let file = Rc::new(Cell::new(OpenFile { offset: 0, append }));
        self.process(pid).borrow_mut().files.insert(fd, file);
    }

    /// A descriptor was closed.
    pub fn close(&mut self, pid: u32, fd: i64) {
        self.process(pid).borrow_mut().files.remove(&fd);
    }

    /// `to` now is the same open file as `from`.
    pub fn duplicate(&mut self, pid: u32, from: i64, to: i64) {
        let file = self.file(pid, from);
        self.process(pid).borrow_mut().files.insert(to, file);
    }

    /// Moves the offset by what was read or written; gives where that began.
    pub fn advance(&mut self, pid: u32, fd: i64, path: &str, op: Op, length: u64) -> u64 {
        let file = self.file(pid, fd);
        let mut state = file.get();
        if state.append && op.writes() {
            state.offset = self.size(path).unwrap_or(state.offset);
        }
        let begin = state.offset;
        state.offset = begin.saturating_add(length);
        file.set(state);
        begin
    }

    /// Sets the offset.
    pub fn seek(&mut self, pid: u32, fd: i64, offset: u64) {
        let file = self.file(pid, fd);
        file.set(OpenFile {
            offset,
            ..file.get()
        });
    }

    /// The working directory, where known.
    pub fn cwd(&self, pid: u32) -> Option<String> {
        self.processes
            .get(&pid)
            .and_then(|p| p.borrow().cwd.clone())
    }

    /// Sets the working directory.
    pub fn chdir(&mut self, pid: u32, path: &str) {
        let process = self.process(pid);
        let mut process = process.borrow_mut();
        if process.cwd.as_deref() != Some(path) {
            process.cwd = Some(path.to_string());
        }
    }

    /// The size that the log shows so far.
    pub fn size(&self, path: &str) -> Option<u64> {
        self.sizes.get(path).copied()
    }

    /// The file is exactly this long.
    pub fn resize(&mut self, path: &str, size: u64) {
        self.sizes.insert(path.to_string(), size);
    }

    /// The file is at least this long.
    pub fn grow(&mut self, path: &str, end: u64) {
        match self.sizes.get_mut(path) {
            Some(size) => *size = (*size).max(end),
            None => self.resize(path, end),
        }
    }

    /// The file is gone.
    pub fn forget(&mut self, path: &str) {
        self.sizes.remove(path);
    }

    /// The file has another name; what had that name is gone.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.sizes.remove(to);
        for old in with_all_beneath(&self.sizes, from) {
            if let Some(new) = moved(&old, from, to)
                && let Some(size) = self.sizes.remove(&old)
            {
                self.sizes.insert(new, size);
            }
        }
    }
}

/// The name that `name` has when `from` becomes `to`; none when it is not concerned.
pub fn moved(name: &str, from: &str, to: &str) -> Option<String> {
    let rest = name.strip_prefix(from)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
}

/// `path` seen from the absolute directory `base`, without dots.
pub fn resolve(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let whole = if path.starts_with('/') { "" } else { base };
    for part in whole.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
