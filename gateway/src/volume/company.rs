//! Whether a thread that serves connections would keep anybody waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// How many are served by this thread. Counted by who may end elsewhere, at the end of the process.
    static SERVED: Arc<AtomicUsize> = Arc::default();
}

/// One that is served by a thread: a connection, or a request that shares its connection with others.
#[derive(Debug)]
pub struct Company(Arc<AtomicUsize>);

impl Company {
    /// Joins those that this thread serves, until dropped.
    pub fn join() -> Company {
        let served = SERVED.with(Arc::clone);
        served.fetch_add(1, Ordering::Relaxed);
        Company(served)
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this thread serves nobody but who asks.
pub(crate) fn is_alone() -> bool {
    SERVED.with(|served| served.load(Ordering::Relaxed)) == 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn one_is_alone_until_another_joins_on_the_same_thread() {
        // A thread of its own: what other tests join is not ours.
        let thread = std::thread::spawn(|| {
            assert!(!is_alone(), "this thread serves nobody");
            let one = Company::join();
            assert!(is_alone());
            let other = Company::join();
            assert!(!is_alone());
            std::thread::spawn(move || drop(other)).join().unwrap();
            assert!(is_alone());
            drop(one);
            assert!(!is_alone());
        });
        thread.join().unwrap();
    }
}
