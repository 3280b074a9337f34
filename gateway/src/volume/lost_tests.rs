//! Dirty objects that vanish from the cache behind the gateway's back: refused, never zeros, never settled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use super::tests::{Fixture, crash, get, p, put};
use super::*;
use crate::objects::IoContext;
use bytes::Bytes;

const OBJECT: usize = 4 << 20;

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i / 13 % 251) as u8 + 1).collect()
}

/// The cached files of a version: `(object index, mark, path)`, by index.
fn cached(f: &Fixture, id: FileId) -> Vec<(u32, char, PathBuf)> {
    let mut out = Vec::new();
    for dir in std::fs::read_dir(f.cache_dir().unwrap().join("objects")).unwrap() {
        for file in std::fs::read_dir(dir.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let parts: Vec<&str> = name.split('.').collect();
            if parts[0] == id.to_string() {
                let index = u32::from_str_radix(parts[1], 16).unwrap();
                out.push((index, parts[4].chars().next().unwrap(), path));
            }
        }
    }
    out.sort();
    out
}

async fn id_of(v: &Volume, path: &str) -> FileId {
    v.stat(&p(path)).await.unwrap().file_id
}

async fn read(v: &Volume, path: &str, offset: u64, len: usize) -> Result<Bytes, VolumeError> {
    let (_, reader) = v.open_read(&p(path), IoContext::default()).await?;
    let read = reader.read(offset, len).await;
    Ok(read.map_err(VolumeError::Cache)?.0)
}

/// The first object goes to the cache, the others into the tree.
async fn put_half_past_the_cache(v: &Volume, path: &str, data: &[u8]) {
    let (io, len) = (IoContext::default(), Some(data.len() as u64));
    let mut upload = v.create(&p(path), io, len).await.unwrap();
    for (n, part) in data.chunks(OBJECT).enumerate() {
        v.inner.cache.set_write_around(n > 0);
        upload.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
    upload.commit(unchecked()).await.unwrap();
    v.inner.cache.set_write_around(false);
}

fn is_dirty(f: &Fixture, id: FileId) -> bool {
    f.root().join(format!(".tierdav/dirty/{id}")).exists()
}

#[tokio::test]
async fn a_vanished_dirty_object_is_refused_and_its_file_is_never_settled() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let data = pattern(3 * OBJECT);
    put(&v, "/a", &data).await.unwrap();
    put(&v, "/whole", &data).await.unwrap();
    let id = id_of(&v, "/a").await;
    crash(v).await;
    let files = cached(&f, id);
    assert_eq!(files.iter().map(|x| x.1).collect::<String>(), "ddd");
    std::fs::remove_file(&files[1].2).unwrap();

    for round in 0..2 {
        let v = f.open().await;
        assert_eq!(get(&v, "/whole").await.unwrap(), data);
        assert!(read(&v, "/a", OBJECT as u64, 10).await.is_err());
        assert_eq!(read(&v, "/a", 0, 10).await.unwrap(), data[..10]);
        let copied = v
            .copy(&p("/a"), None, &p("/b"), false, false, unchecked())
            .await;
        assert!(copied.is_err());
        assert!(v.patch(&p("/a"), IoContext::default()).await.is_err());
        let cache = v.inner.cache.clone();
        cache.attach_backing(v.clone());
        let report = cache.flush_all().await.unwrap();
        // The second round finds the rest flushed.
        assert_eq!((report.failed, report.files), (1, 1 - round));
        assert!(is_dirty(&f, id), "the file must not count as plain");
        let scrub = cache.scrub(v.clone(), true).await.unwrap();
        assert_eq!(scrub.problems, 1, "{:?}", scrub.findings);
        assert!(!scrub.is_clean());
        crash(v).await;
    }

    // An overwrite makes it good.
    let v = f.open().await;
    put(&v, "/a", b"new").await.unwrap();
    assert_eq!(get(&v, "/a").await.unwrap(), b"new");
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    assert_eq!(cache.flush_all().await.unwrap().failed, 0);
    v.shutdown().await.unwrap();
    assert!(!is_dirty(&f, id));
}

