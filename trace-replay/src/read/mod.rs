//! Lazy trace readers behind one trait, and the detection of which one a path needs.

mod access;
mod blkparse;
mod cache_csv;
mod csv;
mod fio;
mod lines;
mod msr;
mod oracle;
mod rclone;
mod segments;
mod strace;

pub use self::csv::CsvReader;
use self::lines::LineReader;
use self::oracle::OracleReader;
pub use self::oracle::RECORD_BYTES as ORACLE_RECORD_BYTES;
pub use self::segments::{SegmentReader, is_segment};

use crate::trace::{Entry, Level, Op};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a trace cannot be read on.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("{}", path.display())]
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

/// Lines that could not be used, counted by reason, and the first ones.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct Unusable {
    /// How many lines were left out.
    pub lines: u64,
    /// How many for which kind of reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Examples, each with file, line and column: at most [`Unusable::EXAMPLES`] of a kind.
    pub examples: Vec<String>,
    /// Columns that mean nothing here, as in the header: at most [`Unusable::EXAMPLES`] of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

impl Unusable {
    /// How many examples of one kind of reason are kept.
    pub const EXAMPLES: usize = 8;

    /// Counts one more line.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.add_as("unusable row", example);
    }

    /// Counts one more line that was left out for a `reason` of this kind.
    pub fn add_as(&mut self, reason: &'static str, example: impl FnOnce() -> String) {
        self.lines += 1;
        let count = self.reasons.entry(reason).or_default();
        *count += 1;
        if *count <= Self::EXAMPLES as u64 {
            self.examples.push(example());
        }
    }

    /// For people: a line for each reason, then the examples; nothing when all lines were used.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (why, count) in &self.reasons {
            let _ = writeln!(out, "{count} lines not used: {why}");
        }
        for example in &self.examples {
            let _ = writeln!(out, "  {example}");
        }
        out
    }
}

/// A trace being read, entry by entry, in the order of the file.
pub trait Reader {
    /// What kind of load the trace holds.
    fn level(&self) -> Level;
    /// Whether it is a trace of block devices: nothing in it is opened or closed, and a write is a change at once.
    fn is_of_blocks(&self) -> bool {
        false
    }
    /// The next usable entry.
    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>>;
    /// For a trace of a cache, in which each entry is one access to one whole object: the same entries as numbers.
    ///
    /// Reads on from where [`Reader::next_entry`] is.
    fn cache_records(&mut self) -> Option<&mut CacheRecords> {
        None
    }
    /// What had to be left out so far.
    fn unusable(&self) -> &Unusable;
}

/// One access to one whole object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRecord {
    /// When, microseconds since the first one; negative for what is out of order.
    pub at_us: i64,
    /// The object.
    pub object: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// The entries of a trace of a cache.
pub type CacheRecords = dyn Iterator<Item = Result<CacheRecord, ReadError>>;

/// A kind of trace that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Segments of the gateway: `.parquet`, `.live`, or a directory of them.
    Segments,
    /// This tool's CSV, with a header line.
    Csv,
    /// fio's I/O log, version 2 or 3.
    Fio,
    /// Log of `strace -f -ttt -T -yy`.
    Strace,
    /// Access log of Apache or nginx, common or combined.
    Access,
    /// MSR Cambridge block trace (CSV without header).
    Msr,
    /// Text of `blkparse`, in its default format.
    Blkparse,
    /// libCacheSim's oracleGeneral (binary records of 24 bytes).
    OracleGeneral,
    /// A cache's accesses as libCacheSim takes them in CSV: a header that names time, object and size, or these three.
    CacheCsv,
    /// Log of `rclone serve webdav -v` or `-vv`.
    Rclone,
}

/// Bytes that are looked at to tell the format.
const HEAD_BYTES: u64 = 4096;

/// Opens a trace of any known format (plain, `.gz`, `.xz` or `.zst`) and finds out which one it is.
pub fn open(path: &Path) -> Result<Box<dyn Reader>, ReadError> {
    open_as(path, None)
}

