//! Short content that the log makes durable while its file is only written, not synced.
//!
//! Where new content goes past the cache (`write_policy = around`) to a file system that keeps a journal, a commit waits for the log
//! alone. The record has the content until a checkpoint has synced the tree. A power cut may leave a file its name and its identity
//! record without its bytes, or its length; then nothing takes it for that version any more. So before changes are
//! replayed, which tell versions by their ids, each is looked for wherever the log had it, and made whole.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::fs::{Advice, AtFlags, FileType};

use super::identity::{Identity, State};
use super::log::record::{LoggedObject, Record};
use super::path::ResourcePath;
use super::tree::{self, Tree};

/// The content of a PUT that is in its file and in the log.
pub(super) fn content<'a>(identity: &Identity, objects: &'a [LoggedObject]) -> Option<&'a Bytes> {
    match objects {
        [only] if identity.state == State::Inline => only.inline.as_ref(),
        _ => None,
    }
}

/// The time in the record of a file that is being restored.
const BEING_RESTORED: i64 = i64::MAX;

/// A version and its content.
#[derive(Clone, Copy)]
struct Version<'a> {
    identity: &'a Identity,
    content: &'a Bytes,
}

/// Where versions were in the course of `records`.
#[derive(Default)]
struct Whereabouts<'a> {
    now: BTreeMap<String, Version<'a>>,
    ever: Vec<(String, Version<'a>)>,
}

impl<'a> Whereabouts<'a> {
    fn follow(&mut self, record: &'a Record) {
        match record {
            Record::Put {
                path,
                identity,
                objects,
                ..
            } => {
                self.take(path.relative());
                if let Some(content) = content(identity, objects) {
                    let version = Version { identity, content };
                    self.place(path.relative().to_owned(), version);
                }
            }
            Record::Move { from, to, .. } => {
                let moved = self.take(from.relative());
                self.take(to.relative());
                for (below, version) in moved {
                    self.place(format!("{}{below}", to.relative()), version);
                }
            }
            Record::Install { path, .. } | Record::Delete { path, .. } => {
                self.take(path.relative());
            }
            Record::Mkcol { .. }
            | Record::Attributes { .. }
            | Record::Settled { .. }
            | Record::Abort { .. } => {}
        }
    }

    fn place(&mut self, name: String, version: Version<'a>) {
        self.ever.push((name.clone(), version));
        self.now.insert(name, version);
    }

    /// Takes a resource away with all below it; their names go on from its own.
    fn take(&mut self, name: &str) -> Vec<(String, Version<'a>)> {
        // In the order of bytes `0` follows `/`.
        let below = self.now.range(format!("{name}/")..format!("{name}0"));
        let mut names: Vec<String> = below.map(|(name, _)| name.clone()).collect();
        names.push(name.to_owned());
        let taken = names.into_iter().filter_map(|full| {
            let version = self.now.remove(&full)?;
            Some((full.get(name.len()..)?.to_owned(), version))
        });
        taken.collect()
    }
}

/// Makes whole what a power cut took bytes from.
pub(super) fn restore(
    tree: &Tree,
    records: &[(u64, Record)],
    aborted: &HashSet<u64>,
) -> io::Result<()> {
    let mut whereabouts = Whereabouts::default();
    for (number, record) in records {
        if !aborted.contains(number) {
            whereabouts.follow(record);
        }
    }
    let mut restored = 0;
    for (name, version) in &whereabouts.ever {
        let Ok(path) = ResourcePath::parse(&format!("/{name}")) else {
            continue;
        };
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"));
        restored += u64::from(restore_at(tree, &path, *version).map_err(at)?);
    }
    if restored > 0 {
        tracing::info!(
            files = restored,
            "intent log: the bytes of new files were restored"
        );
    }
    Ok(())
}

