//! Whether a small change is made on the thread that asks for it, or on one that may wait.
//!
//! Handing a change over and being woken for its end costs as much as a rename. But who serves connections must not wait for a
//! disk, and no call tells beforehand whether it will. So the time that is lost is bounded instead: what a change waited is a
//! debt, paid back by one part in [`WAITING_SHARE`] of the time that passes, and while there is a debt all changes go to threads
//! that may wait. A slow disk is found out by one request in many seconds. A thread that serves a single connection makes its
//! changes itself all the same, unless they wait for long: nobody else is kept waiting ([`company`]).

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::company;

/// A wait that costs no more than a few changes handed over.
const WAIT_MAX: Duration = Duration::from_millis(2);
/// Most of a thread's time that changes made there may wait: one part in so many.
const WAITING_SHARE: u64 = 20;
/// After a wait of more than this even who is served alone is served elsewhere, until less is to be paid back.
const WAIT_ALONE_MAX: Duration = Duration::from_millis(20);
/// The time that a thread has spent in a run queue is looked at so often; for a slow change once more.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Decides it, for all threads together.
#[derive(Debug)]
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

    /// Whether changes are made in place now.
    pub fn is_on(&self) -> bool {
        self.may(self.started.elapsed())
    }

    /// Does `work` here if changes do not wait now and it is not `large`; gives it back otherwise.
    pub fn here_unless<W: FnOnce() -> T, T>(
        &self,
        large: impl FnOnce() -> bool,
        work: W,
    ) -> Result<T, W> {
        if !self.is_on() {
            return Err(work);
        }
        self.noting(|| match large() {
            true => Err(work),
            false => Ok(work()),
        })
    }

    /// Does `work` here, and notes how long it waited.
    pub fn noting<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = self.started.elapsed();
        QUEUED.with(|q| q.look(begun, LOOK_EVERY));
        let done = work();
        let ended = self.started.elapsed();
        let took = ended.saturating_sub(begun);
        if took > WAIT_MAX {
            // On a busy machine much of what a change takes is not for a disk. What was queued since the last look, but before
            // this change, is taken for its own: then a wait is found out by the next one, before which
            // another look is due.
            let queued = QUEUED.with(|q| q.look(ended, Duration::ZERO));
            self.waited(took.saturating_sub(queued), ended);
            QUEUED.with(|q| q.looked.set(Duration::ZERO));
        }
        done
    }

    fn may(&self, at: Duration) -> bool {
        let debt_ns = self.paid_ns.load(Ordering::Relaxed).saturating_sub(ns(at));
        let bearable_ns = match debt_ns {
            0 => 0,
            _ if company::is_alone() => ns(WAIT_ALONE_MAX).saturating_mul(WAITING_SHARE),
            _ => 0,
        };
        self.allowed && debt_ns <= bearable_ns
    }

    fn waited(&self, waited: Duration, ended: Duration) {
        if waited > WAIT_MAX {
            let pause = ns(waited).saturating_mul(WAITING_SHARE);
            let paid = ns(ended).saturating_add(pause);
            self.paid_ns.fetch_max(paid, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static QUEUED: Queued = Queued::default();
}

/// How long this thread could have run, had there been a processor for it.
#[derive(Default)]
struct Queued {
    looked: Cell<Duration>,
    ns: Cell<u64>,
}

impl Queued {
    /// Looks if the last look was `every` ago, and tells how much has been added since then.
    fn look(&self, now: Duration, every: Duration) -> Duration {
        thread_local! {
            static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
        }
        if now.saturating_sub(self.looked.get()) < every {
            return Duration::ZERO;
        }
        self.looked.set(now);
        let mut text = [0; 80];
        let ns = SCHEDSTAT.with(|file| {
            let n = file.as_ref()?.read_at(&mut text, 0).ok()?;
            queued_ns(text.get(..n)?)
        });
        let ns = ns.unwrap_or(0);
        Duration::from_nanos(ns.saturating_sub(self.ns.replace(ns)))
    }
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
    fn who_is_served_alone_goes_on_unless_it_waits_for_long() {
        let thread = std::thread::spawn(|| {
            let swift = Swift::new(true);
            swift.waited(20 * MS, 20 * MS);
            assert!(!swift.may(20 * MS));
            let _one = company::Company::join();
            assert!(swift.may(20 * MS));
            swift.waited(21 * MS, 41 * MS);
            assert!(!swift.may(41 * MS), "more than bearable");
            assert!(swift.may(61 * MS), "one millisecond of it is paid back");
            let _other = company::Company::join();
            assert!(!swift.may(61 * MS));
            assert!(!Swift::new(false).may(MS));
        });
        assert!(thread.join().is_ok());
    }

    #[test]
    fn time_in_the_run_queue_is_read() {
        assert_eq!(queued_ns(b"12 345 6\n"), Some(345));
        assert_eq!(queued_ns(b"12"), None);
        assert_eq!(queued_ns(b""), None);
    }

    #[test]
    fn the_run_queue_is_looked_at_now_and_then() {
        let queued = Queued::default();
        queued.ns.set(u64::MAX);
        queued.look(LOOK_EVERY - MS, LOOK_EVERY);
        assert_eq!(queued.ns.get(), u64::MAX);
        queued.look(LOOK_EVERY, LOOK_EVERY);
        assert_ne!(queued.ns.get(), u64::MAX);
        assert_eq!(queued.looked.get(), LOOK_EVERY);
    }

    #[test]
    fn what_is_not_allowed_is_handed_back_undone() {
        let work = Swift::new(false).here_unless(|| false, || 1);
        assert!(matches!(work, Err(work) if work() == 1));
        let work = Swift::new(true).here_unless(|| true, || 1);
        assert!(matches!(work, Err(work) if work() == 1));
        assert!(matches!(
            Swift::new(true).here_unless(|| false, || 1),
            Ok(1)
        ));
    }
}
