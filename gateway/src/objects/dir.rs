//! The cache store: one file per object in a sharded directory, whose name says all there is to know.
//!
//! ```text
//! objects/5c/3f9a0c11d2e4b75c.00000002.400000.9ae0daaf.d
//!         |  file id          object   len    crc32c   d: dirty, c: clean
//!         last byte of the file id: all objects of a version are in one shard
//! ```
//! Files are written under a name that ends in `.tmp` and renamed; `.tmp` files are removed at start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{Advice, Mode, OFlags, ResolveFlags};
use tiering::{FileId, ObjectId};

use super::file_system_sync::Writes;
use super::io::{Faults, read_full_at, read_full_now, sync_data, sync_dir, write_all_at};
use super::store::{Mark, ObjectStore, StoreError, Stored};

const SHARDS: u32 = 256;
/// Objects kept open: a quarter of the descriptors that a process has at least.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Objects as files beneath `<cache_dir>/objects`.
pub struct DirStore {
    objects: PathBuf,
    objects_fd: OwnedFd,
    /// Objects read a moment ago, kept open.
    open: Mutex<LruCache<ObjectId, Arc<File>>>,
    next_temp: AtomicU64,
    faults: Faults,
    /// Since the store was opened, by a descriptor that nobody else syncs.
    all_writes: Writes,
}

/// What a listing of the store found besides objects.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every object.
    pub objects: Vec<Stored>,
    /// Names that are no object's, relative to the objects directory; left alone.
    pub foreign: Vec<PathBuf>,
    /// Unfinished files of an earlier run.
    pub temporary: Vec<PathBuf>,
}

impl DirStore {
    /// Opens (and creates where needed) the store in `cache_dir`.
    pub fn open(cache_dir: &Path, faults: Faults) -> io::Result<DirStore> {
        let objects = cache_dir.join("objects");
        for shard in 0..SHARDS {
            fs::create_dir_all(objects.join(format!("{shard:02x}")))?;
        }
        sync_dir(&objects, &faults)?;
        let all_writes = Writes::alone(File::open(&objects)?);
        Ok(DirStore {
            objects_fd: File::open(&objects)?.into(),
            open: Mutex::new(LruCache::new(OPEN_MAX)),
            objects,
            next_temp: AtomicU64::new(0),
            faults,
            all_writes,
        })
    }

    /// The directory that holds the shards.
    pub fn objects_dir(&self) -> &Path {
        &self.objects
    }

    fn shard(&self, file: FileId) -> PathBuf {
        self.objects
            .join(format!("{:02x}", file.0 % u64::from(SHARDS)))
    }

    /// Where an object is.
    pub fn path(&self, object: &Stored) -> PathBuf {
        self.shard(object.id.file).join(file_name(object))
    }

