//! What settings are judged by: a trace, a cache size, and what the policy makes of them.

use std::sync::Arc;

use tiering::sim::{Outcome, Run, Setup};
use tiering::{FileId, PolicyConfig};

use super::Objective;
use crate::simulate::{Load, setup};

/// A sample of a trace that would have fewer requests than this is not taken.
const SAMPLE_MIN: u64 = 4000;

/// One trace with one size of the cache.
pub struct Case {
    /// For people.
    pub name: String,
    cache_bytes: u64,
    load: Arc<Load>,
    /// Requests before the held-out last third.
    known: u64,
}

/// What one run costs. All of it is better when it is less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Mean response time, milliseconds.
    pub mean_ms: f64,
    /// Busy time of the backing device, seconds.
    pub hdd_s: f64,
    /// Bytes promoted and flushed, MiB.
    pub moved_mib: f64,
}

/// A [`Cost`] in terms of another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Mean response time.
    pub latency: f64,
    /// Busy time of the backing device.
    pub hdd_time: f64,
    /// Bytes moved.
    pub bytes_moved: f64,
}

impl Ratio {
    /// What is searched for.
    pub fn by(&self, objective: Objective) -> f64 {
        match objective {
            Objective::Latency => self.latency,
            Objective::HddTime => self.hdd_time,
            Objective::BytesMoved => self.bytes_moved,
            Objective::Weighted => {
                (self.latency * self.hdd_time).powf(0.4) * self.bytes_moved.powf(0.2)
            }
        }
    }

    /// The worse of two, each objective by itself.
    pub fn worst(self, other: Ratio) -> Ratio {
        Ratio {
            latency: self.latency.max(other.latency),
            hdd_time: self.hdd_time.max(other.hdd_time),
            bytes_moved: self.bytes_moved.max(other.bytes_moved),
        }
    }

    /// Not worse in anything, and better in something.
    pub fn dominates(&self, other: &Ratio) -> bool {
        let pairs = [
            (self.latency, other.latency),
            (self.hdd_time, other.hdd_time),
            (self.bytes_moved, other.bytes_moved),
        ];
        pairs.iter().all(|(a, b)| a <= b) && pairs.iter().any(|(a, b)| a < b)
    }
}

impl Cost {
    /// In terms of `base`. A millionth keeps nothing from being divided by nothing.
    pub fn over(&self, base: &Cost) -> Ratio {
        let ratio = |a: f64, b: f64| (a + 1e-6) / (b + 1e-6);
        Ratio {
            latency: ratio(self.mean_ms, base.mean_ms),
            hdd_time: ratio(self.hdd_s, base.hdd_s),
            // A few moves more or less than almost none are no matter.
            bytes_moved: (self.moved_mib + 16.0) / (base.moved_mib + 16.0),
        }
    }
}

/// The sums that a cost is made of: those of a whole run less those of its beginning are those of its end.
struct Sums {
    us: f64,
    answers: f64,
    hdd_s: f64,
    moved: f64,
}

/// Of a run so far.
fn sums(run: &Run) -> Sums {
    let (out, hdd_busy): (&Outcome, _) = run.so_far();
    Sums {
        us: out.responses.sum_us() as f64,
        answers: out.responses.count() as f64,
        hdd_s: hdd_busy.as_secs_f64(),
        moved: (out.promoted_bytes + out.flushed_bytes) as f64,
    }
}

fn cost(s: &Sums) -> Cost {
    Cost {
        mean_ms: s.us / s.answers.max(1.0) / 1e3,
        hdd_s: s.hdd_s,
        moved_mib: s.moved / 1_048_576.0,
    }
}

/// Whether a file is in the sample.
fn sampled(file: FileId, rate: f64) -> bool {
    let z = file.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((z >> 11) as f64 / (1_u64 << 53) as f64) < rate
}

impl Case {
    /// A trace with a cache of so many bytes.
    pub fn new(name: String, load: Arc<Load>, cache_bytes: u64) -> Self {
        Self {
            name,
            cache_bytes,
            known: load.requests() / 3 * 2,
            load,
        }
    }

    fn setup(&self, policy: &PolicyConfig) -> Setup {
        setup(policy, self.cache_bytes)
    }