/// `true` if the version is there, and was not whole.
fn restore_at(tree: &Tree, path: &ResourcePath, version: Version<'_>) -> io::Result<bool> {
    let file = match tree.file(path) {
        Ok(file) => file,
        // What may not even be read is somebody else's by now.
        Err(e) if tree::is_absent(&e) || e.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(false);
        }
        Err(e) => return Err(e),
    };
    let stat = tree::statx(&file, "", AtFlags::EMPTY_PATH)?;
    let Version { identity, content } = version;
    // Another time is that of somebody who wrote into it beside the gateway: in a journal this one was there before the record.
    let ours = |r: &Identity| {
        r.file_id == identity.file_id && [stat.mtime_ns, BEING_RESTORED].contains(&r.mtime_ns)
    };
    let Some(record) = tree::get_identity(&file)?.filter(ours) else {
        return Ok(false);
    };
    if stat.file_type != FileType::RegularFile {
        return Ok(false);
    }
    // A write that failed leaves pages that pass for written.
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut there = vec![0; content.len()];
    let whole = stat.len == content.len() as u64
        && file.read_exact_at(&mut there, 0).is_ok()
        && there == content[..];
    let own = Identity {
        mtime_ns: identity.mtime_ns,
        ino: stat.ino,
        ..record
    };
    if whole && own == record {
        return Ok(false);
    }
    let file = File::options()
        .write(true)
        .open(tree::proc_path(&file, None))?;
    if !whole {
        // Until it is whole its time says nothing: a start that ends in between is followed by one that goes on.
        let begun = Identity {
            mtime_ns: BEING_RESTORED,
            ..own
        };
        tree::set_identity(&file, &begun)?;
        file.write_all_at(content, 0)?;
        file.set_len(content.len() as u64)?;
    }
    tree::set_mtime(&file, own.mtime_ns)?;
    // Of a root that was copied it is another inode.
    tree::set_identity(&file, &own)?;
    Ok(!whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::volume::identity::ENCODED_BYTES;
    use tiering::FileId;

    fn p(path: &str) -> ResourcePath {
        ResourcePath::parse(path).unwrap()
    }

    fn put(path: &str, id: u64) -> Record {
        let identity = Identity {
            file_id: FileId(id),
            len: 1,
            mtime_ns: 1,
            created_ns: 1,
            ino: 1,
            state: State::Inline,
            all_dirty: false,
            lock_null: false,
        };
        assert_eq!(identity.encode().len(), ENCODED_BYTES);
        Record::Put {
            path: p(path),
            identity,
            mode: 0o644,
            in_tree: false,
            props: Bytes::new(),
            objects: vec![LoggedObject {
                index: 0,
                len: 1,
                inline: Some(Bytes::from_static(b"x")),
            }],
        }
    }

    fn moved(from: &str, to: &str) -> Record {
        Record::Move {
            from: p(from),
            to: p(to),
            id: FileId(9),
            replaced: None,
        }
    }

    fn ever(records: &[Record]) -> Vec<(&str, u64)> {
        let mut whereabouts = Whereabouts::default();
        records.iter().for_each(|r| whereabouts.follow(r));
        let all = whereabouts.ever.leak();
        all.iter()
            .map(|(name, v)| (name.as_str(), v.identity.file_id.0))
            .collect()
    }

    #[test]
    fn a_version_is_looked_for_wherever_it_was() {
        let records = [
            put("/d/a", 1),
            put("/d.txt", 2),
            moved("/d/a", "/d/b"),
            moved("/d", "/e"),
            moved("/e/b", "/f"),
        ];
        let want = [("d/a", 1), ("d.txt", 2), ("d/b", 1), ("e/b", 1), ("f", 1)];
        assert_eq!(ever(&records), want);
    }

    #[test]
    fn what_was_replaced_or_deleted_moves_no_more() {
        let deleted = |path| Record::Delete {
            path: p(path),
            id: FileId(9),
        };
        let records = [
            put("/d/a", 1),
            put("/d/a", 2),
            put("/d/b", 3),
            put("/t/c", 4),
            deleted("/d/b"),
            moved("/d", "/t"),
            deleted("/t"),
            moved("/t", "/u"),
        ];
        let want = [("d/a", 1), ("d/a", 2), ("d/b", 3), ("t/c", 4), ("t/a", 2)];
        assert_eq!(ever(&records), want);
    }
}
