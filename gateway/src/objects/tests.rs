#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tiering::{
    Action, ActionKind, CacheView, Event, FileId, Nanos, ObjectId, Policy, PolicyConfig, Reason,
    Tier,
};

use super::io::Faults;
use super::*;
use crate::metrics::Metrics;
use crate::recorder::Recorder;

const ENOSPC: i32 = 28;

/// Places everything in the cache and proposes nothing.
pub(super) struct AllIn;
impl Policy for AllIn {
    fn name(&self) -> &'static str {
        "all-in"
    }
    fn configure(&mut self, _: &PolicyConfig) -> bool {
        false
    }
    fn place_write(&mut self, _: Nanos, _: ObjectId, _: u32, _: &CacheView) -> Tier {
        Tier::Cache
    }
    fn on_event(&mut self, _: Nanos, _: &Event, _: &CacheView, _: &mut Vec<Action>) {}
    fn tick(&mut self, _: Nanos, _: &CacheView, _: &mut Vec<Action>) {}
}

/// A namespace without files; placeholders vanish when asked.
pub(super) struct Nothing;
impl Backing for Nothing {
    fn open_dirty(&self, _: FileId) -> io::Result<Arc<File>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn open_clean(&self, _: FileId) -> io::Result<Option<Arc<File>>> {
        Ok(None)
    }
    fn settle(&self, files: &[FileId]) -> Vec<io::Result<()>> {
        files.iter().map(|_| Ok(())).collect()
    }
}

struct OneFile(Arc<File>);
impl Backing for OneFile {
    fn open_dirty(&self, _: FileId) -> io::Result<Arc<File>> {
        Ok(self.0.clone())
    }
    fn open_clean(&self, _: FileId) -> io::Result<Option<Arc<File>>> {
        Ok(Some(self.0.clone()))
    }
    fn settle(&self, files: &[FileId]) -> Vec<io::Result<()>> {
        files.iter().map(|_| Ok(())).collect()
    }
}

struct Rig {
    dir: tempfile::TempDir,
    cache: Arc<ObjectCache>,
    faults: Faults,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let cache = open(&dir, &faults);
        Rig { dir, cache, faults }
    }
    fn tree(&self) -> Arc<File> {
        Arc::new(tempfile::tempfile_in(self.dir.path()).unwrap())
    }
    fn cached_files(&self) -> usize {
        let list = self.cache.dir.as_ref().unwrap().list().unwrap();
        list.objects.len() + list.temporary.len() + list.foreign.len()
    }
    async fn put(&self, file: FileId, tree: &Arc<File>, data: &[u8]) {
        let mut s = self.cache.stage(file, tree.clone(), IoContext::default());
        s.write(Bytes::copy_from_slice(data)).await.unwrap();
        s.finish().await.unwrap().publish();
    }
    async fn get(&self, file: FileId, tree: &Arc<File>, len: u64) -> Result<Vec<u8>, CacheError> {
        all(&self
            .cache
            .reader(file, len, tree.clone(), IoContext::default()))
        .await
    }
}

fn open(dir: &tempfile::TempDir, faults: &Faults) -> Arc<ObjectCache> {
    let opts = CacheOptions {
        cache_dir: Some(dir.path().join("cache")),
        object_bytes: 64,
        capacity: Capacity::Bytes(1000),
        ..CacheOptions::uncached()
    };
    let metrics = Arc::new(Metrics::new());
    let cache = ObjectCache::open_with_faults(
        opts,
        Recorder::disabled(),
        metrics,
        faults.clone(),
        Faults::default(),
    )
    .unwrap();
    cache.core.lock().policy = Box::new(AllIn);
    cache
}

async fn all(reader: &ContentReader) -> Result<Vec<u8>, CacheError> {
    let mut out = Vec::new();
    while (out.len() as u64) < reader.len() {
        out.extend(reader.read(out.len() as u64, 1000).await?.0);
    }
    Ok(out)
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 % 251) as u8).collect()
}

