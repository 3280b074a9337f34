//! Which logged changes the tree already shows.
//!
//! Kept as the attribute `user.tierdav.applied` of `.tierdav` and rewritten after each applied
//! change. A journalling file system makes its metadata durable in order, so after a crash the
//! attribute is as old as the tree: what it lists is there, and of the rest at most the changes
//! that were just being applied (their replay tolerates that). So replay repeats each missing
//! change once, over the very state it was meant for.
//!
//! Format: `u64` n, then a bit map of [`WINDOW`] bits: all numbers below n are applied, and n + i
//! when bit i is set.

use std::collections::BTreeSet;

/// Name of the attribute.
pub const ATTRIBUTE: &str = "user.tierdav.applied";
/// How far a change may overtake the oldest one not yet applied.
pub const WINDOW: u64 = 128;
/// Bytes of the encoded form.
pub const ENCODED_BYTES: usize = 8 + WINDOW as usize / 8;

/// A set of numbers without gaps at its low end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The lowest number not applied.
    pub next: u64,
    above: BTreeSet<u64>,
}

impl Default for Applied {
    fn default() -> Self {
        Applied {
            next: 1,
            above: BTreeSet::new(),
        }
    }
}

impl Applied {
    /// Whether `number` is applied.
    pub fn contains(&self, number: u64) -> bool {
        number < self.next || self.above.contains(&number)
    }

    /// Notes `number`; it must be less than `next + WINDOW`.
    pub fn insert(&mut self, number: u64) {
        if number >= self.next {
            self.above.insert(number);
        }
        while self.above.remove(&self.next) {
            self.next += 1;
        }
    }

    /// The highest number applied; 0 for none.
    pub fn highest(&self) -> u64 {
        self.above
            .last()
            .copied()
            .unwrap_or(self.next.saturating_sub(1))
    }

    /// All numbers up to `number` are settled, applied or not.
    pub fn advance(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
        self.above = self.above.split_off(&self.next);
        while self.above.remove(&self.next) {
            self.next += 1;
        }
    }

    /// The attribute's value.
    pub fn encode(&self) -> [u8; ENCODED_BYTES] {
        let mut out = [0; ENCODED_BYTES];
        out[..8].copy_from_slice(&self.next.to_le_bytes());
        for n in &self.above {
            let bit = (n - self.next) as usize;
            if let Some(byte) = out.get_mut(8 + bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
        out
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Option<Applied> {
        let bytes: &[u8; ENCODED_BYTES] = bytes.try_into().ok()?;
        let (head, map) = bytes.split_first_chunk::<8>()?;
        let next = u64::from_le_bytes(*head);
        let mut applied = Applied {
            next,
            above: BTreeSet::new(),
        };
        for bit in 0..WINDOW {
            if map[bit as usize / 8] & (1 << (bit % 8)) != 0 {
                applied.insert(next.checked_add(bit)?);
            }
        }
        Some(applied)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set_and_round_trips(steps in proptest::collection::vec(0..WINDOW, 0..300)) {
            let (mut a, mut model) = (Applied::default(), BTreeSet::new());
            for s in steps {
                let n = a.next + s;
                a.insert(n);
                model.insert(n);
                prop_assert_eq!(a.highest(), *model.last().unwrap());
            }
            for n in 1..600 {
                prop_assert_eq!(a.contains(n), model.contains(&n));
            }
            prop_assert_eq!(Applied::decode(&a.encode()), Some(a));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Applied::decode(&bytes);
        }
    }
}
