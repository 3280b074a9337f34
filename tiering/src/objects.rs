//! What is held per object: found by identity in constant time, and by file in the order of its stripes.

use std::collections::BTreeMap;
use std::collections::hash_map::{self, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::types::{FileId, ObjectId};

/// Spreads identities over a table: one widening multiplication for each number, both halves folded.
///
/// Identities are given by the gateway, not by clients: nobody can choose them so that they collide.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0.rotate_left(32) ^ number ^ 0x2545_f491_4f6c_dd1d)
            * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// A table of this program's own identities. Its own order must never matter.
pub(crate) type Table<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// A set of them.
pub(crate) type Set<K> = std::collections::HashSet<K, BuildHasherDefault<Spread>>;

/// Most files are one object: only larger ones pay for a tree.
enum Stripes<V> {
    One(u32, V),
    // Boxed: a tree's three words would make the entry of every small file larger.
    #[allow(clippy::box_collection)]
    Many(Box<BTreeMap<u32, V>>),
}

impl<V> Stripes<V> {
    fn get(&self, index: u32) -> Option<&V> {
        match self {
            Stripes::One(at, value) => (*at == index).then_some(value),
            Stripes::Many(all) => all.get(&index),
        }
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut V> {
        match self {
            Stripes::One(at, value) => (*at == index).then_some(value),
            Stripes::Many(all) => all.get_mut(&index),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        let (one, many) = match self {
            Stripes::One(at, value) => (Some((at, value)), None),
            Stripes::Many(all) => (None, Some(all.iter())),
        };
        let all = one.into_iter().chain(many.into_iter().flatten());
        all.map(|(index, value)| (*index, value))
    }
}

/// A map from objects.
///
/// Memory: 16 bytes and the value (rounded up to 8) for each place of the table, of which 7 in 16 to 7 in 8 are
/// taken; files of several objects have a tree of their own.
pub(crate) struct Objects<V> {
    files: Table<FileId, Stripes<V>>,
    len: usize,
}

impl<V> Default for Objects<V> {
    fn default() -> Self {
        Self {
            files: Table::default(),
            len: 0,
        }
    }
}

impl<V> Objects<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: ObjectId) -> Option<&V> {
        self.files.get(&id.file)?.get(id.index)
    }

    pub(crate) fn get_mut(&mut self, id: ObjectId) -> Option<&mut V> {
        self.files.get_mut(&id.file)?.get_mut(id.index)
    }

    pub(crate) fn contains(&self, id: ObjectId) -> bool {
        self.get(id).is_some()
    }

    /// Puts a value in, and answers with the one that was there.
    pub(crate) fn insert(&mut self, id: ObjectId, value: V) -> Option<V> {
        let old = match self.files.entry(id.file) {
            hash_map::Entry::Vacant(place) => {
                place.insert(Stripes::One(id.index, value));
                None
            }
            hash_map::Entry::Occupied(mut place) => match place.get_mut() {
                Stripes::One(at, there) if *at == id.index => Some(std::mem::replace(there, value)),
                Stripes::Many(all) => all.insert(id.index, value),
                one => {
                    let tree = Stripes::Many(Box::new(BTreeMap::from([(id.index, value)])));
                    if let (Stripes::One(at, there), Stripes::Many(all)) =
                        (std::mem::replace(one, tree), one)
                    {
                        all.insert(at, there);
                    }
                    None
                }
            },
        };
        self.len += usize::from(old.is_none());
        old
    }

    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<V> {
        let hash_map::Entry::Occupied(mut place) = self.files.entry(id.file) else {
            return None;
        };
        let old = match place.get_mut() {
            Stripes::One(at, _) if *at == id.index => match place.remove() {
                Stripes::One(_, value) => Some(value),
                Stripes::Many(_) => None,
            },
            Stripes::One(..) => None,
            Stripes::Many(all) => {
                let old = all.remove(&id.index);
                if all.is_empty() {
                    place.remove();
                }
                old
            }
        };
        self.len -= usize::from(old.is_some());
        old
    }

    /// Takes all objects of a file out, in the order of their stripes.
    pub(crate) fn remove_file(&mut self, file: FileId) -> Vec<(ObjectId, V)> {
        let named = |(index, value)| (ObjectId::new(file, index), value);
        let gone: Vec<_> = match self.files.remove(&file) {
            None => Vec::new(),
            Some(Stripes::One(index, value)) => vec![named((index, value))],
            Some(Stripes::Many(all)) => all.into_iter().map(named).collect(),
        };
        self.len -= gone.len();
        gone
    }

    /// The objects of a file, in the order of their stripes.
    pub(crate) fn of_file(&self, file: FileId) -> impl Iterator<Item = (ObjectId, &V)> {
        let all = self.files.get(&file).into_iter().flat_map(Stripes::iter);
        all.map(move |(index, value)| (ObjectId::new(file, index), value))
    }

    /// `first` and what follows it in its file, in the order of the stripes.
    pub(crate) fn starting_at_mut(
        &mut self,
        first: ObjectId,
    ) -> impl Iterator<Item = (ObjectId, &mut V)> {
        let (one, many) = match self.files.get_mut(&first.file) {
            Some(Stripes::One(at, value)) if *at >= first.index => (Some((*at, value)), None),
            Some(Stripes::Many(all)) => (None, Some(all.range_mut(first.index..))),
            Some(Stripes::One(..)) | None => (None, None),
        };
        let many = many.into_iter().flatten().map(|(index, v)| (*index, v));
        let all = one.into_iter().chain(many);
        all.map(move |(index, value)| (ObjectId::new(first.file, index), value))
    }

    /// All of them, files in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ObjectId, &V)> {
        self.files.iter().flat_map(|(file, stripes)| {
            let all = stripes.iter();
            all.map(|(index, value)| (ObjectId::new(*file, index), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is done to it, it answers as an ordered map would.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..5, 1u64..6, 0u32..5, 0u16..), 0..200)) {
            let mut ours = Objects::default();
            let mut theirs = BTreeMap::new();
            for (step, file, index, value) in steps {
                let id = ObjectId::new(FileId(file), index);
                let all = crate::policy::objects_of(id.file);
                match step {
                    0 | 1 => prop_assert_eq!(ours.insert(id, value), theirs.insert(id, value)),
                    2 => prop_assert_eq!(ours.remove(id), theirs.remove(&id)),
                    3 => {
                        let gone: Vec<_> = theirs.range(all).map(|(id, v)| (*id, *v)).collect();
                        theirs.retain(|id, _| id.file != FileId(file));
                        prop_assert_eq!(ours.remove_file(id.file), gone);
                    }
                    _ => {
                        let rest = theirs.range_mut(id..=ObjectId::new(id.file, u32::MAX));
                        let rest: Vec<_> = rest.map(|(id, v)| { *v ^= 1; (*id, *v) }).collect();
                        let got = ours.starting_at_mut(id).map(|(id, v)| { *v ^= 1; (id, *v) });
                        prop_assert_eq!(got.collect::<Vec<_>>(), rest);
                    }
                }
                prop_assert_eq!((ours.get(id), ours.len()), (theirs.get(&id), theirs.len()));
                prop_assert_eq!(ours.get_mut(id), theirs.get_mut(&id));
                let of_file = theirs.range(crate::policy::objects_of(id.file));
                prop_assert!(ours.of_file(id.file).eq(of_file.map(|(id, v)| (*id, v))));
                let mut all: Vec<_> = ours.iter().collect();
                all.sort_unstable();
                prop_assert!(all.into_iter().eq(theirs.iter().map(|(id, v)| (*id, v))));
            }
        }
    }

    #[test]
    fn values_are_small() {
        assert_eq!(size_of::<(FileId, Stripes<u32>)>(), 24);
    }
}
