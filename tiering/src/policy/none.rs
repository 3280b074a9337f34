//! `none`: nothing is kept in the cache; what an earlier policy left there is sent down.

use std::collections::BTreeSet;

use super::PolicyConfig;
use super::planner::{Access, Origin, Strategy};
use crate::event::{CacheView, Reason};
use crate::types::{FileId, Nanos, ObjectId};

#[derive(Default)]
pub(crate) struct NoCache {
    unwanted: BTreeSet<ObjectId>,
}

impl Strategy for NoCache {
    fn name(&self) -> &'static str {
        "none"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        matches!(config, PolicyConfig::None(_))
    }
    fn takes_writes(&self) -> bool {
        false
    }
    fn read(&mut self, _: Nanos, _: &Access) -> Option<Reason> {
        None
    }
    fn revalidated(&mut self, _: Nanos, _: FileId) {}
    fn entered(&mut self, _: Nanos, id: ObjectId, _: u32, _: bool, _: Origin) {
        self.unwanted.insert(id);
    }
    fn left(&mut self, id: ObjectId) {
        self.unwanted.remove(&id);
    }
    fn remembered(&self) -> usize {
        self.unwanted.len()
    }
    fn pop_victim(&mut self, _: Nanos) -> Option<ObjectId> {
        self.unwanted.pop_first()
    }
    fn expel(&mut self, _: Nanos, _: &CacheView, _: u64) -> Option<(ObjectId, Reason)> {
        self.unwanted.pop_first().map(|id| (id, Reason::NotWanted))
    }
}
