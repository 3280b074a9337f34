//! Who may touch a root and its cache: one process at a time, and only a pair that belongs together.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::VolumeError;
use super::path::HIDDEN;
use super::start::{Markers, fail};
use super::tree;

/// Name of the lock files: one in the root's hidden directory, one in the cache directory.
const LOCK: &str = "owner.lock";

/// The locks of a root and of its cache directory. They end with [`Ownership::release`] or with the last handle.
#[derive(Debug)]
pub struct Ownership {
    root: File,
    cache: Option<File>,
}

impl Ownership {
    /// Takes both directories, which must be there. Nothing else in them is read for good or written before: what another
    /// process is writing there looks like what a crash left.
    ///
    /// # Errors
    /// [`VolumeError::Startup`]: somebody else has one of them, they do not belong together, or cannot be written.
    pub fn take(root: &Path, cache_dir: Option<&Path>) -> Result<Ownership, VolumeError> {
        Markers::read(root, cache_dir)?.check(root, cache_dir)?;
        let hidden = tree::open_dir(root)
            .and_then(|dir| tree::make_dir(&dir, HIDDEN))
            .map_err(|e| fail(format!("root {}: cannot be opened: {e}", root.display())))?;
        let what = format!("root {}", root.display());
        let root = lock(&hidden, &what)?;
        let cache = cache_dir.map(|dir| {
            let what = format!("cache {}", dir.display());
            let opened = tree::open_dir(dir);
            let opened = opened.map_err(|e| fail(format!("{what}: cannot be opened: {e}")))?;
            lock(&opened, &what)
        });
        Ok(Ownership {
            root,
            cache: cache.transpose()?,
        })
    }

    /// The lock file of the root.
    pub(super) fn root(&self) -> &File {
        &self.root
    }

    /// Lets another process take both, even while this value is still held somewhere.
    pub(super) fn release(&self) -> Result<(), Errno> {
        let mut locks = self.cache.iter().chain([&self.root]);
        locks.try_for_each(|lock| rustix::fs::flock(lock.as_fd(), FlockOperation::Unlock))
    }
}

/// Takes the lock in an open directory; `what` it is, for people.
fn lock(dir: &impl AsFd, what: &str) -> Result<File, VolumeError> {
    let wrong = |e: std::io::Error| fail(format!("{what}: {LOCK}: {e}"));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, LOCK, flags, Mode::from(0o600));
    let file = File::from(opened.map_err(|e| wrong(e.into()))?);
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            file.take(512).read_to_string(&mut holder).map_err(wrong)?;
            return Err(fail(format!(
                "{what} is served by another instance already: {}",
                holder.trim()
            )));
        }
        Err(e) => return Err(wrong(e.into())),
    }
    let holder = format!("pid {} on host {}\n", std::process::id(), host());
    // Over the last holder's, whose block is there on a full disk, too.
    let written = file.write_all_at(holder.as_bytes(), 0);
    if let Err(error) = written.and_then(|()| file.set_len(holder.len() as u64)) {
        // It is for people: the lock is taken.
        tracing::warn!(%error, "{what}: {LOCK} does not say who has it");
    }
    Ok(file)
}

/// The name of this machine.
pub(super) fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
