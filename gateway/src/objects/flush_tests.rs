//! Flushes of many files: one sync for all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tiering::{FileId, ObjectId};

use super::file_system_sync::FileSystemSync;
use super::io::Faults;
use super::options::{Backing, CacheOptions, Capacity, IoContext, WritePolicy};
use super::tests::AllIn;
use super::{FlushReport, ObjectCache};
use crate::metrics::Metrics;
use crate::recorder::Recorder;

const FILES: u64 = 20;
const EIO: i32 = 5;

struct Many {
    _dir: tempfile::TempDir,
    together: Arc<FileSystemSync>,
    trees: BTreeMap<FileId, Arc<File>>,
    settled: Mutex<BTreeSet<FileId>>,
}

impl Backing for Many {
    fn open_dirty(&self, file: FileId) -> io::Result<Arc<File>> {
        Ok(self.trees[&file].clone())
    }
    fn open_clean(&self, file: FileId) -> io::Result<Option<Arc<File>>> {
        Ok(self.trees.get(&file).cloned())
    }
    fn settle(&self, files: &[FileId]) -> Vec<io::Result<()>> {
        self.settled.lock().extend(files);
        files.iter().map(|_| Ok(())).collect()
    }
    fn file_system_sync(&self) -> Option<&Arc<FileSystemSync>> {
        Some(&self.together)
    }
}

fn content(file: FileId) -> Vec<u8> {
    vec![file.0 as u8; 40]
}

/// A cache with [`FILES`] dirty files of one object each, and the faults of the tree.
async fn dirty() -> (Arc<ObjectCache>, Arc<Many>, Faults) {
    dirty_with(WritePolicy::Back).await
}

async fn dirty_with(write_policy: WritePolicy) -> (Arc<ObjectCache>, Arc<Many>, Faults) {
    let dir = tempfile::tempdir().unwrap();
    let opts = CacheOptions {
        cache_dir: Some(dir.path().join("cache")),
        object_bytes: 64,
        capacity: Capacity::Bytes(1000),
        write_policy,
        ..CacheOptions::uncached()
    };
    let faults = Faults::default();
    let cache = ObjectCache::open_with_faults(
        opts,
        Recorder::disabled(),
        Arc::new(Metrics::new()),
        Faults::default(),
        faults.clone(),
    )
    .unwrap();
    cache.core.lock().policy = Box::new(AllIn);
    let mut trees = BTreeMap::new();
    for file in (1..=FILES).map(FileId) {
        let tree = Arc::new(tempfile::tempfile_in(dir.path()).unwrap());
        let mut staging = cache.stage(file, tree.clone(), IoContext::default());
        staging.write(Bytes::from(content(file))).await.unwrap();
        staging.finish().await.unwrap().publish();
        trees.insert(file, tree);
    }
    let many = Arc::new(Many {
        together: Arc::new(FileSystemSync::new(File::open(dir.path()).unwrap())),
        _dir: dir,
        trees,
        settled: Mutex::default(),
    });
    cache.attach_backing(many.clone());
    (cache, many, faults)
}

fn whole(many: &Many, file: FileId) -> bool {
    let mut found = content(FileId(0));
    let tree = &many.trees[&file];
    std::os::unix::fs::FileExt::read_exact_at(&**tree, &mut found, 0).is_ok()
        && found == content(file)
}

#[tokio::test]
async fn a_failed_sync_leaves_all_of_them_dirty_and_the_next_makes_them_clean() {
    let (cache, many, faults) = dirty().await;
    faults.fail_syncs(EIO);
    let report = cache.flush_all().await.unwrap();
    let failed = FlushReport {
        failed: FILES,
        ..FlushReport::default()
    };
    assert_eq!(report, failed);
    assert_eq!(cache.dirty_files().len() as u64, FILES);
    assert!(many.settled.lock().is_empty());
    faults.clear();
    let report = cache.flush_all().await.unwrap();
    assert_eq!(
        (report.files, report.objects, report.failed),
        (FILES, FILES, 0)
    );
    assert!(cache.dirty_files().is_empty());
    assert_eq!(many.settled.lock().len() as u64, FILES);
    assert!(many.trees.keys().all(|file| whole(&many, *file)));
}

#[tokio::test]
async fn a_damaged_one_does_not_keep_the_others() {
    let (cache, many, _) = dirty().await;
    let bad = FileId(7);
    let (object, _) = cache.lookup(ObjectId::new(bad, 0)).unwrap();
    std::fs::write(cache.dir.as_ref().unwrap().path(&object), [0; 40]).unwrap();
    let report = cache.flush_all().await.unwrap();
    assert_eq!((report.files, report.failed), (FILES - 1, 1));
    assert!(!many.settled.lock().contains(&bad));
    for file in many.trees.keys().filter(|file| **file != bad) {
        assert!(many.settled.lock().contains(file) && whole(&many, *file));
    }
}

/// Writes a version past the cache; its sync is the last step.
async fn put_past(cache: &Arc<ObjectCache>, many: &Many) -> Result<(), super::CacheError> {
    cache.set_write_around(true);
    let tree = Arc::new(tempfile::tempfile_in(many._dir.path()).unwrap());
    let mut staging = cache.stage(FileId(FILES + 1), tree, IoContext::default());
    staging.write(Bytes::from(vec![1; 500])).await.unwrap();
    let staged = staging.finish().await?;
    assert!(staged.tree_written && staged.dirty.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_upload_past_the_cache_to_a_slower_disk_takes_part_in_the_sync_of_all() {
    let (cache, many, faults) = dirty().await;
    put_past(&cache, &many).await.unwrap();
    assert_eq!(many.together.begun(), 1);
    faults.fail_syncs(EIO);
    assert!(put_past(&cache, &many).await.is_err());
}

#[tokio::test]
async fn an_upload_to_the_disk_of_the_cache_or_of_others_is_synced_alone() {
    for write_policy in [WritePolicy::Around, WritePolicy::Through] {
        let (cache, many, faults) = dirty_with(write_policy).await;
        put_past(&cache, &many).await.unwrap();
        assert_eq!(many.together.begun(), 0);
        faults.fail_syncs(EIO);
        assert!(put_past(&cache, &many).await.is_err());
    }
}
