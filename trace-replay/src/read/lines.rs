//! What all line-based formats share: bounded lines, and the place of what cannot be used.

use super::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longer lines are skipped and counted: memory stays bounded whatever the file holds.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Why a line is not used.
#[derive(Debug)]
pub struct Bad {
    /// Byte in the line where it begins, from 1.
    pub column: usize,
    /// The kind of reason, for counting.
    pub kind: &'static str,
    /// The rest of the message, naming what was found.
    pub detail: String,
}

impl Bad {
    /// `field` is the part of `line` that cannot be used.
    pub fn at(line: &str, field: &str, kind: &'static str) -> Bad {
        let start = (field.as_ptr() as usize).wrapping_sub(line.as_ptr() as usize);
        let column = if start <= line.len() { start + 1 } else { 1 };
        Bad {
            column,
            kind,
            detail: short(field),
        }
    }
}

/// The begin of `text`, for messages.
pub fn short(text: &str) -> String {
    let mut begin: String = text.chars().take(60).collect();
    if begin.len() < text.len() {
        begin.push('…');
    }
    begin
}

/// A number in `field`, or the reason why not.
pub fn number<T: std::str::FromStr>(line: &str, field: &str) -> Result<T, Bad> {
    field
        .parse()
        .map_err(|_| Bad::at(line, field, "not a number that fits"))
}

/// The field at `index`, or what is missing.
pub fn field<'a>(line: &str, fields: &[&'a str], index: usize) -> Result<&'a str, Bad> {
    fields.get(index).copied().ok_or_else(|| Bad {
        column: line.len() + 1,
        kind: "too few fields",
        detail: format!("{} found", fields.len()),
    })
}

/// One format: what a line means.
pub trait LineFormat {
    /// What kind of load such files hold.
    fn level(&self) -> Level;
    /// Whether they are of block devices; see [`Reader::is_of_blocks`].
    fn is_of_blocks(&self) -> bool {
        false
    }
    /// The entry that `line` (from 1) ends with; none for lines that carry no operation by design.
    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad>;
    /// The second entry of the line that `line` has just read, for formats where a line can be two operations.
    fn second(&mut self) -> Option<Entry> {
        None
    }
    /// What is left over after the last line.
    fn leftover(&mut self) -> Vec<Bad> {
        Vec::new()
    }
}

/// Reads any [`LineFormat`].
pub struct LineReader<F> {
    input: BufReader<Box<dyn Read>>,
    format: F,
    file: PathBuf,
    buffer: Vec<u8>,
    line: u64,
    unusable: Unusable,
    ended: bool,
}

impl<F: LineFormat> LineReader<F> {
    /// Reads `input`, which is called `file` in messages.
    pub fn new(input: Box<dyn Read>, file: &Path, format: F) -> LineReader<F> {
        LineReader {
            input: BufReader::with_capacity(1 << 16, input),
            format,
            file: file.to_path_buf(),
            buffer: Vec::new(),
            line: 0,
            unusable: Unusable::default(),
            ended: false,
        }
    }

    fn reject(&mut self, bad: &Bad) {
        let (file, line) = (self.file.display(), self.line);
        self.unusable.add_as(bad.kind, || {
            format!(
                "{file}:{line}: column {}: {}: `{}`",
                bad.column, bad.kind, bad.detail
            )
        });
    }

    /// Reads one line into the buffer; false at the end of the file.
    fn fill(&mut self) -> std::io::Result<bool> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = (&mut self.input)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if read as u64 == limit {
            self.buffer.clear();
            self.input.skip_until(b'\n')?;
            let bad = Bad {
                column: 1,
                kind: "line longer than 1 MiB",
                detail: String::new(),
            };
            self.reject(&bad);
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        Ok(true)
    }
}

impl<F: LineFormat> Reader for LineReader<F> {
    fn level(&self) -> Level {
        self.format.level()
    }

    fn is_of_blocks(&self) -> bool {
        self.format.is_of_blocks()
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        if let Some(entry) = self.format.second() {
            return Some(Ok(entry));
        }
        while !self.ended {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => {
                    self.ended = true;
                    for bad in self.format.leftover() {
                        self.reject(&bad);
                    }
                    break;
                }
                Err(source) => {
                    self.ended = true;
                    return Some(Err(ReadError::Format {
                        path: self.file.clone(),
                        reason: format!("after line {}: {source}", self.line),
                    }));
                }
            }
            let outcome = match std::str::from_utf8(&self.buffer) {
                Ok(line) if line.trim().is_empty() => Ok(None),
                Ok(line) => self.format.line(line),
                Err(e) => Err(Bad {
                    column: e.valid_up_to() + 1,
                    kind: "not UTF-8",
                    detail: String::new(),
                }),
            };
            match outcome {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => {}
                Err(bad) => self.reject(&bad),
            }
        }
        None
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}
