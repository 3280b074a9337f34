//! One phase of a run: workers carry requests out, each taking its next one itself; the phase looks after time, ends and
//! progress.

use super::turns::{Next, Turns};
use super::{Engine, Options, Partial, Speed};
use crate::client::Connection;
use crate::exchange::{Done, micros};
use crate::plan::Request;
use crate::progress::Progress;
use crate::report::Summary;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Longest time between two looks at the clock.
const LOOK: Duration = Duration::from_millis(500);
/// What a phase came to.
#[derive(Default)]
pub(super) struct Phase {
    pub(super) warm_up: Summary,
    pub(super) summary: Summary,
    pub(super) partial: Option<Partial>,
}

/// What workers of one thread have counted.
#[derive(Default)]
struct Tally {
    warm_up: Summary,
    summary: Summary,
    last_end: Option<Instant>,
}

/// What all workers of a phase share.
struct Work {
    requests: Vec<Request>,
    turns: Turns,
    speed: Speed,
    start: Instant,
    measured_from: Instant,
}

impl Work {
    fn due(&self, request: &Request) -> Instant {
        match self.speed {
            Speed::Max => self.start,
            Speed::Timed(_) => self.start + Duration::from_micros(due_us(self.speed, request)),
        }
    }

    /// Counts a request that `worker` has ended, and says what it does next, and the time.
    fn ended(
        &self,
        worker: usize,
        index: u32,
        sent: Instant,
        done: Done,
        tally: &Mutex<Tally>,
    ) -> (Next, Instant) {
        let now = Instant::now();
        if done.interrupted {
            // The phase may not have looked yet.
            self.turns.stop();
        }
        let request = &self.requests[index as usize];
        let intended = match self.speed {
            Speed::Max => sent,
            Speed::Timed(_) => self.due(request),
        };
        let mut tally = lock(tally);
        tally.last_end = tally.last_end.max(Some(now));
        let (counted, from) = match intended < self.measured_from {
            true => (&mut tally.warm_up, self.start),
            false => (&mut tally.summary, self.measured_from),
        };
        counted.add(
            request.kind,
            micros(from, now),
            micros(intended, now),
            micros(sent, now),
            done,
        );
        drop(tally);
        (self.turns.next(worker, index, micros(self.start, now)), now)
    }
}

fn due_us(speed: Speed, request: &Request) -> u64 {
    match speed {
        Speed::Max => 0,
        Speed::Timed(factor) => (request.at_us as f64 / factor) as u64,
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a worker: one that panics ends the phase, for its request never will.
struct Leaving(Arc<Work>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.turns.stop();
        }
    }
}

/// Sends `requests`, each when what it waits for is done, its time has come and a connection is free.
pub(super) async fn phase(
    engine: &Engine,
    requests: Vec<Request>,
    waits: Vec<Vec<u32>>,
    options: &Options,
    name: &str,
) -> Phase {
    let (total, speed, clients) = (requests.len(), options.speed, options.clients.max(1));
    let due = match speed {
        Speed::Max => Vec::new(),
        Speed::Timed(_) => requests.iter().map(|r| due_us(speed, r)).collect(),
    };
    let (turns, channels) = Turns::new(&waits, due, clients);
    drop(waits);
    let start = Instant::now();
    let work = Arc::new(Work {
        requests,
        turns,
        speed,
        start,
        measured_from: start + options.warmup,
    });
    let (running, mut ended) = mpsc::channel::<()>(1);
    let tallies = start_workers(engine, &work, channels, &running);
    drop(running);
    let stop_at = options.duration.map(|d| start + d);
    let mut interrupt = options.interrupt.clone();
    let mut because = None;
    let mut progress = Progress::new(name, total, options.progress);
    let failures = || -> u64 {
        let of = |tally: &Arc<Mutex<Tally>>| {
            let tally = lock(tally);
            tally.warm_up.failures() + tally.summary.failures()
        };
        tallies.iter().map(of).sum()
    };
    if !is_interrupted(&interrupt) && stop_at.is_none_or(|at| at > start) {
        // To start so many workers may have taken longer than `duration`: what begins with the phase is part of it all the same.
        work.turns.hand_out(0, 0);
    }
    loop {
        let now = Instant::now();
        if is_interrupted(&interrupt) {
            because = Some("interrupted");
        } else if stop_at.is_some_and(|at| at <= now) {
            because = Some("--duration is over");
        }
        if because.is_some() {
            work.turns.stop();
        }
        let look = now + LOOK;
        let look = stop_at.map_or(look, |at| at.max(now).min(look));
        let due = work.turns.hand_out(micros(start, now), micros(start, look));
        // A microsecond later than its own, as times are cut to whole ones.
        let due = due.map(|us| start + Duration::from_micros(us.saturating_add(1)));
        let wake = due.map_or(look, |at| at.min(look));
        tokio::select! {
            // All workers are gone.
            _ = ended.recv() => break,
            () = tokio::time::sleep_until(wake.into()), if because.is_none() => {}
            () = work.turns.earlier.notified() => {}
            () = changed(&mut interrupt) => {}
        }
        progress.show(work.turns.counts().1, failures(), start);
    }
    if because.is_none() && is_interrupted(&interrupt) {
        because = Some("interrupted");
    }
    let (started, done) = work.turns.counts();
    progress.end(done, failures(), start);
    let mut phase = Phase::default();
    let mut last_end = start;
    for tally in tallies {
        let tally = std::mem::take(&mut *lock(&tally));
        phase.warm_up.merge(tally.warm_up);
        phase.summary.merge(tally.summary);
        last_end = last_end.max(tally.last_end.unwrap_or(start));
    }
    if done < started || (because.is_none() && done < total) {
        phase.summary.fail("a worker ended early".into());
    }
    let measured_from = work.measured_from;
    phase.warm_up.elapsed_us = micros(start, last_end.min(measured_from));
    phase.summary.elapsed_us = micros(measured_from.min(last_end), last_end);
    phase.partial = because.filter(|_| done < total).map(|because| Partial {
        because,
        not_started: (total - done) as u64,
    });
    phase
}

