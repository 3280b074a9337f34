//! Writers of trace formats, each entry by entry.

mod csv;
mod fio;
mod oracle;
mod parquet;

pub(crate) use self::csv::COLUMNS as CSV_COLUMNS;
pub use self::csv::CsvWriter;
pub use self::fio::FioWriter;
pub use self::oracle::OracleWriter;
pub(crate) use self::oracle::object as oracle_object;
pub use self::parquet::write as write_parquet;

use crate::trace::Entry;

/// A kind of trace that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A segment as the gateway writes it; WebDAV requests only.
    Parquet,
    /// This tool's CSV, with a header line: keeps everything.
    Csv,
    /// libCacheSim's oracleGeneral: reads and writes only, times in whole seconds.
    OracleGeneral,
    /// fio's I/O log, version 3: opens, reads, writes, syncs and closes, one client.
    Fio,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is in the output.
    Yes,
    /// The format cannot express it, for this reason.
    No(&'static str),
}

/// A trace being written.
pub trait Writer {
    /// Adds one entry.
    fn write(&mut self, entry: &Entry) -> std::io::Result<Kept>;
    /// Completes the file.
    fn finish(&mut self) -> std::io::Result<()>;
}

/// Why an entry that failed when recorded is not part of formats without a column for it.
const FAILED: &str = "failed when recorded";
/// Why other operations than those of content are left out.
const NO_COUNTERPART: &str = "operation without counterpart";
