//! `--target model:`: a replay on a device that is calculated: first come, first served, a positioning unless an access
//! goes on where one before it stopped, then transfer. Time is calculated, too: an hour's load takes seconds.
//!
//! Reads and writes of content cost what the device needs; all else costs nothing, and no content is compared.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tiering::sim::{Device, Line};
use tiering::{DEFAULT_OBJECT_BYTES, FileId, Nanos, ObjectId};

use crate::exchange::Done;
use crate::plan::{Kind, Request};
use crate::replay::{Options, Partial, Speed};
use crate::report::Summary;

/// What became of it: the warm-up, the rest, and why it ended early, if it did.
pub struct Calculated {
    /// What started in the warm-up.
    pub warm_up: Summary,
    /// All else.
    pub summary: Summary,
    /// Set when not all was started.
    pub partial: Option<Partial>,
}

/// Bytes of content that a request moves.
fn moved(request: &Request) -> u64 {
    match request.kind {
        Kind::Get | Kind::Put | Kind::PutRange | Kind::Read | Kind::Write => request.length,
        _ => 0,
    }
}

/// When the device has served a request that comes now.
fn serve(device: &mut Line, now: Nanos, request: &Request) -> Nanos {
    let object = u64::from(DEFAULT_OBJECT_BYTES);
    // Identities begin with 1.
    let file = FileId(u64::from(request.path) + 1);
    let end = request.offset.saturating_add(moved(request));
    let (mut at, mut done) = (request.offset, now);
    while at < end {
        let next = end.min((at / object + 1) * object);
        let index = u32::try_from(at / object).unwrap_or(u32::MAX);
        let (offset, len) = ((at % object) as u32, (next - at) as u32);
        done = device.serve(now, ObjectId::new(file, index), offset, len);
        at = next;
    }
    done
}

/// Replays a plan's requests, each after those it waits for: the order, the instants and the number at once are those of a replay on a server.
pub fn calculate(
    requests: &[Request],
    waits: &[Vec<u32>],
    device: Device,
    options: &Options,
) -> Calculated {
    let total = requests.len();
    let mut device = Line::new(device);
    let mut pending: Vec<usize> = waits.iter().map(Vec::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); total];
    for (index, waits) in waits.iter().enumerate() {
        for wait in waits {
            followers[*wait as usize].push(index);
        }
    }
    let nanos = |d: std::time::Duration| Nanos(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    let due = |index: usize| match options.speed {
        Speed::Max => Nanos(0),
        Speed::Timed(factor) => Nanos((requests[index].at_us as f64 * 1e3 / factor) as u64),
    };
    let (warm_until, stop_at) = (nanos(options.warmup), options.duration.map(nanos));
    let us = |from: Nanos, to: Nanos| to.since(from).0 / 1000;
    let ready = (0..total).filter(|index| pending[*index] == 0);
    let mut ready: BinaryHeap<_> = ready.map(|index| Reverse((due(index), index))).collect();
    // When each ends, which it is, and when it was sent.
    let mut running: BinaryHeap<Reverse<(Nanos, usize, Nanos)>> = BinaryHeap::new();
    let (mut warm_up, mut summary) = (Summary::default(), Summary::default());
    let (mut now, mut last, mut started) = (Nanos(0), Nanos(0), 0);
    loop {
        let over = stop_at.is_some_and(|at| at <= now);
        while let Some(Reverse((at, index))) = ready.peek().copied() {
            if over || at > now || running.len() >= options.clients.max(1) {
                break;
            }
            ready.pop();
            started += 1;
            running.push(Reverse((
                serve(&mut device, now, &requests[index]),
                index,
                now,
            )));
        }
        let free = !over && running.len() < options.clients.max(1);
        let arrival = ready.peek().map(|r| r.0.0).filter(|_| free);
        let ending = running.peek().map(|r| r.0.0);
        let Some(next) = arrival.into_iter().chain(ending).min() else {
            break;
        };
        now = now.max(next);
        while let Some(Reverse((end, index, sent))) =
            running.peek().copied().filter(|r| r.0.0 <= now)
        {
            running.pop();
            last = last.max(end);
            let intended = match options.speed {
                Speed::Max => sent,
                Speed::Timed(_) => due(index),
            };
            let warm = intended < warm_until;
            let (counted, begin) = match warm {
                true => (&mut warm_up, Nanos(0)),
                false => (&mut summary, warm_until),
            };
            let done = Done {
                bytes: moved(&requests[index]),
                ..Done::default()
            };
            counted.add(
                requests[index].kind,
                us(begin, end),
                us(intended, end),
                us(sent, end),
                done,
            );
            for follower in std::mem::take(&mut followers[index]) {
                pending[follower] -= 1;
                if pending[follower] == 0 {
                    ready.push(Reverse((due(follower), follower)));
                }
            }
        }
    }
    warm_up.elapsed_us = us(Nanos(0), last.min(warm_until));
    summary.elapsed_us = us(warm_until.min(last), last);
    let partial = (started < total).then(|| Partial {
        because: "--duration is over",
        not_started: (total - started) as u64,
    });
    Calculated {
        warm_up,
        summary,
        partial,
    }
}
