//! The TierDAV server: a WebDAV gateway that moves objects between two tiers as its trace says.

pub mod dav;
pub mod metrics;
pub mod objects;
pub mod recorder;
pub mod volume;
