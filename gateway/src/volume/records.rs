//! What the attributes of files and directories said, so that a look at one need not ask again: a listing then takes one call
//! per member instead of three, of which two go through `/proc`.
//!
//! An entry is used only for the very state that it was read in: same device, inode, change time, size and mode
//! ([`Stamp`]). Bounded: about 130 bytes each, as a record says little that its file's state does not.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use tiering::FileId;

use super::identity::{Identity, State};
use super::open_files::{FileKey, Stamp};

/// Entries kept: a listing of more members asks again for each.
const RECORDS_MAX: NonZeroUsize = NonZeroUsize::new(131_072).unwrap();

/// What the attributes say.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// The identity record.
    pub record: Option<Identity>,
    /// It has no dead properties. `false`: nobody has asked yet, or it has some.
    pub bare: bool,
}

/// The entries, by file.
pub(crate) struct Records(Mutex<LruCache<FileKey, Entry>>);

/// A state of a file, and what its attributes say.
struct Entry {
    ctime_ns: i64,
    mtime_ns: i64,
    len: u64,
    mode: u32,
    bare: bool,
    record: Short,
}

/// An identity record.
enum Short {
    None,
    /// Time, length and inode in it are the file's own.
    Describes {
        file_id: FileId,
        created_ns: i64,
        state: State,
        all_dirty: bool,
        lock_null: bool,
    },
    Other(Box<Identity>),
}

impl Entry {
    fn new(stamp: &Stamp, record: Option<Identity>, bare: bool) -> Entry {
        let record = match record {
            None => Short::None,
            Some(r) if (r.mtime_ns, r.len, r.ino) == stamp.described() => Short::Describes {
                file_id: r.file_id,
                created_ns: r.created_ns,
                state: r.state,
                all_dirty: r.all_dirty,
                lock_null: r.lock_null,
            },
            Some(r) => Short::Other(Box::new(r)),
        };
        Entry {
            ctime_ns: stamp.ctime_ns,
            mtime_ns: stamp.mtime_ns,
            len: stamp.len,
            mode: stamp.mode,
            bare,
            record,
        }
    }

    /// Whether the file, which is the same, is in the same state.
    fn is_of(&self, stamp: &Stamp) -> bool {
        (self.ctime_ns, self.mtime_ns, self.len, self.mode)
            == (stamp.ctime_ns, stamp.mtime_ns, stamp.len, stamp.mode)
    }

    fn record(&self, stamp: &Stamp) -> Option<Identity> {
        match &self.record {
            Short::None => None,
            &Short::Describes {
                file_id,
                created_ns,
                state,
                all_dirty,
                lock_null,
            } => Some(Identity {
                file_id,
                len: stamp.len,
                mtime_ns: stamp.mtime_ns,
                created_ns,
                ino: stamp.ino,
                state,
                all_dirty,
                lock_null,
            }),
            Short::Other(record) => Some(**record),
        }
    }
}

impl Default for Records {
    fn default() -> Records {
        Records(Mutex::new(LruCache::new(RECORDS_MAX)))
    }
}

impl Records {
    /// What is known of a file in this state.
    pub fn get(&self, stamp: &Stamp) -> Option<Known> {
        let mut records = self.0.lock();
        let entry = records.get(&stamp.file())?;
        entry.is_of(stamp).then(|| Known {
            record: entry.record(stamp),
            bare: entry.bare,
        })
    }

    /// Notes what the attributes of a file in this state say; `bare`: it is known to have no dead properties.
    pub fn put(&self, stamp: Stamp, record: Option<Identity>, bare: bool) {
        let entry = Entry::new(&stamp, record, bare);
        self.0.lock().put(stamp.file(), entry);
    }

    /// Notes that a file in this state has no dead properties.
    pub fn note_bare(&self, stamp: &Stamp) {
        if let Some(entry) = self.0.lock().get_mut(&stamp.file())
            && entry.is_of(stamp)
        {
            entry.bare = true;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_for_its_very_state() {
        let records = Records::default();
        let stamp = |n: u64, mtime_ns: i64| Stamp {
            dev: (8, 1),
            ino: n,
            ctime_ns: 5,
            mtime_ns,
            len: 7,
            mode: 0o644,
        };
        let identity = |ino: u64, len: u64, state: State| Identity {
            file_id: FileId(9),
            len,
            mtime_ns: 4,
            created_ns: 3,
            ino,
            state,
            all_dirty: state == State::Dirty,
            lock_null: len == 7,
        };
        for (n, record) in [
            None,
            Some(identity(1, 7, State::Inline)),
            Some(identity(2, 7, State::Pooled)),
            Some(identity(3, 8, State::Dirty)),
            Some(identity(99, 7, State::Inline)),
        ]
        .into_iter()
        .enumerate()
        {
            let at = stamp(n as u64, 4);
            records.put(at, record, n % 2 == 1);
            assert_eq!(records.get(&at).unwrap().bare, n % 2 == 1);
            records.put(at, record, false);
            assert_eq!(records.get(&at).unwrap().record, record);
            assert!(!records.get(&at).unwrap().bare);
            records.note_bare(&stamp(n as u64, 6));
            assert!(!records.get(&at).unwrap().bare);
            records.note_bare(&at);
            assert!(records.get(&at).unwrap().bare);
            assert!(records.get(&stamp(n as u64, 6)).is_none());
        }
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
    }
}