/// Of objects that are small enough for the log it carries so many, and the others are synced.
#[tokio::test]
async fn a_version_of_many_small_objects_is_no_large_record() {
    let dir = tempfile::tempdir().unwrap();
    let opts = CacheOptions {
        cache_dir: Some(dir.path().join("cache")),
        object_bytes: INLINE_BYTES_MAX,
        capacity: Capacity::Bytes(8 << 20),
        ..CacheOptions::uncached()
    };
    let cache = ObjectCache::open(opts, Recorder::disabled(), Arc::new(Metrics::new())).unwrap();
    cache.core.lock().policy = Box::new(AllIn);
    let tree = Arc::new(tempfile::tempfile_in(dir.path()).unwrap());
    let mut s = cache.stage(FileId(1), tree, IoContext::default());
    s.write(Bytes::from(pattern(3 << 20))).await.unwrap();
    let staged = s.finish().await.unwrap();
    let inline = staged.dirty.iter().filter_map(|o| o.inline.as_ref());
    assert_eq!(inline.map(Bytes::len).sum::<usize>(), 1 << 20);
    assert_eq!(staged.dirty.len(), 48);
    staged.publish();
}

/// The cache loses one of several objects before it has its name, and the backing tier is full.
#[tokio::test]
async fn an_upload_that_fails_at_its_end_gives_back_all_that_it_took() {
    let rig = Rig::new();
    let mut s = rig.cache.stage(FileId(1), rig.tree(), IoContext::default());
    s.write(Bytes::from(pattern(257))).await.unwrap();
    s.truncate(256).await.unwrap();
    let dir = rig.cache.dir.as_ref().unwrap();
    let temporary = dir.list().unwrap().temporary;
    assert_eq!(temporary.len(), 4);
    let second = temporary.iter().find(|p| {
        let name = p.file_name().unwrap().to_str().unwrap();
        name.starts_with(&ObjectId::new(FileId(1), 1).to_string())
    });
    std::fs::remove_file(dir.objects_dir().join(second.unwrap())).unwrap();
    rig.cache.tree_faults.fail_write_at(0, ENOSPC);
    assert!(matches!(s.finish().await, Err(CacheError::NoSpace)));
    let status = rig.cache.status();
    assert_eq!((status.staged_bytes, status.used_bytes), (0, 0));
    assert_eq!(rig.cached_files(), 0);
}

