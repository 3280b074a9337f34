//! What is known of each object, in slots that are found by identity or drawn by chance.

use super::outlook::Class;
use crate::objects::Objects;
use crate::types::{FileId, Nanos, ObjectId};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Ghost,
    Main,
    /// A victim: out of all orders until it has left.
    Leaving,
}

/// What is remembered of an object: one line of a CPU's cache, for most of a decision is to wait for memory. Some 170
/// bytes with the identity and with the table and the lists around it.
#[repr(align(64))]
pub(super) struct Heat {
    /// Decayed head time of its accesses, and decayed count of its uses, at `at`.
    pub seconds: f64,
    pub count: f64,
    pub at: Nanos,
    pub used: Nanos,
    /// Up to here the outlook knows of it.
    pub told: Nanos,
    made: Nanos,
    pub len: u32,
    /// Where a sequential reader goes on; `u32::MAX` when unknown.
    pub next_offset: u32,
    /// Place in its list.
    listed: u32,
    place: Place,
    /// Its making was seen.
    written: bool,
    pub dirty: bool,
    /// Whether it dies before it would have to be flushed is not known yet.
    pub young: bool,
}

impl Heat {
    pub(super) fn new(now: Nanos, len: u32) -> Self {
        Self {
            seconds: 0.0,
            count: 0.0,
            at: now,
            used: now,
            told: now,
            made: Nanos(0),
            len,
            next_offset: u32::MAX,
            listed: 0,
            place: Place::Leaving,
            written: false,
            dirty: false,
            young: false,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Seen when it was written; none for others.
    pub(super) fn made(&self) -> Option<Nanos> {
        self.written.then_some(self.made)
    }

    /// It is written now: whether it lives until it is due is not known.
    pub(super) fn make(&mut self, now: Nanos) {
        (self.made, self.written, self.young) = (now, true, true);
    }

    pub(super) fn class(&self) -> Class {
        Class::new(self.len, self.written, (self.count + 0.5) as u32)
    }
}

/// The slot of an object; it stays the same until the object is forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// All that is remembered.
#[derive(Default)]
pub(super) struct Heats {
    index: Objects<Slot>,
    of: Vec<Heat>,
    /// The objects of the slots.
    ids: Vec<ObjectId>,
    free: Vec<Slot>,
    main: Vec<Slot>,
    ghosts: Vec<Slot>,
}

impl std::ops::Index<Slot> for Heats {
    type Output = Heat;
    fn index(&self, slot: Slot) -> &Heat {
        &self.of[slot.0 as usize]
    }
}

impl std::ops::IndexMut<Slot> for Heats {
    fn index_mut(&mut self, slot: Slot) -> &mut Heat {
        &mut self.of[slot.0 as usize]
    }
}

impl Heats {
    pub(super) fn find(&self, id: ObjectId) -> Option<Slot> {
        self.index.get(id).copied()
    }

    pub(super) fn id(&self, slot: Slot) -> ObjectId {
        self.ids[slot.0 as usize]
    }

    /// Remembers an object, which must not be known.
    fn add(&mut self, id: ObjectId, heat: Heat) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                self[slot] = heat;
                self.ids[slot.0 as usize] = id;
                slot
            }
            None => {
                self.of.push(heat);
                self.ids.push(id);
                Slot(self.of.len() as u32 - 1)
            }
        };
        self.index.insert(id, slot);
        slot
    }

    /// Finds an object, or remembers it from now on; tells whether it is new.
    pub(super) fn find_or_add(&mut self, id: ObjectId, now: Nanos, len: u32) -> (Slot, bool) {
        match self.find(id) {
            Some(slot) => (slot, false),
            None => (self.add(id, Heat::new(now, len)), true),
        }
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.place(slot, Place::Leaving);
        let id = self.id(slot);
        self.index.remove(id);
        self.free.push(slot);
    }

    pub(super) fn objects(&self, file: FileId) -> Vec<Slot> {
        self.index.of_file(file).map(|(_, slot)| *slot).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Those of one place that can be drawn.
    pub(super) fn list(&self, place: Place) -> &[Slot] {
        match place {
            Place::Main => &self.main,
            Place::Ghost => &self.ghosts,
            Place::Leaving => &[],
        }
    }

    fn list_mut(&mut self, place: Place) -> Option<&mut Vec<Slot>> {
        match place {
            Place::Main => Some(&mut self.main),
            Place::Ghost => Some(&mut self.ghosts),
            Place::Leaving => None,
        }
    }

    /// Moves an object from its list to another.
    pub(super) fn place(&mut self, slot: Slot, place: Place) {
        let listed = self[slot].listed as usize;
        let old = std::mem::replace(&mut self[slot].place, place);
        if let Some(list) = self.list_mut(old) {
            list.swap_remove(listed);
            if let Some(moved) = list.get(listed).copied() {
                self[moved].listed = listed as u32;
            }
        }
        if let Some(list) = self.list_mut(place) {
            list.push(slot);
            let last = list.len() as u32 - 1;
            self[slot].listed = last;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_score_is_made_of_is_in_one_line_of_the_cache() {
        assert_eq!(size_of::<Heat>(), 64);
    }

    #[test]
    fn lists_and_slots_stay_in_step() {
        let mut heats = Heats::default();
        let id = |n| ObjectId::new(FileId(n), 0);
        for n in 0..10 {
            let (slot, new) = heats.find_or_add(id(n), Nanos(0), 1);
            assert!(new);
            let place = if n % 2 == 0 {
                Place::Main
            } else {
                Place::Ghost
            };
            heats.place(slot, place);
        }
        for n in [0, 3, 9] {
            let slot = heats.find(id(n)).unwrap();
            heats.forget(slot);
        }
        let slot = heats.find(id(8)).unwrap();
        heats.place(slot, Place::Leaving);
        let (slot, new) = heats.find_or_add(id(20), Nanos(0), 1);
        assert!(new && heats.of.len() == 10);
        heats.place(slot, Place::Main);
        let files = |place| {
            let mut files: Vec<u64> = heats
                .list(place)
                .iter()
                .map(|s| heats.id(*s).file.0)
                .collect();
            files.sort_unstable();
            files
        };
        assert_eq!(files(Place::Main), [2, 4, 6, 20]);
        assert_eq!(files(Place::Ghost), [1, 5, 7]);
        assert_eq!((heats.len(), heats.objects(FileId(8)).len()), (8, 1));
    }
}
