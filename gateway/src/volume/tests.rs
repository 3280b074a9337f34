//! The namespace as a whole: a model, crashes, links, writers beside the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::metrics::Metrics;
use crate::objects::{Backing, CacheOptions, Capacity, Tuning, WritePolicy};
use crate::recorder::Recorder;
use tiering::policy::{LruConfig, PolicyConfig};

pub(super) struct Fixture {
    dir: TempDir,
    pub(super) cached: bool,
    pub(super) object_bytes: u32,
    pub(super) durability: Durability,
    pub(super) write_policy: WritePolicy,
    pub(super) symlinks: Symlinks,
    quota: Option<u64>,
    pub(super) journal: bool,
}

pub(super) fn p(s: &str) -> ResourcePath {
    ResourcePath::parse(s).unwrap()
}

impl Fixture {
    pub(super) fn new(cached: bool) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        Fixture {
            dir,
            cached,
            object_bytes: tiering::DEFAULT_OBJECT_BYTES,
            durability: Durability::Commit,
            write_policy: WritePolicy::Back,
            symlinks: Symlinks::Refuse,
            quota: None,
            journal: false,
        }
    }
    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
    pub(super) fn cache_dir(&self) -> Option<PathBuf> {
        self.cached.then(|| self.dir.path().join("cache"))
    }
    pub(super) async fn try_open(&self) -> Result<Arc<Volume>, VolumeError> {
        Volume::open(VolumeOptions {
            root: self.root(),
            cache: self.open_cache(),
            log_dir: self.cache_dir().map(|d| d.join("log")),
            durability: self.durability,
            symlinks: self.symlinks,
            quota_bytes: self.quota,
            assume_journal: self.journal,
            ownership: None,
        })
        .await
    }
    fn open_cache(&self) -> Arc<ObjectCache> {
        let options = CacheOptions {
            cache_dir: self.cache_dir(),
            capacity: Capacity::Bytes(if self.cached { 1 << 30 } else { 0 }),
            object_bytes: self.object_bytes,
            durability: self.durability,
            write_policy: self.write_policy,
            tuning: Tuning {
                policy: PolicyConfig::Lru(LruConfig::default()),
                ..Tuning::default()
            },
            ..CacheOptions::uncached()
        };
        ObjectCache::open(options, Recorder::disabled(), Arc::new(Metrics::new())).unwrap()
    }
    pub(super) async fn open(&self) -> Arc<Volume> {
        self.try_open().await.unwrap()
    }
    /// What the tree says is applied, for [`Fixture::say_applied`].
    pub(super) fn applied(&self) -> [u8; log::applied::ENCODED_BYTES] {
        let hidden = File::open(self.root().join(".tierdav")).unwrap();
        let mut applied = [0; log::applied::ENCODED_BYTES];
        let name = log::applied::ATTRIBUTE;
        rustix::fs::fgetxattr(&hidden, name, &mut applied[..]).unwrap();
        applied
    }
    pub(super) fn say_applied(&self, applied: &[u8]) {
        let hidden = File::open(self.root().join(".tierdav")).unwrap();
        let (name, flags) = (log::applied::ATTRIBUTE, rustix::fs::XattrFlags::empty());
        rustix::fs::fsetxattr(&hidden, name, applied, flags).unwrap();
    }
    /// The root as it is now, for [`Fixture::put_back`].
    pub(super) fn copy_root(&self, n: usize) -> PathBuf {
        let to = self.dir.path().join(format!("tree{n}"));
        copy_tree(&self.root(), &to);
        to
    }
    pub(super) fn copy_cache(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy_tree(&self.dir.path().join("cache"), &to);
        to
    }
    pub(super) fn put_back(&self, tree: &Path, cache: &Path) {
        for (name, from) in [("root", tree), ("cache", cache)] {
            let to = self.dir.path().join(name);
            std::fs::remove_dir_all(&to).unwrap();
            copy_tree(from, &to);
        }
    }
    fn litter(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.root().join(".tierdav/tmp"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect()
    }
}

pub(super) async fn put(v: &Volume, path: &str, data: &[u8]) -> Result<(Meta, bool), VolumeError> {
    let mut up = v
        .create(&p(path), IoContext::default(), Some(data.len() as u64))
        .await?;
    up.write(Bytes::copy_from_slice(data)).await?;
    up.commit(unchecked()).await
}

pub(super) async fn get(v: &Volume, path: &str) -> Result<Vec<u8>, VolumeError> {
    let (meta, reader) = v.open_read(&p(path), IoContext::default()).await?;
    let mut out = Vec::new();
    while (out.len() as u64) < meta.len {
        let (data, _) = reader
            .read(out.len() as u64, 1 << 20)
            .await
            .map_err(VolumeError::Cache)?;
        out.extend_from_slice(&data);
    }
    Ok(out)
}

/// Ends a volume as a crash of the process would: no shutdown, only the owner's lock goes.
pub(super) async fn crash(v: Arc<Volume>) {
    v.inner.cleaner.finish();
    v.inner.owner.release().unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    let ok = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap()
        .success();
    assert!(ok);
}

pub(super) async fn walk(v: &Volume) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    let mut left = vec![ResourcePath::root()];
    while let Some(dir) = left.pop() {
        for (name, meta) in v.list(&dir).await.unwrap() {
            let path = dir.join(&name).unwrap();
            if meta.kind == Kind::Collection {
                out.insert(path.to_string(), None);
                left.push(path);
            } else {
                let data = get(v, &path.to_string()).await.unwrap();
                assert_eq!(data.len() as u64, meta.len);
                out.insert(path.to_string(), Some(data));
            }
        }
    }
    out
}