#[tokio::test]
async fn dirty_objects_survive_reopen_are_flushed_evicted_and_promoted() {
    let mut rig = Rig::new();
    let (file, tree, data) = (FileId(5), rig.tree(), pattern(200));
    rig.put(file, &tree, &data).await;
    assert_eq!(rig.get(file, &tree, 200).await.unwrap(), data);
    rig.cache = open(&rig.dir, &rig.faults);
    assert_eq!(rig.cache.dirty_files(), [file]);
    assert_eq!(rig.get(file, &tree, 200).await.unwrap(), data);
    rig.cache.attach_backing(Arc::new(OneFile(tree.clone())));
    let report = rig.cache.flush_all().await.unwrap();
    assert_eq!((report.objects, report.failed), (4, 0));
    assert!(rig.cache.dirty_files().is_empty());
    for kind in [ActionKind::Evict, ActionKind::Promote] {
        for index in 0..4 {
            let id = ObjectId::new(file, index);
            rig.cache.core.lock().queue.push(Action {
                kind,
                id,
                reason: Reason::FirstRead,
            });
        }
        let step = rig.cache.step().await;
        assert_eq!((step.moved, step.failed), (4, 0));
        assert_eq!(rig.get(file, &tree, 200).await.unwrap(), data);
        assert_eq!(
            rig.cached_files(),
            if kind == ActionKind::Evict { 0 } else { 4 }
        );
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_throttle() {
    let rig = Rig::new();
    let tree = rig.tree();
    rig.put(FileId(1), &tree, &pattern(64)).await;
    let throttle = || rig.cache.throttle.lock();
    throttle().set_rates(1, 0);
    throttle().take(rig.cache.recorder.now(), 1 << 40);
    let flush = super::migrator::flush_action(FileId(1), (0, tiering::Reason::FirstRead));
    assert!(rig.cache.core.lock().queue.push(flush));
    let migrator = rig.cache.start_migrator(Arc::new(OneFile(tree)));
    while rig.cache.core.lock().queue.lengths() != [0; 3] {
        tokio::task::yield_now().await;
    }
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(60), migrator.stop());
    stopped.await.unwrap();
    assert_eq!(rig.cache.dirty_files(), [FileId(1)]);
}

#[tokio::test]
async fn half_of_what_is_free_is_as_much_once_the_cache_holds_a_part_of_it() {
    let mut rig = Rig::new();
    let half_of = |free| CacheOptions {
        cache_dir: Some(rig.dir.path().join("cache")),
        capacity: Capacity::HalfOf { free, most: 1000 },
        ..rig.cache.opts.clone()
    };
    let open = |opts| {
        let metrics = Arc::new(Metrics::new());
        ObjectCache::open(opts, Recorder::disabled(), metrics).unwrap()
    };
    assert_eq!(open(half_of(1200)).capacity_bytes, 600);
    let tree = rig.tree();
    rig.put(FileId(1), &tree, &pattern(200)).await;
    assert_eq!(open(half_of(1000)).capacity_bytes, 600);
    assert_eq!(open(half_of(1900)).capacity_bytes, 1000);
    rig.cache = open(half_of(0));
    assert_eq!(rig.get(FileId(1), &tree, 200).await.unwrap(), pattern(200));
}

#[tokio::test]
async fn failed_promotion_leaves_the_old_copy_serving_and_no_debris() {
    let rig = Rig::new();
    let (file, tree, data) = (FileId(6), rig.tree(), pattern(64));
    rig.cache.set_write_around(true);
    rig.put(file, &tree, &data).await;
    rig.cache.attach_backing(Arc::new(OneFile(tree.clone())));
    let id = ObjectId::new(file, 0);
    rig.faults.fail_write_at(10, ENOSPC);
    rig.cache.core.lock().queue.push(Action {
        kind: ActionKind::Promote,
        id,
        reason: Reason::FirstRead,
    });
    assert_eq!(rig.cache.step().await.failed, 1);
    assert_eq!(rig.cached_files(), 0);
    assert_eq!(rig.get(file, &tree, 64).await.unwrap(), data);
}

#[tokio::test]
async fn full_cache_tier_never_fails_a_write() {
    let rig = Rig::new();
    let (file, tree, data) = (FileId(7), rig.tree(), pattern(150));
    rig.faults.fail_write_at(70, ENOSPC);
    rig.put(file, &tree, &data).await;
    rig.faults.clear();
    assert_eq!(rig.get(file, &tree, 150).await.unwrap(), data);
    assert_eq!(rig.cache.status().staged_bytes, 0);
}

#[tokio::test]
async fn forgotten_version_stays_readable_until_unpinned() {
    let rig = Rig::new();
    let (file, tree, data) = (FileId(8), rig.tree(), pattern(100));
    rig.put(file, &tree, &data).await;
    let reader = rig
        .cache
        .reader(file, 100, tree.clone(), IoContext::default());
    rig.cache.forget(file, 100);
    assert_eq!(all(&reader).await.unwrap(), data);
    drop(reader);
    assert_eq!(rig.cached_files(), 0);
    assert_eq!(rig.cache.status().used_bytes, 0);
}

#[tokio::test]
async fn patched_version_leaves_the_old_one_alone_and_dropped_staging_leaves_nothing() {
    let rig = Rig::new();
    let (file, tree, data) = (FileId(9), rig.tree(), pattern(150));
    rig.put(file, &tree, &data).await;
    let reader = rig
        .cache
        .reader(file, 150, tree.clone(), IoContext::default());
    let (new, new_tree) = (FileId(10), rig.tree());
    let mut s = rig
        .cache
        .stage_from(&reader, new, new_tree.clone(), IoContext::default())
        .await
        .unwrap();
    s.write_at(60, Bytes::from_static(b"0123456789"))
        .await
        .unwrap();
    s.truncate(140).await.unwrap();
    s.finish().await.unwrap().publish();
    let mut want = data[..140].to_vec();
    want[60..70].copy_from_slice(b"0123456789");
    assert_eq!(rig.get(new, &new_tree, 140).await.unwrap(), want);
    assert_eq!(all(&reader).await.unwrap(), data);
    let before = rig.cached_files();
    let s = rig
        .cache
        .stage_from(&reader, FileId(11), rig.tree(), IoContext::default())
        .await
        .unwrap();
    drop(s);
    assert_eq!(rig.cached_files(), before);
}

#[tokio::test]
async fn a_change_of_a_part_takes_room_for_that_part_only() {
    let rig = Rig::new();
    let used = || rig.cache.status().used_bytes;
    // 13 objects of 64 bytes; the cache holds 1000.
    let (file, tree, data) = (FileId(9), rig.tree(), pattern(832));
    rig.put(file, &tree, &data).await;
    let change = |new: u64, parts: &'static [u64]| {
        let reader = rig
            .cache
            .reader(file, 832, tree.clone(), IoContext::default());
        let (cache, new_tree) = (rig.cache.clone(), rig.tree());
        async move {
            let mut s = cache
                .stage_from(&reader, FileId(new), new_tree, IoContext::default())
                .await
                .unwrap();
            for at in parts {
                s.write_at(*at, Bytes::from_static(b"0123456789"))
                    .await
                    .unwrap();
            }
            s.finish().await.unwrap()
        }
    };
    let staged = change(10, &[64, 640]).await;
    assert!(!staged.tree_written && staged.dirty.len() == 13);
    assert_eq!(used(), 832 + 2 * 64);
    drop(staged);
    assert_eq!(used(), 832);
    // What finds no room goes to the tree, and the rest is still shared.
    let staged = change(11, &[64, 192, 640]).await;
    assert!(staged.tree_written && staged.dirty.len() == 12);
    assert_eq!(used(), 832 + 2 * 64);
    staged.publish();
    rig.cache.forget(file, 832);
    assert_eq!(used(), 832 - 64);
    assert_eq!(rig.cached_files(), 12);
    rig.cache.forget(FileId(11), 832);
    assert_eq!((used(), rig.cached_files()), (0, 0));
}

