//! What moving objects could save at best, had one known the load: head time, migrations included.
//!
//! Room in the cache gets a price per window of the load. At given prices each object's best history is
//! exact (a dynamic program over: backing only, clean copy, dirty). The sum less the price of the whole
//! cache is a lower bound for any policy, at any prices (weak duality); subgradient steps make it tight.
//! Keeping the histories that save most per byte and moment, as long as they fit, gives a plan that works.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::device::Device;
use super::offline::Timeline;
use super::run::{Access, Request};
use crate::types::{Nanos, ObjectId};

/// Prices over the load.
const WINDOWS: usize = 96;
/// Steps towards the best prices.
const STEPS: u32 = 80;
/// Prices are scaled by these for the plan: histories that are chosen at a lower price fill the gaps.
const SCALES: [f64; 6] = [2.0, 1.0, 0.6, 0.3, 0.1, 0.0];

/// Head time that a policy which knows the future needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clairvoyant {
    /// No policy with a cache of this size needs less, seconds.
    pub at_least: f64,
    /// A plan that fits into the cache needs so much, seconds. It may promote before the first read.
    pub plan: f64,
}

struct Step {
    /// Place in the load.
    at: usize,
    time: Nanos,
    /// What the backing device needs for this read; none for the write that makes the object.
    read: Option<f64>,
}

struct Object {
    len: u64,
    steps: Vec<Step>,
    /// Where the load deletes it, or ends.
    end: (usize, Nanos),
    /// Head time of moving it.
    moving: f64,
}

/// A stay in the cache: from one place in the load to another, and the head time it saves.
struct Stay {
    range: Range<usize>,
    saves: f64,
}

const BACKING: usize = 0;
const CLEAN: usize = 1;
const DIRTY: usize = 2;

/// Finds the bounds for a cache of `capacity` bytes. With `flush_after` what has been dirty for so long must
/// be written down, as the gateway does it; without it the lower bound holds for any rule.
pub fn clairvoyant(
    hdd: Device,
    capacity: u64,
    flush_after: Option<Nanos>,
    requests: &[Request],
) -> Clairvoyant {
    let objects = histories(hdd, requests);
    let base: f64 = objects.iter().map(|o| o.stays_out()).sum();
    if capacity == 0 || requests.is_empty() {
        return Clairvoyant {
            at_least: base,
            plan: base,
        };
    }
    let mut prices = Prices::new(requests.len(), base / capacity as f64);
    let (mut at_least, mut best) = (0.0_f64, prices.clone());
    for step in 0..STEPS {
        let sums = prices.sums();
        let mut used = vec![0.0; WINDOWS];
        let mut total = 0.0;
        for object in &objects {
            let (cost, stays) = object.best(&prices, &sums, flush_after);
            total += cost;
            for stay in stays {
                prices.spread(&stay.range, object.len as f64, &mut used);
            }
        }
        let bound = total - prices.of.iter().sum::<f64>() * capacity as f64;
        if bound > at_least {
            (at_least, best) = (bound, prices.clone());
        }
        let pace = 1.0 / f64::from(step + 1).sqrt();
        for (price, used) in prices.of.iter_mut().zip(used) {
            let over = (used / capacity as f64 - 1.0).clamp(-0.9, 3.0);
            *price *= 1.0 + over * pace;
        }
    }
    let plans = SCALES.map(|scale| {
        let mut prices = best.clone();
        prices.of.iter_mut().for_each(|price| *price *= scale);
        base - fitting(&objects, &prices, flush_after, capacity, requests.len())
    });
    Clairvoyant {
        at_least: at_least.max(0.0),
        plan: plans.into_iter().fold(base, f64::min),
    }
}

/// What the stays that fit save, those that save most per byte and moment first.
fn fitting(
    objects: &[Object],
    prices: &Prices,
    flush_after: Option<Nanos>,
    capacity: u64,
    moments: usize,
) -> f64 {
    let sums = prices.sums();
    let mut stays = Vec::new();
    for object in objects {
        let (_, own) = object.best(prices, &sums, flush_after);
        for stay in own.into_iter().filter(|stay| stay.saves > 0.0) {
            let price = object.len as f64 * stay.range.len().max(1) as f64;
            stays.push((stay.saves / price, stay, object.len));
        }
    }
    stays.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then(a.1.range.start.cmp(&b.1.range.start))
    });
    let mut timeline = Timeline::new(moments);
    let fit = stays.iter().filter(|(_, stay, len)| {
        let range = stay.range.start..stay.range.end.max(stay.range.start + 1);
        timeline.take(&range, *len, capacity)
    });
    fit.map(|(_, stay, _)| stay.saves).sum()
}

