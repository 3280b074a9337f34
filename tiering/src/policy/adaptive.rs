//! Algorithms with ghosts: `arc`, `2q`, `s3-fifo`.

use super::evict::{Evictor, of_file, share};
use super::queue::{Lists, Queue};
use super::{PolicyConfig, S3FifoConfig, TwoQConfig};
use crate::types::{FileId, ObjectId};

/// Which ghost list the object at hand was found in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Incoming {
    None,
    New(u32),
    Recent,
    Frequent,
}

// The paper's T1, T2, B1, B2.
const RECENT: usize = 0;
const FREQUENT: usize = 1;
const RECENT_GHOSTS: usize = 2;
const FREQUENT_GHOSTS: usize = 3;

/// Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache" (FAST '03), in bytes.
pub(crate) struct Arc {
    capacity: u64,
    target: f64,
    lists: Lists<4>,
    incoming: Incoming,
}

impl Arc {
    pub(crate) fn new() -> Self {
        Self {
            capacity: 0,
            target: 0.0,
            lists: Lists::default(),
            incoming: Incoming::None,
        }
    }

    /// REPLACE of the paper.
    fn replace(&mut self) -> Option<ObjectId> {
        let recent = self.lists.bytes(RECENT) as f64;
        let over =
            recent > self.target || (self.incoming == Incoming::Frequent && recent >= self.target);
        let from_recent = self.lists.len(RECENT) > 0 && (over || self.lists.len(FREQUENT) == 0);
        let (list, ghosts) = if from_recent {
            (RECENT, RECENT_GHOSTS)
        } else {
            (FREQUENT, FREQUENT_GHOSTS)
        };
        let id = self.lists.shift_oldest(list, ghosts)?;
        self.lists.trim(RECENT_GHOSTS, self.capacity);
        self.lists.trim(FREQUENT_GHOSTS, self.capacity);
        Some(id)
    }

    /// The objects of a file in two of the lists, those of the first one first.
    fn of_file(&self, file: FileId, lists: [usize; 2]) -> Vec<ObjectId> {
        let all = |list| self.lists.of_file(file).filter(move |(_, l)| *l == list);
        lists.into_iter().flat_map(all).map(|(id, _)| id).collect()
    }

    /// Forgets ghosts of a list until `len` bytes fewer are left.
    fn forget_ghosts(&mut self, list: usize, len: u64) {
        let left = self.lists.bytes(list).saturating_sub(len);
        self.lists.trim(list, left);
    }
}

impl Evictor for Arc {
    fn name(&self) -> &'static str {
        "arc"
    }
    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.target = self.target.min(capacity as f64);
    }
    fn holds(&self, id: ObjectId) -> bool {
        matches!(self.lists.list_of(id), Some(RECENT | FREQUENT))
    }
    fn bytes(&self) -> u64 {
        self.lists.bytes(RECENT) + self.lists.bytes(FREQUENT)
    }
    fn hit(&mut self, id: ObjectId) {
        self.access(id);
    }
    fn access(&mut self, id: ObjectId) -> bool {
        let resident = matches!(self.lists.ask(id), Some(RECENT | FREQUENT));
        resident && self.lists.shift(id, FREQUENT)
    }
    fn miss(&mut self, id: ObjectId, len: u32) -> bool {
        let (b1, b2) = (
            self.lists.bytes(RECENT_GHOSTS) as f64,
            self.lists.bytes(FREQUENT_GHOSTS) as f64,
        );
        let step = f64::from(len);
        self.incoming = match self.lists.ask(id) {
            Some(RECENT_GHOSTS) => {
                self.target = (self.target + step * (b2 / b1).max(1.0)).min(self.capacity as f64);
                Incoming::Recent
            }
            Some(FREQUENT_GHOSTS) => {
                self.target = (self.target - step * (b1 / b2).max(1.0)).max(0.0);
                Incoming::Frequent
            }
            _ => Incoming::New(len),
        };
        true
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        let list = match self.lists.ask(id) {
            Some(RECENT_GHOSTS | FREQUENT_GHOSTS) => FREQUENT,
            _ => RECENT,
        };
        self.lists.push(list, id, len);
        self.incoming = Incoming::None;
    }
    fn victim(&mut self) -> Option<ObjectId> {
        if let Incoming::New(len) = self.incoming {
            let (len, l1) = (
                u64::from(len),
                self.lists.bytes(RECENT) + self.lists.bytes(RECENT_GHOSTS),
            );
            if l1 + len > self.capacity {
                if self.lists.len(RECENT_GHOSTS) == 0 {
                    return match self.lists.pop(RECENT) {
                        Some((id, ..)) => Some(id),
                        None => self.replace(),
                    };
                }
                self.forget_ghosts(RECENT_GHOSTS, len);
            } else {
                let l2 = self.lists.bytes(FREQUENT) + self.lists.bytes(FREQUENT_GHOSTS);
                if l1 + l2 + len > 2 * self.capacity {
                    self.forget_ghosts(FREQUENT_GHOSTS, len);
                }
            }
        }
        self.replace()
    }
    fn remove(&mut self, id: ObjectId) {
        if self.holds(id) {
            self.lists.remove(id);
        }
    }
    fn forget(&mut self, file: FileId) {
        for id in self.of_file(file, [RECENT_GHOSTS, FREQUENT_GHOSTS]) {
            self.lists.remove(id);
        }
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        self.of_file(file, [RECENT, FREQUENT])
    }
    fn remembered(&self) -> usize {
        self.lists.total()
    }
}

