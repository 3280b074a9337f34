//! What every store promises, as tests: the two stores of files, bare and with faults, and the pools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tiering::{FileId, ObjectId, Tier};

use super::dir::DirStore;
use super::io::Faults;
use super::pools::{ObjectInfo, PoolError, Pools};
use super::store::{Mark, ObjectStore, StoreError, Stored, read_verified};
use super::test_pools::MemoryPools;
use super::tree::TreeStore;

const OBJECT: u32 = 64;
const ENOSPC: i32 = 28;

fn object(index: u32, data: &[u8]) -> Stored {
    Stored {
        id: ObjectId::new(FileId(0xabcd), index),
        len: data.len() as u32,
        crc: crc32c::crc32c(data),
        mark: Mark::Dirty,
    }
}

fn data(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(13) ^ seed)
        .collect()
}

/// The last object may be short; those before it are whole. `prefix`: bytes written before a write fails.
fn suite(store: &dyn ObjectStore, faults: &Faults, last: usize, prefix: u64) {
    let full = data(1, OBJECT as usize);
    let (first, end) = (object(0, &full), object(1, &data(2, last)));
    let mut buf = [0; 8];
    let absent = store.read_at(&first, 0, &mut buf);
    assert!(
        matches!(absent, Err(StoreError::NotFound { .. })),
        "{absent:?}"
    );

    // A failed put, at whatever byte, can be repeated and then holds.
    for (object, bytes) in [(&first, &full), (&end, &data(2, last))] {
        faults.fail_write_at(prefix.min(bytes.len().saturating_sub(1) as u64), ENOSPC);
        if !bytes.is_empty() {
            let full = store.put(object, bytes, true);
            assert!(matches!(full, Err(StoreError::NoSpace { .. })), "{full:?}");
        }
        faults.clear();
        faults.fail_syncs(5);
        let unsynced = store.put(object, bytes, true);
        assert!(
            matches!(unsynced, Err(StoreError::Io { .. })),
            "{unsynced:?}"
        );
        faults.clear();
        store.put(object, bytes, true).unwrap();
        store.put(object, bytes, false).unwrap();
        assert_eq!(&read_verified(store, object).unwrap(), bytes);
    }

    // Any part, never more.
    for (from, len) in [(0, 0), (0, 8), (3, 5), (OBJECT - 1, 1), (OBJECT - 8, 8)] {
        let mut buf = vec![0xee; len];
        store.read_at(&first, from, &mut buf).unwrap();
        assert_eq!(buf, full[from as usize..][..len]);
    }
    let mut past = vec![0; 16];
    let beyond = store.read_at(&end, last as u32, &mut past);
    let padded = matches!(
        beyond,
        Err(StoreError::Truncated { .. } | StoreError::NotFound { .. })
    );
    assert!(padded, "never padded: {beyond:?}");

    faults.fail_reads(5);
    let broken = store.read_at(&first, 0, &mut buf);
    assert!(matches!(broken, Err(StoreError::Io { .. })), "{broken:?}");
    faults.clear();
    let other = Stored {
        crc: first.crc ^ 1,
        ..first
    };
    // A name that says another checksum is another object (`dir`), or damage (`tree`).
    let wrong = read_verified(store, &other);
    assert!(
        matches!(
            wrong,
            Err(StoreError::Damaged { .. } | StoreError::NotFound { .. })
        ),
        "{wrong:?}"
    );
}

proptest! {
    #[test]
    fn a_directory_of_objects_keeps_the_contract(last in 0usize..64, prefix in 0u64..64) {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let store = DirStore::open(dir.path(), faults.clone()).unwrap();
        suite(&store, &faults, last, prefix);
    }

    #[test]
    fn a_plain_file_keeps_the_contract(last in 1usize..64, prefix in 0u64..64) {
        let faults = Faults::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let store = TreeStore::new(file, OBJECT, faults.clone());
        suite(&store, &faults, last, prefix);
    }
}

