//! Our CSV, as [`crate::read::CsvReader`] reads it.

use super::{Kept, Writer};
use crate::trace::{Entry, Level, Op, Outcome};
use std::io::Write;

/// The columns of a trace of WebDAV requests; one of file operations has the first [`FILE_COLUMNS`].
pub(crate) const COLUMNS: [&str; 13] = [
    "ts_us",
    "client",
    "op",
    "path",
    "offset",
    "length",
    "latency_us",
    "result",
    "thread",
    "path2",
    "method",
    "status",
    "range",
];
const FILE_COLUMNS: usize = 10;

/// Writes CSV with a header line.
pub struct CsvWriter<W: Write> {
    out: csv::Writer<W>,
    level: Level,
}

impl<W: Write> CsvWriter<W> {
    /// Writes the header of a trace of `level`.
    pub fn new(out: W, level: Level) -> std::io::Result<CsvWriter<W>> {
        let mut out = csv::WriterBuilder::new()
            .buffer_capacity(1 << 16)
            .from_writer(out);
        match level {
            Level::FileOperations => out.write_record(&COLUMNS[..FILE_COLUMNS])?,
            Level::WebdavRequests => out.write_record(COLUMNS)?,
        }
        Ok(CsvWriter { out, level })
    }
}

impl<W: Write> Writer for CsvWriter<W> {
    fn write(&mut self, entry: &Entry) -> std::io::Result<Kept> {
        let (op, method) = names(entry.op);
        let (result, status) = match &entry.outcome {
            Outcome::Ok => ("ok", None),
            Outcome::Errno(name) => (&**name, None),
            Outcome::Status(status) if *status < 400 => ("ok", Some(*status)),
            Outcome::Status(status) => ("failed", Some(*status)),
        };
        let out = &mut self.out;
        // The root is written as a slash, so that a row never looks empty.
        let slashed = |path: &'static str, real: &str| -> String {
            if real.is_empty() {
                path.to_string()
            } else {
                real.to_string()
            }
        };
        out.write_field(entry.at_us.to_string())?;
        out.write_field(&*entry.client)?;
        out.write_field(op)?;
        out.write_field(slashed("/", &entry.path))?;
        out.write_field(entry.offset.to_string())?;
        out.write_field(entry.length.to_string())?;
        out.write_field(entry.latency_us.to_string())?;
        out.write_field(result)?;
        out.write_field(&*entry.thread)?;
        out.write_field(
            entry
                .path2
                .as_deref()
                .map_or(String::new(), |p| slashed("/", p)),
        )?;
        if self.level == Level::WebdavRequests {
            out.write_field(method)?;
            out.write_field(status.map_or(String::new(), |s| s.to_string()))?;
            let last = entry.offset + entry.length.saturating_sub(1);
            let range = format!("bytes={}-{last}", entry.offset);
            out.write_field(if entry.ranged { range } else { String::new() })?;
        }
        out.write_record(None::<&[u8]>)?;
        Ok(Kept::Yes)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The op and the method column; the op of a request is the nearest file operation.
fn names(op: Op) -> (&'static str, &'static str) {
    match op {
        Op::DavStat => ("stat", "PROPFIND"),
        Op::DavList => ("list", "PROPFIND"),
        Op::DavGet => ("read", "GET"),
        Op::DavPut | Op::DavPatch => ("write", op.name()),
        Op::DavDelete => ("unlink", "DELETE"),
        Op::DavMkcol => ("mkdir", "MKCOL"),
        Op::DavMove => ("rename", "MOVE"),
        Op::DavCopy => ("copy", "COPY"),
        Op::DavHead => ("stat", "HEAD"),
        Op::DavLock => ("lock", "LOCK"),
        Op::DavUnlock => ("unlock", "UNLOCK"),
        Op::DavOptions => ("options", "OPTIONS"),
        Op::DavProppatch => ("setattr", "PROPPATCH"),
        file => (file.name(), ""),
    }
}