    /// Lists every shard; order is unspecified.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for shard in fs::read_dir(&self.objects)? {
            let shard = shard?;
            let shard_name = PathBuf::from(shard.file_name());
            if !shard.file_type()?.is_dir() {
                listing.foreign.push(shard_name);
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let name = entry?.file_name();
                let relative = shard_name.join(&name);
                match name.to_str() {
                    Some(n) if n.ends_with(".tmp") => listing.temporary.push(relative),
                    Some(n) => match parse_name(n) {
                        Some(object) if self.path(&object) == self.objects.join(&relative) => {
                            listing.objects.push(object);
                        }
                        Some(_) | None => listing.foreign.push(relative),
                    },
                    None => listing.foreign.push(relative),
                }
            }
        }
        Ok(listing)
    }

    /// Creates an empty temporary file next to where the object will be.
    pub fn create_temp(&self, id: ObjectId) -> io::Result<(PathBuf, File)> {
        let n = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.shard(id.file).join(format!("{id}.{n:x}.tmp"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok((path, file))
    }

    /// Gives a complete temporary file its object's name. What is open under its id is another file: a damaged one, perhaps.
    pub fn adopt(&self, temp: &Path, object: &Stored) -> io::Result<()> {
        fs::rename(temp, self.path(object))?;
        self.close_object(object.id);
        Ok(())
    }

    /// Opens an object under either mark: a flush may have renamed it since the caller looked.
    pub fn open_object(&self, object: &Stored) -> io::Result<File> {
        match File::open(self.path(object)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => File::open(self.path(&other(object))),
            opened => opened,
        }
    }

    /// [`DirStore::open_object`] without waiting for a disk; `None` when that cannot be.
    pub fn open_object_now(&self, object: &Stored) -> Option<Arc<File>> {
        if let Some(file) = self.open.lock().get(&object.id) {
            return Some(Arc::clone(file));
        }
        let shard = object.id.file.0 % u64::from(SHARDS);
        let path = format!("{shard:02x}/{}", file_name(object));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(
            &self.objects_fd,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::CACHED,
        );
        let file = Arc::new(File::from(fd.ok()?));
        self.open.lock().put(object.id, Arc::clone(&file));
        // Removed meanwhile, and closed before it was put there?
        if rustix::fs::fstat(&*file).ok()?.st_nlink == 0 {
            self.close_object(object.id);
        }
        Some(file)
    }

    /// Lets go of an object that is kept open: call it after its last name is gone, or another file's.
    fn close_object(&self, id: ObjectId) {
        self.open.lock().pop(&id);
    }

    /// Renames a flushed object from dirty to clean. Repeatable.
    pub fn mark_clean(&self, object: &Stored) -> io::Result<()> {
        let dirty = Stored {
            mark: Mark::Dirty,
            ..*object
        };
        let clean = Stored {
            mark: Mark::Clean,
            ..*object
        };
        match fs::rename(self.path(&dirty), self.path(&clean)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.path(&clean).exists() => Ok(()),
            done => done,
        }
    }

    /// Makes a temporary file for object `to` that shares `from`'s bytes. Must not be written to.
    pub fn link_temp(&self, from: &Stored, to: ObjectId) -> io::Result<(PathBuf, File)> {
        let n = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let temp = self.shard(to.file).join(format!("{to}.{n:x}.tmp"));
        match fs::hard_link(self.path(from), &temp) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::hard_link(self.path(&other(from)), &temp)?;
            }
            done => done?,
        }
        let file = File::open(&temp)?;
        Ok((temp, file))
    }

    /// Removes an object; an absent one is fine.
    pub fn remove(&self, object: &Stored) -> io::Result<()> {
        for name in [*object, other(object)] {
            match fs::remove_file(self.path(&name)) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        self.close_object(object.id);
        Ok(())
    }

    /// Waits until the names of a version's objects are on stable storage.
    pub fn sync_names(&self, file: FileId) -> io::Result<()> {
        sync_dir(&self.shard(file), &self.faults)
    }

    /// Has the kernel forget what passes for written of an object: it is read from the disk then.
    pub fn forget_pages(&self, object: &Stored) -> io::Result<()> {
        let file = self.open_object(object)?;
        Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
    }

    /// Waits until everything on the file system is on stable storage. Fails for good once it failed.
    pub fn sync_everything(&self) -> io::Result<()> {
        self.all_writes.sync()?;
        // An ext4 without a journal empties the device's cache before it writes the last inodes; this ends with that.
        Ok(rustix::fs::fsync(&self.objects_fd)?)
    }

    /// Fills `buf` from an open object.
    pub fn read_open(
        &self,
        file: &File,
        object: &Stored,
        offset: u32,
        buf: &mut [u8],
    ) -> Result<(), StoreError> {
        let n = read_full_at(file, buf, u64::from(offset), &self.faults)
            .map_err(|e| StoreError::io("read", object.id, e))?;
        if n < buf.len() {
            return Err(StoreError::Truncated {
                id: object.id,
                at: offset.saturating_add(buf.len() as u32),
            });
        }
        Ok(())
    }

    /// [`DirStore::read_open`] without waiting for a disk; `false` when that cannot be.
    pub fn read_open_now(&self, file: &File, offset: u32, buf: &mut [u8]) -> bool {
        read_full_now(file, buf, u64::from(offset), &self.faults)
    }

    /// The faults armed on this store.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl ObjectStore for DirStore {
    fn read_at(&self, object: &Stored, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        let file = self
            .open_object(object)
            .map_err(|e| StoreError::io("open", object.id, e))?;
        self.read_open(&file, object, offset, buf)
    }

    fn put(&self, object: &Stored, data: &[u8], sync: bool) -> Result<(), StoreError> {
        let fail = |op| move |e| StoreError::io(op, object.id, e);
        let (temp, file) = self.create_temp(object.id).map_err(fail("create"))?;
        let write = || -> Result<(), StoreError> {
            write_all_at(&file, data, 0, &self.faults).map_err(fail("write"))?;
            if sync {
                sync_data(&file, &self.faults).map_err(fail("sync"))?;
            }
            self.adopt(&temp, object).map_err(fail("rename"))?;
            if sync {
                self.sync_names(object.id.file).map_err(fail("sync"))?;
            }
            Ok(())
        };
        write().inspect_err(|_| {
            // Litter at worst: the next start removes it.
            let _ = fs::remove_file(&temp);
        })
    }
}

fn other(object: &Stored) -> Stored {
    Stored {
        mark: match object.mark {
            Mark::Clean => Mark::Dirty,
            Mark::Dirty => Mark::Clean,
        },
        ..*object
    }
}

