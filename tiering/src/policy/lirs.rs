//! `lirs`: Jiang and Zhang, "LIRS: an efficient low inter-reference recency set replacement policy"
//! (SIGMETRICS '02), in bytes.

use super::evict::{Evictor, of_file, share};
use super::queue::Queue;
use super::{LirsConfig, PolicyConfig};
use crate::objects::Objects;
use crate::types::{FileId, ObjectId};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Lir,
    /// Resident, in the list of candidates.
    Hir,
    /// Gone, remembered in the stack.
    Ghost,
}

pub(crate) struct Lirs {
    config: LirsConfig,
    capacity: u64,
    /// By recency: all LIR objects, and what was used since the oldest of them.
    stack: Queue,
    /// Resident HIR objects: victims from the old end.
    candidates: Queue,
    /// Ghosts in the order in which they left: bounds memory.
    ghosts: Queue,
    state: Objects<State>,
    lir_bytes: u64,
    /// The candidates have room for at least one object.
    largest: u64,
    overdue: Vec<ObjectId>,
}

impl Lirs {
    pub(crate) fn new(config: &LirsConfig) -> Self {
        Self {
            config: config.clone(),
            capacity: 0,
            stack: Queue::default(),
            candidates: Queue::default(),
            ghosts: Queue::default(),
            state: Objects::default(),
            lir_bytes: 0,
            largest: 0,
            overdue: Vec::new(),
        }
    }

    fn hir_limit(&self) -> u64 {
        share(self.capacity, self.config.hir_share).max(self.largest)
    }

    fn lir_limit(&self) -> u64 {
        self.capacity.saturating_sub(self.hir_limit())
    }

    /// Takes what is not LIR from the old end of the stack.
    fn prune(&mut self) {
        while let Some(id) = self.stack.oldest() {
            match self.state.get(id) {
                Some(State::Lir) => return,
                Some(State::Ghost) => {
                    self.state.remove(id);
                    self.ghosts.remove(id);
                }
                Some(State::Hir) | None => {}
            }
            self.stack.remove(id);
        }
    }

    /// The oldest LIR object becomes a candidate.
    fn demote(&mut self) -> bool {
        self.prune();
        let Some((id, len)) = self.stack.pop() else {
            return false;
        };
        self.lir_bytes -= u64::from(len);
        self.state.insert(id, State::Hir);
        self.candidates.push(id, len);
        self.prune();
        true
    }

    fn promote(&mut self, id: ObjectId, len: u32) {
        self.candidates.remove(id);
        self.ghosts.remove(id);
        self.state.insert(id, State::Lir);
        self.lir_bytes += u64::from(len);
        self.stack.push(id, len);
        while self.lir_bytes > self.lir_limit() && self.lir_bytes > u64::from(len) && self.demote()
        {
        }
        self.prune();
    }

    /// With `demote_on_late_hit`, makes room among the ranked that the next new object will take.
    fn late_hit(&mut self, len: u32) {
        if self.config.demote_on_late_hit == 0 {
            return;
        }
        while self.lir_bytes + u64::from(len) > self.lir_limit() && self.demote() {}
        while self.candidates.bytes() > self.hir_limit() {
            let Some(id) = self.leave() else { break };
            self.overdue.push(id);
        }
    }

    /// The oldest candidate leaves; the stack remembers it if it lists it.
    fn leave(&mut self) -> Option<ObjectId> {
        let (id, len) = self.candidates.pop()?;
        if self.stack.contains(id) {
            self.state.insert(id, State::Ghost);
            self.ghosts.push(id, len);
        } else {
            self.state.remove(id);
        }
        Some(id)
    }

    fn bound_stack(&mut self) {
        let limit = share(self.capacity, self.config.stack_share);
        while self.stack.bytes() > limit || self.ghosts.len() > super::queue::GHOSTS_MAX {
            let Some(oldest) = self.ghosts.oldest() else {
                break;
            };
            self.drop_ghost(oldest);
        }
    }

    fn drop_ghost(&mut self, id: ObjectId) {
        self.ghosts.remove(id);
        self.stack.remove(id);
        self.state.remove(id);
        self.prune();
    }
}

impl Evictor for Lirs {
    fn name(&self) -> &'static str {
        "lirs"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::Lirs(config) = config else {
            return false;
        };
        self.config.clone_from(config);
        true
    }
    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
    }
    fn holds(&self, id: ObjectId) -> bool {
        matches!(self.state.get(id), Some(State::Lir | State::Hir))
    }
    fn bytes(&self) -> u64 {
        self.lir_bytes + self.candidates.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        match self.state.get(id) {
            Some(State::Lir) => {
                self.stack.touch(id);
                self.prune();
            }
            Some(State::Hir) => {
                let Some(len) = self.candidates.len_of(id) else {
                    return;
                };
                if self.stack.contains(id) {
                    self.promote(id, len);
                } else {
                    self.candidates.touch(id);
                    self.late_hit(len);
                    if self.candidates.contains(id) {
                        self.stack.push(id, len);
                    }
                }
            }
            Some(State::Ghost) | None => {}
        }
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.largest = self.largest.max(u64::from(len));
        let ghost = self.state.get(id) == Some(&State::Ghost);
        if ghost || self.lir_bytes + u64::from(len) <= self.lir_limit() {
            self.promote(id, len);
        } else {
            self.state.insert(id, State::Hir);
            self.stack.push(id, len);
            self.candidates.push(id, len);
        }
        self.bound_stack();
    }
    fn victim(&mut self) -> Option<ObjectId> {
        if self.candidates.len() == 0 {
            self.demote();
        }
        self.leave()
    }
    fn overdue(&mut self) -> Option<ObjectId> {
        self.overdue.pop()
    }
    fn remove(&mut self, id: ObjectId) {
        match self.state.get(id) {
            Some(State::Lir) => {
                let len = self.stack.remove(id).unwrap_or(0);
                self.lir_bytes -= u64::from(len);
            }
            Some(State::Hir) => {
                self.stack.remove(id);
                self.candidates.remove(id);
            }
            Some(State::Ghost) | None => return,
        }
        self.state.remove(id);
        self.prune();
    }
    fn forget(&mut self, file: FileId) {
        for id in self.ghosts.of_file(file) {
            self.drop_ghost(id);
        }
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        let mut ids = of_file(&[&self.stack, &self.candidates], file);
        ids.retain(|id| self.state.get(*id) != Some(&State::Ghost));
        ids.sort_unstable();
        ids.dedup();
        ids
    }
    fn remembered(&self) -> usize {
        self.state.len()
    }
}
