//! Whose turn it is: the requests whose predecessors have ended, in the order of their times, and who waits for one.
//!
//! A worker that ends a request takes its next one here itself. Only where nothing is to be done does it wait, until a request
//! is handed to it over its channel. No clock of its own: times are microseconds since the phase's start.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// This request.
    Run(u32),
    /// Wait for its channel to give one, or to close: then there are no more.
    Wait,
    /// Nothing more.
    End,
}

/// The turns of a phase.
pub(super) struct Turns {
    state: Mutex<State>,
    /// Someone waits for a time that is earlier than the one that [`Turns::hand_out`] gave.
    pub(super) earlier: Notify,
}

struct State {
    /// How many predecessors of each request have not ended.
    pending: Vec<u32>,
    followers: Followers,
    /// When each is due; empty: all at once.
    due_us: Vec<u64>,
    /// Requests without predecessors by time, and how many of them have been taken: most are here from the start, and a
    /// heap of millions is slow.
    first: Vec<u32>,
    taken: usize,
    /// Those whose last predecessor has ended since.
    ready: BinaryHeap<Reverse<(u64, u32)>>,
    workers: Vec<UnboundedSender<u32>>,
    idle: Vec<usize>,
    /// When the next call of `hand_out` comes at the latest.
    looks_at_us: u64,
    started: usize,
    ended: usize,
}

/// Who comes after each request: one list for all, and where each one's part of it begins.
struct Followers {
    begins: Vec<u32>,
    all: Vec<u32>,
}

impl Followers {
    fn new(waits: &[Vec<u32>]) -> Followers {
        let mut begins = vec![0; waits.len() + 1];
        for &wait in waits.iter().flatten() {
            begins[wait as usize + 1] += 1;
        }
        for index in 1..begins.len() {
            begins[index] += begins[index - 1];
        }
        let mut next = begins.clone();
        let mut all = vec![0; waits.iter().map(Vec::len).sum()];
        for (index, waits) in waits.iter().enumerate() {
            for &wait in waits {
                all[next[wait as usize] as usize] = index as u32;
                next[wait as usize] += 1;
            }
        }
        Followers { begins, all }
    }

    fn of(&self, index: u32) -> std::ops::Range<usize> {
        let begin = |index: u32| self.begins[index as usize] as usize;
        begin(index)..begin(index + 1)
    }
}

impl Turns {
    /// Requests that wait for those in `waits`, and are not due before `due_us` (empty: at once), for so many workers. Gives
    /// the workers' channels; all of them are idle.
    pub(super) fn new(
        waits: &[Vec<u32>],
        due_us: Vec<u64>,
        workers: usize,
    ) -> (Turns, Vec<UnboundedReceiver<u32>>) {
        let pending: Vec<u32> = waits.iter().map(|w| w.len() as u32).collect();
        let mut first: Vec<u32> = (0..pending.len() as u32)
            .filter(|index| pending[*index as usize] == 0)
            .collect();
        if !due_us.is_empty() {
            first.sort_by_key(|index| (due_us[*index as usize], *index));
        }
        let (senders, receivers) = (0..workers).map(|_| unbounded_channel()).unzip();
        let mut state = State {
            followers: Followers::new(waits),
            pending,
            due_us,
            first,
            taken: 0,
            ready: BinaryHeap::new(),
            workers: senders,
            idle: (0..workers).rev().collect(),
            looks_at_us: 0,
            started: 0,
            ended: 0,
        };
        if state.pending.is_empty() {
            state.close();
        }
        let turns = Turns {
            state: Mutex::new(state),
            earlier: Notify::new(),
        };
        (turns, receivers)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `worker` has ended `request` at `now_us`.
    pub(super) fn next(&self, worker: usize, request: u32, now_us: u64) -> Next {
        let mut state = self.state();
        state.end(request);
        if state.workers.is_empty() {
            return Next::End;
        }
        let next = match state.take(now_us) {
            Some(next) => Next::Run(next),
            None => {
                state.idle.push(worker);
                Next::Wait
            }
        };
        let due = state.hand_out(now_us);
        if due.is_some_and(|due| due < state.looks_at_us) {
            self.earlier.notify_one();
        }
        next
    }

    /// Gives those who wait what is due at `now_us`. The caller comes again at `looks_at_us`, or at the time that this
    /// gives, if that is earlier.
    pub(super) fn hand_out(&self, now_us: u64, looks_at_us: u64) -> Option<u64> {
        let mut state = self.state();
        let due = state.hand_out(now_us);
        state.looks_at_us = due.map_or(looks_at_us, |due| due.min(looks_at_us));
        due
    }

    /// Starts nothing more.
    pub(super) fn stop(&self) {
        self.state().close();
    }

    /// How many have been started, and have ended.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.started, state.ended)
    }
}

impl State {
    fn due(&self, index: u32) -> u64 {
        self.due_us.get(index as usize).copied().unwrap_or(0)
    }

    fn end(&mut self, request: u32) {
        self.ended += 1;
        for at in self.followers.of(request) {
            let follower = self.followers.all[at];
            let pending = &mut self.pending[follower as usize];
            *pending -= 1;
            if *pending == 0 {
                self.ready.push(Reverse((self.due(follower), follower)));
            }
        }
        if self.ended == self.pending.len() {
            self.close();
        }
    }

    /// The request that comes next, and when it is due.
    fn peek(&self) -> Option<(u64, u32)> {
        let first = self.first.get(self.taken);
        let first = first.map(|&index| (self.due(index), index));
        let ready = self.ready.peek().map(|r| r.0);
        first.into_iter().chain(ready).min()
    }

