//! The object cache against a plain model in memory: any sequence of writes, reads, moves, faults and crashes,
//! and the same in a race.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use tiering::policy::{LruConfig, PolicyConfig};
use tiering::{Action, ActionKind, FileId, ObjectId, Reason};

use super::io::Faults;
use super::pools::Pools;
use super::test_pools::{FaultyPools, MemoryPools};
use super::*;
use crate::metrics::Metrics;
use crate::recorder::Recorder;

const OBJECT: u32 = 64;
const ENOSPC: i32 = 28;

type Held = (Arc<File>, Arc<Vec<u8>>);

/// The tree files of all versions, and what each must hold once it is settled.
#[derive(Default)]
pub(super) struct Trees {
    files: Mutex<HashMap<FileId, Held>>,
}

impl Trees {
    fn holds(&self, file: FileId) -> bool {
        let (tree, want) = self.files.lock()[&file].clone();
        let mut found = vec![0; want.len()];
        tree.read_exact_at(&mut found, 0).is_ok() && found == **want
    }
}

impl Backing for Trees {
    fn open_dirty(&self, file: FileId) -> io::Result<Arc<File>> {
        match self.files.lock().get(&file) {
            Some((tree, _)) => Ok(tree.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
    fn open_clean(&self, file: FileId) -> io::Result<Option<Arc<File>>> {
        Ok(self.files.lock().get(&file).map(|f| f.0.clone()))
    }
    fn settle(&self, files: &[FileId]) -> Vec<io::Result<()>> {
        for file in files {
            // A version that was replaced meanwhile need not be whole any more.
            assert!(
                !self.files.lock().contains_key(file) || self.holds(*file),
                "{file} was settled, but its plain file is not its content"
            );
        }
        files.iter().map(|_| Ok(())).collect()
    }
}

pub(super) struct Rig {
    /// Content in pools rather than directories.
    pools: Option<Arc<FaultyPools>>,
    dir: tempfile::TempDir,
    pub(super) cache: Arc<ObjectCache>,
    pub(super) trees: Arc<Trees>,
    cache_faults: Faults,
    pub(super) tree_faults: Faults,
    next: AtomicU64,
}

impl Rig {
    pub(super) fn new(pools: Option<Arc<dyn Pools>>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let pools = pools.map(|inner| Arc::new(FaultyPools::new(inner)));
        let (cache_faults, tree_faults) = (Faults::default(), Faults::default());
        let trees = Arc::new(Trees::default());
        let cache = open(&dir, &cache_faults, &tree_faults, pools.clone());
        cache.attach_backing(trees.clone());
        Rig {
            pools,
            dir,
            cache,
            trees,
            cache_faults,
            tree_faults,
            next: AtomicU64::new(1),
        }
    }

    fn fresh(&self) -> (FileId, Arc<File>) {
        let tree = tempfile::tempfile_in(self.dir.path()).unwrap();
        (
            FileId(self.next.fetch_add(1, Ordering::Relaxed)),
            Arc::new(tree),
        )
    }

    pub(super) fn reader(&self, version: &Version) -> ContentReader {
        let tree = version.tree.clone();
        let len = version.data.len() as u64;
        if self.pools.is_some() {
            let reader = self
                .cache
                .pooled_reader(version.file, len, IoContext::default());
            // Half of the readers say how far they will read.
            if version.file.0.is_multiple_of(2) {
                reader.announce(len);
            }
            return reader;
        }
        self.cache
            .reader(version.file, len, tree, IoContext::default())
    }

    /// Publishes what was staged, as a commit does.
    async fn commit(
        &self,
        staging: Staging,
        file: FileId,
        tree: Arc<File>,
        data: Vec<u8>,
    ) -> Result<Version, CacheError> {
        let staged = staging.finish().await?;
        assert_eq!(staged.len, data.len() as u64);
        tree.set_len(staged.len).unwrap();
        let data = Arc::new(data);
        let held = (tree.clone(), data.clone());
        self.trees.files.lock().insert(file, held);
        staged.publish();
        Ok(Version { file, tree, data })
    }

    pub(super) async fn put(&self, data: Vec<u8>) -> Result<Version, CacheError> {
        let (file, tree) = self.fresh();
        let mut staging = self.cache.stage(file, tree.clone(), IoContext::default());
        for part in data.chunks(50) {
            staging.write(Bytes::copy_from_slice(part)).await?;
        }
        self.commit(staging, file, tree, data).await
    }

    async fn patch(
        &self,
        old: &Version,
        at: usize,
        new: &[u8],
        cut: Option<usize>,
    ) -> Result<Version, CacheError> {
        let (file, tree) = self.fresh();
        let reader = self.reader(old);
        let io = IoContext::default();
        let mut staging = self
            .cache
            .stage_from(&reader, file, tree.clone(), io)
            .await?;
        let mut data = old.data.to_vec();
        if !new.is_empty() {
            staging
                .write_at(at as u64, Bytes::copy_from_slice(new))
                .await?;
            data.resize(data.len().max(at + new.len()), 0);
            data[at..at + new.len()].copy_from_slice(new);
        }
        if let Some(cut) = cut {
            staging.truncate(cut as u64).await?;
            data.resize(cut, 0);
        }
        self.commit(staging, file, tree, data).await
    }

    pub(super) fn forget(&self, version: &Version) {
        self.trees.files.lock().remove(&version.file);
        let len = version.data.len() as u64;
        match self.pools {
            Some(_) => self.cache.purge(version.file, Extent::Whole(len)),
            None => self.cache.forget(version.file, len),
        }
    }

    /// What a start does with the placeholders of uploads that came to nothing.
    fn purge_unknown(&self, pools: &FaultyPools) {
        for tier in [Tier::Cache, Tier::Backing] {
            for id in pools.list(tier).unwrap().objects {
                if !self.trees.files.lock().contains_key(&id.file) {
                    self.cache.purge(id.file, Extent::Unfinished(0));
                }
            }
        }
    }

    pub(super) fn clear_faults(&self) {
        self.cache_faults.clear();
        self.tree_faults.clear();
        if let Some(pools) = &self.pools {
            pools.clear();
        }
    }

    /// Whether the backing tier has a version's bytes.
    async fn holds(&self, version: &Version) -> bool {
        let Some(pools) = &self.pools else {
            return self.trees.holds(version.file);
        };
        let mut found = Vec::new();
        for index in 0..self.cache.objects_in(version.data.len() as u64) {
            let id = ObjectId::new(version.file, index);
            match pools.read(Tier::Backing, id, 0, OBJECT).await {
                Ok((bytes, _)) => found.extend_from_slice(&bytes),
                Err(_) => return false,
            }
        }
        found == *version.data
    }

    /// A process that ends at once and starts again: nothing is told to anyone.
    fn crash(&mut self) {
        self.cache = open(
            &self.dir,
            &self.cache_faults,
            &self.tree_faults,
            self.pools.clone(),
        );
        if let Some(pools) = &self.pools {
            // What the tree's placeholders would say.
            self.cache.attach_backing(self.trees.clone());
            self.purge_unknown(pools);
            return;
        }
        for file in self.cache.dirty_files() {
            if !self.trees.files.lock().contains_key(&file) {
                self.cache.forget(file, 0);
            }
        }
        self.cache.attach_backing(self.trees.clone());
    }
}

fn open(
    dir: &tempfile::TempDir,
    cache_faults: &Faults,
    tree_faults: &Faults,
    pools: Option<Arc<FaultyPools>>,
) -> Arc<ObjectCache> {
    let pooled = pools.is_some();
    let opts = CacheOptions {
        cache_dir: (!pooled).then(|| dir.path().join("cache")),
        pools: pools.map(|p| p as Arc<dyn Pools>),
        object_bytes: OBJECT,
        capacity: Capacity::Bytes(1500),
        tuning: Tuning {
            policy: PolicyConfig::Lru(LruConfig::default()),
            ..Tuning::default()
        },
        ..CacheOptions::uncached()
    };
    let metrics = Arc::new(Metrics::new());
    let (cache_faults, tree_faults) = (cache_faults.clone(), tree_faults.clone());
    let cache = ObjectCache::open_with_faults(
        opts,
        Recorder::disabled(),
        metrics,
        cache_faults,
        tree_faults,
    )
    .unwrap();
    tokio::task::block_in_place(|| cache.load_pools()).unwrap();
    cache
}

#[derive(Clone)]
pub(super) struct Version {
    pub(super) file: FileId,
    pub(super) tree: Arc<File>,
    pub(super) data: Arc<Vec<u8>>,
}

pub(super) fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed | 1)
        .collect()
}

/// Reads all; an error is allowed while faults are armed, a wrong byte never.
pub(super) async fn check(reader: &ContentReader, want: &[u8], strict: bool) {
    assert_eq!(reader.len(), want.len() as u64);
    let mut at = 0;
    while at < want.len() {
        match reader.read(at as u64, 40).await {
            Ok((got, _)) => {
                assert!(!got.is_empty());
                assert_eq!(got[..], want[at..at + got.len()], "at {at}");
                at += got.len();
            }
            Err(e) if strict => panic!("{e}"),
            Err(_) => return,
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Put {
        slot: usize,
        len: usize,
        seed: u8,
    },
    Abandon {
        len: usize,
    },
    Patch {
        slot: usize,
        at: usize,
        len: usize,
        seed: u8,
        cut: Option<usize>,
    },
    Delete {
        slot: usize,
    },
    Read {
        slot: usize,
    },
    Hold {
        slot: usize,
    },
    Move {
        kind: ActionKind,
        slot: usize,
        index: u32,
    },
    Step,
    FlushAll,
    EvictAll,
    CacheFull {
        after: u64,
    },
    TreeFull {
        after: u64,
    },
    SyncsFail,
    Mend,
    Crash,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let slot = 0usize..3;
    let kind = prop_oneof![
        Just(ActionKind::Promote),
        Just(ActionKind::Flush),
        Just(ActionKind::Evict)
    ];
    let op = prop_oneof![
        4 => (slot.clone(), 0usize..400, any::<u8>()).prop_map(|(slot, len, seed)| Op::Put { slot, len, seed }),
        1 => (0usize..400).prop_map(|len| Op::Abandon { len }),
        3 => (slot.clone(), 0usize..300, 0usize..150, any::<u8>(), proptest::option::of(0usize..350))
            .prop_map(|(slot, at, len, seed, cut)| Op::Patch { slot, at, len, seed, cut }),
        1 => slot.clone().prop_map(|slot| Op::Delete { slot }),
        3 => slot.clone().prop_map(|slot| Op::Read { slot }),
        1 => slot.clone().prop_map(|slot| Op::Hold { slot }),
        6 => (kind, slot, 0u32..6).prop_map(|(kind, slot, index)| Op::Move { kind, slot, index }),
        2 => Just(Op::Step),
        1 => Just(Op::FlushAll),
        1 => Just(Op::EvictAll),
        1 => (0u64..300).prop_map(|after| Op::CacheFull { after }),
        1 => (0u64..300).prop_map(|after| Op::TreeFull { after }),
        1 => Just(Op::SyncsFail),
        3 => Just(Op::Mend),
        1 => Just(Op::Crash),
    ];
    proptest::collection::vec(op, 1..40)
}

async fn run(ops: Vec<Op>, pools: Option<Arc<dyn Pools>>) {
    let mut rig = Rig::new(pools);
    let mut slots: [Option<Version>; 3] = [None, None, None];
    let mut held: Vec<(ContentReader, Arc<Vec<u8>>)> = Vec::new();
    let mut sound = true;
    for op in ops {
        match op {
            Op::Put { slot, len, seed } => {
                let put = rig.put(content(seed, len)).await;
                assert!(put.is_ok() || !sound, "{:?}", put.err());
                if let Ok(new) = put
                    && let Some(old) = slots[slot].replace(new)
                {
                    rig.forget(&old);
                }
            }
            Op::Abandon { len } => {
                let (file, tree) = rig.fresh();
                let mut staging = rig.cache.stage(file, tree, IoContext::default());
                let written = staging.write(Bytes::from(content(1, len))).await;
                assert!(written.is_ok() || !sound);
            }
            Op::Patch {
                slot,
                at,
                len,
                seed,
                cut,
            } => {
                if let Some(old) = slots[slot].clone() {
                    let new = rig.patch(&old, at, &content(seed, len), cut).await;
                    assert!(new.is_ok() || !sound, "{:?}", new.err());
                    if let Ok(new) = new {
                        slots[slot] = Some(new);
                        rig.forget(&old);
                    }
                }
            }
            Op::Delete { slot } => {
                if let Some(old) = slots[slot].take() {
                    rig.forget(&old);
                }
            }
            Op::Read { slot } => {
                if let Some(version) = &slots[slot] {
                    check(&rig.reader(version), &version.data, sound).await;
                }
            }
            Op::Hold { slot } => {
                if let Some(version) = &slots[slot] {
                    held.push((rig.reader(version), version.data.clone()));
                }
            }
            Op::Move { kind, slot, index } => {
                if let Some(version) = &slots[slot] {
                    let id = ObjectId::new(version.file, index);
                    let reason = Reason::FirstRead;
                    rig.cache
                        .core
                        .lock()
                        .queue
                        .push(Action { kind, id, reason });
                }
            }
            Op::Step => {
                rig.cache.step().await;
            }
            Op::FlushAll => {
                let report = rig.cache.flush_all().await.unwrap();
                assert!(report.failed == 0 || !sound);
            }
            Op::EvictAll => {
                rig.cache.evict_all_clean().await.unwrap();
            }
            Op::CacheFull { after } => {
                rig.cache_faults.fail_write_at(after, ENOSPC);
                if let Some(pools) = &rig.pools {
                    pools.fill(Tier::Cache, after as i64);
                }
                sound = false;
            }
            Op::TreeFull { after } => {
                rig.tree_faults.fail_write_at(after, ENOSPC);
                if let Some(pools) = &rig.pools {
                    pools.fill(Tier::Backing, after as i64);
                }
                sound = false;
            }
            Op::SyncsFail => {
                rig.tree_faults.fail_syncs(5);
                if let Some(pools) = &rig.pools {
                    pools.unanswered.store(true, Ordering::Relaxed);
                }
                sound = false;
            }
            Op::Mend => {
                rig.clear_faults();
                sound = true;
            }
            Op::Crash => {
                held.clear();
                rig.crash();
            }
        }
        for (reader, want) in &held {
            check(reader, want, sound).await;
        }
    }
    held.clear();
    rig.clear_faults();
    for version in slots.iter().flatten() {
        check(&rig.reader(version), &version.data, true).await;
    }
    assert_eq!(rig.cache.drain().await.unwrap().failed, 0);
    for version in slots.iter().flatten() {
        assert!(
            rig.holds(version).await,
            "drained, but not in the backing tier"
        );
        check(&rig.reader(version), &version.data, true).await;
    }
    for version in slots.iter().flatten().filter(|_| rig.pools.is_some()) {
        rig.forget(version);
    }
    // Uploads under way that were given up have landed when their versions' pins are gone.
    let busy = || {
        let core = rig.cache.core.lock();
        !core.pins.is_empty() || core.staged_bytes > 0
    };
    while busy() {
        tokio::task::yield_now().await;
    }
    let status = rig.cache.status();
    assert_eq!((status.staged_bytes, status.used_bytes), (0, 0));
    if let Some(pools) = &rig.pools {
        rig.purge_unknown(pools);
        rig.cache.purge_queued().await.unwrap();
        let left = |tier| pools.list(tier).unwrap().objects;
        assert_eq!((left(Tier::Cache), left(Tier::Backing)), (vec![], vec![]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_writes_moves_faults_and_crashes_agrees_with_memory(ops in ops()) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(run(ops, None));
    }

    #[test]
    fn over_pools_any_sequence_agrees_with_memory(ops in ops()) {
        let pools = Arc::new(MemoryPools::default());
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(run(ops, Some(pools)));
    }
}

/// The same over a real cluster (`TIERDAV_CEPH_DIR`), a namespace for each case.
#[cfg(feature = "rados")]
#[test]
fn over_rados_pools_any_sequence_agrees_with_memory() {
    let config = ProptestConfig {
        cases: 24,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ops in ops())| {
        let pools = super::test_pools::rados("model");
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(run(ops, Some(pools)));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_writers_and_moves_in_a_race_never_mix_versions() {
    race(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_pools_readers_writers_and_moves_in_a_race_never_mix_versions() {
    race(Some(Arc::new(MemoryPools::default()))).await;
}

async fn race(pools: Option<Arc<dyn Pools>>) {
    let rig = Arc::new(Rig::new(pools));
    let migrator = rig.cache.start_migrator(rig.trees.clone());
    let slots: Arc<Vec<tokio::sync::Mutex<Option<Version>>>> =
        Arc::new((0..3).map(|_| tokio::sync::Mutex::new(None)).collect());
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..6usize {
        let (rig, slots) = (rig.clone(), slots.clone());
        tasks.spawn(async move {
            for round in 0..150usize {
                let n = (client * 7 + round * 5) % 3;
                let current = slots[n].lock().await.clone();
                match (client % 3, current) {
                    // Writers: whole, or a change of what is there.
                    (0, None) => {
                        let new = rig
                            .put(content(round as u8, round * 3 % 400))
                            .await
                            .unwrap();
                        if let Some(old) = slots[n].lock().await.replace(new) {
                            rig.forget(&old);
                        }
                    }
                    (0, Some(old)) => {
                        // Held, so that `old` is still the current version at the commit.
                        let mut slot = slots[n].lock().await;
                        if slot.as_ref().is_some_and(|v| v.file == old.file) {
                            let new = rig.patch(&old, round, &content(3, 90), None).await.unwrap();
                            let new = if new.data.len() > 600 {
                                rig.put(content(9, 200)).await.unwrap()
                            } else {
                                new
                            };
                            *slot = Some(new);
                            rig.forget(&old);
                        }
                    }
                    // Readers: the version must still be current when it is pinned.
                    (1, Some(_)) => {
                        let slot = slots[n].lock().await;
                        let version = slot.clone().unwrap();
                        let reader = rig.reader(&version);
                        drop(slot);
                        check(&reader, &version.data, true).await;
                    }
                    (2, Some(version)) => {
                        let kinds = [ActionKind::Flush, ActionKind::Evict, ActionKind::Promote];
                        for index in 0..7 {
                            let action = Action {
                                kind: kinds[round % 3],
                                id: ObjectId::new(version.file, index),
                                reason: Reason::FirstRead,
                            };
                            rig.cache.core.lock().queue.push(action);
                        }
                        rig.cache.wake.notify_one();
                        tokio::task::yield_now().await;
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    migrator.stop().await;
    assert_eq!(rig.cache.drain().await.unwrap().failed, 0);
    for slot in slots.iter() {
        if let Some(version) = slot.lock().await.clone() {
            assert!(rig.holds(&version).await);
        }
    }
    assert_eq!(rig.cache.status().staged_bytes, 0);
}
