//! `w-tinylfu`: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy"
//! (ACM TOS 13(4), 2017): an LRU window, a segmented LRU, and a sketch that decides who may stay.

use super::evict::{Evictor, of_file, share};
use super::queue::Queue;
use super::{PolicyConfig, WTinyLfuConfig};
use crate::types::{FileId, ObjectId};

/// Counters per row at the start.
const COLUMNS: usize = 1 << 14;
const ROWS: usize = 4;
/// libCacheSim's filter: for one error in a thousand.
const FLAT_PLACES: usize = 10;
const FLAT_PER_UNIT: f64 = 14.377_587_566_051_17;
const FLAT_SEEDS: [u64; 2] = [0x1234_5678, 0x1234_4321];

/// The value of `as_libcachesim` for versions after aa0fc40, the package of PyPI among them.
const LATER: u32 = 2;

/// XXH64 of eight bytes (Collet's specification, version 0.1.1): with it the reference's collisions are ours.
fn xxh64(key: u64, seed: u64) -> u64 {
    const P1: u64 = 0x9e37_79b1_85eb_ca87;
    const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
    const P3: u64 = 0x1656_67b1_9e37_79f9;
    const P4: u64 = 0x85eb_ca77_c2b2_ae63;
    const P5: u64 = 0x27d4_eb2f_1656_67c5;
    let lane = key.wrapping_mul(P2).rotate_left(31).wrapping_mul(P1);
    let sum = seed.wrapping_add(P5).wrapping_add(8) ^ lane;
    let sum = sum.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    let sum = (sum ^ (sum >> 33)).wrapping_mul(P2);
    let sum = (sum ^ (sum >> 29)).wrapping_mul(P3);
    sum ^ (sum >> 32)
}

/// Counters per resident and row at least.
const SPREAD: usize = 2;

/// A count-min sketch with conservative update. It doubles with the number of residents.
struct Sketch {
    counts: Vec<u16>,
    /// Per row; all, if there is but one row.
    columns: usize,
    /// libCacheSim's filter of one row: ten places each, and all of them count.
    flat: bool,
    max: u16,
    noted: u64,
}

impl Sketch {
    fn new(max: u32, flat: bool) -> Self {
        Self {
            counts: vec![0; ROWS * COLUMNS],
            columns: if flat { ROWS * COLUMNS } else { COLUMNS },
            flat,
            max: u16::try_from(max).unwrap_or(u16::MAX),
            noted: 0,
        }
    }

    /// As many counters as theirs for a cache of so many units, within reason.
    fn flat_for(&mut self, capacity: u64) {
        let counters = (FLAT_PER_UNIT * capacity as f64).ceil() as usize;
        self.columns = counters.clamp(2 * FLAT_PLACES, 1 << 24);
        self.counts = vec![0; self.columns];
    }

    fn cells(&self, id: ObjectId) -> impl Iterator<Item = usize> + use<> {
        let key = id.file.0 ^ (u64::from(id.index) << 40).rotate_left(7);
        let (columns, flat) = (self.columns, self.flat);
        let places = if flat { FLAT_PLACES } else { ROWS };
        let [first, step] = FLAT_SEEDS.map(|seed| if flat { xxh64(key, seed) as u32 } else { 0 });
        (0..places).map(move |turn| {
            if flat {
                return first.wrapping_add(step.wrapping_mul(turn as u32)) as usize % columns;
            }
            let hash = super::cost_benefit::splitmix(key.wrapping_add(turn as u64 * 0x9e37));
            turn * columns + (hash as usize & (columns - 1))
        })
    }

    fn note(&mut self, id: ObjectId) {
        let least = self.estimate(id);
        for cell in self.cells(id) {
            let count = &mut self.counts[cell];
            if *count < self.max && (self.flat || *count == least) {
                *count += 1;
            }
        }
    }

    fn estimate(&self, id: ObjectId) -> u16 {
        let counts = self.cells(id).map(|cell| self.counts[cell]);
        counts.min().unwrap_or(0)
    }

