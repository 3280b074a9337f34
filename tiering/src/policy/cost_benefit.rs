//! `cost-benefit`: the cache keeps what saves the backing device most head time (ski rental).
//!
//! Heat is the decayed head time that accesses cost, or would have cost, the backing device. A miss is
//! promoted once it has paid more than its move would. New writes stay in a nursery first: what is
//! deleted there never touches the backing device.

use std::collections::{BTreeMap, VecDeque};

use super::CostBenefitConfig;
use super::planner::{Access, Origin, Strategy, objects_of};
use crate::event::{CacheView, Reason, fraction};
use crate::types::{FileId, Nanos, ObjectId};

/// Ghosts compared for the choice of one to forget.
const GHOST_SAMPLES: usize = 8;
/// So that the rounding of a sum of parts never exceeds the whole: one pass never promotes.
const ROUNDING: f64 = 1.0 + 1e-6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Ghost,
    Nursery,
    Main,
    /// A victim: out of all orders until it has left.
    Leaving,
}

/// What is remembered of an object: 48 bytes with its identity, some 110 with the tree and list around it.
struct Heat {
    seconds: f64,
    at: Nanos,
    len: u32,
    /// Where a sequential reader goes on; `u32::MAX` when unknown.
    next_offset: u32,
    /// Place in `main` or `ghosts`.
    slot: u32,
    place: Place,
    dirty: bool,
}

pub(crate) struct CostBenefit {
    config: CostBenefitConfig,
    heat: BTreeMap<ObjectId, Heat>,
    main: Vec<ObjectId>,
    ghosts: Vec<ObjectId>,
    /// Oldest first; ids that have left are skipped.
    nursery: VecDeque<ObjectId>,
    nursery_objects: usize,
    nursery_bytes: u64,
    draws: u64,
    tokens: f64,
    tokens_at: Nanos,
}

/// `2^-x` for `x >= 0` by basic arithmetic alone: every machine gets the same bits. Error below 1e-7.
fn halvings(x: f64) -> f64 {
    if x.is_nan() || x >= 1000.0 {
        return 0.0;
    }
    let whole = x.floor();
    let y = -(x - whole) * std::f64::consts::LN_2;
    let series = (1..=9)
        .rev()
        .fold(1.0, |sum, n| 1.0 + y * sum / f64::from(n));
    series * f64::from_bits((1023 - whole as u64) << 52)
}

