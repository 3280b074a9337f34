//! fio's I/O logs, versions 2 and 3.
//!
//! Version 3, real lines: `163 /tmp/j.0.0 open`, `168 /tmp/j.0.0 read 0 4096` (microseconds since the job began).
//! Version 2 has no time in front; `FILE wait MICROSECONDS 0` moves the clock, each relative to the one before.

use super::lines::{Bad, LineFormat, field, number};
use crate::trace::{Entry, Level, Op, normal_path};
use std::sync::Arc;

/// Words that stand behind the file's name; behind that field, they tell that it was not the whole name.
const ACTIONS: &[&str] = &[
    "add", "open", "close", "read", "write", "sync", "datasync", "trim", "wait",
];

/// Reads what `fio --write_iolog` wrote.
#[derive(Default)]
pub struct Fio {
    version: u32,
    clock_us: i64,
}

impl LineFormat for Fio {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        if self.version == 0 {
            self.version = match line.trim() {
                "fio version 2 iolog" => 2,
                "fio version 3 iolog" => 3,
                other => return Err(Bad::at(line, other, "no `fio version 2|3 iolog` above it")),
            };
            return Ok(None);
        }
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let first = usize::from(self.version == 3);
        if first == 1 {
            self.clock_us = number(line, field(line, &fields, 0)?)?;
        }
        let name = field(line, &fields, first)?;
        let action = field(line, &fields, first + 1)?;
        let op = match action {
            "add" => return Ok(None),
            "wait" if first == 0 => {
                let wait: u64 = number(line, field(line, &fields, 2)?)?;
                self.clock_us = self.clock_us.saturating_add_unsigned(wait);
                return Ok(None);
            }
            "open" => Op::FileOpen,
            "close" => Op::FileClose,
            "read" => Op::FileRead,
            "write" => Op::FileWrite,
            "sync" | "datasync" => Op::FileSync,
            _ if fields.iter().skip(first + 2).any(|f| ACTIONS.contains(f)) => {
                return Err(Bad::at(
                    line,
                    name,
                    "a space in the file's name, where it ends for fio, too",
                ));
            }
            other => return Err(Bad::at(line, other, "an action without counterpart")),
        };
        let (mut offset, mut length) = (0, 0);
        if op.reads() || op.writes() {
            offset = number(line, field(line, &fields, first + 2)?)?;
            let size = field(line, &fields, first + 3)?;
            length = number(line, size)?;
            super::check_end(op, offset, length).map_err(|why| Bad::at(line, size, why))?;
        }
        Ok(Some(Entry {
            offset,
            length,
            ..Entry::new(self.clock_us, Arc::from("fio"), op, normal_path(name))
        }))
    }
}
