//! Runs a plan: makes what existed before, sends the requests in order, reads back what is left.

use crate::client::{Connection, Target};
use crate::exchange::{Done, Shared, Verify, micros};
use crate::plan::{Expect, Kind, Plan, Request};
use crate::report::{Report, Summary};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How fast requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// At the recorded times, divided by this.
    Timed(f64),
    /// As fast as order and connections allow.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;
    fn from_str(text: &str) -> Result<Speed, String> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Speed::Timed(factor)),
            _ => Err(format!("`{text}` is neither `max` nor a number above 0")),
        }
    }
}

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Timing.
    pub speed: Speed,
    /// Connections, and so requests under way at once.
    pub clients: usize,
    /// Seed of the content.
    pub seed: u64,
    /// What to compare.
    pub verify: Verify,
    /// Whether progress goes to standard error.
    pub progress: bool,
}

struct Finished {
    worker: usize,
    index: usize,
    sent: Instant,
    ended: Instant,
    done: Done,
}

/// Replays `plan` against `target`.
pub async fn run(plan: Plan, target: Target, options: Options) -> Report {
    let mut report = Report::new(&plan, &options);
    let mut plan = plan;
    let requests = std::mem::take(&mut plan.requests);
    let waits = std::mem::take(&mut plan.waits);
    let set_up = existing_requests(&plan, &target);
    let read_back = remaining_requests(&plan);
    let shared = Arc::new(Shared::new(
        Arc::new(plan),
        target,
        options.seed,
        options.verify,
    ));
    let chain = set_up
        .iter()
        .enumerate()
        .map(|(i, r)| chained(&set_up, i, r))
        .collect();
    report.set_up = phase(&shared, set_up, chain, Speed::Max, &options, "set-up").await;
    if report.set_up.is_clean() {
        report.replay = phase(&shared, requests, waits, options.speed, &options, "replay").await;
        if options.verify == Verify::All {
            let free = vec![Vec::new(); read_back.len()];
            report.read_back =
                phase(&shared, read_back, free, Speed::Max, &options, "read back").await;
        }
    }
    report
}

fn plain(kind: Kind, path: u32, content: Option<u32>, length: u64) -> Request {
    let expect = Expect::Success;
    Request {
        at_us: 0,
        lane: 0,
        client: u32::MAX,
        kind,
        path,
        path2: path,
        content,
        offset: 0,
        length,
        creates: false,
        expect,
    }
}

fn existing_requests(plan: &Plan, _target: &Target) -> Vec<Request> {
    plan.existing
        .iter()
        .map(|e| match e.content {
            Some(content) => plain(
                Kind::Put,
                e.path,
                Some(content),
                plan.contents[content as usize].len(),
            ),
            None => plain(Kind::Mkcol, e.path, None, 0),
        })
        .collect()
}

/// Collections are made one after the other, files after the last collection.
fn chained(all: &[Request], index: usize, _request: &Request) -> Vec<u32> {
    all[..index]
        .iter()
        .rposition(|r| r.kind == Kind::Mkcol)
        .map(|i| i as u32)
        .into_iter()
        .collect()
}

fn remaining_requests(plan: &Plan) -> Vec<Request> {
    plan.remaining
        .iter()
        .map(|&(path, content)| {
            plain(
                Kind::Get,
                path,
                Some(content),
                plan.contents[content as usize].len(),
            )
        })
        .collect()
}

/// Makes the collections of the prefix; what is there already is fine.
pub async fn make_prefix(target: &Target) -> Result<(), String> {
    let bare = Target {
        prefix: "".into(),
        ..target.clone()
    };
    let mut connection = Connection::new(bare);
    let mut path = String::new();
    for segment in target.prefix.split('/').filter(|s| !s.is_empty()) {
        path = format!("{path}/{segment}");
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::BodyExt::map_err(
            http_body_util::Empty::new(),
            |e: std::convert::Infallible| match e {},
        ));
        let request = http::Request::builder()
            .method("MKCOL")
            .uri(format!("{path}/"))
            .body(body);
        let response = connection
            .send(request.map_err(|e| e.to_string())?)
            .await
            .map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        if !(200..300).contains(&status) && status != 405 {
            return Err(format!("MKCOL {path}: status {status}"));
        }
        let _ = http_body_util::BodyExt::collect(response.into_body()).await;
    }
    Ok(())
}

