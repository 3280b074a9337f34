//! The trace: its record, the live segment's frames, and the sealed Parquet form.
//!
//! `TRACE_FORMAT.md` beside the crate documents both formats.

mod live;
mod record;
mod sealed;

pub use live::{FrameWriter, LiveReader, Row, TraceError, header, read_live};
pub use record::{NO_OBJECT, Op, Record, TierServed};
pub use sealed::{ParquetReader, SCHEMA_VERSION, write_parquet};
