//! What went wrong in the pools lately: the difference of counts that only grow.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// Steps of [`STEP`](crate::metrics::STEP) that are looked back.
const STEPS: usize = 6;

/// Counts by kind of fault, always in the same order.
pub type Counts = Vec<(&'static str, u64)>;

/// The counts of one pool at the last few steps.
#[derive(Debug, Default)]
pub struct Recent {
    steps: VecDeque<Counts>,
}

impl Recent {
    /// Takes down the counts of this step, and says what came since the oldest one that is kept: `2 timeout, 1 full`.
    pub fn step(&mut self, now: Counts) -> Option<String> {
        let mut said = String::new();
        if let Some(then) = self.steps.front() {
            for ((kind, now), (_, then)) in now.iter().zip(then) {
                if now > then {
                    let comma = if said.is_empty() { "" } else { ", " };
                    let _ = write!(said, "{comma}{} {kind}", now - then);
                }
            }
        }
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(now);
        (!said.is_empty()).then_some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_the_last_minute_is_told_and_then_forgotten() {
        let mut recent = Recent::default();
        let mut step = |timeout, full| recent.step(vec![("timeout", timeout), ("full", full)]);
        // What was before the first look is not lately.
        assert_eq!(step(5, 0), None);
        assert_eq!(step(7, 1).as_deref(), Some("2 timeout, 1 full"));
        for _ in 0..5 {
            assert_eq!(step(7, 1).as_deref(), Some("2 timeout, 1 full"));
        }
        assert_eq!(step(7, 1), None);
        assert_eq!(step(8, 1).as_deref(), Some("1 timeout"));
    }
}