#[tokio::test]
async fn a_resource_lives_from_put_to_delete_in_every_mode() {
    for (cached, durability) in [
        (false, Durability::Commit),
        (true, Durability::Commit),
        (false, Durability::Relaxed),
        (true, Durability::Relaxed),
    ] {
        let mut f = Fixture::new(cached);
        f.durability = durability;
        let v = f.open().await;
        assert!(put(&v, "/a", b"one").await.unwrap().1);
        let (two, created) = put(&v, "/a", b"two").await.unwrap();
        assert!(!created);
        let stat = v.stat(&p("/a")).await.unwrap();
        // What is known of properties depends on the file system's times.
        let bare = two.bare;
        assert_eq!(Meta { bare, ..stat }, two);
        assert!(matches!(
            put(&v, "/x/a", b"").await,
            Err(VolumeError::Conflict { .. })
        ));
        assert!(matches!(
            put(&v, "/a/b", b"").await,
            Err(VolumeError::Conflict { .. })
        ));
        v.mkcol(&p("/d"), unchecked()).await.unwrap();
        assert!(matches!(
            v.mkcol(&p("/d"), unchecked()).await,
            Err(VolumeError::Exists { .. })
        ));
        assert!(matches!(
            v.mkcol(&p("/q/d"), unchecked()).await,
            Err(VolumeError::Conflict { .. })
        ));
        assert!(matches!(
            put(&v, "/d", b"").await,
            Err(VolumeError::IsCollection { .. })
        ));
        assert_eq!(
            v.rename(&p("/a"), &p("/d/b"), false, unchecked())
                .await
                .unwrap(),
            Replaced(false)
        );
        assert_eq!(v.stat(&p("/d/b")).await.unwrap().etag, two.etag);
        assert_eq!(
            v.copy(&p("/d"), None, &p("/e"), false, true, unchecked())
                .await
                .unwrap(),
            Replaced(false)
        );
        assert_ne!(v.stat(&p("/e/b")).await.unwrap().etag, two.etag);
        assert_eq!(get(&v, "/e/b").await.unwrap(), b"two");
        assert_eq!(
            v.rename(&p("/e"), &p("/d"), true, unchecked())
                .await
                .unwrap(),
            Replaced(true)
        );
        let before = walk(&v).await;
        v.shutdown().await.unwrap();
        drop(v);
        let v = f.open().await;
        assert_eq!(walk(&v).await, before);
        v.remove(&p("/d"), unchecked()).await.unwrap();
        assert!(matches!(
            v.stat(&p("/d/b")).await,
            Err(VolumeError::NotFound { .. })
        ));
        v.inner.cleaner.finish();
        assert!(f.litter().is_empty() && v.inner.cache.dirty_files().is_empty());
    }
}

#[tokio::test]
async fn twenty_quick_puts_of_one_size_have_twenty_etags() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let mut seen = HashSet::new();
    for n in 0..20 {
        seen.insert(put(&v, "/a", &[n; 4]).await.unwrap().0.etag);
    }
    assert_eq!(seen.len(), 20);
}