/// Johnson and Shasha, "2Q" (VLDB '94), the full version.
pub(crate) struct TwoQ {
    config: TwoQConfig,
    capacity: u64,
    incoming: Queue,
    outgoing: Queue,
    main: Queue,
}

impl TwoQ {
    pub(crate) fn new(config: &TwoQConfig) -> Self {
        Self {
            config: config.clone(),
            capacity: 0,
            incoming: Queue::default(),
            outgoing: Queue::default(),
            main: Queue::default(),
        }
    }
}

impl Evictor for TwoQ {
    fn name(&self) -> &'static str {
        "2q"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::TwoQ(config) = config else {
            return false;
        };
        self.config.clone_from(config);
        true
    }
    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.main.contains(id) || self.incoming.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.main.bytes() + self.incoming.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        self.main.touch(id);
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        if self.outgoing.remove(id).is_some() {
            self.main.push(id, len);
        } else {
            self.incoming.push(id, len);
        }
    }
    fn victim(&mut self) -> Option<ObjectId> {
        let limit = share(self.capacity, self.config.in_share);
        if self.incoming.bytes() > limit || self.main.len() == 0 {
            let (id, len) = self.incoming.pop()?;
            self.outgoing.push(id, len);
            self.outgoing
                .trim(share(self.capacity, self.config.out_share));
            return Some(id);
        }
        self.main.pop().map(|(id, _)| id)
    }
    fn remove(&mut self, id: ObjectId) {
        self.incoming.remove(id);
        self.main.remove(id);
    }
    fn forget(&mut self, file: FileId) {
        self.outgoing.remove_file(file);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        of_file(&[&self.main], file)
    }
    fn remembered(&self) -> usize {
        self.incoming.len() + self.outgoing.len() + self.main.len()
    }
}

/// Yang et al., "FIFO queues are all you need for cache eviction" (SOSP '23). The tags of both queues count uses.
pub(crate) struct S3Fifo {
    config: S3FifoConfig,
    capacity: u64,
    small: Queue,
    main: Queue,
    ghosts: Queue,
}

/// Uses are counted up to this: two bits in the paper.
const USES_MAX: u8 = 3;

impl S3Fifo {
    pub(crate) fn new(config: &S3FifoConfig) -> Self {
        Self {
            config: config.clone(),
            capacity: 0,
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Queue::default(),
        }
    }

    fn evict_small(&mut self) -> Option<ObjectId> {
        while let Some((id, len, uses)) = self.small.pop_tagged() {
            if u32::from(uses) < self.config.move_at {
                self.ghosts.push(id, len);
                self.ghosts
                    .trim(share(self.capacity, self.config.ghost_share));
                return Some(id);
            }
            self.main.push(id, len);
        }
        None
    }

    fn evict_main(&mut self) -> Option<ObjectId> {
        let used = |uses: &mut u8| {
            let used = *uses > 0;
            *uses = uses.saturating_sub(1);
            used
        };
        while self.main.recycle(used) {}
        self.main.pop().map(|(id, _)| id)
    }
}

impl Evictor for S3Fifo {
    fn name(&self) -> &'static str {
        "s3-fifo"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::S3Fifo(config) = config else {
            return false;
        };
        self.config.clone_from(config);
        true
    }
    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.main.contains(id) || self.small.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.main.bytes() + self.small.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        self.access(id);
    }
    fn access(&mut self, id: ObjectId) -> bool {
        let uses = self.main.tag_mut(id);
        let uses = uses.or_else(|| self.small.tag_mut(id));
        uses.map(|uses| *uses = (*uses + 1).min(USES_MAX)).is_some()
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        if self.ghosts.remove(id).is_some() {
            self.main.push(id, len);
        } else {
            self.small.push(id, len);
        }
    }
    fn victim(&mut self) -> Option<ObjectId> {
        let small = share(self.capacity, self.config.small_share);
        if self.main.bytes() > self.capacity - small.min(self.capacity) || self.small.len() == 0 {
            return self.evict_main().or_else(|| self.evict_small());
        }
        self.evict_small().or_else(|| self.evict_main())
    }
    fn remove(&mut self, id: ObjectId) {
        self.small.remove(id);
        self.main.remove(id);
    }
    fn forget(&mut self, file: FileId) {
        self.ghosts.remove_file(file);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        of_file(&[&self.small, &self.main], file)
    }
    fn remembered(&self) -> usize {
        self.small.len() + self.main.len() + self.ghosts.len()
    }
}
