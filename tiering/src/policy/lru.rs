//! `lru`: promotes on the first read, evicts the least recently used.

use std::collections::BTreeMap;

use super::planner::{Access, Origin, Strategy, objects_of};
use crate::event::Reason;
use crate::types::{FileId, Nanos, ObjectId};

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

#[derive(Default)]
pub(crate) struct Lru {
    order: Order,
}

impl Strategy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }
    fn read(&mut self, _: Nanos, access: &Access) -> Option<Reason> {
        self.order.touch(access.id);
        (!access.resident).then_some(Reason::FirstRead)
    }
    fn revalidated(&mut self, _: Nanos, file: FileId) {
        self.order.touch_file(file);
    }
    fn entered(&mut self, _: Nanos, id: ObjectId, _: u32, _: bool, _: Origin) {
        self.order.insert(id);
    }
    fn left(&mut self, id: ObjectId) {
        self.order.remove(id);
    }
    fn remembered(&self) -> usize {
        self.order.len()
    }
    fn pop_victim(&mut self, _: Nanos) -> Option<ObjectId> {
        self.order.pop_oldest()
    }
}