/// What pools promise.
async fn pools_suite(pools: &dyn Pools) {
    let id = |index| ObjectId::new(FileId(0xabcd), index);
    let bytes = Bytes::from(data(3, 50_000));
    let info = ObjectInfo {
        len: 50_000,
        crc: crc32c::crc32c(&bytes),
        object_bytes: 64 << 10,
    };
    for tier in [Tier::Cache, Tier::Backing] {
        let absent = pools.read(tier, id(0), 0, 10).await;
        assert!(matches!(absent, Err(PoolError::NotFound)), "{absent:?}");
        assert!(matches!(
            pools.info(tier, id(0)).await,
            Err(PoolError::NotFound)
        ));
        assert!(!pools.remove(tier, id(0)).await.unwrap());

        // In parts, whole; again; then shorter: nothing of the longer one is left.
        let parts = vec![
            bytes.slice(..7),
            bytes.slice(7..30_000),
            bytes.slice(30_000..),
        ];
        pools.write(tier, id(0), parts, info, false).await.unwrap();
        assert_eq!(
            pools.read(tier, id(0), 0, 50_000).await.unwrap(),
            (bytes.clone(), info)
        );
        assert_eq!(
            pools.read(tier, id(0), 100, 20).await.unwrap().0,
            bytes[100..120]
        );
        assert_eq!(
            pools.read(tier, id(0), 49_990, 100).await.unwrap().0.len(),
            10,
            "never padded"
        );
        assert_eq!(pools.info(tier, id(0)).await.unwrap(), (info, false));
        let short = ObjectInfo {
            len: 3,
            crc: crc32c::crc32c(&bytes[..3]),
            ..info
        };
        pools
            .write(tier, id(0), vec![bytes.slice(..3)], short, false)
            .await
            .unwrap();
        assert_eq!(
            pools.read(tier, id(0), 0, 50_000).await.unwrap(),
            (bytes.slice(..3), short)
        );
        pools
            .write(
                tier,
                id(1),
                vec![],
                ObjectInfo {
                    len: 0,
                    crc: 0,
                    ..info
                },
                false,
            )
            .await
            .unwrap();
        let mut listed = pools.list(tier).unwrap().objects;
        listed.sort_unstable();
        assert_eq!(listed, [id(0), id(1)]);
        assert!(pools.remove(tier, id(1)).await.unwrap());
        // New objects: the pools find the same checksum, of what is copied as of what is lent to them.
        for len in [0, 1, 7_000, 50_000, 300_000] {
            let long = Bytes::from(bytes.repeat(len / bytes.len() + 1)).slice(..len);
            let parts = vec![long.slice(..len / 3), long.slice(len / 3..)];
            let expected = ObjectInfo {
                len: len as u32,
                crc: crc32c::crc32c(&long),
                ..info
            };
            let written = pools.write_new(tier, id(3), parts, info.object_bytes, false);
            assert_eq!(written.await.unwrap(), expected);
            let read = pools.read(tier, id(3), 0, 1 << 20).await.unwrap();
            assert_eq!(read, (long.clone(), expected));
            for (offset, want) in [(0, 1 << 20), (0, 4096), (len / 2, 5000), (len / 3, 0)] {
                let part = long.slice(offset..len.min(offset + want));
                let read = pools.read_summed(tier, id(3), offset as u32, want as u32);
                let sum = crc32c::crc32c(&part);
                assert_eq!(read.await.unwrap(), (part, sum), "{len}, {offset}, {want}");
            }
        }
        assert!(pools.remove(tier, id(3)).await.unwrap());
        for want in [0, 1] {
            let absent = pools.read_summed(tier, id(3), 0, want).await;
            assert!(matches!(absent, Err(PoolError::NotFound)), "{absent:?}");
        }
    }
    // A dropped future does not stop what was begun.
    drop(pools.write(Tier::Cache, id(2), vec![bytes.clone()], info, true));
    while pools.info(Tier::Cache, id(2)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        pools.info(Tier::Cache, id(2)).await.unwrap(),
        (info, true),
        "written clean"
    );
    pools.mark_clean(id(0)).await.unwrap();
    assert!(pools.info(Tier::Cache, id(0)).await.unwrap().1);
    for _ in 0..2 {
        pools.mark_dirty(id(0)).await.unwrap();
        assert!(!pools.info(Tier::Cache, id(0)).await.unwrap().1);
    }
    assert!(
        matches!(pools.mark_clean(id(9)).await, Err(PoolError::NotFound)),
        "marks nothing that is not there"
    );
    pools
        .copy((Tier::Cache, id(2)), (Tier::Backing, id(3)))
        .await
        .unwrap();
    assert_eq!(
        pools.read(Tier::Backing, id(3), 0, 50_000).await.unwrap(),
        (bytes, info)
    );
    assert!(
        pools
            .copy((Tier::Cache, id(8)), (Tier::Backing, id(8)))
            .await
            .is_err()
    );
    for tier in [Tier::Cache, Tier::Backing] {
        for object in pools.list(tier).unwrap().objects {
            assert!(pools.remove(tier, object).await.unwrap());
        }
    }
}

#[tokio::test]
async fn pools_in_memory_keep_the_contract() {
    pools_suite(&MemoryPools::default()).await;
}

#[cfg(feature = "rados")]
#[tokio::test(flavor = "multi_thread")]
async fn rados_pools_keep_the_contract() {
    let pools = super::test_pools::rados("contract");
    tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(pools_suite(&*pools));
    });
}
