//! Every policy against exact small cases and a naive model of the cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::ActionKind::{Evict, Flush, Promote};
use crate::types::FileId;

const LEN: u32 = 100;

/// A cache that does at once whatever is proposed.
struct Model {
    policy: Box<dyn Policy>,
    /// Residents, and whether each is dirty.
    cache: BTreeMap<ObjectId, bool>,
    now: Nanos,
    capacity: u64,
    log: Vec<(crate::ActionKind, u64)>,
    fail_every: usize,
}

fn id(file: u64) -> ObjectId {
    ObjectId::new(FileId(file), 0)
}

impl Model {
    fn new(name: &str, objects: u64) -> Self {
        Self::with(&PolicyConfig::from_name(name).unwrap(), objects)
    }

    fn with(config: &PolicyConfig, objects: u64) -> Self {
        Self {
            policy: build(config),
            cache: BTreeMap::new(),
            now: Nanos(0),
            capacity: objects * u64::from(LEN),
            log: vec![],
            fail_every: 0,
        }
    }

    fn view(&self) -> CacheView {
        let dirty = self.cache.values().filter(|d| **d).count() as u64;
        CacheView {
            capacity_bytes: self.capacity,
            used_bytes: self.cache.len() as u64 * u64::from(LEN),
            dirty_bytes: dirty * u64::from(LEN),
            high_watermark: 0.8,
            low_watermark: 0.6,
            max_dirty_age: Nanos::from_secs(120),
        }
    }

    fn event(&mut self, event: Event) {
        let mut out = vec![];
        self.policy
            .on_event(self.now, &event, &self.view(), &mut out);
        self.act(out);
    }

    fn tick(&mut self) {
        let mut out = vec![];
        self.policy.tick(self.now, &self.view(), &mut out);
        self.act(out);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for Action { kind, id, .. } in actions {
            self.log.push((kind, id.file.0));
            if self.fail_every > 0 && self.log.len().is_multiple_of(self.fail_every) {
                self.event(Event::Failed { id, action: kind });
                continue;
            }
            match kind {
                Promote => {
                    assert_eq!(self.cache.insert(id, false), None, "promoted a resident");
                    self.event(Event::Promoted { id, len: LEN });
                }
                Flush => {
                    // Deleted between the proposal and now: cancelled.
                    let Some(dirty) = self.cache.get_mut(&id) else {
                        continue;
                    };
                    assert!(std::mem::replace(dirty, false), "flushed a clean object");
                    self.event(Event::Flushed { id });
                }
                Evict => {
                    assert_eq!(
                        self.cache.remove(&id),
                        Some(false),
                        "evicted what is not clean"
                    );
                    self.event(Event::Evicted { id });
                }
            }
            assert!(
                self.cache.len() as u64 * u64::from(LEN) <= self.capacity,
                "over capacity"
            );
        }
    }

    fn read(&mut self, file: u64) {
        let served = if self.cache.contains_key(&id(file)) {
            Tier::Cache
        } else {
            Tier::Backing
        };
        self.event(Event::Read {
            id: id(file),
            offset: 0,
            len: LEN,
            object_len: LEN,
            served,
        });
    }

    fn write(&mut self, file: u64) {
        self.delete(file);
        let placed = self
            .policy
            .place_write(self.now, id(file), LEN, &self.view());
        if placed == Tier::Cache {
            self.cache.insert(id(file), true);
        }
        self.event(Event::Written {
            id: id(file),
            len: LEN,
            placed,
        });
    }

    fn delete(&mut self, file: u64) {
        self.cache.remove(&id(file));
        self.event(Event::Deleted {
            file: FileId(file),
            objects: 1,
        });
    }
}

#[test]
fn none_keeps_nothing_and_empties_a_cache_left_over() {
    let mut m = Model::new("none", 10);
    m.write(1);
    m.read(1);
    m.read(1);
    assert!(m.log.is_empty());
    m.cache.insert(id(2), true);
    m.event(Event::Restored {
        id: id(2),
        len: LEN,
        dirty: true,
    });
    assert_eq!(m.log, [(Flush, 2), (Evict, 2)]);
}

#[test]
fn lru_promotes_on_first_read_and_evicts_the_least_recent() {
    let mut m = Model::new("lru", 10);
    (1..=8).for_each(|f| m.read(f));
    assert_eq!(m.log, (1..=8).map(|f| (Promote, f)).collect::<Vec<_>>());
    m.read(1);
    m.event(Event::Revalidated {
        file: FileId(2),
        objects: 1,
        len: 100,
    });
    m.log.clear();
    m.read(9);
    assert_eq!(m.log, [(Promote, 9), (Evict, 3), (Evict, 4), (Evict, 5)]);
}

