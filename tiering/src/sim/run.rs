//! One policy, one cache size, one load: the same policy code that the gateway runs.

use std::collections::VecDeque;

use super::device::{Device, Line};
use super::responses::Responses;
use crate::event::{Action, ActionKind, CacheView, Event};
use crate::objects::{Objects, Set};
use crate::policy::{PolicyConfig, build};
use crate::types::{FileId, Nanos, ObjectId, Tier};

/// After so long without a request a policy is no longer asked each second. A time that is none, or a clock that was set in the
/// middle of a recording, makes decades of it.
const SILENCE: Nanos = Nanos::from_secs(86_400);
/// A movement that ends within this is not cut short.
const SHORT: Nanos = Nanos::from_secs(1);

/// One thing that clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Bytes of an object are read.
    Read {
        /// First byte in the object.
        offset: u32,
        /// Bytes read.
        len: u32,
        /// Bytes in the whole object.
        object_len: u32,
    },
    /// A new object of so many bytes is published.
    Write(u32),
    /// The file's version is gone; it had so many objects.
    Delete(u32),
}

/// An access, when and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrives; not before the one ahead of it.
    pub at: Nanos,
    /// The object; for a deletion any of its file.
    pub id: ObjectId,
    /// What is done.
    pub access: Access,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The policy and its parameters.
    pub policy: PolicyConfig,
    /// Bytes that the cache may hold.
    pub cache_bytes: u64,
    /// The backing device.
    pub hdd: Device,
    /// The cache device.
    pub ssd: Device,
    /// As in the gateway's configuration.
    pub high_watermark: f64,
    /// As in the gateway's configuration.
    pub low_watermark: f64,
    /// As in the gateway's configuration.
    pub max_dirty_age: Nanos,
}

/// What came of it. What is still dirty at the end has not been flushed: its bytes are reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Reads and writes, counted per object touched.
    pub requests: u64,
    /// Of these, reads.
    pub reads: u64,
    /// Reads that the backing device served.
    pub read_misses: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes that the backing device served.
    pub read_miss_bytes: u64,
    /// Bytes written by clients.
    pub written_bytes: u64,
    /// Bytes moved up.
    pub promoted_bytes: u64,
    /// Bytes moved down.
    pub flushed_bytes: u64,
    /// Bytes dropped from the cache.
    pub evicted_bytes: u64,
    /// Bytes written to the cache device, by clients and promotions.
    pub ssd_written_bytes: u64,
    /// Bytes that only the cache held at the end.
    pub dirty_bytes: u64,
    /// Time in which the backing device was busy.
    pub hdd_busy: Nanos,
    /// Time in which the cache device was busy.
    pub ssd_busy: Nanos,
    /// From the first request to the last answer.
    pub span: Nanos,
    /// Response times.
    pub responses: Responses,
}

/// A run under way: requests go in one by one.
pub struct Run {
    setup: Setup,
    policy: Box<dyn crate::Policy>,
    hdd: Line,
    ssd: Line,
    /// Length, and whether only the cache has it.
    residents: Objects<(u32, bool)>,
    used: u64,
    dirty: u64,
    lens: Objects<u32>,
    queue: VecDeque<Action>,
    /// The one movement under way, and when it ends.
    moving: Option<(Nanos, Action)>,
    /// The policy has acted on time until then; the first request begins it.
    ticked: Option<Nanos>,
    /// Response times are kept.
    responses: bool,
    /// When the first request came, and when the last answer went.
    span: Option<(Nanos, Nanos)>,
    out: Outcome,
}

/// Runs the policy over `requests`: one movement at a time, in the queue of the device it needs.
pub fn run(setup: &Setup, requests: impl IntoIterator<Item = Request>) -> Outcome {
    let mut run = Run::new(setup.clone());
    for request in requests {
        run.step(request);
    }
    run.outcome()
}

impl Run {
    /// Begins with an empty cache.
    pub fn new(setup: Setup) -> Self {
        Run {
            responses: true,
            ..Self::without_responses(setup)
        }
    }

    /// The same beside a real cache: what it would do with the requests that a real backing device serves.
    /// [`Outcome::responses`] stays empty.
    pub(crate) fn beside_a_real_one(setup: Setup) -> Self {
        Run {
            hdd: Line::beside_a_real_one(setup.hdd),
            ..Self::without_responses(setup)
        }
    }

