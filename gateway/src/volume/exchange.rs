//! A MOVE over something that a plain rename cannot replace takes two steps: the names are exchanged, and what was replaced, now
//! under the old name, is set aside. The intent log finishes that after a crash between the two. Where there is no log, a
//! symbolic link in `.tierdav/tmp` does: it is named by the version that was replaced, and leads to the old name.
//!
//! Where names cannot be exchanged, what is replaced is set aside first, and another such link leads back to its name.

use std::io;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use tiering::FileId;

use super::apply;
use super::cleaner::Cleaner;
use super::path::ResourcePath;
use super::start::is_version;
use super::tree::{self, Tree, id_name};

const SUFFIX: &str = ".replaced";
const BACK: &str = ".back";

/// A MOVE that is under way. Gone when dropped, with its note: either the MOVE was finished, or it never began. If neither is so,
/// [`Exchange::failed`].
pub(super) struct Exchange<'a> {
    tree: &'a Tree,
    name: String,
}

impl<'a> Exchange<'a> {
    /// Notes that `replaced` will stand at `from` for a moment, and does not belong there.
    pub fn note(
        tree: &'a Tree,
        from: &ResourcePath,
        replaced: FileId,
    ) -> io::Result<Option<Exchange<'a>>> {
        let name = format!("{}{SUFFIX}", id_name(replaced));
        match rustix::fs::symlinkat(from.relative(), &tree.tmp, name.as_str()) {
            Ok(()) | Err(Errno::EXIST) => Ok(Some(Exchange { tree, name })),
            // A path that no link can hold: then it is as if this were not here.
            Err(Errno::NAMETOOLONG) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The MOVE failed. If `replaced` stands at `from`, the names could not be exchanged back: the note stays for the next start.
    pub fn failed(self, from: &apply::Place<'_>, path: &ResourcePath, replaced: FileId) {
        let there = self.tree.look(from.dir, from.name, path);
        // Of what cannot be looked at, the next start finds out.
        if there.map_or(true, |entry| is_version(&entry, replaced)) {
            tracing::warn!(%path, "the next start removes what a MOVE that failed half-way has left here");
            std::mem::forget(self);
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        remove_note(self.tree, &self.name);
    }
}

/// Something that was set aside, but belongs back where it was, unless something else is there by then. Gone when dropped.
pub(super) struct GoesBack<'a> {
    tree: &'a Tree,
    name: Option<String>,
}

impl<'a> GoesBack<'a> {
    /// Notes that `aside`, in `.tierdav/tmp`, is what `place` names now.
    pub fn note(tree: &'a Tree, aside: &str, place: &apply::Place<'_>) -> io::Result<GoesBack<'a>> {
        let dir = std::fs::read_link(tree::proc_path(place.dir, None))?;
        let root = tree.hidden_path().parent();
        let below = root.and_then(|root| dir.strip_prefix(root).ok());
        let path = below
            .ok_or(Errno::NOENT)
            .map(|below| below.join(place.name))?;
        let name = format!("{aside}{BACK}");
        let name = match rustix::fs::symlinkat(&path, &tree.tmp, name.as_str()) {
            Ok(()) => Some(name),
            Err(Errno::NAMETOOLONG) => None,
            Err(e) => return Err(e.into()),
        };
        Ok(GoesBack { tree, name })
    }

    /// It still has to go back.
    pub fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for GoesBack<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            remove_note(self.tree, name);
        }
    }
}

fn remove_note(tree: &Tree, name: &str) {
    if let Err(error) = rustix::fs::unlinkat(&tree.tmp, name, AtFlags::empty()) {
        tracing::warn!(%error, name, "could not remove the note of a MOVE; the next start tries again");
    }
}

/// Puts back what the note `name` in `.tierdav/tmp` is about, if it is such a note and nothing else has the name.
fn put_back(tree: &Tree, name: &[u8]) -> io::Result<()> {
    let noted = std::str::from_utf8(name).ok();
    let Some(aside) = noted.and_then(|n| n.strip_suffix(BACK)) else {
        return Ok(());
    };
    let Some(path) = path_of(tree, name)? else {
        return Ok(());
    };
    match tree.parent(&path) {
        Ok((dir, name)) => match tree::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => match rustix::fs::renameat(&tree.tmp, aside, &dir, name) {
                // It had not been set aside yet, or was removed.
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(e) => Err(e.into()),
            },
            Ok(_) => Ok(()),
            Err(e) => Err(e.into()),
        },
        Err(e) if tree::is_absent(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Where a note leads.
fn path_of(tree: &Tree, name: &[u8]) -> io::Result<Option<ResourcePath>> {
    match rustix::fs::readlinkat(&tree.tmp, name, Vec::new()) {
        Ok(path) => Ok(path
            .to_str()
            .ok()
            .and_then(|p| ResourcePath::parse(&format!("/{p}")).ok())),
        Err(Errno::INVAL) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Finishes what `name` in `.tierdav/tmp` notes, if it is a note. It is removed like anything there.
pub(super) fn finish(tree: &Tree, cleaner: &Cleaner, name: &[u8]) -> io::Result<()> {
    put_back(tree, name)?;
    let noted = std::str::from_utf8(name).ok();
    let id = noted.and_then(|n| u64::from_str_radix(n.strip_suffix(SUFFIX)?, 16).ok());
    let Some(replaced) = id.map(FileId) else {
        return Ok(());
    };
    let Some(path) = path_of(tree, name)? else {
        return Ok(());
    };
    match tree.parent(&path) {
        Ok((dir, name)) => {
            if is_version(&tree.look(&dir, name, &path)?, replaced) {
                let place = apply::Place { dir: &dir, name };
                if let apply::Left::Aside(aside) = apply::set_aside(tree, &place)? {
                    cleaner.remove(aside, false);
                }
            }
            Ok(())
        }
        Err(e) if tree::is_absent(&e) => Ok(()),
        Err(e) => Err(e),
    }
}
