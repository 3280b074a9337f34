//! Uploads of what is there already: nothing is written; and of what differs anywhere: everything is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use proptest::prelude::*;

use super::tests::{Fixture, get, p, put};
use super::*;

const BIG: usize = (1 << 20) + 70_001;

/// PUT of all at once where the volume takes it, as the protocol engine does it.
async fn send(v: &Volume, path: &str, data: &[u8]) -> (Meta, bool) {
    if data.len() as u64 > v.whole_bytes_max() {
        return put(v, path, data).await.unwrap();
    }
    let data: Vec<Bytes> = data.chunks(1000).map(Bytes::copy_from_slice).collect();
    v.put_whole(&p(path), IoContext::default(), data, unchecked())
        .await
        .unwrap()
}

fn unchanged(v: &Volume) -> (u64, u64) {
    v.inner.cache.unchanged()
}

#[tokio::test]
async fn the_same_bytes_again_leave_the_resource_as_it_is() {
    for (cached, durability) in [
        (false, Durability::Commit),
        (true, Durability::Commit),
        (true, Durability::Relaxed),
    ] {
        let mut f = Fixture::new(cached);
        f.durability = durability;
        let v = f.open().await;
        for (n, len) in [1, 4096, 70_000, BIG].into_iter().enumerate() {
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let (first, created) = send(&v, "/f", &data).await;
            assert_eq!(created, n == 0);
            let before = unchanged(&v);
            let (again, created) = send(&v, "/f", &data).await;
            assert!(!created);
            assert_eq!((&again.etag, again.modified), (&first.etag, first.modified));
            assert_eq!(
                unchanged(&v),
                (before.0 + 1, before.1 + len as u64),
                "{len}"
            );
            for at in [0, len / 2, len - 1] {
                let mut other = data.clone();
                other[at] ^= 1;
                let (changed, _) = send(&v, "/f", &other).await;
                assert_ne!(changed.etag, first.etag);
                assert!(get(&v, "/f").await.unwrap() == other, "{len} {at}");
                send(&v, "/f", &data).await;
            }
            assert!(get(&v, "/f").await.unwrap() == data);
            assert_eq!(unchanged(&v).0, before.0 + 1);
        }
        v.shutdown().await.unwrap();
        drop(v);
        let v = f.open().await;
        assert_eq!(get(&v, "/f").await.unwrap().len(), BIG);
    }
}

#[tokio::test]
async fn the_same_bytes_are_a_new_version_when_another_came_between() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        let (old, other) = (vec![7; BIG], vec![8; BIG]);
        for gone in [false, true] {
            let (first, _) = send(&v, "/f", &old).await;
            let mut up = v
                .create(&p("/f"), IoContext::default(), Some(BIG as u64))
                .await
                .unwrap();
            up.write(Bytes::from(old.clone())).await.unwrap();
            assert!(matches!(up.stage, upload::Stage::Same { .. }));
            if gone {
                v.remove(&p("/f"), unchecked()).await.unwrap();
            } else {
                send(&v, "/f", &other).await;
            }
            let (meta, created) = up.commit(unchecked()).await.unwrap();
            assert_eq!(created, gone);
            assert_ne!(meta.etag, first.etag);
            assert!(get(&v, "/f").await.unwrap() == old);
        }
    }
}

#[tokio::test]
async fn a_refused_upload_of_the_same_bytes_is_refused() {
    let f = Fixture::new(true);
    let v = f.open().await;
    for len in [10, BIG] {
        let data = vec![1; len];
        send(&v, "/f", &data).await;
        let mut up = v
            .create(&p("/f"), IoContext::default(), Some(len as u64))
            .await
            .unwrap();
        up.write(Bytes::from(data.clone())).await.unwrap();
        let no = up.commit(Box::new(|_| false)).await;
        assert!(matches!(no, Err(VolumeError::PreconditionFailed { .. })));
    }
}

#[tokio::test]
async fn what_was_written_beside_the_gateway_becomes_the_gateway_s() {
    let f = Fixture::new(false);
    let v = f.open().await;
    std::fs::write(f.root().join("f"), b"beside").unwrap();
    let before = v.stat(&p("/f")).await.unwrap();
    let (after, created) = send(&v, "/f", b"beside").await;
    // Who wrote it may not have synced it: the promise of a PUT is more.
    assert!(!created && after.etag != before.etag);
    assert_eq!(unchanged(&v), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Content in pieces of any length, different from the old anywhere or nowhere.
    #[test]
    fn an_upload_in_pieces_stores_what_was_sent(
        len in 1usize..200_000,
        at in any::<proptest::sample::Index>(),
        same in any::<bool>(),
        pieces in prop::collection::vec(1usize..60_000, 1..8),
        cached in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut f = Fixture::new(cached);
            f.durability = Durability::Relaxed;
            let v = f.open().await;
            let old: Vec<u8> = (0..len).map(|i| (i % 241) as u8).collect();
            send(&v, "/f", &old).await;
            let mut new = old.clone();
            if !same {
                new[at.index(len)] ^= 0x55;
            }
            let mut up = v.create(&p("/f"), IoContext::default(), Some(len as u64)).await.unwrap();
            let (mut rest, mut sizes) = (&new[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let n = (*sizes.next().unwrap()).min(rest.len());
                up.write(Bytes::copy_from_slice(&rest[..n])).await.unwrap();
                rest = &rest[n..];
                assert_eq!(up.len(), (new.len() - rest.len()) as u64);
            }
            up.commit(unchecked()).await.unwrap();
            assert!(get(&v, "/f").await.unwrap() == new);
            assert_eq!(unchanged(&v).0, u64::from(same));
        });
    }
}

/// What was compared with the file is not what the file has by the time that it is copied from there.
#[tokio::test]
async fn what_others_change_in_place_meanwhile_gets_into_no_upload() {
    let f = Fixture::new(false);
    let v = f.open().await;
    let data: Vec<u8> = (0..BIG).map(|i| (i % 251) as u8).collect();
    let mut other = data.clone();
    other[BIG - 1] ^= 1;
    for uploaded in [&data, &other] {
        put(&v, "/f", &data).await.unwrap();
        let mut upload = v
            .create(&p("/f"), IoContext::default(), Some(BIG as u64))
            .await
            .unwrap();
        let (first, rest) = uploaded.split_at(BIG / 2);
        upload.write(Bytes::copy_from_slice(first)).await.unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(f.root().join("f"))
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"theirs", 1000).unwrap();
        let stored = async {
            upload.write(Bytes::copy_from_slice(rest)).await?;
            upload.commit(unchecked()).await
        };
        match stored.await {
            Ok(_) => assert!(get(&v, "/f").await.unwrap() == *uploaded, "a mixture"),
            Err(e) => assert!(e.is_retryable(), "{e}"),
        }
    }
}
