//! Names that are links: a trace has one name for each file, so further ones are led back to it.

use super::table;
use std::collections::HashMap;

/// Links are followed this far; more is a circle.
const DEPTH_MAX: usize = 40;

/// Further names of files, as far as the log has shown their making.
#[derive(Default)]
pub struct Links {
    /// Each further name (hard link), and the name that the file goes by.
    hard: HashMap<String, String>,
    /// Each symbolic link, and where it leads.
    symbolic: HashMap<String, String>,
}

impl Links {
    /// The name that what `path` leads to goes by.
    pub fn file(&self, path: String) -> String {
        if self.hard.is_empty() && self.symbolic.is_empty() {
            return path;
        }
        let mut path = path;
        for _ in 0..DEPTH_MAX {
            match self.symbolic.get(&path) {
                Some(to) => path = to.clone(),
                None => break,
            }
        }
        self.hard.get(&path).cloned().unwrap_or(path)
    }

    /// `to` is a further name of what `from` names.
    pub fn link(&mut self, from: &str, to: &str) {
        if let Some(target) = self.symbolic.get(from).cloned() {
            self.symbolic.insert(to.to_string(), target);
            return;
        }
        let file = self.hard.get(from).map_or(from, |f| f).to_string();
        self.hard.insert(to.to_string(), file);
    }

    /// `name` leads to `target`, which may be relative to where `name` is.
    pub fn symlink(&mut self, target: &str, name: &str) {
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        let target = table::resolve(parent, target);
        self.symbolic.insert(name.to_string(), target);
    }

    /// Whether `name` is a further one.
    pub fn is_further(&self, name: &str) -> bool {
        self.hard.contains_key(name) || self.is_symbolic(name)
    }

    /// Whether `name` is a symbolic link.
    pub fn is_symbolic(&self, name: &str) -> bool {
        self.symbolic.contains_key(name)
    }

    /// Forgets a further name.
    pub fn forget(&mut self, name: &str) {
        self.hard.remove(name);
        self.symbolic.remove(name);
    }

    /// A further name moves, over whatever had the new one.
    pub fn move_further(&mut self, from: &str, to: &str) {
        self.forget(to);
        if let Some(file) = self.hard.remove(from) {
            if file != to {
                self.hard.insert(to.to_string(), file);
            }
        } else if let Some(target) = self.symbolic.remove(from) {
            self.symbolic.insert(to.to_string(), target);
        }
    }

    /// The file that goes by `name` loses this name: the one it goes by from now on, if it has another.
    pub fn next_name(&mut self, name: &str) -> Option<String> {
        let others = self.hard.iter().filter(|(_, file)| *file == name);
        let next = others.map(|(other, _)| other).min()?.clone();
        self.hard.remove(&next);
        for file in self.hard.values_mut().filter(|file| *file == name) {
            file.clone_from(&next);
        }
        Some(next)
    }

    /// What goes by `from`, and all beneath it, has another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        for names in [&mut self.hard, &mut self.symbolic] {
            let old = std::mem::take(names);
            let moved = |name: String| table::moved(&name, from, to).unwrap_or(name);
            *names = old.into_iter().map(|(k, v)| (moved(k), moved(v))).collect();
        }
    }
}
