//! Calls that move bytes from one descriptor to another inside the kernel: a read of one file and a write of another.

use super::super::lines::{self, Bad};
use super::args::Call;
use super::{Meaning, Strace};
use crate::trace::Op;

/// Where source and destination stand among the arguments.
struct Places {
    source: (usize, Option<usize>),
    sink: (usize, Option<usize>),
}

impl Strace {
    /// The read and the write of a `copy_file_range`, `sendfile` or `splice`; none for an end that is no file, and
    /// none at all for a call that failed: it moved nothing, and applications then copy in another way.
    pub(super) fn copy(
        &mut self,
        pid: u32,
        text: &str,
        call: &Call,
    ) -> Result<[Option<Meaning>; 2], Bad> {
        if call.error.is_some() {
            return Ok([None, None]);
        }
        let places = if call.name.starts_with("sendfile") {
            Places {
                source: (1, Some(2)),
                sink: (0, None),
            }
        } else {
            Places {
                source: (0, Some(1)),
                sink: (2, Some(3)),
            }
        };
        let moved = call.result_number(text)?.unsigned_abs();
        let read = self.end(pid, text, call, Op::FileRead, places.source, moved)?;
        let write = self.end(pid, text, call, Op::FileWrite, places.sink, moved)?;
        // At the end of the source nothing is written.
        Ok([read, write.filter(|_| moved > 0)])
    }

    fn end(
        &mut self,
        pid: u32,
        text: &str,
        call: &Call,
        op: Op,
        (fd, offset): (usize, Option<usize>),
        moved: u64,
    ) -> Result<Option<Meaning>, Bad> {
        let Some((fd, path)) = self.file(call.descriptor(text, fd)?) else {
            return Ok(None);
        };
        let explicit = match offset {
            Some(index) => pointed(text, call.argument(text, index)?)?,
            None => None,
        };
        let mut meaning = Meaning::of(op, &path);
        meaning.length = moved;
        meaning.offset = match explicit {
            Some(offset) => offset,
            None => self.tables.advance(pid, fd, &path, op, moved),
        };
        if op == Op::FileWrite {
            super::super::check_end(meaning.op, meaning.offset, moved)
                .map_err(|why| Bad::at(text, text, why))?;
            self.tables.grow(&path, meaning.offset + moved);
        }
        Ok(Some(meaning))
    }
}

/// `NULL`, `[100]` or `[50] => [350]`: the number before the call.
fn pointed(text: &str, argument: &str) -> Result<Option<u64>, Bad> {
    if argument == "NULL" {
        return Ok(None);
    }
    let before = argument.split(" =>").next().unwrap_or_default();
    let number = before.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match number {
        Some(number) => lines::number(text, number).map(Some),
        None => Err(Bad::at(text, argument, "not a number that fits")),
    }
}