#[tokio::test]
async fn damaged_dirty_object_is_an_error_and_a_damaged_clean_one_is_served_by_the_tree() {
    let mut rig = Rig::new();
    let (file, tree, data) = (FileId(12), rig.tree(), pattern(64));
    rig.put(file, &tree, &data).await;
    let (object, _) = rig.cache.lookup(ObjectId::new(file, 0)).unwrap();
    let path = rig.cache.dir.as_ref().unwrap().path(&object);
    std::fs::write(&path, [0; 64]).unwrap();
    rig.cache = open(&rig.dir, &rig.faults);
    let error = rig.get(file, &tree, 64).await.unwrap_err();
    assert!(matches!(error, CacheError::Damaged { .. }), "{error}");
    std::fs::rename(&path, path.with_extension("c")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*tree, &data, 0).unwrap();
    rig.cache = open(&rig.dir, &rig.faults);
    assert_eq!(rig.get(file, &tree, 64).await.unwrap(), data);
    assert_eq!(rig.cached_files(), 0);
}

#[tokio::test]
async fn unreadable_dirty_object_is_an_error_and_an_unsynced_put_leaves_nothing() {
    let rig = Rig::new();
    let (file, tree, data) = (FileId(14), rig.tree(), pattern(64));
    rig.put(file, &tree, &data).await;
    rig.faults.fail_reads(5);
    assert!(rig.get(file, &tree, 64).await.is_err());
    rig.faults.clear();
    assert_eq!(rig.get(file, &tree, 64).await.unwrap(), data);
    let (object, _) = rig.cache.lookup(ObjectId::new(file, 0)).unwrap();
    let other = Stored {
        id: ObjectId::new(FileId(15), 0),
        ..object
    };
    rig.faults.fail_syncs(5);
    let dir = rig.cache.dir.as_ref().unwrap();
    assert!(dir.put(&other, &data, true).is_err());
    assert_eq!(rig.cached_files(), 1);
}

#[tokio::test]
async fn scrub_names_damage_and_keeps_the_only_copy() {
    let rig = Rig::new();
    let (tree, data) = (rig.tree(), pattern(128));
    let backing: Arc<dyn Backing> = Arc::new(OneFile(tree.clone()));
    rig.put(FileId(1), &tree, &data).await;
    let report = rig.cache.scrub(backing.clone(), true).await.unwrap();
    assert!(report.is_clean());
    assert_eq!((report.checked_objects, report.checked_bytes), (2, 128));
    let damage = |index| {
        let (object, _) = rig.cache.lookup(ObjectId::new(FileId(1), index)).unwrap();
        let path = rig.cache.dir.as_ref().unwrap().path(&object);
        std::fs::write(path, [1; 64]).unwrap();
    };
    damage(0);
    let report = rig.cache.scrub(backing.clone(), true).await.unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.findings[0].problem, Problem::DamagedDirty);
    assert_eq!(rig.cached_files(), 2);

    let rig = Rig::new();
    rig.put(FileId(1), &tree, &data).await;
    rig.cache.attach_backing(backing.clone());
    rig.cache.flush_all().await.unwrap();
    let (object, _) = rig.cache.lookup(ObjectId::new(FileId(1), 1)).unwrap();
    std::fs::write(rig.cache.dir.as_ref().unwrap().path(&object), [1; 64]).unwrap();
    let found = rig.cache.scrub(backing.clone(), false).await.unwrap();
    assert_eq!((found.problems, found.removed), (1, 0));
    let repaired = rig.cache.scrub(backing.clone(), true).await.unwrap();
    assert!(repaired.is_clean());
    assert_eq!(repaired.findings[0].problem, Problem::DamagedClean);
    assert_eq!(repaired.compared_objects, 1);
    assert_eq!(rig.get(FileId(1), &tree, 128).await.unwrap(), data);
}

