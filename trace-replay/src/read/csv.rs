//! CSV traces with a header line, of both levels.
//!
//! File operations, one real row:
//! `1669683,es,write,es/nodes/0/_state/node-0.st.tmp,0,71,39,ok,main-15628,,2` under
//! `ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n`.
//! WebDAV requests, one real row:
//! `18963526,davfs2,write,es/nodes/0/_state/node-0.st,0,71,1410,ok,PUT,,201,` under
//! `ts_us,client,op,path,offset,length,latency_us,result,method,path2,status,range`.
//! Columns may come in any order; a `method` column makes the trace one of WebDAV requests.

use super::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op, Outcome, normal_path};
use crate::write::CSV_COLUMNS;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// A row takes no more, so that memory stays bounded whatever the file holds: a quote that is not closed makes one row of all
/// that follows.
const MAX_ROW_BYTES: u64 = 1 << 20;

/// Whether a column is one of those that are written too. `n` is how many operations strace had counted in recordings of old.
fn is_known(column: &str) -> bool {
    CSV_COLUMNS.contains(&column) || column == "n"
}

/// What is read at once.
const BUFFER_BYTES: usize = 1 << 16;

/// The input, until one row has taken too much of it.
struct Bounded<R> {
    input: R,
    /// Bytes given since the last row ended.
    given: Rc<Cell<u64>>,
    end: Rc<Cell<End>>,
}

/// What the parser has been given, in all.
#[derive(Clone, Copy, Default)]
struct End {
    bytes: u64,
    last: u8,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let given = self.given.get();
        if given > MAX_ROW_BYTES + BUFFER_BYTES as u64 {
            return Err(io::Error::other(
                "a row of more than 1 MiB: is there a quote that is not closed?",
            ));
        }
        let read = self.input.read(buffer)?;
        self.given.set(given + read as u64);
        if let Some(&last) = buffer[..read].last() {
            let bytes = self.end.get().bytes + read as u64;
            self.end.set(End { bytes, last });
        }
        Ok(read)
    }
}

/// Reads a CSV trace from any byte stream.
pub struct CsvReader<R> {
    rows: csv::Reader<Bounded<R>>,
    given: Rc<Cell<u64>>,
    end: Rc<Cell<End>>,
    row: csv::ByteRecord,
    /// Lines that the parser is behind when a row begins: it takes `\r` for the end, and `\n` with the row after.
    behind: u64,
    columns: Columns,
    level: Level,
    file: PathBuf,
    unusable: Unusable,
    names: HashMap<Box<str>, Arc<str>>,
    paths: HashMap<Box<str>, Arc<str>>,
    failed: bool,
}

struct Columns {
    ts_us: usize,
    op: usize,
    path: usize,
    client: Option<usize>,
    offset: Option<usize>,
    length: Option<usize>,
    latency_us: Option<usize>,
    result: Option<usize>,
    thread: Option<usize>,
    path2: Option<usize>,
    method: Option<usize>,
    status: Option<usize>,
    range: Option<usize>,
}

/// What is wrong with a row, and in which column.
struct Bad {
    column: usize,
    reason: String,
}

impl<R: Read> CsvReader<R> {
    /// Reads the header line.
    pub fn new(input: R, file: &Path) -> Result<CsvReader<R>, ReadError> {
        let given = Rc::new(Cell::new(0));
        let end = Rc::<Cell<End>>::default();
        let mut rows = csv::ReaderBuilder::new()
            .flexible(true)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(Bounded {
                input,
                given: Rc::clone(&given),
                end: Rc::clone(&end),
            });
        let header = rows.byte_headers().map_err(|e| csv_error(file, e))?.clone();
        let behind = u64::from(rows.position().line() == 1);
        let find = |name: &str| header.iter().position(|h| h == name.as_bytes());
        let need = |name: &str| {
            find(name).ok_or_else(|| ReadError::Format {
                path: file.to_path_buf(),
                reason: format!(
                    "line 1: no column `{name}`; a CSV trace starts with a header that names at least ts_us, op and path"
                ),
            })
        };
        let columns = Columns {
            ts_us: need("ts_us")?,
            op: need("op")?,
            path: need("path")?,
            client: find("client"),
            offset: find("offset"),
            length: find("length"),
            latency_us: find("latency_us"),
            result: find("result"),
            thread: find("thread"),
            path2: find("path2"),
            method: find("method"),
            status: find("status"),
            range: find("range"),
        };
        let level = if columns.method.is_some() {
            Level::WebdavRequests
        } else {
            Level::FileOperations
        };
        let unknown = header.iter().map(String::from_utf8_lossy);
        let unknown = unknown.filter(|name| !name.is_empty() && !is_known(name));
        let unusable = Unusable {
            columns: unknown
                .take(Unusable::EXAMPLES)
                .map(|name| super::lines::short(&name.escape_debug().to_string()))
                .collect(),
            ..Unusable::default()
        };
        Ok(CsvReader {
            rows,
            given,
            end,
            row: csv::ByteRecord::new(),
            behind,
            columns,
            level,
            file: file.to_path_buf(),
            unusable,
            names: HashMap::new(),
            paths: HashMap::new(),
            failed: false,
        })
    }

