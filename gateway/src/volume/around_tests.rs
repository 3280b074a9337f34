//! Where a cache tier would only write everything twice, content goes past it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::tests::{Fixture, crash, get, p, put, walk};
use super::*;
use crate::objects::WritePolicy;

#[tokio::test]
async fn content_goes_past_the_cache_unless_the_log_carries_it_there() {
    use Durability::{Commit, Relaxed};
    for (durability, journal, len, cached) in [
        (Relaxed, false, 1, false),
        (Relaxed, false, (1 << 20) + 1, false),
        (Commit, false, 64 << 10, true),
        (Commit, true, 1, false),
        (Commit, true, 64 << 10, false),
        (Commit, true, (64 << 10) + 1, false),
        (Commit, false, (64 << 10) + 1, false),
        (Commit, false, (4 << 20) + 1, false),
    ] {
        let mut f = Fixture::new(true);
        (f.durability, f.write_policy) = (durability, WritePolicy::Around);
        f.journal = journal;
        let v = f.open().await;
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        put_any(&v, "/f", &data).await;
        let in_tree = std::fs::read(f.root().join("f")).unwrap() == data;
        let case = format!("{durability:?}, journal {journal}, {len}");
        assert_eq!(in_tree, !cached, "{case}");
        assert!(get(&v, "/f").await.unwrap() == data);
        crash(v).await;
        let v = f.open().await;
        assert!(get(&v, "/f").await.unwrap() == data, "{case}");
    }
}

/// Past the cache, to a root that keeps a journal.
fn around() -> Fixture {
    let mut f = Fixture::new(true);
    (f.write_policy, f.journal) = (WritePolicy::Around, true);
    f
}

/// As PUT does it.
async fn put_any(v: &Volume, path: &str, data: &[u8]) {
    if data.len() as u64 > v.whole_bytes_max() {
        put(v, path, data).await.unwrap();
        return;
    }
    let parts = data.chunks(1000).map(Bytes::copy_from_slice).collect();
    let path = p(path);
    let put = v.put_whole(&path, IoContext::default(), parts, unchecked());
    put.await.unwrap();
}

async fn moved(v: &Volume, from: &ResourcePath, to: &ResourcePath) {
    v.rename(from, to, true, unchecked()).await.unwrap();
}

/// What a power cut makes of files that nobody synced: their names and attributes are there, of their bytes `left`.
fn tear(root: &Path, left: u64) {
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with(".tierdav") {
                tear(&path, left);
            }
            continue;
        }
        let content = std::fs::read(&path).unwrap();
        if content.starts_with(b"synced") {
            continue;
        }
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let len = content.len() as u64;
        file.set_len(left.min(len)).unwrap();
        if left > len {
            file.set_len(len).unwrap();
            file.write_all_at(&vec![0; content.len()], 0).unwrap();
        }
        file.set_modified(modified).unwrap();
    }
}

/// A power cut: the tree as it was some time ago, its latest files without bytes, with some of them, or with zeros.
#[tokio::test]
async fn what_only_the_log_has_is_whole_over_a_torn_tree_of_any_age() {
    let f = around();
    let v = f.open().await;
    put_any(&v, "/base", b"synced").await;
    v.mkcol(&p("/olddir"), unchecked()).await.unwrap();
    start::checkpoint(&v.inner).unwrap();
    let mut trees = vec![f.copy_root(0)];
    for step in 1..=10 {
        let (a, b) = (p("/a"), p("/b"));
        match step {
            1 => put_any(&v, "/a", b"first, and longer than the next").await,
            2 => moved(&v, &a, &b).await,
            3 => put_any(&v, "/a", b"second").await,
            4 => v.mkcol(&p("/d"), unchecked()).await.unwrap(),
            5 => moved(&v, &b, &p("/d/b")).await,
            6 => moved(&v, &p("/d"), &p("/olddir")).await,
            7 => put_any(&v, "/base", b"newer").await,
            8 => put_any(&v, "/olddir/c", b"third").await,
            9 => put_any(&v, "/gone", b"fourth").await,
            _ => v.remove(&p("/gone"), unchecked()).await.unwrap(),
        }
        v.inner.cleaner.finish();
        trees.push(f.copy_root(step));
    }
    let want = walk(&v).await;
    assert_eq!(want.len(), 5);
    let etag = v.stat(&p("/olddir/b")).await.unwrap().etag;
    crash(v).await;
    let kept = f.copy_cache("kept");
    for (tree, left) in trees.iter().flat_map(|tree| [(tree, 3), (tree, 99)]) {
        f.put_back(tree, &kept);
        tear(&f.root(), left);
        for _ in 0..2 {
            let v = f.open().await;
            assert_eq!(walk(&v).await, want, "{tree:?}, {left} bytes left");
            assert_eq!(v.stat(&p("/olddir/b")).await.unwrap().etag, etag);
            crash(v).await;
        }
    }
}