    fn without_responses(setup: Setup) -> Self {
        Run {
            policy: build(&setup.policy),
            hdd: Line::new(setup.hdd),
            ssd: Line::new(setup.ssd),
            residents: Objects::default(),
            used: 0,
            dirty: 0,
            lens: Objects::default(),
            queue: VecDeque::new(),
            moving: None,
            ticked: None,
            responses: false,
            span: None,
            out: Outcome::default(),
            setup,
        }
    }

    /// Serves one request, not before the one ahead of it; answers when it ends.
    pub fn step(&mut self, request: Request) -> Nanos {
        self.pass(request.at);
        let end = self.request(request);
        let (first, last) = self.span.unwrap_or((request.at, end));
        self.span = Some((first, last.max(end)));
        end
    }

    /// What came of it.
    pub fn outcome(self) -> Outcome {
        let (first, last) = self.span.unwrap_or_default();
        Outcome {
            span: last.since(first),
            hdd_busy: self.hdd.busy,
            ssd_busy: self.ssd.busy,
            dirty_bytes: self.dirty,
            ..self.out
        }
    }

    /// Lets time pass: movements end, and the policy acts once a second; through a longer silence for a day, and in its last
    /// second.
    pub(crate) fn pass(&mut self, now: Nanos) {
        let mut ticked = self.ticked.unwrap_or(now);
        let awake_until = ticked.plus(SILENCE);
        while now.since(ticked) >= Nanos::from_secs(1) {
            let seconds = match ticked < awake_until {
                true => 1,
                false => now.since(ticked).0 / Nanos::PER_SECOND,
            };
            ticked = ticked.plus(Nanos::from_secs(seconds));
            self.advance(ticked);
            self.tick(ticked);
        }
        self.ticked = Some(ticked);
        self.advance(now);
    }

    /// What came of it so far, and how long the backing device was busy.
    pub fn so_far(&self) -> (&Outcome, Nanos) {
        (&self.out, self.hdd.busy)
    }

    /// How long the backing device was too slow for the load, beside a real one.
    pub(crate) fn refuted_for(&self) -> Nanos {
        self.hdd.refuted_for
    }

    /// Goes on with a cache of another size and other parameters of the same policy.
    pub(crate) fn resize(&mut self, cache_bytes: u64, policy: &PolicyConfig) {
        self.setup.cache_bytes = cache_bytes;
        self.policy.configure(policy);
    }

    /// Lets an object go, as if it had never been cached: nothing is moved or counted.
    pub(crate) fn drop_object(&mut self, now: Nanos, id: ObjectId) {
        self.lens.remove(id);
        if let Some((len, dirty)) = self.residents.remove(id) {
            self.used -= u64::from(len);
            self.dirty -= if dirty { u64::from(len) } else { 0 };
            self.event(now, &Event::Evicted { id });
        }
    }

    fn view(&self) -> CacheView {
        CacheView {
            capacity_bytes: self.setup.cache_bytes,
            used_bytes: self.used,
            dirty_bytes: self.dirty,
            high_watermark: self.setup.high_watermark,
            low_watermark: self.setup.low_watermark,
            max_dirty_age: self.setup.max_dirty_age,
        }
    }

    fn event(&mut self, now: Nanos, event: &Event) {
        let (view, mut actions) = (self.view(), Vec::new());
        self.policy.on_event(now, event, &view, &mut actions);
        self.queue.extend(actions);
    }

    fn tick(&mut self, now: Nanos) {
        let (view, mut actions) = (self.view(), Vec::new());
        self.policy.tick(now, &view, &mut actions);
        self.queue.extend(actions);
        self.start(now);
    }

    /// Ends the movements that end until `now`.
    fn advance(&mut self, now: Nanos) {
        while let Some((at, action)) = self.moving {
            // What began to wait before the device was known to be faster waits no longer.
            if at > now && !(at > now.plus(SHORT) && self.hdd.is_refuted(now)) {
                return;
            }
            let at = at.min(now);
            self.moving = None;
            self.finish(at, action);
            self.start(at);
        }
    }

