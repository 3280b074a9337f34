//! Deletes behind the requests: discarded uploads and collections that were renamed aside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use tiering::FileId;

use super::apply::{self, Place};
use super::identity::{self, State};
use super::tree::{Entry, Tree, id_name, look_at, names, open_dir_raw};
use super::types::{Found, Kind, Stale};
use super::usage::Usage;
use crate::objects::{Extent, ObjectCache};

enum Job {
    /// Remove `.tierdav/tmp/<name>` with all below it; `counted`: its bytes are in the usage. `begun`: of an upload, the objects
    /// that may be in pools.
    Remove {
        name: String,
        counted: bool,
        begun: Option<u32>,
    },
    /// Answer when everything before is done.
    Barrier(SyncSender<()>),
}

/// The thread and its queue. Ends, after finishing its work, when dropped.
pub(crate) struct Cleaner {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Removals to come of what is in the usage.
    counted: Arc<AtomicUsize>,
}

impl Cleaner {
    pub fn start(
        tree: Arc<Tree>,
        cache: Arc<ObjectCache>,
        usage: Arc<Usage>,
    ) -> io::Result<Cleaner> {
        let (tx, rx) = channel();
        let counted = Arc::<AtomicUsize>::default();
        let left = Arc::clone(&counted);
        let thread = std::thread::Builder::new()
            .name("tierdav-cleaner".into())
            .spawn(move || run(&tree, &cache, &usage, &rx, &left))?;
        Ok(Cleaner {
            jobs: Mutex::new(Some(tx)),
            thread: Mutex::new(Some(thread)),
            counted,
        })
    }

    /// Queues the removal of `.tierdav/tmp/<name>`.
    pub fn remove(&self, name: String, counted: bool) {
        self.send(name, counted, None);
    }

    /// The same of an upload that was given up, when no more than so many objects of it, from the first, were begun.
    pub fn remove_upload(&self, name: String, begun: Option<u32>) {
        self.send(name, false, begun);
    }

    fn send(&self, name: String, counted: bool, begun: Option<u32>) {
        if let Some(jobs) = &*self.jobs.lock() {
            if counted {
                self.counted.fetch_add(1, Ordering::SeqCst);
            }
            // The thread is gone only at the end of the process; the next start cleans up.
            let _ = jobs.send(Job::Remove {
                name,
                counted,
                begun,
            });
        }
    }

    /// Whether something is still to be removed, and its bytes to be taken off the usage.
    pub fn has_counted(&self) -> bool {
        self.counted.load(Ordering::SeqCst) > 0
    }

