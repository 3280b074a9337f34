//! `recency`: promotes what was seen in each of the last periods, like Ceph's hit sets
//! (`PrimaryLogPG::maybe_promote`: the set is asked before the access at hand is put in).

use std::collections::VecDeque;

use super::planner::{Access, Origin, Strategy};
use super::queue::Queue;
use super::{PolicyConfig, RecencyConfig};
use crate::event::Reason;
use crate::objects::Set;
use crate::types::{FileId, Nanos, ObjectId};

/// A 304 stands for all objects of its file under this index.
const WHOLE_FILE: u32 = u32::MAX;

/// Memory: at most `periods * period_objects_max` identities, some 30 bytes each.
pub(crate) struct Recency {
    config: RecencyConfig,
    /// Newest first.
    periods: VecDeque<Set<ObjectId>>,
    began: Nanos,
    order: Queue,
    /// Saved up of the promotion budget, at most one second's: bytes and objects.
    saved: (f64, f64),
    saved_at: Nanos,
}

impl Recency {
    pub(crate) fn new(config: RecencyConfig) -> Self {
        Self {
            config,
            periods: VecDeque::from([Set::default()]),
            began: Nanos(0),
            order: Queue::default(),
            saved: (f64::MAX, f64::MAX),
            saved_at: Nanos(0),
        }
    }

    /// Ceph's `maybe_promote` throttle: neither bytes nor objects may exceed their rate.
    fn pay(&mut self, now: Nanos, len: u32) -> bool {
        let (bytes, objects) = (
            self.config.promote_bytes_per_s as f64,
            f64::from(self.config.promote_objects_per_s),
        );
        let passed = now.since(self.saved_at).as_secs_f64();
        self.saved_at = self.saved_at.max(now);
        // An object larger than a second's budget goes into debt.
        self.saved.0 = (self.saved.0 + passed * bytes).min(bytes);
        self.saved.1 = (self.saved.1 + passed * objects).min(objects);
        let enough =
            (bytes == 0.0 || self.saved.0 > 0.0) && (objects == 0.0 || self.saved.1 >= 1.0);
        if enough {
            self.saved.0 -= f64::from(len);
            self.saved.1 -= 1.0;
        }
        enough
    }

    fn turn_page(&mut self, now: Nanos) {
        let period = Nanos::from_secs(self.config.period_s.max(1));
        let passed = now.since(self.began).0 / period.0;
        let full = self
            .periods
            .front()
            .is_some_and(|p| p.len() >= self.config.period_objects_max as usize);
        for _ in 0..passed
            .max(u64::from(full))
            .min(u64::from(self.config.periods))
        {
            self.periods.push_front(Set::default());
            self.periods.truncate(self.config.periods.max(1) as usize);
        }
        self.began = if passed > 0 {
            Nanos(self.began.0 + passed * period.0)
        } else if full {
            now
        } else {
            self.began
        };
    }

    fn see(&mut self, id: ObjectId) {
        if let Some(current) = self.periods.front_mut() {
            current.insert(id);
        }
    }
}

impl Strategy for Recency {
    fn name(&self) -> &'static str {
        "recency"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::Recency(config) = config else {
            return false;
        };
        self.config.clone_from(config);
        true
    }
    fn read(&mut self, now: Nanos, access: &Access) -> Option<Reason> {
        self.turn_page(now);
        let whole = ObjectId::new(access.id.file, WHOLE_FILE);
        let needed = self.config.needed;
        let mut last = self.periods.iter().take(needed as usize);
        let hot = self.periods.len() >= needed as usize
            && last.all(|p| p.contains(&access.id) || p.contains(&whole));
        self.see(access.id);
        self.order.touch(access.id);
        (hot && !access.resident && self.pay(now, access.object_len))
            .then_some(Reason::Recency { periods: needed })
    }
    fn revalidated(&mut self, now: Nanos, file: FileId) {
        self.turn_page(now);
        self.see(ObjectId::new(file, WHOLE_FILE));
        for id in self.order.of_file(file) {
            self.order.touch(id);
        }
    }
    fn entered(&mut self, _: Nanos, id: ObjectId, len: u32, _: bool, _: Origin) {
        self.order.push(id, len);
    }
    fn left(&mut self, id: ObjectId) {
        self.order.remove(id);
    }
    fn remembered(&self) -> usize {
        self.order.len() + self.periods.iter().map(Set::len).sum::<usize>()
    }
    fn pop_victim(&mut self, _: Nanos) -> Option<ObjectId> {
        self.order.pop().map(|(id, _)| id)
    }
}
