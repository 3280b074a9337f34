//! The classic replacement algorithms' common shape, and how each becomes a tiering policy.

use super::PolicyConfig;
use super::planner::{Access, Origin, Strategy};
use crate::event::{CacheView, Reason};
use crate::types::{FileId, Nanos, ObjectId};

/// A replacement algorithm as its paper has it, over bytes instead of pages.
///
/// The order of calls for an access: `hit` for a resident; otherwise `miss`, `victim` until it fits, `insert`.
pub(crate) trait Evictor: Send {
    fn name(&self) -> &'static str;
    /// As [`super::Policy::configure`]; this one is for algorithms without parameters.
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        config.name() == self.name()
    }
    fn resize(&mut self, _capacity: u64) {}
    /// Whether the object is resident.
    fn holds(&self, id: ObjectId) -> bool;
    /// Bytes of all residents.
    fn bytes(&self) -> u64;
    fn hit(&mut self, id: ObjectId);
    /// Notes a hit if the object is resident, and tells whether it is.
    fn access(&mut self, id: ObjectId) -> bool {
        let resident = self.holds(id);
        if resident {
            self.hit(id);
        }
        resident
    }
    /// Whether the object is worth being fetched.
    fn miss(&mut self, _id: ObjectId, _len: u32) -> bool {
        true
    }
    fn insert(&mut self, id: ObjectId, len: u32);
    /// Takes the next victim out of the residents; it may be remembered as a ghost.
    fn victim(&mut self) -> Option<ObjectId>;
    /// A resident that has to leave although the cache has room: asked after each access until none is left.
    fn overdue(&mut self) -> Option<ObjectId> {
        None
    }
    /// A resident that left otherwise. Unknown ones and ghosts stay as they are.
    fn remove(&mut self, id: ObjectId);
    fn forget(&mut self, _file: FileId) {}
    fn residents(&self, file: FileId) -> Vec<ObjectId>;
    /// Residents and ghosts.
    fn remembered(&self) -> usize;
}

/// Fetches on every miss that the algorithm accepts; takes all writes.
pub(crate) struct Classic(pub(crate) Box<dyn Evictor>);

impl Strategy for Classic {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        self.0.configure(config)
    }
    fn capacity(&mut self, bytes: u64) {
        self.0.resize(bytes);
    }
    fn read(&mut self, _: Nanos, access: &Access) -> Option<Reason> {
        if access.resident {
            self.0.hit(access.id);
            return None;
        }
        let accepted = self.0.miss(access.id, access.object_len);
        accepted.then_some(Reason::FirstRead)
    }
    fn revalidated(&mut self, _: Nanos, file: FileId) {
        for id in self.0.residents(file) {
            self.0.hit(id);
        }
    }
    fn entered(&mut self, _: Nanos, id: ObjectId, len: u32, _: bool, _: Origin) {
        self.0.insert(id, len);
    }
    fn left(&mut self, id: ObjectId) {
        self.0.remove(id);
    }
    fn forgot(&mut self, _: Nanos, file: FileId) {
        self.0.forget(file);
    }
    fn remembered(&self) -> usize {
        self.0.remembered()
    }
    fn pop_victim(&mut self, _: Nanos) -> Option<ObjectId> {
        self.0.victim()
    }
    fn expel(&mut self, _: Nanos, view: &CacheView, used: u64) -> Option<(ObjectId, Reason)> {
        let reason = Reason::Watermark {
            used_bytes: used,
            high_bytes: view.high_bytes(),
        };
        Some((self.0.overdue()?, reason))
    }
}

/// A share of a capacity, in whole bytes.
pub(crate) fn share(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// Names the residents of a file that one of several queues holds.
pub(crate) fn of_file(queues: &[&super::queue::Queue], file: FileId) -> Vec<ObjectId> {
    queues.iter().flat_map(|q| q.of_file(file)).collect()
}
