//! The way from the requests to the writer: bounded, and woken for by time rather than by each record.
//!
//! A channel wakes its receiver for every message that it sleeps before, which costs both sides a system call and the
//! machine a switch of context: more than the record itself (measured, docs/performance.md). Here the writer takes what
//! has gathered when its time has come, and is woken only when much is waiting.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A bounded queue of many senders and one receiver.
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    /// Much is waiting, or the queue was closed or asked to hurry.
    wake: Condvar,
    capacity: usize,
}

struct Waiting<T> {
    messages: Vec<T>,
    hurry: bool,
    closed: bool,
}

impl<T> Queue<T> {
    /// Room for `capacity` messages, one at least.
    pub fn new(capacity: usize) -> Queue<T> {
        Queue {
            waiting: Mutex::new(Waiting {
                messages: Vec::new(),
                hurry: false,
                closed: false,
            }),
            wake: Condvar::new(),
            capacity: capacity.max(1),
        }
    }

    /// Queues a message, without waiting; gives it back when the queue is full or closed.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        let mut waiting = self.waiting.lock();
        if waiting.closed || waiting.messages.len() >= self.capacity {
            return Err(message);
        }
        waiting.messages.push(message);
        if waiting.messages.len() == self.capacity.div_ceil(4) {
            waiting.hurry = true;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues a message even beyond the capacity, and wakes the receiver; gives it back when the queue is closed.
    pub fn send_now(&self, message: T) -> Result<(), T> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(message);
        }
        waiting.messages.push(message);
        waiting.hurry = true;
        self.wake.notify_one();
        Ok(())
    }

    /// No message is taken any more; what waits stays for the receiver.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        self.wake.notify_one();
    }

    /// Exchanges what waits for `empty`, after `longest`, or sooner when much is waiting. `false` when the queue is closed and nothing
    /// will follow.
    pub fn take(&self, empty: &mut Vec<T>, longest: Duration) -> bool {
        let until = Instant::now() + longest;
        let mut waiting = self.waiting.lock();
        while !waiting.hurry && !waiting.closed {
            if self.wake.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        waiting.hurry = false;
        std::mem::swap(&mut waiting.messages, empty);
        !(waiting.closed && empty.is_empty())
    }
}