    /// Waits until everything queued before is done. Blocks.
    pub fn finish(&self) {
        let (tx, rx) = sync_channel(1);
        let sent = self
            .jobs
            .lock()
            .as_ref()
            .is_some_and(|jobs| jobs.send(Job::Barrier(tx)).is_ok());
        if sent {
            let _ = rx.recv();
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn run(tree: &Tree, cache: &ObjectCache, usage: &Usage, jobs: &Receiver<Job>, left: &AtomicUsize) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Remove {
                name,
                counted,
                begun,
            } => {
                if let Err(error) = remove_all(tree, cache, usage, &name, counted, begun) {
                    tracing::warn!(%error, name, "could not remove a discarded entry; the next start tries again");
                }
                if counted {
                    left.fetch_sub(1, Ordering::SeqCst);
                }
            }
            Job::Barrier(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Removes `.tierdav/tmp/<name>`, the objects and the dirty names of all files below it.
///
/// Flat: a directory in a doomed one is first moved up beside it, so that no depth of nesting
/// costs handles or stack.
pub(crate) fn remove_all(
    tree: &Tree,
    cache: &ObjectCache,
    usage: &Usage,
    name: &str,
    counted: bool,
    begun: Option<u32>,
) -> io::Result<()> {
    let mut doomed = vec![name.to_owned()];
    while let Some(name) = doomed.pop() {
        match look_at(&tree.tmp, &name)? {
            Some(Entry::Absent) => {}
            Some(Entry::Found(f)) if f.meta.kind == Kind::Collection => {
                let dir = open_dir_raw(&tree.tmp, name.as_bytes())?;
                empty(tree, cache, usage, &dir, counted, &mut doomed)?;
                rustix::fs::unlinkat(&tree.tmp, name.as_str(), AtFlags::REMOVEDIR)?;
            }
            found => {
                if let Some(Entry::Found(f)) = &found {
                    if counted {
                        usage.name_gone(f, usage.frees(tree, f));
                    }
                    if purge(tree, cache, &name, f, begun)? {
                        continue;
                    }
                    forget(tree, cache, f);
                }
                unlink(&tree.tmp, name.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn empty(
    tree: &Tree,
    cache: &ObjectCache,
    usage: &Usage,
    dir: &OwnedFd,
    counted: bool,
    doomed: &mut Vec<String>,
) -> io::Result<()> {
    for name in names(dir)? {
        let text = std::str::from_utf8(&name).ok();
        let found = match text {
            Some(text) => look_at(dir, text)?,
            None => None,
        };
        if let Some(Entry::Found(f)) = &found
            && f.meta.kind == Kind::File
        {
            if counted {
                usage.name_gone(f, usage.frees(tree, f));
            }
            if f.pooled() {
                let text = text.unwrap_or_default();
                if apply::take_out(tree, &Place { dir, name: text }, f)? {
                    forget(tree, cache, f);
                }
                continue;
            }
            forget(tree, cache, f);
        }
        match unlink(dir, &name) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let aside = id_name(identity::fresh()?);
                let from = std::ffi::CString::new(name).map_err(io::Error::other)?;
                rustix::fs::renameat(dir, &from, &tree.tmp, aside.as_str())?;
                doomed.push(aside);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// A file in `.tierdav/tmp` whose content is in pools, or was on its way there: the objects go first, and the file with the
/// last of them. `false` when it is none.
fn purge(
    tree: &Tree,
    cache: &ObjectCache,
    name: &str,
    found: &Found,
    begun: Option<u32>,
) -> io::Result<bool> {
    if found.pooled() {
        if found.links > 1 {
            // The version still has its own name.
            return Ok(false);
        }
        let id = found.identity.file_id;
        if name != id_name(id) {
            rustix::fs::renameat(&tree.tmp, name, &tree.tmp, id_name(id).as_str())?;
        }
        cache.purge(id, Extent::Whole(found.identity.len));
        return Ok(true);
    }
    // An upload that was given up bears its id as its name, and nothing else.
    let unfinished = found.identity.state == State::Inline && found.stale.is_none();
    let id = u64::from_str_radix(name, 16).ok().map(FileId);
    match id.filter(|id| cache.pools().is_some() && unfinished && id_name(*id) == name) {
        // Each removal of nothing is a write for an OSD, too.
        Some(_) if begun == Some(0) => Ok(false),
        Some(id) => {
            // As long as the version that it began with, if it is a change of one.
            let anywhere = Extent::Unfinished(found.identity.len);
            cache.purge(id, begun.map_or(anywhere, Extent::Begun));
            Ok(true)
        }
        None => Ok(false),
    }
}

fn unlink(dir: &impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Ends a version of a file: its objects and its dirty name go.
pub(crate) fn forget(tree: &Tree, cache: &ObjectCache, found: &super::types::Found) {
    if found.meta.kind != Kind::File {
        return;
    }
    tree.open_files.close_version(found.meta.file_id);
    if found.pooled() {
        // Its placeholder is in `.tierdav/tmp` by now, unless it has other names.
        if found.links <= 1 {
            let extent = Extent::Whole(found.identity.len);
            cache.purge(found.identity.file_id, extent);
        }
        return;
    }
    if found.dirty() && found.links > 2 {
        // Someone gave it a further name beside the gateway: its objects are flushed for that.
        return;
    }
    // Beside pools a plain file has nothing in the cache, whatever may have got its id there.
    if cache.pools().is_none() {
        cache.forget(found.identity.file_id, found.identity.len);
    }
    if let Some(gone) = found.stale.and_then(Stale::gone) {
        cache.drop_clean(gone);
    }
    if found.dirty() {
        let name = id_name(found.identity.file_id);
        if let Err(error) = unlink(&tree.dirty, name.as_bytes()) {
            tracing::warn!(%error, name, "could not remove a dirty name; the next start tries again");
        }
    }
}
