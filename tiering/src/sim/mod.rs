//! The simulator's pure core: what a policy would have done with a recorded load.

mod device;
mod replacement;
mod run;

pub use device::Device;
pub use replacement::{Replacement, belady};
pub use run::{Access, Outcome, Request, Setup, compulsory_head_time, run};