#[tokio::test]
async fn an_etag_survives_move_flush_and_reopen() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let meta = put(&v, "/a", b"content").await.unwrap().0;
    v.rename(&p("/a"), &p("/b"), true, unchecked())
        .await
        .unwrap();
    crash(v).await;
    let v = f.open().await;
    assert_eq!(v.stat(&p("/b")).await.unwrap(), meta);
    // What the migrator does with the last dirty object.
    let file = v.open_dirty(meta.file_id).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*file, b"content", 0).unwrap();
    for _ in 0..2 {
        v.settle(&[meta.file_id]).pop().unwrap().unwrap();
    }
    assert_eq!(v.stat(&p("/b")).await.unwrap(), meta);
    assert_eq!(std::fs::read(f.root().join("b")).unwrap(), b"content");
    assert!(
        std::fs::read_dir(f.root().join(".tierdav/dirty"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[tokio::test]
async fn a_writer_beside_the_gateway_changes_the_etag_and_is_served() {
    let f = Fixture::new(false);
    let v = f.open().await;
    let before = put(&v, "/a", b"ours").await.unwrap().0;
    std::fs::write(f.root().join("a"), b"their").unwrap();
    let after = v.stat(&p("/a")).await.unwrap();
    assert_ne!(after.etag, before.etag);
    assert_eq!(get(&v, "/a").await.unwrap(), b"their");
    v.rename(&p("/a"), &p("/b"), true, unchecked())
        .await
        .unwrap();
    assert_eq!(v.stat(&p("/b")).await.unwrap().etag, after.etag);
    std::fs::write(f.root().join("b"), b"again").unwrap();
    assert_ne!(v.stat(&p("/b")).await.unwrap().etag, after.etag);
}

#[tokio::test]
async fn symbolic_links_are_absent_or_stay_beneath_the_root() {
    let mut f = Fixture::new(false);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"s").unwrap();
    let v = f.open().await;
    put(&v, "/real", b"r").await.unwrap();
    for (target, name) in [
        (outside.path().join("secret"), "out"),
        (outside.path().to_owned(), "outdir"),
        (PathBuf::from("real"), "in"),
        (PathBuf::from(".tierdav"), "own"),
        (PathBuf::from("../../etc"), "up"),
    ] {
        symlink(target, f.root().join(name)).unwrap();
    }
    assert_eq!(v.list(&ResourcePath::root()).await.unwrap().len(), 1);
    for name in [
        "/out",
        "/outdir/secret",
        "/in",
        "/own/tmp",
        "/own/owner.lock",
        "/up/passwd",
    ] {
        assert!(
            matches!(get(&v, name).await, Err(VolumeError::NotFound { .. })),
            "{name}"
        );
        assert!(
            matches!(v.stat(&p(name)).await, Err(VolumeError::NotFound { .. })),
            "{name}"
        );
    }
    assert!(matches!(
        put(&v, "/out", b"x").await,
        Err(VolumeError::Forbidden { .. })
    ));
    assert!(matches!(
        put(&v, "/outdir/new", b"x").await,
        Err(VolumeError::Conflict { .. })
    ));
    v.shutdown().await.unwrap();
    drop(v);
    f.symlinks = Symlinks::InsideRoot;
    let v = f.open().await;
    assert_eq!(get(&v, "/in").await.unwrap(), b"r");
    for name in [
        "/out",
        "/outdir/secret",
        "/own/tmp",
        "/own/owner.lock",
        "/up/passwd",
    ] {
        assert!(
            matches!(get(&v, name).await, Err(VolumeError::NotFound { .. })),
            "{name}"
        );
    }
    assert!(
        put(&v, "/own/tmp/x", b"x").await.is_err() && put(&v, "/outdir/x", b"x").await.is_err()
    );
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"s");
    assert_eq!(v.list(&ResourcePath::root()).await.unwrap().len(), 2);
}

/// A directory that is swapped for a link out of the root while it is used never leads there.
#[tokio::test]
async fn a_race_with_a_symbolic_link_never_leaves_the_root() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for symlinks in [Symlinks::Refuse, Symlinks::InsideRoot] {
        let mut f = Fixture::new(false);
        f.symlinks = symlinks;
        f.durability = Durability::Relaxed;
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("a"), b"secret").unwrap();
        let v = f.open().await;
        v.mkcol(&p("/d"), unchecked()).await.unwrap();
        let (root, stop) = (f.root(), Arc::new(AtomicBool::new(false)));
        symlink(outside.path(), root.join("link")).unwrap();
        let swapper = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let dir = std::fs::File::open(&root).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(&dir, "d", &dir, "link", flags).unwrap();
                    std::thread::yield_now();
                }
            })
        };
        for i in 0..20 {
            // Lands in the directory or is refused, as the swap has it.
            let _ = put(&v, &format!("/d/{i}"), b"x").await;
            assert_ne!(get(&v, "/d/a").await.ok().as_deref(), Some(&b"secret"[..]));
            let _ = v.remove(&p("/d/a"), unchecked()).await;
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_dropped_upload_leaves_the_old_content_and_no_litter() {
    let f = Fixture::new(true);
    let v = f.open().await;
    put(&v, "/a", b"old").await.unwrap();
    let mut up = v
        .create(&p("/a"), IoContext::default(), None)
        .await
        .unwrap();
    up.write(Bytes::from_static(b"new")).await.unwrap();
    drop(up);
    v.inner.cleaner.finish();
    assert!(f.litter().is_empty());
    assert_eq!(get(&v, "/a").await.unwrap(), b"old");
    let mut up = v
        .create(&p("/a"), IoContext::default(), None)
        .await
        .unwrap();
    up.write(Bytes::from_static(b"new")).await.unwrap();
    assert!(matches!(
        up.commit(Box::new(|_| false)).await,
        Err(VolumeError::PreconditionFailed { .. })
    ));
    assert_eq!(get(&v, "/a").await.unwrap(), b"old");
}

#[tokio::test]
async fn a_reader_keeps_the_version_it_opened() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        put(&v, "/a", b"old").await.unwrap();
        let (_, reader) = v.open_read(&p("/a"), IoContext::default()).await.unwrap();
        put(&v, "/a", b"new").await.unwrap();
        assert_eq!(&reader.read(0, 9).await.unwrap().0[..], b"old");
        v.remove(&p("/a"), unchecked()).await.unwrap();
        assert_eq!(&reader.read(0, 9).await.unwrap().0[..], b"old");
    }
}

/// The file is the gateway's from then on, with a client's program in it.
#[tokio::test]
async fn no_new_version_runs_as_its_owner_because_the_old_one_did() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new(true);
    let v = f.open().await;
    let at = |name: &str| f.root().join(name);
    let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    for name in ["streamed", "whole", "copied", "d/a", "marked"] {
        std::fs::write(at(name), "by somebody else").unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o6755)).unwrap();
    }
    put(&v, "/streamed", b"a program").await.unwrap();
    let whole = vec![Bytes::from_static(b"a program")];
    v.put_whole(&p("/whole"), IoContext::default(), whole, unchecked())
        .await
        .unwrap();
    for (from, to) in [("/copied", "/copy"), ("/d", "/e")] {
        v.copy(&p(from), None, &p(to), false, true, unchecked())
            .await
            .unwrap();
    }
    let changes = Vec::new();
    v.patch_props(&p("/marked"), changes, Some(true), unchecked())
        .await
        .unwrap();
    for name in ["streamed", "whole", "copy", "e/a", "marked"] {
        assert_eq!(mode(name), 0o755, "{name}");
    }
    assert_eq!((mode("copied"), mode("d/a")), (0o6755, 0o6755));
}

