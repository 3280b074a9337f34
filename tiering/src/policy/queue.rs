//! The lists that the classic algorithms are made of: ordered by turn, sized in bytes.

use crate::objects::Objects;
use crate::types::{FileId, ObjectId};

/// No place: the end of a list.
const NONE: u32 = u32::MAX;

/// One object in its list.
struct Node {
    id: ObjectId,
    len: u32,
    older: u32,
    younger: u32,
    list: u8,
    tag: u8,
}

/// The ends and the sum of one list.
#[derive(Clone, Copy)]
struct List {
    oldest: u32,
    youngest: u32,
    /// [`NONE`] is the oldest.
    hand: u32,
    bytes: u64,
    len: usize,
}

const EMPTY: List = List {
    oldest: NONE,
    youngest: NONE,
    hand: NONE,
    bytes: 0,
    len: 0,
};

/// `N` lists of which at most one holds an object; one look-up tells which. Every operation takes constant time.
///
/// Each object has a tag, 0 at first, for what an algorithm notes of it. A hand, at the oldest to begin with, can be
/// moved along a list.
pub(crate) struct Lists<const N: usize> {
    index: Objects<u32>,
    nodes: Vec<Node>,
    /// Places that are not used now.
    free: Vec<u32>,
    lists: [List; N],
    /// What was looked up or put in last, and its place or [`NONE`]. One access asks several times for one object.
    last: (ObjectId, u32),
}

impl<const N: usize> Default for Lists<N> {
    fn default() -> Self {
        Self {
            index: Objects::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            lists: [EMPTY; N],
            last: (ObjectId::new(FileId(0), 0), NONE),
        }
    }
}

impl<const N: usize> Lists<N> {
    fn find(&mut self, id: ObjectId) -> Option<u32> {
        if self.last.0 != id {
            self.last = (id, self.index.get(id).copied().unwrap_or(NONE));
        }
        Some(self.last.1).filter(|at| *at != NONE)
    }

    /// Which list holds an object.
    pub(crate) fn list_of(&self, id: ObjectId) -> Option<usize> {
        let at = self.index.get(id)?;
        Some(usize::from(self.nodes[*at as usize].list))
    }

    /// The same, and the next question about this object is answered without a look-up.
    pub(crate) fn ask(&mut self, id: ObjectId) -> Option<usize> {
        let at = self.find(id)?;
        Some(usize::from(self.nodes[at as usize].list))
    }

