//! Checks every cached object against its checksum and, where its file is known, against the backing tier.
//!
//! Removes nothing that could be the only copy: a damaged dirty object is reported and kept.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tiering::{Event, FileId, ObjectId};

use super::Backing;
use super::cache::{ObjectCache, blocking};
use super::error::CacheError;
use super::io::read_full_at;
use super::store::{Mark, StoreError, Stored, read_verified};

/// Findings that a report lists; further ones are only counted.
const FINDINGS_MAX: usize = 1000;

/// What is wrong with a name in the cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// A dirty object's bytes do not match their checksum: lost.
    DamagedDirty,
    /// A dirty object is gone from the cache: lost.
    MissingDirty,
    /// A clean copy's bytes do not match their checksum; the backing tier has them.
    DamagedClean,
    /// A dirty object whose file does not exist.
    Orphan,
    /// A clean copy is sound, but the backing tier has other bytes.
    Differs,
    /// An object could not be read from the cache or the backing tier, or a file or directory of the root not be opened.
    Unreadable,
    /// Neither pool has an object of a file, or the data pool lacks what should be in both: lost, or only in the cache.
    Missing,
    /// An object in the data pool does not match its checksum.
    DamagedData,
    /// A name that is no object's, or a second copy of one.
    Foreign,
    /// An unfinished file.
    Temporary,
    /// A name in the root that is not UTF-8, or a file that may not be read: objects of what is there cannot be told from orphans,
    /// which all stay.
    Unseen,
}

/// One thing that scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// The object, or the name beneath the objects directory.
    pub name: String,
    /// Whether it was removed.
    pub removed: bool,
}

/// What scrub saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Objects read and checked.
    pub checked_objects: u64,
    /// Their bytes.
    pub checked_bytes: u64,
    /// Clean copies that were compared with the backing tier too.
    pub compared_objects: u64,
    /// Findings, those beyond the list included.
    pub problems: u64,
    /// Findings removed by repair.
    pub removed: u64,
    /// The first findings, by object.
    pub findings: Vec<Finding>,
}

impl ScrubReport {
    /// Whether nothing is wrong any more.
    pub fn is_clean(&self) -> bool {
        self.problems == self.removed
    }

    /// Adds what another part of the same scrub saw.
    pub(super) fn join(&mut self, other: ScrubReport) {
        self.checked_objects += other.checked_objects;
        self.checked_bytes += other.checked_bytes;
        self.compared_objects += other.compared_objects;
        self.problems += other.problems;
        self.removed += other.removed;
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.into_iter().take(room));
    }

    /// Adds a finding.
    pub fn add(&mut self, problem: Problem, name: String, removed: bool) {
        self.problems += 1;
        self.removed += u64::from(removed);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                problem,
                name,
                removed,
            });
        }
    }
}

impl ObjectCache {
    /// Checks every cached object. With `repair`, removes damaged clean copies and dirty objects without a
    /// file. Safe beside reads and moves; what they remove meanwhile is skipped.
    pub async fn scrub(
        self: &Arc<Self>,
        backing: Arc<dyn Backing>,
        repair: bool,
    ) -> Result<ScrubReport, CacheError> {
        let cache = self.clone();
        blocking(move || cache.scrub_blocking(&*backing, repair)).await
    }

    fn scrub_blocking(
        &self,
        backing: &dyn Backing,
        repair: bool,
    ) -> Result<ScrubReport, CacheError> {
        let mut report = ScrubReport::default();
        let Some(dir) = &self.dir else {
            return Ok(report);
        };
        let mut listing = dir.list().map_err(|source| CacheError::Io {
            op: "list cache directory".into(),
            source,
        })?;
        for name in &listing.foreign {
            report.add(Problem::Foreign, name.display().to_string(), false);
        }
        for name in &listing.temporary {
            report.add(Problem::Temporary, name.display().to_string(), false);
        }
        listing
            .objects
            .sort_unstable_by_key(|o| (o.id, o.mark == Mark::Clean, o.crc, o.len));
        let mut orphans: HashSet<FileId> = HashSet::new();
        for listed in &listing.objects {
            let Some((object, _)) = self.lookup(listed.id) else {
                continue;
            };
            if (object.len, object.crc) != (listed.len, listed.crc) {
                let name = dir.path(listed).display().to_string();
                report.add(Problem::Foreign, name, false);
                continue;
            }
            self.scrub_object(backing, &object, repair, &mut orphans, &mut report);
        }
        let gone = self.core.lock().gone();
        for id in gone {
            report.add(Problem::MissingDirty, id.to_string(), false);
        }
        Ok(report)
    }