#[tokio::test]
async fn dead_properties_survive_put_move_copy_and_reopen_and_507_when_too_large() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let prop = DeadProp {
        namespace: "n".into(),
        name: "x".into(),
        xml: b"<x/>".to_vec(),
    };
    put(&v, "/a", b"1").await.unwrap();
    v.patch_props(
        &p("/a"),
        vec![PropChange::Set(prop.clone())],
        Some(true),
        unchecked(),
    )
    .await
    .unwrap();
    put(&v, "/a", b"2").await.unwrap();
    v.rename(&p("/a"), &p("/b"), true, unchecked())
        .await
        .unwrap();
    v.copy(&p("/b"), None, &p("/c"), true, true, unchecked())
        .await
        .unwrap();
    crash(v).await;
    let v = f.open().await;
    for name in ["/b", "/c"] {
        assert_eq!(v.props(&p(name)).await.unwrap(), vec![prop.clone()]);
        assert!(v.stat(&p(name)).await.unwrap().executable);
    }
    let large = DeadProp {
        xml: vec![b'x'; 70_000],
        ..prop.clone()
    };
    let set = vec![
        PropChange::Remove {
            ns: "n".into(),
            name: "x".into(),
        },
        PropChange::Set(large),
    ];
    let no = Box::new(|_: Option<&Meta>| false);
    let refused = v.patch_props(&p("/b"), set.clone(), Some(false), no).await;
    assert!(matches!(
        refused,
        Err(VolumeError::PreconditionFailed { .. })
    ));
    let refused = v.patch_props(&p("/b"), set, Some(false), unchecked()).await;
    assert!(matches!(refused, Err(VolumeError::NoSpace { .. })));
    assert_eq!(v.props(&p("/b")).await.unwrap(), vec![prop]);
    assert!(v.stat(&p("/b")).await.unwrap().executable);
}

#[tokio::test]
async fn lock_null_resources_become_real_by_put_or_go() {
    let f = Fixture::new(true);
    let v = f.open().await;
    assert!(v.touch_locked(&p("/a")).await.unwrap().lock_null);
    assert!(matches!(
        v.touch_locked(&p("/a")).await,
        Err(VolumeError::Exists { .. })
    ));
    v.touch_locked(&p("/b")).await.unwrap();
    v.touch_locked(&p("/c")).await.unwrap();
    crash(v).await;
    let v = f.open().await;
    assert!(v.stat(&p("/a")).await.unwrap().lock_null);
    put(&v, "/a", b"x").await.unwrap();
    v.clear_lock_null(&p("/b")).await.unwrap();
    for (name, goes) in [
        ("/a", false),
        ("/b", false),
        ("/c", true),
        ("/never", false),
    ] {
        assert_eq!(
            v.remove_lock_null(&p(name), || true).await.unwrap(),
            goes,
            "{name}"
        );
    }
    assert!(
        !v.stat(&p("/a")).await.unwrap().lock_null && !v.stat(&p("/b")).await.unwrap().lock_null
    );
}

#[tokio::test]
async fn a_quota_is_enforced_to_the_byte_and_freed_by_delete() {
    let mut f = Fixture::new(false);
    f.quota = Some(10);
    let v = f.open().await;
    put(&v, "/a", b"123456").await.unwrap();
    assert!(matches!(
        put(&v, "/b", b"12345").await,
        Err(VolumeError::NoSpace { .. })
    ));
    put(&v, "/b", b"1234").await.unwrap();
    put(&v, "/a", b"654321").await.unwrap();
    assert_eq!(
        v.quota().await.unwrap(),
        Quota {
            used: 10,
            available: 0
        }
    );
    v.shutdown().await.unwrap();
    drop(v);
    let v = f.open().await;
    assert_eq!(v.quota().await.unwrap().used, 10);
    v.remove(&p("/a"), unchecked()).await.unwrap();
    assert_eq!(
        v.quota().await.unwrap(),
        Quota {
            used: 4,
            available: 6
        }
    );
}

#[tokio::test]
async fn a_quota_that_was_away_for_a_run_is_counted_anew() {
    let mut f = Fixture::new(false);
    let counted = async |v: &Volume| {
        while v.inner.usage.is_counting() {
            tokio::task::yield_now().await;
        }
    };
    for (quota, name) in [(Some(100), "/a"), (None, "/b")] {
        f.quota = quota;
        let v = f.open().await;
        counted(&v).await;
        put(&v, name, b"123456").await.unwrap();
        v.shutdown().await.unwrap();
    }
    f.quota = Some(100);
    let v = f.open().await;
    counted(&v).await;
    assert_eq!(v.quota().await.unwrap().used, 12);
}

/// A file is in use once, whatever the number of its names, and as long as it has one.
#[tokio::test]
async fn a_file_with_several_names_is_in_a_quota_until_the_last_goes() {
    for cached in [false, true] {
        let mut f = Fixture::new(cached);
        f.quota = Some(1 << 20);
        let v = f.open().await;
        while v.inner.usage.is_counting() {
            std::thread::yield_now();
        }
        let used = async || v.quota().await.unwrap().used;
        let link = |from: &str, to: &str| {
            std::fs::hard_link(f.root().join(from), f.root().join(to)).unwrap();
        };
        put(&v, "/a", &[1; 1000]).await.unwrap();
        link("a", "b");
        v.remove(&p("/a"), unchecked()).await.unwrap();
        assert_eq!(used().await, 1000);
        link("b", "c");
        v.rename(&p("/b"), &p("/c"), true, unchecked())
            .await
            .unwrap();
        assert_eq!(used().await, 1000);
        assert_eq!(get(&v, "/c").await.unwrap(), [1; 1000]);
        link("c", "d");
        put(&v, "/d", &[2; 10]).await.unwrap();
        assert_eq!(used().await, 1010);
        v.mkcol(&p("/in"), unchecked()).await.unwrap();
        link("c", "in/c");
        v.remove(&p("/in"), unchecked()).await.unwrap();
        v.inner.cleaner.finish();
        assert_eq!(used().await, 1010);
        v.remove(&p("/c"), unchecked()).await.unwrap();
        assert_eq!(used().await, 10);
        // While it is being settled a file still has its name among the dirty ones.
        let (meta, _) = put(&v, "/s", &[3; 1000]).await.unwrap();
        v.inner.cache.attach_backing(v.clone());
        assert_eq!(v.inner.cache.flush_all().await.unwrap().failed, 0);
        link("s", &format!(".tierdav/dirty/{:016x}", meta.file_id.0));
        v.remove(&p("/s"), unchecked()).await.unwrap();
        assert_eq!(used().await, 10);
        // What has another name frees nothing: it is not replaced by as much.
        put(&v, "/x", &[4; 600_000]).await.unwrap();
        link("x", "../outside");
        let over = put(&v, "/x", &[5; 600_000]).await;
        assert!(matches!(over, Err(VolumeError::NoSpace { .. })));
        // A name outside is no use of the root: the next start counts.
        put(&v, "/x", &[6; 100]).await.unwrap();
        assert_eq!(used().await, 600_110);
        v.shutdown().await.unwrap();
        drop(v);
        let v = f.open().await;
        while v.inner.usage.is_counting() {
            std::thread::yield_now();
        }
        assert_eq!(v.quota().await.unwrap().used, 110);
        v.shutdown().await.unwrap();
        drop(v);
        let v = f.open().await;
        assert!(!v.inner.usage.is_counting());
        assert_eq!(v.quota().await.unwrap().used, 110);
        v.shutdown().await.unwrap();
    }
}

