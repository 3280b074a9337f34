//! Counts by powers of two: enough for sizes and times that span ten decades, and small.

use serde::Serialize;
use serde::ser::SerializeSeq;

/// How many values lie from each power of two to the next. 0 has a bucket of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; 65],
}

/// One bucket that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Least value.
    pub from: u64,
    /// First value beyond; the greatest bucket of all ends at the greatest number.
    pub below: u64,
    /// Values in it.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; 65] }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += 1;
    }

    /// All values counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What is not empty, in order.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, c)| **c > 0);
        filled.map(|(index, &count)| Bucket {
            from: if index == 0 { 0 } else { 1 << (index - 1) },
            below: 1_u64.checked_shl(index as u32).unwrap_or(u64::MAX),
            count,
        })
    }

    /// The bucket that holds the quantile; none when nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Bucket> {
        let mut left = (self.count() as f64 * q).ceil().max(1.0) as u64;
        self.buckets().find(|bucket| {
            let found = left <= bucket.count;
            left = left.saturating_sub(bucket.count);
            found
        })
    }
}

impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut list = s.serialize_seq(None)?;
        for bucket in self.buckets() {
            list.serialize_element(&bucket)?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_power_of_two_begins_its_bucket() {
        let mut h = Histogram::default();
        for value in [0, 1, 2, 3, 4, u64::MAX] {
            h.add(value);
        }
        let buckets: Vec<_> = h.buckets().map(|b| (b.from, b.below, b.count)).collect();
        let top = (1 << 63, u64::MAX, 1);
        assert_eq!(buckets, [(0, 1, 1), (1, 2, 1), (2, 4, 2), (4, 8, 1), top]);
        assert_eq!(h.quantile(0.5).unwrap().from, 2);
        assert_eq!(h.quantile(1.0).unwrap().from, 1 << 63);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