fn is_interrupted(interrupt: &Option<watch::Receiver<bool>>) -> bool {
    interrupt.as_ref().is_some_and(|i| *i.borrow())
}

/// Ends when the interrupt comes, never when there is none (or its sender is gone, or it has come).
async fn changed(interrupt: &mut Option<watch::Receiver<bool>>) {
    match interrupt {
        Some(receiver) if !*receiver.borrow() => {
            if receiver.changed().await.is_err() {
                std::future::pending().await
            }
        }
        _ => std::future::pending().await,
    }
}

/// Starts a worker for each channel: as many threads as there are cores share the connections, each with an event loop of its
/// own, so that no request changes threads. Each holds a clone of `running` until it ends.
fn start_workers(
    engine: &Engine,
    work: &Arc<Work>,
    channels: Vec<mpsc::UnboundedReceiver<u32>>,
    running: &mpsc::Sender<()>,
) -> Vec<Arc<Mutex<Tally>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let per_thread = match engine {
        Engine::Http(_) => channels.len().div_ceil(cores),
        // System calls block: each worker is a thread of its own.
        Engine::Calls(_) => 1,
    };
    // Calls are counted by as many as there are cores: a thread of its own need not have counters of its own.
    let tallies: Vec<_> = (0..channels.len().div_ceil(per_thread).min(cores))
        .map(|_| Arc::<Mutex<Tally>>::default())
        .collect();
    let mut workers = channels.into_iter().enumerate();
    let mut thread = 0;
    loop {
        let workers: Vec<_> = workers.by_ref().take(per_thread).collect();
        if workers.is_empty() {
            return tallies;
        }
        let shared_work = work;
        let (engine, work, running) = (engine.clone(), work.clone(), running.clone());
        let shared_tally = &tallies[thread % tallies.len()];
        let tally = shared_tally.clone();
        thread += 1;
        let spawned = std::thread::Builder::new().spawn(move || {
            let _running = running;
            match engine {
                Engine::Http(shared) => {
                    let connections = async {
                        let mut tasks = tokio::task::JoinSet::new();
                        for (worker, channel) in workers {
                            let connection = Connection::new(shared.target.clone());
                            let (shared, work, tally) =
                                (shared.clone(), Leaving(work.clone()), tally.clone());
                            tasks.spawn(async move {
                                http_worker(worker, channel, &shared, connection, &work.0, &tally)
                                    .await;
                            });
                        }
                        while tasks.join_next().await.is_some() {}
                    };
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    match runtime {
                        Ok(runtime) => runtime.block_on(connections),
                        Err(e) => {
                            lock(&tally).summary.fail(e.to_string());
                            work.turns.stop();
                        }
                    }
                }
                Engine::Calls(calls) => {
                    let work = Leaving(work);
                    for (worker, channel) in workers {
                        let call = |index, request: &Request| calls.call(index, request);
                        call_worker(worker, channel, call, &work.0, &tally);
                    }
                }
            }
        });
        if let Err(e) = spawned {
            let failure = format!("{thread} threads are too many for this system: {e}");
            lock(shared_tally).summary.fail(failure);
            shared_work.turns.stop();
            return tallies;
        }
    }
}

async fn http_worker(
    worker: usize,
    mut channel: mpsc::UnboundedReceiver<u32>,
    shared: &crate::exchange::Shared,
    mut connection: Connection,
    work: &Work,
    tally: &Mutex<Tally>,
) {
    while let Some(mut index) = channel.recv().await {
        let mut sent = Instant::now();
        loop {
            let request = &work.requests[index as usize];
            let done = shared.exchange(&mut connection, request).await;
            let (next, now) = work.ended(worker, index, sent, done, tally);
            match next {
                Next::Run(next) => (index, sent) = (next, now),
                Next::Wait => break,
                Next::End => return,
            }
        }
    }
}

fn call_worker(
    worker: usize,
    mut channel: mpsc::UnboundedReceiver<u32>,
    call: impl Fn(u32, &Request) -> Done,
    work: &Work,
    tally: &Mutex<Tally>,
) {
    while let Some(mut index) = channel.blocking_recv() {
        let mut sent = Instant::now();
        loop {
            let done = call(index, &work.requests[index as usize]);
            let (next, now) = work.ended(worker, index, sent, done, tally);
            match next {
                Next::Run(next) => (index, sent) = (next, now),
                Next::Wait => break,
                Next::End => return,
            }
        }
    }
}