#[tokio::test]
async fn of_a_version_that_is_half_in_the_tree_only_the_cached_half_can_be_lost() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let data = pattern(2 * OBJECT);
    put(&v, "/a", &data).await.unwrap();
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    assert_eq!(cache.flush_all().await.unwrap().failed, 0);
    assert_eq!(cache.evict_all_clean().await.unwrap(), 2);
    let mut upload = v.patch(&p("/a"), IoContext::default()).await.unwrap();
    upload
        .write_at(data.len() as u64, Bytes::from(pattern(200_000)))
        .await
        .unwrap();
    upload.commit(unchecked()).await.unwrap();
    let id = id_of(&v, "/a").await;
    crash(v).await;
    let files = cached(&f, id);
    assert_eq!(
        files.iter().map(|x| (x.0, x.1)).collect::<Vec<_>>(),
        [(2, 'd')]
    );

    // Nothing is missing: nothing is refused.
    let v = f.open().await;
    assert_eq!(
        get(&v, "/a").await.unwrap(),
        [data.clone(), pattern(200_000)].concat()
    );
    crash(v).await;

    std::fs::remove_file(&files[0].2).unwrap();
    let v = f.open().await;
    assert_eq!(read(&v, "/a", 0, 1 << 20).await.unwrap(), data[..1 << 20]);
    assert!(read(&v, "/a", data.len() as u64, 10).await.is_err());
    assert!(is_dirty(&f, id));
    v.remove(&p("/a"), unchecked()).await.unwrap();
    v.shutdown().await.unwrap();
    assert!(!is_dirty(&f, id));
}

/// A drain empties the cache of what it could flush; that it was flushed must be known all the same.
#[tokio::test]
async fn what_was_flushed_of_a_file_stays_readable_though_the_rest_is_lost() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let data = pattern(3 * OBJECT);
    put(&v, "/a", &data).await.unwrap();
    let id = id_of(&v, "/a").await;
    crash(v).await;
    std::fs::remove_file(&cached(&f, id)[1].2).unwrap();
    for round in 0..3 {
        let v = f.open().await;
        let cache = v.inner.cache.clone();
        cache.attach_backing(v.clone());
        assert_eq!(cache.drain().await.unwrap().failed, 1, "round {round}");
        for index in [0, 2] {
            let at = index * OBJECT;
            let got = read(&v, "/a", at as u64, 10).await;
            assert_eq!(got.unwrap(), data[at..at + 10], "round {round}");
        }
        assert!(read(&v, "/a", OBJECT as u64, 10).await.is_err());
        crash(v).await;
    }
}

#[tokio::test]
async fn a_file_that_somebody_appended_to_before_its_flush_keeps_both() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    let data = pattern(100_000);
    for name in ["/a", "/other"] {
        put(&v, name, &data).await.unwrap();
    }
    let before = v.stat(&p("/a")).await.unwrap();
    let file = std::fs::File::options()
        .append(true)
        .open(f.root().join("a"));
    std::io::Write::write_all(&mut file.unwrap(), b"appended").unwrap();
    let report = cache.flush_all().await.unwrap();
    assert_eq!((report.failed, report.files), (0, 2));
    let whole = [&data[..], b"appended"].concat();
    assert!(get(&v, "/a").await.unwrap() == whole);
    assert_ne!(v.stat(&p("/a")).await.unwrap().etag, before.etag);
    assert!(!is_dirty(&f, before.file_id));
    crash(v).await;
    let v = f.open().await;
    assert!(get(&v, "/a").await.unwrap() == whole);
    assert!(get(&v, "/other").await.unwrap() == data);
}

#[tokio::test]
async fn a_file_that_somebody_cut_before_its_flush_is_told_of_and_costs_no_start() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    let data = pattern(2 * OBJECT);
    put_half_past_the_cache(&v, "/a", &data).await;
    let id = id_of(&v, "/a").await;
    let file = std::fs::File::options()
        .write(true)
        .open(f.root().join("a"));
    file.unwrap().set_len(OBJECT as u64).unwrap();
    // Flushed, and told of: not all of it is in the tree.
    let report = cache.flush_all().await.unwrap();
    assert_eq!((report.failed, report.files, report.objects), (1, 0, 1));
    crash(v).await;

    let v = f.open().await;
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    put(&v, "/other", &data).await.unwrap();
    let report = cache.drain().await.unwrap();
    assert_eq!((report.failed, report.files), (1, 1));
    assert!(get(&v, "/other").await.unwrap() == data);
    assert_eq!(read(&v, "/a", 0, 5).await.unwrap(), data[..5]);
    assert!(read(&v, "/a", OBJECT as u64, 10).await.is_err());
    assert!(is_dirty(&f, id));
    put(&v, "/a", b"whole").await.unwrap();
    assert_eq!(cache.drain().await.unwrap().failed, 0);
    v.shutdown().await.unwrap();
    assert!(!f.root().join(".tierdav/cache").exists());
}

