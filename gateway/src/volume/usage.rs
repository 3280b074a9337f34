//! Bytes of content in use, when a quota is configured.
//!
//! A clean shutdown leaves the sum in the attribute `user.tierdav.used` of `.tierdav`, for the next start alone; any other
//! start counts again in the background, and the quota is enforced on what is counted so far. What
//! clients change meanwhile is counted once, whether the count comes by before or after.
//! A file with several names is in it until the last of them goes; as some may be outside of the root, the next start counts again then.
//! Uploads reserve as they write, so that several together cannot exceed the quota.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::AtFlags;
use tiering::FileId;

use super::tree::{Tree, id_name, statx};
use super::types::Found;

/// Name of the attribute that keeps the sum between runs.
pub const ATTRIBUTE: &str = "user.tierdav.used";

#[derive(Default)]
struct Sums {
    used: i64,
    reserved: u64,
    /// While files are counted.
    count: Option<Count>,
}

/// A count that clients run beside.
#[derive(Default)]
struct Count {
    /// Versions that are in the sum.
    seen: HashSet<FileId>,
    /// Versions that are gone: nobody may count them any more.
    gone: HashSet<FileId>,
    /// A collection was moved or copied, perhaps from where the count has not been to where it has: once more.
    again: bool,
}

impl Sums {
    fn add(&mut self, id: FileId, len: u64) {
        if let Some(count) = &mut self.count
            && (count.gone.contains(&id) || !count.seen.insert(id))
        {
            return;
        }
        self.used = self.used.saturating_add_unsigned(len);
    }

    fn take(&mut self, id: FileId, len: u64) {
        if let Some(count) = &mut self.count {
            count.gone.insert(id);
            if !count.seen.remove(&id) {
                return;
            }
        }
        self.used = self.used.saturating_sub_unsigned(len);
    }
}

/// The running sums.
pub(crate) struct Usage {
    pub quota: Option<u64>,
    sums: Mutex<Sums>,
    /// A file kept its bytes in the sum for names that may be outside of the root, or go beside the gateway.
    unsure: AtomicBool,
}

impl Usage {
    pub fn new(quota: Option<u64>) -> Arc<Usage> {
        Arc::new(Usage {
            quota,
            sums: Mutex::default(),
            unsure: AtomicBool::new(false),
        })
    }

    /// A version has a name now, or was found to have one.
    pub fn add(&self, id: FileId, len: u64) {
        if self.quota.is_some() {
            self.sums.lock().add(id, len);
        }
    }

    /// A version has another name: a count may come by that no more.
    pub fn moved(&self, id: FileId, len: u64) {
        if self.quota.is_some() {
            let mut sums = self.sums.lock();
            if sums.count.is_some() {
                sums.add(id, len);
            }
        }
    }

    /// A version has no name any more.
    pub fn take(&self, id: FileId, len: u64) {
        if self.quota.is_some() {
            self.sums.lock().take(id, len);
        }
    }

    /// Whether bytes are free when the name goes under which `found` was: not while the file has another. To be asked just before.
    pub fn frees(&self, tree: &Tree, found: &Found) -> bool {
        if self.quota.is_none() || found.links <= 1 {
            return true;
        }
        let name = id_name(found.meta.file_id);
        let dirty_name = statx(&tree.dirty, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        found.links <= 1 + u32::from(dirty_name)
    }

    /// A name of the file `found` is gone, which [frees](Self::frees) its bytes or not.
    pub fn name_gone(&self, found: &Found, frees: bool) {
        match frees {
            true => self.take(found.meta.file_id, found.meta.len),
            false => self.unsure.store(true, Ordering::Relaxed),
        }
    }

    /// Whether the sum can be relied on at the next start.
    pub fn is_sure(&self) -> bool {
        !self.is_counting() && !self.unsure.load(Ordering::Relaxed)
    }

    /// A collection has a new place; `added`: bytes of files that are new with it.
    pub fn collection_placed(&self, added: u64) {
        if self.quota.is_some() {
            let mut sums = self.sums.lock();
            match &mut sums.count {
                Some(count) => count.again = true,
                None => sums.used = sums.used.saturating_add_unsigned(added),
            }
        }
    }

    /// Takes over the sum of an earlier run.
    pub fn set(&self, used: u64) {
        self.sums.lock().used = i64::try_from(used).unwrap_or(i64::MAX);
    }

    /// Begins to count all files from nothing: each is to be [added](Self::add).
    pub fn begin_count(&self) {
        let mut sums = self.sums.lock();
        sums.used = 0;
        sums.count = Some(Count::default());
    }

    /// All files were added; `false` if that has to be done once more, from the beginning.
    pub fn end_count(&self) -> bool {
        let mut sums = self.sums.lock();
        if sums.count.as_ref().is_some_and(|count| count.again) {
            return false;
        }
        sums.count = None;
        true
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.sums.lock().used.max(0).unsigned_abs()
    }

    /// Whether files are still being counted.
    pub fn is_counting(&self) -> bool {
        self.sums.lock().count.is_some()
    }

    /// A reservation for an upload that will free `credit` bytes.
    pub fn reservation(self: &Arc<Self>, credit: u64) -> Reservation {
        Reservation {
            usage: Arc::clone(self),
            bytes: 0,
            credit,
        }
    }
}

/// Bytes an upload may write; given back when dropped.
pub(crate) struct Reservation {
    usage: Arc<Usage>,
    bytes: u64,
    credit: u64,
}

impl Reservation {
    /// Grows to `bytes` in all; `false` when the quota does not allow it.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let Some(quota) = self.usage.quota else {
            return true;
        };
        if bytes <= self.bytes {
            return true;
        }
        let mut sums = self.usage.sums.lock();
        let others = sums.reserved - self.bytes;
        let used = sums.used.max(0).unsigned_abs().saturating_sub(self.credit);
        if used.saturating_add(others).saturating_add(bytes) > quota {
            return false;
        }
        sums.reserved = others + bytes;
        self.bytes = bytes;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.usage.sums.lock().reserved -= self.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn reservations_together_stay_within_the_quota_to_the_byte() {
        let usage = Usage::new(Some(100));
        usage.add(FileId(1), 60);
        let (mut a, mut b) = (usage.reservation(0), usage.reservation(10));
        assert!(a.grow(30) && !a.grow(41) && a.grow(40));
        assert!(b.grow(10) && !b.grow(11));
        drop(a);
        assert!(b.grow(50) && !b.grow(51));
        usage.take(FileId(1), 60);
        assert!(b.grow(100));
        drop(b);
        assert_eq!((usage.used(), usage.sums.lock().reserved), (0, 0));
    }

    #[test]
    fn a_count_beside_changes_counts_each_version_once() {
        let usage = Usage::new(Some(1000));
        let id = FileId;
        usage.begin_count();
        usage.add(id(1), 10); // counted, then removed
        usage.take(id(1), 10);
        usage.take(id(2), 20); // removed, then counted from an old listing
        usage.add(id(2), 20);
        usage.add(id(3), 30); // put, then counted
        usage.add(id(3), 30);
        usage.add(id(4), 40); // counted, then moved to where the count comes by later
        usage.add(id(4), 40);
        assert!(usage.end_count());
        assert_eq!(usage.used(), 70);
        usage.begin_count();
        usage.collection_placed(500);
        assert!(!usage.end_count());
        usage.begin_count();
        usage.add(id(3), 30);
        assert!(usage.end_count());
        usage.collection_placed(500);
        assert_eq!(usage.used(), 530);
    }
}
