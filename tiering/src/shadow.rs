//! What other policies, and caches of other sizes, would do with the load that is running: metadata only, of a sample of
//! the objects.
//!
//! Spatial sampling as in Waldspurger, Park, Garthwaite, Ahmad, "Efficient MRC construction with SHARDS" (FAST '15): an
//! object is in the sample when the hash of its identity is below a threshold, and caches are as much smaller as the
//! sample. The threshold falls whenever the sample has more than [`OBJECTS_MAX`] objects (their fixed-size variant), or
//! asks for more than [`STEPS_PER_S_MAX`] steps; it does not rise again. While all objects are in the sample, results are
//! those of the simulator.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::policy::{PARAMETERS, PolicyConfig, objects_of, splitmix};
use crate::sim::{Access, Request, Run, Setup};
use crate::types::{Nanos, ObjectId};

/// The cache's sizes that are tried, in capacities of the real one.
pub const SIZES: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
/// Objects in the sample at most.
pub const OBJECTS_MAX: usize = 8192;
/// Requests times cases per second, over ten seconds. A step takes 0.3 us (`cargo bench -p tiering --bench shadow`), and
/// some three times that where the caches of the CPU are cold: 0.2 to 0.6 % of one CPU.
pub const STEPS_PER_S_MAX: u64 = 6_000;
/// Policies at most.
pub const POLICIES_MAX: usize = 8;

/// Over which the steps are counted.
const WINDOW: Nanos = Nanos::from_secs(10);
/// The sample is not made smaller than this because of its steps: too few objects say nothing.
const OBJECTS_MIN: usize = 64;
/// Thresholds are of this many (FAST '15, section 5).
const FULL: u64 = 1 << 24;

/// Where an object's hash is, below [`Threshold::ALL`].
fn place(id: ObjectId) -> u64 {
    let key = id.file.0 ^ (u64::from(id.index) << 40).rotate_left(7);
    // Another hash than policies sample with.
    splitmix(key ^ 0x5368_6172_6473) >> 40
}

/// Which objects are in the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold(pub u64);

impl Threshold {
    /// All objects.
    pub const ALL: Threshold = Threshold(FULL);

    /// Whether an object is in the sample.
    pub fn has(self, id: ObjectId) -> bool {
        self.0 >= FULL || place(id) < self.0
    }

    /// The share of all objects that is in the sample.
    pub fn rate(self) -> f64 {
        self.0.min(FULL) as f64 / FULL as f64
    }
}

/// What a policy would have achieved with a cache of some size, estimated for the whole load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The policy.
    pub policy: String,
    /// The cache's size, in capacities of the real one.
    pub size: f64,
    /// Reads, counted per object touched.
    pub reads: f64,
    /// Of these, those that the cache would have served.
    pub read_hits: f64,
    /// Bytes read.
    pub read_bytes: f64,
    /// Of these, those that the cache would have served.
    pub read_hit_bytes: f64,
    /// Time in which the backing device would have been busy, moves included.
    pub head_seconds: f64,
    /// Time in which the load was more than a device with these numbers can serve: it is faster then than they say, and what is
    /// estimated says little. Seconds, of the sample.
    #[serde(default)]
    pub refuted_seconds: f64,
}

impl Estimate {
    /// Hits per read; `None` without reads.
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.reads > 0.0).then(|| self.read_hits / self.reads)
    }

    /// The same for bytes.
    pub fn byte_hit_ratio(&self) -> Option<f64> {
        (self.read_bytes > 0.0).then(|| self.read_hit_bytes / self.read_bytes)
    }
}

/// One policy with one size.
struct Case {
    policy: PolicyConfig,
    size: f64,
    run: Run,
    /// What was counted at earlier rates, scaled: reads, hits, their bytes, seconds of head time.
    settled: [f64; 5],
    /// What the run had counted when the rate changed last.
    before: [f64; 5],
}

impl Case {
    fn counted(&self) -> [f64; 5] {
        let (out, busy) = self.run.so_far();
        let hits = out.reads - out.read_misses;
        let hit_bytes = out.read_bytes - out.read_miss_bytes;
        let counts = [out.reads, hits, out.read_bytes, hit_bytes].map(|n| n as f64);
        [
            counts[0],
            counts[1],
            counts[2],
            counts[3],
            busy.as_secs_f64(),
        ]
    }