    /// Puts an object at the young end of a list, with tag 0, wherever it was.
    pub(crate) fn push(&mut self, list: usize, id: ObjectId, len: u32) {
        if self.last.0 == id && self.last.1 != NONE {
            let at = self.last.1;
            self.part(at);
            let node = &mut self.nodes[at as usize];
            (node.len, node.tag) = (len, 0);
            self.join(list, at);
            return;
        }
        let node = Node {
            id,
            len,
            older: NONE,
            younger: NONE,
            list: 0,
            tag: 0,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        if let Some(old) = self.index.insert(id, at) {
            self.take(old);
        }
        self.last = (id, at);
        self.join(list, at);
    }

    /// Puts an object that one of the lists has at the young end of a list; its length and its tag stay.
    pub(crate) fn shift(&mut self, id: ObjectId, list: usize) -> bool {
        let at = self.find(id);
        if let Some(at) = at {
            self.shift_at(at, list);
        }
        at.is_some()
    }

    /// Puts the oldest of a list at the young end of another.
    pub(crate) fn shift_oldest(&mut self, from: usize, to: usize) -> Option<ObjectId> {
        let id = self.oldest(from)?;
        self.shift_at(self.lists[from].oldest, to);
        Some(id)
    }

    fn shift_at(&mut self, at: u32, list: usize) {
        if at != self.lists[list].youngest {
            self.part(at);
            self.join(list, at);
        }
    }

    /// Takes an object out, whichever list holds it.
    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<u32> {
        let at = self.index.remove(id)?;
        Some(self.take(at).1)
    }

    pub(crate) fn oldest(&self, list: usize) -> Option<ObjectId> {
        let node = self.nodes.get(self.lists[list].oldest as usize);
        node.map(|node| node.id)
    }

    /// Takes the oldest of a list out, with its length and its tag.
    pub(crate) fn pop(&mut self, list: usize) -> Option<(ObjectId, u32, u8)> {
        let id = self.oldest(list)?;
        let at = self.index.remove(id)?;
        Some(self.take(at))
    }

    /// Forgets the oldest of a list until at most `bytes` are left; identities are bounded by [`GHOSTS_MAX`].
    pub(crate) fn trim(&mut self, list: usize, bytes: u64) {
        while self.bytes(list) > bytes || self.len(list) > GHOSTS_MAX {
            self.pop(list);
        }
    }

    /// The objects of a file in any of the lists, each with the number of its list.
    pub(crate) fn of_file(&self, file: FileId) -> impl Iterator<Item = (ObjectId, usize)> {
        let all = self.index.of_file(file);
        all.map(|(id, at)| (id, usize::from(self.nodes[*at as usize].list)))
    }

    pub(crate) fn bytes(&self, list: usize) -> u64 {
        self.lists[list].bytes
    }

    pub(crate) fn len(&self, list: usize) -> usize {
        self.lists[list].len
    }

    /// Objects in all lists.
    pub(crate) fn total(&self) -> usize {
        self.index.len()
    }

    /// Gives up a place that the index no longer names.
    fn take(&mut self, at: u32) -> (ObjectId, u32, u8) {
        self.part(at);
        self.free.push(at);
        if self.last.1 == at {
            self.last.1 = NONE;
        }
        let node = &self.nodes[at as usize];
        (node.id, node.len, node.tag)
    }

    /// Takes a node out of its list; a hand on it goes on to the next younger one.
    fn part(&mut self, at: u32) {
        let Node {
            older,
            younger,
            list,
            len,
            ..
        } = self.nodes[at as usize];
        let list = &mut self.lists[usize::from(list)];
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.younger = younger,
            None => list.oldest = younger,
        }
        match self.nodes.get_mut(younger as usize) {
            Some(node) => node.older = older,
            None => list.youngest = older,
        }
        if list.hand == at {
            list.hand = younger;
        }
        list.bytes -= u64::from(len);
        list.len -= 1;
    }

    /// Puts a node that is in no list at the young end of one.
    fn join(&mut self, number: usize, at: u32) {
        let list = &mut self.lists[number];
        let older = std::mem::replace(&mut list.youngest, at);
        let node = &mut self.nodes[at as usize];
        (node.older, node.younger) = (older, NONE);
        node.list = number as u8;
        list.bytes += u64::from(node.len);
        list.len += 1;
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.younger = at,
            None => list.oldest = at,
        }
    }
}

/// One list by itself: objects in the order of their last [`Queue::push`].
#[derive(Default)]
pub(crate) struct Queue(Lists<1>);

impl Queue {
    /// Puts an object at the young end, with tag 0.
    pub(crate) fn push(&mut self, id: ObjectId, len: u32) {
        self.0.push(0, id, len);
    }

    /// Puts an object that it has at the young end; its tag stays.
    pub(crate) fn touch(&mut self, id: ObjectId) -> bool {
        self.0.shift(id, 0)
    }

    pub(crate) fn len_of(&self, id: ObjectId) -> Option<u32> {
        let at = self.0.index.get(id)?;
        Some(self.0.nodes[*at as usize].len)
    }

    /// What is noted of an object.
    pub(crate) fn tag_mut(&mut self, id: ObjectId) -> Option<&mut u8> {
        let at = *self.0.index.get(id)?;
        Some(&mut self.0.nodes[at as usize].tag)
    }

    pub(crate) fn contains(&self, id: ObjectId) -> bool {
        self.0.index.contains(id)
    }

    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<u32> {
        self.0.remove(id)
    }