    /// Starts the next movement if none is under way.
    fn start(&mut self, now: Nanos) {
        while self.moving.is_none() {
            let Some(action) = self.queue.pop_front() else {
                return;
            };
            let id = action.id;
            let resident = self.residents.get(id).copied();
            let end = match (action.kind, resident) {
                (ActionKind::Promote, None) => self.lens.get(id).copied().map(|len| {
                    let read = self.hdd.serve(now, id, 0, len);
                    self.ssd.serve(read, id, 0, len)
                }),
                (ActionKind::Flush, Some((len, true))) => {
                    let read = self.ssd.serve(now, id, 0, len);
                    Some(self.hdd.serve(read, id, 0, len))
                }
                (ActionKind::Evict, Some((_, false))) => Some(now),
                _ => None,
            };
            match end {
                Some(end) if end > now => self.moving = Some((end, action)),
                Some(end) => self.finish(end, action),
                None => self.event(now, &failed(action)),
            }
        }
    }

    fn finish(&mut self, now: Nanos, action: Action) {
        let id = action.id;
        let len = self.lens.get(id).copied().unwrap_or(0);
        let bytes = u64::from(len);
        let event = match (action.kind, self.residents.get(id).copied()) {
            (ActionKind::Promote, None)
                if len > 0 && self.used + bytes <= self.setup.cache_bytes =>
            {
                self.residents.insert(id, (len, false));
                self.used += bytes;
                self.out.promoted_bytes += bytes;
                self.out.ssd_written_bytes += bytes;
                Event::Promoted { id, len }
            }
            (ActionKind::Flush, Some((_, true))) => {
                self.residents.insert(id, (len, false));
                self.dirty -= bytes;
                self.out.flushed_bytes += bytes;
                Event::Flushed { id }
            }
            (ActionKind::Evict, Some((_, false))) => {
                self.residents.remove(id);
                self.used -= bytes;
                self.out.evicted_bytes += bytes;
                Event::Evicted { id }
            }
            _ => failed(action),
        };
        self.event(now, &event);
    }

    /// Serves one request; answers when it ends.
    fn request(&mut self, Request { at, id, access }: Request) -> Nanos {
        let (end, event) = match access {
            Access::Read {
                offset,
                len,
                object_len,
            } => {
                let hit = self.residents.contains(id);
                // What is cached keeps its length; a longer one is a new version.
                if !hit {
                    self.lens.insert(id, object_len);
                }
                self.out.reads += 1;
                self.out.read_bytes += u64::from(len);
                let (line, served) = if hit {
                    (&mut self.ssd, Tier::Cache)
                } else {
                    self.out.read_misses += 1;
                    self.out.read_miss_bytes += u64::from(len);
                    (&mut self.hdd, Tier::Backing)
                };
                let end = line.serve(at, id, offset, len);
                let event = Event::Read {
                    id,
                    offset,
                    len,
                    object_len,
                    served,
                };
                (end, event)
            }
            Access::Write(len) => {
                let view = self.view();
                let mut placed = self.policy.place_write(at, id, len, &view);
                let bytes = u64::from(len);
                if self.used + bytes > self.setup.cache_bytes || self.residents.contains(id) {
                    placed = Tier::Backing;
                }
                self.out.written_bytes += bytes;
                self.lens.insert(id, len);
                let end = match placed {
                    Tier::Cache => {
                        self.residents.insert(id, (len, true));
                        self.used += bytes;
                        self.dirty += bytes;
                        self.out.ssd_written_bytes += bytes;
                        self.ssd.serve(at, id, 0, len)
                    }
                    Tier::Backing => self.hdd.serve(at, id, 0, len),
                };
                (end, Event::Written { id, len, placed })
            }
            Access::Delete(objects) => {
                self.delete(id.file);
                let file = id.file;
                self.event(at, &Event::Deleted { file, objects });
                self.start(at);
                return at;
            }
        };
        self.out.requests += 1;
        let us = end.since(at).0 / 1000;
        if self.responses {
            self.out
                .responses
                .add(u32::try_from(us).unwrap_or(u32::MAX));
        }
        self.event(at, &event);
        self.start(at);
        end
    }

    fn delete(&mut self, file: FileId) {
        for (id, _) in self.lens.remove_file(file) {
            if let Some((len, dirty)) = self.residents.remove(id) {
                self.used -= u64::from(len);
                self.dirty -= if dirty { u64::from(len) } else { 0 };
            }
        }
    }
}

