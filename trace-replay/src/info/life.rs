//! Which files live, since when, and how many of the bytes written to them died within the trace.

use super::histogram::Histogram;
use crate::trace::{Entry, Op, beneath};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of the files that the trace made.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Lifetimes {
    /// Files made in the trace.
    pub born: u64,
    /// Of these, how many were deleted or replaced in the trace.
    pub died: u64,
    /// Time from making to deletion or replacement, in microseconds.
    pub lifetime_us: Histogram,
    /// Bytes written to files that were deleted or replaced later, or cut to nothing.
    pub died_bytes: u64,
    /// `died_bytes` as a share of all bytes written.
    pub died_bytes_share: f64,
}

#[derive(Default)]
struct Life {
    /// None for a file that was there before.
    born_us: Option<i64>,
    written_bytes: u64,
    size: u64,
}

/// The files that live now.
#[derive(Default)]
pub(super) struct Living {
    files: BTreeMap<Arc<str>, Life>,
    pub(super) bytes: u64,
    pub(super) found: Lifetimes,
}

impl Living {
    /// Takes a successful operation.
    pub(super) fn note(&mut self, entry: &Entry) {
        let path = &entry.path;
        match entry.op {
            Op::FileCreate => {
                self.end(path, entry.at_us);
                self.begin(path, entry.at_us);
            }
            Op::DavPut if !entry.ranged => {
                self.end(path, entry.at_us);
                self.begin(path, entry.at_us);
                self.grow(path, entry.offset + entry.length, entry.length);
            }
            op if op.writes() => self.grow(path, entry.offset + entry.length, entry.length),
            Op::FileTruncate => {
                let life = self.files.entry(path.clone()).or_default();
                self.bytes = self.bytes - life.size + entry.length;
                life.size = entry.length;
                if entry.length == 0 {
                    self.found.died_bytes += std::mem::take(&mut life.written_bytes);
                }
            }
            Op::FileUnlink | Op::DavDelete => {
                self.end(path, entry.at_us);
                for inside in beneath(&self.files, path) {
                    self.end(&inside, entry.at_us);
                }
            }
            Op::FileRename | Op::DavMove => {
                if let Some(to) = &entry.path2 {
                    self.rename(path, to, entry.at_us);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, path: &Arc<str>, at_us: i64) {
        let born_us = Some(at_us);
        let life = Life {
            born_us,
            ..Life::default()
        };
        self.files.insert(path.clone(), life);
        self.found.born += 1;
    }

    fn grow(&mut self, path: &Arc<str>, end: u64, written: u64) {
        let life = self.files.entry(path.clone()).or_default();
        life.written_bytes += written;
        self.bytes += end.saturating_sub(life.size);
        life.size = life.size.max(end);
    }

    fn end(&mut self, path: &str, at_us: i64) {
        let Some(life) = self.files.remove(path) else {
            return;
        };
        self.bytes -= life.size;
        self.found.died_bytes += life.written_bytes;
        if let Some(born) = life.born_us {
            self.found.died += 1;
            // Times of different threads may be a little out of order.
            self.found
                .lifetime_us
                .add(at_us.saturating_sub(born).max(0) as u64);
        }
    }

    fn rename(&mut self, from: &Arc<str>, to: &Arc<str>, at_us: i64) {
        if from == to {
            return;
        }
        // Whatever moves there, known or not, takes its place.
        self.end(to, at_us);
        let mut moved = vec![(from.clone(), to.clone())];
        for inside in beneath(&self.files, from) {
            let rest = &inside[from.len()..];
            moved.push((inside.clone(), format!("{to}{rest}").into()));
        }
        for (from, to) in moved {
            if let Some(life) = self.files.remove(&from) {
                self.end(&to, at_us);
                self.files.insert(to, life);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn entry(at_us: i64, op: Op, path: &str, length: u64) -> Entry {
        let mut entry = Entry::new(at_us, "c".into(), op, path.into());
        entry.length = length;
        entry
    }

    #[test]
    fn deletion_replacement_and_moves_end_the_right_lives() {
        let mut living = Living::default();
        let mut rename = entry(40, Op::FileRename, "d", 0);
        rename.path2 = Some("e".into());
        for entry in [
            entry(0, Op::FileCreate, "d/a", 0),
            entry(1, Op::FileWrite, "d/a", 100),
            entry(2, Op::FileCreate, "d0", 0),
            entry(3, Op::FileWrite, "d0", 7),
            entry(5, Op::FileWrite, "old", 1000),
            rename,
            entry(100, Op::FileUnlink, "e/a", 0),
            entry(101, Op::FileUnlink, "old", 0),
        ] {
            living.note(&entry);
        }
        let found = &living.found;
        assert_eq!((found.born, found.died, found.died_bytes), (2, 1, 1100));
        assert_eq!(found.lifetime_us.quantile(1.0).unwrap().from, 64);
        assert_eq!(living.bytes, 7);
    }

    #[test]
    fn a_put_replaces_and_a_collection_takes_its_members_along() {
        let mut living = Living::default();
        for entry in [
            entry(0, Op::DavPut, "c/a", 10),
            entry(8, Op::DavPut, "c/a", 20),
            entry(9, Op::DavPut, "c/b", 30),
        ] {
            living.note(&entry);
        }
        assert_eq!((living.bytes, living.found.died_bytes), (50, 10));
        living.note(&entry(20, Op::DavDelete, "c", 0));
        assert_eq!((living.bytes, living.found.died), (0, 3));
    }
}