/// The runbook's way on after the cache device is lost, without another one.
#[tokio::test]
async fn what_was_lost_with_its_cache_is_refused_by_a_gateway_without_one() {
    let mut f = Fixture::new(true);
    let v = f.open().await;
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    put(&v, "/d/a", &pattern(2 * OBJECT)).await.unwrap();
    crash(v).await;
    std::fs::remove_dir_all(f.cache_dir().unwrap()).unwrap();
    std::fs::remove_file(f.root().join(".tierdav/cache")).unwrap();
    f.cached = false;

    let v = f.open().await;
    for at in [0, OBJECT as u64 + 10] {
        assert!(read(&v, "/d/a", at, 10).await.is_err(), "at {at}");
    }
    let (_, reader) = v.open_read(&p("/d/a"), IoContext::default()).await.unwrap();
    assert!(!reader.holds(0, &Bytes::from_static(&[0; 10])).await);
    for from in ["/d", "/d/a"] {
        let copied = v
            .copy(&p(from), None, &p("/b"), false, true, unchecked())
            .await;
        assert!(copied.is_err(), "{from}");
    }
    drop(reader);
    put(&v, "/d/a", b"new").await.unwrap();
    assert_eq!(get(&v, "/d/a").await.unwrap(), b"new");
}

#[tokio::test]
async fn what_was_lost_is_counted_in_the_size_that_it_was_cut_at() {
    for (then, now) in [(OBJECT as u32, 1 << 20), (1 << 20, OBJECT as u32)] {
        let mut f = Fixture::new(true);
        f.object_bytes = then;
        let v = f.open().await;
        let data = pattern(2 * OBJECT);
        put_half_past_the_cache(&v, "/a", &data).await;
        crash(v).await;
        std::fs::remove_dir_all(f.cache_dir().unwrap()).unwrap();
        std::fs::remove_file(f.root().join(".tierdav/cache")).unwrap();

        f.object_bytes = now;
        let refused = f.try_open().await.err().unwrap().to_string();
        assert!(refused.contains(&then.to_string()), "{refused}");
        f.object_bytes = then;
        let v = f.open().await;
        for at in [0, OBJECT as u64 - 10] {
            assert!(read(&v, "/a", at, 10).await.is_err(), "at {at}");
        }
        assert_eq!(
            read(&v, "/a", OBJECT as u64, 10).await.unwrap(),
            data[OBJECT..OBJECT + 10]
        );
        v.remove(&p("/a"), unchecked()).await.unwrap();
        v.shutdown().await.unwrap();
        f.object_bytes = now;
        f.open().await;
    }
}

/// A root on another disk: with its hard links it is the same, without them nobody knows which file has which name.
#[tokio::test]
async fn a_root_that_was_copied_keeps_what_only_the_cache_has_or_is_refused() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let data = pattern(200_000);
    for name in ["/a", "/small"] {
        let len = if name == "/a" { data.len() } else { 1000 };
        put(&v, name, &data[..len]).await.unwrap();
    }
    crash(v).await;
    let moved = f.root().with_file_name("moved");
    let copy = |from: &std::path::Path, to: &std::path::Path, flags: &[&str]| {
        let done = std::process::Command::new("cp")
            .args(flags)
            .args([from, to])
            .status();
        assert!(done.unwrap().success());
    };
    copy(
        &f.root(),
        &moved,
        &["-r", "--preserve=mode,timestamps,xattr"],
    );
    std::fs::rename(f.root(), f.root().with_file_name("original")).unwrap();
    std::fs::rename(&moved, f.root()).unwrap();
    let refused = f.try_open().await.err().unwrap().to_string();
    assert!(refused.contains("hard links"), "{refused}");
    std::fs::remove_dir_all(f.root()).unwrap();
    copy(&f.root().with_file_name("original"), &f.root(), &["-a"]);
    for _ in 0..2 {
        let v = f.open().await;
        assert_eq!(get(&v, "/a").await.unwrap(), data);
        assert_eq!(get(&v, "/small").await.unwrap(), data[..1000]);
        crash(v).await;
    }
    let v = f.open().await;
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    assert_eq!(cache.drain().await.unwrap().failed, 0);
    v.shutdown().await.unwrap();
    assert_eq!(std::fs::read(f.root().join("a")).unwrap(), data);
}
