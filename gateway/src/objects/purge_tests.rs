//! Which pools are asked to remove a version that is gone, and what waits when too many are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tiering::{FileId, ObjectId, Tier};

use super::cache::ObjectCache;
use super::error::CacheError;
use super::not_moved::NotMoved;
use super::options::{CacheOptions, Capacity, IoContext};
use super::pools::{ObjectInfo, Pools};
use super::purge::Extent;
use super::test_pools::MemoryPools;
use super::tests::Nothing;
use crate::metrics::Metrics;
use crate::recorder::Recorder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_pool_is_left_alone_only_if_no_flush_ever_began() {
    let dir = tempfile::tempdir().unwrap();
    let tree = || Arc::new(tempfile::tempfile_in(dir.path()).unwrap());
    for (file, flush_began) in [(FileId(1), false), (FileId(2), true)] {
        let pools: Arc<dyn Pools> = Arc::new(MemoryPools::default());
        let options = CacheOptions {
            pools: Some(Arc::clone(&pools)),
            object_bytes: 64,
            capacity: Capacity::Bytes(500),
            ..CacheOptions::uncached()
        };
        let cache =
            ObjectCache::open(options, Recorder::disabled(), Arc::new(Metrics::new())).unwrap();
        let id = ObjectId::new(file, 0);
        let mut staging = cache.stage(file, tree(), IoContext::default());
        staging.write(Bytes::from_static(b"new")).await.unwrap();
        staging.finish().await.unwrap().publish();
        let info = ObjectInfo {
            len: 3,
            crc: 0,
            object_bytes: 64,
        };
        // What a flush that failed halfway may leave.
        let bytes = vec![Bytes::from_static(b"new")];
        let left = pools.write(Tier::Backing, id, bytes, info, false);
        left.await.unwrap();
        if flush_began {
            cache.begin_flush(id).unwrap();
            let _ = cache.end_flush(id, Err(NotMoved::Failed("no answer".into())), false);
        }
        cache.purge(file, Extent::Whole(3));
        // There is no tree here whose placeholder could go.
        let _ = cache.purge_queued().await;
        assert!(pools.info(Tier::Cache, id).await.is_err());
        let asked = pools.info(Tier::Backing, id).await.is_err();
        assert_eq!(asked, flush_began);
    }
}

/// A cache over pools in memory, with so many versions waiting for their removal.
fn waiting(versions: u64) -> Arc<ObjectCache> {
    let pools: Arc<dyn Pools> = Arc::new(MemoryPools::default());
    let options = CacheOptions {
        pools: Some(pools),
        ..CacheOptions::uncached()
    };
    let metrics = Arc::new(Metrics::new());
    let cache = ObjectCache::open(options, Recorder::disabled(), metrics).unwrap();
    for file in 1..=versions {
        cache.purge(FileId(file), Extent::Whole(3));
    }
    cache
}

#[tokio::test]
async fn an_upload_waits_when_65536_versions_are_to_be_removed_and_goes_on_when_one_is() {
    let cache = waiting(65_535);
    assert!(cache.turn_to_upload().now_or_never().unwrap().is_ok());
    cache.purge(FileId(65_536), Extent::Whole(3));
    let mut first = Box::pin(cache.turn_to_upload());
    let mut second = Box::pin(cache.turn_to_upload());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());

    cache.attach_backing(Arc::new(Nothing));
    cache.purge(FileId(65_537), Extent::Whole(3));
    // One of 65 537 goes: one turn.
    assert_eq!(cache.purge_next().await, 65_536);
    assert!((&mut first).now_or_never().unwrap().is_ok());
    assert!((&mut second).now_or_never().is_none());
    // Few enough: everybody's.
    assert_eq!(cache.purge_next().await, 65_535);
    assert!((&mut second).now_or_never().unwrap().is_ok());
    assert!(cache.turn_to_upload().now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_waits_in_vain_is_told_to_come_back() {
    let cache = waiting(65_536);
    let turn = cache.turn_to_upload().await;
    assert!(matches!(turn, Err(CacheError::Behind { waiting: 65_536 })));
}
