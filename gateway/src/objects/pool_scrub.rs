//! Checks pools against the tree: every object of every placeholder is there and sound, and nothing else is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tiering::{FileId, ObjectId, Tier};

use super::cache::ObjectCache;
use super::error::CacheError;
use super::pooled::read_checked;
use super::pools::{ObjectInfo, PoolError, Pools};
use super::scrub::{Problem, ScrubReport};
use super::store::Mark;

/// Objects of one version that are read at once.
const READ_AT_ONCE: usize = 4;

/// A placeholder in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PooledFile {
    /// Its version.
    pub file: FileId,
    /// Bytes of content.
    pub len: u64,
    /// Where it is, for people.
    pub path: String,
}

/// What a walk through the tree found of the pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PooledTree {
    /// Its placeholders.
    pub files: Vec<PooledFile>,
    /// What the gateway does not see.
    pub unseen: Vec<Unseen>,
}

impl PooledTree {
    /// What is not seen, and may have content in the pools.
    pub fn hidden(&self) -> impl Iterator<Item = &Unseen> {
        self.unseen.iter().filter(|name| name.is_pooled)
    }
}

/// A file or directory whose name is not UTF-8, or a file that the gateway may not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// Its path, readable.
    pub path: String,
    /// It is a placeholder, or one is in it, or that cannot be told.
    pub is_pooled: bool,
}

/// How thorough, and how fast.
#[derive(Debug, Clone, Default)]
pub struct PoolScrub {
    /// Remove orphans, and copies that are damaged where the other pool has a sound one.
    pub repair: bool,
    /// Read every object and check its checksum.
    pub deep: bool,
    /// Bytes per second to read at most; 0 is unlimited.
    pub bytes_per_s: u64,
    /// How far an earlier scrub came that this one goes on with.
    pub checked: Option<Checked>,
}

/// What a scrub saw of versions so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Versions up to this one, in the order of their ids.
    pub up_to: FileId,
    /// What was found in them: who goes on reports that as well.
    pub found: ScrubReport,
}

/// What a pool has of an object.
enum Copy {
    Absent,
    Sound,
    Damaged,
    Unreadable,
}

impl ObjectCache {
    /// Checks the pools against all placeholders of the tree. Nothing else may use them meanwhile. `done` is told after
    /// each version, in the order of their ids, how far it has come.
    pub async fn scrub_pools(
        self: &Arc<Self>,
        tree: PooledTree,
        options: PoolScrub,
        mut done: impl FnMut(&Checked),
    ) -> Result<ScrubReport, CacheError> {
        let mut report = ScrubReport::default();
        let Some(pools) = self.pools().cloned() else {
            return Ok(report);
        };
        for unseen in tree.hidden() {
            report.add(Problem::Unseen, unseen.path.clone(), false);
        }
        // What belongs to none of the files may belong to one that is not seen.
        let remove_orphans = options.repair && report.problems == 0;
        let mut files = tree.files;
        files.sort_unstable_by_key(|f| f.file);
        let objects: HashMap<FileId, u32> = files
            .iter()
            .map(|f| (f.file, self.objects_in(f.len)))
            .collect();
        let wanted = |id: &ObjectId| objects.get(&id.file).is_some_and(|n| id.index < *n);
        let mut listed: [Vec<ObjectId>; 2] = [Vec::new(), Vec::new()];
        for tier in [Tier::Cache, Tier::Backing] {
            if tier == Tier::Cache && !pools.has_cache() {
                continue;
            }
            let from = Arc::clone(&pools);
            let mut listing = super::cache::blocking(move || {
                from.list(tier).map_err(|e| CacheError::Io {
                    op: "list a pool".into(),
                    source: e.into(),
                })
            })
            .await?;
            for name in listing.foreign {
                report.add(Problem::Foreign, format!("{tier}: {name}"), false);
            }
            listing.objects.sort_unstable();
            for id in listing.objects.iter().filter(|id| !wanted(id)) {
                let removed = remove_orphans && pools.remove(tier, *id).await.is_ok();
                report.add(Problem::Orphan, format!("{tier}: {id}"), removed);
            }
            listing.objects.retain(wanted);
            listed[usize::from(tier == Tier::Backing)] = listing.objects;
        }
        let began = Instant::now();
        let after = options.checked.as_ref().map(|checked| checked.up_to);
        let mut checked = options.checked.clone().unwrap_or_else(|| Checked {
            up_to: FileId(0),
            found: ScrubReport::default(),
        });
        let bytes_before = checked.found.checked_bytes;
        let rest = files
            .iter()
            .filter(|f| after.is_none_or(|after| f.file > after));
        for file in rest {
            let report = &mut checked.found;
            let n = self.objects_in(file.len);
            let checks = (0..n).map(|index| {
                let id = ObjectId::new(file.file, index);
                let there = listed.each_ref().map(|l| l.binary_search(&id).is_ok());
                self.check_object(
                    &pools,
                    id,
                    self.object_len(file.len, index),
                    there,
                    &options,
                )
            });
            let mut findings = futures_util::stream::iter(checks).buffer_unordered(READ_AT_ONCE);
            while let Some((id, bytes, found)) = findings.next().await {
                report.checked_objects += 1;
                report.checked_bytes += bytes;
                for (problem, removed) in found {
                    report.add(problem, format!("{} {id}", file.path), removed);
                }
            }
            let bytes = report.checked_bytes - bytes_before;
            if let Some(due) = bytes.checked_div(options.bytes_per_s) {
                let ahead = Duration::from_secs(due).saturating_sub(began.elapsed());
                tokio::time::sleep(ahead).await;
            }
            checked.up_to = file.file;
            done(&checked);
        }
        report.join(checked.found);
        Ok(report)
    }

