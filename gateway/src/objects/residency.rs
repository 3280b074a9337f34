//! Which objects are in the cache tier, and in what state: the only table, in memory, rebuilt at start.
//!
//! Memory: 16 bytes per object in a version's list, plus 33 bytes per version over the hash table's load
//! (0.44 to 0.88). Versions of one object (most files) are held without a list: 38 to 75 bytes each, 50 on
//! average; a 1 GiB file of 256 objects costs 17 bytes per object. `bytes_per_object_stay_bounded` measures it.
//! A version with dirty objects has a row of 32 bytes and an entry of 24 more, for the age of the oldest.
//! What status pages ask for (amounts, the oldest, memory) is kept, not searched for: asking costs the same at any size.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tiering::{FileId, ObjectId};

use super::store::{Mark, Stored};

/// What the cache tier has of an object, and who is working on it.
///
/// ```text
/// absent -> Promoting -> Clean -> Evicting -> absent
/// (staged) -> Dirty -> Flushing -> Clean            Flushing -> Dirty when the flush fails
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In both tiers.
    Clean,
    /// Only in the cache tier.
    Dirty,
    /// Being copied up: not readable yet, its bytes are reserved.
    Promoting,
    /// Dirty, being copied down: readable.
    Flushing,
    /// Clean, being removed: not readable any more.
    Evicting,
}

impl State {
    /// Whether only the cache tier has the bytes.
    fn is_dirty(self) -> bool {
        matches!(self, State::Dirty | State::Flushing)
    }
}

/// One object's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Object index within the version.
    pub index: u32,
    /// Length in bytes.
    pub len: u32,
    /// crc32c of the bytes (0 while promoting).
    pub crc: u32,
    /// Its state.
    pub state: State,
    /// Whether the bytes were written, or checked against the checksum, by this process.
    pub verified: bool,
    /// While dirty: no other version has these bytes, and as far as is known the backing tier never had them.
    pub fresh: bool,
    /// Whether certainly no other tier has, or ever had, bytes of this object: written by this process, and no flush has begun.
    pub alone: bool,
}

impl Entry {
    /// The object in the cache store, if its bytes can be read there.
    pub fn stored(&self, file: FileId) -> Option<Stored> {
        let mark = match self.state {
            State::Clean => Mark::Clean,
            State::Dirty | State::Flushing => Mark::Dirty,
            State::Promoting | State::Evicting => return None,
        };
        Some(Stored {
            id: ObjectId {
                file,
                index: self.index,
            },
            len: self.len,
            crc: self.crc,
            mark,
        })
    }

    /// Whether only the cache tier has the bytes.
    pub fn is_dirty(&self) -> bool {
        self.state.is_dirty()
    }

    /// Whether the backing tier is spared these bytes if the object goes now.
    pub fn spares_backing(&self) -> bool {
        self.fresh && self.state == State::Dirty
    }
}

/// One version's rows, sorted by index.
enum Rows {
    One(Entry),
    Many(Vec<Entry>),
}

impl Rows {
    fn as_slice(&self) -> &[Entry] {
        match self {
            Rows::One(e) => std::slice::from_ref(e),
            Rows::Many(v) => v,
        }
    }
    /// Bytes outside the table.
    fn list_bytes(&self) -> usize {
        match self {
            Rows::One(_) => 0,
            Rows::Many(v) => v.capacity() * size_of::<Entry>(),
        }
    }
    fn as_mut_slice(&mut self) -> &mut [Entry] {
        match self {
            Rows::One(e) => std::slice::from_mut(e),
            Rows::Many(v) => v,
        }
    }
}

/// Objects and bytes in one state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Amount {
    /// Number of objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, len: u32) {
        self.objects += 1;
        self.bytes += u64::from(len);
    }
    fn sub(&mut self, len: u32) {
        self.objects -= 1;
        self.bytes -= u64::from(len);
    }
}

/// A version's dirty objects.
struct DirtyFile {
    objects: u32,
    since: Instant,
}