/// The price of a byte in the cache, over the whole of each window.
#[derive(Clone)]
struct Prices {
    of: Vec<f64>,
    moments: usize,
}

impl Prices {
    fn new(moments: usize, each: f64) -> Self {
        Self {
            of: vec![each / WINDOWS as f64; WINDOWS],
            moments: moments.max(1),
        }
    }

    fn sums(&self) -> Vec<f64> {
        let mut sum = 0.0;
        let mut sums = vec![0.0];
        sums.extend(self.of.iter().map(|price| {
            sum += price;
            sum
        }));
        sums
    }

    /// What a byte pays from the start of the load to a place in it.
    fn until(&self, sums: &[f64], at: usize) -> f64 {
        let place = at as f64 / self.moments as f64 * WINDOWS as f64;
        let window = (place as usize).min(WINDOWS - 1);
        sums[window] + self.of[window] * (place - window as f64)
    }

    /// Adds `bytes` to each window by the share of it that the range covers.
    fn spread(&self, range: &Range<usize>, bytes: f64, used: &mut [f64]) {
        let place = |at: usize| at as f64 / self.moments as f64 * WINDOWS as f64;
        let (from, to) = (place(range.start), place(range.end));
        for (window, used) in used.iter_mut().enumerate().skip(from as usize) {
            let covered = to.min(window as f64 + 1.0) - from.max(window as f64);
            if covered <= 0.0 {
                break;
            }
            *used += bytes * covered;
        }
    }
}

impl Object {
    /// Head time when it is never in the cache.
    fn stays_out(&self) -> f64 {
        self.steps
            .iter()
            .map(|s| s.read.unwrap_or(self.moving))
            .sum()
    }

    /// The least that it costs at these prices, and its stays in the cache then.
    fn best(&self, prices: &Prices, sums: &[f64], flush_after: Option<Nanos>) -> (f64, Vec<Stay>) {
        const NEVER: f64 = f64::INFINITY;
        let moving = self.moving;
        let mut before = [0.0, NEVER, NEVER];
        let mut due = Nanos(u64::MAX);
        // For each step and state after it: the state before; for each interval: the state it began in.
        let mut came = Vec::with_capacity(self.steps.len());
        for (at, step) in self.steps.iter().enumerate() {
            let [out, clean, dirty] = before;
            let least = |options: [(f64, usize); 3]| {
                let first = options[0];
                let rest = options.into_iter().skip(1);
                rest.fold(first, |a, b| if b.0 < a.0 { b } else { a })
            };
            let after = match step.read {
                Some(read) => [
                    least([
                        (out + read, BACKING),
                        (clean, CLEAN),
                        (dirty + moving, DIRTY),
                    ]),
                    least([
                        (clean, CLEAN),
                        (out + moving, BACKING),
                        (dirty + moving, DIRTY),
                    ]),
                    (dirty, DIRTY),
                ],
                None => {
                    due = flush_after.map_or(due, |span| step.time.plus(span));
                    let (cost, from) = least([(out, BACKING), (clean, CLEAN), (dirty, DIRTY)]);
                    [(cost + moving, from), (cost + moving, from), (cost, from)]
                }
            };
            let (next, time) = self.steps.get(at + 1).map_or(self.end, |s| (s.at, s.time));
            let stay = prices.until(sums, next) - prices.until(sums, step.at);
            let stay = stay * self.len as f64;
            let [out, clean, dirty] = after.map(|(cost, _)| cost);
            before = [out, clean + stay, dirty + stay];
            let mut kept = [BACKING, CLEAN, DIRTY];
            if time > due {
                if dirty + stay + moving < before[CLEAN] {
                    before[CLEAN] = dirty + stay + moving;
                    kept[CLEAN] = DIRTY;
                }
                before[DIRTY] = NEVER;
            }
            came.push((after.map(|(_, from)| from), kept));
        }
        let mut state = (0..3).fold(0, |a, b| if before[b] < before[a] { b } else { a });
        let cost = before[state];
        let mut stays: Vec<Stay> = Vec::new();
        for (at, (from, kept)) in came.iter().enumerate().rev() {
            let next = self.steps.get(at + 1).map_or(self.end.0, |s| s.at);
            let began = kept[state];
            let joined = state != BACKING;
            // Flushed on the way: the head time is paid, whatever follows.
            let mut spent = if began == state { 0.0 } else { moving };
            let step = &self.steps[at];
            let earlier = from[began];
            let out = step.read.unwrap_or(moving);
            spent += match (step.read, earlier, began) {
                (Some(_), DIRTY, BACKING | CLEAN) | (Some(_), BACKING, CLEAN) => moving,
                (Some(read), BACKING, BACKING) => read,
                (None, _, BACKING | CLEAN) => moving,
                _ => 0.0,
            };
            let saved = out - spent;
            if joined {
                match stays
                    .last_mut()
                    .filter(|stay| stay.range.start == next && at + 1 < self.steps.len())
                {
                    Some(stay) => {
                        stay.range.start = step.at;
                        stay.saves += saved;
                    }
                    None => stays.push(Stay {
                        range: step.at..next,
                        saves: saved,
                    }),
                }
            } else if earlier != BACKING && step.read.is_some() {
                // The last read of a stay: it leaves here.
                stays.push(Stay {
                    range: step.at..step.at,
                    saves: saved,
                });
            }
            state = earlier;
        }
        (cost, stays)
    }
}

