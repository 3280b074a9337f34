//! The TierDAV server: a WebDAV gateway that moves objects between two tiers as its trace says.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod dav;
#[doc(hidden)]
pub mod fuzzing;
mod html;
pub mod http;
pub mod log;
pub mod metrics;
pub mod objects;
mod parts;
pub mod pools;
#[cfg(feature = "rados")]
pub mod rados;
pub mod recorder;
pub mod reload;
pub mod scrub;
pub mod serve;
mod sync_failures;
pub mod tiers;
pub mod top;
pub mod transfer;
pub mod volume;
mod zeros;