    fn scaled(&self, rate: f64) -> [f64; 5] {
        let (counted, mut sums) = (self.counted(), self.settled);
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += (counted[i] - self.before[i]) / rate;
        }
        sums
    }
}

/// A policy's parameters for a part of the load: rates, and counts of objects, are as much smaller.
fn scaled(policy: &PolicyConfig, rate: f64) -> PolicyConfig {
    let mut scaled = policy.clone();
    let shrinks = |p: &&crate::policy::Parameter| {
        p.unit.contains(" per ") || matches!(p.name, "ghosts_max" | "period_objects_max")
    };
    for p in PARAMETERS
        .iter()
        .filter(|p| p.policy == policy.name())
        .filter(shrinks)
    {
        if let Some(value) = policy.get(p.name).filter(|v| *v > 0.0) {
            // 0 is no limit: never by rounding.
            scaled.set(p.name, (value * rate).round().max(1.0));
        }
    }
    scaled
}

/// Policies that run beside the one that decides. Pure: the caller brings the load and the time.
pub struct Shadow {
    cases: Vec<Case>,
    capacity_bytes: u64,
    threshold: Threshold,
    /// The sample, by hash: the largest leave first.
    by_place: BTreeSet<(u64, ObjectId)>,
    sample: BTreeSet<ObjectId>,
    now: Nanos,
    window: (Nanos, u64),
}

impl Shadow {
    /// Runs each of `policies` with each of [`SIZES`]; `setup` says the rest, its `cache_bytes` the real capacity.
    pub fn new(policies: &[PolicyConfig], setup: &Setup) -> Self {
        let cases = policies.iter().flat_map(|policy| {
            SIZES.map(|size| Case {
                policy: policy.clone(),
                size,
                run: Run::beside_a_real_one(Setup {
                    policy: policy.clone(),
                    cache_bytes: (setup.cache_bytes as f64 * size) as u64,
                    ..setup.clone()
                }),
                settled: [0.0; 5],
                before: [0.0; 5],
            })
        });
        Shadow {
            cases: cases.collect(),
            capacity_bytes: setup.cache_bytes,
            threshold: Threshold::ALL,
            by_place: BTreeSet::new(),
            sample: BTreeSet::new(),
            now: Nanos(0),
            window: (Nanos(0), 0),
        }
    }

    /// Which objects need be told of.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Objects in the sample.
    pub fn sampled_objects(&self) -> usize {
        self.sample.len()
    }

    /// Takes one request; those of other objects than the sample's change nothing. Deletions are of whole files.
    pub fn note(&mut self, mut request: Request) {
        self.now = self.now.max(request.at);
        request.at = self.now;
        if let Access::Delete(_) = request.access {
            let gone = self.sample.range(objects_of(request.id.file));
            let gone: Vec<ObjectId> = gone.copied().collect();
            if gone.is_empty() {
                return;
            }
            for id in gone {
                self.sample.remove(&id);
                self.by_place.remove(&(place(id), id));
            }
        } else if !self.threshold.has(request.id) {
            return;
        } else if self.sample.insert(request.id) {
            self.by_place.insert((place(request.id), request.id));
        }
        for case in &mut self.cases {
            case.run.step(request);
        }
        self.window.1 += self.cases.len() as u64;
        if self.sample.len() > OBJECTS_MAX {
            self.shrink(OBJECTS_MAX);
        }
    }

    /// Lets time pass: call about once a second.
    pub fn pass(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        for case in &mut self.cases {
            case.run.pass(self.now);
        }
        let (since, steps) = self.window;
        let span = self.now.since(since);
        if span < WINDOW {
            return;
        }
        self.window = (self.now, 0);
        let most = STEPS_PER_S_MAX as f64 * span.as_secs_f64();
        if steps as f64 > most && self.sample.len() > OBJECTS_MIN {
            let keep = self.sample.len() as f64 * most / steps as f64;
            self.shrink((keep as usize).max(OBJECTS_MIN));
        }
    }

