//! The decision-makers: events in, proposed movements out.

mod config;

pub use config::{
    CostBenefitConfig, InvalidParameter, LruConfig, NoneConfig, PolicyConfig, RecencyConfig,
};

use crate::event::{Action, CacheView, Event};
use crate::types::{Nanos, ObjectId, Tier};

/// Decides which objects live in the cache tier.
///
/// Implementations MUST be pure: the same configuration and calls give the same actions, in the same
/// order. The caller calls in the order in which things happened and passes the view of that moment.
pub trait Policy: Send {
    /// The policy's name in the configuration.
    fn name(&self) -> &'static str;

    /// Says where a new object's bytes should go. `len` is a hint: the object size when unknown.
    fn place_write(&mut self, now: Nanos, id: ObjectId, len: u32, view: &CacheView) -> Tier;

    /// Takes note of `event` and appends what should be done about it to `out`.
    fn on_event(&mut self, now: Nanos, event: &Event, view: &CacheView, out: &mut Vec<Action>);

    /// Appends what time and watermarks ask for: call about once a second, and when the cache is over
    /// its high watermark.
    fn tick(&mut self, now: Nanos, view: &CacheView, out: &mut Vec<Action>);
}

/// Makes the policy that `config` names.
pub fn build(config: &PolicyConfig) -> Box<dyn Policy> {
    let _ = config;
    Box::new(Idle)
}

struct Idle;

impl Policy for Idle {
    fn name(&self) -> &'static str {
        "none"
    }
    fn place_write(&mut self, _: Nanos, _: ObjectId, _: u32, _: &CacheView) -> Tier {
        Tier::Backing
    }
    fn on_event(&mut self, _: Nanos, _: &Event, _: &CacheView, _: &mut Vec<Action>) {}
    fn tick(&mut self, _: Nanos, _: &CacheView, _: &mut Vec<Action>) {}
}
