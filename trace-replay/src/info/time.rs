//! What happened when: sums and levels in at most a few hundred intervals, however long the trace.

use serde::Serialize;

/// Intervals before two become one.
const INTERVALS_MAX: usize = 400;

/// One interval.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// Operations that started in it.
    pub operations: u64,
    /// Bytes read by them.
    pub read_bytes: u64,
    /// Bytes written by them.
    pub written_bytes: u64,
    /// Distinct bytes touched from the beginning of the trace to the end of this interval.
    pub touched_bytes: u64,
    /// Bytes in files that the trace wrote and that exist at the end of this interval.
    pub living_bytes: u64,
}

/// A trace in intervals of equal length.
#[derive(Debug, Clone, Serialize)]
pub struct OverTime {
    /// Length of each; doubles as the trace grows long.
    pub interval_us: u64,
    /// From the first entry's start on.
    pub intervals: Vec<Interval>,
}

impl Default for OverTime {
    fn default() -> OverTime {
        OverTime {
            interval_us: 1000,
            intervals: Vec::new(),
        }
    }
}

impl OverTime {
    /// Adds one operation: bytes read and written, and the levels (touched, living) after it.
    pub(super) fn add(&mut self, at_us: u64, moved: [u64; 2], levels: [u64; 2]) {
        while at_us / self.interval_us >= INTERVALS_MAX as u64 {
            let pairs = self.intervals.chunks(2);
            self.intervals = pairs
                .map(|pair| pair.iter().copied().reduce(join).unwrap_or_default())
                .collect();
            self.interval_us *= 2;
        }
        let index = (at_us / self.interval_us) as usize;
        if index >= self.intervals.len() {
            // Nothing happened in between: the levels stay.
            let still = self
                .intervals
                .last()
                .map_or_else(Interval::default, |last| Interval {
                    operations: 0,
                    read_bytes: 0,
                    written_bytes: 0,
                    ..*last
                });
            self.intervals.resize(index + 1, still);
        }
        let interval = &mut self.intervals[index];
        interval.operations += 1;
        interval.read_bytes += moved[0];
        interval.written_bytes += moved[1];
        // Of an entry that steps back, too: they are those of all that was seen.
        if let Some(last) = self.intervals.last_mut() {
            [last.touched_bytes, last.living_bytes] = levels;
        }
    }
}

fn join(a: Interval, b: Interval) -> Interval {
    Interval {
        operations: a.operations + b.operations,
        read_bytes: a.read_bytes + b.read_bytes,
        written_bytes: a.written_bytes + b.written_bytes,
        ..b
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_long_trace_keeps_its_sums_and_its_last_levels() {
        let mut over = OverTime::default();
        for i in 0..10_000_u64 {
            over.add(i * 997, [1, 2], [i, 10_000 - i]);
        }
        assert!(over.intervals.len() <= INTERVALS_MAX && over.intervals.len() > INTERVALS_MAX / 4);
        let sum = |f: fn(&Interval) -> u64| over.intervals.iter().map(f).sum::<u64>();
        assert_eq!(
            [
                sum(|i| i.operations),
                sum(|i| i.read_bytes),
                sum(|i| i.written_bytes)
            ],
            [10_000, 10_000, 20_000]
        );
        assert_eq!(over.intervals.last().unwrap().touched_bytes, 9_999);
        assert!(
            over.intervals
                .windows(2)
                .all(|w| w[0].touched_bytes < w[1].touched_bytes)
        );
    }

    #[test]
    fn a_step_back_counts_where_it_belongs_and_ends_at_the_last_levels() {
        let mut over = OverTime::default();
        over.add(0, [0, 5], [5, 5]);
        over.add(2500, [0, 1], [6, 6]);
        over.add(1500, [0, 3], [9, 8]);
        let seen = over.intervals.iter().map(|i| {
            let levels = (i.touched_bytes, i.living_bytes);
            (i.written_bytes, levels)
        });
        let want = [(5, (5, 5)), (3, (5, 5)), (1, (9, 8))];
        assert_eq!(seen.collect::<Vec<_>>(), want);
    }

    #[test]
    fn levels_last_through_silence() {
        let mut over = OverTime::default();
        over.add(0, [0, 5], [5, 5]);
        over.add(10_500, [0, 1], [6, 6]);
        let between = over.intervals[5];
        assert_eq!(
            (
                between.operations,
                between.written_bytes,
                between.touched_bytes
            ),
            (0, 0, 5)
        );
    }
}
