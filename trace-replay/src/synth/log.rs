//! The trace that a generator makes, in the order of its times, without keeping more of it than is still out of order.

use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A load that is made piece by piece: each call adds some to the log, and says from when on (microseconds since the
/// begin) all that comes later is. `None`: there is no more.
pub type Steps = Box<dyn FnMut(&mut Log) -> Option<f64>>;

/// Entries that were made and not yet read.
pub struct Log {
    waiting: BinaryHeap<Reverse<Waiting>>,
    made: u64,
    /// Nothing earlier than this is made any more.
    settled_us: i64,
    /// Most entries are about the path of the one before.
    last_name: Arc<str>,
}

/// An entry in its place: by time, and what was made first goes first.
struct Waiting {
    number: u64,
    entry: Entry,
}

impl Waiting {
    fn place(&self) -> (i64, u64) {
        (self.entry.at_us, self.number)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// Who does something, and when: each operation moves the time on.
#[derive(Clone)]
pub struct Actor {
    /// Client.
    pub client: Arc<str>,
    /// Thread.
    pub thread: Arc<str>,
    /// Microseconds since the begin.
    pub now: f64,
    /// Microseconds that a small operation takes.
    pub step: f64,
}

impl Actor {
    /// Somebody whose small operations take `step` microseconds.
    pub fn new(client: &str, thread: &str, step: f64) -> Actor {
        Actor {
            client: client.into(),
            thread: thread.into(),
            now: 0.0,
            step,
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log {
            waiting: BinaryHeap::new(),
            made: 0,
            settled_us: 0,
            last_name: "".into(),
        }
    }
}

impl Log {
    /// An operation without bytes.
    pub fn op(&mut self, actor: &mut Actor, op: Op, path: &str) {
        self.io(actor, op, path, 0, 0);
    }

    /// A read, write or truncation.
    pub fn io(&mut self, actor: &mut Actor, op: Op, path: &str, offset: u64, length: u64) {
        let entry = Entry {
            thread: actor.thread.clone(),
            offset,
            length,
            ..Entry::new(actor.now as i64, actor.client.clone(), op, self.name(path))
        };
        self.add(actor, entry);
    }

    /// A rename.
    pub fn rename(&mut self, actor: &mut Actor, from: &str, to: &str) {
        let from = self.name(from);
        let entry = Entry {
            thread: actor.thread.clone(),
            path2: Some(to.into()),
            ..Entry::new(actor.now as i64, actor.client.clone(), Op::FileRename, from)
        };
        self.add(actor, entry);
    }

    fn name(&mut self, path: &str) -> Arc<str> {
        if *self.last_name != *path {
            self.last_name = path.into();
        }
        self.last_name.clone()
    }

    fn add(&mut self, actor: &mut Actor, entry: Entry) {
        debug_assert!(entry.at_us >= self.settled_us, "made too late: {entry:?}");
        let number = self.made;
        self.made += 1;
        self.waiting.push(Reverse(Waiting { number, entry }));
        actor.now += actor.step;
    }

    /// A new file with all its bytes, in writes of at most `chunk` that take `seconds` together.
    pub fn file(&mut self, actor: &mut Actor, path: &str, bytes: u64, chunk: u64, seconds: f64) {
        self.op(actor, Op::FileCreate, path);
        self.chunks(actor, Op::FileWrite, path, 0, bytes, chunk, seconds);
        self.op(actor, Op::FileClose, path);
    }

    /// Reads or writes from `offset` on, of at most `chunk` each, that take `seconds` together.
    #[expect(clippy::too_many_arguments, reason = "an operation has as many")]
    pub fn chunks(
        &mut self,
        actor: &mut Actor,
        op: Op,
        path: &str,
        offset: u64,
        bytes: u64,
        chunk: u64,
        seconds: f64,
    ) {
        let count = bytes.div_ceil(chunk.max(1));
        let mut at = offset;
        for _ in 0..count {
            let length = chunk.min(offset + bytes - at);
            let step = std::mem::replace(&mut actor.step, seconds * 1e6 / count as f64);
            self.io(actor, op, path, at, length);
            actor.step = step;
            at += length;
        }
    }

    /// The first entry, if what is still to be made comes after it. What will be made at the same time is later in order.
    fn settled(&mut self) -> Option<Entry> {
        let Reverse(first) = self.waiting.peek()?;
        if first.entry.at_us > self.settled_us {
            return None;
        }
        self.waiting.pop().map(|Reverse(first)| first.entry)
    }
}

/// The trace of a load, made while it is read.
pub struct Stream {
    steps: Option<Steps>,
    log: Log,
    unusable: Unusable,
}

impl Stream {
    /// Of this load.
    pub fn new(steps: Steps) -> Stream {
        Stream {
            steps: Some(steps),
            log: Log::default(),
            unusable: Unusable::default(),
        }
    }

    /// Entries that were made and not yet read.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.log.waiting.len()
    }
}

impl Reader for Stream {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        loop {
            if let Some(entry) = self.log.settled() {
                return Some(Ok(entry));
            }
            match self.steps.as_mut()?(&mut self.log) {
                Some(settled) => self.log.settled_us = settled as i64,
                None => {
                    self.log.settled_us = i64::MAX;
                    self.steps = None;
                }
            }
        }
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_by_time_and_those_of_one_time_as_they_were_made() {
        // Two actors; the second one is ahead of the first by more than a piece.
        let (mut slow, mut fast) = (Actor::new("slow", "", 10.0), Actor::new("fast", "", 0.25));
        fast.now = 20.0;
        let mut piece = 0;
        let steps: Steps = Box::new(move |log| {
            piece += 1;
            log.op(&mut fast, Op::FileStat, &format!("f{piece}"));
            log.op(&mut slow, Op::FileStat, &format!("s{piece}"));
            (piece < 4).then_some(slow.now.min(fast.now))
        });
        let mut stream = Stream::new(steps);
        let entries = std::iter::from_fn(|| stream.next_entry());
        let paths: Vec<String> = entries.flatten().map(|e| e.path.to_string()).collect();
        // `slow` is at 0, 10, 20, 30; all of `fast` is within microsecond 20, in part made before and in part after s3.
        assert_eq!(paths, ["s1", "s2", "f1", "f2", "f3", "s3", "f4", "s4"]);
        assert!(stream.next_entry().is_none());
    }
}
