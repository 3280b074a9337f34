//! A MOVE over something that a plain rename cannot replace takes two steps: the names are exchanged, and what was replaced, now
//! under the old name, is set aside. The intent log finishes that after a crash between the two. Where there is no log, a
//! symbolic link in `.tierdav/tmp` does: it is named by the version that was replaced, and leads to the old name.

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
        let gone = rustix::fs::unlinkat(&self.tree.tmp, self.name.as_str(), AtFlags::empty());
        if let Err(error) = gone {
            tracing::warn!(%error, name = self.name, "could not remove the note of a MOVE; the next start tries again");
        }
    }
}

/// Finishes what `name` in `.tierdav/tmp` notes; `false` when it is no such note. It is removed like anything there.
pub(super) fn finish(tree: &Tree, cleaner: &Cleaner, name: &[u8]) -> io::Result<bool> {
    let noted = std::str::from_utf8(name).ok();
    let id = noted.and_then(|n| u64::from_str_radix(n.strip_suffix(SUFFIX)?, 16).ok());
    let Some(replaced) = id.map(FileId) else {
        return Ok(false);
    };
    let path = match rustix::fs::readlinkat(&tree.tmp, name, Vec::new()) {
        Ok(path) => path
            .to_str()
            .ok()
            .and_then(|p| ResourcePath::parse(&format!("/{p}")).ok()),
        Err(Errno::INVAL) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    if let Some(path) = path {
        match tree.parent(&path) {
            Ok((dir, name)) => {
                if is_version(&tree.look(&dir, name, &path)?, replaced) {
                    let place = apply::Place { dir: &dir, name };
                    if let apply::Left::Aside(aside) = apply::set_aside(tree, &place)? {
                        cleaner.remove(aside, false);
                    }
                }
            }
            Err(e) if tree::is_absent(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
