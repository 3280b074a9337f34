//! One `syncfs` for all who wait for one: a disk pays for a sync, not for what it covers.

use std::fs::File;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use crate::sync_failures::{Moment, SyncFailures};

/// Shares syncs of a whole file system between those who write into it.
pub struct FileSystemSync {
    /// Always the same one: it tells of every write error since the sync before (Linux 5.8, syncfs(2)).
    handle: File,
    state: Mutex<State>,
    ended: Condvar,
    failures: SyncFailures,
}

#[derive(Default)]
struct State {
    running: bool,
    waiting: usize,
    begun: u64,
    ended: u64,
}

/// What is written from now on, by one who will sync it.
#[derive(Clone)]
pub struct Writes {
    to: Arc<FileSystemSync>,
    begun: Moment,
}

impl FileSystemSync {
    /// Of the file system that `handle` is in.
    pub fn new(handle: File) -> Self {
        FileSystemSync {
            handle,
            state: Mutex::default(),
            ended: Condvar::new(),
            failures: SyncFailures::default(),
        }
    }

    /// Syncs so far.
    #[cfg(test)]
    pub fn begun(&self) -> u64 {
        self.state.lock().begun
    }

    /// To be called before the first write that a sync is to cover.
    pub fn begin(self: &Arc<Self>) -> Writes {
        Writes {
            to: Arc::clone(self),
            begun: self.failures.now(),
        }
    }
}

impl Writes {
    /// Of one who shares no sync with others: whoever else is told of an error, `handle` is told, too, if nobody else syncs it.
    pub fn alone(handle: File) -> Self {
        Arc::new(FileSystemSync::new(handle)).begin()
    }

    /// Returns when a `syncfs` that began after this call has ended. Blocks. Fails if that one, or any since the writes began,
    /// failed: the kernel tells of an error once, to whoever syncs next.
    pub fn sync(&self) -> Result<(), Errno> {
        self.sync_by(|handle| {
            rustix::fs::syncfs(handle)?;
            // One that turned read-only after an error has nothing written, and says so to nobody (sync_filesystem() of Linux).
            match rustix::fs::fstatvfs(handle)?.f_flag {
                flags if flags.contains(StatVfsMountFlags::RDONLY) => Err(Errno::ROFS),
                _ => Ok(()),
            }
        })
    }

    fn sync_by(&self, syncfs: impl Fn(&File) -> Result<(), Errno>) -> Result<(), Errno> {
        let all = &*self.to;
        let mut state = all.state.lock();
        let wanted = state.begun + 1;
        while state.ended < wanted {
            if state.running {
                state.waiting += 1;
                all.ended.wait(&mut state);
                state.waiting -= 1;
                continue;
            }
            state.running = true;
            state.begun += 1;
            let result = MutexGuard::unlocked(&mut state, || syncfs(&all.handle));
            state.running = false;
            state.ended = state.begun;
            if let Err(error) = result {
                all.failures.add(error);
            }
            all.ended.notify_all();
        }
        all.failures.since(self.begun)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn new() -> Arc<FileSystemSync> {
        Arc::new(FileSystemSync::new(tempfile::tempfile().unwrap()))
    }

    #[test]
    fn those_who_come_while_one_runs_share_the_next() {
        let (shared, syncs) = (new(), AtomicUsize::new(0));
        let (began, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let ends = Mutex::new(ends);
        let syncfs = |_: &File| {
            syncs.fetch_add(1, Ordering::Relaxed);
            began.send(()).unwrap();
            ends.lock().recv().unwrap();
            Ok(())
        };
        std::thread::scope(|s| {
            let sync = || shared.begin().sync_by(syncfs).unwrap();
            s.spawn(sync);
            begins.recv().unwrap();
            let others: Vec<_> = (0..5).map(|_| s.spawn(sync)).collect();
            // Until all of them wait for the second one, the first is not over.
            while shared.state.lock().waiting < others.len() {
                std::thread::yield_now();
            }
            end.send(()).unwrap();
            begins.recv().unwrap();
            end.send(()).unwrap();
        });
        assert_eq!(syncs.into_inner(), 2);
    }

    #[test]
    fn who_wrote_before_a_failure_hears_of_it_and_who_wrote_after_it_does_not() {
        let shared = new();
        let before = shared.begin();
        assert_eq!(before.sync_by(|_| Err(Errno::IO)), Err(Errno::IO));
        let after = shared.begin();
        assert_eq!(
            before.sync(),
            Err(Errno::IO),
            "its bytes may be those that were lost"
        );
        after.sync().unwrap();
    }
}
