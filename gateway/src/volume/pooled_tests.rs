//! A volume whose content is in pools, in memory here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::tests::{crash, get, p};
use super::types::Check;
use super::*;
use crate::metrics::Metrics;
use crate::objects::pools::Pools;
use crate::objects::test_pools::MemoryPools;
use crate::objects::{
    Backing, CacheOptions, Capacity, Checked, IoContext, ObjectCache, PoolScrub, Problem, Tier,
};
use crate::recorder::Recorder;

async fn open(root: &std::path::Path, pools: &Arc<MemoryPools>) -> Arc<Volume> {
    try_open(root, pools).await.unwrap()
}

async fn try_open(
    root: &std::path::Path,
    pools: &Arc<MemoryPools>,
) -> Result<Arc<Volume>, VolumeError> {
    let size = CacheOptions::uncached().object_bytes;
    try_open_with(root, pools, size).await
}

async fn try_open_with(
    root: &std::path::Path,
    pools: &Arc<MemoryPools>,
    object_bytes: u32,
) -> Result<Arc<Volume>, VolumeError> {
    try_open_as(root, pools, object_bytes, Symlinks::Refuse).await
}

async fn try_open_as(
    root: &std::path::Path,
    pools: &Arc<MemoryPools>,
    object_bytes: u32,
    symlinks: Symlinks,
) -> Result<Arc<Volume>, VolumeError> {
    let options = CacheOptions {
        pools: Some(Arc::clone(pools) as Arc<dyn Pools>),
        object_bytes,
        capacity: Capacity::Bytes(1 << 20),
        ..CacheOptions::uncached()
    };
    let cache = ObjectCache::open(options, Recorder::disabled(), Arc::new(Metrics::new()));
    Volume::open(VolumeOptions {
        root: root.to_path_buf(),
        cache: cache.unwrap(),
        log_dir: None,
        durability: Durability::Commit,
        symlinks,
        quota_bytes: None,
        assume_journal: false,
        ownership: None,
    })
    .await
}

async fn put(v: &Volume, data: &'static [u8], check: Check) -> Result<(Meta, bool), VolumeError> {
    let data = vec![Bytes::from_static(data)];
    v.put_whole(&p("/f"), IoContext::default(), data, check)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_put_writes_no_object_and_one_refused_at_its_commit_leaves_the_old_content() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    let writes = || pools.writes.load(Ordering::Relaxed);
    let (old, created) = put(&v, b"old", unchecked()).await.unwrap();
    assert!(created && writes() == 1);

    let seen = old.file_id;
    let refused = put(
        &v,
        b"new",
        Box::new(move |meta| meta.unwrap().file_id != seen),
    )
    .await;
    assert!(matches!(
        refused,
        Err(VolumeError::PreconditionFailed { .. })
    ));
    assert_eq!(writes(), 1);

    // It held before the object was written, and no more after that.
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let late: Check = Box::new(move |_| count.fetch_add(1, Ordering::Relaxed) == 0);
    assert!(matches!(
        put(&v, b"new", late).await,
        Err(VolumeError::PreconditionFailed { .. })
    ));
    assert_eq!((asked.load(Ordering::Relaxed), writes()), (2, 2));
    assert_eq!(get(&v, "/f").await.unwrap(), b"old");
    assert_eq!(v.stat(&p("/f")).await.unwrap().file_id, seen);
}

/// What is in the cache pool alone is not there for settings that name another one, or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_pool_with_data_of_its_own_stays_until_it_is_drained() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    put(&v, b"only here", unchecked()).await.unwrap();
    v.shutdown().await.unwrap();
    for other in [None, Some("another")] {
        let others = Arc::new(pools.with_cache_pool(other));
        let refused = try_open(root.path(), &others).await.err().unwrap();
        assert!(
            refused
                .to_string()
                .contains("data in the cache pool memory"),
            "{refused}"
        );
    }
    let v = open(root.path(), &pools).await;
    assert_eq!(get(&v, "/f").await.unwrap(), b"only here");
    v.remove(&p("/f"), unchecked()).await.unwrap();
    v.shutdown().await.unwrap();
    let none = Arc::new(pools.with_cache_pool(None));
    let v = open(root.path(), &none).await;
    put(&v, b"in the data pool", unchecked()).await.unwrap();
    v.shutdown().await.unwrap();
    open(root.path(), &pools).await.shutdown().await.unwrap();
}

