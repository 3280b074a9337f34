//! The contract between policy and mover, seen from the mover: what the policy proposes is answered once,
//! whatever happens to the object meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tiering::policy::{LruConfig, Plan, PolicyConfig, build};
use tiering::{Action, ActionKind, CacheView, Event, FileId, Nanos, ObjectId, Policy, Tier};

use super::model_tests::{Rig, check, content};
use super::pools::Pools;
use super::test_pools::MemoryPools;

const EIO: i32 = 5;

/// What was proposed and answered.
#[derive(Default)]
struct Ledger {
    open: HashSet<(ObjectId, ActionKind)>,
    deleted: HashSet<FileId>,
    proposed: usize,
    done: usize,
    failed: usize,
    /// Answers to nothing.
    surplus: Vec<(ObjectId, ActionKind)>,
}

impl Ledger {
    fn hear(&mut self, event: &Event) {
        let (id, kind, ok) = match *event {
            Event::Promoted { id, .. } => (id, ActionKind::Promote, true),
            Event::Flushed { id } => (id, ActionKind::Flush, true),
            Event::Evicted { id } => (id, ActionKind::Evict, true),
            Event::Failed { id, action } => (id, action, false),
            // Its answers may be left out, or come late.
            Event::Deleted { file, .. } => {
                self.deleted.insert(file);
                return self.open.retain(|(id, _)| id.file != file);
            }
            _ => return,
        };
        let gone = self.deleted.contains(&id.file);
        assert!(
            !gone || !matches!(event, Event::Promoted { .. }),
            "{id} entered after its end"
        );
        if !self.open.remove(&(id, kind)) && !gone {
            self.surplus.push((id, kind));
        }
        self.done += usize::from(ok);
        self.failed += usize::from(!ok);
    }

    fn propose(&mut self, actions: &[Action]) {
        for action in actions {
            self.proposed += 1;
            assert!(self.open.insert((action.id, action.kind)), "{action:?}");
        }
    }
}

struct Counted {
    inner: Box<dyn Policy>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Policy for Counted {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn configure(&mut self, config: &PolicyConfig) -> bool {
        self.inner.configure(config)
    }
    fn place_write(&mut self, now: Nanos, id: ObjectId, len: u32, view: &CacheView) -> Tier {
        self.inner.place_write(now, id, len, view)
    }
    fn on_event(&mut self, now: Nanos, event: &Event, view: &CacheView, out: &mut Vec<Action>) {
        let from = out.len();
        self.ledger.lock().hear(event);
        self.inner.on_event(now, event, view, out);
        self.ledger.lock().propose(&out[from..]);
    }
    fn tick(&mut self, now: Nanos, view: &CacheView, out: &mut Vec<Action>) {
        let from = out.len();
        self.inner.tick(now, view, out);
        self.ledger.lock().propose(&out[from..]);
    }
    fn plan(&self) -> Plan {
        self.inner.plan()
    }
}

async fn every_action_has_one_answer(pools: Option<Arc<dyn Pools>>) {
    let plain = pools.is_none();
    let rig = Arc::new(Rig::new(pools));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    rig.cache.core.lock().policy = Box::new(Counted {
        inner: build(&PolicyConfig::Lru(LruConfig::default())),
        ledger: ledger.clone(),
    });
    let migrator = rig.cache.start_migrator(rig.trees.clone());
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..4usize {
        let rig = rig.clone();
        clients.spawn(async move {
            let mut held = Vec::new();
            for round in 0..120usize {
                // More than the cache takes, so that objects come and go; some only a moment old.
                let version = rig
                    .put(content((client * 120 + round) as u8, 10 + round * 13 % 500))
                    .await;
                held.extend(version.ok());
                if held.len() > 3 {
                    rig.forget(&held.remove(round % 3));
                }
                if round % 4 == 0 && plain {
                    rig.tree_faults.fail_syncs(EIO);
                } else {
                    rig.tree_faults.clear();
                }
                for version in &held {
                    check(&rig.reader(version), &version.data, true).await;
                }
                rig.cache.wake.notify_one();
            }
            held
        });
    }
    let held = clients.join_all().await.concat();
    rig.clear_faults();
    for _ in 0..20 {
        for version in &held {
            check(&rig.reader(version), &version.data, true).await;
        }
        rig.cache.step().await;
    }
    migrator.stop().await;
    rig.cache.step().await;
    let ledger = ledger.lock();
    let plan = rig.cache.core.lock().policy.plan();
    println!(
        "{} proposed, {} done, {} failed, {plan:?}",
        ledger.proposed, ledger.done, ledger.failed
    );
    assert!(ledger.open.is_empty(), "no answer: {:?}", ledger.open);
    assert_eq!(
        (
            plan.promotions,
            plan.flushes,
            plan.evictions,
            plan.promoting_bytes,
            plan.leaving_bytes
        ),
        (0, 0, 0, 0, 0)
    );
    // Flushes alone are begun without the policy, too: the rest of a version before one of its objects leaves.
    let unasked: Vec<_> = ledger
        .surplus
        .iter()
        .filter(|(_, kind)| *kind != ActionKind::Flush)
        .collect();
    assert!(
        unasked.is_empty(),
        "answered without a question, or twice: {unasked:?}"
    );
    assert!(ledger.done > 100, "{} done", ledger.done);
    assert!(!plain || ledger.failed > 0, "no move failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_proposed_action_is_answered_once() {
    every_action_has_one_answer(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_pools_every_proposed_action_is_answered_once() {
    every_action_has_one_answer(Some(Arc::new(MemoryPools::default()))).await;
}