#[test]
fn recency_promotes_on_the_second_read_of_a_period() {
    let mut m = Model::new("recency", 10);
    m.read(1);
    m.now = Nanos::from_secs(1200);
    m.read(1);
    assert!(m.log.is_empty(), "a new period has begun");
    m.read(1);
    assert_eq!(m.log, [(Promote, 1)]);
}

#[test]
fn cost_benefit_promotes_when_the_second_pass_has_paid_more_than_the_move() {
    let mut m = Model::new("cost-benefit", 10);
    m.read(1);
    assert!(m.log.is_empty(), "one pass never promotes");
    m.now = Nanos::from_secs(600);
    m.read(1);
    assert_eq!(m.log, [(Promote, 1)]);
}

#[test]
fn a_promotion_waits_until_the_backing_device_has_caught_up() {
    let mut m = Model::new("cost-benefit", 10);
    m.read(1);
    // Two writes past the cache and a read take 11.5 ms each, and a little for their bytes.
    for file in [2, 3] {
        m.event(Event::Written {
            id: id(file),
            len: LEN,
            placed: Tier::Backing,
        });
    }
    m.read(1);
    m.now = Nanos::from_millis(14);
    m.read(1);
    assert!(m.log.is_empty(), "more than 20 ms are ahead of it");
    m.now = Nanos::from_millis(40);
    m.read(1);
    assert_eq!(m.log, [(Promote, 1)]);
}

/// Reads of so many files, four of each at once, behind five others: the disk is behind, and no promotion is due yet.
fn after_a_burst(files: std::ops::RangeInclusive<u64>) -> Model {
    let mut m = Model::new("cost-benefit", 1000);
    (1000..1005).for_each(|f| m.read(f));
    for file in files {
        (0..4).for_each(|_| m.read(file));
    }
    assert!(m.log.is_empty());
    m
}

#[test]
fn after_a_burst_of_reads_a_promotion_comes_in_the_silence() {
    let mut m = after_a_burst(1..=1);
    // Nine reads of 11.5 ms each.
    m.now = Nanos::from_millis(80);
    m.tick();
    assert!(m.log.is_empty(), "more than 20 ms are ahead of it");
    m.now = Nanos::from_millis(90);
    m.tick();
    assert_eq!(m.log, [(Promote, 1)]);
    m.now = Nanos::from_secs(1);
    m.tick();
    assert_eq!(m.log.len(), 1);
}

#[test]
fn what_waits_comes_one_after_the_other_and_the_newest_first() {
    let mut m = after_a_burst(1..=5);
    m.now = Nanos::from_secs(1);
    m.tick();
    assert_eq!(m.log, [(Promote, 5), (Promote, 4)], "then 23 ms are ahead");
    // Any event will do.
    m.now = m.now.plus(Nanos::from_millis(5));
    m.event(Event::Revalidated {
        file: FileId(1000),
        objects: 1,
        len: 100,
    });
    assert_eq!(m.log[2..], [(Promote, 3)]);
}

#[test]
fn what_is_deleted_or_written_while_it_waits_is_not_promoted() {
    let mut m = after_a_burst(1..=3);
    m.delete(1);
    m.write(3);
    m.now = Nanos::from_secs(1);
    m.tick();
    assert_eq!(m.log, [(Promote, 2)]);
}

#[test]
fn what_waits_for_long_must_promise_more_than_what_was_just_read() {
    let mut m = after_a_burst(1..=1);
    m.now = Nanos::from_secs(3600);
    m.tick();
    assert!(m.log.is_empty());
    m.read(1);
    assert_eq!(m.log, [(Promote, 1)]);
}

#[test]
fn a_device_that_never_has_a_pause_is_not_waited_for() {
    let config = CostBenefitConfig {
        margin: 0.0,
        ..Default::default()
    };
    let mut m = Model::with(&PolicyConfig::CostBenefit(config), 10);
    // Reads of 11.5 ms, one every 11 ms, each of something else: more than the device can do.
    let mut others = 100..;
    let mut busy = |m: &mut Model, reads| {
        for file in others.by_ref().take(reads) {
            m.now = m.now.plus(Nanos::from_millis(11));
            m.read(file);
        }
    };
    busy(&mut m, 1_000);
    for _ in 0..3 {
        m.read(1);
    }
    assert!(m.log.is_empty(), "it has been busy for 11 s only");
    busy(&mut m, 8_000);
    assert_eq!(m.log, [(Promote, 1)]);
}