/// Opens a trace; without a `format` it is told by the content.
pub fn open_as(path: &Path, format: Option<Format>) -> Result<Box<dyn Reader>, ReadError> {
    let by_name = path.is_dir() || segments::is_segment(path);
    if format == Some(Format::Segments) || (format.is_none() && by_name) {
        return Ok(Box::new(SegmentReader::new(path)?));
    }
    let io = |source| ReadError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    let mut input = decompress(path, file).map_err(io)?;
    let mut head = Vec::new();
    (&mut input)
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(io)?;
    let format = match format {
        Some(format) => format,
        None => detect(&head).ok_or_else(|| ReadError::Format {
            path: path.to_path_buf(),
            reason: "neither text nor records of a known kind; name the format with --from".into(),
        })?,
    };
    let input: Box<dyn Read> = Box::new(Cursor::new(head).chain(input));
    Ok(match format {
        Format::Csv | Format::Segments => Box::new(CsvReader::new(input, path)?),
        Format::Fio => Box::new(LineReader::new(input, path, fio::Fio::default())),
        Format::Strace => Box::new(LineReader::new(input, path, strace::Strace::default())),
        Format::Access => Box::new(LineReader::new(input, path, access::Access::default())),
        Format::Msr => Box::new(LineReader::new(input, path, msr::Msr::default())),
        Format::Blkparse => Box::new(LineReader::new(input, path, blkparse::Blkparse::default())),
        Format::OracleGeneral => Box::new(OracleReader::new(input, path)),
        Format::CacheCsv => Box::new(cache_csv::CacheCsvReader::new(input, path)),
        Format::Rclone => Box::new(LineReader::new(input, path, rclone::Rclone::default())),
    })
}

/// The system calls that strace must log for [`strace_output`].
pub use self::strace::CALLS as STRACE_CALLS;

/// Reads strace's log as it is written; `pids` are processes that strace attaches to, and `name` stands in messages. Mappings
/// are told of files beneath `within`.
///
/// # Errors
/// When one of the processes cannot be looked at.
pub fn strace_output(
    input: Box<dyn Read>,
    name: &Path,
    pids: &[u32],
    within: &[String],
) -> Result<Box<dyn Reader>, ReadError> {
    let mut format = strace::Strace::beneath(within);
    for pid in pids {
        format.attach(*pid).map_err(|source| ReadError::Io {
            path: Path::new("/proc").join(pid.to_string()),
            source,
        })?;
    }
    Ok(Box::new(LineReader::new(input, name, format)))
}

/// Tells the format by the first bytes. Text that is nothing else is taken for our CSV, whose reader says what is missing.
fn detect(head: &[u8]) -> Option<Format> {
    if head.contains(&0) {
        // Object numbers and sizes are far below the ends of their ranges: any text encoding would look different.
        let later = |r: &[u8]| {
            r[..4]
                .iter()
                .rev()
                .fold(0_u32, |t, b| t << 8 | u32::from(*b))
        };
        let times: Vec<u32> = head.chunks_exact(oracle::RECORD_BYTES).map(later).collect();
        return (!times.is_empty() && times.is_sorted()).then_some(Format::OracleGeneral);
    }
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.starts_with("fio version ") {
        return Some(Format::Fio);
    }
    if strace::is_strace(&line) {
        return Some(Format::Strace);
    }
    if access::is_access(&line) {
        return Some(Format::Access);
    }
    if blkparse::is_blkparse(&line) {
        return Some(Format::Blkparse);
    }
    if rclone::is_rclone(&line) {
        return Some(Format::Rclone);
    }
    if cache_csv::is_cache_csv(&line) {
        return Some(Format::CacheCsv);
    }
    let fields: Vec<&str> = line.trim().split(',').collect();
    let number = |i: usize| {
        fields
            .get(i)
            .is_some_and(|f: &&str| f.parse::<u64>().is_ok())
    };
    if fields.len() == 7 && number(0) && number(4) && number(5) {
        return Some(Format::Msr);
    }
    Some(Format::Csv)
}

/// What [`check_end`] refuses.
const TOO_LARGE: &str = "past 2^50 bytes, or over 2^43 at once";

/// Refuses what no file can hold, and what nothing reads or writes at once: larger numbers are garbage, and whoever counts
/// pieces or objects would run out of memory.
fn check_end(op: Op, offset: u64, length: u64) -> Result<(), &'static str> {
    let at_once = if op.reads() || op.writes() { length } else { 0 };
    match offset.checked_add(length) {
        Some(end) if end <= 1 << 50 && at_once <= 1 << 43 => Ok(()),
        _ => Err(TOO_LARGE),
    }
}

/// Wraps `file` in the decompressor that its name asks for.
fn decompress(path: &Path, file: File) -> std::io::Result<Box<dyn Read>> {
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => Box::new(xz2::read::XzDecoder::new_multi_decoder(BufReader::new(
            file,
        ))),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Some("zst" | "zstd") => Box::new(zstd::stream::read::Decoder::new(file)?),
        _ => Box::new(file),
    })
}