    /// The first two thirds of the load: all that the search sees. With a `rate` below 1 it is a sample by file
    /// (as SHARDS does it, Waldspurger et al., FAST '15), in a cache and on devices that are smaller and slower
    /// by the same factor, so that queues stay as long; short traces are not sampled.
    ///
    /// # Errors
    /// When the trace can no longer be read.
    pub fn seen(&self, policy: &PolicyConfig, rate: f64) -> anyhow::Result<Cost> {
        let mut setup = self.setup(policy);
        if rate >= 1.0 || (self.known as f64 * rate) < SAMPLE_MIN as f64 {
            let mut run = Run::new(setup);
            self.load
                .each(self.known, |request| _ = run.step(request))?;
            return Ok(cost(&sums(&run)));
        }
        setup.cache_bytes = (setup.cache_bytes as f64 * rate) as u64;
        for device in [&mut setup.hdd, &mut setup.ssd] {
            device.seek_ms /= rate;
            device.transfer_mib_per_s *= rate;
        }
        let mut run = Run::new(setup);
        self.load.each(self.known, |request| {
            if sampled(request.id.file, rate) {
                run.step(request);
            }
        })?;
        Ok(cost(&sums(&run)))
    }

    /// The last third, after the policy has seen the rest.
    ///
    /// # Errors
    /// When the trace can no longer be read.
    pub fn held_out(&self, policy: &PolicyConfig) -> anyhow::Result<Cost> {
        let mut run = Run::new(self.setup(policy));
        let (mut at, mut begin) = (0, sums(&run));
        self.load.each(u64::MAX, |request| {
            if at == self.known {
                begin = sums(&run);
            }
            at += 1;
            run.step(request);
        })?;
        let all = sums(&run);
        Ok(cost(&Sums {
            us: all.us - begin.us,
            answers: all.answers - begin.answers,
            hdd_s: all.hdd_s - begin.hdd_s,
            moved: all.moved - begin.moved,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tiering::sim::{Access, Request};
    use tiering::{Nanos, ObjectId};

    const LEN: u32 = 1 << 20;

    /// Each second a file is read; every fourth time it is one of those read often.
    fn load(requests: u64, often: u64) -> Arc<Load> {
        let read = Access::Read {
            offset: 0,
            len: LEN,
            object_len: LEN,
        };
        let request = |n: u64| Request {
            at: Nanos::from_secs(n),
            id: ObjectId::new(
                FileId(if n.is_multiple_of(4) {
                    n % (4 * often)
                } else {
                    n
                }),
                0,
            ),
            access: read,
        };
        let requests: Vec<Request> = (0..requests).map(request).collect();
        Arc::new(Load::of(&requests))
    }

    #[test]
    fn the_last_third_is_what_is_left_of_the_whole() {
        let case = Case::new("t".into(), load(300, 1), 100 << 20);
        let none = PolicyConfig::from_name("none").unwrap();
        let (seen, held_out) = (
            case.seen(&none, 1.0).unwrap(),
            case.held_out(&none).unwrap(),
        );
        assert!((seen.hdd_s / held_out.hdd_s - 2.0).abs() < 1e-6);
        assert!((seen.mean_ms - held_out.mean_ms).abs() < 1e-6);
        let lru = PolicyConfig::from_name("lru-2nd").unwrap();
        let ratio = case.held_out(&lru).unwrap().over(&held_out);
        assert!((ratio.hdd_time - 0.75).abs() < 1e-6, "{ratio:?}");
    }

    #[test]
    fn a_sample_is_a_small_picture_of_the_whole() {
        let case = Case::new("t".into(), load(60_000, 1000), 400 << 20);
        assert!(
            (0..60_000)
                .filter(|n| sampled(FileId(*n), 0.25))
                .count()
                .abs_diff(15_000)
                < 500
        );
        let none = PolicyConfig::from_name("none").unwrap();
        let (all, some) = (
            case.seen(&none, 1.0).unwrap(),
            case.seen(&none, 0.25).unwrap(),
        );
        assert!(
            (some.hdd_s / all.hdd_s - 1.0).abs() < 0.3,
            "{some:?} {all:?}"
        );
    }
}
