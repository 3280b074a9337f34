//! Text of `blkparse` in its default format: `DEVICE CPU SEQUENCE SECONDS PID ACTION RWBS [SECTOR + SECTORS] [PROCESS]`
//! (blkparse(1)). Real row: `8,0    3        1     0.000000000   697  Q   W 223490 + 8 [kjournald]`.
//!
//! What counts is `Q`, a request as it was queued: `D` and `C` are the same bytes again, merged or split by the scheduler.
//! A device becomes one file `blk-MAJOR-MINOR`, a sector is 512 bytes, a flush without data is an fsync. The client is the
//! process, the thread its number. The summary at the end is not an operation.

use super::lines::{Bad, LineFormat, number};
use crate::trace::{Entry, Level, Op};
use std::sync::Arc;

const SECTOR_BYTES: u64 = 512;

/// Reads one log.
#[derive(Default)]
pub struct Blkparse {
    queued: bool,
    dispatched: u64,
    summary: bool,
}

/// Whether `line` begins as a row does.
pub fn is_blkparse(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next().unwrap_or("");
    let device = next().split_once(',');
    device.is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok())
        && next().parse::<u32>().is_ok()
        && next().parse::<u64>().is_ok()
        && next().parse::<f64>().is_ok()
        && next().parse::<u32>().is_ok()
        && (1..=2).contains(&next().len())
}

impl LineFormat for Blkparse {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn is_of_blocks(&self) -> bool {
        true
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        self.summary |= line.starts_with("CPU") || line.starts_with("Total");
        if self.summary {
            return Ok(None);
        }
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let field = |index| super::lines::field(line, &fields, index);
        let device = field(0)?;
        let (major, minor) = device
            .split_once(',')
            .ok_or_else(|| Bad::at(line, device, "not a device (MAJOR,MINOR)"))?;
        let (major, minor): (u32, u32) = (number(line, major)?, number(line, minor)?);
        let at_us = microseconds(line, field(3)?)?;
        let pid: u32 = number(line, field(4)?)?;
        match field(5)? {
            "Q" => self.queued = true,
            "D" | "C" => {
                self.dispatched += 1;
                return Ok(None);
            }
            _ => return Ok(None),
        }
        let kind = field(6)?;
        let process = line.split_once('[').map_or("", |(_, rest)| rest);
        let process = process.trim_end().trim_end_matches(']');
        let has_data = fields.get(8) == Some(&"+");
        let op = match kind {
            k if k.contains('D') => return Err(Bad::at(line, kind, "a discard: not replayed")),
            k if k.contains('R') && has_data => Op::FileRead,
            k if k.contains('W') && has_data => Op::FileWrite,
            k if k.contains('F') => Op::FileSync,
            _ => return Err(Bad::at(line, kind, "neither read, write nor flush")),
        };
        let (mut offset, mut length) = (0, 0);
        if op != Op::FileSync {
            let (sector, count): (u64, u64) = (number(line, field(7)?)?, number(line, field(9)?)?);
            let bytes = |sectors: u64| sectors.saturating_mul(SECTOR_BYTES);
            (offset, length) = (bytes(sector), bytes(count));
            super::check_end(op, offset, length).map_err(|why| Bad::at(line, fields[7], why))?;
        }
        Ok(Some(Entry {
            offset,
            length,
            thread: pid.to_string().into(),
            ..Entry::new(
                at_us,
                Arc::from(process),
                op,
                format!("blk-{major}-{minor}").into(),
            )
        }))
    }

    fn leftover(&mut self) -> Vec<Bad> {
        if self.queued || self.dispatched == 0 {
            return Vec::new();
        }
        vec![Bad {
            column: 1,
            kind: "no queued requests (Q): record with `blktrace -a queue`, or without -a",
            detail: format!("{} rows of D and C", self.dispatched),
        }]
    }
}

