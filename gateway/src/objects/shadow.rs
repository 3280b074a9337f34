//! Other policies beside the one that decides: fed from the events it gets, run once a second off the request path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tiering::auto::{Auto, Rules};
use tiering::shadow::{Estimate, Shadow, Threshold};
use tiering::sim::{Access, Device, Request, Setup};
use tiering::{Event, Nanos, ObjectId};
use tokio::sync::watch;

use super::cache::{Core, ObjectCache, blocking};

/// Requests kept between two runs; more are dropped and counted.
const FEED_MAX: usize = 1 << 16;

/// What the events brought since the last run.
pub(super) struct Feed {
    threshold: Threshold,
    requests: Vec<Request>,
    dropped: u64,
}

impl Feed {
    /// Keeps what is about the sample. Revalidations move no bytes: shadows are not told of them.
    pub fn note(&mut self, at: Nanos, event: &Event) {
        let (id, access) = match *event {
            Event::Read {
                id,
                offset,
                len,
                object_len,
                served: _,
            } => {
                let access = Access::Read {
                    offset,
                    len,
                    object_len,
                };
                (id, access)
            }
            Event::Written { id, len, placed: _ } => (id, Access::Write(len)),
            Event::Deleted { file, objects } => (ObjectId::new(file, 0), Access::Delete(objects)),
            Event::Revalidated { .. }
            | Event::Promoted { .. }
            | Event::Flushed { .. }
            | Event::Evicted { .. }
            | Event::Failed { .. }
            | Event::Restored { .. } => return,
        };
        // A deletion is of all objects of its file.
        if !matches!(access, Access::Delete(_)) && !self.threshold.has(id) {
            return;
        }
        match self.requests.len() < FEED_MAX {
            true => self.requests.push(Request { at, id, access }),
            false => self.dropped += 1,
        }
    }
}

/// The shadows, and what running them has cost.
pub(super) struct Shadowing {
    shadow: Shadow,
    auto: Option<Auto>,
    switched: Switched,
    began: Instant,
    cpu: Duration,
}

/// What `auto` did since the shadows began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// How often another policy was chosen.
    pub count: u64,
    /// Why, the last time.
    pub why: Option<String>,
}

/// What the shadows would have achieved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// Seconds since they began, with empty caches.
    pub seconds: f64,
    /// Share of all objects that they are told of.
    pub sampling_ratio: f64,
    /// Objects that they are told of.
    pub objects: u64,
    /// Requests that they were not told of, because too many came at once.
    pub dropped: u64,
    /// Changes of the policy by `auto`.
    pub switched: Switched,
    /// CPU time that they took.
    pub cpu_seconds: f64,
    /// Per policy and size of the cache.
    pub estimates: Vec<Estimate>,
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl ObjectCache {
    /// Begins anew with the shadows of the settings in force, or with none.
    pub(super) fn replace_shadows(&self, core: &mut Core) {
        let tuning = &core.tuning;
        let mut shadows = self.shadow.lock();
        *self.shadow_status.lock() = None;
        if tuning.shadow.is_empty() || !self.has_cache() {
            (*shadows, core.feed) = (None, None);
            return;
        }
        let setup = Setup {
            policy: tuning.policy.clone(),
            cache_bytes: self.capacity_bytes,
            hdd: tuning.backing,
            ssd: Device::SSD,
            high_watermark: tuning.high_watermark,
            low_watermark: tuning.low_watermark,
            max_dirty_age: tuning.max_dirty_age.into(),
        };
        let shadow = Shadow::new(&tuning.shadow, &setup);
        core.feed = Some(Feed {
            threshold: shadow.threshold(),
            requests: Vec::new(),
            dropped: 0,
        });
        *shadows = Some(Shadowing {
            shadow,
            auto: { tuning.auto }.map(|period| Auto::new(Rules::every(period.into()))),
            switched: Switched::default(),
            began: Instant::now(),
            cpu: Duration::ZERO,
        });
    }

    /// Tells the shadows what happened since the last call.
    fn run_shadows(&self) {
        let before = thread_cpu();
        let (requests, dropped, policy) = {
            let mut core = self.core.lock();
            let policy = core.tuning.policy.name();
            match &mut core.feed {
                Some(feed) => (std::mem::take(&mut feed.requests), feed.dropped, policy),
                None => return,
            }
        };
        let (threshold, switch) = {
            let mut shadows = self.shadow.lock();
            let Some(running) = &mut *shadows else {
                return;
            };
            for request in requests {
                running.shadow.note(request);
            }
            let now = self.recorder.now();
            running.shadow.pass(now);
            let estimates = running.shadow.estimates();
            let auto = running.auto.as_mut();
            let switch = auto.and_then(|auto| auto.decide(now, policy, &estimates));
            if let Some(switch) = &switch {
                running.switched.count += 1;
                running.switched.why = Some(switch.to_string());
            }
            running.cpu += thread_cpu().saturating_sub(before);
            *self.shadow_status.lock() = Some(ShadowStatus {
                seconds: running.began.elapsed().as_secs_f64(),
                sampling_ratio: running.shadow.threshold().rate(),
                objects: running.shadow.sampled_objects() as u64,
                dropped,
                switched: running.switched.clone(),
                cpu_seconds: running.cpu.as_secs_f64(),
                estimates,
            });
            (running.shadow.threshold(), switch)
        };
        if let Some(switch) = switch.filter(|s| self.switch(s)) {
            tracing::info!(why = %switch, "policy = auto: another policy decides from now on");
        }
        if let Some(feed) = &mut self.core.lock().feed {
            feed.threshold = threshold;
        }
    }

    /// Runs the shadows once a second until `stopped`.
    pub(super) async fn run_shadows_until(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stopped.changed() => return,
                _ = second.tick() => {}
            }
            if self.core.lock().feed.is_some() {
                let cache = Arc::clone(&self);
                let run = move || {
                    cache.run_shadows();
                    Ok(())
                };
                if let Err(error) = blocking(run).await {
                    tracing::error!(%error, "the shadow policies stopped");
                    return;
                }
            }
        }
    }

    /// What shadows would have achieved, as of the last second; none without shadows.
    pub fn shadow(&self) -> Option<ShadowStatus> {
        self.shadow_status.lock().clone()
    }
}
