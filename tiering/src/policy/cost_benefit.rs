//! `cost-benefit`: the cache keeps what will save the backing device most head time.
//!
//! Two judgements. A miss is promoted once it has already paid more than its move costs (ski rental), and
//! only if what its class promises outweighs the move and the room ([`Outlook`]). Who leaves goes by the head
//! time that a byte of the cache saves per second: reads that the outlook expects at this age, the object's own
//! decayed accesses, and the flush that an early deletion spares. New objects get in while there is room; what smaller
//! ones have lately asked for is kept for them ([`Arrivals`]).
//!
//! A move makes others wait: promotions come when the backing device has nothing else to do, and the busier it is of
//! late, the more they must promise. One that comes too early waits ([`Waiting`]) and is judged again when there is time.

use std::cmp::Ordering;

use super::arrivals::Arrivals;
use super::budget::Budget;
use super::busy::Busy;
use super::heat::{Heat, Heats, Place, Slot};
use super::outlook::{Class, Outlook};
use super::planner::{Access, Origin, Strategy};
use super::waiting::Waiting;
use super::{CostBenefitConfig, PolicyConfig};
use crate::event::{CacheView, Reason};
use crate::types::{FileId, Nanos, ObjectId};

/// Ghosts compared for the choice of one to forget.
const GHOST_SAMPLES: usize = 8;
/// Of `samples`, this part is drawn when somebody must leave.
const DRAWN: u32 = 4;
/// This part when it is asked what room is worth.
const PRICED: u32 = 16;
/// And this part, the coldest, is kept for the next time.
const KEPT: usize = 8;
/// A promotion that waited must promise so many times what others must: it was not read again when that was likeliest.
const LATE: f64 = 2.0;
/// Share of busy time from which on a device has no pauses to wait for.
const PAUSELESS: f64 = 0.97;
/// So that the rounding of a sum of parts never exceeds the whole: one pass never promotes.
const ROUNDING: f64 = 1.0 + 1e-6;
/// What the outlook learned fades this much slower than an object's own heat.
const MEMORY: f64 = 10.0;
/// How often the outlook fades.
const FADE_EVERY: Nanos = Nanos::from_secs(60);

/// Score and slot.
type Scored = (f64, Slot);

pub(crate) struct CostBenefit {
    config: CostBenefitConfig,
    outlook: Outlook,
    faded: Nanos,
    due: Nanos,
    heats: Heats,
    /// The coldest residents of the last comparison; some may have left.
    cold: Vec<Slot>,
    /// Room for a comparison.
    scored: Vec<Scored>,
    draws: u64,
    promotions: Budget,
    wear: Budget,
    arrivals: Arrivals,
    backing: Busy,
    /// Ghosts that have paid for a move which the backing device has no time for.
    waiting: Waiting,
}

/// `2^(-i/32)`.
const PARTS: [f64; 32] = {
    let mut parts = [1.0; 32];
    let mut i = 1;
    while i < 32 {
        parts[i] = parts[i - 1] * 0.978_572_062_087_700_1;
        i += 1;
    }
    parts
};

/// `2^-x` for `x >= 0` by basic arithmetic alone: every machine gets the same bits. Error below 1e-9.
pub(super) fn halvings(x: f64) -> f64 {
    if x.is_nan() || x >= 1000.0 {
        return 0.0;
    }
    // A division for each term of a longer series would be most of what a decision costs.
    let thirty_seconds = (x * 32.0) as u64;
    let y = (thirty_seconds as f64 / 32.0 - x) * std::f64::consts::LN_2;
    let rest = 1.0 + y * (1.0 + y * (0.5 + y * (1.0 / 6.0 + y * (1.0 / 24.0))));
    let (whole, part) = (thirty_seconds / 32, (thirty_seconds % 32) as usize);
    rest * PARTS[part] * f64::from_bits((1023 - whole) << 52)
}

