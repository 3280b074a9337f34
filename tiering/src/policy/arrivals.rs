//! How many bytes new objects of each size lately brought: how much room the small ones can use.

use super::cost_benefit::halvings;
use crate::types::Nanos;

/// Time in which the memory of what came fades to a half.
const HALF_LIFE_S: f64 = 30.0;
/// Sizes are told apart by powers of two.
const SIZES: usize = 32;
/// Smaller are those at least so many powers of two below: less than a quarter as large.
const SMALLER: usize = 3;

fn size_of(len: u32) -> usize {
    len.max(1).ilog2() as usize
}

/// New objects of late, wherever they went.
#[derive(Default)]
pub(super) struct Arrivals {
    at: Nanos,
    bytes: [f64; SIZES],
}

impl Arrivals {
    pub(super) fn came(&mut self, now: Nanos, len: u32) {
        let keep = halvings(now.since(self.at).as_secs_f64() / HALF_LIFE_S);
        self.at = self.at.max(now);
        self.bytes.iter_mut().for_each(|bytes| *bytes *= keep);
        self.bytes[size_of(len)] += f64::from(len);
    }

    /// Bytes of those that were smaller than one of `len`, as of the last arrival.
    pub(super) fn smaller(&self, len: u32) -> f64 {
        let sizes = (size_of(len) + 1).saturating_sub(SMALLER);
        self.bytes[..sizes].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_much_smaller_counts_and_half_of_it_after_half_a_minute() {
        let mut arrivals = Arrivals::default();
        for len in [0, 1, 1023, 1024, 2047, 2048, 4096, u32::MAX] {
            arrivals.came(Nanos(0), len);
        }
        // Below 1024, below 2048, below 4096.
        assert_eq!(arrivals.smaller(4096), 1024.0);
        assert_eq!(arrivals.smaller(16_383), 1024.0 + 1024.0 + 2047.0);
        assert_eq!(arrivals.smaller(16_384), 1024.0 + 1024.0 + 2047.0 + 2048.0);
        assert_eq!((arrivals.smaller(0), arrivals.smaller(3)), (0.0, 0.0));
        arrivals.came(Nanos::from_secs(30), 4096);
        assert_eq!(arrivals.smaller(4096), 512.0);
        // Time that runs backwards is no time.
        arrivals.came(Nanos::from_secs(10), 1);
        assert_eq!(arrivals.smaller(4096), 513.0);
    }
}