/// A request that was cut off, but whose change was to come, must not make one in what another process may have by then.
#[tokio::test]
async fn nothing_changes_after_a_shutdown() {
    use futures_util::FutureExt;
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        put(&v, "/a", b"a").await.unwrap();
        let mut upload = v
            .create(&p("/a"), IoContext::default(), None)
            .await
            .unwrap();
        upload.write(Bytes::from_static(b"late")).await.unwrap();
        v.shutdown().await.unwrap();
        let mut late = Box::pin(upload.commit(unchecked()));
        let path = p("/a");
        let mut removal = Box::pin(v.remove(&path, unchecked()));
        let next = f.open().await;
        for _ in 0..100 {
            assert!((&mut late).now_or_never().is_none());
            assert!((&mut removal).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        v.shutdown().await.unwrap();
        assert_eq!(get(&next, "/a").await.unwrap(), b"a");
    }
}

/// Changes that are under way when the count of a start ends are in its sum, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_count_of_a_start_ends_between_changes() {
    for round in 0..150 {
        let mut f = Fixture::new(false);
        f.quota = Some(1 << 30);
        std::fs::create_dir_all(f.root().join("d")).unwrap();
        std::fs::write(f.root().join("d/old"), [0; 1000]).unwrap();
        std::fs::write(f.root().join("gone"), [0; 100]).unwrap();
        let v = f.open().await;
        if round % 2 == 0 {
            v.remove(&p("/d"), unchecked()).await.unwrap();
        }
        put(&v, "/a", b"123456").await.unwrap();
        v.remove(&p("/gone"), unchecked()).await.unwrap();
        while v.inner.usage.is_counting() {
            std::thread::yield_now();
        }
        v.inner.cleaner.finish();
        let used = v.quota().await.unwrap().used;
        let expected = if round % 2 == 0 { 6 } else { 1006 };
        assert_eq!(used, expected, "round {round}");
        v.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn patches_make_new_versions() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let old = put(&v, "/a", b"hello world").await.unwrap().0;
    let mut up = v.patch(&p("/a"), IoContext::default()).await.unwrap();
    up.write_at(6, Bytes::from_static(b"there")).await.unwrap();
    up.write_at(11, Bytes::from_static(b"!")).await.unwrap();
    let new = up.commit(unchecked()).await.unwrap().0;
    assert_ne!(new.etag, old.etag);
    assert_eq!(get(&v, "/a").await.unwrap(), b"hello there!");
    let mut late = v.patch(&p("/a"), IoContext::default()).await.unwrap();
    late.truncate(1).await.unwrap();
    put(&v, "/a", b"other").await.unwrap();
    assert!(matches!(
        late.commit(unchecked()).await,
        Err(VolumeError::Unavailable { .. })
    ));
}

#[tokio::test]
async fn a_second_instance_and_a_wrong_pair_are_refused_by_name() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let text = f.try_open().await.err().unwrap().to_string();
    assert!(
        text.contains(&format!("pid {}", std::process::id())),
        "{text}"
    );
    put(&v, "/a", b"dirty").await.unwrap();
    v.shutdown().await.unwrap();
    drop(v);
    let away = f.dir.path().join("away");
    std::fs::rename(f.dir.path().join("cache"), &away).unwrap();
    let text = f.try_open().await.err().unwrap().to_string();
    assert!(text.contains("is the cache's volume mounted"), "{text}");
    let way_out = f.root().join(".tierdav/cache");
    assert!(
        text.contains(&format!("without the file {} the rest", way_out.display())),
        "{text}"
    );
    std::fs::remove_dir_all(f.dir.path().join("cache")).unwrap();
    std::fs::rename(&away, f.dir.path().join("cache")).unwrap();
    std::fs::rename(f.root(), &away).unwrap();
    std::fs::create_dir(f.root()).unwrap();
    let text = f.try_open().await.err().unwrap().to_string();
    assert!(text.contains("is the root's volume mounted"), "{text}");
}

