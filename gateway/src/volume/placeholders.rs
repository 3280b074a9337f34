//! Which files have their content in pools, and which names may hide such a file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tiering::FileId;

use super::error::{At, VolumeError};
use super::identity::{self, Identity, State};
use super::path::ResourcePath;
use super::tree::{self, Entry};
use super::types::{Kind, Meta};
use super::{Inner, Volume, hop};
use crate::objects::{PooledFile, PooledTree, Unseen};

/// The collections that a walk through the tree has come to. Links may lead to one of them, or back to one above.
#[derive(Default)]
pub struct Walked(HashSet<((u32, u32), u64)>);

impl Walked {
    /// Whether this open collection is a new one.
    fn enter(&mut self, dir: &OwnedFd) -> io::Result<bool> {
        let stat = tree::statx(dir, "", AtFlags::EMPTY_PATH)?;
        Ok(self.0.insert((stat.dev, stat.ino)))
    }
}

impl Volume {
    /// [`Volume::list`] for a walk: nothing of a collection that it has come to before, by whatever name.
    pub async fn list_once(
        &self,
        path: &ResourcePath,
        walked: &mut Walked,
    ) -> Result<Vec<(String, Meta)>, VolumeError> {
        let (inner, at) = (Arc::clone(&self.inner), path.clone());
        let dir = hop(move || inner.tree.dir(&at).at("list", &at)).await?;
        match walked.enter(&dir).at("list", path)? {
            true => self.list(path).await,
            false => Ok(Vec::new()),
        }
    }

    /// All files whose content is in pools. Reads the whole tree; waits until discarded collections are gone. Placeholders that
    /// came back from a backup become what they were, unless two have the same version.
    pub async fn pooled_files(&self) -> Result<PooledTree, VolumeError> {
        let inner = Arc::clone(&self.inner);
        hop(move || {
            inner.cleaner.finish();
            let mut walk = Walk {
                inner: &inner,
                left: vec![ResourcePath::root()],
                walked: Walked::default(),
                found: PooledTree::default(),
                strange: Vec::new(),
            };
            while let Some(path) = walk.left.pop() {
                walk.collection(&path)?;
            }
            walk.adopt();
            Ok(walk.found)
        })
        .await
    }
}

/// A walk through the tree.
struct Walk<'a> {
    inner: &'a Inner,
    left: Vec<ResourcePath>,
    walked: Walked,
    found: PooledTree,
    /// Placeholders that may be copies.
    strange: Vec<(FileId, ResourcePath)>,
}

impl Walk<'_> {
    fn collection(&mut self, path: &ResourcePath) -> Result<(), VolumeError> {
        let dir = match self.inner.tree.dir(path).at("list", path) {
            // What may be in it is not known.
            Err(VolumeError::Forbidden { path, .. }) => {
                self.unseen(path.to_string(), true);
                return Ok(());
            }
            dir => dir?,
        };
        if !self.walked.enter(&dir).at("list", path)? {
            return Ok(());
        }
        for name in tree::names(&dir).at("list", path)? {
            match String::from_utf8(name) {
                Ok(name) => self.member(&dir, path, &name)?,
                Err(e) => {
                    let name = e.into_bytes();
                    let is_pooled = may_hold_placeholders(&dir, &name).at("look into", path)?;
                    let slash = if path.is_root() { "" } else { "/" };
                    let shown = format!("{path}{slash}{}", String::from_utf8_lossy(&name));
                    self.unseen(shown, is_pooled);
                }
            }
        }
        Ok(())
    }

    fn member(&mut self, dir: &OwnedFd, at: &ResourcePath, name: &str) -> Result<(), VolumeError> {
        // The gateway's own directory.
        let Ok(path) = at.join(name) else {
            return Ok(());
        };
        match self.inner.tree.look(dir, name, &path).at("stat", &path)? {
            Entry::Found(f) if f.meta.kind == Kind::Collection => self.left.push(path),
            Entry::Found(f) if f.pooled() => {
                self.found.files.push(PooledFile {
                    file: f.identity.file_id,
                    len: f.identity.len,
                    path: path.to_string(),
                });
                if f.links > 1 {
                    self.strange.push((f.identity.file_id, path));
                }
            }
            // Without a record, with one of other content, or with one that may not be read.
            Entry::Found(f)
                if identity::is_derived(f.identity.file_id) && is_forbidden(dir, name) =>
            {
                self.unseen(path.to_string(), true);
            }
            Entry::Found(_) | Entry::Absent | Entry::Other => {}
        }
        Ok(())
    }

    fn unseen(&mut self, path: String, is_pooled: bool) {
        self.found.unseen.push(Unseen { path, is_pooled });
    }

    /// Makes placeholders that came back from a backup what they were.
    fn adopt(&self) {
        let mut names: HashMap<FileId, u32> = HashMap::new();
        for file in &self.found.files {
            *names.entry(file.file).or_default() += 1;
        }
        for (id, path) in self.strange.iter().filter(|(id, _)| names[id] == 1) {
            // Its content is served all the same.
            if let Err(error) = self.inner.adopt(*id, path) {
                tracing::warn!(%path, %error, "a placeholder from elsewhere could not be adopted");
            }
        }
    }
}

impl Inner {
    /// Makes a copy of a placeholder the one that its version belongs to.
    fn adopt(&self, id: FileId, path: &ResourcePath) -> io::Result<()> {
        let file = self.tree.file(path)?;
        let stat = tree::statx(&file, "", AtFlags::EMPTY_PATH)?;
        let record = match tree::look_fd(&file)? {
            Entry::Found(found) if found.pooled() => found.identity,
            Entry::Found(_) | Entry::Absent | Entry::Other => return Ok(()),
        };
        if record.file_id != id || record.is_own(&stat) {
            return Ok(());
        }
        tree::set_mtime(&file, record.mtime_ns)?;
        let kept = tree::statx(&file, "", AtFlags::EMPTY_PATH)?;
        let own = Identity {
            mtime_ns: kept.mtime_ns,
            ino: kept.ino,
            ..record
        };
        tree::set_identity(&file, &own)?;
        tracing::info!(%path, "a placeholder from elsewhere was adopted");
        Ok(())
    }
}

/// Whether a file may not be read.
fn is_forbidden(dir: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty());
    matches!(opened, Err(Errno::ACCESS | Errno::PERM))
}

/// [`holds_placeholders`], as far as that may be read: what may not be could be one.
fn may_hold_placeholders(dir: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    match holds_placeholders(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        looked => looked,
    }
}

/// Whether a name, which may be no text, is that of a placeholder of pools, or of a directory with one somewhere below.
fn holds_placeholders(dir: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let mut left = vec![(Arc::new(dir.try_clone()?), name.to_vec())];
    while let Some((dir, name)) = left.pop() {
        let stat = rustix::fs::statat(&dir, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = Arc::new(tree::open_dir_raw(&*dir, &name)?);
                let members = tree::names(&*inner)?.into_iter();
                left.extend(members.map(|name| (Arc::clone(&inner), name)));
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&dir, &name[..], flags, Mode::empty())?;
                let record = tree::get_identity(&File::from(file))?;
                if record.is_some_and(|record| record.state == State::Pooled) {
                    return Ok(true);
                }
            }
            _ => {}
        }
    }
    Ok(false)
}