/// The settings of before, by mistake: no harm is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_refused_does_not_stand_in_the_way_of_the_right_one() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    put(&v, b"here", unchecked()).await.unwrap();
    v.shutdown().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = CacheOptions {
        cache_dir: Some(dir.path().to_path_buf()),
        capacity: Capacity::Bytes(1 << 20),
        ..CacheOptions::uncached()
    };
    let cache = ObjectCache::open(options, Recorder::disabled(), Arc::new(Metrics::new()));
    let refused = Volume::open(VolumeOptions {
        root: root.path().to_path_buf(),
        cache: cache.unwrap(),
        log_dir: Some(dir.path().join("log")),
        durability: Durability::Commit,
        symlinks: Symlinks::Refuse,
        quota_bytes: None,
        assume_journal: false,
        ownership: None,
    });
    let refused = refused.await.err().unwrap().to_string();
    assert!(refused.contains("content in Ceph pools"), "{refused}");
    let v = open(root.path(), &pools).await;
    assert_eq!(get(&v, "/f").await.unwrap(), b"here");
    v.shutdown().await.unwrap();
}

/// Small files of pools are answered from memory: always the version that the name means at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_memory_of_pools_is_never_an_old_version() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    let read = async |path: &str| {
        let (meta, reader) = v.open_read(&p(path), IoContext::default()).await.unwrap();
        let (content, _) = reader.read(0, 100).await.unwrap();
        v.keep_hot(&p(path), &meta, || Bytes::from(path.to_string()), &content);
        content
    };
    let hot = |path: &str| match v.hot(&p(path), true, |len| Some(0..len))? {
        HotFile {
            fields,
            content: Content::Memory(content),
            ..
        } => Some((content, fields)),
        HotFile {
            content: Content::File(_),
            ..
        } => panic!("there is no file"),
    };
    let kept = |path: &str| hot(path).unwrap();
    let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
    put(&v, b"one", unchecked()).await.unwrap();
    assert!(hot("/f").is_none());
    assert_eq!(read("/f").await, one);
    assert_eq!(kept("/f"), (one.clone(), Bytes::from_static(b"/f")));
    // Replaced, by something of the same length: nothing is kept of it before it is read.
    put(&v, b"two", unchecked()).await.unwrap();
    assert!(hot("/f").is_none());
    assert_eq!(read("/f").await, two);
    assert_eq!(kept("/f").0, two);
    // What a reply says of it depends on its name.
    v.rename(&p("/f"), &p("/g"), true, unchecked())
        .await
        .unwrap();
    assert!(hot("/f").is_none() && hot("/g").is_none());
    assert_eq!(read("/g").await, two);
    assert_eq!(kept("/g"), (two, Bytes::from_static(b"/g")));
    v.remove(&p("/g"), unchecked()).await.unwrap();
    assert!(hot("/g").is_none());
    // Readers and a writer at once: whoever asks after an answer was given gets that version or a later one.
    let latest = Arc::new(AtomicU64::new(0));
    let writes = async {
        for n in 1..=300u64 {
            let data = vec![Bytes::from(format!("{n:05}"))];
            v.put_whole(&p("/r"), IoContext::default(), data, unchecked())
                .await
                .unwrap();
            latest.store(n, Ordering::SeqCst);
        }
    };
    let reads = async {
        while latest.load(Ordering::SeqCst) < 300 {
            let least = latest.load(Ordering::SeqCst);
            if least == 0 {
                tokio::task::yield_now().await;
                continue;
            }
            let content = match hot("/r") {
                Some((content, _)) => content,
                None => read("/r").await,
            };
            let number: u64 = std::str::from_utf8(&content).unwrap().parse().unwrap();
            assert!(number >= least, "{number} after {least}");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writes, reads);
}