/// The generator of Steele, Lea, Flood (OOPSLA '14), as a function of seed and turn.
pub(crate) fn splitmix(x: u64) -> u64 {
    let z = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl CostBenefit {
    pub(crate) fn new(config: CostBenefitConfig) -> Self {
        let tokens = Self::burst(&config);
        Self {
            config,
            heat: BTreeMap::new(),
            main: Vec::new(),
            ghosts: Vec::new(),
            nursery: VecDeque::new(),
            nursery_objects: 0,
            nursery_bytes: 0,
            draws: 0,
            tokens,
            tokens_at: Nanos(0),
        }
    }

    /// The budget that may be saved up: a second's, at least four default objects.
    fn burst(config: &CostBenefitConfig) -> f64 {
        (config.promote_bytes_per_s.max(16 << 20)) as f64
    }

    /// Head time of `seeks` and `bytes`, seconds (Baleen, FAST '24).
    fn head_time(&self, seeks: f64, bytes: u32) -> f64 {
        seeks * self.config.seek_ms / 1e3
            + f64::from(bytes) / (self.config.transfer_mib_per_s * 1_048_576.0)
    }

    fn decayed(&self, heat: &Heat, now: Nanos) -> f64 {
        heat.seconds * halvings(now.since(heat.at).as_secs_f64() / self.config.half_life_s)
    }

    /// Head time that a byte of the cache saves here: small objects save a whole positioning each.
    fn score(&self, id: ObjectId, now: Nanos) -> f64 {
        self.heat.get(&id).map_or(0.0, |h| {
            let flush = if h.dirty {
                self.config.dirty_weight * self.head_time(1.0, h.len)
            } else {
                0.0
            };
            (self.decayed(h, now) + flush) / f64::from(h.len.max(1))
        })
    }

    /// The lowest score among `samples` of `ids`; all of them when there are no more. Ties go to the lower id.
    fn coldest(&mut self, ids: &[ObjectId], samples: usize, now: Nanos) -> Option<(f64, ObjectId)> {
        let mut best: Option<(f64, ObjectId)> = None;
        for turn in 0..samples.min(ids.len()) {
            let at = if ids.len() <= samples {
                turn
            } else {
                self.draws += 1;
                (splitmix(self.config.seed.wrapping_add(self.draws)) % ids.len() as u64) as usize
            };
            let candidate = (self.score(ids[at], now), ids[at]);
            let better = |b: (f64, ObjectId)| {
                candidate
                    .0
                    .total_cmp(&b.0)
                    .then(candidate.1.cmp(&b.1))
                    .is_lt()
            };
            if best.is_none_or(better) {
                best = Some(candidate);
            }
        }
        best
    }

    fn coldest_resident(&mut self, now: Nanos) -> Option<(f64, ObjectId)> {
        let main = std::mem::take(&mut self.main);
        let found = self.coldest(&main, self.config.samples as usize, now);
        self.main = main;
        found
    }

    /// Takes an object out of its order.
    fn unplace(&mut self, id: ObjectId) {
        let Some(heat) = self.heat.get_mut(&id) else {
            return;
        };
        let (place, slot) = (heat.place, heat.slot as usize);
        heat.place = Place::Leaving;
        if place == Place::Nursery {
            self.nursery_bytes -= u64::from(heat.len);
            self.nursery_objects -= 1;
            return;
        }
        let list = match place {
            Place::Main => &mut self.main,
            Place::Ghost => &mut self.ghosts,
            Place::Nursery | Place::Leaving => return,
        };
        list.swap_remove(slot);
        let moved = list.get(slot).copied();
        if let Some(heat) = moved.and_then(|moved| self.heat.get_mut(&moved)) {
            heat.slot = slot as u32;
        }
    }

    fn place(&mut self, id: ObjectId, place: Place) {
        self.unplace(id);
        let Some(heat) = self.heat.get_mut(&id) else {
            return;
        };
        heat.place = place;
        let list = match place {
            Place::Main => &mut self.main,
            Place::Ghost => &mut self.ghosts,
            Place::Nursery => {
                self.nursery_bytes += u64::from(heat.len);
                self.nursery_objects += 1;
                self.nursery.push_back(id);
                if self.nursery.len() > 2 * self.nursery_objects + 64 {
                    let heat = &self.heat;
                    self.nursery
                        .retain(|id| heat.get(id).is_some_and(|h| h.place == Place::Nursery));
                }
                return;
            }
            Place::Leaving => return,
        };
        heat.slot = list.len() as u32;
        list.push(id);
    }

    fn forget(&mut self, id: ObjectId) {
        self.unplace(id);
        self.heat.remove(&id);
    }

    fn bound_ghosts(&mut self, now: Nanos) {
        while self.ghosts.len() > self.config.ghosts_max as usize {
            let ghosts = std::mem::take(&mut self.ghosts);
            let coldest = self.coldest(&ghosts, GHOST_SAMPLES, now);
            self.ghosts = ghosts;
            let Some((_, id)) = coldest else { break };
            self.forget(id);
        }
    }

    fn oldest_of_nursery(&mut self) -> Option<ObjectId> {
        while let Some(&id) = self.nursery.front() {
            if self
                .heat
                .get(&id)
                .is_some_and(|h| h.place == Place::Nursery)
            {
                return Some(id);
            }
            self.nursery.pop_front();
        }
        None
    }

    fn pay(&mut self, now: Nanos, bytes: u32) -> bool {
        let rate = self.config.promote_bytes_per_s;
        if rate == 0 {
            return true;
        }
        let earned = now.since(self.tokens_at).as_secs_f64() * rate as f64;
        self.tokens = (self.tokens + earned).min(Self::burst(&self.config));
        self.tokens_at = self.tokens_at.max(now);
        let enough = self.tokens > 0.0;
        if enough {
            // Into debt for an object larger than what is saved: the next ones wait.
            self.tokens -= f64::from(bytes);
        }
        enough
    }
}

impl Strategy for CostBenefit {
    fn name(&self) -> &'static str {
        "cost-benefit"
    }

    fn read(&mut self, now: Nanos, access: &Access) -> Option<Reason> {
        let id = access.id;
        let known = self.heat.get(&id);
        let sequential =
            access.offset != 0 && known.is_some_and(|h| h.next_offset == access.offset);
        let spent = known.map_or(0.0, |h| self.decayed(h, now));
        let spent = spent + self.head_time(if sequential { 0.0 } else { 1.0 }, access.len);
        let new = known.is_none();
        let heat = self.heat.entry(id).or_insert(Heat {
            seconds: 0.0,
            at: now,
            len: access.object_len,
            next_offset: u32::MAX,
            slot: 0,
            place: Place::Leaving,
            dirty: false,
        });
        heat.seconds = spent;
        heat.at = heat.at.max(now);
        heat.next_offset = access.offset.saturating_add(access.len);
        if new {
            self.place(id, Place::Ghost);
            self.bound_ghosts(now);
        }
        let cost = self.head_time(1.0, access.object_len);
        if access.resident || spent <= self.config.theta * cost * ROUNDING {
            return None;
        }
        if !access.free_room {
            let victim = self.coldest_resident(now).map_or(0.0, |(score, _)| score);
            let per_byte = spent / f64::from(access.object_len.max(1));
            if per_byte <= (1.0 + self.config.stickiness) * victim {
                return None;
            }
        }
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let reason = Reason::HeadTime {
            spent_us: micros(spent),
            cost_us: micros(cost),
        };
        self.pay(now, access.object_len).then_some(reason)
    }

    fn revalidated(&mut self, now: Nanos, file: FileId) {
        let ids: Vec<ObjectId> = self
            .heat
            .range(objects_of(file))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let Some(heat) = self.heat.get(&id) else {
                continue;
            };
            let seconds = self.decayed(heat, now)
                + self.config.revalidation_weight * self.head_time(1.0, heat.len);
            if let Some(heat) = self.heat.get_mut(&id) {
                heat.seconds = seconds;
                heat.at = heat.at.max(now);
            }
        }
    }

    fn entered(&mut self, now: Nanos, id: ObjectId, len: u32, dirty: bool, origin: Origin) {
        self.unplace(id);
        let fresh = Heat {
            seconds: 0.0,
            at: now,
            len,
            next_offset: u32::MAX,
            slot: 0,
            place: Place::Leaving,
            dirty,
        };
        let heat = self.heat.entry(id).or_insert(fresh);
        (heat.len, heat.dirty) = (len, dirty);
        self.place(
            id,
            if origin == Origin::Written {
                Place::Nursery
            } else {
                Place::Main
            },
        );
    }

    fn flushed(&mut self, id: ObjectId) {
        if let Some(heat) = self.heat.get_mut(&id) {
            heat.dirty = false;
        }
    }

    fn left(&mut self, id: ObjectId) {
        if let Some(heat) = self.heat.get_mut(&id) {
            heat.dirty = false;
            let at = heat.at;
            self.place(id, Place::Ghost);
            self.bound_ghosts(at);
        }
    }

    fn forgot(&mut self, file: FileId) {
        let ids: Vec<ObjectId> = self
            .heat
            .range(objects_of(file))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.forget(id));
    }

    fn remembered(&self) -> usize {
        self.heat.len()
    }

    fn pop_victim(&mut self, now: Nanos) -> Option<ObjectId> {
        let id = self
            .coldest_resident(now)
            .map(|(_, id)| id)
            .or_else(|| self.oldest_of_nursery())?;
        self.unplace(id);
        Some(id)
    }

    fn expel(
        &mut self,
        now: Nanos,
        view: &CacheView,
        planned_bytes: u64,
    ) -> Option<(ObjectId, Reason)> {
        let share_bytes = fraction(view.capacity_bytes, self.config.nursery_share);
        while self.nursery_bytes > share_bytes && planned_bytes > view.low_bytes() {
            let nursery_bytes = self.nursery_bytes;
            let id = self.oldest_of_nursery()?;
            let heat = self.score(id, now);
            let worst = self.coldest_resident(now).map_or(0.0, |(score, _)| score);
            if heat > worst {
                self.place(id, Place::Main);
                continue;
            }
            self.unplace(id);
            return Some((
                id,
                Reason::NurseryFull {
                    nursery_bytes,
                    share_bytes,
                },
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halvings_are_powers_of_two() {
        for i in 0..2000 {
            let x = f64::from(i) * 0.013;
            assert!((halvings(x) / (-x).exp2() - 1.0).abs() < 1e-7, "{x}");
        }
        assert_eq!(halvings(1.0), 0.5);
        assert_eq!(halvings(f64::INFINITY), 0.0);
    }
}