/// A power cut: the tree as it was when it was last synced, log and cache as they are now.
#[tokio::test]
async fn the_log_rebuilds_all_that_was_acknowledged_over_a_tree_of_any_age() {
    let f = Fixture::new(true);
    let v = f.open().await;
    put(&v, "/base", b"base").await.unwrap();
    v.mkcol(&p("/olddir"), unchecked()).await.unwrap();
    checkpoint_now(&v);
    let mut trees = Vec::new();
    let snapshot = |trees: &mut Vec<PathBuf>| trees.push(f.copy_root(trees.len()));
    snapshot(&mut trees);
    put(&v, "/a", b"1").await.unwrap();
    snapshot(&mut trees);
    v.rename(&p("/a"), &p("/b"), true, unchecked())
        .await
        .unwrap();
    snapshot(&mut trees);
    put(&v, "/a", b"2").await.unwrap();
    snapshot(&mut trees);
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    v.rename(&p("/b"), &p("/d/b"), true, unchecked())
        .await
        .unwrap();
    snapshot(&mut trees);
    v.rename(&p("/d"), &p("/olddir"), true, unchecked())
        .await
        .unwrap();
    put(&v, "/base", b"newer").await.unwrap();
    put(&v, "/olddir/b", b"3").await.unwrap();
    snapshot(&mut trees);
    let prop = DeadProp {
        namespace: "n".into(),
        name: "x".into(),
        xml: b"<x/>".to_vec(),
    };
    v.patch_props(
        &p("/a"),
        vec![PropChange::Set(prop.clone())],
        None,
        unchecked(),
    )
    .await
    .unwrap();
    put(&v, "/gone", b"4").await.unwrap();
    v.remove(&p("/gone"), unchecked()).await.unwrap();
    v.inner.cleaner.finish();
    snapshot(&mut trees);
    let want = walk(&v).await;
    let etag = v.stat(&p("/olddir/b")).await.unwrap().etag;
    crash(v).await;
    let cache = f.copy_cache("cache.kept");
    for tree in trees {
        f.put_back(&tree, &cache);
        let v = f.open().await;
        assert_eq!(walk(&v).await, want, "{tree:?}");
        assert_eq!(v.stat(&p("/olddir/b")).await.unwrap().etag, etag);
        assert_eq!(v.props(&p("/a")).await.unwrap(), vec![prop.clone()]);
        v.inner.cleaner.finish();
        assert!(f.litter().is_empty());
        crash(v).await;
        let v = f.open().await;
        assert_eq!(walk(&v).await, want, "again, {tree:?}");
        crash(v).await;
    }
}

/// A power cut after a flush: the bytes are in the tree and have left the cache, and that it is so is only in the log.
#[tokio::test]
async fn what_was_flushed_and_evicted_is_whole_over_a_tree_that_does_not_know_of_it() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let large: Vec<u8> = (0..5 << 20).map(|i| (i / 7 % 251) as u8).collect();
    let contents = [("/small", b"small".to_vec()), ("/large", large)];
    let mut ids = Vec::new();
    for (path, content) in &contents {
        put(&v, path, content).await.unwrap();
        ids.push(v.stat(&p(path)).await.unwrap().file_id);
    }
    put(&v, "/deleted", b"deleted").await.unwrap();
    ids.push(v.stat(&p("/deleted")).await.unwrap().file_id);
    let want = [
        v.stat(&p("/small")).await.unwrap(),
        v.stat(&p("/large")).await.unwrap(),
    ];
    let tree = f.dir.path().join("tree");
    copy_tree(&f.root(), &tree);
    for (id, (_, content)) in ids.iter().zip(&contents) {
        std::fs::write(tree.join(format!(".tierdav/dirty/{id}")), content).unwrap();
    }
    v.inner.cache.attach_backing(v.clone());
    v.inner.cache.flush_all().await.unwrap();
    v.inner
        .note_settled(v.inner.log.as_ref().unwrap(), &ids)
        .unwrap();
    v.inner.cache.evict_all_clean().await.unwrap();
    v.remove(&p("/deleted"), unchecked()).await.unwrap();
    crash(v).await;
    std::fs::remove_dir_all(f.root()).unwrap();
    std::fs::rename(&tree, f.root()).unwrap();
    for _ in 0..2 {
        let v = f.open().await;
        for ((path, content), want) in contents.iter().zip(&want) {
            assert_eq!(get(&v, path).await.unwrap(), *content);
            let found = v.stat(&p(path)).await.unwrap();
            assert_eq!((&found.etag, found.modified), (&want.etag, want.modified));
        }
        assert!(v.stat(&p("/deleted")).await.is_err());
        assert!(v.inner.cache.dirty_files().is_empty());
        assert!(start::dirty_ids(&v.inner.tree).unwrap().is_empty());
        crash(v).await;
    }
}

/// A power cut: the cache's disk has forgotten what was replaced or deleted since, the tree's does not know of anything yet.
#[tokio::test]
async fn what_was_overwritten_and_then_deleted_or_moved_does_not_come_back() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let large = |n: u8| vec![n; 200_000];
    for name in ["/deleted", "/moved", "/target", "/d"] {
        match name {
            "/d" => v.mkcol(&p("/d"), unchecked()).await.unwrap(),
            name => drop(put(&v, name, &large(1)).await.unwrap()),
        }
    }
    put(&v, "/d/below", &large(1)).await.unwrap();
    v.inner.cache.attach_backing(v.clone());
    assert_eq!(v.inner.cache.flush_all().await.unwrap().failed, 0);
    checkpoint_now(&v);
    let tree = f.dir.path().join("tree");
    copy_tree(&f.root(), &tree);
    for name in ["/deleted", "/moved", "/d/below"] {
        put(&v, name, &large(2)).await.unwrap();
    }
    v.remove(&p("/deleted"), unchecked()).await.unwrap();
    v.rename(&p("/moved"), &p("/target"), true, unchecked())
        .await
        .unwrap();
    put(&v, "/target", &large(3)).await.unwrap();
    v.remove(&p("/d"), unchecked()).await.unwrap();
    v.inner.cleaner.finish();
    let want = walk(&v).await;
    assert_eq!(want.len(), 1);
    crash(v).await;
    std::fs::remove_dir_all(f.root()).unwrap();
    std::fs::rename(&tree, f.root()).unwrap();
    for _ in 0..2 {
        let v = f.open().await;
        assert_eq!(walk(&v).await, want);
        v.inner.cleaner.finish();
        assert!(f.litter().is_empty());
        crash(v).await;
    }
}

