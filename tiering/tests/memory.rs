//! Bytes of the heap per object that a policy tracks, measured and compared with what the page says.
//!
//! One test in this binary: the counter counts everything that the process allocates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    unsafe_code
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiering::{
    Action, ActionKind, CacheView, Event, FileId, Nanos, ObjectId, Policy, PolicyConfig, Tier,
    build,
};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator unchanged; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LEN: u32 = 1 << 20;
const RESIDENTS: u64 = 5_000;

/// A cache that does what is asked at once. Its own memory is not counted: it is allocated beforehand.
struct Cache {
    policy: Box<dyn Policy>,
    used: u64,
    residents: Vec<bool>,
    actions: Vec<Action>,
    now: Nanos,
}

fn id(file: u64) -> ObjectId {
    // Spread out, as identities of files are.
    ObjectId::new(FileId(file.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20), 0)
}

impl Cache {
    fn view(&self) -> CacheView {
        CacheView {
            capacity_bytes: (RESIDENTS + 1) * u64::from(LEN),
            used_bytes: self.used * u64::from(LEN),
            dirty_bytes: 0,
            high_watermark: 1.0,
            low_watermark: 0.99,
            max_dirty_age: Nanos::from_secs(1 << 30),
        }
    }

    fn event(&mut self, event: &Event) {
        let (view, now) = (self.view(), self.now);
        self.policy.on_event(now, event, &view, &mut self.actions);
    }

    fn settle(&mut self, file_of: &dyn Fn(ObjectId) -> usize) {
        while let Some(Action { kind, id, .. }) = self.actions.pop() {
            let file = file_of(id);
            match kind {
                ActionKind::Promote => {
                    self.residents[file] = true;
                    self.used += 1;
                    self.event(&Event::Promoted { id, len: LEN });
                }
                ActionKind::Evict => {
                    self.residents[file] = false;
                    self.used -= 1;
                    self.event(&Event::Evicted { id });
                }
                ActionKind::Flush => self.event(&Event::Flushed { id }),
            }
        }
    }
}

/// Bytes per resident, and per further object remembered after many more have come by (none if there are none).
fn measure(name: &str) -> (f64, Option<f64>) {
    let files = 8 * RESIDENTS;
    let mut order: Vec<(ObjectId, usize)> = (0..files).map(|f| (id(f), f as usize)).collect();
    order.sort_unstable();
    let file_of = |id: ObjectId| order[order.binary_search_by_key(&id, |(id, _)| *id).unwrap()].1;
    assert_eq!(
        order
            .iter()
            .map(|(id, _)| *id)
            .collect::<BTreeSet<_>>()
            .len() as u64,
        files
    );
    let residents = vec![false; files as usize];
    let actions = Vec::with_capacity(4096);
    let before = IN_USE.load(Ordering::Relaxed);
    let policy = build(&PolicyConfig::from_name(name).unwrap());
    let mut cache = Cache {
        policy,
        used: 0,
        residents,
        actions,
        now: Nanos(0),
    };
    for file in 0..RESIDENTS {
        cache.residents[file as usize] = true;
        cache.used += 1;
        cache.event(&Event::Restored {
            id: id(file),
            len: LEN,
            dirty: false,
        });
        cache.settle(&file_of);
    }
    let in_use = || (IN_USE.load(Ordering::Relaxed) - before) as f64;
    let plan = cache.policy.plan();
    let per_resident = in_use() / plan.residents.max(1) as f64;
    for file in RESIDENTS..files {
        cache.now = cache.now.plus(Nanos::from_millis(10));
        // Some twice: there are policies that take notice of the second time only.
        for _ in 0..1 + file % 2 {
            let hit = cache.residents[file as usize];
            let served = if hit { Tier::Cache } else { Tier::Backing };
            cache.event(&Event::Read {
                id: id(file),
                offset: 0,
                len: LEN,
                object_len: LEN,
                served,
            });
            cache.settle(&file_of);
        }
    }
    let plan = cache.policy.plan();
    let further = plan.remembered.saturating_sub(plan.residents);
    let rest = in_use() - per_resident * plan.residents as f64;
    (
        per_resident,
        (further > RESIDENTS / 10).then(|| rest / further as f64),
    )
}

#[test]
fn the_page_says_what_an_object_costs() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tiering.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page
        .split_once("| policy | bytes per cached object |")
        .expect("the table");
    let mut wrong = Vec::new();
    for &name in PolicyConfig::NAMES.iter().filter(|n| **n != "none") {
        let (resident, ghost) = measure(name);
        let row = format!(
            "| `{name}` | {resident:.0} | {} |",
            ghost.map_or("".into(), |g| format!("{g:.0}"))
        );
        let said = rest
            .lines()
            .find(|l| l.starts_with(&format!("| `{name}` |")))
            .unwrap_or_default();
        let numbers = |row: &str| -> Vec<f64> {
            row.split('|')
                .filter_map(|c| c.trim().parse().ok())
                .collect()
        };
        let (said_numbers, now) = (numbers(said), numbers(&row));
        let near = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 0.1;
        if said_numbers.len() != now.len() || !said_numbers.iter().zip(&now).all(near) {
            wrong.push(row);
        }
    }
    assert!(
        wrong.is_empty(),
        "measured, and not what docs/tiering.md says:\n{}",
        wrong.join("\n")
    );
}