    async fn check_object(
        &self,
        pools: &Arc<dyn Pools>,
        id: ObjectId,
        len: u32,
        [in_cache, in_data]: [bool; 2],
        options: &PoolScrub,
    ) -> (ObjectId, u64, Vec<(Problem, bool)>) {
        let mut found = Vec::new();
        let row = self.lookup(id).map(|(object, _)| object);
        let clean = row.is_some_and(|o| o.mark == Mark::Clean);
        if !in_cache && !in_data {
            return (id, 0, vec![(Problem::Missing, false)]);
        }
        if !options.deep {
            if clean && !in_data {
                found.push((Problem::Missing, false));
            }
            return (id, 0, found);
        }
        let cache = self.look(pools, Tier::Cache, id, len, in_cache).await;
        let data = self.look(pools, Tier::Backing, id, len, in_data).await;
        let bytes = u64::from(len) * (u64::from(in_cache) + u64::from(in_data));
        match (&cache, &data) {
            // An object's bytes never change: any sound copy is the right one.
            (Copy::Damaged, Copy::Sound) => {
                let removed = options.repair && pools.remove(Tier::Cache, id).await.is_ok();
                found.push((Problem::DamagedClean, removed));
            }
            (Copy::Sound, Copy::Damaged | Copy::Absent) if clean => {
                let repaired = options.repair && rewrite(pools, id, len).await.is_ok();
                found.push((Problem::DamagedData, repaired));
            }
            // A flush that had not ended leaves what it likes in the data pool.
            (Copy::Sound, _) => {}
            (Copy::Damaged, _) | (Copy::Absent, Copy::Damaged) => {
                found.push((Problem::DamagedData, false));
            }
            (Copy::Absent, Copy::Absent) => found.push((Problem::Missing, false)),
            (Copy::Absent, Copy::Sound) => {}
            (Copy::Unreadable, _) | (_, Copy::Unreadable) => {
                found.push((Problem::Unreadable, false));
            }
        }
        (id, bytes, found)
    }

    async fn look(
        &self,
        pools: &Arc<dyn Pools>,
        tier: Tier,
        id: ObjectId,
        len: u32,
        there: bool,
    ) -> Copy {
        if !there {
            return Copy::Absent;
        }
        match read_checked(&**pools, tier, id, len, 0, len).await {
            Ok(_) => Copy::Sound,
            Err(PoolError::NotFound) => Copy::Absent,
            Err(PoolError::Damaged) => Copy::Damaged,
            Err(_) => Copy::Unreadable,
        }
    }
}

/// Writes the data pool's copy of an object again, from the cached one.
async fn rewrite(pools: &Arc<dyn Pools>, id: ObjectId, len: u32) -> Result<(), PoolError> {
    let (bytes, info): (_, ObjectInfo) = pools.read(Tier::Cache, id, 0, len).await?;
    pools
        .write(Tier::Backing, id, vec![bytes], info, false)
        .await
}
