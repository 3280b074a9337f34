//! Lazy trace readers behind one trait, and the detection of which one a path needs.

mod csv;
mod segments;

pub use self::csv::CsvReader;
pub use self::segments::SegmentReader;

use crate::trace::{Entry, Level};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a trace cannot be read on.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a trace of a known kind.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is missing or unknown.
        reason: String,
    },
}

/// Lines that could not be used, and the first one of each reason.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct Unusable {
    /// How many lines were left out.
    pub lines: u64,
    /// Examples, each with file, line and column: at most [`Unusable::EXAMPLES`].
    pub examples: Vec<String>,
}

impl Unusable {
    /// How many examples are kept.
    pub const EXAMPLES: usize = 8;

    /// Counts one more line.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.lines += 1;
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// A trace being read, entry by entry, in the order of the file.
pub trait Reader {
    /// What kind of load the trace holds.
    fn level(&self) -> Level;
    /// The next usable entry.
    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>>;
    /// What had to be left out so far.
    fn unusable(&self) -> &Unusable;
}

/// Opens a trace: a segment of the gateway (`.parquet`, `.live`), a directory of them, or a CSV file (plain, `.xz`, `.zst`).
pub fn open(path: &Path) -> Result<Box<dyn Reader>, ReadError> {
    if path.is_dir() || segments::is_segment(path) {
        return Ok(Box::new(SegmentReader::new(path)?));
    }
    let io = |source| ReadError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    Ok(Box::new(CsvReader::new(
        decompress(path, file).map_err(io)?,
        path,
    )?))
}

/// Wraps `file` in the decompressor that its name asks for.
fn decompress(path: &Path, file: File) -> std::io::Result<Box<dyn Read>> {
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => Box::new(xz2::read::XzDecoder::new_multi_decoder(BufReader::new(
            file,
        ))),
        Some("zst" | "zstd") => Box::new(zstd::stream::read::Decoder::new(file)?),
        _ => Box::new(file),
    })
}
