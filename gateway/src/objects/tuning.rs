//! What may change while the gateway runs: the policy's parameters, the policy itself, watermarks and move rates.

use std::time::Duration;

use tiering::auto::Switch;
use tiering::sim::Device;
use tiering::{ActionKind, Event, ObjectId, PolicyConfig};

use super::cache::{Core, ObjectCache};
use super::residency::State;

/// Settings of the mover in force, already validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// Who decides.
    pub policy: PolicyConfig,
    /// Fraction of the capacity above which objects leave.
    pub high_watermark: f64,
    /// Fraction of the capacity down to which objects leave.
    pub low_watermark: f64,
    /// Age at which a dirty object is flushed.
    pub max_dirty_age: Duration,
    /// Bytes per second that movement may use; 0 is unlimited.
    pub migrate_bytes_per_s: u64,
    /// Operations per second that movement may use; 0 is unlimited.
    pub migrate_ops_per_s: u64,
    /// Moves that may be under way at once (at least 1).
    pub migrate_in_flight: usize,
    /// Changes to the best of the shadows: compares them once in this time.
    pub auto: Option<Duration>,
    /// Policies that run beside it; those that `auto` may choose.
    pub shadow: Vec<PolicyConfig>,
    /// The backing device, as shadows see it.
    pub backing: Device,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            policy: PolicyConfig::default(),
            high_watermark: tiering::HIGH_WATERMARK,
            low_watermark: tiering::LOW_WATERMARK,
            max_dirty_age: tiering::MAX_DIRTY_AGE,
            migrate_bytes_per_s: 0,
            migrate_ops_per_s: 0,
            migrate_in_flight: 4,
            auto: None,
            shadow: Vec::new(),
            backing: Device::HDD,
        }
    }
}

impl Tuning {
    /// All that shadows depend on: they begin anew when it changes.
    fn shadows(&self) -> impl PartialEq + '_ {
        (
            &self.shadow,
            self.auto,
            self.backing,
            self.high_watermark,
            self.low_watermark,
            self.max_dirty_age,
        )
    }
}

/// What became of what the policy knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It knows all that it knew.
    Kept,
    /// Another policy decides: it knows what is in the cache, as after a start.
    Rebuilt,
}

impl ObjectCache {
    /// Settings in force.
    pub fn tuning(&self) -> Tuning {
        self.core.lock().tuning.clone()
    }

    /// Puts other settings in force. Moves under way end as they began; a policy that is replaced is told nothing more.
    pub fn retune(&self, mut tuning: Tuning) -> Memory {
        self.throttle
            .lock()
            .set_rates(tuning.migrate_bytes_per_s, tuning.migrate_ops_per_s);
        let mut core = self.core.lock();
        if tuning.auto.is_some() && core.tuning.auto.is_some() {
            // What was chosen stays, with the parameters that it has now.
            let current = core.tuning.policy.name();
            let chosen = tuning.shadow.iter().find(|p| p.name() == current);
            tuning.policy = chosen.unwrap_or(&tuning.policy).clone();
        }
        let same = tuning.policy == core.tuning.policy || core.policy.configure(&tuning.policy);
        let shadows = core.tuning.shadows() != tuning.shadows();
        core.tuning = tuning;
        if shadows {
            self.replace_shadows(&mut core);
        }
        let memory = match same {
            true => Memory::Kept,
            false => {
                self.replace_policy(&mut core);
                Memory::Rebuilt
            }
        };
        drop(core);
        self.wake.notify_one();
        memory
    }

    /// Lets the policy decide that `auto` chose, unless the settings changed meanwhile.
    pub(super) fn switch(&self, switch: &Switch) -> bool {
        let mut core = self.core.lock();
        let tuning = &core.tuning;
        let chosen = tuning.shadow.iter().find(|p| p.name() == switch.to);
        let Some(chosen) = chosen.filter(|_| tuning.auto.is_some()).cloned() else {
            return false;
        };
        core.tuning.policy = chosen;
        self.replace_policy(&mut core);
        drop(core);
        self.wake.notify_one();
        true
    }

    fn replace_policy(&self, core: &mut Core) {
        core.policy = tiering::build(&core.tuning.policy);
        // What the old one proposed and nobody began. What has begun is answered to the new one.
        core.queue.clear();
        core.adopted = core.promoting.clone();
        for (file, entry) in core.residency.all() {
            if entry.state != State::Promoting && !core.is_doomed(file) {
                let event = Event::Restored {
                    id: ObjectId::new(file, entry.index),
                    len: entry.len,
                    dirty: entry.is_dirty(),
                };
                self.event(core, &event);
            }
        }
    }
}

impl Core {
    /// The answer to a move as the policy in force understands it: what another policy had promoted is news to it.
    pub fn answer(&mut self, kind: ActionKind, event: Event) -> Event {
        let (ActionKind::Promote, Event::Promoted { id, .. } | Event::Failed { id, .. }) =
            (kind, event)
        else {
            return event;
        };
        self.promoting.remove(&id);
        match (self.adopted.remove(&id), event) {
            (true, Event::Promoted { id, len }) => Event::Restored {
                id,
                len,
                dirty: false,
            },
            _ => event,
        }
    }
}
