//! Where a cache tier would only write everything twice, content goes past it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::tests::{Fixture, crash, get, put};
use super::*;
use crate::objects::WritePolicy;

#[tokio::test]
async fn content_goes_past_the_cache_unless_the_log_carries_it() {
    use Durability::{Commit, Relaxed};
    for (durability, len, cached) in [
        (Relaxed, 1, false),
        (Relaxed, (1 << 20) + 1, false),
        (Commit, 64 << 10, true),
        (Commit, (64 << 10) + 1, false),
        (Commit, (4 << 20) + 1, false),
    ] {
        let mut f = Fixture::new(true);
        (f.durability, f.write_policy) = (durability, WritePolicy::Around);
        let v = f.open().await;
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        put(&v, "/f", &data).await.unwrap();
        let in_tree = std::fs::read(f.root().join("f")).unwrap() == data;
        assert_eq!(in_tree, !cached, "{durability:?} {len}");
        assert!(get(&v, "/f").await.unwrap() == data);
        crash(v).await;
        let v = f.open().await;
        assert!(get(&v, "/f").await.unwrap() == data, "{durability:?} {len}");
    }
}
