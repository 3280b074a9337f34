//! The simulator's pure core: what a policy would have done with a recorded load.

mod replacement;

pub use replacement::{Replacement, belady};
