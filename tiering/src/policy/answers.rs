//! The contract between planner and migrator: one answer per action, and wrong answers do no harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::ActionKind;
use crate::types::FileId;

const LEN: u32 = 100;
const FILES: u64 = 24;

/// A migrator that answers late, in any order, and sometimes without having been asked.
struct Late {
    policy: Box<dyn Policy>,
    /// Residents, and whether each is dirty.
    cache: BTreeMap<ObjectId, bool>,
    asked: Vec<Action>,
    deleted: BTreeSet<ObjectId>,
    now: Nanos,
}

impl Late {
    fn view(&self) -> CacheView {
        let bytes = |n: usize| n as u64 * u64::from(LEN);
        CacheView {
            capacity_bytes: bytes(10),
            used_bytes: bytes(self.cache.len()),
            dirty_bytes: bytes(self.cache.values().filter(|d| **d).count()),
            high_watermark: 0.8,
            low_watermark: 0.6,
            max_dirty_age: Nanos::from_secs(30),
        }
    }

    fn event(&mut self, event: Event) {
        let from = self.asked.len();
        let view = self.view();
        self.policy
            .on_event(self.now, &event, &view, &mut self.asked);
        let new = &self.asked[from..];
        assert!(new.is_empty() || !matches!(event, Event::Failed { .. }));
        for (at, action) in new.iter().enumerate() {
            let again = |a: &Action| a.id == action.id && a.kind == action.kind;
            let twice = new[..at].iter().any(again) || self.asked[..from].iter().any(again);
            assert!(
                !twice || self.deleted.contains(&action.id),
                "{action:?} asked twice"
            );
        }
    }

    fn answer(&mut self, at: usize, ok: bool) {
        let Action { id, kind, .. } = self.asked.swap_remove(at);
        let known = self.cache.get(&id).copied();
        let event = match (kind, known, ok) {
            (ActionKind::Promote, None, true) if !self.deleted.contains(&id) => {
                self.cache.insert(id, false);
                Event::Promoted { id, len: LEN }
            }
            (ActionKind::Flush, Some(true), true) => {
                self.cache.insert(id, false);
                Event::Flushed { id }
            }
            (ActionKind::Evict, Some(false), true) => {
                self.cache.remove(&id);
                Event::Evicted { id }
            }
            _ => Event::Failed { id, action: kind },
        };
        self.event(event);
    }

    fn step(&mut self, step: u8, file: u64, n: usize) {
        let id = ObjectId::new(FileId(file), 0);
        let action = ActionKind::ALL[n % 3];
        match step {
            0..=3 => self.event(Event::Read {
                id,
                offset: 0,
                len: LEN,
                object_len: LEN,
                served: Tier::Backing,
            }),
            4 if !self.cache.contains_key(&id) => {
                let view = self.view();
                let placed = self.policy.place_write(self.now, id, LEN, &view);
                if placed == Tier::Cache {
                    self.cache.insert(id, true);
                }
                let len = LEN;
                self.event(Event::Written { id, len, placed });
            }
            5 => {
                self.cache.remove(&id);
                self.deleted.insert(id);
                let file = id.file;
                self.event(Event::Deleted { file, objects: 1 });
            }
            6..=8 if !self.asked.is_empty() => {
                self.answer(n % self.asked.len(), !n.is_multiple_of(7))
            }
            // Nobody asked, or it was answered already.
            9 if !self.asked.iter().any(|a| a.id == id && a.kind == action) => {
                self.event(Event::Failed { id, action });
            }
            10 if self.cache.get(&id) == Some(&false) => self.event(Event::Flushed { id }),
            11 if !self.cache.contains_key(&id) => self.event(Event::Evicted { id }),
            12 => {
                self.now = self.now.plus(Nanos::from_secs(n as u64));
                let view = self.view();
                self.policy.tick(self.now, &view, &mut self.asked);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_is_pending_once_all_is_answered(
        steps in prop::collection::vec((0u8..13, 1u64..FILES, 0usize..60), 0..300),
    ) {
        for &name in PolicyConfig::NAMES {
            let policy = build(&PolicyConfig::from_name(name).unwrap());
            let mut m = Late {
                policy,
                cache: BTreeMap::new(),
                asked: vec![],
                deleted: BTreeSet::new(),
                now: Nanos(0),
            };
            for &(step, file, n) in &steps {
                m.step(step, file, n);
            }
            // An answer may ask for more (flushed, so evict); it comes to an end.
            for round in 0.. {
                prop_assert!(round < 1000, "{} never comes to rest", name);
                if m.asked.is_empty() {
                    break;
                }
                m.answer(0, true);
            }
            let plan = m.policy.plan();
            prop_assert_eq!(
                (plan.promotions, plan.flushes, plan.evictions, plan.promoting_bytes, plan.leaving_bytes),
                (0, 0, 0, 0, 0), "{}", name
            );
            for file in 1..FILES {
                m.cache.remove(&ObjectId::new(FileId(file), 0));
                m.event(Event::Deleted { file: FileId(file), objects: 1 });
            }
            prop_assert_eq!(m.policy.plan().residents, 0);
            prop_assert_eq!(m.policy.plan().leaving_bytes, 0);
        }
    }
}