/// The generator of Steele, Lea, Flood (OOPSLA '14), as a function of seed and turn.
pub(crate) fn splitmix(x: u64) -> u64 {
    let z = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The lower score first, of equal ones the lower identity.
fn colder(heats: &Heats, a: &Scored, b: &Scored) -> Ordering {
    let by_id = || heats.id(a.1).cmp(&heats.id(b.1));
    a.0.total_cmp(&b.0).then_with(by_id)
}

impl CostBenefit {
    pub(crate) fn new(config: CostBenefitConfig) -> Self {
        Self {
            config,
            outlook: Outlook::new(),
            faded: Nanos(0),
            due: Nanos::from_secs(120),
            heats: Heats::default(),
            cold: Vec::new(),
            scored: Vec::new(),
            draws: 0,
            promotions: Budget::default(),
            wear: Budget::default(),
            arrivals: Arrivals::default(),
            backing: Busy::default(),
            waiting: Waiting::default(),
        }
    }

    /// Head time of `seeks` and `bytes`, seconds (Baleen, FAST '24).
    fn head_time(&self, seeks: f64, bytes: u32) -> f64 {
        seeks * self.config.seek_ms / 1e3
            + f64::from(bytes) / (self.config.transfer_mib_per_s * 1_048_576.0)
    }

    fn kept(&self, heat: &Heat, now: Nanos) -> f64 {
        halvings(now.since(heat.at).as_secs_f64() / self.config.half_life_s)
    }

    /// Head time that a byte of the cache saves per second here: small objects save a whole positioning each.
    fn score(&self, slot: Slot, now: Nanos) -> f64 {
        let h = &self.heats[slot];
        let class = h.class();
        let made = h.made().filter(|_| h.dirty);
        let flush = made.map_or(0.0, |made| self.spared(class, now.since(made), h.len));
        let own = h.seconds * self.kept(h, now) / self.config.half_life_s;
        let uses = self.outlook.rate(class, now.since(h.used)) + self.config.own_weight * own;
        (uses + flush) / f64::from(h.len.max(1))
    }

    fn spared(&self, class: Class, age: Nanos, len: u32) -> f64 {
        self.config.dirty_weight * self.outlook.spared(class, age) * self.head_time(1.0, len)
    }

    /// Tells the outlook of the time in which nothing happened to an object.
    fn tell(&mut self, slot: Slot, now: Nanos) {
        let heat = &mut self.heats[slot];
        if heat.told >= now {
            return;
        }
        let (from, to) = (heat.told.since(heat.used), now.since(heat.used));
        heat.told = now;
        let class = heat.class();
        self.outlook.passed(class, from, to);
        let made = heat.made().filter(|_| heat.young);
        if made.is_some_and(|made| now.since(made) >= self.due) {
            heat.young = false;
            self.outlook.lived(class, self.due, false);
        }
    }

    /// Tells of a few that nothing happens to, so that they count too; and lets what was learned fade.
    fn tell_some(&mut self, now: Nanos) {
        let some = [Place::Main, Place::Ghost].map(|place| {
            let draw = self.draw();
            let slots = self.heats.list(place);
            let at = draw.checked_rem(slots.len() as u64);
            let slot = at.and_then(|at| slots.get(at as usize)).copied();
            // Both are looked at before either is told of: their memory arrives together.
            slot.filter(|slot| self.heats[*slot].told < now)
        });
        for slot in some.into_iter().flatten() {
            self.tell(slot, now);
        }
        let since = now.since(self.faded);
        if since >= FADE_EVERY {
            let lives = since.as_secs_f64() / (self.config.half_life_s * MEMORY);
            self.outlook.fade(halvings(lives));
            self.faded = now;
        }
    }

    fn draw(&mut self) -> u64 {
        self.draws += 1;
        splitmix(self.config.seed.wrapping_add(self.draws))
    }

    /// The score that a resident must have to stay when room for one more is made.
    fn marginal(&mut self, now: Nanos) -> f64 {
        // It is asked for far more often than anyone leaves, and need not be exact.
        let drawn = self.config.samples.div_ceil(PRICED) as usize;
        let coldest = self.coldest_resident(now, drawn);
        coldest.map_or(0.0, |(score, _)| score)
    }

    /// Notes a use of `weight` uses and `spent` seconds of head time.
    fn use_it(&mut self, slot: Slot, now: Nanos, weight: f64, spent: f64) {
        self.tell(slot, now);
        let heat = &self.heats[slot];
        let kept = self.kept(heat, now);
        if weight > 0.0 {
            self.outlook.used(heat.class(), now.since(heat.used), spent);
        }
        let heat = &mut self.heats[slot];
        heat.seconds = heat.seconds * kept + spent;
        heat.count = heat.count * kept + weight;
        heat.at = heat.at.max(now);
        (heat.used, heat.told) = (heat.used.max(now), heat.told.max(now));
    }

    /// Whether the cache device may be written so much more.
    fn wear(&mut self, now: Nanos, len: u32) -> bool {
        let rate = self.config.ssd_bytes_per_day as f64 / 86_400.0;
        self.wear.pay(now, rate, rate * 3600.0, len)
    }

    /// The lowest score among `samples` of those of one place; all of them when there are no more. Ties go to the
    /// lower identity.
    fn coldest(&mut self, place: Place, samples: usize, now: Nanos) -> Option<(f64, Slot)> {
        let count = self.heats.list(place).len();
        let mut best: Option<Scored> = None;
        for turn in 0..samples.min(count) {
            let at = match count <= samples {
                true => turn,
                false => (self.draw() % count as u64) as usize,
            };
            let slot = self.heats.list(place)[at];
            let scored = (self.score(slot, now), slot);
            if best.is_none_or(|best| colder(&self.heats, &scored, &best).is_lt()) {
                best = Some(scored);
            }
        }
        best
    }

    /// The coldest resident, if they are few; else of `drawn` ones drawn now and of the coldest of those drawn before.
    fn coldest_resident(&mut self, now: Nanos, drawn: usize) -> Option<Scored> {
        let samples = self.config.samples as usize;
        let count = self.heats.list(Place::Main).len();
        if count <= samples {
            return self.coldest(Place::Main, samples, now);
        }
        let mut some = std::mem::take(&mut self.cold);
        for _ in 0..drawn {
            let at = (self.draw() % count as u64) as usize;
            let slot = self.heats.list(Place::Main)[at];
            if !some.contains(&slot) {
                some.push(slot);
            }
        }
        // Those drawn are residents; to look at all of them at once lets their memory arrive together.
        some.retain(|slot| self.heats[*slot].place() == Place::Main);
        let most = samples.div_ceil(KEPT);
        let mut coldest = std::mem::take(&mut self.scored);
        coldest.clear();
        for slot in &some {
            let scored = (self.score(*slot, now), *slot);
            let colder = |other: &Scored| colder(&self.heats, &scored, other).is_lt();
            // Those of before come first, the coldest first: most go to the end or nowhere.
            let warmer = coldest.iter().rev().take_while(|other| colder(other));
            let at = coldest.len() - warmer.count();
            if at < most {
                coldest.truncate(most - 1);
                coldest.insert(at, scored);
            }
        }
        some.clear();
        some.extend(coldest.iter().map(|(_, slot)| *slot));
        let first = coldest.first().copied();
        (self.cold, self.scored) = (some, coldest);
        first
    }

    fn make_ghost(&mut self, slot: Slot, now: Nanos) {
        self.heats.place(slot, Place::Ghost);
        while self.heats.list(Place::Ghost).len() > self.config.ghosts_max as usize {
            let Some((_, coldest)) = self.coldest(Place::Ghost, GHOST_SAMPLES, now) else {
                break;
            };
            self.forget(coldest);
        }
    }

    fn forget(&mut self, slot: Slot) {
        self.waiting.settle(slot);
        self.heats.forget(slot);
    }

    /// Whether moves wait for what the backing device has to do. One that never has a pause is waited for in vain: only fewer
    /// accesses help it.
    fn is_held(&mut self, now: Nanos) -> bool {
        self.backing.queued(now) * 1e3 > self.config.queue_ms && self.backing.share(now) < PAUSELESS
    }

    /// Whether its accesses have cost more than the move would.
    fn paid(&self, slot: Slot, cost: f64) -> bool {
        self.heats[slot].seconds > self.config.theta * cost * ROUNDING
    }

    /// Says why an object outside the cache should be promoted now, if it should and may; its promise must be so many
    /// `times` what the move costs.
    fn judge(
        &mut self,
        now: Nanos,
        slot: Slot,
        len: u32,
        times: f64,
        free_room: bool,
    ) -> Option<Reason> {
        let cost = self.head_time(1.0, len);
        if !self.paid(slot, cost) {
            return None;
        }
        let heat = &self.heats[slot];
        let (spent, class, age) = (heat.seconds, heat.class(), now.since(heat.used));
        let marginal = if free_room {
            0.0
        } else {
            (1.0 + self.config.stickiness) * self.marginal(now)
        };
        let price = marginal * f64::from(len.max(1));
        let delayed = 1.0 + self.config.busy_weight * self.backing.delay(now);
        let least = times * cost * delayed;
        if !self.outlook.is_worth(class, age, price, least) {
            return None;
        }
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let reason = Reason::HeadTime {
            spent_us: micros(spent),
            cost_us: micros(cost),
        };
        let rate = self.config.promote_bytes_per_s as f64;
        // A second's budget may be saved up, at least four default objects.
        let burst = rate.max((16 << 20) as f64);
        let paid = self.promotions.pay(now, rate, burst, len);
        if !(paid && self.wear(now, len)) {
            return None;
        }
        self.backing.serve(now, cost);
        Some(reason)
    }
}

impl Strategy for CostBenefit {
    fn name(&self) -> &'static str {
        "cost-benefit"
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        let PolicyConfig::CostBenefit(config) = config else {
            return false;
        };
        self.config.clone_from(config);
        true
    }

    fn dirty_age(&mut self, most: Nanos) {
        if self.due != most {
            self.due = most;
            self.outlook.due(most);
        }
    }

    fn read(&mut self, now: Nanos, access: &Access) -> Option<Reason> {
        let (slot, new) = self.heats.find_or_add(access.id, now, access.object_len);
        let known = self.heats[slot].next_offset;
        // Without a shortcut: its memory is asked for before that of others, and arrives with it.
        let sequential = (access.offset != 0) & (known == access.offset);
        self.tell_some(now);
        let uses = if sequential { 0.0 } else { 1.0 };
        let seconds = self.head_time(uses, access.len);
        self.use_it(slot, now, uses, seconds);
        // What waits for the device is ahead of a move, this read is not: the move follows it anyway.
        let held = self.is_held(now);
        if !access.resident {
            self.backing.serve(now, seconds);
        }
        let heat = &mut self.heats[slot];
        heat.next_offset = access.offset.saturating_add(access.len);
        if new {
            self.make_ghost(slot, now);
        }
        if access.resident {
            return None;
        }
        if !held {
            self.waiting.settle(slot);
            let times = self.config.margin;
            return self.judge(now, slot, access.object_len, times, access.free_room);
        }
        // One that is new may be forgotten already.
        let ghost = self.heats[slot].place() == Place::Ghost;
        if ghost && self.paid(slot, self.head_time(1.0, access.object_len)) {
            self.waiting.hold(slot);
        }
        None
    }

    fn waited(&mut self, now: Nanos) -> Option<(ObjectId, u32)> {
        if self.waiting.is_empty() || self.is_held(now) {
            return None;
        }
        let slot = self.waiting.take()?;
        Some((self.heats.id(slot), self.heats[slot].len))
    }

    fn resumes(&mut self, now: Nanos, id: ObjectId, free_room: bool) -> Option<Reason> {
        let slot = self.heats.find(id)?;
        let (len, times) = (self.heats[slot].len, LATE * self.config.margin);
        self.judge(now, slot, len, times, free_room)
    }

    fn admits(&mut self, now: Nanos, len: u32, free_bytes: u64) -> bool {
        self.arrivals.came(now, len);
        let most = (1.0 - self.config.write_share) * free_bytes as f64;
        let kept = self.arrivals.smaller(len).min(most);
        f64::from(len) + kept <= free_bytes as f64 && self.wear(now, len)
    }

    fn passed_by(&mut self, now: Nanos, id: ObjectId, len: u32) {
        let (slot, _) = self.heats.find_or_add(id, now, len);
        self.heats[slot].make(now);
        self.make_ghost(slot, now);
        self.backing.serve(now, self.head_time(1.0, len));
    }

    fn revalidated(&mut self, now: Nanos, file: FileId) {
        let weight = self.config.revalidation_weight;
        for slot in self.heats.objects(file) {
            let len = self.heats[slot].len;
            self.use_it(slot, now, weight, weight * self.head_time(1.0, len));
        }
    }

    fn entered(&mut self, now: Nanos, id: ObjectId, len: u32, dirty: bool, origin: Origin) {
        let (slot, _) = self.heats.find_or_add(id, now, len);
        self.waiting.settle(slot);
        let heat = &mut self.heats[slot];
        (heat.len, heat.dirty) = (len, dirty);
        if origin == Origin::Written {
            heat.make(now);
            (heat.used, heat.told) = (now, now);
        }
        self.heats.place(slot, Place::Main);
        self.tell_some(now);
    }

    fn flushed(&mut self, now: Nanos, id: ObjectId) {
        if let Some(slot) = self.heats.find(id) {
            self.heats[slot].dirty = false;
            let len = self.heats[slot].len;
            self.backing.serve(now, self.head_time(1.0, len));
        }
    }

    fn left(&mut self, id: ObjectId) {
        if let Some(slot) = self.heats.find(id) {
            self.heats[slot].dirty = false;
            let at = self.heats[slot].at;
            self.make_ghost(slot, at);
        }
    }

    fn forgot(&mut self, now: Nanos, file: FileId) {
        for slot in self.heats.objects(file) {
            self.tell(slot, now);
            let heat = &self.heats[slot];
            self.outlook.died(heat.class(), now.since(heat.used));
            if let Some(made) = heat.made().filter(|_| heat.young) {
                self.outlook.lived(heat.class(), now.since(made), true);
            }
            self.forget(slot);
        }
    }

    fn remembered(&self) -> usize {
        self.heats.len()
    }

    fn expel(
        &mut self,
        now: Nanos,
        view: &CacheView,
        planned_bytes: u64,
    ) -> Option<(ObjectId, Reason)> {
        // One in, one out: room for a burst of writes, without emptying more than it takes.
        let (low, high) = (view.low_bytes() as f64, view.high_bytes() as f64);
        let most_bytes = (low + self.config.evict_from * (high - low)) as u64;
        if planned_bytes <= most_bytes {
            return None;
        }
        let reason = Reason::Room {
            used_bytes: planned_bytes,
            most_bytes,
        };
        self.pop_victim(now).map(|id| (id, reason))
    }

    fn pop_victim(&mut self, now: Nanos) -> Option<ObjectId> {
        let drawn = self.config.samples.div_ceil(DRAWN) as usize;
        let (_, slot) = self.coldest_resident(now, drawn)?;
        self.heats.place(slot, Place::Leaving);
        Some(self.heats.id(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halvings_are_powers_of_two() {
        for i in 0..2000 {
            let x = f64::from(i) * 0.013;
            assert!((halvings(x) / (-x).exp2() - 1.0).abs() < 1e-9, "{x}");
        }
        assert_eq!(halvings(1.0), 0.5);
        assert_eq!(halvings(f64::INFINITY), 0.0);
    }

    #[test]
    fn the_coldest_of_all_that_was_drawn_are_kept_in_order() {
        let mut policy = CostBenefit::new(CostBenefitConfig::default());
        for file in 0..100 {
            let id = ObjectId::new(FileId(file), 0);
            // Some are equally cold: then the lower identity is colder.
            let len = 1000 + (file * 37 % 100 / 3) as u32;
            policy.entered(Nanos(0), id, len, false, Origin::Moved);
        }
        let now = Nanos::from_secs(10);
        let score = |slot: &Slot| (policy.score(*slot, now), *slot);
        let mut all: Vec<Scored> = policy.heats.list(Place::Main).iter().map(score).collect();
        all.sort_by(|a, b| colder(&policy.heats, a, b));
        let coldest = (0..100).filter_map(|_| policy.coldest_resident(now, 16));
        assert!(coldest.last() == Some(all[0]));
        let kept: Vec<Slot> = all[..8].iter().map(|(_, slot)| *slot).collect();
        assert!(policy.cold == kept);
        // Who leaves is not kept.
        policy.heats.place(kept[0], Place::Leaving);
        assert!(policy.coldest_resident(now, 0) == Some(all[1]));
        assert!(policy.cold == kept[1..]);
    }
}
