//! The order of last use, for policies with their own rule of admission.

use std::collections::BTreeMap;

use super::planner::objects_of;
use crate::types::{FileId, ObjectId};

/// Residents by their last access. The order of calls counts, not the time.
#[derive(Default)]
pub(crate) struct Order {
    turns: u64,
    turn_of: BTreeMap<ObjectId, u64>,
    by_turn: BTreeMap<u64, ObjectId>,
}

impl Order {
    pub(crate) fn insert(&mut self, id: ObjectId) {
        self.turns += 1;
        if let Some(turn) = self.turn_of.insert(id, self.turns) {
            self.by_turn.remove(&turn);
        }
        self.by_turn.insert(self.turns, id);
    }

    pub(crate) fn touch(&mut self, id: ObjectId) {
        if self.turn_of.contains_key(&id) {
            self.insert(id);
        }
    }

    pub(crate) fn touch_file(&mut self, file: FileId) {
        let ids: Vec<ObjectId> = self
            .turn_of
            .range(objects_of(file))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.insert(id));
    }

    pub(crate) fn remove(&mut self, id: ObjectId) {
        if let Some(turn) = self.turn_of.remove(&id) {
            self.by_turn.remove(&turn);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.turn_of.len()
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<ObjectId> {
        let (_, id) = self.by_turn.pop_first()?;
        self.turn_of.remove(&id);
        Some(id)
    }
}
