//! What may be spent per time.

use crate::types::Nanos;

/// A token bucket in bytes. It starts full; a large payment goes into debt, and the next ones wait.
#[derive(Default)]
pub(super) struct Budget {
    /// Taken out and not yet earned again.
    spent: f64,
    at: Nanos,
}

impl Budget {
    /// Takes `bytes`; false when nothing is left. With a `rate` of 0 all is free.
    pub(super) fn pay(&mut self, now: Nanos, rate: f64, burst: f64, bytes: u32) -> bool {
        if rate <= 0.0 {
            return true;
        }
        let earned = now.since(self.at).as_secs_f64() * rate;
        self.spent = (self.spent - earned).max(0.0);
        self.at = self.at.max(now);
        let enough = self.spent < burst;
        if enough {
            self.spent += f64::from(bytes);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_by_time() {
        let mut budget = Budget::default();
        let mut pay = |second, bytes| budget.pay(Nanos::from_secs(second), 10.0, 20.0, bytes);
        assert!(pay(0, 15) && pay(0, 15));
        assert!(!pay(0, 1) && !pay(1, 1));
        assert!(pay(2, 1));
        assert!(budget.pay(Nanos(0), 0.0, 0.0, u32::MAX));
    }
}
