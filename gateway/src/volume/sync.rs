//! One fsync of a directory for all who wait for one.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;

use crate::sync_failures::{Moment, SyncFailures};

/// Longest wait for commits that are on their way. PostgreSQL's documentation advises half the time of a sync for its
/// `commit_delay`, which is the same thing; here that of the last sync bounds it too, so that a fast disk is not waited for.
const GATHER_MAX: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Progress {
    started: u64,
    done: u64,
    running: bool,
    users: usize,
}

/// Device and inode: a root may hold other file systems and subvolumes.
type Dir = (u64, u64);

#[derive(Default)]
struct State {
    dirs: HashMap<Dir, Progress>,
    /// How long the last sync took.
    last: Duration,
}

/// Shares fsyncs between concurrent commits into the same directory.
#[derive(Default)]
pub(crate) struct SharedSync {
    state: Mutex<State>,
    moved: Condvar,
    gathered: Condvar,
    coming: Arc<AtomicUsize>,
    /// Of any directory: they mostly share a journal, and whose changes it lost nobody can tell.
    failures: SyncFailures,
}

/// A commit that is about to sync, for as long as this lives: a sync waits a moment for it.
pub(crate) struct Coming(Arc<AtomicUsize>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SharedSync {
    /// Announces a commit.
    pub fn announce(&self) -> Coming {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Coming(Arc::clone(&self.coming))
    }

    /// To be called before the first change that a sync is to cover.
    pub fn begin(&self) -> Moment {
        self.failures.now()
    }

    /// Returns when an fsync of `dir` that began after this call has ended. Blocks. Fails if that one, or any since the
    /// changes began, failed: the kernel tells of an error once, to whoever syncs next (fsync(2)).
    pub fn sync(&self, since: Moment, dir: &impl AsFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(dir)?;
        self.sync_by(since, (stat.st_dev, stat.st_ino), || rustix::fs::fsync(dir))
    }

    /// [`SharedSync::sync`] of those of `dirs` that are not on `device`.
    pub fn sync_elsewhere(&self, since: Moment, device: u64, dirs: &[&OwnedFd]) -> io::Result<()> {
        for dir in dirs {
            if rustix::fs::fstat(dir)?.st_dev != device {
                self.sync(since, dir)?;
            }
        }
        Ok(())
    }

    fn sync_by(
        &self,
        since: Moment,
        key: Dir,
        fsync: impl Fn() -> Result<(), Errno>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        let entry = state.dirs.entry(key).or_default();
        entry.users += 1;
        let wanted = entry.started + 1;
        if entry.users >= self.coming.load(Ordering::Relaxed) {
            self.gathered.notify_all();
        }
        loop {
            let entry = state.dirs.entry(key).or_default();
            if entry.done >= wanted {
                break;
            }
            if entry.running {
                self.moved.wait(&mut state);
                continue;
            }
            entry.running = true;
            self.gather(key, &mut state);
            let entry = state.dirs.entry(key).or_default();
            entry.started += 1;
            let turn = entry.started;
            let begun = Instant::now();
            let result = MutexGuard::unlocked(&mut state, &fsync);
            state.last = begun.elapsed();
            if let Err(error) = result {
                self.failures.add(error);
            }
            let entry = state.dirs.entry(key).or_default();
            entry.running = false;
            entry.done = turn;
            self.moved.notify_all();
        }
        if let Some(entry) = state.dirs.get_mut(&key) {
            entry.users -= 1;
            if entry.users == 0 {
                state.dirs.remove(&key);
            }
        }
        Ok(self.failures.since(since)?)
    }

    /// Waits for announced commits, as long as the last sync took at most: fewer syncs, each for more of them.
    fn gather(&self, key: Dir, state: &mut MutexGuard<'_, State>) {
        let until = Instant::now() + state.last.min(GATHER_MAX);
        let here = |state: &State| state.dirs.get(&key).map_or(0, |entry| entry.users);
        while here(state) < self.coming.load(Ordering::Relaxed) {
            if self.gathered.wait_until(state, until).timed_out() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn many_waiters_end_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(dir.path()).unwrap();
        let shared = SharedSync::default();
        std::thread::scope(|s| {
            for n in 0..8 {
                let (shared, file) = (&shared, &file);
                s.spawn(move || {
                    for _ in 0..20 {
                        // Half of them are announced.
                        let coming = (n % 2 == 0).then(|| shared.announce());
                        shared.sync(shared.begin(), file).unwrap();
                        drop(coming);
                    }
                });
            }
        });
        assert!(shared.state.lock().dirs.is_empty());
        assert_eq!(shared.coming.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_failed_sync_fails_all_whose_changes_were_under_way_and_nobody_later() {
        const DIR: Dir = (1, 2);
        let shared = SharedSync::default();
        let syncs = AtomicUsize::new(0);
        // Changed before the failure, synced after it.
        let early = shared.begin();
        let users = || shared.state.lock().dirs[&DIR].users;
        // The kernel tells of an error once.
        let fsync = || match syncs.fetch_add(1, Ordering::Relaxed) {
            0 => {
                while users() < 4 {
                    std::thread::yield_now();
                }
                Err(Errno::IO)
            }
            _ => Ok(()),
        };
        std::thread::scope(|s| {
            let all = [(); 4].map(|()| s.spawn(|| shared.sync_by(shared.begin(), DIR, fsync)));
            for one in all {
                let error = one.join().unwrap().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
            }
        });
        assert!(shared.sync_by(early, DIR, fsync).is_err());
        shared.sync_by(shared.begin(), DIR, fsync).unwrap();
        assert!(shared.state.lock().dirs.is_empty());
    }

    #[test]
    fn file_systems_below_the_root_are_told_apart() {
        let shared = SharedSync::default();
        let (began, begins) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|s| {
            let shared = &shared;
            s.spawn(move || {
                let other_ended = std::cell::Cell::new(false);
                let fsync = || {
                    began.send(()).unwrap();
                    other_ended.set(ends.recv_timeout(Duration::from_secs(30)).is_ok());
                    Ok(())
                };
                shared.sync_by(shared.begin(), (1, 256), fsync).unwrap();
                assert!(other_ended.get(), "one waited for the other");
            });
            begins.recv().unwrap();
            shared.sync_by(shared.begin(), (2, 256), || Ok(())).unwrap();
            let _ = end.send(());
        });
    }

    #[test]
    fn a_commit_that_never_comes_is_not_waited_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(dir.path()).unwrap();
        let shared = SharedSync::default();
        shared.state.lock().last = Duration::from_secs(3600);
        // One of them is the one that comes.
        let _never = (shared.announce(), shared.announce());
        let begun = Instant::now();
        shared.sync(shared.begin(), &file).unwrap();
        assert!(begun.elapsed() >= GATHER_MAX);
        assert!(begun.elapsed() < Duration::from_secs(3600));
    }
}
