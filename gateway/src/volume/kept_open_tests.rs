//! Files that are kept open between reads: nobody gets an old version, and no space is held.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tiering::{Nanos, Tier};

use super::tests::{Fixture, get, p, put};
use super::*;

/// Waits until the file's change time is old enough for it to be kept open.
fn settle(f: &Fixture, name: &str) {
    use std::os::unix::fs::MetadataExt;
    loop {
        let m = std::fs::metadata(f.root().join(name)).unwrap();
        if m.ctime() * 1_000_000_000 + m.ctime_nsec() + 60_000_000 < now_ns() {
            return;
        }
        std::thread::yield_now();
    }
}

/// Reads a file so that it is kept open, and says so.
async fn keep_open(f: &Fixture, v: &Volume, name: &str) {
    settle(f, name);
    get(v, &format!("/{name}")).await.unwrap();
    assert!(
        v.inner
            .tree
            .open_files
            .get(&p(&format!("/{name}")))
            .is_some()
    );
}

#[tokio::test]
async fn what_replaces_a_kept_open_file_is_what_is_read_next() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        for name in ["a", "b", "c", "d", "e"] {
            put(&v, &format!("/{name}"), name.as_bytes()).await.unwrap();
            keep_open(&f, &v, name).await;
        }
        put(&v, "/a", b"A").await.unwrap();
        assert_eq!(get(&v, "/a").await.unwrap(), b"A");
        v.rename(&p("/a"), &p("/b"), true, Box::new(|_| true))
            .await
            .unwrap();
        assert_eq!(get(&v, "/b").await.unwrap(), b"A");
        assert!(get(&v, "/a").await.is_err());
        v.remove(&p("/c"), Box::new(|_| true)).await.unwrap();
        assert!(get(&v, "/c").await.is_err());
        assert!(v.stat(&p("/c")).await.is_err());
        if cached {
            // Until they are flushed, these files are placeholders that nobody else writes to.
            v.shutdown().await.unwrap();
            continue;
        }
        // Beside the gateway.
        let before = v.stat(&p("/d")).await.unwrap().etag;
        std::fs::write(f.root().join("d"), b"beside").unwrap();
        assert_eq!(get(&v, "/d").await.unwrap(), b"beside");
        assert_ne!(v.stat(&p("/d")).await.unwrap().etag, before);
        std::fs::rename(f.root().join("d"), f.root().join("e")).unwrap();
        assert_eq!(get(&v, "/e").await.unwrap(), b"beside");
        assert!(get(&v, "/d").await.is_err());
        v.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_removed_file_holds_no_space() {
    let f = Fixture::new(true);
    let v = f.open().await;
    v.mkcol(&p("/dir"), Box::new(|_| true)).await.unwrap();
    for name in ["a", "dir/b", "c", "d"] {
        put(&v, &format!("/{name}"), &[7; 4096]).await.unwrap();
        keep_open(&f, &v, name).await;
    }
    v.remove(&p("/a"), Box::new(|_| true)).await.unwrap();
    v.remove(&p("/dir"), Box::new(|_| true)).await.unwrap();
    put(&v, "/c", b"new").await.unwrap();
    v.rename(&p("/d"), &p("/e"), false, Box::new(|_| true))
        .await
        .unwrap();
    v.remove(&p("/e"), Box::new(|_| true)).await.unwrap();
    v.inner.cleaner.finish();
    let root = f.root().canonicalize().unwrap();
    let held: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter(|to| to.starts_with(root.parent().unwrap()))
        .filter(|to| to.to_string_lossy().ends_with(" (deleted)"))
        .collect();
    assert_eq!(held, Vec::<std::path::PathBuf>::new());
    // What is removed beside the gateway goes with its time.
    put(&v, "/f", b"f").await.unwrap();
    keep_open(&f, &v, "f").await;
    v.inner
        .tree
        .open_files
        .close_old(Instant::now() + Duration::from_secs(60));
    assert_eq!(v.inner.tree.open_files.len(), (0, 0));
    v.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_readers_never_see_less_than_was_acknowledged() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        let acknowledged = Arc::new(AtomicU64::new(0));
        put(&v, "/k", &0u64.to_le_bytes()).await.unwrap();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (v, acknowledged) = (Arc::clone(&v), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    loop {
                        let least = acknowledged.load(Ordering::SeqCst);
                        if least == u64::MAX {
                            return;
                        }
                        let bytes = get(&v, "/k").await.unwrap();
                        let found = u64::from_le_bytes(bytes.try_into().unwrap());
                        assert!(found >= least, "{found} after {least}");
                        let etag = v.stat(&p("/k")).await.unwrap();
                        assert_eq!(etag.len, 8);
                    }
                })
            })
            .collect();
        for n in 1..400u64 {
            put(&v, "/k", &n.to_le_bytes()).await.unwrap();
            acknowledged.store(n, Ordering::SeqCst);
            if n % 50 == 0 {
                settle(&f, "k");
            }
        }
        acknowledged.store(u64::MAX, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        v.shutdown().await.unwrap();
    }
}

