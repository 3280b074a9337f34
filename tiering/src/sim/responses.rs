//! Response times of a run, in bounded memory.

use hdrhistogram::Histogram;

/// Significant decimal digits that are kept: quantiles are right to one part in 16 384, and exact below 32 ms.
const DIGITS: u8 = 4;

/// How long requests took. At most 1.2 MiB, however many there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Responses {
    sum_us: u64,
    /// None before the first one.
    times: Option<Histogram<u32>>,
}

impl Responses {
    pub(super) fn add(&mut self, us: u32) {
        self.sum_us = self.sum_us.saturating_add(u64::from(us));
        if self.times.is_none() {
            let most = u64::from(u32::MAX);
            self.times = Histogram::new_with_bounds(1, most, DIGITS).ok();
        }
        if let Some(times) = &mut self.times {
            times.saturating_record(u64::from(us));
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.times.as_ref().map_or(0, Histogram::len)
    }

    /// All of them together, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Their mean, microseconds; 0 if there are none.
    pub fn mean_us(&self) -> f64 {
        self.sum_us as f64 / self.count().max(1) as f64
    }

    /// The time that a share of all requests does not exceed, microseconds; 0 if there are none.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let times = self.times.as_ref();
        times.map_or(0, |times| {
            times.lowest_equivalent(times.value_at_quantile(share))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_a_sorted_list() {
        let mut all: Vec<u32> = (0..5000_u32)
            .map(|n| n.wrapping_mul(7919) % 90_001)
            .collect();
        let mut ours = Responses::default();
        assert_eq!((ours.mean_us(), ours.quantile_us(0.5)), (0.0, 0));
        all.iter().for_each(|us| ours.add(*us));
        all.sort_unstable();
        assert_eq!(ours.sum_us(), all.iter().map(|us| u64::from(*us)).sum());
        assert_eq!(ours.count(), 5000);
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let exact = f64::from(all[(5000.0 * share) as usize - 1]);
            let error = ours.quantile_us(share) as f64 / exact - 1.0;
            assert!(error.abs() <= 1.0 / 16_384.0, "{share}: {error}");
        }
        ours.add(u32::MAX);
        assert!(ours.quantile_us(1.0) > u64::from(u32::MAX) / 10_001 * 10_000);
    }
}
