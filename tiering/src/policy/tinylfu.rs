//! `w-tinylfu`: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy"
//! (ACM TOS 13(4), 2017): an LRU window, a segmented LRU, and a sketch that decides who may stay.

use super::WTinyLfuConfig;
use super::evict::{Evictor, of_file, share};
use super::queue::Queue;
use crate::types::{FileId, ObjectId};

/// Counters per row; four bits' worth each, four rows.
const COLUMNS: usize = 1 << 14;
const ROWS: usize = 4;
const COUNT_MAX: u8 = 15;

/// A count-min sketch that halves itself every `10 * COLUMNS` counts.
struct Sketch {
    counts: Vec<u8>,
    noted: usize,
}

impl Sketch {
    fn cells(id: ObjectId) -> impl Iterator<Item = usize> {
        let key = id.file.0 ^ (u64::from(id.index) << 40).rotate_left(7);
        (0..ROWS).map(move |row| {
            let hash = super::cost_benefit::splitmix(key.wrapping_add(row as u64 * 0x9e37));
            row * COLUMNS + (hash as usize & (COLUMNS - 1))
        })
    }

    fn note(&mut self, id: ObjectId) {
        let least = self.estimate(id);
        for cell in Self::cells(id) {
            if self.counts[cell] == least && least < COUNT_MAX {
                self.counts[cell] += 1;
            }
        }
        self.noted += 1;
        if self.noted >= 10 * COLUMNS {
            self.noted /= 2;
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn estimate(&self, id: ObjectId) -> u8 {
        let counts = Self::cells(id).map(|cell| self.counts[cell]);
        counts.min().unwrap_or(0)
    }
}

/// Memory beside the residents: 64 KiB, and no ghosts.
pub(crate) struct WTinyLfu {
    config: WTinyLfuConfig,
    capacity: u64,
    window: Queue,
    probation: Queue,
    protected: Queue,
    sketch: Sketch,
}

impl WTinyLfu {
    pub(crate) fn new(config: &WTinyLfuConfig) -> Self {
        Self {
            config: config.clone(),
            capacity: 0,
            window: Queue::default(),
            probation: Queue::default(),
            protected: Queue::default(),
            sketch: Sketch {
                counts: vec![0; ROWS * COLUMNS],
                noted: 0,
            },
        }
    }

    fn window_limit(&self) -> u64 {
        share(self.capacity, self.config.window_share)
    }

    fn main_limit(&self) -> u64 {
        self.capacity - self.window_limit().min(self.capacity)
    }

    /// What overflows the window moves on while the main part has room.
    fn settle(&mut self) {
        while self.window.bytes() > self.window_limit() {
            let Some(len) = self.window.oldest().and_then(|id| self.window.len_of(id)) else {
                return;
            };
            let main = self.probation.bytes() + self.protected.bytes();
            if main + u64::from(len) > self.main_limit() {
                return;
            }
            if let Some((id, len)) = self.window.pop() {
                self.probation.push(id, len);
            }
        }
    }
}

impl Evictor for WTinyLfu {
    fn name(&self) -> &'static str {
        "w-tinylfu"
    }
    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
    }
    fn hit(&mut self, id: ObjectId) {
        self.sketch.note(id);
        if self.window.touch(id) || self.protected.touch(id) {
            return;
        }
        let Some(len) = self.probation.remove(id) else {
            return;
        };
        self.protected.push(id, len);
        let limit = share(self.main_limit(), self.config.protected_share);
        while self.protected.bytes() > limit {
            let Some((id, len)) = self.protected.pop() else {
                break;
            };
            self.probation.push(id, len);
        }
    }
    fn miss(&mut self, id: ObjectId, _: u32) -> bool {
        self.sketch.note(id);
        true
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.window.push(id, len);
        self.settle();
    }
    fn victim(&mut self) -> Option<ObjectId> {
        self.settle();
        let candidate = self.window.oldest();
        let resident = self.probation.oldest().or_else(|| self.protected.oldest());
        let (Some(candidate), Some(resident)) = (candidate, resident) else {
            let id = candidate.or(resident)?;
            self.remove(id);
            return Some(id);
        };
        if self.window.bytes() <= self.window_limit()
            || self.sketch.estimate(candidate) > self.sketch.estimate(resident)
        {
            self.remove(resident);
            self.settle();
            return Some(resident);
        }
        self.window.remove(candidate);
        Some(candidate)
    }
    fn remove(&mut self, id: ObjectId) {
        self.window.remove(id);
        self.probation.remove(id);
        self.protected.remove(id);
    }
    fn residents(&self, file: FileId) -> Vec<ObjectId> {
        of_file(&[&self.window, &self.probation, &self.protected], file)
    }
    fn remembered(&self) -> usize {
        self.window.len() + self.probation.len() + self.protected.len()
    }
}