    /// The line on which the row begins that was just read. Counted back from its end, as the parser passes blank lines before it.
    fn line(&self) -> u64 {
        let (at, end) = (self.rows.position(), self.end.get());
        let within = self.row.as_slice().iter().filter(|b| **b == b'\n').count() as u64;
        let is_cut = at.byte() == end.bytes && end.last != b'\n';
        let ended = u64::from(self.behind == 0 && !is_cut);
        at.line().saturating_sub(within + ended)
    }

    fn parse(&mut self) -> Result<Entry, Bad> {
        let columns = &self.columns;
        let row = &self.row;
        let at_us = number::<i64>(row, columns.ts_us)?.ok_or_else(|| Bad {
            column: columns.ts_us,
            reason: "empty".into(),
        })?;
        let op_name = text(row, Some(columns.op))?;
        let method = text(row, columns.method)?;
        let op = match self.level {
            Level::FileOperations => {
                Op::from_name(op_name).filter(|op| op.name().starts_with(char::is_lowercase))
            }
            Level::WebdavRequests => dav_op(method, op_name),
        };
        let op = op.ok_or_else(|| Bad {
            column: if method.is_empty() {
                columns.op
            } else {
                columns.method.unwrap_or(columns.op)
            },
            reason: format!(
                "unknown operation `{}`",
                super::lines::short(if method.is_empty() { op_name } else { method })
            ),
        })?;
        let status = match columns.status {
            Some(column) => number::<u16>(row, column)?,
            None => None,
        };
        let result = text(row, columns.result)?;
        let outcome = match status {
            Some(status) => Outcome::Status(status),
            None if result.is_empty() || result == "ok" => Outcome::Ok,
            None => Outcome::Errno(intern(&mut self.names, result, Arc::from)),
        };
        // A last line that was cut short; a root is written as `/` or as an empty field.
        if row.len() <= columns.path {
            return Err(Bad {
                column: columns.path,
                reason: "is missing: the row is too short".into(),
            });
        }
        let path = text(row, Some(columns.path))?;
        let path2 = text(row, columns.path2)?;
        if path2.is_empty()
            && matches!(op, Op::FileRename | Op::DavMove | Op::DavCopy)
            && outcome.is_ok()
        {
            return Err(Bad {
                column: columns.path2.unwrap_or(0),
                reason: format!("{} without path2", op.name()),
            });
        }
        let optional = |column: Option<usize>| match column {
            Some(column) => number::<u64>(row, column),
            None => Ok(None),
        };
        let (offset, length, latency_us) = (
            optional(columns.offset)?,
            optional(columns.length)?,
            optional(columns.latency_us)?,
        );
        super::check_end(op, offset.unwrap_or(0), length.unwrap_or(0)).map_err(|why| Bad {
            column: columns.length.unwrap_or(0),
            reason: format!("offset + length is {why}"),
        })?;
        Ok(Entry {
            at_us,
            client: intern(&mut self.names, text(row, columns.client)?, Arc::from),
            thread: intern(&mut self.names, text(row, columns.thread)?, Arc::from),
            op,
            path: intern(&mut self.paths, path, normal_path),
            path2: (!path2.is_empty()).then(|| intern(&mut self.paths, path2, normal_path)),
            offset: offset.unwrap_or(0),
            length: length.unwrap_or(0),
            latency_us: latency_us.unwrap_or(0),
            outcome,
            ranged: !text(row, columns.range)?.is_empty(),
        })
    }
}

