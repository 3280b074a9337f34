//! One fsync of a directory for all who wait for one.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

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

#[derive(Default)]
struct State {
    dirs: HashMap<u64, Progress>,
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

    /// Returns when an fsync of `dir` that began after this call has ended. Blocks.
    pub fn sync(&self, dir: &impl AsFd) -> io::Result<()> {
        let key = rustix::fs::fstat(dir)?.st_ino;
        let mut state = self.state.lock();
        let entry = state.dirs.entry(key).or_default();
        entry.users += 1;
        let wanted = entry.started + 1;
        if entry.users >= self.coming.load(Ordering::Relaxed) {
            self.gathered.notify_all();
        }
        let result = loop {
            let entry = state.dirs.entry(key).or_default();
            if entry.done >= wanted {
                break Ok(());
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
            let result = MutexGuard::unlocked(&mut state, || rustix::fs::fsync(dir));
            state.last = begun.elapsed();
            let entry = state.dirs.entry(key).or_default();
            entry.running = false;
            if result.is_ok() {
                entry.done = turn;
            }
            self.moved.notify_all();
            if let Err(e) = result {
                // The others try for themselves.
                break Err(e.into());
            }
        };
        if let Some(entry) = state.dirs.get_mut(&key) {
            entry.users -= 1;
            if entry.users == 0 {
                state.dirs.remove(&key);
            }
        }
        result
    }

    /// Waits for announced commits, as long as the last sync took at most: fewer syncs, each for more of them.
    fn gather(&self, key: u64, state: &mut MutexGuard<'_, State>) {
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
                        shared.sync(file).unwrap();
                        drop(coming);
                    }
                });
            }
        });
        assert!(shared.state.lock().dirs.is_empty());
        assert_eq!(shared.coming.load(Ordering::Relaxed), 0);
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
        shared.sync(&file).unwrap();
        assert!(begun.elapsed() >= GATHER_MAX);
        assert!(begun.elapsed() < Duration::from_secs(3600));
    }
}