fn file_name(object: &Stored) -> String {
    let mark = match object.mark {
        Mark::Clean => 'c',
        Mark::Dirty => 'd',
    };
    format!(
        "{:016x}.{:08x}.{:x}.{:08x}.{mark}",
        object.id.file.0, object.id.index, object.len, object.crc
    )
}

fn parse_name(name: &str) -> Option<Stored> {
    let mut parts = name.split('.');
    let mut hex = |digits: Option<usize>| -> Option<u64> {
        let part = parts.next()?;
        let plain = part
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (plain && digits.is_none_or(|n| part.len() == n))
            .then(|| u64::from_str_radix(part, 16).ok())?
    };
    let file = FileId(hex(Some(16))?);
    let index = u32::try_from(hex(Some(8))?).ok()?;
    let len = u32::try_from(hex(None)?).ok()?;
    let crc = u32::try_from(hex(Some(8))?).ok()?;
    let mark = match parts.next()? {
        "c" => Mark::Clean,
        "d" => Mark::Dirty,
        _ => return None,
    };
    let object = Stored {
        id: ObjectId { file, index },
        len,
        crc,
        mark,
    };
    (parts.next().is_none() && file_name(&object) == name).then_some(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn object(mark: Mark) -> Stored {
        Stored {
            id: ObjectId {
                file: FileId(0x3f9a_0c11_d2e4_b75c),
                index: 2,
            },
            len: 0x40_0000,
            crc: 0x9ae0_daaf,
            mark,
        }
    }

    #[test]
    fn name_says_everything() {
        let name = "3f9a0c11d2e4b75c.00000002.400000.9ae0daaf.d";
        assert_eq!(file_name(&object(Mark::Dirty)), name);
        assert_eq!(parse_name(name), Some(object(Mark::Dirty)));
    }

    #[test]
    fn foreign_names_are_not_objects() {
        for name in [
            "",
            "README",
            "3f9a0c11d2e4b75c.00000002.400000.9ae0daaf",
            "3f9a0c11d2e4b75c.00000002.400000.9ae0daaf.x",
            "3f9a0c11d2e4b75c.00000002.400000.9ae0daaf.d.d",
            "3F9a0c11d2e4b75c.00000002.400000.9ae0daaf.d",
            "3f9a0c11d2e4b75c.2.400000.9ae0daaf.d",
            "3f9a0c11d2e4b75c.00000002.0400000.9ae0daaf.d",
            "+f9a0c11d2e4b75c.00000002.400000.9ae0daaf.d",
        ] {
            assert_eq!(parse_name(name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(file in any::<u64>(), index in any::<u32>(), len in any::<u32>(), crc in any::<u32>(), dirty: bool) {
            let mark = if dirty { Mark::Dirty } else { Mark::Clean };
            let object = Stored { id: ObjectId { file: FileId(file), index }, len, crc, mark };
            prop_assert_eq!(parse_name(&file_name(&object)), Some(object));
        }

        #[test]
        fn any_name_is_parsed_without_panic(name in ".{0,60}") {
            if let Some(object) = parse_name(&name) {
                prop_assert_eq!(file_name(&object), name);
            }
        }
    }

    #[test]
    fn what_is_put_anew_is_read_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::open(dir.path(), Faults::default()).unwrap();
        let object = object(Mark::Clean);
        store.put(&object, b"damaged", false).unwrap();
        assert!(store.open_object_now(&object).is_some());
        store.put(&object, b"right", false).unwrap();
        let file = store.open_object_now(&object).unwrap();
        let mut there = [0; 5];
        assert!(store.read_open_now(&file, 0, &mut there));
        assert_eq!(&there, b"right");
    }

    #[test]
    fn listing_tells_objects_from_litter_and_foreign_names() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::open(dir.path(), Faults::default()).unwrap();
        let data = b"four";
        let object = Stored {
            len: 4,
            crc: crc32c::crc32c(data),
            ..object(Mark::Dirty)
        };
        store.put(&object, data, true).unwrap();
        let (temp, _) = store.create_temp(object.id).unwrap();
        fs::write(store.objects_dir().join("00/notes.txt"), "x").unwrap();
        // A right name in the wrong shard is not found by its path, so it is foreign.
        fs::write(
            store.objects_dir().join("00").join(file_name(&object)),
            data,
        )
        .unwrap();
        let listing = store.list().unwrap();
        assert_eq!(listing.objects, [object]);
        assert_eq!(store.objects_dir().join(&listing.temporary[0]), temp);
        assert_eq!(listing.foreign.len(), 2);
    }
}
