//! The decision-makers: events in, proposed movements out.

#[cfg(test)]
mod answers;
mod config;
mod cost_benefit;
mod lru;
mod none;
mod planner;
mod recency;
#[cfg(test)]
mod tests;

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

    /// What is under way and what is remembered. Walks all residents: for status pages and tests.
    fn plan(&self) -> Plan {
        Plan::default()
    }
}

/// What a policy has proposed and not yet seen answered, and how much it remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Objects in the cache.
    pub residents: u64,
    /// Promotions without an answer.
    pub promotions: u64,
    /// Flushes without an answer.
    pub flushes: u64,
    /// Evictions without an answer.
    pub evictions: u64,
    /// Bytes of the promotions without an answer.
    pub promoting_bytes: u64,
    /// Bytes of residents that are to leave.
    pub leaving_bytes: u64,
    /// Objects of which the policy holds anything, those outside the cache included.
    pub remembered: u64,
}

/// Makes the policy that `config` names.
pub fn build(config: &PolicyConfig) -> Box<dyn Policy> {
    match config {
        PolicyConfig::None(_) => Box::new(planner::Planner::new(none::NoCache::default())),
        PolicyConfig::Lru(_) => Box::new(planner::Planner::new(lru::Lru::default())),
        PolicyConfig::Recency(c) => {
            Box::new(planner::Planner::new(recency::Recency::new(c.clone())))
        }
        PolicyConfig::CostBenefit(c) => Box::new(planner::Planner::new(
            cost_benefit::CostBenefit::new(c.clone()),
        )),
    }
}