/// A power cut where the file has all its bytes and says so, while its name was not durable, nor, unless it was `told`, the log's
/// word that it was settled.
#[tokio::test]
async fn a_version_that_is_whole_but_lost_its_name_gets_it_back() {
    a_whole_version_gets_its_name_back(false).await;
    a_whole_version_gets_its_name_back(true).await;
}

async fn a_whole_version_gets_its_name_back(told: bool) {
    let f = Fixture::new(true);
    let v = f.open().await;
    let large = |n: u8| vec![n; 200_000];
    put(&v, "/a", &large(1)).await.unwrap();
    v.inner.cache.attach_backing(v.clone());
    assert_eq!(v.inner.cache.flush_all().await.unwrap().failed, 0);
    v.inner.cache.evict_all_clean().await.unwrap();
    checkpoint_now(&v);
    let applied = f.applied();
    let old = f.dir.path().join("old");
    copy_tree(&f.root().join("a"), &old);
    let (meta, _) = put(&v, "/a", &large(2)).await.unwrap();
    let log_dir = f.dir.path().join("cache/log");
    let log_then = f.dir.path().join("log");
    copy_tree(&log_dir, &log_then);
    assert_eq!(v.inner.cache.flush_all().await.unwrap().failed, 0);
    if told {
        let log = v.inner.log.as_ref().unwrap();
        v.inner.note_settled(log, &[meta.file_id]).unwrap();
    }
    v.inner.cache.evict_all_clean().await.unwrap();
    crash(v).await;
    if !told {
        std::fs::remove_dir_all(&log_dir).unwrap();
        std::fs::rename(&log_then, &log_dir).unwrap();
    }
    let unnamed = f
        .root()
        .join(format!(".tierdav/tmp/{:016x}", meta.file_id.0));
    std::fs::rename(f.root().join("a"), unnamed).unwrap();
    std::fs::rename(&old, f.root().join("a")).unwrap();
    f.say_applied(&applied);
    for _ in 0..2 {
        let v = f.open().await;
        assert_eq!(v.stat(&p("/a")).await.unwrap().etag, meta.etag);
        assert!(get(&v, "/a").await.unwrap() == large(2));
        assert!(v.inner.cache.dirty_files().is_empty());
        crash(v).await;
    }
}

/// A crash when the file said already that it has all its bytes, while its dirty name was there and the cache still called its objects
/// dirty.
#[tokio::test]
async fn what_is_settled_is_not_flushed_once_more() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let content = vec![7; 200_000];
    let (meta, _) = put(&v, "/a", &content).await.unwrap();
    crash(v).await;
    let path = f.root().join("a");
    std::fs::write(&path, &content).unwrap();
    let file = File::open(&path).unwrap();
    let record = tree::get_identity(&file).unwrap().unwrap();
    assert_eq!(record.state, identity::State::Dirty);
    tree::set_mtime(&file, record.mtime_ns).unwrap();
    let settled = identity::Identity {
        state: identity::State::Inline,
        all_dirty: false,
        ..record
    };
    tree::set_identity(&file, &settled).unwrap();
    let v = f.open().await;
    assert!(v.inner.cache.dirty_files().is_empty());
    assert!(start::dirty_ids(&v.inner.tree).unwrap().is_empty());
    assert_eq!(v.stat(&p("/a")).await.unwrap().etag, meta.etag);
    assert!(get(&v, "/a").await.unwrap() == content);
}

/// Where a file system makes attributes durable later than names, the tree may be ahead of what is said to be applied.
#[tokio::test]
async fn a_tree_that_is_ahead_of_the_log_keeps_its_versions() {
    let f = Fixture::new(true);
    let v = f.open().await;
    put(&v, "/other", b"other").await.unwrap();
    let applied = f.applied();
    for n in 1..4 {
        put(&v, "/a", &vec![n; 200_000]).await.unwrap();
    }
    let want = walk(&v).await;
    crash(v).await;
    f.say_applied(&applied);
    for _ in 0..2 {
        let v = f.open().await;
        assert!(walk(&v).await == want);
        crash(v).await;
    }
}

/// A reader holds the file while somebody changes it in place; what is put back later has the old content and time.
#[tokio::test]
async fn what_was_changed_beside_the_gateway_is_never_promoted_as_the_version_before() {
    let f = Fixture::new(true);
    let v = f.open().await;
    let ours = vec![1; 100_000];
    put(&v, "/a", &ours).await.unwrap();
    let cache = v.inner.cache.clone();
    cache.attach_backing(v.clone());
    assert_eq!(cache.flush_all().await.unwrap().failed, 0);
    assert_eq!(cache.evict_all_clean().await.unwrap(), 1);
    let at = f.root().join("a");
    let time = std::fs::metadata(&at).unwrap().modified().unwrap();
    let (_, reader) = v.open_read(&p("/a"), IoContext::default()).await.unwrap();
    assert_eq!(get(&v, "/a").await.unwrap(), ours);
    let file = std::fs::File::options().write(true).open(&at).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![2; 100_000], 0).unwrap();
    cache.step().await;
    drop(reader);
    std::os::unix::fs::FileExt::write_all_at(&file, &ours, 0).unwrap();
    file.set_modified(time).unwrap();
    assert!(
        get(&v, "/a").await.unwrap() == ours,
        "what others wrote in between"
    );
}

