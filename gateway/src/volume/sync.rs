//! One fsync of a directory for all who wait for one.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
struct Progress {
    started: u64,
    done: u64,
    running: bool,
    users: usize,
}

/// Shares fsyncs between concurrent commits into the same directory.
#[derive(Default)]
pub(crate) struct SharedSync {
    dirs: Mutex<HashMap<u64, Progress>>,
    moved: Condvar,
}

impl SharedSync {
    /// Returns when an fsync of `dir` that began after this call has ended. Blocks.
    pub fn sync(&self, dir: &impl AsFd) -> io::Result<()> {
        let key = rustix::fs::fstat(dir)?.st_ino;
        let mut dirs = self.dirs.lock();
        let entry = dirs.entry(key).or_default();
        entry.users += 1;
        let wanted = entry.started + 1;
        let result = loop {
            let entry = dirs.entry(key).or_default();
            if entry.done >= wanted {
                break Ok(());
            }
            if entry.running {
                self.moved.wait(&mut dirs);
                continue;
            }
            entry.running = true;
            entry.started += 1;
            let turn = entry.started;
            let result = parking_lot::MutexGuard::unlocked(&mut dirs, || rustix::fs::fsync(dir));
            let entry = dirs.entry(key).or_default();
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
        if let Some(entry) = dirs.get_mut(&key) {
            entry.users -= 1;
            if entry.users == 0 {
                dirs.remove(&key);
            }
        }
        result
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
            for _ in 0..8 {
                s.spawn(|| (0..20).for_each(|_| shared.sync(&file).unwrap()));
            }
        });
        assert!(shared.dirs.lock().is_empty());
    }
}
