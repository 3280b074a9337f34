//! The trace: its record, the live segment's frames, and the sealed Parquet form.
//!
//! `TRACE_FORMAT.md` beside the crate documents both formats.

mod record;

pub use record::{NO_OBJECT, Op, Record, TierServed};