#[test]
fn on_a_busy_disk_a_promotion_must_promise_more() {
    let promotes = |busy_weight| {
        let config = CostBenefitConfig {
            busy_weight,
            ..Default::default()
        };
        let mut m = Model::with(&PolicyConfig::CostBenefit(config), 10);
        // Reads of 11.5 ms, one every 12 ms, each of something else: the disk is busy, and nothing waits.
        for file in 100..10_100 {
            m.now = m.now.plus(Nanos::from_millis(12));
            m.read(file);
        }
        for _ in 0..2 {
            m.now = m.now.plus(Nanos::from_millis(12));
            m.read(1);
        }
        m.log == [(Promote, 1)]
    };
    assert!(promotes(0.0));
    assert!(!promotes(1.0));
}

#[test]
fn of_equal_heat_cost_benefit_keeps_the_small_ones() {
    let mut policy = build(&PolicyConfig::default());
    let mut view = Model::new("none", 10).view();
    let mut out = vec![];
    for (file, len) in [(1, 400), (2, 40), (3, 300)] {
        let id = id(file);
        policy.on_event(
            Nanos(0),
            &Event::Restored {
                id,
                len,
                dirty: false,
            },
            &view,
            &mut out,
        );
        let (offset, served, object_len) = (0, Tier::Cache, len);
        let len = 1;
        policy.on_event(
            Nanos(0),
            &Event::Read {
                id,
                offset,
                len,
                object_len,
                served,
            },
            &view,
            &mut out,
        );
    }
    view.used_bytes = 900;
    policy.tick(Nanos(0), &view, &mut out);
    let gone: Vec<_> = out.iter().map(|a| (a.kind, a.id.file.0)).collect();
    assert_eq!(gone, [(Evict, 1)]);
}

#[test]
fn what_dies_young_is_never_flushed() {
    for name in ["lru", "recency", "cost-benefit"] {
        let mut m = Model::new(name, 10);
        m.write(1);
        m.write(2);
        m.now = Nanos(Nanos::from_secs(120).0 - 1);
        m.tick();
        assert!(m.log.is_empty(), "{name}");
        m.delete(1);
        m.now = Nanos::from_secs(120);
        m.tick();
        assert_eq!(m.log, [(Flush, 2)], "{name}");
    }
}

#[test]
fn a_file_is_flushed_as_one_run_in_order() {
    let mut policy = build(&PolicyConfig::default());
    let view = Model::new("none", 100).view();
    let mut out = vec![];
    for (file, index) in [(2, 1), (1, 0), (2, 0)] {
        let id = ObjectId::new(FileId(file), index);
        policy.on_event(
            Nanos(0),
            &Event::Written {
                id,
                len: LEN,
                placed: Tier::Cache,
            },
            &view,
            &mut out,
        );
    }
    policy.tick(Nanos::from_secs(120), &view, &mut out);
    let order: Vec<_> = out.iter().map(|a| (a.id.file.0, a.id.index)).collect();
    assert_eq!(order, [(1, 0), (2, 0), (2, 1)]);
}

#[test]
fn a_failed_flush_waits_before_it_is_tried_again() {
    let mut m = Model::new("lru", 10);
    m.fail_every = 1;
    m.write(1);
    for (second, tries) in [(119, 0), (120, 1), (129, 1), (130, 2)] {
        m.now = Nanos::from_secs(second);
        m.tick();
        assert_eq!(m.log.len(), tries, "at {second} s");
    }
}

#[test]
fn a_full_cache_sends_writes_to_the_backing_tier() {
    let mut m = Model::new("recency", 10);
    let mut view = m.view();
    let mut placed = |used_bytes, len| {
        view.used_bytes = used_bytes;
        m.policy.place_write(Nanos(0), id(1), len, &view)
    };
    assert_eq!(placed(900, 100), Tier::Cache);
    assert_eq!(placed(901, 100), Tier::Backing);
    assert_eq!(placed(1001, 1), Tier::Backing);
}