    /// After so many observations all counts fade to a half.
    fn age(&mut self, every: u64) {
        self.noted += 1;
        if self.noted >= every {
            self.noted = 0;
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// With more residents a row gets longer: both halves start with what was known.
    fn grow(&mut self, residents: usize) {
        while !self.flat && self.columns < residents.saturating_mul(SPREAD).min(1 << 26) {
            let rows = self.counts.chunks_exact(self.columns);
            self.counts = rows.flat_map(|row| [row, row].concat()).collect();
            self.columns *= 2;
        }
    }
}

/// Memory beside the residents: 128 KiB or, if that is more, 16 to 32 bytes per resident; no ghosts.
pub(crate) struct WTinyLfu {
    config: WTinyLfuConfig,
    capacity: u64,
    window: Queue,
    probation: Queue,
    protected: Queue,
    sketch: Sketch,
    overdue: Vec<ObjectId>,
}

impl WTinyLfu {
    pub(crate) fn new(config: &WTinyLfuConfig) -> Self {
        Self {
            config: config.clone(),
            capacity: 0,
            window: Queue::default(),
            probation: Queue::default(),
            protected: Queue::default(),
            sketch: Sketch::new(config.count_max, config.as_libcachesim != 0),
            overdue: Vec::new(),
        }
    }

    fn theirs(&self) -> bool {
        self.config.as_libcachesim != 0
    }

    fn window_limit(&self) -> u64 {
        share(self.capacity, self.config.window_share)
    }

    fn main_limit(&self) -> u64 {
        self.capacity - self.window_limit().min(self.capacity)
    }

    fn protected_limit(&self) -> u64 {
        share(self.main_limit(), self.config.protected_share)
    }

    fn probation_limit(&self) -> u64 {
        crate::event::fraction(self.main_limit(), 1.0 - self.config.protected_share)
    }

    /// One more observation on the way to the next halving.
    fn age(&mut self) {
        let residents = self.remembered();
        self.sketch.grow(residents);
        let sample = if self.theirs() {
            self.main_limit()
        } else {
            residents.max(64) as u64
        };
        let every = sample.saturating_mul(u64::from(self.config.age_every));
        self.sketch.age(every);
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

    /// Into the main part as libCacheSim does it: where there is room, the lower segment first.
    fn admit(&mut self, id: ObjectId, len: u32) {
        let len_bytes = u64::from(len);
        if self.probation.bytes() + len_bytes > self.probation_limit()
            && self.protected.bytes() + len_bytes <= self.protected_limit()
        {
            self.protected.push(id, len);
        } else {
            self.probation.push(id, len);
        }
    }

    /// Candidates enter the main part as long as each beats a victim there; the first that does not leaves. In later
    /// versions the first contest is the last one, whoever wins.
    fn contest(&mut self) {
        while let Some((candidate, len)) = self.window.pop() {
            let main = self.probation.bytes() + self.protected.bytes();
            if main + u64::from(len) <= self.main_limit() {
                self.admit(candidate, len);
                self.sketch.note(candidate);
                continue;
            }
            let oldest = self.probation.oldest();
            let Some(resident) = oldest.or_else(|| self.protected.oldest()) else {
                self.overdue.push(candidate);
                return;
            };
            let better = self.sketch.estimate(candidate) > self.sketch.estimate(resident);
            if better {
                self.remove(resident);
                self.overdue.push(resident);
                self.admit(candidate, len);
            } else {
                self.overdue.push(candidate);
            }
            self.sketch.note(candidate);
            if !better || self.config.as_libcachesim >= LATER {
                return;
            }
        }
        let rest = self.probation.pop().or_else(|| self.protected.pop());
        self.overdue.extend(rest.map(|(id, _)| id));
    }
}

impl Evictor for WTinyLfu {
    fn name(&self) -> &'static str {
        "w-tinylfu"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::WTinyLfu(config) = config else {
            return false;
        };
        if config.as_libcachesim != self.config.as_libcachesim {
            // Another sketch.
            return false;
        }
        self.sketch.max = u16::try_from(config.count_max).unwrap_or(u16::MAX);
        self.config.clone_from(config);
        true
    }
    fn resize(&mut self, capacity: u64) {
        if self.theirs() && self.capacity != capacity {
            let window = share(capacity, self.config.window_share);
            self.sketch.flat_for(capacity - window.min(capacity));
        }
        self.capacity = capacity;
    }
    fn holds(&self, id: ObjectId) -> bool {
        self.window.contains(id) || self.protected.contains(id) || self.probation.contains(id)
    }
    fn bytes(&self) -> u64 {
        self.window.bytes() + self.protected.bytes() + self.probation.bytes()
    }
    fn hit(&mut self, id: ObjectId) {
        let in_window = self.window.touch(id);
        if !(in_window && self.theirs()) {
            self.sketch.note(id);
            self.age();
        }
        if in_window || self.protected.touch(id) {
            return;
        }
        let Some(len) = self.probation.remove(id) else {
            return;
        };
        self.protected.push(id, len);
        let full = self.protected.bytes() > self.protected_limit();
        while self.protected.bytes() > self.protected_limit() {
            let Some((id, len)) = self.protected.pop() else {
                break;
            };
            self.probation.push(id, len);
        }
        // Theirs keeps the lower segment to its limit here, though not when it admits.
        while full && self.theirs() && self.probation.bytes() > self.probation_limit() {
            self.overdue.extend(self.probation.pop().map(|(id, _)| id));
        }
    }
    fn miss(&mut self, id: ObjectId, _: u32) -> bool {
        if !self.theirs() {
            self.sketch.note(id);
            self.age();
        }
        true
    }
    fn insert(&mut self, id: ObjectId, len: u32) {
        self.window.push(id, len);
        if self.theirs() {
            self.sketch.note(id);
        } else {
            self.settle();
        }
    }
    fn victim(&mut self) -> Option<ObjectId> {
        if self.theirs() {
            self.contest();
            return self.overdue.pop();
        }
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
    fn overdue(&mut self) -> Option<ObjectId> {
        self.overdue.pop()
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
