//! Algorithms of one order: `fifo`, `lru`, `lfu`, `sieve`, `gdsf`, `lru-2nd`.

use std::collections::BTreeSet;

use super::evict::{Evictor, share};
use super::queue::Queue;
use super::{GdsfConfig, LfuConfig, Lru2ndConfig, PolicyConfig};
use crate::objects::Objects;
use crate::types::{FileId, ObjectId};

/// First in, first out.
#[derive(Default)]
pub(crate) struct Fifo(Queue);

impl Evictor for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.0.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
    fn hit(&mut self, _: ObjectId) {}
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.0.push(id, len);
    }
    fn victim(&mut self) -> Option<ObjectId> {
        self.0.pop().map(|(id, _)| id)
    }
    fn remove(&mut self, id: ObjectId) {
        self.0.remove(id);
    }
    fn residents(&self, _: FileId) -> Vec<ObjectId> {
        Vec::new()
    }
    fn remembered(&self) -> usize {
        self.0.len()
    }
}

/// Least recently used.
#[derive(Default)]
pub(crate) struct Lru(Queue);

impl Evictor for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.0.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        self.0.touch(id);
    }
    fn access(&mut self, id: ObjectId) -> bool {
        self.0.touch(id)
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.0.push(id, len);
    }
    fn victim(&mut self) -> Option<ObjectId> {
        self.0.pop().map(|(id, _)| id)
    }
    fn remove(&mut self, id: ObjectId) {
        self.0.remove(id);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        self.0.of_file(file)
    }
    fn remembered(&self) -> usize {
        self.0.len()
    }
}

/// Least recently used, and only what was missed twice within the memory of the ghosts is fetched.
/// The second-hit rule is that of OpenCAS `nhit` and of Johnson and Shasha's 2Q filter (VLDB '94).
pub(crate) struct Lru2nd {
    ghost_share: f64,
    capacity: u64,
    order: Queue,
    ghosts: Queue,
}

impl Lru2nd {
    pub(crate) fn new(config: &Lru2ndConfig) -> Self {
        Self {
            ghost_share: config.ghost_share,
            capacity: 0,
            order: Queue::default(),
            ghosts: Queue::default(),
        }
    }
}

impl Evictor for Lru2nd {
    fn name(&self) -> &'static str {
        "lru-2nd"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::Lru2nd(config) = config else {
            return false;
        };
        self.ghost_share = config.ghost_share;
        true
    }
    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.order.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.order.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        self.order.touch(id);
    }
    fn access(&mut self, id: ObjectId) -> bool {
        self.order.touch(id)
    }
    fn miss(&mut self, id: ObjectId, len: u32) -> bool {
        let seen = self.ghosts.contains(id);
        self.ghosts.push(id, len);
        self.ghosts.trim(share(self.capacity, self.ghost_share));
        seen
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.ghosts.remove(id);
        self.order.push(id, len);
    }
    fn victim(&mut self) -> Option<ObjectId> {
        self.order.pop().map(|(id, _)| id)
    }
    fn remove(&mut self, id: ObjectId) {
        self.order.remove(id);
    }
    fn forget(&mut self, file: FileId) {
        self.ghosts.remove_file(file);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        self.order.of_file(file)
    }
    fn remembered(&self) -> usize {
        self.order.len() + self.ghosts.len()
    }
}

/// Zhang et al., "SIEVE is Simpler than LRU" (NSDI '24): one queue, one bit, one hand.
///
/// The queue's tag is the bit, its hand is the hand.
#[derive(Default)]
pub(crate) struct Sieve(Queue);

impl Evictor for Sieve {
    fn name(&self) -> &'static str {
        "sieve"
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.0.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        self.access(id);
    }
    fn access(&mut self, id: ObjectId) -> bool {
        let visited = self.0.tag_mut(id);
        visited.map(|visited| *visited = 1).is_some()
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.0.push(id, len);
    }
    fn victim(&mut self) -> Option<ObjectId> {
        loop {
            let (id, visited) = self.0.at_hand()?;
            if std::mem::take(visited) == 0 {
                self.0.remove(id);
                return Some(id);
            }
            self.0.advance_hand();
        }
    }
    fn remove(&mut self, id: ObjectId) {
        self.0.remove(id);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        self.0.of_file(file)
    }
    fn remembered(&self) -> usize {
        self.0.len()
    }
}

/// Residents by a priority; equal ones by turn, the oldest first.
#[derive(Default)]
pub(crate) struct Ranks {
    turns: u64,
    /// Priority bits, turn, uses, length.
    of: Objects<(u64, u64, u64, u32)>,
    by: BTreeSet<(u64, u64, ObjectId)>,
    bytes: u64,
}

impl Ranks {
    fn set(&mut self, id: ObjectId, priority: f64, uses: u64, len: u32) {
        self.remove(id);
        self.turns += 1;
        // Not negative: the bits are ordered as the numbers are.
        let rank = (priority.to_bits(), self.turns);
        self.of.insert(id, (rank.0, rank.1, uses, len));
        self.by.insert((rank.0, rank.1, id));
        self.bytes += u64::from(len);
    }