    fn take(&mut self, now_us: u64) -> Option<u32> {
        let (_, index) = self.peek().filter(|(due, _)| *due <= now_us)?;
        if self.first.get(self.taken) == Some(&index) {
            self.taken += 1;
        } else {
            self.ready.pop();
        }
        self.started += 1;
        Some(index)
    }

    /// Gives those who wait what is due; when the next is due, if anyone is left who waits for it.
    fn hand_out(&mut self, now_us: u64) -> Option<u64> {
        while let Some(&worker) = self.idle.last() {
            let Some(index) = self.take(now_us) else {
                return self.peek().map(|(due, _)| due);
            };
            self.idle.pop();
            // A worker that is gone has taken the phase with it (see `phase::Leaving`).
            let _ = self.workers[worker].send(index);
        }
        None
    }

    fn close(&mut self) {
        self.workers.clear();
        self.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn who_ends_takes_the_next_and_wakes_the_others() {
        let waits = [vec![], vec![0], vec![0], vec![1, 2]];
        let (turns, mut channels) = Turns::new(&waits, Vec::new(), 2);
        assert_eq!(turns.hand_out(0, 9), None);
        assert_eq!(channels[0].try_recv(), Ok(0));
        assert!(channels[1].try_recv().is_err());
        assert_eq!(turns.next(0, 0, 5), Next::Run(1));
        assert_eq!(channels[1].try_recv(), Ok(2));
        assert_eq!(turns.next(0, 1, 6), Next::Wait);
        assert_eq!(turns.next(1, 2, 7), Next::Run(3));
        assert!(!channels[0].is_closed());
        assert_eq!(turns.next(1, 3, 8), Next::End);
        assert!(channels[0].is_closed());
        assert_eq!(turns.counts(), (4, 4));
    }

    #[test]
    fn nothing_starts_before_its_time() {
        let waits = [vec![], vec![], vec![0]];
        let (turns, mut channels) = Turns::new(&waits, vec![10, 5, 20], 1);
        assert_eq!(turns.hand_out(4, 100), Some(5));
        assert_eq!(turns.hand_out(5, 100), None);
        assert_eq!(channels[0].try_recv(), Ok(1));
        assert_eq!(turns.next(0, 1, 9), Next::Wait);
        assert_eq!(turns.hand_out(10, 100), None);
        assert_eq!(channels[0].try_recv(), Ok(0));
        assert_eq!(turns.next(0, 0, 19), Next::Wait);
        assert_eq!(turns.hand_out(19, 100), Some(20));
        assert_eq!(turns.hand_out(20, 100), None);
        assert_eq!(channels[0].try_recv(), Ok(2));
    }

    #[tokio::test]
    async fn a_time_before_the_next_look_is_told() {
        let (turns, mut channels) = Turns::new(&[vec![], vec![0]], vec![0, 50], 1);
        turns.hand_out(0, 1000);
        assert_eq!(channels[0].try_recv(), Ok(0));
        assert_eq!(turns.next(0, 0, 1), Next::Wait);
        // Would wait for ever if it had not been told.
        turns.earlier.notified().await;
        assert_eq!(turns.hand_out(1, 1000), Some(50));
    }

    #[test]
    fn after_a_stop_nothing_is_given() {
        let (turns, channels) = Turns::new(&[vec![], vec![], vec![]], Vec::new(), 2);
        turns.hand_out(0, 9);
        turns.stop();
        assert_eq!(turns.next(0, 0, 1), Next::End);
        assert_eq!(turns.next(1, 1, 1), Next::End);
        assert_eq!(turns.counts(), (2, 2));
        assert!(channels.iter().all(UnboundedReceiver::is_closed));
    }

    #[test]
    fn without_requests_all_is_over_at_once() {
        let (_turns, channels) = Turns::new(&[], Vec::new(), 1);
        assert!(channels[0].is_closed());
    }

    proptest! {
        /// Any plan ends, each request once, after all it waits for, and never more at once than there are workers.
        #[test]
        fn all_run_once_and_in_order(
            seeds in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..60),
            workers in 1_usize..6,
            timed: bool,
            pick in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let waits: Vec<Vec<u32>> = seeds.iter().enumerate().map(|(index, picks)| {
                let set: BTreeSet<u32> = picks.iter().filter(|_| index > 0).map(|p| p.index(index) as u32).collect();
                set.into_iter().collect()
            }).collect();
            let due = if timed { (0..waits.len() as u64).map(|i| i * 3 % 17).collect() } else { Vec::new() };
            let (turns, mut channels) = Turns::new(&waits, due.clone(), workers);
            let (mut now, mut ended, mut running) = (0, BTreeSet::new(), Vec::new());
            for picked in pick.iter().cycle() {
                if ended.len() == waits.len() { break; }
                let next = turns.hand_out(now, u64::MAX);
                let mut begun = Vec::new();
                for (worker, channel) in channels.iter_mut().enumerate() {
                    begun.extend(channel.try_recv().ok().map(|index| (worker, index)));
                }
                if !running.is_empty() || !begun.is_empty() {
                    running.append(&mut begun);
                    let (worker, index) = running.swap_remove(picked.index(running.len()));
                    ended.insert(index);
                    if let Next::Run(next) = turns.next(worker, index, now) { running.push((worker, next)); }
                } else {
                    now = next.unwrap();
                }
                prop_assert!(running.len() <= workers);
                for (_, index) in &running {
                    prop_assert!(!ended.contains(index));
                    prop_assert!(waits[*index as usize].iter().all(|w| ended.contains(w)));
                    prop_assert!(due.get(*index as usize).is_none_or(|due| *due <= now));
                }
            }
            prop_assert_eq!(turns.counts(), (waits.len(), waits.len()));
            prop_assert!(channels.iter().all(UnboundedReceiver::is_closed));
        }
    }
}