/// Every object's accesses in order, with what the backing device needs for each at least.
fn histories(hdd: Device, requests: &[Request]) -> Vec<Object> {
    let mut objects: BTreeMap<ObjectId, (Object, BTreeSet<u32>)> = BTreeMap::new();
    let last = requests.last().map_or(Nanos(0), |r| r.at);
    let seconds = |seeks, bytes| hdd.time(seeks, bytes).as_secs_f64();
    for (at, request) in requests.iter().enumerate() {
        let fresh = || {
            let object = Object {
                len: 0,
                steps: Vec::new(),
                end: (requests.len(), last),
                moving: 0.0,
            };
            (object, BTreeSet::new())
        };
        let (len, read) = match request.access {
            Access::Delete(_) => {
                let range = crate::policy::objects_of(request.id.file);
                for (_, (object, _)) in objects.range_mut(range) {
                    object.end = object.end.min((at, request.at));
                }
                continue;
            }
            Access::Write(len) => (len, None),
            Access::Read {
                offset,
                len,
                object_len,
            } => {
                let (_, ends) = objects.entry(request.id).or_insert_with(fresh);
                // A stream may go on here, whoever serves it: no positioning is counted.
                let goes_on = offset != 0 && ends.contains(&offset);
                ends.insert(offset.saturating_add(len));
                let cost = seconds(u32::from(!goes_on), u64::from(len));
                (object_len, Some(cost))
            }
        };
        let (object, _) = objects.entry(request.id).or_insert_with(fresh);
        object.len = object.len.max(u64::from(len));
        object.steps.push(Step {
            at,
            time: request.at,
            read,
        });
    }
    let mut objects: Vec<Object> = objects.into_values().map(|(object, _)| object).collect();
    for object in &mut objects {
        object.moving = seconds(1, object.len);
    }
    objects
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::policy::PolicyConfig;
    use crate::sim::{Setup, run};
    use crate::types::FileId;

    const MIB: u32 = 1 << 20;

    fn load(steps: &[(u8, u64)]) -> Vec<Request> {
        let mut known = BTreeSet::new();
        let mut versions = [0; 4];
        let mut load = Vec::new();
        for (second, (kind, file)) in steps.iter().enumerate() {
            let name = file + 10 * versions[*file as usize];
            let id = ObjectId::new(FileId(name + 1), 0);
            let access = match kind {
                0 if known.insert(name) => Access::Write(MIB * (1 + *file as u32 % 2)),
                1 if known.remove(&name) => {
                    versions[*file as usize] += 1;
                    Access::Delete(1)
                }
                _ => {
                    known.insert(name);
                    Access::Read {
                        offset: 0,
                        len: MIB / 4,
                        object_len: MIB * (1 + *file as u32 % 2),
                    }
                }
            };
            let at = Nanos::from_secs(20 * second as u64);
            load.push(Request { at, id, access });
        }
        load
    }

    /// The least head time by trying every joint history, interval by interval.
    fn exhaustive(load: &[Request], capacity: u64, flush_after: Option<Nanos>) -> f64 {
        let objects = histories(Device::HDD, load);
        let mut joint: BTreeMap<Vec<usize>, f64> =
            BTreeMap::from([(vec![BACKING; objects.len()], 0.0)]);
        for at in 0..load.len() {
            let mut next: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
            for (states, cost) in &joint {
                let mut options = vec![(vec![], *cost)];
                for (object, &state) in objects.iter().zip(states) {
                    let moving = object.moving;
                    let step = object.steps.iter().find(|s| s.at == at);
                    let end = object
                        .steps
                        .get(1 + object.steps.iter().rposition(|s| s.at <= at).unwrap_or(0));
                    let until = end.map_or(object.end.1, |s| s.time);
                    let made = object
                        .steps
                        .iter()
                        .find(|s| s.read.is_none())
                        .map(|s| s.time);
                    let late = flush_after
                        .zip(made)
                        .is_some_and(|(span, made)| until > made.plus(span));
                    let gone = object.end.0 <= at;
                    let read = step.and_then(|s| s.read);
                    let mut to: Vec<(usize, f64)> = match (step.is_some(), read, state) {
                        _ if gone => vec![(BACKING, 0.0)],
                        (true, None, _) => vec![(BACKING, moving), (CLEAN, moving), (DIRTY, 0.0)],
                        (true, Some(read), BACKING) => vec![(BACKING, read), (CLEAN, moving)],
                        (_, _, CLEAN) => vec![(BACKING, 0.0), (CLEAN, 0.0)],
                        (_, _, DIRTY) => vec![(BACKING, moving), (CLEAN, moving), (DIRTY, 0.0)],
                        _ => vec![(BACKING, 0.0)],
                    };
                    if late {
                        // Kept dirty now means flushed within this interval.
                        let dirty = to.iter().filter(|t| t.0 == DIRTY).map(|t| t.1 + moving);
                        let flushed: Vec<_> = dirty.map(|cost| (CLEAN, cost)).collect();
                        to.retain(|t| t.0 != DIRTY);
                        to.extend(flushed);
                    }
                    options = options
                        .iter()
                        .flat_map(|(before, cost)| {
                            to.iter().map(move |(state, more)| {
                                (
                                    before.iter().copied().chain([*state]).collect::<Vec<_>>(),
                                    cost + more,
                                )
                            })
                        })
                        .collect();
                }
                for (states, cost) in options {
                    let held = objects.iter().zip(&states).filter(|(_, s)| **s != BACKING);
                    if held.map(|(o, _)| o.len).sum::<u64>() <= capacity {
                        let known = next.entry(states).or_insert(f64::INFINITY);
                        *known = known.min(cost);
                    }
                }
            }
            joint = next;
        }
        joint.values().copied().fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_best_history_lies_between(
            steps in prop::collection::vec((0u8..6, 0u64..3), 1..9),
            mib in 0u64..5,
            rule in any::<bool>(),
        ) {
            let load = load(&steps);
            let rule = rule.then_some(Nanos::from_secs(50));
            let capacity = mib * u64::from(MIB);
            let found = clairvoyant(Device::HDD, capacity, rule, &load);
            let best = exhaustive(&load, capacity, rule);
            prop_assert!(found.at_least <= best + 1e-6, "{found:?} {best}");
            prop_assert!(best <= found.plan + 1e-6, "{found:?} {best}");
        }

        #[test]
        fn no_policy_needs_less(
            steps in prop::collection::vec((0u8..9, 0u64..4), 1..60),
            mib in 1u64..8,
        ) {
            let load = load(&steps);
            let capacity = mib * u64::from(MIB);
            let bound = clairvoyant(Device::HDD, capacity, None, &load).at_least;
            for &name in PolicyConfig::NAMES {
                let setup = Setup {
                    policy: PolicyConfig::from_name(name).unwrap(),
                    cache_bytes: capacity,
                    hdd: Device::HDD,
                    ssd: Device::SSD,
                    high_watermark: 1.0,
                    low_watermark: 1.0,
                    max_dirty_age: Nanos::from_secs(50),
                };
                let busy = run(&setup, load.iter().copied()).hdd_busy.as_secs_f64();
                prop_assert!(bound <= busy + 1e-6, "{} {} {}", name, bound, busy);
            }
        }
    }

    #[test]
    fn a_hot_object_is_moved_once_and_a_short_lived_one_never() {
        let steps = [
            (2, 0),
            (2, 0),
            (2, 0),
            (2, 0),
            (2, 0),
            (2, 0),
            (0, 2),
            (1, 2),
        ];
        let found = clairvoyant(Device::HDD, 8 << 20, None, &load(&steps));
        let once = Device::HDD.time(1, u64::from(MIB)).as_secs_f64();
        assert!((found.plan - once).abs() < 1e-9, "{found:?}");
        assert!(found.at_least > 0.9 * once, "{found:?}");
    }
}
