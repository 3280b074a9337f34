//! What shadow policies cost: one request of the sample, told to four policies with four cache sizes each.
//! `cargo bench -p tiering --bench shadow`; the time by 16 is that of a step, of which `STEPS_PER_S_MAX` are allowed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tiering::shadow::{OBJECTS_MAX, Shadow};
use tiering::sim::{Access, Device, Request, Setup};
use tiering::{FileId, Nanos, ObjectId, PolicyConfig};

const LEN: u32 = 4 << 20;
const POLICIES: [&str; 4] = ["lru", "s3-fifo", "lru-2nd", "cost-benefit"];

fn request(turn: u64) -> Request {
    let draw = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    let skewed = (draw as f64 / (1_u64 << 53) as f64).powi(3);
    Request {
        at: Nanos::from_millis(turn * 5),
        id: ObjectId::new(FileId((skewed * OBJECTS_MAX as f64) as u64), 0),
        access: Access::Read {
            offset: 0,
            len: LEN,
            object_len: LEN,
        },
    }
}

fn shadow(c: &mut Criterion) {
    let policies = POLICIES.map(|p| PolicyConfig::from_name(p).unwrap());
    let setup = Setup {
        policy: PolicyConfig::default(),
        cache_bytes: 1000 * u64::from(LEN),
        hdd: Device::HDD,
        ssd: Device::SSD,
        high_watermark: 0.9,
        low_watermark: 0.8,
        max_dirty_age: Nanos::from_secs(120),
    };
    let mut shadow = Shadow::new(&policies, &setup);
    let mut turn = 0;
    let mut next = move || {
        turn += 1;
        shadow.note(request(turn));
    };
    (0..100_000).for_each(|_| next());
    let mut group = c.benchmark_group("shadow");
    group.throughput(Throughput::Elements(16)).sample_size(20);
    group.bench_function("one request, 16 cases", |b| b.iter(&mut next));
}

criterion_group!(benches, shadow);
criterion_main!(benches);
