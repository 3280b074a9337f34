//! How busy the backing device is, as far as events tell: what waits there now, and its share of the time of late.
//!
//! A model, not a measurement: what a policy is told of, at the prices that it is given for a seek and a byte.

use super::cost_benefit::halvings;
use crate::types::Nanos;

/// Time in which the memory of what was served fades to a half.
const HALF_LIFE_S: f64 = 15.0;
/// A device that is further behind than this is faster than its prices say (several disks, or much is in memory).
const QUEUED_MAX_S: f64 = 60.0;

/// A device that serves one after the other.
#[derive(Default)]
pub(super) struct Busy {
    at: Nanos,
    queued_s: f64,
    recent_s: f64,
    /// Its prices were found too high: it is not said to be busy until it has had a pause.
    refuted: bool,
}

impl Busy {
    fn pass(&mut self, now: Nanos) {
        // One decision asks more than once.
        if now <= self.at {
            return;
        }
        let span = now.since(self.at).as_secs_f64();
        self.at = now;
        self.queued_s = (self.queued_s - span).max(0.0);
        self.refuted &= self.queued_s > 0.0;
        self.recent_s *= halvings(span / HALF_LIFE_S);
    }

    /// Something comes that takes the device so long.
    pub(super) fn serve(&mut self, now: Nanos, seconds: f64) {
        self.pass(now);
        self.queued_s += seconds;
        if self.queued_s > QUEUED_MAX_S {
            (self.queued_s, self.refuted) = (QUEUED_MAX_S, true);
        }
        self.recent_s += seconds;
    }

    /// Seconds that what comes now has to wait.
    pub(super) fn queued(&mut self, now: Nanos) -> f64 {
        self.pass(now);
        if self.refuted { 0.0 } else { self.queued_s }
    }

    /// Share of the time in which it was busy, 0 to 1.
    pub(super) fn share(&mut self, now: Nanos) -> f64 {
        self.pass(now);
        if self.refuted {
            return 0.0;
        }
        (self.recent_s * std::f64::consts::LN_2 / HALF_LIFE_S).min(1.0)
    }

    /// How many seconds all together wait for one second more of work: those who come before the device has caught up.
    pub(super) fn delay(&mut self, now: Nanos) -> f64 {
        let share = self.share(now);
        share / (1.0 - share).max(0.02)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_served_second_by_second() {
        let mut busy = Busy::default();
        busy.serve(Nanos::from_secs(10), 3.0);
        busy.serve(Nanos::from_secs(11), 1.0);
        assert_eq!(busy.queued(Nanos::from_secs(11)), 3.0);
        assert_eq!(busy.queued(Nanos::from_secs(13)), 1.0);
        assert_eq!(busy.queued(Nanos::from_secs(20)), 0.0);
        // Time that runs backwards is no time.
        assert_eq!(busy.queued(Nanos::from_secs(5)), 0.0);
    }

    #[test]
    fn what_no_such_device_could_have_done_is_not_believed_until_a_pause() {
        let mut busy = Busy::default();
        busy.serve(Nanos(0), QUEUED_MAX_S);
        assert_eq!(busy.queued(Nanos(0)), QUEUED_MAX_S);
        busy.serve(Nanos(0), 0.5);
        assert_eq!((busy.queued(Nanos(0)), busy.delay(Nanos(0))), (0.0, 0.0));
        busy.serve(Nanos::from_secs(59), 0.5);
        assert_eq!(busy.queued(Nanos::from_secs(59)), 0.0);
        busy.serve(Nanos::from_secs(61), 0.5);
        assert_eq!(busy.queued(Nanos::from_secs(61)), 0.5);
    }

    #[test]
    fn half_of_the_time_at_work_is_a_share_of_a_half_and_one_second_of_delay() {
        let mut busy = Busy::default();
        for n in 0..30_000 {
            busy.serve(Nanos::from_millis(n * 10), 0.005);
        }
        let now = Nanos::from_secs(300);
        assert!((busy.share(now) - 0.5).abs() < 0.001);
        assert!((busy.delay(now) - 1.0).abs() < 0.004);
        // What is long past is forgotten; what was asked too much of is busy, not more.
        assert!(busy.delay(Nanos::from_secs(600)) < 1e-5);
        busy.serve(Nanos::from_secs(600), 50.0);
        assert_eq!(busy.share(Nanos::from_secs(600)), 1.0);
        assert_eq!(busy.delay(Nanos::from_secs(600)), 50.0);
    }
}