/// Objects of several versions that are one file in the cache: hard links, made when a version begins as another one.
#[derive(Default)]
struct Shared {
    file_of: HashMap<ObjectId, u64>,
    files: HashMap<u64, SharedFile>,
    next: u64,
    /// Bytes that rows account for again: of each file all but one of them.
    again: u64,
}

struct SharedFile {
    len: u32,
    rows: u32,
}

impl Shared {
    /// `new` is the file that `old` is, of `len` bytes.
    fn join(&mut self, old: ObjectId, new: ObjectId, len: u32) {
        let file = *self.file_of.entry(old).or_insert_with(|| {
            self.next += 1;
            self.files.insert(self.next, SharedFile { len, rows: 1 });
            self.next
        });
        if let Some(shared) = self.files.get_mut(&file) {
            shared.rows += 1;
            self.again += u64::from(shared.len);
            self.file_of.insert(new, file);
        }
    }

    /// The row of an object goes.
    fn leave(&mut self, id: ObjectId) {
        let Some(file) = self.file_of.remove(&id) else {
            return;
        };
        let Some(shared) = self.files.get_mut(&file) else {
            return;
        };
        shared.rows -= 1;
        match shared.rows {
            0 => drop(self.files.remove(&file)),
            _ => self.again -= u64::from(shared.len),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.file_of.capacity() * 8 / 7 * (size_of::<(ObjectId, u64)>() + 1)
            + self.files.capacity() * 8 / 7 * (size_of::<(u64, SharedFile)>() + 1)
    }
}

/// The residency map.
#[derive(Default)]
pub struct Residency {
    files: HashMap<FileId, Rows>,
    /// Versions with dirty objects, and since when each has had some; after a restart since the start. The clock is for
    /// the metric alone: nothing is decided by it.
    dirty_files: HashMap<FileId, DirtyFile>,
    /// The same by age.
    dirty_since: BTreeSet<(Instant, FileId)>,
    /// Bytes of the lists in `files`.
    list_bytes: usize,
    clean: Amount,
    dirty: Amount,
    moving: Amount,
    shared: Shared,
}

impl Residency {
    fn amount(&mut self, state: State) -> &mut Amount {
        match state {
            State::Clean => &mut self.clean,
            State::Dirty | State::Flushing => &mut self.dirty,
            State::Promoting | State::Evicting => &mut self.moving,
        }
    }

    fn count(&mut self, file: FileId, state: State, len: u32) {
        self.amount(state).add(len);
        if state.is_dirty() {
            let dirty = self.dirty_files.entry(file).or_insert_with(|| {
                let since = Instant::now();
                self.dirty_since.insert((since, file));
                DirtyFile { objects: 0, since }
            });
            dirty.objects += 1;
        }
    }

    fn uncount(&mut self, file: FileId, state: State, len: u32) {
        self.amount(state).sub(len);
        if !state.is_dirty() {
            return;
        }
        if let Some(dirty) = self.dirty_files.get_mut(&file) {
            dirty.objects -= 1;
            if dirty.objects == 0 {
                self.dirty_since.remove(&(dirty.since, file));
                self.dirty_files.remove(&file);
            }
        }
    }