impl<R: Read> Reader for CsvReader<R> {
    fn level(&self) -> Level {
        self.level
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        while !self.failed {
            let mut row = std::mem::take(&mut self.row);
            self.given.set(0);
            let line = self.rows.position().line() + self.behind;
            let more = self.rows.read_byte_record(&mut row);
            self.row = row;
            match more {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.failed = true;
                    return Some(Err(row_error(&self.file, line, &e)));
                }
            }
            match self.parse() {
                Ok(entry) => return Some(Ok(entry)),
                Err(bad) => {
                    let line = self.line();
                    let name = self
                        .rows
                        .byte_headers()
                        .ok()
                        .and_then(|h| h.get(bad.column));
                    let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                    let file = self.file.display();
                    self.unusable.add(|| {
                        format!(
                            "{file}:{line}: column {} ({name}): {}",
                            bad.column + 1,
                            bad.reason
                        )
                    });
                }
            }
        }
        None
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}

/// What kept a row from being read that begins on line `line`.
fn row_error(file: &Path, line: u64, error: &csv::Error) -> ReadError {
    let why = match error.kind() {
        csv::ErrorKind::Io(e) => e.to_string(),
        _ => error.to_string(),
    };
    ReadError::Format {
        path: file.to_path_buf(),
        reason: format!("line {line}: {why}"),
    }
}

fn csv_error(file: &Path, error: csv::Error) -> ReadError {
    let place = error
        .position()
        .map(|p| format!("line {}: ", p.line()))
        .unwrap_or_default();
    ReadError::Format {
        path: file.to_path_buf(),
        reason: format!("{place}{error}"),
    }
}

fn intern<'a>(
    names: &mut HashMap<Box<str>, Arc<str>>,
    text: &'a str,
    make: impl FnOnce(&'a str) -> Arc<str>,
) -> Arc<str> {
    if let Some(name) = names.get(text) {
        return name.clone();
    }
    let name = make(text);
    names.insert(text.into(), name.clone());
    name
}

fn text(row: &csv::ByteRecord, column: Option<usize>) -> Result<&str, Bad> {
    let Some(column) = column else { return Ok("") };
    std::str::from_utf8(row.get(column).unwrap_or_default()).map_err(|_| Bad {
        column,
        reason: "not UTF-8".into(),
    })
}

fn number<T: std::str::FromStr>(row: &csv::ByteRecord, column: usize) -> Result<Option<T>, Bad> {
    let text = text(row, Some(column))?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Bad {
        column,
        reason: format!("`{}` is not a number that fits", super::lines::short(text)),
    })
}

