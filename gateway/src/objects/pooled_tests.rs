//! Reads from pools that are damaged, or away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use tiering::{FileId, ObjectId, Tier};

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
