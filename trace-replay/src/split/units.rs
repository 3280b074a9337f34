//! Cuts a load into parts that need nothing of each other: files, together with those they were renamed to or from.

use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// One part: all that happens to a file, in the order of the trace.
#[derive(Debug, Default)]
pub struct Unit {
    /// What happens.
    pub entries: Vec<Entry>,
    /// Bytes read and written.
    pub bytes: u64,
}

/// The parts of a load, and what belongs to none.
#[derive(Debug, Default)]
pub struct Units {
    /// In order of their first operation.
    pub units: Vec<Unit>,
    /// Entries that are not shared, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// Cuts the entries of a trace of file operations.
///
/// # Errors
/// Names a renamed directory: everything beneath it would have to stay together.
pub fn cut(entries: Vec<Entry>) -> Result<Units, String> {
    let directories = directories(&entries);
    let mut groups = Groups::default();
    let mut left_out = BTreeMap::new();
    let mut kept = Vec::new();
    for entry in entries {
        let other = entry.path2.as_ref().filter(|p| **p != entry.path);
        if directories.contains(&entry.path) {
            if entry.op == Op::FileRename && entry.outcome.is_ok() {
                return Err(format!(
                    "the trace renames the directory /{}; a load with such renames cannot be split by files",
                    entry.path
                ));
            }
            *left_out
                .entry("operation on a directory: each side has them all from the start")
                .or_default() += 1;
            continue;
        }
        if let Some(other) = other {
            groups.join(&entry.path, other);
        }
        kept.push(entry);
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    for entry in kept {
        let group = groups.find(&entry.path);
        let number = *numbers.entry(group).or_insert_with(|| {
            units.push(Unit::default());
            units.len() - 1
        });
        let unit = &mut units[number];
        if (entry.op.reads() || entry.op.writes()) && entry.outcome.is_ok() {
            unit.bytes += entry.length;
        }
        unit.entries.push(entry);
    }
    Ok(Units { units, left_out })
}

/// Paths that something shows to be directories: their own operations, or other paths beneath them.
fn directories(entries: &[Entry]) -> HashSet<Arc<str>> {
    let mut found: HashSet<Arc<str>> = HashSet::from(["".into()]);
    for entry in entries {
        let is_dir = matches!(
            entry.op,
            Op::FileMkdir | Op::FileRmdir | Op::FileList | Op::FileOpendir
        );
        if is_dir && !found.contains(&entry.path) {
            found.insert(entry.path.clone());
        }
        if !entry.outcome.is_ok() {
            continue;
        }
        for name in [Some(&entry.path), entry.path2.as_ref()]
            .into_iter()
            .flatten()
        {
            for (at, _) in name.match_indices('/') {
                if !found.contains(&name[..at]) {
                    found.insert(name[..at].into());
                }
            }
        }
    }
    found
}

/// Disjoint sets of paths.
#[derive(Default)]
struct Groups {
    ids: HashMap<Arc<str>, usize>,
    parents: Vec<usize>,
}

impl Groups {
    fn find(&mut self, path: &Arc<str>) -> usize {
        let next = self.parents.len();
        let mut id = *self.ids.entry(path.clone()).or_insert(next);
        if id == next {
            self.parents.push(next);
        }
        while self.parents[id] != id {
            self.parents[id] = self.parents[self.parents[id]];
            id = self.parents[id];
        }
        id
    }

    fn join(&mut self, a: &Arc<str>, b: &Arc<str>) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b)] = a.min(b);
    }
}

/// A unit's entries as a trace.
pub struct Listed {
    entries: std::vec::IntoIter<Entry>,
    unusable: Unusable,
}

impl Listed {
    /// Reads these.
    pub fn new(entries: Vec<Entry>) -> Listed {
        Listed {
            entries: entries.into_iter(),
            unusable: Unusable::default(),
        }
    }
}

impl Reader for Listed {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        self.entries.next().map(Ok)
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn entry(op: Op, path: &str, path2: &str, length: u64) -> Entry {
        Entry {
            path2: (!path2.is_empty()).then(|| path2.into()),
            length,
            ..Entry::new(0, "c".into(), op, path.into())
        }
    }

    #[test]
    fn renames_keep_files_together_and_directories_belong_to_nobody() {
        let entries = vec![
            entry(Op::FileMkdir, "d", "", 0),
            entry(Op::FileWrite, "d/a", "", 10),
            entry(Op::FileWrite, "d/b.tmp", "", 5),
            entry(Op::FileStat, "d", "", 0),
            entry(Op::FileRename, "d/b.tmp", "d/b", 0),
            entry(Op::FileRead, "d/b", "", 5),
            entry(Op::FileRename, "d/b", "d/c", 0),
            entry(Op::FileUnlink, "d/a", "", 0),
        ];
        let cut = cut(entries).unwrap();
        let shape: Vec<(usize, u64)> = cut
            .units
            .iter()
            .map(|u| (u.entries.len(), u.bytes))
            .collect();
        assert_eq!(shape, [(2, 10), (4, 10)]);
        assert_eq!(cut.left_out.values().sum::<u64>(), 2);
    }

    #[test]
    fn a_renamed_directory_is_refused_by_name() {
        let entries = vec![
            entry(Op::FileWrite, "d/a", "", 10),
            entry(Op::FileRename, "d", "e", 0),
        ];
        assert!(cut(entries).unwrap_err().contains("/d;"));
    }
}