    fn scrub_object(
        &self,
        backing: &dyn Backing,
        object: &Stored,
        repair: bool,
        orphans: &mut HashSet<FileId>,
        report: &mut ScrubReport,
    ) {
        let (Some(dir), id) = (&self.dir, object.id) else {
            return;
        };
        if object.mark == Mark::Dirty {
            let absent = orphans.contains(&id.file)
                || matches!(backing.open_dirty(id.file), Err(e) if e.kind() == io::ErrorKind::NotFound);
            // A flush or a forget under way may have ended meanwhile.
            if absent && self.is_still_dirty(id) {
                orphans.insert(id.file);
                let removed = repair && self.remove_orphan(object);
                report.add(Problem::Orphan, id.to_string(), removed);
                return;
            }
        }
        report.checked_objects += 1;
        report.checked_bytes += u64::from(object.len);
        match read_verified(dir, object) {
            Ok(_) => {
                self.core.lock().residency.set_verified(id);
                if object.mark == Mark::Clean {
                    self.compare(backing, object, report);
                }
            }
            Err(_) if self.lookup(id).is_none() => report.checked_objects -= 1,
            Err(StoreError::Damaged { .. } | StoreError::NotFound { .. }) => match object.mark {
                Mark::Dirty => report.add(Problem::DamagedDirty, id.to_string(), false),
                Mark::Clean => {
                    if repair {
                        self.drop_damaged(object);
                    }
                    let removed = repair && self.lookup(id).is_none();
                    report.add(Problem::DamagedClean, id.to_string(), removed);
                }
            },
            Err(
                StoreError::Io { .. } | StoreError::NoSpace { .. } | StoreError::Truncated { .. },
            ) => report.add(Problem::Unreadable, id.to_string(), false),
        }
    }

    /// Both copies are kept when they differ: which one is right is for a person to say.
    fn compare(&self, backing: &dyn Backing, object: &Stored, report: &mut ScrubReport) {
        let id = object.id;
        let tree = match backing.open_clean(id.file) {
            Ok(Some(tree)) => tree,
            Ok(None) => return,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(_) => return report.add(Problem::Unreadable, id.to_string(), false),
        };
        report.compared_objects += 1;
        let mut data = vec![0; object.len as usize];
        let offset = u64::from(id.index) * u64::from(self.opts.object_bytes);
        match read_full_at(&tree, &mut data, offset, &self.tree_faults) {
            Ok(n) if n == data.len() && crc32c::crc32c(&data) == object.crc => {}
            Ok(_) => report.add(Problem::Differs, id.to_string(), false),
            Err(_) => report.add(Problem::Unreadable, id.to_string(), false),
        }
    }

    fn is_still_dirty(&self, id: ObjectId) -> bool {
        let core = self.core.lock();
        core.residency.get(id).is_some_and(|e| e.is_dirty()) && !core.is_doomed(id.file)
    }

    fn remove_orphan(&self, object: &Stored) -> bool {
        let mut core = self.core.lock();
        if core.pins.contains_key(&object.id.file) {
            return false;
        }
        let Some(entry) = core.residency.remove(object.id) else {
            return false;
        };
        core.damaged.remove(&object.id);
        core.queue.cancel(object.id.file);
        self.event(
            &mut core,
            &Event::Deleted {
                file: object.id.file,
                objects: 1,
            },
        );
        drop(core);
        self.unlink(object.id.file, &[entry]);
        true
    }
}
