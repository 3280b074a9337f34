//! Block traces of MSR Cambridge: `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`, without header.
//!
//! Times are Windows file times, in steps of 100 ns; a disk becomes one file `HOST.DISK`. Real row:
//! `128166372003061629,usr,0,Read,7014609920,24576,41286`.

use super::lines::{Bad, LineFormat, field, number};
use crate::trace::{Entry, Level, Op};
use std::sync::Arc;

/// Reads one volume's trace.
#[derive(Default)]
pub struct Msr {
    first: Option<i64>,
}

impl LineFormat for Msr {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn is_of_blocks(&self) -> bool {
        true
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let time: i64 = number(line, field(line, &fields, 0)?)?;
        let host = field(line, &fields, 1)?;
        let disk: u32 = number(line, field(line, &fields, 2)?)?;
        let kind = field(line, &fields, 3)?;
        let op = if kind.eq_ignore_ascii_case("read") {
            Op::FileRead
        } else if kind.eq_ignore_ascii_case("write") {
            Op::FileWrite
        } else {
            return Err(Bad::at(line, kind, "neither Read nor Write"));
        };
        let offset = number(line, field(line, &fields, 4)?)?;
        let size = field(line, &fields, 5)?;
        let length = number(line, size)?;
        super::check_end(op, offset, length).map_err(|why| Bad::at(line, size, why))?;
        let response: u64 = number(line, field(line, &fields, 6)?)?;
        let first = *self.first.get_or_insert(time);
        Ok(Some(Entry {
            offset,
            length,
            latency_us: response / 10,
            ..Entry::new(
                time.saturating_sub(first) / 10,
                Arc::from(host),
                op,
                format!("{host}.{disk}").into(),
            )
        }))
    }
}
