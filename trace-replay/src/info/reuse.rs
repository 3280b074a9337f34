//! Reuse distances: how many bytes of other pieces were used between two uses of one.
//!
//! What an LRU cache must hold to keep the piece until then (Mattson et al. 1970). Each piece's weight stands in a
//! Fenwick tree at the time of its last use; the distance is the weight of all that came later. Time is renumbered
//! when the tree is full, so memory follows the number of pieces, not of accesses.

use std::collections::HashMap;
use std::hash::Hash;

const SLOTS_MIN: usize = 1 << 12;

/// The order of last uses.
pub(super) struct Reuse<K> {
    last: HashMap<K, (usize, u64)>,
    tree: Vec<u64>,
    now: usize,
    total: u64,
}

impl<K: Hash + Eq + Copy> Reuse<K> {
    pub(super) fn new() -> Reuse<K> {
        Reuse {
            last: HashMap::new(),
            tree: vec![0; SLOTS_MIN + 1],
            now: 0,
            total: 0,
        }
    }

    /// Notes a use of `key`, which weighs `weight` now. The distance to its last use, none for its first.
    pub(super) fn used(&mut self, key: K, weight: u64) -> Option<u64> {
        if self.now + 1 == self.tree.len() {
            self.renumber();
        }
        let before = self.last.get(&key).copied();
        let distance = before.map(|(slot, old)| {
            let later = self.total - self.up_to(slot);
            self.change(slot, old, false);
            later
        });
        self.now += 1;
        self.change(self.now, weight, true);
        self.last.insert(key, (self.now, weight));
        distance
    }

    fn change(&mut self, slot: usize, weight: u64, add: bool) {
        let apply = |value: &mut u64| {
            *value = if add {
                *value + weight
            } else {
                *value - weight
            };
        };
        apply(&mut self.total);
        let mut index = slot;
        while let Some(value) = self.tree.get_mut(index) {
            apply(value);
            index += index & index.wrapping_neg();
        }
    }

    fn up_to(&self, slot: usize) -> u64 {
        let mut index = slot;
        let mut sum = 0;
        while index > 0 {
            sum += self.tree[index];
            index &= index - 1;
        }
        sum
    }

    fn renumber(&mut self) {
        let mut order: Vec<(K, (usize, u64))> = self.last.drain().collect();
        order.sort_unstable_by_key(|(_, (slot, _))| *slot);
        self.tree = vec![0; (order.len() * 2).max(SLOTS_MIN) + 1];
        (self.now, self.total) = (0, 0);
        for (key, (_, weight)) in order {
            self.now += 1;
            self.change(self.now, weight, true);
            self.last.insert(key, (self.now, weight));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list in order of use, long enough to renumber several times.
        #[test]
        fn distances_are_those_of_an_lru_list(uses in prop::collection::vec((0_u32..40, 1_u64..9), 1..200)) {
            let mut reuse = Reuse::new();
            let mut list: Vec<(u32, u64)> = Vec::new();
            for round in 0..=SLOTS_MIN * 3 / uses.len() {
                for &(key, weight) in &uses {
                    let key = key + (round % 3) as u32;
                    let found = list.iter().position(|e| e.0 == key);
                    let expected = found.map(|at| list[at + 1..].iter().map(|e| e.1).sum::<u64>());
                    if let Some(at) = found {
                        list.remove(at);
                    }
                    list.push((key, weight));
                    prop_assert_eq!(reuse.used(key, weight), expected);
                }
            }
        }
    }
}
