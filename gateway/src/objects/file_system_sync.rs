//! One `syncfs` for all who wait for one: a disk pays for a sync, not for what it covers.

use std::fs::File;
use std::io;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Shares syncs of a whole file system between those who flush into it.
pub struct FileSystemSync {
    /// Always the same one: it tells of every write error since the sync before (Linux 5.8, syncfs(2)).
    handle: File,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    waiting: usize,
    begun: u64,
    ended: u64,
    failures: u64,
    /// Of the last failure.
    errno: Option<i32>,
}

/// The failures before something was written: a later one may concern it.
#[derive(Clone, Copy)]
pub struct Since(u64);

impl FileSystemSync {
    /// Of the file system that `handle` is in.
    pub fn new(handle: File) -> Self {
        FileSystemSync {
            handle,
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// To be asked before the first write that a sync is to cover.
    pub fn since(&self) -> Since {
        Since(self.state.lock().failures)
    }

    /// Returns when a `syncfs` that began after this call has ended. Blocks. Fails if that one, or any since `since`, failed: the
    /// kernel tells of an error once, to whoever syncs next.
    pub fn sync(&self, since: Since) -> io::Result<()> {
        self.sync_by(since, |handle| Ok(rustix::fs::syncfs(handle)?))
    }

    fn sync_by(&self, since: Since, syncfs: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        let wanted = state.begun + 1;
        while state.ended < wanted {
            if state.running {
                state.waiting += 1;
                self.ended.wait(&mut state);
                state.waiting -= 1;
                continue;
            }
            state.running = true;
            state.begun += 1;
            let result = MutexGuard::unlocked(&mut state, || syncfs(&self.handle));
            state.running = false;
            state.ended = state.begun;
            if let Err(error) = result {
                state.failures += 1;
                state.errno = error.raw_os_error();
            }
            self.ended.notify_all();
        }
        if state.failures == since.0 {
            return Ok(());
        }
        Err(state.errno.map_or_else(
            || io::Error::other("a sync failed"),
            io::Error::from_raw_os_error,
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const EIO: i32 = 5;

    fn new() -> FileSystemSync {
        FileSystemSync::new(tempfile::tempfile().unwrap())
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
            let sync = || shared.sync_by(shared.since(), syncfs).unwrap();
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
        let before = shared.since();
        let failed = shared.sync_by(before, |_| Err(io::Error::from_raw_os_error(EIO)));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(EIO));
        let after = shared.since();
        assert_eq!(
            shared.sync(before).unwrap_err().raw_os_error(),
            Some(EIO),
            "its bytes may be those that were lost"
        );
        shared.sync(after).unwrap();
    }
}
