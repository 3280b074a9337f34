//! The decision-makers: events in, proposed movements out.

mod adaptive;
#[cfg(test)]
mod answers;
mod arrivals;
mod budget;
mod busy;
mod config;
mod cost_benefit;
pub(crate) mod evict;
mod heat;
mod lirs;
mod none;
mod outlook;
mod parameter;
mod planner;
mod queue;
mod recency;
mod simple;
#[cfg(test)]
mod tests;
mod tinylfu;
mod waiting;

pub use config::{
    ArcConfig, CostBenefitConfig, FifoConfig, GdsfConfig, LfuConfig, LirsConfig, Lru2ndConfig,
    LruConfig, NoneConfig, PARAMETERS, PolicyConfig, RecencyConfig, S3FifoConfig, SieveConfig,
    TwoQConfig, WTinyLfuConfig,
};

pub(crate) use cost_benefit::splitmix;
pub use parameter::{InvalidParameter, Parameter, SetParameterError, parameters_markdown};
pub(crate) use planner::objects_of;

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

    /// Takes other parameters from now on and keeps all that it has noted of objects. `false` when it cannot: then
    /// nothing has changed, and `config` needs a policy of its own ([`build`]).
    fn configure(&mut self, config: &PolicyConfig) -> bool;

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
    fn planned(strategy: impl planner::Strategy + 'static) -> Box<dyn Policy> {
        Box::new(planner::Planner::new(strategy))
    }
    match config {
        PolicyConfig::None(_) => planned(none::NoCache::default()),
        PolicyConfig::Recency(c) => planned(recency::Recency::new(c.clone())),
        PolicyConfig::CostBenefit(c) => planned(cost_benefit::CostBenefit::new(c.clone())),
        other => match evictor(other) {
            Some(evictor) => planned(evict::Classic(evictor)),
            None => planned(none::NoCache::default()),
        },
    }
}

/// The replacement algorithm behind a policy, for those that are one.
pub(crate) fn evictor(config: &PolicyConfig) -> Option<Box<dyn evict::Evictor>> {
    Some(match config {
        PolicyConfig::None(_) | PolicyConfig::Recency(_) | PolicyConfig::CostBenefit(_) => {
            return None;
        }
        PolicyConfig::Lru(_) => Box::new(simple::Lru::default()),
        PolicyConfig::Fifo(_) => Box::new(simple::Fifo::default()),
        PolicyConfig::Lfu(c) => Box::new(simple::Ranked::new(simple::Lfu::new(c))),
        PolicyConfig::Arc(_) => Box::new(adaptive::Arc::new()),
        PolicyConfig::Lirs(c) => Box::new(lirs::Lirs::new(c)),
        PolicyConfig::TwoQ(c) => Box::new(adaptive::TwoQ::new(c)),
        PolicyConfig::S3Fifo(c) => Box::new(adaptive::S3Fifo::new(c)),
        PolicyConfig::Sieve(_) => Box::new(simple::Sieve::default()),
        PolicyConfig::WTinyLfu(c) => Box::new(tinylfu::WTinyLfu::new(c)),
        PolicyConfig::Gdsf(c) => Box::new(simple::Ranked::new(simple::Gdsf::new(c))),
        PolicyConfig::Lru2nd(c) => Box::new(simple::Lru2nd::new(c)),
    })
}