/// Removes what waits to be, and says how many objects are left in both pools.
async fn objects_left(v: &Arc<Volume>, pools: &Arc<MemoryPools>) -> usize {
    v.inner
        .cache
        .attach_backing(Arc::clone(v) as Arc<dyn Backing>);
    v.inner.cleaner.finish();
    // What was on its way when its upload was given up lands first.
    while v.inner.cache.is_in_use() {
        tokio::task::yield_now().await;
    }
    v.inner.cache.purge_queued().await.unwrap();
    let in_pool = |tier| pools.list(tier).unwrap().objects.len();
    in_pool(Tier::Cache) + in_pool(Tier::Backing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_far_behind_the_first_object_that_comes_to_nothing_leaves_no_object() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_with(root.path(), &pools, 64).await.unwrap();
    let whole = vec![7; 64 * 200];
    let mut upload = v
        .create(&p("/f"), IoContext::default(), None)
        .await
        .unwrap();
    upload.write(Bytes::from(whole.clone())).await.unwrap();
    upload.commit(unchecked()).await.unwrap();
    let mut change = v.patch(&p("/f"), IoContext::default()).await.unwrap();
    // Two objects that are whole, and so are on their way at once, with more absent ones before them than end a search.
    let two = Bytes::from(vec![8; 128]);
    change.write_at(64 * 150, two).await.unwrap();
    drop(change);
    assert_eq!(objects_left(&v, &pools).await, 200);
    assert_eq!(get(&v, "/f").await.unwrap(), whole);
}

/// What is received of a change does not stay in memory until all of it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_all_of_a_file_writes_each_object_as_soon_as_it_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_with(root.path(), &pools, 64).await.unwrap();
    let content =
        |seed: usize| -> Vec<u8> { (0..64 * 200 - 9).map(|n| (n / 7 + seed) as u8).collect() };
    let mut upload = v
        .create(&p("/f"), IoContext::default(), None)
        .await
        .unwrap();
    upload.write(Bytes::from(content(0))).await.unwrap();
    upload.commit(unchecked()).await.unwrap();
    for (seed, piece_bytes) in [(1, 40), (2, 64), (3, 100)] {
        let before = pools.writes.load(Ordering::Relaxed);
        let mut change = v.patch(&p("/f"), IoContext::default()).await.unwrap();
        let new = Bytes::from(content(seed));
        for at in (0..new.len()).step_by(piece_bytes) {
            let piece = new.slice(at..new.len().min(at + piece_bytes));
            change.write_at(at as u64, piece).await.unwrap();
        }
        let written = pools.writes.load(Ordering::Relaxed) - before;
        // The last object might still grow.
        assert_eq!(written, 199, "pieces of {piece_bytes} bytes");
        change.commit(unchecked()).await.unwrap();
        assert!(get(&v, "/f").await.unwrap() == new);
    }
    // Downwards, and past the end.
    let mut change = v.patch(&p("/f"), IoContext::default()).await.unwrap();
    let mut new = content(3);
    for at in [64 * 200, 64 * 10 + 3, 64 * 2 + 60, 64 * 10 + 1, 64 * 10 + 5] {
        change
            .write_at(at as u64, Bytes::from(vec![at as u8; 20]))
            .await
            .unwrap();
        new.resize(new.len().max(at + 20), 0);
        new[at..at + 20].fill(at as u8);
    }
    change.commit(unchecked()).await.unwrap();
    assert!(get(&v, "/f").await.unwrap() == new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_during_a_change_of_it_is_no_damage() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    v.inner
        .cache
        .attach_backing(Arc::clone(&v) as Arc<dyn Backing>);
    put(&v, b"old content", unchecked()).await.unwrap();
    let mut change = v.patch(&p("/f"), IoContext::default()).await.unwrap();
    put(&v, b"new content", unchecked()).await.unwrap();
    v.inner.cleaner.finish();
    v.inner.cache.purge_queued().await.unwrap();
    change.write_at(3, Bytes::from_static(b"-")).await.unwrap();
    assert!(change.commit(unchecked()).await.is_err());
    assert_eq!(v.inner.cache.status().damage_found, 0);
    assert_eq!(objects_left(&v, &pools).await, 1);
    assert_eq!(get(&v, "/f").await.unwrap(), b"new content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_upload_that_is_given_up_what_it_began_is_removed_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_with(root.path(), &pools, 64).await.unwrap();
    let removals = || pools.removals.swap(0, Ordering::Relaxed);
    for (bytes, objects) in [(0, 0), (63, 0), (64, 1), (200, 3)] {
        let mut upload = v
            .create(&p("/f"), IoContext::default(), None)
            .await
            .unwrap();
        upload.write(Bytes::from(vec![7; bytes])).await.unwrap();
        drop(upload);
        assert_eq!(objects_left(&v, &pools).await, 0);
        assert_eq!(removals(), 2 * objects, "after {bytes} bytes");
    }
    // Whole, and refused at its commit.
    let upload = v.create(&p("/f"), IoContext::default(), None).await;
    let mut upload = upload.unwrap();
    upload.write(Bytes::from(vec![7; 100])).await.unwrap();
    assert!(upload.commit(Box::new(|_| false)).await.is_err());
    assert_eq!(objects_left(&v, &pools).await, 0);
    assert!(removals() <= 6);
    let left = std::fs::read_dir(root.path().join(".tierdav/tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_go_only_after_the_change_that_ends_their_version_is_durable() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    put(&v, b"old", unchecked()).await.unwrap();
    let path = p("/f");
    let (dir, name, found) = v.inner.existing(&path).unwrap();
    let place = apply::Place { dir: &dir, name };
    // All of a removal but the sync of the directory, and what follows that.
    let left = apply::remove(&v.inner.tree, &place, &found).unwrap();
    assert_eq!(objects_left(&v, &pools).await, 1);
    left.clear(&v.inner.tree, &v.inner.cache, &v.inner.cleaner);
    assert_eq!(objects_left(&v, &pools).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_that_goes_on_reports_what_was_found_before_it_was_interrupted() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    for name in ["/a", "/b", "/c"] {
        let data = vec![Bytes::from_static(b"content")];
        v.put_whole(&p(name), IoContext::default(), data, unchecked())
            .await
            .unwrap();
    }
    let mut tree = v.pooled_files().await.unwrap();
    tree.files.sort_unstable_by_key(|file| file.file);
    let first = tiering::ObjectId::new(tree.files[0].file, 0);
    pools.remove(Tier::Cache, first).await.unwrap();
    let scrub = async |checked| {
        let mut seen = Vec::new();
        let options = PoolScrub {
            deep: true,
            checked,
            ..PoolScrub::default()
        };
        let done = |so_far: &Checked| seen.push(so_far.clone());
        let cache = Arc::clone(&v.inner.cache);
        let report = cache.scrub_pools(tree.clone(), options, done).await;
        (report.unwrap(), seen)
    };
    let (whole, seen) = scrub(None).await;
    assert_eq!((whole.problems, whole.checked_objects), (1, 3));
    assert_eq!(whole.findings[0].problem, Problem::Missing);
    assert_eq!(seen.len(), 3);
    for so_far in seen {
        let (resumed, _) = scrub(Some(so_far)).await;
        assert_eq!(resumed, whole);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_fails_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    let (meta, _) = put(&v, b"content", unchecked()).await.unwrap();
    let only = tiering::ObjectId::new(meta.file_id, 0);
    for tier in [Tier::Cache, Tier::Backing] {
        let _ = pools.remove(tier, only).await;
    }
    assert!(v.export(&p("/f")).await.is_err());
    assert_eq!(objects_left(&v, &pools).await, 0);
    let left = std::fs::read_dir(root.path().join(".tierdav/tmp")).unwrap();
    assert_eq!(left.count(), 0);
    assert_eq!(v.pooled_files().await.unwrap().files.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_symbolic_link_leaves_the_objects_of_what_it_leads_to() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_as(root.path(), &pools, 8192, Symlinks::InsideRoot)
        .await
        .unwrap();
    put(&v, b"content", unchecked()).await.unwrap();
    for name in ["deleted", "moved-over", "overwritten"] {
        std::os::unix::fs::symlink("f", root.path().join(name)).unwrap();
        assert_eq!(get(&v, &format!("/{name}")).await.unwrap(), b"content");
    }
    v.remove(&p("/deleted"), unchecked()).await.unwrap();
    let other = vec![Bytes::from_static(b"other")];
    v.put_whole(&p("/overwritten"), IoContext::default(), other, unchecked())
        .await
        .unwrap();
    v.rename(&p("/overwritten"), &p("/moved-over"), true, unchecked())
        .await
        .unwrap();
    assert_eq!(objects_left(&v, &pools).await, 2);
    assert_eq!(get(&v, "/f").await.unwrap(), b"content");
    assert_eq!(get(&v, "/moved-over").await.unwrap(), b"other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_below_a_name_that_is_not_utf8_keeps_its_objects_in_a_repair() {
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    let data = vec![Bytes::from_static(b"content")];
    v.put_whole(&p("/d/f"), IoContext::default(), data, unchecked())
        .await
        .unwrap();
    // Renamed beside the gateway, to Latin-1.
    let strange = root.path().join(std::ffi::OsStr::from_bytes(b"d\xe4"));
    std::fs::rename(root.path().join("d"), &strange).unwrap();
    let scrub = async || {
        let options = PoolScrub {
            repair: true,
            ..PoolScrub::default()
        };
        let tree = v.pooled_files().await.unwrap();
        let cache = Arc::clone(&v.inner.cache);
        cache.scrub_pools(tree, options, |_: &Checked| ()).await
    };
    // A name that only has plain files below it is not in the way.
    let plain = root.path().join(std::ffi::OsStr::from_bytes(b"\xf6"));
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("f"), b"plain").unwrap();
    assert_eq!(v.pooled_files().await.unwrap().unseen.len(), 2);
    let report = scrub().await.unwrap();
    let problems: Vec<Problem> = report.findings.iter().map(|f| f.problem).collect();
    assert_eq!(problems, [Problem::Unseen, Problem::Orphan]);
    assert_eq!((report.removed, report.is_clean()), (0, false));
    assert!(!v.leave_pools().await.unwrap());
    put(&v, b"orphan", unchecked()).await.unwrap();
    std::fs::remove_file(root.path().join("f")).unwrap();
    std::fs::rename(&strange, root.path().join("d")).unwrap();
    let report = scrub().await.unwrap();
    assert_eq!((report.removed, report.is_clean()), (1, true));
    assert_eq!(get(&v, "/d/f").await.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_came_back_from_a_backup_has_its_content_and_placeholders_are_never_served_as_zeros()
 {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_with(root.path(), &pools, 8192).await.unwrap();
    let content = vec![7; 50_000];
    let mut upload = v
        .create(&p("/f"), IoContext::default(), None)
        .await
        .unwrap();
    upload.write(Bytes::from(content.clone())).await.unwrap();
    let (meta, _) = upload.commit(unchecked()).await.unwrap();
    // As `cp -a`, `rsync -aX` and `tar --xattrs` do: another file with the same attributes and times.
    let copy = |from: &str, to: &str| {
        let done = std::process::Command::new("cp")
            .args(["-a", from, to])
            .current_dir(root.path())
            .status();
        assert!(done.unwrap().success());
    };
    let touch = |name: &str| {
        let file = std::fs::File::options()
            .write(true)
            .open(root.path().join(name));
        file.unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    };
    copy("f", "copy");
    touch("copy");
    for name in ["/f", "/copy"] {
        assert_eq!(get(&v, name).await.unwrap(), content, "{name}");
        assert_eq!(v.stat(&p(name)).await.unwrap().file_id, meta.file_id);
    }
    // The copy is not the version's own name, so its removal takes nothing with it (that of the original does: the copy would
    // answer 503). The last name is made its own.
    v.remove(&p("/copy"), unchecked()).await.unwrap();
    assert_eq!(objects_left(&v, &pools).await, 7);
    copy("f", "g");
    std::fs::remove_file(root.path().join("f")).unwrap();
    assert_eq!(get(&v, "/g").await.unwrap(), content);
    assert_eq!(v.inner.found(&p("/g")).unwrap().links, 2);
    assert_eq!(v.pooled_files().await.unwrap().files.len(), 1);
    assert_eq!(v.inner.found(&p("/g")).unwrap().links, 1);
    assert_eq!(v.stat(&p("/g")).await.unwrap().file_id, meta.file_id);
    // What somebody wrote beside the gateway is a plain file, of the same length, too.
    std::fs::write(root.path().join("g"), vec![9; 50_000]).unwrap();
    assert_eq!(get(&v, "/g").await.unwrap(), vec![9; 50_000]);
}

/// Into the placeholder itself: it keeps its inode, its record and its length, and most of it stays without data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_into_a_placeholder_beside_the_gateway_is_served_and_never_adopted() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    const LEN: usize = 500_000;
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_with(root.path(), &pools, 8192).await.unwrap();
    let at = |name: &str| root.path().join(name);
    // Touched only, with a few blocks changed, and replaced by a sparse file of the same length.
    for name in ["touched", "changed", "replaced"] {
        let path = p(&format!("/{name}"));
        let mut upload = v.create(&path, IoContext::default(), None).await.unwrap();
        upload.write(Bytes::from(vec![7; LEN])).await.unwrap();
        upload.commit(unchecked()).await.unwrap();
        assert!(get(&v, &path.to_string()).await.unwrap() == vec![7; LEN]);
    }
    let open = |name: &str| std::fs::File::options().write(true).open(at(name)).unwrap();
    open("touched")
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    open("changed").write_all_at(&[9; 8192], 200_000).unwrap();
    let new = tempfile::NamedTempFile::new_in(root.path()).unwrap();
    new.as_file().set_len(LEN as u64).unwrap();
    new.as_file()
        .write_all_at(&[8; 100], LEN as u64 - 100)
        .unwrap();
    let ino = std::fs::metadata(at("replaced")).unwrap().ino();
    let copied = std::process::Command::new("cp")
        .arg("--sparse=always")
        .args([new.path(), &at("replaced")])
        .status();
    assert!(copied.unwrap().success());
    assert_eq!(std::fs::metadata(at("replaced")).unwrap().ino(), ino);
    for adopted in [false, true] {
        for name in ["changed", "replaced"] {
            let served = get(&v, &format!("/{name}")).await.unwrap();
            let written = std::fs::read(at(name)).unwrap();
            assert!(written.iter().any(|b| *b != 0));
            assert!(served == written, "{name}, adopted: {adopted}");
        }
        assert!(get(&v, "/touched").await.unwrap() == vec![7; LEN]);
        let tree = v.pooled_files().await.unwrap();
        assert_eq!((tree.files.len(), tree.unseen.len()), (1, 0));
        assert_eq!(tree.files[0].path, p("/touched").to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_cannot_set_aside_what_it_replaces_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    for path in ["/old", "/new"] {
        v.mkcol(&p(path), unchecked()).await.unwrap();
    }
    let (old_path, new_path) = (p("/old"), p("/new"));
    let (from_dir, from_name, found) = v.inner.existing(&new_path).unwrap();
    let (to_dir, to_name, old) = v.inner.existing(&old_path).unwrap();
    let from = apply::Place {
        dir: &from_dir,
        name: from_name,
    };
    let to = apply::Place {
        dir: &to_dir,
        name: to_name,
    };
    // The note of a failed one stays while the names are exchanged, and only then.
    let tmp = root.path().join(".tierdav/tmp");
    let note_of_failed = || {
        let noted = exchange::Exchange::note(&v.inner.tree, &new_path, old.meta.file_id);
        let noted = noted.unwrap().unwrap();
        noted.failed(&from, &new_path, old.meta.file_id);
        std::fs::read_dir(&tmp).unwrap().count()
    };
    let swap = || {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(&from_dir, from_name, &to_dir, to_name, flags).unwrap();
    };
    assert_eq!(note_of_failed(), 0);
    swap();
    assert_eq!(note_of_failed(), 1);
    swap();
    assert_eq!(note_of_failed(), 0);

    std::fs::remove_dir(&tmp).unwrap();
    let moved = apply::rename_in(&v.inner.tree, &from, Kind::Collection, &to, Some(&old));
    assert!(moved.is_err());
    for (path, was) in [(&old_path, &old), (&new_path, &found)] {
        assert_eq!(v.stat(path).await.unwrap().file_id, was.meta.file_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_over_a_collection_that_a_crash_cuts_in_two_is_finished_by_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    for (path, data) in [("/old", &b"o"[..]), ("/new", b"n")] {
        v.mkcol(&p(path), unchecked()).await.unwrap();
        let file = p(path).join("f").unwrap();
        let data = vec![Bytes::from_static(data)];
        v.put_whole(&file, IoContext::default(), data, unchecked())
            .await
            .unwrap();
    }
    let replaced = v.stat(&p("/old")).await.unwrap().file_id;
    // What the first step of `MOVE /new /old` leaves, and a note of one that never got that far.
    for id in [replaced, FileId(5)] {
        let noted = exchange::Exchange::note(&v.inner.tree, &p("/new"), id);
        std::mem::forget(noted.unwrap());
    }
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let at = |name: &str| root.path().join(name);
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        at("new"),
        rustix::fs::CWD,
        at("old"),
        exchange,
    )
    .unwrap();
    crash(v).await;
    let v = open(root.path(), &pools).await;
    assert!(v.stat(&p("/new")).await.is_err());
    assert_eq!(get(&v, "/old/f").await.unwrap(), b"n");
    assert_eq!(objects_left(&v, &pools).await, 1);
    assert_eq!(std::fs::read_dir(at(".tierdav/tmp")).unwrap().count(), 0);

    // And one that runs to its end leaves no note, nor does a refused one.
    v.mkcol(&p("/b"), unchecked()).await.unwrap();
    let moved = v.rename(&p("/b"), &p("/old"), true, unchecked()).await;
    assert_eq!(moved.unwrap(), Replaced(true));
    assert_eq!(objects_left(&v, &pools).await, 0);
    assert_eq!(std::fs::read_dir(at(".tierdav/tmp")).unwrap().count(), 0);
}

/// A plain file; `id`: with a record of its own, as a copy of an earlier file has that got its inode.
fn plain(v: &Volume, root: &std::path::Path, name: &str, content: &[u8], id: Option<FileId>) {
    let file = std::fs::File::create(root.join(name)).unwrap();
    std::io::Write::write_all(&mut &file, content).unwrap();
    let Entry::Found(found) = tree::look_fd(&file).unwrap() else {
        panic!("it is there");
    };
    let Some(file_id) = id else { return };
    let own = identity::Identity {
        file_id,
        ..found.identity
    };
    tree::set_identity(&file, &own).unwrap();
    let path = p(&format!("/{name}"));
    assert_eq!(v.inner.found(&path).unwrap().meta.file_id, file_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_file_with_the_id_of_one_in_the_pools_does_not_touch_that_ones_content() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    v.inner
        .cache
        .attach_backing(Arc::clone(&v) as Arc<dyn Backing>);
    let taken = Arc::default();
    let id = FileId(7);
    plain(&v, root.path(), "a", b"first", Some(id));
    assert_eq!(
        v.import(&p("/a"), &taken).await.unwrap(),
        Transfer::Moved(5)
    );
    assert_eq!(v.stat(&p("/a")).await.unwrap().file_id, id);

    // Its end, with the other's content in the cache pool alone.
    plain(&v, root.path(), "b", b"other", Some(id));
    v.remove(&p("/b"), unchecked()).await.unwrap();
    assert_eq!(objects_left(&v, &pools).await, 1);
    assert_eq!(get(&v, "/a").await.unwrap(), b"first");

    // Its import, by this run or by another, and its end after that.
    for taken in [taken, Arc::new(Mutex::new([id].into()))] {
        plain(&v, root.path(), "b", b"other", Some(id));
        v.import(&p("/b"), &taken).await.unwrap();
        assert_eq!(get(&v, "/a").await.unwrap(), b"first");
        assert_eq!(get(&v, "/b").await.unwrap(), b"other");
        v.remove(&p("/b"), unchecked()).await.unwrap();
        assert_eq!(objects_left(&v, &pools).await, 1);
        assert_eq!(get(&v, "/a").await.unwrap(), b"first");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_gateway_wrote_gets_an_id_of_its_own_in_the_pools() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = open(root.path(), &pools).await;
    plain(&v, root.path(), "a", b"content", None);
    let before = v.stat(&p("/a")).await.unwrap();
    v.import(&p("/a"), &Arc::default()).await.unwrap();
    let after = v.stat(&p("/a")).await.unwrap();
    assert!(identity::is_derived(before.file_id) && !identity::is_derived(after.file_id));
    assert_eq!((after.len, after.modified), (before.len, before.modified));
    v.export(&p("/a")).await.unwrap();
    assert_eq!(v.stat(&p("/a")).await.unwrap().file_id, after.file_id);
    assert_eq!(get(&v, "/a").await.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_goes_into_each_collection_once_wherever_links_lead() {
    let root = tempfile::tempdir().unwrap();
    let pools = Arc::new(MemoryPools::default());
    let v = try_open_as(root.path(), &pools, 8192, Symlinks::InsideRoot)
        .await
        .unwrap();
    put(&v, b"content", unchecked()).await.unwrap();
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.path().join(name));
    // One back to the root; and two, through which there are more paths than anybody can walk.
    for (to, name) in [(".", "loop"), ("../d", "d/x"), (".", "d/y")] {
        link(to, name).unwrap();
    }
    let tree = v.pooled_files().await.unwrap();
    assert_eq!((tree.files.len(), tree.unseen.len()), (1, 0));
    assert!(crate::tiers::learn_paths(&v).await.unwrap().is_empty());
}