#[tokio::test]
async fn scrub_removes_orphans_only_with_repair() {
    let rig = Rig::new();
    rig.put(FileId(1), &rig.tree(), &pattern(128)).await;
    let found = rig.cache.scrub(Arc::new(Nothing), false).await.unwrap();
    assert_eq!((found.problems, rig.cached_files()), (2, 2));
    let repaired = rig.cache.scrub(Arc::new(Nothing), true).await.unwrap();
    assert!(repaired.is_clean());
    assert_eq!(rig.cached_files(), 0);
}

#[tokio::test]
async fn drain_empties_the_cache_and_keeps_every_byte() {
    let rig = Rig::new();
    let (tree, data) = (rig.tree(), pattern(300));
    rig.put(FileId(1), &tree, &data).await;
    rig.cache.attach_backing(Arc::new(OneFile(tree.clone())));
    assert_eq!(rig.cache.drain().await.unwrap().failed, 0);
    assert_eq!(rig.cached_files(), 0);
    assert_eq!(rig.get(FileId(1), &tree, 300).await.unwrap(), data);
}

#[tokio::test]
async fn a_flushed_object_stays_in_the_cache_until_its_version_is_settled() {
    let rig = Rig::new();
    let (file, tree) = (FileId(1), rig.tree());
    rig.put(file, &tree, &pattern(128)).await;
    rig.cache.attach_backing(Arc::new(OneFile(tree.clone())));
    let act = |kind, index| Action {
        kind,
        id: ObjectId::new(file, index),
        reason: Reason::NotWanted,
    };
    let queue = |action| {
        rig.cache.core.lock().queue.push(action);
    };
    queue(act(ActionKind::Flush, 0));
    assert_eq!(
        rig.cache.step().await,
        StepReport {
            moved: 1,
            failed: 0
        }
    );
    queue(act(ActionKind::Evict, 0));
    // Refused, and the rest of the version flushed for it.
    assert_eq!(
        rig.cache.step().await,
        StepReport {
            moved: 1,
            failed: 1
        }
    );
    assert_eq!(rig.cached_files(), 2);
    queue(act(ActionKind::Evict, 0));
    assert_eq!(
        rig.cache.step().await,
        StepReport {
            moved: 1,
            failed: 0
        }
    );
    assert_eq!(rig.cached_files(), 1);
    assert_eq!(rig.get(file, &tree, 128).await.unwrap(), pattern(128));
}

#[tokio::test]
async fn what_goes_before_it_was_flushed_is_spared_once_and_what_lives_on_is_not() {
    let rig = Rig::new();
    let spared = |rig: &Rig| rig.cache.status().spared.bytes;
    rig.put(FileId(20), &rig.tree(), &pattern(150)).await;
    rig.cache.forget(FileId(20), 150);
    assert_eq!(spared(&rig), 150);
    // A version that nobody was told of.
    let mut s = rig
        .cache
        .stage(FileId(21), rig.tree(), IoContext::default());
    s.write(Bytes::from(pattern(100))).await.unwrap();
    drop(s.finish().await.unwrap());
    assert_eq!(spared(&rig), 150);

    // Appended to: the next version has the bytes, shared (the first object) and copied (the second).
    let (old, new, new_tree) = (FileId(22), FileId(23), rig.tree());
    let tree = rig.tree();
    rig.put(old, &tree, &pattern(100)).await;
    let reader = rig.cache.reader(old, 100, tree, IoContext::default());
    let mut s = rig
        .cache
        .stage_from(&reader, new, new_tree.clone(), IoContext::default())
        .await
        .unwrap();
    s.write_at(100, Bytes::from(pattern(20))).await.unwrap();
    s.finish().await.unwrap().publish();
    rig.cache.forget(old, 100);
    drop(reader);
    assert_eq!(spared(&rig), 150);
    rig.cache.forget(new, 120);
    assert_eq!(spared(&rig), 270);

    let (file, tree) = (FileId(24), rig.tree());
    rig.put(file, &tree, &pattern(100)).await;
    rig.cache.attach_backing(Arc::new(OneFile(tree)));
    assert_eq!(rig.cache.flush_all().await.unwrap().objects, 2);
    rig.cache.forget(file, 100);
    assert_eq!(spared(&rig), 270);
}

