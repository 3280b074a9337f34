//! What one decision costs: a read of an object, told to a policy with a full cache, and all that follows from it.
//! `cargo bench -p tiering --bench decision`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tiering::{
    Action, ActionKind, CacheView, Event, FileId, Nanos, ObjectId, Policy, PolicyConfig, Tier,
    build,
};

const LEN: u32 = 1 << 20;
/// Objects that the cache holds, and all there are.
const SIZES: [(u64, u64); 2] = [(10_000, 40_000), (100_000, 400_000)];
/// Reads between two looks at the clock.
const BATCH: u64 = 1000;

/// A cache that does at once what is asked.
struct Cache {
    policy: Box<dyn Policy>,
    residents: Vec<bool>,
    used: u64,
    capacity: u64,
    actions: Vec<Action>,
    now: Nanos,
    draws: u64,
}

fn id(file: u64) -> ObjectId {
    ObjectId::new(FileId(file), 0)
}

impl Cache {
    fn full(name: &str, residents: u64, files: u64) -> Self {
        let mut cache = Self {
            policy: build(&PolicyConfig::from_name(name).unwrap()),
            residents: vec![false; files as usize],
            used: 0,
            capacity: residents,
            actions: Vec::new(),
            now: Nanos(0),
            draws: 0,
        };
        for file in 0..residents {
            cache.residents[file as usize] = true;
            cache.used += 1;
            let restored = Event::Restored {
                id: id(file),
                len: LEN,
                dirty: false,
            };
            cache.event(&restored);
        }
        for _ in 0..2 * files {
            cache.read();
        }
        cache
    }

    fn event(&mut self, event: &Event) {
        let view = CacheView {
            capacity_bytes: self.capacity * u64::from(LEN),
            used_bytes: self.used * u64::from(LEN),
            dirty_bytes: 0,
            high_watermark: 0.9,
            low_watermark: 0.89,
            max_dirty_age: Nanos::from_secs(120),
        };
        self.policy
            .on_event(self.now, event, &view, &mut self.actions);
        while let Some(Action { kind, id, .. }) = self.actions.pop() {
            let event = match kind {
                ActionKind::Promote => Event::Promoted { id, len: LEN },
                ActionKind::Flush => Event::Flushed { id },
                ActionKind::Evict => Event::Evicted { id },
            };
            if kind != ActionKind::Flush {
                self.residents[id.file.0 as usize] = kind == ActionKind::Promote;
                self.used = if kind == ActionKind::Promote {
                    self.used + 1
                } else {
                    self.used - 1
                };
            }
            self.event(&event);
        }
    }

    fn read(&mut self) {
        self.draws = self
            .draws
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (self.draws >> 11) as f64 / (1_u64 << 53) as f64;
        // Density as 1/sqrt(x) over the files: the first quarter gets half of the reads.
        let file =
            ((at * at * self.residents.len() as f64) as u64).min(self.residents.len() as u64 - 1);
        self.now = self.now.plus(Nanos::from_millis(1));
        let hit = self.residents[file as usize];
        let read = Event::Read {
            id: id(file),
            offset: 0,
            len: 4096,
            object_len: LEN,
            served: if hit { Tier::Cache } else { Tier::Backing },
        };
        self.event(&read);
    }
}

fn decisions(criterion: &mut Criterion) {
    for (residents, files) in SIZES {
        let mut group = criterion.benchmark_group(format!("{residents} objects cached"));
        group
            .throughput(Throughput::Elements(BATCH))
            .sample_size(20);
        for &name in PolicyConfig::NAMES {
            let mut cache = Cache::full(name, residents, files);
            group.bench_function(name, |bencher| {
                bencher.iter(|| (0..BATCH).for_each(|_| cache.read()))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
