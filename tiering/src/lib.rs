//! The pure brain of TierDAV: identities, events, policies and the trace codec.
//!
//! Nothing here knows a clock, a file, a thread or a source of randomness. Time arrives with each
//! event and chance comes from a seed in the configuration, so the live gateway, a simulator and a
//! test that replays last week's trace decide the same. `clippy.toml` beside `Cargo.toml` keeps it so.

pub mod auto;
mod event;
mod objects;
pub mod policy;
pub mod shadow;
pub mod sim;
pub mod trace;
mod types;

pub use event::{
    Action, ActionKind, CacheView, Event, HIGH_WATERMARK, LOW_WATERMARK, MAX_DIRTY_AGE, Reason,
};
pub use policy::{Policy, PolicyConfig, build};
pub use types::{DEFAULT_OBJECT_BYTES, FileId, Nanos, ObjectId, ParseIdError, Tier};
