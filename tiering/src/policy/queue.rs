//! The list that the classic algorithms are made of: ordered by turn, sized in bytes.

use std::collections::BTreeMap;

use crate::types::{FileId, ObjectId};

use super::planner::objects_of;

/// Objects in the order of their last [`Queue::push`]; every operation is logarithmic.
#[derive(Default)]
pub(crate) struct Queue {
    turns: u64,
    of: BTreeMap<ObjectId, (u64, u32)>,
    by: BTreeMap<u64, ObjectId>,
    bytes: u64,
}

impl Queue {
    /// Puts an object at the young end.
    pub(crate) fn push(&mut self, id: ObjectId, len: u32) {
        self.remove(id);
        self.turns += 1;
        self.of.insert(id, (self.turns, len));
        self.by.insert(self.turns, id);
        self.bytes += u64::from(len);
    }

    /// Puts an object that it has at the young end.
    pub(crate) fn touch(&mut self, id: ObjectId) -> bool {
        let len = self.len_of(id);
        if let Some(len) = len {
            self.push(id, len);
        }
        len.is_some()
    }

    pub(crate) fn len_of(&self, id: ObjectId) -> Option<u32> {
        self.of.get(&id).map(|(_, len)| *len)
    }

    pub(crate) fn contains(&self, id: ObjectId) -> bool {
        self.of.contains_key(&id)
    }

    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<u32> {
        let (turn, len) = self.of.remove(&id)?;
        self.by.remove(&turn);
        self.bytes -= u64::from(len);
        Some(len)
    }

    pub(crate) fn oldest(&self) -> Option<ObjectId> {
        self.by.first_key_value().map(|(_, id)| *id)
    }

    pub(crate) fn pop(&mut self) -> Option<(ObjectId, u32)> {
        let id = self.oldest()?;
        Some((id, self.remove(id)?))
    }

    /// Forgets the oldest until at most `bytes` are left; identities are bounded by [`GHOSTS_MAX`].
    pub(crate) fn trim(&mut self, bytes: u64) {
        while self.bytes > bytes || self.of.len() > GHOSTS_MAX {
            self.pop();
        }
    }

    /// The object pushed at `turn`, or the next younger one.
    pub(crate) fn at_turn(&self, turn: u64) -> Option<(u64, ObjectId)> {
        self.by.range(turn..).next().map(|(t, id)| (*t, *id))
    }

    pub(crate) fn remove_file(&mut self, file: FileId) {
        for id in self.of_file(file) {
            self.remove(id);
        }
    }

    pub(crate) fn of_file(&self, file: FileId) -> Vec<ObjectId> {
        self.of.range(objects_of(file)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }
}

/// Identities of absent objects that one list remembers at most.
pub(crate) const GHOSTS_MAX: usize = 262_144;