#[test]
fn cost_benefit_leaves_as_much_room_to_small_objects_as_they_lately_took() {
    let mut m = Model::new("cost-benefit", 10);
    let mut view = m.view();
    let mut placed = |second, used_bytes, len| {
        view.used_bytes = used_bytes;
        m.policy
            .place_write(Nanos::from_secs(second), id(1), len, &view)
    };
    // None came, none is expected.
    assert_eq!(placed(0, 900, 100), Tier::Cache);
    for _ in 0..5 {
        assert_eq!(placed(0, 988, 12), Tier::Cache);
    }
    assert_eq!(placed(0, 840, 100), Tier::Cache);
    assert_eq!(placed(0, 841, 100), Tier::Backing);
    // Half a minute later it is half as much. What is not much larger than they are leaves nothing.
    assert_eq!(placed(30, 870, 100), Tier::Cache);
    assert_eq!(placed(30, 871, 100), Tier::Backing);
    assert_eq!(placed(30, 937, 63), Tier::Cache);
    // At most half of the room is left, and never more than there is is taken.
    (0..100).for_each(|_| _ = placed(30, 988, 12));
    assert_eq!(placed(30, 800, 100), Tier::Cache);
    assert_eq!(placed(30, 801, 100), Tier::Backing);
    assert_eq!(placed(30, 1000, 1), Tier::Backing);
}

fn run(name: &str, steps: &[(u8, u64, u64)], fail_every: usize) -> Vec<(crate::ActionKind, u64)> {
    let mut m = Model::new(name, 10);
    m.fail_every = fail_every;
    for &(step, file, wait) in steps {
        m.now = m.now.plus(Nanos::from_secs(wait));
        match step {
            0..=3 => m.read(file),
            4..=5 => m.write(file),
            6 => m.delete(file),
            7 => m.event(Event::Revalidated {
                file: FileId(file),
                objects: 1,
                len: 100,
            }),
            _ => m.tick(),
        }
    }
    m.log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plans_fit_spare_dirty_data_and_repeat(
        steps in prop::collection::vec((0u8..9, 1u64..20, 0u64..60), 0..200),
        fail_every in 0usize..5,
    ) {
        for name in PolicyConfig::NAMES {
            prop_assert_eq!(run(name, &steps, fail_every), run(name, &steps, fail_every));
        }
    }
}

#[test]
fn other_parameters_change_decisions_and_keep_what_was_seen() {
    let strict = CostBenefitConfig {
        theta: 1000.0,
        margin: 0.0,
        ..Default::default()
    };
    let easy = CostBenefitConfig {
        theta: 3.0,
        ..strict.clone()
    };
    let promotes = |reads: usize| {
        let mut m = Model::new("none", 10);
        m.policy = build(&PolicyConfig::CostBenefit(strict.clone()));
        (0..reads).for_each(|_| m.read(1));
        assert!(m.log.is_empty());
        let remembered = m.policy.plan().remembered;
        assert!(m.policy.configure(&PolicyConfig::CostBenefit(easy.clone())));
        assert_eq!(m.policy.plan().remembered, remembered);
        m.read(1);
        m.now = Nanos::from_secs(1);
        m.tick();
        m.log == [(Promote, 1)]
    };
    // Four passes cost more than three.
    assert!(!promotes(2));
    assert!(promotes(3));
}

#[test]
fn every_policy_takes_every_value_of_its_own_parameters_and_no_other_policy() {
    for name in PolicyConfig::NAMES {
        for row in PARAMETERS.iter().filter(|p| p.policy == *name) {
            for value in [row.min, row.max, row.default] {
                let mut m = Model::new(name, 10);
                (1..=20).for_each(|f| m.read(f % 12));
                m.write(30);
                let before = m.policy.plan();
                let mut config = PolicyConfig::from_name(name).unwrap();
                config.set(row.name, value);
                let kept = m.policy.configure(&config);
                let resets = row.name == "as_libcachesim" && value != row.default;
                assert_eq!(kept, !resets, "{row:?}");
                assert_eq!(m.policy.plan(), before, "{row:?}");
                (1..=40).for_each(|f| m.read(f % 15));
                m.delete(30);
                m.tick();
            }
        }
        let other = match *name {
            "lru" => "fifo",
            _ => "lru",
        };
        let mut policy = build(&PolicyConfig::from_name(name).unwrap());
        assert!(!policy.configure(&PolicyConfig::from_name(other).unwrap()));
        assert!(policy.configure(&PolicyConfig::from_name(name).unwrap()));
    }
}