/// A crash between the two renames of a MOVE over a collection, where the file system cannot exchange names.
#[tokio::test]
async fn what_was_set_aside_goes_back_to_its_name_unless_that_is_taken() {
    for (cached, taken) in [(false, false), (false, true), (true, false)] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        v.mkcol(&p("/d"), unchecked()).await.unwrap();
        put(&v, "/d/old", b"old").await.unwrap();
        crash(v).await;
        let tmp = f.root().join(".tierdav/tmp");
        symlink("d", tmp.join("00000000000000ab.back")).unwrap();
        std::fs::rename(f.root().join("d"), tmp.join("00000000000000ab")).unwrap();
        if taken {
            std::fs::create_dir(f.root().join("d")).unwrap();
        }
        for _ in 0..2 {
            let v = f.open().await;
            match taken {
                false => assert_eq!(get(&v, "/d/old").await.unwrap(), b"old"),
                true => assert!(v.list(&p("/d")).await.unwrap().is_empty()),
            }
            v.inner.cleaner.finish();
            assert!(f.litter().is_empty());
            crash(v).await;
        }
    }
}

fn checkpoint_now(v: &Volume) {
    start::checkpoint(&v.inner).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_changes_all_arrive() {
    let f = Fixture::new(true);
    let v = f.open().await;
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let v = Arc::clone(&v);
            tokio::spawn(async move {
                put(&v, &format!("/d/{i}"), format!("{i}").as_bytes())
                    .await
                    .unwrap();
                put(&v, "/d/shared", format!("{i}").as_bytes())
                    .await
                    .unwrap();
                v.rename(
                    &p(&format!("/d/{i}")),
                    &p(&format!("/d/m{i}")),
                    true,
                    unchecked(),
                )
                .await
                .unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let before = walk(&v).await;
    assert_eq!(before.len(), 66);
    crash(v).await;
    assert_eq!(walk(&*f.open().await).await, before);
}

#[derive(Debug, Clone)]
enum Op {
    Put(String, u8),
    Mkcol(String),
    Remove(String),
    Rename(String, String, bool),
    Copy(String, String, bool),
    Reopen(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let path = || "(/[ab]){1,3}";
    let op = prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(a, b)| Op::Put(a, b)),
        3 => path().prop_map(Op::Mkcol),
        1 => path().prop_map(Op::Remove),
        2 => (path(), path(), any::<bool>()).prop_map(|(a, b, o)| Op::Rename(a, b, o)),
        2 => (path(), path(), any::<bool>()).prop_map(|(a, b, o)| Op::Copy(a, b, o)),
        1 => any::<bool>().prop_map(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..30)
}

type Model = BTreeMap<String, Option<Vec<u8>>>;

fn parent_ok(m: &Model, path: &str) -> bool {
    let parent = &path[..path.rfind('/').unwrap()];
    parent.is_empty() || matches!(m.get(parent), Some(None))
}

fn take(m: &mut Model, path: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let below = format!("{path}/");
    let names: Vec<String> = m
        .keys()
        .filter(|k| *k == path || k.starts_with(&below))
        .cloned()
        .collect();
    names
        .into_iter()
        .map(|k| (k[path.len()..].to_owned(), m.remove(&k).unwrap()))
        .collect()
}

/// The model's answer: whether the operation succeeds, the model changed accordingly.
fn expect(m: &mut Model, op: &Op) -> bool {
    match op {
        Op::Put(path, b) => {
            let ok = parent_ok(m, path) && !matches!(m.get(path), Some(None));
            if ok {
                m.insert(path.clone(), Some(vec![*b; *b as usize]));
            }
            ok
        }
        Op::Mkcol(path) => {
            let ok = parent_ok(m, path) && !m.contains_key(path);
            if ok {
                m.insert(path.clone(), None);
            }
            ok
        }
        Op::Remove(path) => !take(m, path).is_empty(),
        Op::Rename(from, to, overwrite) | Op::Copy(from, to, overwrite) => {
            let overlap = p(from).is_within(&p(to)) || p(to).is_within(&p(from));
            if overlap
                || !m.contains_key(from)
                || !parent_ok(m, to)
                || (m.contains_key(to) && !overwrite)
            {
                return false;
            }
            let moved = take(m, from);
            if matches!(op, Op::Copy(..)) {
                m.extend(moved.iter().map(|(k, d)| (format!("{from}{k}"), d.clone())));
            }
            take(m, to);
            m.extend(moved.into_iter().map(|(k, d)| (format!("{to}{k}"), d)));
            true
        }
        Op::Reopen(_) => true,
    }
}

async fn perform(f: &Fixture, v: &mut Arc<Volume>, op: &Op) -> bool {
    match op {
        Op::Put(path, b) => put(v, path, &vec![*b; *b as usize]).await.is_ok(),
        Op::Mkcol(path) => v.mkcol(&p(path), unchecked()).await.is_ok(),
        Op::Remove(path) => v.remove(&p(path), unchecked()).await.is_ok(),
        Op::Rename(a, b, o) => v.rename(&p(a), &p(b), *o, unchecked()).await.is_ok(),
        Op::Copy(a, b, o) => v
            .copy(&p(a), None, &p(b), *o, true, unchecked())
            .await
            .is_ok(),
        Op::Reopen(clean) => {
            if *clean {
                v.shutdown().await.unwrap();
            } else {
                crash(Arc::clone(v)).await;
            }
            *v = f.open().await;
            true
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_changes_agrees_with_a_plain_model(ops in ops(), cached: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let f = Fixture::new(cached);
            let mut v = f.open().await;
            let mut model = Model::new();
            for op in &ops {
                let want = expect(&mut model, op);
                assert_eq!(perform(&f, &mut v, op).await, want, "{op:?}");
                assert_eq!(walk(&v).await, model, "after {op:?}");
            }
            crash(v).await;
            let v = f.open().await;
            assert_eq!(walk(&v).await, model);
            v.inner.cleaner.finish();
            assert!(f.litter().is_empty());
        });
    }
}