    pub(crate) fn oldest(&self) -> Option<ObjectId> {
        self.0.oldest(0)
    }

    pub(crate) fn pop(&mut self) -> Option<(ObjectId, u32)> {
        self.pop_tagged().map(|(id, len, _)| (id, len))
    }

    /// Takes the oldest out, with its tag.
    pub(crate) fn pop_tagged(&mut self) -> Option<(ObjectId, u32, u8)> {
        self.0.pop(0)
    }

    /// Puts the oldest at the young end if its tag allows it.
    pub(crate) fn recycle(&mut self, again: impl FnOnce(&mut u8) -> bool) -> bool {
        let at = self.0.lists[0].oldest;
        let node = self.0.nodes.get_mut(at as usize);
        let stays = node.is_some_and(|node| again(&mut node.tag));
        if stays {
            self.0.shift_at(at, 0);
        }
        stays
    }

    /// The object at the hand, with its tag.
    pub(crate) fn at_hand(&mut self) -> Option<(ObjectId, &mut u8)> {
        let list = &mut self.0.lists[0];
        if list.hand == NONE {
            list.hand = list.oldest;
        }
        let node = self.0.nodes.get_mut(list.hand as usize)?;
        Some((node.id, &mut node.tag))
    }

    /// Moves the hand towards the young, and from the youngest to the oldest.
    pub(crate) fn advance_hand(&mut self) {
        let list = &mut self.0.lists[0];
        let node = self.0.nodes.get(list.hand as usize);
        list.hand = node.map_or(NONE, |node| node.younger);
    }

    /// Forgets the oldest until at most `bytes` are left; identities are bounded by [`GHOSTS_MAX`].
    pub(crate) fn trim(&mut self, bytes: u64) {
        self.0.trim(0, bytes);
    }

    pub(crate) fn remove_file(&mut self, file: FileId) {
        for (_, at) in self.0.index.remove_file(file) {
            self.0.take(at);
        }
    }

    pub(crate) fn of_file(&self, file: FileId) -> Vec<ObjectId> {
        self.0.of_file(file).map(|(id, _)| id).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len(0)
    }
}

