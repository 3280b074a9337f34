//! The TierDAV gateway.

pub mod dav;