/// `SECONDS.NANOSECONDS`.
fn microseconds(line: &str, text: &str) -> Result<i64, Bad> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u32 = number(line, seconds)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Bad::at(line, text, "not a time in seconds"));
    }
    let digits = format!("{fraction:0<6}");
    let micros: i64 = number(line, &digits[..6])?;
    Ok(i64::from(seconds) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::read::lines::LineReader;
    use crate::read::{Reader, Unusable, detect};
    use proptest::prelude::*;
    use std::path::Path;

    const LOG: &str = "\
  8,0    3        1     0.000000000   697  Q   W 223490 + 8 [kjournald]
  8,0    3        2     0.000001829   697  G   W 223490 + 8 [kjournald]
  8,0    3        3     0.000020000   697  D   W 223490 + 8 [kjournald]
  8,0    3        0     0.000100000     0  m   N cfq697 a message, [of] [its] own
  8,16   1        4     1.500000999  4162  Q  RA 1000 + 256 [my app]
  8,0    3        5     1.600000000     0  C   W 223490 + 8 [0]
  8,0    0        6     2.000000000   700  Q FWS [jbd2/sda-8]
  8,0    0        7     2.000000000   700  Q  DS 5000 + 100 [fstrim]
  8,0    0        8     oops          700  Q   W 5000 + 1 [x]
CPU0 (8,0):
 Reads Queued:           1,      128KiB\t Writes Queued:           1,        4KiB
Throughput (R/W): 12KiB/s / 3KiB/s
";

    fn read(text: &str) -> (Vec<Entry>, Unusable) {
        let input = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        let mut reader = LineReader::new(input, Path::new("t.blk"), Blkparse::default());
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry() {
            all.push(entry.unwrap());
        }
        (all, reader.unusable().clone())
    }

    #[test]
    fn queued_requests_are_the_operations() {
        assert_eq!(detect(LOG.as_bytes()), Some(crate::read::Format::Blkparse));
        let (all, unusable) = read(LOG);
        let said: Vec<_> = { &all }
            .iter()
            .map(|e| {
                (
                    e.at_us, e.op, &*e.path, e.offset, e.length, &*e.client, &*e.thread,
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                (
                    0,
                    Op::FileWrite,
                    "blk-8-0",
                    223_490 * 512,
                    4096,
                    "kjournald",
                    "697"
                ),
                (
                    1_500_000,
                    Op::FileRead,
                    "blk-8-16",
                    512_000,
                    131_072,
                    "my app",
                    "4162"
                ),
                (
                    2_000_000,
                    Op::FileSync,
                    "blk-8-0",
                    0,
                    0,
                    "jbd2/sda-8",
                    "700"
                ),
            ]
        );
        assert_eq!(unusable.lines, 2);
        let examples = unusable.examples.join("\n");
        assert!(
            examples.contains("t.blk:8: column 47: a discard"),
            "{examples}"
        );
        assert!(
            examples.contains("t.blk:9: column 25: not a number"),
            "{examples}"
        );
    }

    #[test]
    fn a_log_without_queued_requests_says_so() {
        let (all, unusable) = read(&LOG.replace("  Q ", "  D ").replace(" Q FWS", " D FWS"));
        assert!(all.is_empty());
        assert!(
            unusable
                .examples
                .iter()
                .any(|e| e.contains("blktrace -a queue"))
        );
    }

    proptest! {
        #[test]
        fn hostile_lines_are_counted(row in 0..9_usize, at in 0..90_usize, with in "\\PC{0,6}") {
            let mut line = LOG.lines().nth(row).unwrap().to_string();
            let at = at.min(line.len());
            line.replace_range(at.., &with);
            let (all, unusable) = read(&line);
            prop_assert!(all.len() + unusable.lines as usize <= 1);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}") {
            let (all, unusable) = read(&format!("8,0 1 1 {text}"));
            prop_assert!(all.len() + unusable.lines as usize <= 2);
        }
    }
}