/// Identities of absent objects that one list remembers at most.
pub(crate) const GHOSTS_MAX: usize = 262_144;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// It does what a plain list of (identity, length, tag) does.
        #[test]
        fn it_is_a_list(steps in prop::collection::vec((0u8..8, 0u64..9, 1u32..5), 0..300)) {
            let mut ours = Queue::default();
            let mut theirs: VecDeque<(ObjectId, u32, u8)> = VecDeque::new();
            for (step, n, len) in steps {
                let id = ObjectId::new(FileId(n / 2), n as u32 % 2);
                let place = theirs.iter().position(|o| o.0 == id);
                match step {
                    0 | 1 => {
                        place.map(|at| theirs.remove(at));
                        theirs.push_back((id, len, 0));
                        ours.push(id, len);
                    }
                    2 => {
                        let taken = place.and_then(|at| theirs.remove(at));
                        prop_assert_eq!(ours.touch(id), taken.is_some());
                        theirs.extend(taken);
                    }
                    3 => {
                        let taken = place.and_then(|at| theirs.remove(at));
                        prop_assert_eq!(ours.remove(id), taken.map(|o| o.1));
                    }
                    4 => prop_assert_eq!(ours.pop_tagged(), theirs.pop_front()),
                    5 => {
                        if let Some(tag) = ours.tag_mut(id) {
                            *tag += len as u8;
                        }
                        if let Some(at) = place {
                            theirs[at].2 += len as u8;
                        }
                    }
                    6 => {
                        theirs.retain(|o| o.0.file != id.file);
                        ours.remove_file(id.file);
                    }
                    _ => {
                        let stays = ours.recycle(|tag| { let stays = *tag > 0; *tag = 0; stays });
                        if theirs.front().is_some_and(|o| o.2 > 0) {
                            prop_assert!(stays);
                            let first = theirs.pop_front().map(|o| (o.0, o.1, 0));
                            theirs.extend(first);
                        }
                    }
                }
                prop_assert_eq!(ours.len(), theirs.len());
                prop_assert_eq!(ours.bytes(), theirs.iter().map(|o| u64::from(o.1)).sum::<u64>());
                prop_assert_eq!(ours.oldest(), theirs.front().map(|o| o.0));
                prop_assert_eq!(ours.len_of(id), theirs.iter().find(|o| o.0 == id).map(|o| o.1));
                // Once around with the hand.
                let mut seen = Vec::new();
                ours.0.lists[0].hand = NONE;
                for _ in 0..theirs.len() {
                    seen.extend(ours.at_hand().map(|(id, _)| id));
                    ours.advance_hand();
                }
                prop_assert_eq!(seen, theirs.iter().map(|o| o.0).collect::<Vec<_>>());
                prop_assert_eq!(ours.0.lists[0].hand, NONE);
            }
        }
    }

    proptest! {
        /// They do what plain lists of (identity, length) do, and an object is in one of them.
        #[test]
        fn they_are_lists(steps in prop::collection::vec((0u8..8, 0u64..9, 1u32..5, 0usize..3), 0..300)) {
            let mut ours = Lists::<3>::default();
            let mut theirs: [VecDeque<(ObjectId, u32)>; 3] = Default::default();
            for (step, n, len, list) in steps {
                let id = ObjectId::new(FileId(n / 2), n as u32 % 2);
                let place = theirs.iter().enumerate().find_map(|(list, all)| {
                    all.iter().position(|o| o.0 == id).map(|at| (list, at))
                });
                match step {
                    0 | 1 => {
                        place.map(|(list, at)| theirs[list].remove(at));
                        theirs[list].push_back((id, len));
                        ours.push(list, id, len);
                    }
                    2 | 3 => {
                        let taken = place.and_then(|(list, at)| theirs[list].remove(at));
                        prop_assert_eq!(ours.shift(id, list), taken.is_some());
                        theirs[list].extend(taken);
                    }
                    4 => {
                        let taken = place.and_then(|(list, at)| theirs[list].remove(at));
                        prop_assert_eq!(ours.remove(id), taken.map(|o| o.1));
                    }
                    5 => {
                        let taken = theirs[list].pop_front();
                        prop_assert_eq!(ours.pop(list).map(|o| (o.0, o.1)), taken);
                    }
                    6 => {
                        let taken = theirs[list].pop_front();
                        prop_assert_eq!(ours.shift_oldest(list, 0), taken.map(|o| o.0));
                        theirs[0].extend(taken);
                    }
                    _ => prop_assert_eq!(ours.ask(id), place.map(|(list, _)| list)),
                }
                for (list, all) in theirs.iter().enumerate() {
                    prop_assert_eq!(ours.len(list), all.len());
                    prop_assert_eq!(ours.bytes(list), all.iter().map(|o| u64::from(o.1)).sum::<u64>());
                    prop_assert_eq!(ours.oldest(list), all.front().map(|o| o.0));
                    prop_assert!(all.iter().all(|o| ours.list_of(o.0) == Some(list)));
                }
                prop_assert_eq!(ours.total(), theirs.iter().map(VecDeque::len).sum::<usize>());
            }
        }
    }

    #[test]
    fn the_hand_goes_on_when_its_object_leaves() {
        let mut queue = Queue::default();
        let id = |n| ObjectId::new(FileId(n), 0);
        (1..4).for_each(|n| queue.push(id(n), 1));
        assert_eq!(queue.at_hand().map(|(id, _)| id), Some(id(1)));
        queue.advance_hand();
        queue.remove(id(2));
        assert_eq!(queue.at_hand().map(|(id, _)| id), Some(id(3)));
        queue.remove(id(3));
        assert_eq!(queue.at_hand().map(|(id, _)| id), Some(id(1)));
    }
}