fn failed(action: Action) -> Event {
    Event::Failed {
        id: action.id,
        action: action.kind,
    }
}

/// A lower bound of the backing device's busy time for any policy and any cache size: what was there
/// before the load and is read must be read once, at the cheapest by its first read alone; writes are free.
///
/// It knows nothing of the cache's size: the true optimum of a small cache lies well above.
pub struct Compulsory {
    hdd: Device,
    known: Set<ObjectId>,
    bound: Nanos,
}

impl Compulsory {
    /// Nothing was requested yet.
    pub fn new(hdd: Device) -> Self {
        Self {
            hdd,
            known: Set::default(),
            bound: Nanos(0),
        }
    }

    /// Takes note of the next request.
    pub fn step(&mut self, request: Request) {
        match request.access {
            Access::Read { len, .. } if self.known.insert(request.id) => {
                self.bound = self.bound.plus(self.hdd.time(1, u64::from(len)));
            }
            Access::Write(_) => _ = self.known.insert(request.id),
            Access::Read { .. } | Access::Delete(_) => {}
        }
    }

    /// The bound for all requests so far.
    pub fn head_time(&self) -> Nanos {
        self.bound
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const MIB: u32 = 1 << 20;

    fn setup(policy: &str) -> Setup {
        let device = |seek_ms, transfer_mib_per_s| Device {
            seek_ms,
            transfer_mib_per_s,
        };
        Setup {
            policy: PolicyConfig::from_name(policy).unwrap(),
            cache_bytes: 10 * u64::from(MIB),
            hdd: device(10.0, 100.0),
            ssd: device(0.0, 1000.0),
            high_watermark: 1.0,
            low_watermark: 1.0,
            max_dirty_age: Nanos::from_secs(60),
        }
    }

    fn at(second: u64, access: Access) -> Request {
        Request {
            at: Nanos::from_secs(second),
            id: ObjectId::new(FileId(1), 0),
            access,
        }
    }

    const READ: Access = Access::Read {
        offset: 0,
        len: MIB,
        object_len: MIB,
    };

    #[test]
    fn a_miss_a_promotion_and_a_hit_cost_what_the_devices_need() {
        let load = [at(0, READ), at(1, READ)];
        let out = run(&setup("lru"), load);
        // 20 ms each for the miss and the promotion; 1 ms each for the copy up and the hit.
        assert_eq!(out.hdd_busy, Nanos::from_millis(40));
        assert_eq!(out.ssd_busy, Nanos::from_millis(2));
        assert_eq!((out.reads, out.read_misses), (2, 1));
        let us = |share| out.responses.quantile_us(share);
        assert_eq!((us(0.5), us(1.0)), (1_000, 20_000));
        assert_eq!(out.span, Nanos::from_millis(1001));
        assert_eq!(out.promoted_bytes, u64::from(MIB));
        let mut bound = Compulsory::new(setup("lru").hdd);
        load.into_iter().for_each(|r| bound.step(r));
        assert_eq!(bound.head_time(), Nanos::from_millis(20));
        let none = run(&setup("none"), load);
        assert_eq!(none.hdd_busy, Nanos::from_millis(40));
        assert_eq!(none.read_misses, 2);
    }

    /// Second by second, this would take hours.
    #[test]
    fn centuries_of_silence_pass_at_once_and_the_flush_in_them_is_done() {
        for policy in PolicyConfig::NAMES {
            let mut run = Run::new(setup(policy));
            run.step(at(0, Access::Write(MIB)));
            run.step(at(u64::MAX / Nanos::PER_SECOND, READ));
            run.pass(Nanos(u64::MAX));
            assert_eq!(run.outcome().dirty_bytes, 0, "{policy}");
        }
    }

    #[test]
    fn what_is_deleted_young_never_reaches_the_disk() {
        let load = |gone| {
            [
                at(0, Access::Write(MIB)),
                at(gone, Access::Delete(1)),
                at(200, READ),
            ]
        };
        let young = run(&setup("cost-benefit"), load(30));
        assert_eq!(young.flushed_bytes, 0);
        let old = run(&setup("cost-benefit"), load(90));
        assert_eq!(old.flushed_bytes, u64::from(MIB));
        assert_eq!(old.ssd_written_bytes, u64::from(MIB));
    }
}
