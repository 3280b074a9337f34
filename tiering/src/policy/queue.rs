//! The list that the classic algorithms are made of: ordered by turn, sized in bytes.

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
    tag: u8,
}

/// Objects in the order of their last [`Queue::push`]; every operation takes constant time.
///
/// Each has a tag, 0 at first, for what an algorithm notes of it. A hand, at the oldest to begin with, can be moved
/// along the list.
pub(crate) struct Queue {
    index: Objects<u32>,
    nodes: Vec<Node>,
    /// Places that are not used now.
    free: Vec<u32>,
    oldest: u32,
    youngest: u32,
    /// [`NONE`] is the oldest.
    hand: u32,
    bytes: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            index: Objects::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            youngest: NONE,
            hand: NONE,
            bytes: 0,
        }
    }
}

impl Queue {
    /// Puts an object at the young end, with tag 0.
    pub(crate) fn push(&mut self, id: ObjectId, len: u32) {
        let node = Node {
            id,
            len,
            older: NONE,
            younger: NONE,
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
        self.bytes += u64::from(len);
        self.join(at);
    }

    /// Puts an object that it has at the young end; its tag stays.
    pub(crate) fn touch(&mut self, id: ObjectId) -> bool {
        let at = self.index.get(id).copied();
        if let Some(at) = at.filter(|at| *at != self.youngest) {
            self.part(at);
            self.join(at);
        }
        at.is_some()
    }

    pub(crate) fn len_of(&self, id: ObjectId) -> Option<u32> {
        self.index.get(id).map(|at| self.nodes[*at as usize].len)
    }

    /// What is noted of an object.
    pub(crate) fn tag_mut(&mut self, id: ObjectId) -> Option<&mut u8> {
        let at = *self.index.get(id)?;
        Some(&mut self.nodes[at as usize].tag)
    }

    pub(crate) fn contains(&self, id: ObjectId) -> bool {
        self.index.contains(id)
    }

    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<u32> {
        let at = self.index.remove(id)?;
        Some(self.take(at).1)
    }

    pub(crate) fn oldest(&self) -> Option<ObjectId> {
        self.nodes.get(self.oldest as usize).map(|node| node.id)
    }

    pub(crate) fn pop(&mut self) -> Option<(ObjectId, u32)> {
        self.pop_tagged().map(|(id, len, _)| (id, len))
    }

    /// Takes the oldest out, with its tag.
    pub(crate) fn pop_tagged(&mut self) -> Option<(ObjectId, u32, u8)> {
        let id = self.oldest()?;
        let at = self.index.remove(id)?;
        Some(self.take(at))
    }

    /// Puts the oldest at the young end if its tag allows it.
    pub(crate) fn recycle(&mut self, again: impl FnOnce(&mut u8) -> bool) -> bool {
        let at = self.oldest;
        let node = self.nodes.get_mut(at as usize);
        let stays = node.is_some_and(|node| again(&mut node.tag));
        if stays && at != self.youngest {
            self.part(at);
            self.join(at);
        }
        stays
    }

    /// The object at the hand, with its tag.
    pub(crate) fn at_hand(&mut self) -> Option<(ObjectId, &mut u8)> {
        if self.hand == NONE {
            self.hand = self.oldest;
        }
        let node = self.nodes.get_mut(self.hand as usize)?;
        Some((node.id, &mut node.tag))
    }

    /// Moves the hand towards the young, and from the youngest to the oldest.
    pub(crate) fn advance_hand(&mut self) {
        let node = self.nodes.get(self.hand as usize);
        self.hand = node.map_or(NONE, |node| node.younger);
    }

    /// Forgets the oldest until at most `bytes` are left; identities are bounded by [`GHOSTS_MAX`].
    pub(crate) fn trim(&mut self, bytes: u64) {
        while self.bytes > bytes || self.len() > GHOSTS_MAX {
            self.pop();
        }
    }

    pub(crate) fn remove_file(&mut self, file: FileId) {
        for (_, at) in self.index.remove_file(file) {
            self.take(at);
        }
    }

    pub(crate) fn of_file(&self, file: FileId) -> Vec<ObjectId> {
        self.index.of_file(file).map(|(id, _)| id).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Gives up a place that the index no longer names.
    fn take(&mut self, at: u32) -> (ObjectId, u32, u8) {
        self.part(at);
        self.free.push(at);
        let node = &self.nodes[at as usize];
        self.bytes -= u64::from(node.len);
        (node.id, node.len, node.tag)
    }

    /// Takes a node out of the order; a hand on it goes on to the next younger one.
    fn part(&mut self, at: u32) {
        let Node { older, younger, .. } = self.nodes[at as usize];
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.younger = younger,
            None => self.oldest = younger,
        }
        match self.nodes.get_mut(younger as usize) {
            Some(node) => node.older = older,
            None => self.youngest = older,
        }
        if self.hand == at {
            self.hand = younger;
        }
    }

    /// Puts a node that is in no order at the young end.
    fn join(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.youngest, at);
        let node = &mut self.nodes[at as usize];
        (node.older, node.younger) = (older, NONE);
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.younger = at,
            None => self.oldest = at,
        }
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
                ours.hand = NONE;
                for _ in 0..theirs.len() {
                    seen.extend(ours.at_hand().map(|(id, _)| id));
                    ours.advance_hand();
                }
                prop_assert_eq!(seen, theirs.iter().map(|o| o.0).collect::<Vec<_>>());
                prop_assert_eq!(ours.hand, NONE);
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