/// A name that someone gives a dirty file beside the gateway keeps its content.
#[tokio::test]
async fn a_further_name_of_a_dirty_file_survives_the_removal_of_the_first() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let content = vec![9u8; 300_000];
    put(&v, "/a", &content).await.unwrap();
    std::fs::hard_link(f.root().join("a"), f.root().join("b")).unwrap();
    v.remove(&p("/a"), Box::new(|_| true)).await.unwrap();
    assert_eq!(get(&v, "/b").await.unwrap(), content);
    v.inner
        .cache
        .attach_backing(Arc::clone(&v) as Arc<dyn crate::objects::Backing>);
    assert_eq!(v.inner.cache.flush_all().await.unwrap().failed, 0);
    assert_eq!(std::fs::read(f.root().join("b")).unwrap(), content);
    v.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_known_of_a_member_ends_with_its_next_change() {
    let f = Fixture::new(false);
    let v = f.open().await;
    put(&v, "/a", b"one").await.unwrap();
    settle(&f, "a");
    let look = async || v.list(&ResourcePath::root()).await.unwrap()[0].1.clone();
    let props = async || {
        let names = vec!["a".to_owned()];
        let mut props = v.member_props(&ResourcePath::root(), names).await.unwrap();
        props.remove(0).unwrap()
    };
    let first = look().await;
    assert_eq!(props().await, []);
    assert!(look().await.bare);
    assert!(v.stat(&p("/a")).await.unwrap().bare);
    let prop = DeadProp {
        namespace: "urn:x".into(),
        name: "x".into(),
        xml: b"<x xmlns=\"urn:x\">1</x>".to_vec(),
    };
    let set = vec![PropChange::Set(prop.clone())];
    v.patch_props(&p("/a"), set, None, Box::new(|_| true))
        .await
        .unwrap();
    assert!(!look().await.bare);
    assert_eq!(props().await.len(), 1);
    assert_eq!(v.props(&p("/a")).await.unwrap(), [prop]);
    settle(&f, "a");
    assert!(!look().await.bare);
    assert_eq!(props().await.len(), 1);
    assert_eq!(look().await.etag, first.etag);
    std::fs::write(f.root().join("a"), b"two").unwrap();
    assert_ne!(look().await.etag, first.etag);
    assert_ne!(v.stat(&p("/a")).await.unwrap().etag, first.etag);
    v.shutdown().await.unwrap();
}

/// From where its content is: the tree, or the cache. Asked again, it is left to the kernel to send.
#[tokio::test]
async fn a_long_file_that_was_read_is_left_to_the_kernel() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        let content = vec![7; 50_000];
        put(&v, "/long", &content).await.unwrap();
        keep_open(&f, &v, "long").await;
        let meta = v.stat(&p("/long")).await.unwrap();
        let fields = Bytes::from_static(b"fields");
        let io = IoContext::default();
        let whole = |len| Some(0..len);
        v.keep_long(&p("/long"), &meta, || fields.clone());
        assert!(v.hot(&p("/long"), false, whole).is_none());
        let hot = v.hot(&p("/long"), true, whole).unwrap();
        assert_eq!((hot.file, &hot.fields), (meta.file_id, &fields));
        assert!(matches!(&hot.content, Content::File(file) if file.len() == 50_000));
        let tier = if cached { Tier::Cache } else { Tier::Backing };
        assert_eq!(v.hot_read(&hot, Nanos(0), io), Some(tier));
        put(&v, "/long", &vec![8; 50_000]).await.unwrap();
        assert!(v.hot(&p("/long"), true, whole).is_none());
        v.shutdown().await.unwrap();
    }
}

/// Of a file of several objects each part that lies in one of them, from where that is.
#[tokio::test]
async fn a_range_is_left_to_the_kernel() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        let object = u64::from(v.inner.cache.object_bytes());
        let len = 2 * object + 1000;
        let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        put(&v, "/f", &content).await.unwrap();
        keep_open(&f, &v, "f").await;
        let meta = v.stat(&p("/f")).await.unwrap();
        v.keep_long(&p("/f"), &meta, Bytes::new);
        let hot = |part: std::ops::Range<u64>| {
            v.hot(&p("/f"), true, |whole| {
                assert_eq!(whole, len);
                Some(part.clone())
            })
        };
        let tier = if cached { Tier::Cache } else { Tier::Backing };
        for part in [
            0..1,
            0..object,
            object..object + 1,
            2 * object - 1..2 * object,
            2 * object + 10..len,
        ] {
            let hot = hot(part.clone()).unwrap();
            assert_eq!((hot.len, &hot.part), (len, &part));
            let Content::File(file) = &hot.content else {
                panic!("it is not in memory");
            };
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let mut sent = Vec::new();
            while (sent.len() as u64) < file.len() {
                let socket = std::os::fd::AsFd::as_fd(&ours);
                let n = file.send(socket, sent.len() as u64).unwrap();
                let mut taken = vec![0; n];
                std::io::Read::read_exact(&mut &theirs, &mut taken).unwrap();
                sent.extend(taken);
            }
            let expected = &content[part.start as usize..part.end as usize];
            assert!(sent == expected, "{part:?}");
            let read = v.hot_read(&hot, Nanos(0), IoContext::default());
            assert_eq!(read, Some(tier));
        }
        assert!(hot(object - 1..object + 1).is_none(), "in two objects");
        put(&v, "/f", b"other").await.unwrap();
        assert!(v.hot(&p("/f"), true, |len| Some(0..len)).is_none());
        v.shutdown().await.unwrap();
    }
}
