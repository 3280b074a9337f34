//! Reads from pools that are damaged, or away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tiering::{FileId, ObjectId, Reason, Tier};

use super::cache::ObjectCache;
use super::error::CacheError;
use super::options::{CacheOptions, Capacity, IoContext, WritePolicy};
use super::pooled::FLIGHT_BYTES;
use super::pools::Pools;
use super::test_pools::{FaultyPools, MemoryPools};
use crate::metrics::Metrics;
use crate::recorder::Recorder;

const FILE: FileId = FileId(1);
/// More than the cache is given here.
const ROOM: u64 = 64 << 20;

/// A cache over pools, which has this version.
async fn with(
    pools: &Arc<FaultyPools>,
    object_bytes: u32,
    (write_policy, cache_bytes): (WritePolicy, u64),
    content: &Bytes,
) -> Arc<ObjectCache> {
    let options = CacheOptions {
        pools: Some(Arc::clone(pools) as Arc<dyn Pools>),
        object_bytes,
        capacity: Capacity::Bytes(cache_bytes),
        write_policy,
        ..CacheOptions::uncached()
    };
    let metrics = Arc::new(Metrics::new());
    let cache = ObjectCache::open(options, Recorder::disabled(), metrics).unwrap();
    let tree = Arc::new(tempfile::tempfile().unwrap());
    let mut staging = cache.stage(FILE, tree, IoContext::default());
    staging.write(content.clone()).await.unwrap();
    staging.finish().await.unwrap().publish();
    cache
}

async fn read_all(cache: &Arc<ObjectCache>, len: usize) -> Result<Vec<u8>, CacheError> {
    let reader = cache.pooled_reader(FILE, len as u64, IoContext::default());
    reader.announce(len as u64);
    let mut all = Vec::new();
    while all.len() < len {
        all.extend(reader.read(all.len() as u64, 200_000).await?.0);
    }
    Ok(all)
}

fn pools() -> Arc<FaultyPools> {
    Arc::new(FaultyPools::new(Arc::new(MemoryPools::default())))
}

/// Writes other bytes of the same length into an object, whose attribute stays.
async fn damage(pools: &FaultyPools, tier: Tier, id: ObjectId) {
    let ((bytes, _), (info, clean)) = (
        pools.read(tier, id, 0, u32::MAX).await.unwrap(),
        pools.info(tier, id).await.unwrap(),
    );
    let mut bytes = bytes.to_vec();
    bytes[7] ^= 1;
    let wrong = vec![Bytes::from(bytes)];
    pools.write(tier, id, wrong, info, clean).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_read_in_parts_for_lack_of_room_is_checked_as_a_whole() {
    let content = Bytes::from(
        (0..5_000_000u32)
            .map(|n| (n >> 7) as u8)
            .collect::<Vec<_>>(),
    );
    let len = content.len();
    let middle = ObjectId::new(FILE, 1);
    for (policy, tier) in [
        ((WritePolicy::Back, 0), Tier::Backing),
        ((WritePolicy::Back, ROOM), Tier::Cache),
        ((WritePolicy::Through, ROOM), Tier::Cache),
    ] {
        let pools = pools();
        let cache = with(&pools, 2 << 20, policy, &content).await;
        // Others have all the room.
        let taken = cache.try_flight(FLIGHT_BYTES as u32);
        assert!(taken.is_some());
        assert_eq!(read_all(&cache, len).await.unwrap(), content);
        damage(&pools, tier, middle).await;
        let read = read_all(&cache, len).await;
        assert!(matches!(read, Err(CacheError::Damaged { id }) if id == middle));
        // A good twin serves the next reader.
        let again = read_all(&cache, len).await;
        assert_eq!(again.is_ok(), policy.0 == WritePolicy::Through);
        assert!(again.is_err() || again.unwrap() == content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_pool_that_does_not_answer_is_waited_for_once_where_the_data_pool_has_the_same() {
    let content = Bytes::from((0..320).map(|n| n as u8).collect::<Vec<_>>());
    let pools = pools();
    let cache = with(&pools, 64, (WritePolicy::Back, ROOM), &content).await;
    let flushed = Arc::clone(&cache);
    let flush = move || {
        let all = [0, 1, 2, 3, 4].map(|index| (index, Reason::SameRun));
        flushed.flush_pooled(FILE, &all).moved
    };
    assert_eq!(tokio::task::spawn_blocking(flush).await.unwrap(), 5);
    let asked = || pools.cache_asked.swap(0, Ordering::Relaxed);
    let away = |away| pools.cache_away.store(away, Ordering::Relaxed);
    asked();
    away(true);
    let reader = cache.pooled_reader(FILE, 320, IoContext::default());
    for at in (0..320).step_by(64) {
        let (read, tier) = reader.read(at as u64, 64).await.unwrap();
        assert_eq!((&read[..], tier), (&content[at..at + 64], Tier::Backing));
    }
    assert_eq!(asked(), 1);
    let tree = Arc::new(tempfile::tempfile().unwrap());
    let copy = cache.stage_from(&reader, FileId(2), tree, IoContext::default());
    copy.await.unwrap().finish().await.unwrap().publish();
    assert_eq!(asked(), 0);

    // What the data pool has lost is looked for where it should be.
    away(false);
    let first = ObjectId::new(FILE, 0);
    pools.remove(Tier::Backing, first).await.unwrap();
    assert_eq!(reader.read(0, 64).await.unwrap().1, Tier::Cache);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_object_that_an_unanswered_eviction_removed_is_no_damage() {
    let content = Bytes::from_static(&[7; 128]);
    let pools = pools();
    let cache = with(&pools, 64, (WritePolicy::Through, ROOM), &content).await;
    let second = ObjectId::new(FILE, 1);
    pools.remove(Tier::Cache, second).await.unwrap();
    for _ in 0..2 {
        assert_eq!(read_all(&cache, 128).await.unwrap(), content);
    }
    assert_eq!(cache.status().damage_found, 0);
    assert!(cache.lookup(second).is_none());
    // Without the data pool's, too, it is lost.
    pools.remove(Tier::Backing, second).await.unwrap();
    assert!(read_all(&cache, 128).await.is_err());
    assert_eq!(cache.status().damage_found, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_holds_of_writes_that_timed_out_takes_room_until_it_lets_go() {
    let pools = pools();
    let small = Bytes::from_static(b"small");
    let cache = with(&pools, 1 << 20, (WritePolicy::Back, ROOM), &small).await;
    assert_eq!(cache.free_flight_bytes(), FLIGHT_BYTES);
    *pools.hanging.lock() = Some(Vec::new());
    let tree = Arc::new(tempfile::tempfile().unwrap());
    let mut staging = cache.stage(FileId(2), tree, IoContext::default());
    let parts = Bytes::from(vec![7; 1 << 20]);
    for at in (0..1 << 20).step_by(1 << 18) {
        let part = parts.slice(at..at + (1 << 18));
        staging.write(part).await.unwrap();
    }
    assert!(staging.finish().await.is_err());
    assert_eq!(cache.free_flight_bytes(), FLIGHT_BYTES - (1 << 20));

    // Who wants more than there is is told to come back, as soon as nobody gets anything.
    let rest = (FLIGHT_BYTES - (1 << 20)) as u32;
    let taken = cache.flight(rest).await.unwrap();
    assert!(cache.flight(1).await.is_err());
    *pools.hanging.lock() = None;
    assert!(cache.flight(1).await.unwrap().is_some());
    drop(taken);
    assert_eq!(cache.free_flight_bytes(), FLIGHT_BYTES);
}
