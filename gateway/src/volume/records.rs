//! What the attributes of files and directories said, so that a look at one need not ask again: a listing then takes one call
//! per member instead of three, of which two go through `/proc`.
//!
//! An entry is used only for the very state that it was read in: same device, inode, change time, size and mode
//! ([`Stamp`]). Bounded: about 200 bytes each.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use super::identity::Identity;
use super::open_files::{FileKey, Stamp};

/// Entries kept.
const RECORDS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// What the attributes say.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// The identity record.
    pub record: Option<Identity>,
    /// It has no dead properties. `false`: nobody has asked yet, or it has some.
    pub bare: bool,
}

/// The entries, by file.
pub(crate) struct Records(Mutex<LruCache<FileKey, (Stamp, Known)>>);

impl Default for Records {
    fn default() -> Records {
        Records(Mutex::new(LruCache::new(RECORDS_MAX)))
    }
}

impl Records {
    /// What is known of a file in this state.
    pub fn get(&self, stamp: &Stamp) -> Option<Known> {
        let mut records = self.0.lock();
        let (at, known) = records.get(&stamp.file())?;
        (at == stamp).then_some(*known)
    }

    /// Notes what the attributes of a file in this state say.
    pub fn put(&self, stamp: Stamp, record: Option<Identity>) {
        let known = Known {
            record,
            bare: false,
        };
        self.0.lock().put(stamp.file(), (stamp, known));
    }

    /// Notes that a file in this state has no dead properties.
    pub fn note_bare(&self, stamp: &Stamp) {
        if let Some((at, known)) = self.0.lock().get_mut(&stamp.file())
            && at == stamp
        {
            known.bare = true;
        }
    }
}
