//! Failed syncs, told to everybody whom they may concern: the kernel tells of an error once, to whoever syncs next (fsync(2),
//! syncfs(2)).

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

/// Those of one kind of sync.
#[derive(Default)]
pub(crate) struct SyncFailures {
    count: AtomicU64,
    last: Mutex<Option<Errno>>,
}

/// A moment: how many there had been.
#[derive(Clone, Copy)]
pub(crate) struct Moment(u64);

impl SyncFailures {
    /// To be called before the first change that a sync is to cover.
    pub fn now(&self) -> Moment {
        Moment(self.count.load(Ordering::Acquire))
    }

    pub fn add(&self, error: Errno) {
        *self.last.lock() = Some(error);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Fails with the last one if there was any since that moment.
    pub fn since(&self, moment: Moment) -> Result<(), Errno> {
        if self.now().0 == moment.0 {
            return Ok(());
        }
        self.last.lock().map_or(Ok(()), Err)
    }
}
