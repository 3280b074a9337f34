//! Promotions that wait until the backing device has nothing else to do.

use super::heat::Slot;

/// So many wait at most; the oldest is given up for the newest.
const WAITING_MAX: usize = 256;

/// Who waits, each once. The newest goes first: what was just used is most likely used again.
#[derive(Default)]
pub(super) struct Waiting {
    oldest_first: Vec<Slot>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.oldest_first.is_empty()
    }

    pub(super) fn hold(&mut self, slot: Slot) {
        if self.oldest_first.last() == Some(&slot) {
            return;
        }
        self.settle(slot);
        if self.oldest_first.len() >= WAITING_MAX {
            self.oldest_first.remove(0);
        }
        self.oldest_first.push(slot);
    }

    /// It need not wait, or nothing is known of it any more.
    pub(super) fn settle(&mut self, slot: Slot) {
        self.oldest_first.retain(|waiting| *waiting != slot);
    }

    pub(super) fn take(&mut self) -> Option<Slot> {
        self.oldest_first.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::heat::Heats;
    use crate::types::{FileId, Nanos, ObjectId};

    #[test]
    fn the_newest_wait_each_once() {
        let mut heats = Heats::default();
        let slots: Vec<Slot> = (0..300)
            .map(|n| ObjectId::new(FileId(n), 0))
            .map(|id| heats.find_or_add(id, Nanos(0), 1).0)
            .collect();
        let mut waiting = Waiting::default();
        slots.iter().for_each(|slot| waiting.hold(*slot));
        waiting.hold(slots[100]);
        waiting.settle(slots[299]);
        waiting.settle(slots[0]);
        let order: Vec<u64> = std::iter::from_fn(|| waiting.take())
            .map(|slot| heats.id(slot).file.0)
            .collect();
        let newest = (44..299).rev().filter(|n| *n != 100);
        let expected: Vec<u64> = std::iter::once(100).chain(newest).collect();
        assert_eq!(order, expected);
        assert!(waiting.is_empty());
    }
}