#[tokio::test]
async fn a_change_of_a_small_object_that_only_the_tree_has_goes_to_the_cache_while_there_is_room() {
    let rig = Rig::new();
    let (old, tree, data) = (FileId(9), rig.tree(), pattern(100));
    rig.cache.set_write_around(true);
    rig.put(old, &tree, &data).await;
    let change = async |new: u64, cut: Option<u64>| {
        let reader = rig
            .cache
            .reader(old, 100, tree.clone(), IoContext::default());
        let new_tree = rig.tree();
        let staging =
            rig.cache
                .stage_from(&reader, FileId(new), new_tree.clone(), IoContext::default());
        let mut staging = staging.await.unwrap();
        if let Some(len) = cut {
            staging.truncate(len).await.unwrap();
        }
        staging
            .write_at(70, Bytes::from_static(b"0123456789"))
            .await
            .unwrap();
        (staging.finish().await.unwrap(), new_tree)
    };
    let mut want = data.clone();
    want[70..80].copy_from_slice(b"0123456789");
    // Draining: everything stays in the tree.
    let (staged, new_tree) = change(10, None).await;
    assert!(staged.dirty.is_empty());
    staged.publish();
    let found = rig.get(FileId(10), &new_tree, 100).await.unwrap();
    assert_eq!(found, want);
    // The second of two objects is changed, and only that one moves.
    rig.cache.set_write_around(false);
    let (staged, new_tree) = change(11, None).await;
    let dirty: Vec<u32> = staged.dirty.iter().map(|o| o.id.index).collect();
    assert_eq!(dirty, [1]);
    staged.publish();
    let found = rig.get(FileId(11), &new_tree, 100).await.unwrap();
    assert_eq!(found, want);
    // What was cut away does not come back.
    let (staged, new_tree) = change(12, Some(66)).await;
    assert_eq!((staged.dirty.len(), staged.len), (1, 80));
    staged.publish();
    want.truncate(80);
    want[66..70].fill(0);
    let found = rig.get(FileId(12), &new_tree, 80).await.unwrap();
    assert_eq!(found, want);
}

#[test]
fn the_last_room_is_for_small_objects() {
    let dir = tempfile::tempdir().unwrap();
    let open = |high_watermark| {
        let opts = CacheOptions {
            cache_dir: Some(dir.path().join("cache")),
            capacity: Capacity::Bytes(32 << 20),
            tuning: Tuning {
                high_watermark,
                ..Tuning::default()
            },
            ..CacheOptions::uncached()
        };
        let metrics = Arc::new(Metrics::new());
        ObjectCache::open(opts, Recorder::disabled(), metrics).unwrap()
    };
    let fits = |cache: &ObjectCache, used, len| {
        let mut core = cache.core.lock();
        core.staged_bytes = used;
        cache.fits(&core, len)
    };
    let (small, large) = (64 << 10, (64 << 10) + 1);
    // A 32nd of 32 MiB is kept.
    let cache = open(0.9);
    assert!(fits(&cache, (31 << 20) - u64::from(large), large));
    assert!(!fits(&cache, (31 << 20) - u64::from(large) + 1, large));
    assert!(fits(&cache, (32 << 20) - u64::from(small), small));
    assert!(!fits(&cache, (32 << 20) - u64::from(small) + 1, small));
    // Large ones must be able to fill the cache over the watermark from which on room is made.
    let cache = open(1.0);
    assert!(fits(&cache, (32 << 20) - u64::from(large), large));
    assert!(!fits(&cache, (32 << 20) - u64::from(large) + 1, large));
}