    /// Makes the sample so small, by the threshold.
    fn shrink(&mut self, objects: usize) {
        let old = self.threshold.rate();
        while self.sample.len() > objects {
            let Some((place, id)) = self.by_place.pop_last() else {
                break;
            };
            self.threshold = Threshold(place.max(1));
            self.sample.remove(&id);
            for case in &mut self.cases {
                case.run.drop_object(self.now, id);
            }
        }
        let rate = self.threshold.rate();
        for case in &mut self.cases {
            (case.settled, case.before) = (case.scaled(old), case.counted());
            let bytes = self.capacity_bytes as f64 * case.size * rate;
            case.run.resize(bytes as u64, &scaled(&case.policy, rate));
        }
    }

    /// What each would have achieved so far: by policy, in the order given, and size.
    pub fn estimates(&self) -> Vec<Estimate> {
        let rate = self.threshold.rate();
        let estimate = |case: &Case| {
            let [reads, read_hits, read_bytes, read_hit_bytes, head_seconds] = case.scaled(rate);
            Estimate {
                policy: case.policy.name().to_owned(),
                size: case.size,
                reads,
                read_hits,
                read_bytes,
                read_hit_bytes,
                head_seconds,
                refuted_seconds: case.run.refuted_for().as_secs_f64(),
            }
        };
        self.cases.iter().map(estimate).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::sim::{Device, run};
    use crate::types::FileId;

    const LEN: u32 = 1 << 20;

    fn setup(policy: &str, objects: u64) -> Setup {
        Setup {
            policy: PolicyConfig::from_name(policy).unwrap(),
            cache_bytes: objects * u64::from(LEN),
            hdd: Device::HDD,
            ssd: Device::SSD,
            high_watermark: crate::HIGH_WATERMARK,
            low_watermark: crate::LOW_WATERMARK,
            max_dirty_age: crate::MAX_DIRTY_AGE.into(),
        }
    }

    /// Reads of `objects` objects, skewed, every tenth a new version.
    fn load(objects: u64, requests: u64) -> Vec<Request> {
        let mut out = Vec::new();
        for i in 0..requests {
            let draw = |salt: u64| splitmix(i ^ (salt << 40)) as f64 / u64::MAX as f64;
            let file = (draw(1).powi(3) * objects as f64) as u64;
            let id = ObjectId::new(FileId(file), 0);
            let at = Nanos::from_millis(50 * i);
            let read = Access::Read {
                offset: 0,
                len: LEN,
                object_len: LEN,
            };
            if i % 10 == 0 {
                let access = Access::Delete(1);
                out.push(Request { at, id, access });
                let access = Access::Write(LEN);
                out.push(Request { at, id, access });
            } else {
                let access = read;
                out.push(Request { at, id, access });
            }
        }
        out
    }

    fn shadow(policies: &[&str], cache_objects: u64, load: &[Request]) -> Shadow {
        let configs: Vec<_> = policies
            .iter()
            .map(|p| PolicyConfig::from_name(p).unwrap())
            .collect();
        let mut shadow = Shadow::new(&configs, &setup("lru", cache_objects));
        load.iter().for_each(|r| shadow.note(*r));
        shadow
    }

    #[test]
    fn a_load_that_fits_the_sample_gives_what_the_simulator_gives() {
        let load = load(1000, 5000);
        let shadow = shadow(&["lru", "cost-benefit"], 100, &load);
        assert_eq!(shadow.threshold(), Threshold::ALL);
        for estimate in shadow.estimates() {
            let mut setup = setup(&estimate.policy, 100);
            setup.cache_bytes = (setup.cache_bytes as f64 * estimate.size) as u64;
            let out = run(&setup, load.iter().copied());
            assert_eq!(estimate.reads, out.reads as f64);
            assert_eq!(estimate.read_hits, (out.reads - out.read_misses) as f64);
            let hit_bytes = out.read_bytes - out.read_miss_bytes;
            assert_eq!(estimate.read_hit_bytes, hit_bytes as f64);
            assert_eq!(estimate.head_seconds, out.hdd_busy.as_secs_f64());
        }
    }

    #[test]
    fn a_larger_load_is_estimated_from_a_bounded_sample() {
        let load = load(30_000, 100_000);
        let policies = ["s3-fifo", "cost-benefit"];
        let shadow = shadow(&policies, 2000, &load);
        assert!(shadow.sampled_objects() <= OBJECTS_MAX);
        let rate = shadow.threshold().rate();
        assert!((0.2..0.5).contains(&rate), "{rate}");
        for estimate in shadow.estimates() {
            if estimate.size > 1.0 {
                continue;
            }
            let mut setup = setup(&estimate.policy, 2000);
            setup.cache_bytes = (setup.cache_bytes as f64 * estimate.size) as u64;
            let out = run(&setup, load.iter().copied());
            let exact = 1.0 - out.read_misses as f64 / out.reads as f64;
            let ratio = estimate.hit_ratio().unwrap();
            assert!((ratio - exact).abs() < 0.03, "{estimate:?}: {exact}");
            let head = estimate.head_seconds / out.hdd_busy.as_secs_f64();
            assert!((0.9..1.1).contains(&head), "{estimate:?}: {head}");
        }
    }

    #[test]
    fn too_many_steps_make_the_sample_smaller_but_not_too_small() {
        let mut shadow = shadow(&["lru"], 100, &[]);
        let read = |i: u64| Request {
            at: Nanos::from_millis(i / 10),
            id: ObjectId::new(FileId(i % 5000), 0),
            access: Access::Read {
                offset: 0,
                len: LEN,
                object_len: LEN,
            },
        };
        // 10 000 requests a second, 4 cases: 40 000 steps.
        (0..200_000).for_each(|i| shadow.note(read(i)));
        shadow.pass(Nanos::from_secs(20));
        let objects = shadow.sampled_objects();
        assert_eq!(objects, 5000 * STEPS_PER_S_MAX as usize / 40_000);
        let reads = shadow.estimates()[0].reads;
        (200_000..400_000).for_each(|i| shadow.note(read(i)));
        let more = shadow.estimates()[0].reads - reads;
        assert!((150_000.0..250_000.0).contains(&more), "{more}");
        for i in 0..20 {
            shadow.pass(Nanos::from_secs(60 + 10 * i));
        }
        assert_eq!(shadow.sampled_objects(), objects);
    }

    #[test]
    fn a_load_that_the_device_could_not_serve_does_not_keep_a_cache_empty() {
        // 340 reads a second: of a disk that needs no time for them, or has them in memory.
        let load: Vec<Request> = { load(160, 340 * 120).into_iter().enumerate() }
            .map(|(i, request)| Request {
                at: Nanos(i as u64 * Nanos::PER_SECOND / 340),
                ..request
            })
            .filter(|request| matches!(request.access, Access::Read { .. }))
            .collect();
        let mut heads = Vec::new();
        for policy in ["lru", "recency", "lru-2nd", "s3-fifo", "cost-benefit"] {
            let own = &shadow(&[policy], 33, &load).estimates()[1];
            let at_once = Device {
                seek_ms: 0.0,
                transfer_mib_per_s: f64::INFINITY,
            };
            let setup = Setup {
                hdd: at_once,
                ssd: at_once,
                ..setup(policy, 33)
            };
            let out = run(&setup, load.iter().copied());
            let exact = 1.0 - out.read_misses as f64 / out.reads as f64;
            let ratio = own.hit_ratio().unwrap();
            assert!((ratio - exact).abs() < 0.1, "{own:?}: {exact}");
            assert!(own.refuted_seconds > 60.0, "{own:?}");
            heads.push((own.head_seconds, policy));
        }
        // `auto` goes by this.
        let best = { heads.iter() }.min_by(|(a, _), (b, _)| a.total_cmp(b));
        assert_eq!(best.unwrap().1, "cost-benefit", "{heads:?}");
    }

    #[test]
    fn rates_shrink_with_the_sample_and_never_to_no_limit() {
        let config = PolicyConfig::from_name("cost-benefit").unwrap();
        let small = scaled(&config, 0.25);
        assert_eq!(small.get("promote_bytes_per_s"), Some(f64::from(5 << 20)));
        assert_eq!(small.get("ghosts_max"), Some(65_536.0));
        assert_eq!(small.get("ssd_bytes_per_day"), Some(0.0));
        assert_eq!(small.get("theta"), config.get("theta"));
        let recency = PolicyConfig::from_name("recency").unwrap();
        let none = scaled(&recency, 1e-9);
        assert_eq!(none.get("promote_objects_per_s"), Some(1.0));
    }
}