    fn remove(&mut self, id: ObjectId) {
        if let Some((priority, turn, _, len)) = self.of.remove(id) {
            self.by.remove(&(priority, turn, id));
            self.bytes -= u64::from(len);
        }
    }

    fn pop(&mut self) -> Option<(ObjectId, f64)> {
        let (priority, _, id) = self.by.pop_first()?;
        let (_, _, _, len) = self.of.remove(id)?;
        self.bytes -= u64::from(len);
        Some((id, f64::from_bits(priority)))
    }
}

/// How an algorithm ranks its residents: the lowest leaves first.
pub(crate) trait Ranking: Send {
    const NAME: &'static str;
    /// As [`super::Policy::configure`]: ranks already given stay until the next use.
    fn configure(&mut self, config: &PolicyConfig) -> bool;
    /// The rank, not negative, of an object that was used `uses` times since it came.
    fn rank(&self, uses: u64, len: u32) -> f64;
    /// An object has been ranked anew.
    fn ranked(&mut self, _ranks: &mut Ranks) {}
    /// The lowest, of this rank, has left to make room.
    fn evicted(&mut self, _rank: f64) {}
}

/// Evicts by rank.
pub(crate) struct Ranked<R> {
    ranks: Ranks,
    ranking: R,
}

impl<R: Ranking> Ranked<R> {
    pub(crate) fn new(ranking: R) -> Self {
        Self {
            ranks: Ranks::default(),
            ranking,
        }
    }

    fn note(&mut self, id: ObjectId, uses: u64, len: u32) {
        self.ranks.set(id, self.ranking.rank(uses, len), uses, len);
        self.ranking.ranked(&mut self.ranks);
    }
}

impl<R: Ranking> Evictor for Ranked<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        self.ranking.configure(config)
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.ranks.of.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.ranks.bytes
    }
    fn hit(&mut self, id: ObjectId) {
        self.access(id);
    }
    fn access(&mut self, id: ObjectId) -> bool {
        let Some(&(_, _, uses, len)) = self.ranks.of.get(id) else {
            return false;
        };
        self.note(id, uses + 1, len);
        true
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.note(id, 1, len);
    }
    fn victim(&mut self) -> Option<ObjectId> {
        let (id, rank) = self.ranks.pop()?;
        self.ranking.evicted(rank);
        Some(id)
    }
    fn remove(&mut self, id: ObjectId) {
        self.ranks.remove(id);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        self.ranks.of.of_file(file).map(|(id, _)| id).collect()
    }
    fn remembered(&self) -> usize {
        self.ranks.of.len()
    }
}

/// Least frequently used since it came; counts are halved now and then (Robinson and Devarakonda,
/// SIGMETRICS '90: without aging, yesterday's favourites stay for ever).
pub(crate) struct Lfu {
    /// Accesses per resident between halvings; 0 never.
    age_every: u64,
    accesses: u64,
}

impl Lfu {
    pub(crate) fn new(config: &LfuConfig) -> Self {
        Self {
            age_every: u64::from(config.age_every),
            accesses: 0,
        }
    }
}

impl Ranking for Lfu {
    const NAME: &'static str = "lfu";
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::Lfu(config) = config else {
            return false;
        };
        self.age_every = u64::from(config.age_every);
        true
    }
    fn rank(&self, uses: u64, _: u32) -> f64 {
        uses as f64
    }
    fn ranked(&mut self, ranks: &mut Ranks) {
        self.accesses += 1;
        if self.age_every == 0 || self.accesses < self.age_every * (ranks.of.len() as u64).max(64) {
            return;
        }
        self.accesses = 0;
        let order: Vec<ObjectId> = ranks.by.iter().map(|(_, _, id)| *id).collect();
        for id in order {
            if let Some(&(_, _, uses, len)) = ranks.of.get(id) {
                let uses = (uses / 2).max(1);
                ranks.set(id, self.rank(uses, len), uses, len);
            }
        }
    }
}

/// GreedyDual-Size with frequency (Cherkasova, HPL-98-69R1): rank = clock + uses * cost / size,
/// the clock is the rank of the last victim.
pub(crate) struct Gdsf {
    clock: f64,
    /// What a fetch costs whatever its size, in bytes that could be transferred meanwhile.
    fixed_bytes: f64,
}

impl Gdsf {
    pub(crate) fn new(config: &GdsfConfig) -> Self {
        Self {
            clock: 0.0,
            fixed_bytes: config.fixed_bytes as f64,
        }
    }
}

impl Ranking for Gdsf {
    const NAME: &'static str = "gdsf";
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::Gdsf(config) = config else {
            return false;
        };
        self.fixed_bytes = config.fixed_bytes as f64;
        true
    }
    fn rank(&self, uses: u64, len: u32) -> f64 {
        let size = f64::from(len.max(1));
        // With no fixed part every fetch costs the same, as in the paper's GDSF(1).
        let cost = if self.fixed_bytes > 0.0 {
            self.fixed_bytes + size
        } else {
            1e6
        };
        self.clock + uses as f64 * cost / size
    }
    fn evicted(&mut self, rank: f64) {
        self.clock = self.clock.max(rank);
    }
}
