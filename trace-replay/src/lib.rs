//! Reads, describes and replays I/O traces against a WebDAV server, and checks every byte.
//!
//! The way of a trace: a [`read::Reader`] yields [`trace::Entry`] values lazily, [`plan`] turns them into
//! WebDAV requests with their order and the content each read must find, [`replay`] sends those over
//! keep-alive connections, and [`report`] says what came of it.

pub mod calibrate;
pub mod calls;
pub mod capture;
pub mod cli;
pub mod client;
pub mod compare;
pub mod content;
pub mod convert;
pub mod exchange;
pub mod info;
pub mod model;
pub mod page;
mod parallel;
pub mod plan;
mod progress;
pub mod read;
pub mod replay;
pub mod report;
pub mod signals;
pub mod simulate;
pub mod split;
pub mod synth;
pub mod tiers;
pub mod tls;
pub mod trace;
pub mod tune;
pub mod write;