/// The request's method; the op column tells a listing (Depth 1) from a stat (Depth 0).
fn dav_op(method: &str, op: &str) -> Option<Op> {
    match method {
        "PROPFIND" if op == "list" => Some(Op::DavList),
        "PROPFIND" => Some(Op::DavStat),
        "" => None,
        method => Op::from_name(method).filter(|op| op.name().starts_with(char::is_uppercase)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> (Vec<Entry>, Unusable, Option<ReadError>) {
        let mut reader = match CsvReader::new(text, Path::new("t.csv")) {
            Ok(reader) => reader,
            Err(e) => return (Vec::new(), Unusable::default(), Some(e)),
        };
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry() {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => return (entries, reader.unusable.clone(), Some(e)),
            }
        }
        (entries, reader.unusable.clone(), None)
    }

    #[test]
    fn both_levels_are_read_and_named() {
        let (files, _, _) = read(b"ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n\n5,es,mkdir,es/nodes/,,,24,ENOENT,main-1,,1\n");
        assert_eq!(files[0].op, Op::FileMkdir);
        assert_eq!(&*files[0].path, "es/nodes");
        assert_eq!(files[0].outcome, Outcome::Errno("ENOENT".into()));
        let (dav, _, _) = read(b"ts_us,client,op,path,offset,length,latency_us,result,method,path2,status,range\n-5,d,list,/,,,24,ok,PROPFIND,,207,\n");
        assert_eq!(dav[0].op, Op::DavList);
        assert_eq!(&*dav[0].path, "");
        assert_eq!(dav[0].outcome, Outcome::Status(207));
    }

    #[test]
    fn bad_rows_are_counted_with_file_line_and_column() {
        let (entries, unusable, error) =
            read(b"ts_us,op,path,offset\n1,read,a,0\nx,read,a,0\n3,fly,a,0\n4,read,\xff,0\n5,rename,a,0\n6,read,b,0\n");
        assert!(error.is_none());
        assert_eq!(entries.len(), 2);
        assert_eq!(unusable.lines, 4);
        assert_eq!(
            unusable.examples[0],
            "t.csv:3: column 1 (ts_us): `x` is not a number that fits"
        );
        assert!(unusable.examples[1].starts_with("t.csv:4: column 2 (op): unknown operation"));
    }

    #[test]
    fn a_row_has_the_same_line_whatever_ends_lines() {
        let text = "ts_us,op,path\n1,read,a\nx,read,a\n\"4\n\",read,a\n5,read,a\ny,read,a\n";
        let (_, unix, _) = read(text.as_bytes());
        let (_, dos, _) = read(text.replace('\n', "\r\n").as_bytes());
        let places = |unusable: &Unusable| -> Vec<String> {
            let place = |example: &String| example.chars().take(8).collect();
            unusable.examples.iter().map(place).collect()
        };
        assert_eq!(places(&unix), ["t.csv:3:", "t.csv:4:", "t.csv:7:"]);
        assert_eq!(places(&dos), places(&unix));
    }

    #[test]
    fn blank_lines_between_rows_are_lines() {
        let text =
            "ts_us,op,path\n\n1,read,a\n\n\nx,read,a\n\n\"4\n\",read,a\n5,read,a\n\ny,read,a";
        for end in ["", "\n", "\n\n"] {
            let text = format!("{text}{end}");
            for text in [text.replace('\n', "\r\n"), text] {
                let (entries, unusable, _) = read(text.as_bytes());
                assert_eq!((entries.len(), unusable.lines), (2, 3));
                for (example, line) in unusable.examples.iter().zip([6, 8, 12]) {
                    let want = format!("t.csv:{line}: ");
                    assert!(example.starts_with(&want), "{want} {example} {text:?}");
                }
            }
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_ends_the_trace_with_its_line() {
        let mut text = b"ts_us,op,path\n1,read,a\n\"2,read,b\n".to_vec();
        text.extend(b"3,read,c\n".repeat(400_000));
        let (entries, _, error) = read(&text);
        assert_eq!(entries.len(), 1);
        let error = error.unwrap().to_string();
        assert!(error.starts_with("t.csv: line 3: a row of more"), "{error}");
        // A short one costs its own lines only, and the message does not repeat them all.
        let text = format!("ts_us,op,path\n\"2,read,{}\n3,read,c\n", "b".repeat(5000));
        let (entries, unusable, error) = read(text.as_bytes());
        assert!(entries.is_empty() && error.is_none());
        assert!(unusable.examples[0].len() < 200, "{unusable:?}");
    }

    #[test]
    fn a_last_row_that_was_cut_before_its_path_is_no_access_to_the_root() {
        let (entries, unusable, _) = read(b"ts_us,op,path,length\n1,read,,5\n2,read\n");
        assert_eq!(entries.len(), 1);
        assert_eq!(
            unusable.examples,
            ["t.csv:3: column 3 (path): is missing: the row is too short"]
        );
    }

    #[test]
    fn a_missing_column_names_it() {
        let (_, _, error) = read(b"when,op,path\n1,read,a\n");
        assert!(
            error
                .unwrap()
                .to_string()
                .contains("t.csv: line 1: no column `ts_us`")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
            let mut with_header = b"ts_us,client,op,path,offset,length,latency_us,result,method,path2,status,range\n".to_vec();
            with_header.extend(&bytes);
            let (entries, unusable, _) = read(&with_header);
            prop_assert!(entries.len() as u64 + unusable.lines <= bytes.len() as u64 + 1);
        }

        #[test]
        fn near_rows_never_panic(rows in prop::collection::vec("[0-9a-z,/\"-]{0,60}", 0..10)) {
            let text = format!("ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n\n{}\n", rows.join("\n"));
            let _ = read(text.as_bytes());
        }
    }
}
