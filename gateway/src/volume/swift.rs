//! Whether a small change is made on the thread that asks for it, or on one that may wait.
//!
//! Handing a change over and being woken for its end costs as much as a rename. But who serves connections must not wait for a
//! disk, and no call tells beforehand whether it will. So the time that is lost is bounded instead: what a change waited is a
//! debt, paid back by one part in [`WAITING_SHARE`] of the time that passes, and while there is a debt all changes go to threads
//! that may wait. A slow disk is found out by one request in many seconds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A wait that costs no more than a few changes handed over.
const WAIT_MAX: Duration = Duration::from_millis(2);
/// Most of a thread's time that changes made there may wait: one part in so many.
const WAITING_SHARE: u64 = 20;

/// Decides it, for all threads together.
pub(crate) struct Swift {
    allowed: bool,
    started: Instant,
    /// When the debt is paid, in ns after `started`.
    paid_ns: AtomicU64,
}

impl Swift {
    /// Nothing is ever made in place unless it is `allowed`.
    pub fn new(allowed: bool) -> Swift {
        Swift {
            allowed,
            started: Instant::now(),
            paid_ns: AtomicU64::new(0),
        }
    }

    /// Whether anything is ever made in place.
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// Does `work` here if changes do not wait now; gives it back otherwise.
    pub fn here<W: FnOnce() -> T, T>(&self, work: W) -> Result<T, W> {
        let begun = self.started.elapsed();
        if !self.may(begun) {
            return Err(work);
        }
        let ready = ready_time();
        let done = work();
        let ended = self.started.elapsed();
        let took = ended.saturating_sub(begun);
        if took > WAIT_MAX {
            self.waited(
                took.saturating_sub(ready_time().saturating_sub(ready)),
                ended,
            );
        }
        Ok(done)
    }

    fn may(&self, at: Duration) -> bool {
        self.allowed && self.paid_ns.load(Ordering::Relaxed) <= ns(at)
    }

    fn waited(&self, waited: Duration, ended: Duration) {
        if waited > WAIT_MAX {
            let pause = ns(waited).saturating_mul(WAITING_SHARE);
            let paid = ns(ended).saturating_add(pause);
            self.paid_ns.fetch_max(paid, Ordering::Relaxed);
        }
    }
}

/// How long this thread has run or could have run had there been a processor for it: on a busy machine much of what a change
/// takes is not for a disk.
fn ready_time() -> Duration {
    thread_local! {
        static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
    }
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    let cpu = Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32);
    let mut text = [0; 80];
    let queued = SCHEDSTAT.with(|file| {
        let n = file.as_ref()?.read_at(&mut text, 0).ok()?;
        queued_ns(text.get(..n)?)
    });
    cpu + Duration::from_nanos(queued.unwrap_or(0))
}

/// The second of the three numbers in `schedstat`: time in a run queue, ns.
fn queued_ns(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text)
        .ok()?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_change_keeps_the_next_ones_away_for_twenty_times_as_long() {
        let swift = Swift::new(true);
        assert!(swift.may(MS));
        swift.waited(2 * MS, 3 * MS);
        assert!(swift.may(3 * MS), "2 ms are not slow yet");
        swift.waited(10 * MS, 13 * MS);
        assert!(!swift.may(13 * MS));
        assert!(!swift.may(213 * MS - Duration::from_nanos(1)));
        assert!(swift.may(213 * MS));
    }

    #[test]
    fn a_later_debt_never_shortens_an_earlier_one() {
        let swift = Swift::new(true);
        swift.waited(100 * MS, 100 * MS);
        swift.waited(3 * MS, 103 * MS);
        assert!(!swift.may(2099 * MS));
        assert!(swift.may(2100 * MS));
    }

    #[test]
    fn time_in_the_run_queue_is_read() {
        assert_eq!(queued_ns(b"12 345 6\n"), Some(345));
        assert_eq!(queued_ns(b"12"), None);
        assert_eq!(queued_ns(b""), None);
    }

    #[test]
    fn what_is_not_allowed_is_handed_back_undone() {
        let work = Swift::new(false).here(|| 1);
        assert!(matches!(work, Err(work) if work() == 1));
    }
}