    /// How long the version that has waited longest has had objects only in the cache tier.
    pub fn oldest_dirty(&self) -> Duration {
        let oldest = self.dirty_since.first();
        oldest.map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    /// Objects in both tiers.
    pub fn clean(&self) -> Amount {
        self.clean
    }
    /// Objects only in the cache tier.
    pub fn dirty(&self) -> Amount {
        self.dirty
    }
    /// Bytes that the objects take, on their way in and out included; those of a file that several versions share once.
    pub fn bytes(&self) -> u64 {
        (self.clean.bytes + self.dirty.bytes + self.moving.bytes).saturating_sub(self.shared.again)
    }

    /// The objects `old` and `new` are one file in the cache, if `old` is still there.
    pub fn share(&mut self, old: ObjectId, new: ObjectId) {
        if let (Some(old_row), Some(_)) = (self.get(old), self.get(new)) {
            let len = old_row.len;
            self.shared.join(old, new, len);
        }
    }

    /// Looks an object up.
    pub fn get(&self, id: ObjectId) -> Option<&Entry> {
        let rows = self.files.get(&id.file)?.as_slice();
        rows.binary_search_by_key(&id.index, |e| e.index)
            .ok()
            .map(|i| &rows[i])
    }

    /// All rows of a version, by index.
    pub fn rows(&self, file: FileId) -> &[Entry] {
        self.files.get(&file).map_or(&[], Rows::as_slice)
    }

    /// Adds or replaces an object's row.
    pub fn insert(&mut self, file: FileId, entry: Entry) {
        self.remove(ObjectId {
            file,
            index: entry.index,
        });
        self.count(file, entry.state, entry.len);
        match self.files.get_mut(&file) {
            None => {
                self.files.insert(file, Rows::One(entry));
            }
            Some(rows) => {
                self.list_bytes -= rows.list_bytes();
                let mut list = match rows {
                    Rows::One(e) => vec![*e],
                    Rows::Many(v) => std::mem::take(v),
                };
                let at = list.partition_point(|e| e.index < entry.index);
                list.insert(at, entry);
                *rows = Rows::Many(list);
                self.list_bytes += rows.list_bytes();
            }
        }
    }

    /// Changes an object's state; returns whether the object is known.
    pub fn set_state(&mut self, id: ObjectId, state: State) -> bool {
        let Some(rows) = self.files.get_mut(&id.file) else {
            return false;
        };
        let rows = rows.as_mut_slice();
        let Ok(i) = rows.binary_search_by_key(&id.index, |e| e.index) else {
            return false;
        };
        let (old, len) = (rows[i].state, rows[i].len);
        rows[i].state = state;
        rows[i].alone &= state == State::Dirty;
        // In this order a failed flush does not make the version look newly written.
        self.count(id.file, state, len);
        self.uncount(id.file, old, len);
        true
    }

    /// Notes that an object's bytes match its checksum.
    pub fn set_verified(&mut self, id: ObjectId) {
        if let Some(row) = self.row_mut(id) {
            row.verified = true;
        }
    }

    /// Version `new` began with the first `objects` objects of `old`. Their bytes live on in it, so they are not gone when
    /// `old` goes; and what of them the backing tier had is not new there when `new` goes.
    pub fn hand_on(&mut self, old: FileId, new: FileId, objects: u32) {
        for index in 0..objects {
            let fresh = self
                .row_mut(ObjectId::new(old, index))
                .is_some_and(|e| e.is_dirty() && std::mem::take(&mut e.fresh));
            if let Some(row) = self.row_mut(ObjectId::new(new, index)) {
                row.fresh &= fresh;
            }
        }
    }

    /// Nothing of this version counts as kept from the backing tier.
    pub fn spare_nothing(&mut self, file: FileId) {
        if let Some(rows) = self.files.get_mut(&file) {
            rows.as_mut_slice().iter_mut().for_each(|e| e.fresh = false);
        }
    }

    /// A row, for changes that its totals do not depend on.
    fn row_mut(&mut self, id: ObjectId) -> Option<&mut Entry> {
        let rows = self.files.get_mut(&id.file)?.as_mut_slice();
        let i = rows.binary_search_by_key(&id.index, |e| e.index).ok()?;
        rows.get_mut(i)
    }

    /// Removes an object's row.
    pub fn remove(&mut self, id: ObjectId) -> Option<Entry> {
        self.shared.leave(id);
        let rows = self.files.get_mut(&id.file)?;
        let removed = match rows {
            Rows::One(e) if e.index == id.index => *e,
            Rows::One(_) => return None,
            Rows::Many(list) => {
                let i = list.binary_search_by_key(&id.index, |e| e.index).ok()?;
                let removed = list.remove(i);
                if !list.is_empty() {
                    self.uncount(id.file, removed.state, removed.len);
                    return Some(removed);
                }
                removed
            }
        };
        self.list_bytes -= rows.list_bytes();
        self.files.remove(&id.file);
        self.uncount(id.file, removed.state, removed.len);
        Some(removed)
    }

    /// Removes a version's rows.
    pub fn remove_file(&mut self, file: FileId) -> Vec<Entry> {
        let Some(rows) = self.files.remove(&file) else {
            return Vec::new();
        };
        self.list_bytes -= rows.list_bytes();
        let rows = rows.as_slice().to_vec();
        for e in &rows {
            self.shared.leave(ObjectId::new(file, e.index));
            self.uncount(file, e.state, e.len);
        }
        rows
    }

    /// Versions with at least one dirty object, by id.
    pub fn dirty_files(&self) -> Vec<FileId> {
        let mut files: Vec<FileId> = self.dirty_files.keys().copied().collect();
        files.sort_unstable();
        files
    }

    /// Whether a version has a dirty object.
    pub fn is_dirty(&self, file: FileId) -> bool {
        self.dirty_files.contains_key(&file)
    }

    /// Every object, by version and index.
    pub fn all(&self) -> Vec<(FileId, Entry)> {
        let mut all: Vec<(FileId, Entry)> = self
            .files
            .iter()
            .flat_map(|(file, rows)| rows.as_slice().iter().map(|e| (*file, *e)))
            .collect();
        all.sort_unstable_by_key(|(file, e)| (*file, e.index));
        all
    }

    /// Bytes of memory that the map holds.
    pub fn memory_bytes(&self) -> usize {
        // hashbrown: one control byte per slot; capacity() is 7/8 of the slots.
        let slots = self.files.capacity() * 8 / 7;
        slots * (size_of::<(FileId, Rows)>() + 1) + self.list_bytes + self.shared.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_age_of_dirty_data_ends_with_its_flush_and_survives_a_failed_one() {
        let file = FileId(7);
        let id = |index| ObjectId::new(file, index);
        let mut map = Residency::default();
        assert_eq!(map.oldest_dirty(), Duration::ZERO);
        map.insert(file, entry(0, State::Dirty));
        map.insert(file, entry(1, State::Dirty));
        let since = map.dirty_files[&file].since;
        map.set_state(id(0), State::Flushing);
        map.set_state(id(0), State::Dirty);
        assert_eq!(map.dirty_files[&file].since, since);
        map.set_state(id(0), State::Clean);
        assert_eq!(map.dirty_files[&file].objects, 1);
        map.remove(id(1));
        assert!(map.dirty_files.is_empty());
        map.insert(file, entry(1, State::Flushing));
        map.remove_file(file);
        assert_eq!(map.oldest_dirty(), Duration::ZERO);
        assert!(map.dirty_since.is_empty());
    }

    fn entry(index: u32, state: State) -> Entry {
        Entry {
            index,
            len: 10 + index,
            crc: index,
            state,
            verified: true,
            fresh: state == State::Dirty,
            alone: false,
        }
    }

    #[test]
    fn a_file_that_versions_share_counts_once_whichever_of_them_goes_first() {
        let id = |file| ObjectId::new(FileId(file), 1);
        let orders = [
            [1, 2, 3],
            [1, 3, 2],
            [2, 1, 3],
            [2, 3, 1],
            [3, 1, 2],
            [3, 2, 1],
        ];
        for order in orders {
            let mut map = Residency::default();
            for file in 1..=3 {
                map.insert(FileId(file), entry(1, State::Dirty));
                // A copy of the one before.
                map.share(id(file - 1), id(file));
                assert_eq!(map.bytes(), 11);
            }
            for (gone, file) in order.into_iter().enumerate() {
                match gone % 2 {
                    0 => drop(map.remove(id(file))),
                    _ => drop(map.remove_file(FileId(file))),
                }
                assert_eq!(map.bytes(), if gone < 2 { 11 } else { 0 }, "{order:?}");
            }
            assert!(map.shared.file_of.is_empty() && map.shared.files.is_empty());
            // Back again, on its own.
            map.insert(FileId(1), entry(1, State::Clean));
            map.insert(FileId(2), entry(1, State::Clean));
            assert_eq!(map.bytes(), 22);
        }
    }

    #[test]
    fn bytes_that_live_on_or_were_flushed_are_not_spared() {
        let (old, new) = (FileId(1), FileId(2));
        let mut map = Residency::default();
        for index in 0..3 {
            map.insert(old, entry(index, State::Dirty));
            map.insert(new, entry(index, State::Dirty));
        }
        map.set_state(ObjectId::new(old, 1), State::Clean);
        // The third object was cut away before the new version got one of its own.
        map.hand_on(old, new, 2);
        let spared = |map: &Residency, file| {
            let rows = map.rows(file).iter();
            rows.map(Entry::spares_backing).collect::<Vec<_>>()
        };
        assert_eq!(spared(&map, old), [false, false, true]);
        assert_eq!(spared(&map, new), [true, false, true]);
        map.spare_nothing(new);
        assert_eq!(spared(&map, new), [false; 3]);
    }

    #[test]
    fn bytes_per_object_stay_bounded() {
        assert_eq!(size_of::<Entry>(), 16);
        assert!(size_of::<(FileId, Rows)>() <= 32);
        // Small files, at several loads of the table: the worst load just after a doubling is 75.
        let mut total = 0.0;
        let mut measured = 0.0;
        let mut map = Residency::default();
        for n in 1..=100_000u64 {
            map.insert(FileId(n), entry(0, State::Clean));
            if n >= 20_000 && n % 1000 == 0 {
                let each = map.memory_bytes() as f64 / n as f64;
                assert!(each <= 76.0, "{each} bytes per object at {n} files");
                total += each;
                measured += 1.0;
            }
        }
        let mean = total / measured;
        assert!(mean <= 64.0, "{mean} bytes per object on average");
        // Large files.
        let mut map = Residency::default();
        for file in 1..=100 {
            for index in 0..256 {
                map.insert(FileId(file), entry(index, State::Clean));
            }
        }
        assert!(map.memory_bytes() as f64 / 25_600.0 <= 18.0);
    }

    proptest! {
        #[test]
        fn map_matches_a_plain_model(ops in proptest::collection::vec((0u64..4, 0u32..5, 0u8..5), 1..200)) {
            let states = [State::Clean, State::Dirty, State::Promoting, State::Flushing, State::Evicting];
            let mut map = Residency::default();
            let mut model: BTreeMap<(u64, u32), Entry> = BTreeMap::new();
            for (i, (file, index, what)) in ops.into_iter().enumerate() {
                let id = ObjectId { file: FileId(file), index };
                let state = states[i % 5];
                match what {
                    0 | 1 => {
                        map.insert(FileId(file), entry(index, state));
                        model.insert((file, index), entry(index, state));
                    }
                    2 => prop_assert_eq!(map.remove(id), model.remove(&(file, index))),
                    3 => {
                        let known = map.set_state(id, state);
                        prop_assert_eq!(known, model.contains_key(&(file, index)));
                        if let Some(e) = model.get_mut(&(file, index)) { e.state = state; }
                    }
                    _ => {
                        let gone = map.remove_file(FileId(file));
                        prop_assert_eq!(gone.len(), model.keys().filter(|k| k.0 == file).count());
                        model.retain(|k, _| k.0 != file);
                    }
                }
                let all: Vec<_> = model.iter().map(|(k, e)| (FileId(k.0), *e)).collect();
                prop_assert_eq!(map.all(), all);
                let lists: usize = map.files.values().map(Rows::list_bytes).sum();
                prop_assert_eq!(map.list_bytes, lists);
                let mut ages: Vec<_> = map.dirty_files.iter().map(|(f, d)| (d.since, *f)).collect();
                ages.sort_unstable();
                prop_assert!(map.dirty_since.iter().eq(&ages));
                prop_assert_eq!(map.bytes(), model.values().map(|e| u64::from(e.len)).sum::<u64>());
                prop_assert_eq!(map.dirty().objects as usize, model.values().filter(|e| e.is_dirty()).count());
            }
        }
    }
}
