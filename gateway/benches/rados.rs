//! What moves and a start cost over real pools (`TIERDAV_CEPH_DIR`, see deploy/dev/ceph.sh):
//! `cargo bench -p gateway --features rados --bench rados`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use gateway::config::PoolSettings;
use gateway::metrics::Metrics;
use gateway::objects::pools::{ObjectInfo, Pools};
use gateway::objects::{CacheOptions, Capacity, ObjectCache};
use gateway::rados::RadosPools;
use gateway::recorder::Recorder;
use tiering::{FileId, ObjectId, Tier};

const COPIES: u32 = 40;
const CACHED: u64 = 100_000;

fn pools(namespace: &str) -> Arc<RadosPools> {
    let dir = std::env::var("TIERDAV_CEPH_DIR").expect("TIERDAV_CEPH_DIR");
    Arc::new(
        RadosPools::connect(
            PoolSettings {
                conf: Path::new(&dir).join("ceph.conf"),
                user: "client.tierdav".into(),
                cache_pool: Some("tierdav-cache".into()),
                data_pool: "tierdav-data".into(),
                namespace: format!("{namespace}-{}", std::process::id()),
                op_timeout: Duration::from_secs(30),
            },
            Arc::default(),
        )
        .expect("pools"),
    )
}

fn info(bytes: &Bytes) -> ObjectInfo {
    ObjectInfo {
        len: bytes.len() as u32,
        crc: crc32c::crc32c(bytes),
        object_bytes: 4 << 20,
    }
}

fn cpu_us() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec * 1_000_000 + t.tv_nsec / 1000
}

/// A flush by the OSDs (`copy_from`) against one through this process.
async fn copies(pools: &RadosPools) {
    println!(
        "| object | OSD to OSD | CPU here | through the gateway | CPU here |\n| --- | --- | --- | --- | --- |"
    );
    for size in [4096u32, 64 << 10, 1 << 20, 4 << 20] {
        let bytes = Bytes::from(vec![7u8; size as usize]);
        let id = |i| ObjectId::new(FileId(u64::from(size)), i);
        for i in 0..COPIES {
            let parts = vec![bytes.clone()];
            let written = pools.write(Tier::Cache, id(i), parts, info(&bytes), false);
            written.await.unwrap();
        }
        let mut times = [Duration::ZERO; 2];
        let mut cpu = [0; 2];
        for i in 0..COPIES {
            for (n, by_osds) in [(0, true), (1, false)] {
                let (began, cpu_began) = (Instant::now(), cpu_us());
                if by_osds {
                    let copied = pools.copy((Tier::Cache, id(i)), (Tier::Backing, id(i)));
                    copied.await.unwrap();
                } else {
                    let (read, info) = pools.read(Tier::Cache, id(i), 0, size).await.unwrap();
                    assert_eq!(crc32c::crc32c(&read), info.crc);
                    let written = pools.write(Tier::Backing, id(i), vec![read], info, false);
                    written.await.unwrap();
                }
                times[n] += began.elapsed();
                cpu[n] += cpu_us() - cpu_began;
            }
        }
        let ms = times.map(|t| t.as_secs_f64() * 1e3 / f64::from(COPIES));
        let us = cpu.map(|c| c / i64::from(COPIES));
        println!(
            "| {} KiB | {:.2} ms | {} us | {:.2} ms | {} us |",
            size >> 10,
            ms[0],
            us[0],
            ms[1],
            us[1]
        );
        for i in 0..COPIES {
            for tier in [Tier::Cache, Tier::Backing] {
                pools.remove(tier, id(i)).await.unwrap();
            }
        }
    }
}

/// How long the residency map takes at a start.
async fn start(pools: Arc<RadosPools>) {
    let bytes = Bytes::from_static(b"x");
    let ids = || {
        futures_util::stream::iter(0..CACHED)
            .map(|i| ObjectId::new(FileId(1 + i / 4), (i % 4) as u32))
    };
    let write = |id| pools.write(Tier::Cache, id, vec![bytes.clone()], info(&bytes), false);
    let mut written = ids().map(write).buffer_unordered(256);
    while let Some(done) = written.next().await {
        done.unwrap();
    }
    let options = CacheOptions {
        pools: Some(Arc::clone(&pools) as Arc<dyn Pools>),
        capacity: Capacity::Bytes(1 << 40),
        ..CacheOptions::uncached()
    };
    let metrics = Arc::new(Metrics::new());
    let began = Instant::now();
    let cache = ObjectCache::open(options, Recorder::disabled(), metrics).unwrap();
    let loading = Arc::clone(&cache);
    tokio::task::spawn_blocking(move || loading.load_pools().unwrap())
        .await
        .unwrap();
    let found = cache.status().dirty.objects;
    println!(
        "\n{found} cached objects are known {:?} after the start",
        began.elapsed()
    );
    let mut removed = ids()
        .map(|id| pools.remove(Tier::Cache, id))
        .buffer_unordered(256);
    while let Some(done) = removed.next().await {
        done.unwrap();
    }
}

#[tokio::main]
async fn main() {
    copies(&pools("bench-copies")).await;
    start(pools("bench-start")).await;
}
