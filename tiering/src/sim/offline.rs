//! What a cache that knows the future could do with objects of different sizes: bounds of its misses.
//!
//! Berger, Beckmann, Harchol-Balter: "Practical bounds on optimal caching with variable object sizes"
//! (POMACS 2(2), 2018). An object need not be kept, nor admitted, at its request.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::types::ObjectId;

/// Bytes in use over a row of moments: adds and asks over ranges, in logarithmic time.
pub(super) struct Timeline {
    moments: usize,
    /// A heap-shaped tree: the most below a node, its own additions included.
    most: Vec<u64>,
    added: Vec<u64>,
}

impl Timeline {
    pub(super) fn new(moments: usize) -> Self {
        let nodes = 2 * moments.max(1).next_power_of_two();
        Self {
            moments: moments.max(1).next_power_of_two(),
            most: vec![0; nodes],
            added: vec![0; nodes],
        }
    }

    /// Takes `bytes` over `range` if no more than `limit` are in use then at any moment of it.
    pub(super) fn take(&mut self, range: &Range<usize>, bytes: u64, limit: u64) -> bool {
        let room = self.peak(1, 0..self.moments, range) + bytes <= limit;
        if room {
            self.add(1, 0..self.moments, range, bytes);
        }
        room
    }

    fn peak(&self, node: usize, span: Range<usize>, range: &Range<usize>) -> u64 {
        if range.start >= span.end || range.end <= span.start {
            return 0;
        }
        if range.start <= span.start && range.end >= span.end {
            return self.most[node];
        }
        let middle = span.start.midpoint(span.end);
        let left = self.peak(2 * node, span.start..middle, range);
        let right = self.peak(2 * node + 1, middle..span.end, range);
        self.added[node] + left.max(right)
    }

    fn add(&mut self, node: usize, span: Range<usize>, range: &Range<usize>, bytes: u64) {
        if range.start >= span.end || range.end <= span.start {
            return;
        }
        if range.start <= span.start && range.end >= span.end {
            self.most[node] += bytes;
            self.added[node] += bytes;
            return;
        }
        let middle = span.start.midpoint(span.end);
        self.add(2 * node, span.start..middle, range, bytes);
        self.add(2 * node + 1, middle..span.end, range, bytes);
        self.most[node] = self.added[node] + self.most[2 * node].max(self.most[2 * node + 1]);
    }
}

/// Between which numbers of misses the optimum for mixed sizes lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissBounds {
    /// No cache of this size has fewer (PFOO-L).
    pub at_least: u64,
    /// A plan that fits has so many: the cheapest intervals first, as long as there is room.
    pub at_most: u64,
}

/// Bounds the misses of the best cache of `capacity` bytes.
pub fn miss_bounds(accesses: &[(ObjectId, u32)], capacity: u64) -> MissBounds {
    let mut last: BTreeMap<ObjectId, usize> = BTreeMap::new();
    // Price in byte-moments, when, and bytes.
    let mut intervals = Vec::new();
    for (at, (id, len)) in accesses.iter().enumerate() {
        if let Some(before) = last.insert(*id, at) {
            let price = u128::from(*len) * (at - before) as u128;
            intervals.push((price, before..at, u64::from(*len)));
        }
    }
    intervals.sort_by_key(|(price, range, _)| (*price, range.start));
    let mut left = u128::from(capacity) * accesses.len() as u128;
    let mut timeline = Timeline::new(accesses.len());
    let (mut relaxed_hits, mut planned_hits) = (0, 0);
    for (price, range, len) in &intervals {
        if left > 0 && *len <= capacity {
            left = left.saturating_sub(*price);
            relaxed_hits += 1;
        }
        planned_hits += u64::from(timeline.take(range, *len, capacity));
    }
    let all = accesses.len() as u64;
    MissBounds {
        at_least: all - relaxed_hits,
        at_most: all - planned_hits,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::policy::PolicyConfig;
    use crate::sim::{Replacement, belady};
    use crate::types::FileId;

    /// The fewest misses by trying all subsets of intervals.
    fn exhaustive(accesses: &[(ObjectId, u32)], capacity: u64) -> u64 {
        let mut last = BTreeMap::new();
        let mut intervals = Vec::new();
        for (at, (id, len)) in accesses.iter().enumerate() {
            if let Some(before) = last.insert(*id, at) {
                intervals.push((before..at, u64::from(*len)));
            }
        }
        let fits = |chosen: u32| {
            (0..accesses.len()).all(|at| {
                let used = intervals
                    .iter()
                    .enumerate()
                    .filter(|(i, (range, _))| chosen & (1 << i) != 0 && range.contains(&at));
                used.map(|(_, (_, len))| len).sum::<u64>() <= capacity
            })
        };
        let plans = (0..1_u32 << intervals.len()).filter(|chosen| fits(*chosen));
        let hits = plans.map(u32::count_ones).max().unwrap();
        accesses.len() as u64 - u64::from(hits)
    }

    proptest! {
        #[test]
        fn the_optimum_lies_between(
            keys in prop::collection::vec(0u64..5, 0..14),
            sizes in prop::collection::vec(1u32..5, 5),
            capacity in 0u64..12,
        ) {
            let object = |key: &u64| (ObjectId::new(FileId(key + 1), 0), sizes[*key as usize]);
            let accesses: Vec<_> = keys.iter().map(object).collect();
            let bounds = miss_bounds(&accesses, capacity);
            let best = exhaustive(&accesses, capacity);
            prop_assert!(bounds.at_least <= best && best <= bounds.at_most, "{bounds:?} {best}");
            prop_assert!(bounds.at_least <= belady(&accesses, capacity));
            for name in ["lru", "arc", "lirs", "gdsf", "w-tinylfu"] {
                let config = PolicyConfig::from_name(name).unwrap();
                let mut cache = Replacement::new(&config, capacity).unwrap();
                let misses = accesses.iter().filter(|(id, len)| !cache.access(*id, *len));
                prop_assert!(bounds.at_least <= misses.count() as u64, "{}", name);
            }
        }
    }
}
