//! Which pools are asked to remove a version that is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use tiering::{FileId, ObjectId, Tier};

use super::cache::ObjectCache;
use super::options::{CacheOptions, IoContext};
use super::pools::{ObjectInfo, Pools};
use super::test_pools::MemoryPools;
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
            capacity_bytes: 500,
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
            let _ = cache.end_flush(id, Err("no answer".into()), false);
        }
        cache.purge(file, Some(3));
        // There is no tree here whose placeholder could go.
        let _ = cache.purge_queued().await;
        assert!(pools.info(Tier::Cache, id).await.is_err());
        let asked = pools.info(Tier::Backing, id).await.is_err();
        assert_eq!(asked, flush_began);
    }
}
