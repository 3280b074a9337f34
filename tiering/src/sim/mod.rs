//! The simulator's pure core: what a policy would have done with a recorded load.

mod clairvoyant;
mod device;
mod offline;
mod replacement;
mod responses;
mod run;

pub use clairvoyant::{Clairvoyant, clairvoyant};
pub use device::{Device, Line};
pub use offline::{MissBounds, miss_bounds};
pub use replacement::{Replacement, as_libcachesim, belady, belady_misses};
pub use responses::Responses;
pub use run::{Access, Compulsory, Outcome, Request, Run, Setup, run};