#[tokio::test]
async fn what_was_written_beside_the_gateway_since_is_not_overwritten() {
    let f = around();
    let hour = std::time::Duration::from_secs(3600);
    for later in [true, false] {
        let v = f.open().await;
        put_any(&v, "/a", b"by the gateway").await;
        crash(v).await;
        std::fs::write(f.root().join("a"), "beside it").unwrap();
        if !later {
            let file = std::fs::File::open(f.root().join("a")).unwrap();
            file.set_modified(SystemTime::now() - hour).unwrap();
        }
        let v = f.open().await;
        assert_eq!(get(&v, "/a").await.unwrap(), b"beside it");
        crash(v).await;
    }
}

/// What a start had begun to put back when it ended, with some of the bytes or all.
#[tokio::test]
async fn a_start_that_was_cut_short_is_followed_by_one_that_goes_on() {
    for len in [3, 14] {
        let f = around();
        let v = f.open().await;
        put_any(&v, "/a", b"by the gateway").await;
        let meta = v.stat(&p("/a")).await.unwrap();
        crash(v).await;
        let file = std::fs::File::options()
            .write(true)
            .open(f.root().join("a"));
        let file = file.unwrap();
        let begun = identity::Identity {
            mtime_ns: i64::MAX,
            ..tree::get_identity(&file).unwrap().unwrap()
        };
        tree::set_identity(&file, &begun).unwrap();
        file.set_len(len).unwrap();
        file.set_modified(SystemTime::now()).unwrap();
        let v = f.open().await;
        assert_eq!(get(&v, "/a").await.unwrap(), b"by the gateway");
        let now = v.stat(&p("/a")).await.unwrap();
        assert_eq!((now.etag, now.modified), (meta.etag, meta.modified));
    }
}

/// A power cut before the name was durable: the file is where it was prepared.
#[tokio::test]
async fn a_torn_file_without_its_name_gets_both_back() {
    let f = around();
    let v = f.open().await;
    put_any(&v, "/other", b"synced").await;
    let applied = f.applied();
    put_any(&v, "/a", b"by the gateway").await;
    let meta = v.stat(&p("/a")).await.unwrap();
    crash(v).await;
    tear(&f.root(), 3);
    let unnamed = f.root().join(format!(".tierdav/tmp/{}", meta.file_id));
    std::fs::rename(f.root().join("a"), unnamed).unwrap();
    f.say_applied(&applied);
    let v = f.open().await;
    assert_eq!(get(&v, "/a").await.unwrap(), b"by the gateway");
    assert_eq!(v.stat(&p("/a")).await.unwrap().etag, meta.etag);
}

/// Where a path may lead through a link, it does not say where a file is.
#[tokio::test]
async fn content_is_in_the_cache_where_links_are_followed() {
    let mut f = around();
    f.symlinks = Symlinks::InsideRoot;
    let v = f.open().await;
    put_any(&v, "/a", b"by the gateway").await;
    assert_eq!(v.inner.cache.dirty_files().len(), 1);
}