/// Sends `requests`, each when what it waits for is done, its time has come and a connection is free.
async fn phase(
    shared: &Arc<Shared>,
    requests: Vec<Request>,
    waits: Vec<Vec<u32>>,
    speed: Speed,
    options: &Options,
    name: &str,
) -> Summary {
    let mut summary = Summary::default();
    let total = requests.len();
    let requests = Arc::new(requests);
    let mut pending: Vec<u32> = waits.iter().map(|w| w.len() as u32).collect();
    let mut followers: Vec<Vec<u32>> = vec![Vec::new(); total];
    for (index, waits) in waits.iter().enumerate() {
        for &wait in waits {
            followers[wait as usize].push(index as u32);
        }
    }
    drop(waits);
    let (finished_in, mut finished) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for worker in 0..options.clients.max(1) {
        workers.push(start_worker(
            worker,
            shared.clone(),
            requests.clone(),
            finished_in.clone(),
        ));
    }
    let mut idle: Vec<usize> = (0..workers.len()).rev().collect();
    let start = Instant::now();
    let due = |index: usize| match speed {
        Speed::Max => start,
        Speed::Timed(factor) => {
            start + Duration::from_secs_f64(requests[index].at_us as f64 / 1e6 / factor)
        }
    };
    let mut ready: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    ready.extend(
        (0..total)
            .filter(|&i| pending[i] == 0)
            .map(|i| Reverse((due(i), i))),
    );
    let mut progress = Progress::new(name, total, options.progress);
    let mut done = 0;
    while done < total {
        let now = Instant::now();
        while let (Some(&Reverse((at, index))), Some(&worker)) = (ready.peek(), idle.last()) {
            if at > now {
                break;
            }
            ready.pop();
            idle.pop();
            if workers[worker].send(index).is_err() {
                summary.fail("a connection's task ended".into());
                return summary;
            }
        }
        let next_due = ready.peek().filter(|_| !idle.is_empty()).map(|r| r.0.0);
        let tick = now + Duration::from_millis(500);
        let wake = next_due.map_or(tick, |at| at.min(tick));
        let first = tokio::select! {
            first = finished.recv() => first,
            () = tokio::time::sleep_until(wake.into()) => None,
        };
        let mut next: Option<Finished> = first;
        while let Some(f) = next {
            done += 1;
            idle.push(f.worker);
            let intended = match speed {
                Speed::Max => f.sent,
                Speed::Timed(_) => due(f.index),
            };
            let request = &requests[f.index];
            summary.add(
                request.kind,
                micros(intended, f.ended),
                micros(f.sent, f.ended),
                f.done,
            );
            for &follower in &followers[f.index] {
                pending[follower as usize] -= 1;
                if pending[follower as usize] == 0 {
                    ready.push(Reverse((due(follower as usize), follower as usize)));
                }
            }
            next = finished.try_recv().ok();
        }
        progress.show(done, summary.failures(), start);
    }
    progress.end(done, summary.failures(), start);
    summary.elapsed_us = micros(start, Instant::now());
    summary
}

fn start_worker(
    worker: usize,
    shared: Arc<Shared>,
    requests: Arc<Vec<Request>>,
    finished: mpsc::UnboundedSender<Finished>,
) -> mpsc::UnboundedSender<usize> {
    let (send, mut receive) = mpsc::unbounded_channel::<usize>();
    tokio::spawn(async move {
        let mut connection = Connection::new(shared.target.clone());
        while let Some(index) = receive.recv().await {
            let sent = Instant::now();
            let done = shared.exchange(&mut connection, &requests[index]).await;
            if finished
                .send(Finished {
                    worker,
                    index,
                    sent,
                    ended: Instant::now(),
                    done,
                })
                .is_err()
            {
                return;
            }
        }
    });
    send
}

/// Progress on standard error: one line rewritten on a terminal, a line every ten seconds elsewhere.
struct Progress {
    name: String,
    total: usize,
    shown: Instant,
    on: bool,
    terminal: bool,
}

impl Progress {
    fn new(name: &str, total: usize, on: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            name: name.into(),
            total,
            shown: Instant::now(),
            on: on && total > 0,
            terminal,
        }
    }

    fn show(&mut self, done: usize, failures: u64, start: Instant) {
        let every = if self.terminal {
            Duration::from_millis(500)
        } else {
            Duration::from_secs(10)
        };
        if self.on && self.shown.elapsed() >= every {
            self.shown = Instant::now();
            self.line(done, failures, start);
        }
    }

    fn end(&mut self, done: usize, failures: u64, start: Instant) {
        if self.on {
            self.line(done, failures, start);
            if self.terminal {
                eprintln!();
            }
        }
    }

    fn line(&self, done: usize, failures: u64, start: Instant) {
        let seconds = start.elapsed().as_secs_f64().max(1e-6);
        let rate = done as f64 / seconds;
        let left = (self.total - done) as f64 / rate.max(1e-6);
        let line = format!(
            "{}: {done}/{} requests, {rate:.0}/s, {failures} failed, {seconds:.0} s, {left:.0} s left",
            self.name, self.total
        );
        if self.terminal {
            eprint!("\r{line}\x1b[K");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
}
