//! Names that are links: a trace has one name for each file, so further ones are led back to it.

use super::table;
use crate::trace::with_all_beneath;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Links are followed this far; more is a circle.
const DEPTH_MAX: usize = 40;

/// A file with several names.
struct File {
    /// The name that it goes by in the trace.
    name: String,
    further: BTreeSet<String>,
}

/// Further names of files, as far as the log has shown their making.
#[derive(Default)]
pub struct Links {
    /// Files with several names, by number.
    files: HashMap<u64, File>,
    next: u64,
    /// Every name of those files. Ordered, so that what lies beneath a directory is found without looking at the rest.
    hard: BTreeMap<String, u64>,
    /// Each symbolic link, and where it leads as it was written: the kernel follows names, not the files they had.
    symbolic: BTreeMap<String, String>,
}

impl Links {
    /// The name that what `path` leads to goes by.
    pub fn file(&self, path: String) -> String {
        let mut path = path;
        for _ in 0..DEPTH_MAX {
            match self.symbolic.get(&path) {
                Some(target) => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    path = table::resolve(parent, target);
                }
                None => break,
            }
        }
        match self.named(&path) {
            Some((_, file)) => file.name.clone(),
            None => path,
        }
    }

    fn named(&self, name: &str) -> Option<(u64, &File)> {
        let id = *self.hard.get(name)?;
        Some((id, self.files.get(&id)?))
    }

    /// Whether both are names of one file. A symbolic link is another file than what it leads to.
    pub fn same(&self, a: &str, b: &str) -> bool {
        a == b
            || self
                .hard
                .get(a)
                .is_some_and(|id| self.hard.get(b) == Some(id))
    }

    /// `to` is a further name of what `from` names.
    pub fn link(&mut self, from: &str, to: &str) {
        self.drop_name(to);
        if let Some(target) = self.symbolic.get(from).cloned() {
            self.symbolic.insert(to.to_string(), target);
            return;
        }
        let next = self.next;
        let id = *self.hard.entry(from.to_string()).or_insert(next);
        if id == next {
            self.next += 1;
        }
        let file = self.files.entry(id).or_insert_with(|| File {
            name: from.to_string(),
            further: BTreeSet::new(),
        });
        file.further.insert(to.to_string());
        self.hard.insert(to.to_string(), id);
    }

    /// `name` leads to `target`, which may be relative to where `name` is.
    pub fn symlink(&mut self, target: &str, name: &str) {
        self.drop_name(name);
        self.symbolic.insert(name.to_string(), target.to_string());
    }

    /// Whether `name` is a further one.
    pub fn is_further(&self, name: &str) -> bool {
        self.named(name).is_some_and(|(_, file)| file.name != name) || self.is_symbolic(name)
    }

    /// Whether `name` is a symbolic link.
    pub fn is_symbolic(&self, name: &str) -> bool {
        self.symbolic.contains_key(name)
    }

    /// Forgets a further name.
    pub fn forget(&mut self, name: &str) {
        self.symbolic.remove(name);
        if self.is_further(name) {
            self.drop_hard(name);
        }
    }

    /// The file that goes by `name` loses this name: the one it goes by from now on, if it has another.
    pub fn next_name(&mut self, name: &str) -> Option<String> {
        let (id, file) = self.named(name)?;
        if file.name != name {
            return None;
        }
        let file = self.files.get_mut(&id)?;
        let next = file.further.pop_first()?;
        file.name.clone_from(&next);
        self.hard.remove(name);
        self.forget_single(id);
        Some(next)
    }

    /// What has the name `from`, and all beneath it, has another name, and what had that one has it no more. Symbolic
    /// links that lead there stay as they are.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.drop_name(to);
        for old in with_all_beneath(&self.hard, from) {
            if let Some(new) = table::moved(&old, from, to) {
                self.rename_hard(&old, &new);
            }
        }
        for old in with_all_beneath(&self.symbolic, from) {
            if let Some(new) = table::moved(&old, from, to)
                && let Some(target) = self.symbolic.remove(&old)
            {
                self.symbolic.insert(new, target);
            }
        }
    }

    fn rename_hard(&mut self, old: &str, new: &str) {
        self.drop_hard(new);
        let Some(id) = self.hard.remove(old) else {
            return;
        };
        self.hard.insert(new.to_string(), id);
        if let Some(file) = self.files.get_mut(&id) {
            if file.name == old {
                file.name = new.to_string();
            } else {
                file.further.remove(old);
                file.further.insert(new.to_string());
            }
        }
    }

    /// Whatever had this name has it no more.
    fn drop_name(&mut self, name: &str) {
        self.symbolic.remove(name);
        self.drop_hard(name);
    }

    fn drop_hard(&mut self, name: &str) {
        if self.next_name(name).is_some() {
            return;
        }
        if let Some(id) = self.hard.remove(name) {
            if let Some(file) = self.files.get_mut(&id) {
                file.further.remove(name);
            }
            self.forget_single(id);
        }
    }

    /// A file with one name is as any other.
    fn forget_single(&mut self, id: u64) {
        if let Some(file) = self.files.get(&id)
            && file.further.is_empty()
        {
            self.hard.remove(&file.name);
            self.files.remove(&id);
        }
    }
}
