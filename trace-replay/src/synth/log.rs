//! The trace that a generator makes.

use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op};
use std::collections::HashMap;
use std::sync::Arc;

/// Entries, in whatever order they are found; read, they are in the order of their times.
#[derive(Default)]
pub struct Log {
    entries: Vec<Entry>,
    names: HashMap<String, Arc<str>>,
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

impl Log {
    fn name(&mut self, path: &str) -> Arc<str> {
        if let Some(name) = self.names.get(path) {
            return name.clone();
        }
        let name: Arc<str> = path.into();
        self.names.insert(path.into(), name.clone());
        name
    }

    /// An operation without bytes.
    pub fn op(&mut self, actor: &mut Actor, op: Op, path: &str) {
        self.io(actor, op, path, 0, 0);
    }

    /// A read, write or truncation.
    pub fn io(&mut self, actor: &mut Actor, op: Op, path: &str, offset: u64, length: u64) {
        let path = self.name(path);
        self.entries.push(Entry {
            thread: actor.thread.clone(),
            offset,
            length,
            ..Entry::new(actor.now as i64, actor.client.clone(), op, path)
        });
        actor.now += actor.step;
    }

    /// A rename.
    pub fn rename(&mut self, actor: &mut Actor, from: &str, to: &str) {
        self.op(actor, Op::FileRename, from);
        let to = self.name(to);
        if let Some(last) = self.entries.last_mut() {
            last.path2 = Some(to);
        }
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

    /// The trace.
    pub fn into_reader(mut self) -> impl Reader {
        // Stable: what one actor does at one time stays in its order.
        self.entries.sort_by_key(|e| e.at_us);
        Sorted {
            entries: self.entries.into_iter(),
            unusable: Unusable::default(),
        }
    }
}

struct Sorted {
    entries: std::vec::IntoIter<Entry>,
    unusable: Unusable,
}

impl Reader for Sorted {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        self.entries.next().map(Ok)
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}
