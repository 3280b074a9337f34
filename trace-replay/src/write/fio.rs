//! fio's I/O log, version 3 (`fio --read_iolog`).

use super::{FAILED, Kept, NO_COUNTERPART, Writer};
use crate::trace::{Entry, Op};
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

/// Writes `MICROSECONDS FILE ACTION [OFFSET LENGTH]`; the clock starts at the first entry.
pub struct FioWriter<W: Write> {
    out: W,
    first: Option<i64>,
    now: i64,
    added: HashSet<Arc<str>>,
    open: HashSet<Arc<str>>,
}

impl<W: Write> FioWriter<W> {
    /// Writes the first line.
    pub fn new(mut out: W) -> std::io::Result<FioWriter<W>> {
        writeln!(out, "fio version 3 iolog")?;
        Ok(FioWriter {
            out,
            first: None,
            now: 0,
            added: HashSet::new(),
            open: HashSet::new(),
        })
    }
}

impl<W: Write> Writer for FioWriter<W> {
    fn write(&mut self, entry: &Entry) -> std::io::Result<Kept> {
        if !entry.outcome.is_ok() {
            return Ok(Kept::No(FAILED));
        }
        let path = &entry.path;
        if path.is_empty() || path.len() > 255 || path.contains(char::is_whitespace) {
            return Ok(Kept::No(
                "path that fio cannot read (white space, or over 255 bytes)",
            ));
        }
        let action = match entry.op {
            Op::FileCreate | Op::FileOpen => "open",
            Op::FileClose => "close",
            Op::FileSync => "sync",
            op if op.reads() => "read",
            op if op.writes() => "write",
            _ => return Ok(Kept::No(NO_COUNTERPART)),
        };
        if entry.length == 0 && matches!(action, "read" | "write") {
            return Ok(Kept::No("read or write of no bytes"));
        }
        // fio subtracts each time from the next one: a step back would become an endless wait.
        let first = *self.first.get_or_insert(entry.at_us);
        self.now = self.now.max(entry.at_us.saturating_sub(first));
        let now = self.now;
        if action == "close" {
            if !self.open.remove(path) {
                return Ok(Kept::No("close of a file that is not open"));
            }
            writeln!(self.out, "{now} {path} close")?;
            return Ok(Kept::Yes);
        }
        if self.added.insert(path.clone()) {
            writeln!(self.out, "{now} {path} add")?;
        }
        if self.open.insert(path.clone()) {
            writeln!(self.out, "{now} {path} open")?;
        } else if action == "open" {
            return Ok(Kept::No("open of a file that is open already"));
        }
        match action {
            "open" => {}
            "sync" => writeln!(self.out, "{now} {path} sync 0 0")?,
            _ => writeln!(
                self.out,
                "{now} {path} {action} {} {}",
                entry.offset, entry.length
            )?,
        }
        Ok(Kept::Yes)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        let mut open: Vec<_> = self.open.drain().collect();
        open.sort();
        for path in open {
            writeln!(self.out, "{} {path} close", self.now)?;
        }
        self.out.flush()
    }
}
