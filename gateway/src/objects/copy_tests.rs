//! A copy of a version inside the pools: by the OSDs, and through this process where they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tiering::FileId;

use super::cache::ObjectCache;
use super::options::{CacheOptions, Capacity, IoContext};
use super::pools::Pools;
use super::test_pools::{FaultyPools, MemoryPools};
use crate::metrics::Metrics;
use crate::recorder::Recorder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_osds_refuse_to_copy_the_bytes_are_carried() {
    let dir = tempfile::tempdir().unwrap();
    let tree = || Arc::new(tempfile::tempfile_in(dir.path()).unwrap());
    let pools = Arc::new(FaultyPools::new(Arc::new(MemoryPools::default())));
    let options = CacheOptions {
        pools: Some(Arc::clone(&pools) as Arc<dyn Pools>),
        object_bytes: 64,
        capacity: Capacity::Bytes(500),
        ..CacheOptions::uncached()
    };
    let metrics = Arc::new(Metrics::new());
    let cache = ObjectCache::open(options, Recorder::disabled(), metrics).unwrap();
    let data: Vec<u8> = (0..1000).map(|i| (i * 7 % 251) as u8).collect();
    let io = IoContext::default();

    // More than the cache takes: some objects are in either pool.
    let mut staging = cache.stage(FileId(1), tree(), io);
    staging.write(Bytes::from(data.clone())).await.unwrap();
    staging.finish().await.unwrap().publish();

    for (copy, refused) in [(FileId(2), false), (FileId(3), true)] {
        pools.copies_refused.store(refused, Ordering::Relaxed);
        let old = cache.pooled_reader(FileId(1), 1000, io);
        let staging = cache.stage_from(&old, copy, tree(), io).await.unwrap();
        staging.finish().await.unwrap().publish();
        let reader = cache.pooled_reader(copy, 1000, io);
        let mut read = Vec::new();
        while read.len() < data.len() {
            read.extend(reader.read(read.len() as u64, 1000).await.unwrap().0);
        }
        assert_eq!(read, data, "copies refused: {refused}");
    }
    assert!(cache.status().used_bytes <= 500);
}
