//! Logs of `rclone serve webdav -v` or `-vv`. Real lines (1.60):
//! `2026/11/24 12:01:34 INFO  : /a.bin: GET from 127.0.0.1:55742`, and with `-vv`, before it,
//! `2026/11/24 12:01:34 DEBUG : a.bin: ChunkedReader.Read at 1512 length 489 chunkOffset 1000 chunkSize 134217728`.
//!
//! Requests are logged when they end, whole seconds, without status. How much was read only `-vv` tells, how much was
//! written nothing: uploads are counted, not guessed. Requests for one path at one time cannot be told apart.

use super::access::days;
use super::lines::{Bad, LineFormat};
use crate::trace::{Entry, Level, Op, Outcome, normal_path};
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of a path whose request has not ended.
#[derive(Default)]
struct Open {
    /// Where reading began and how far it came.
    read: Option<(u64, u64)>,
    missing: bool,
}

/// Reads one log.
#[derive(Default)]
pub struct Rclone {
    first: Option<i64>,
    open: HashMap<Arc<str>, Open>,
    /// Where files went that were moved or copied by the remote itself.
    moved: HashMap<Arc<str>, Arc<str>>,
}

/// Splits a line into microseconds since 1970 (of the log's own clock), level and the rest.
fn parts(line: &str) -> Option<(i64, &str, &str)> {
    let (date, rest) = line.split_once(' ')?;
    let (clock, rest) = rest.split_once(' ')?;
    let numbers = |text: &str, by| -> Option<Vec<f64>> {
        text.split(by)
            .map(|n| n.parse().ok().filter(|n| (0.0..=9999.0).contains(n)))
            .collect()
    };
    let (date, clock) = (numbers(date, '/')?, numbers(clock, ':')?);
    let (&[year, month, day], &[hour, minute, second]) = (&date[..], &clock[..]) else {
        return None;
    };
    if !(1.0..=12.0).contains(&month) {
        return None;
    }
    let seconds = ((days(year as i64, month as i64, day as i64) * 24) as f64 + hour) * 3600.0
        + minute * 60.0
        + second;
    let (level, rest) = rest.split_once(':')?;
    let level = level.trim();
    let known = ["DEBUG", "INFO", "NOTICE", "ERROR"].contains(&level);
    known.then_some(((seconds * 1e6) as i64, level, rest.trim_start()))
}

/// Whether this looks like a line of such a log.
pub fn is_rclone(line: &str) -> bool {
    parts(line).is_some()
}

impl Rclone {
    /// Notes what a line says about what is going on at a path.
    fn note(&mut self, path: &str, what: &str) {
        let open = self.open.entry(normal_path(path)).or_default();
        if what.starts_with("OpenFile: flags=") {
            *open = Open::default();
        } else if what.starts_with(">OpenFile: fd=<nil>") {
            open.missing = what.contains("not exist");
        } else if let Some(rest) = what.strip_prefix("ChunkedReader.RangeSeek from ") {
            let to = rest.split(' ').nth(2).and_then(|n| n.parse().ok());
            open.read = to.map(|to| (to, to)).or(open.read);
        } else if let Some(rest) = what.strip_prefix("ChunkedReader.Read at ") {
            let words: Vec<&str> = rest.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|n: &&str| n.parse::<u64>().ok());
            let (from, end) = open.read.unwrap_or((0, 0));
            // Right after a seek the place is -1.
            let end = number(0)
                .unwrap_or(from)
                .saturating_add(number(2).unwrap_or(0))
                .max(end);
            open.read = Some((from, end));
        } else {
            return;
        }
        // Bounded, whatever the log holds.
        if self.open.len() > 100_000 {
            self.open.clear();
        }
    }

    fn request(
        &mut self,
        line: &str,
        at: i64,
        path: &str,
        what: &str,
    ) -> Result<Option<Entry>, Bad> {
        let Some((method, client)) = what.split_once(" from ") else {
            return Ok(None);
        };
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
            return Ok(None);
        }
        let path = normal_path(path);
        let open = self.open.remove(&path).unwrap_or_default();
        let op = match method {
            "PROPFIND" => Op::DavStat,
            method => Op::from_name(method)
                .ok_or_else(|| Bad::at(line, method, "method without counterpart"))?,
        };
        let refused = |kind| Err(Bad::at(line, method, kind));
        let mut entry = Entry::new(
            at,
            client.rsplit_once(':').map_or(client, |c| c.0).into(),
            op,
            path,
        );
        match op {
            Op::DavGet if open.missing => entry.outcome = Outcome::Status(404),
            Op::DavGet => match open.read {
                Some((from, end)) => {
                    (entry.offset, entry.length) = (from, end.saturating_sub(from));
                    entry.ranged = from > 0;
                    super::check_end(op, from, entry.length)
                        .map_err(|why| Bad::at(line, line, why))?;
                }
                None => return refused("GET (how much was read is in a log made with -vv)"),
            },
            Op::DavPut | Op::DavPatch => return refused("upload (no size in the log)"),
            Op::DavMove | Op::DavCopy => match self.moved.remove(&entry.path) {
                Some(to) => entry.path2 = Some(to),
                None => return refused("MOVE or COPY (no destination in the log)"),
            },
            _ => {}
        }
        Ok(Some(entry))
    }
}

impl LineFormat for Rclone {
    fn level(&self) -> Level {
        Level::WebdavRequests
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        let Some((at, level, rest)) = parts(line) else {
            return Err(Bad::at(line, line, "not a line of rclone's log"));
        };
        let first = *self.first.get_or_insert(at);
        // A name may hold `: ` itself: what is said stands last.
        let Some((path, what)) = rest.rsplit_once(": ") else {
            return Ok(None);
        };
        if level == "DEBUG" {
            // These hold `: ` in what they say.
            let split = rest.split_once(": OpenFile: ").map(|(path, _)| path);
            let failed = rest.split_once(": >OpenFile: ").map(|(path, _)| path);
            match split.or(failed) {
                Some(path) => self.note(path, &rest[path.len() + 2..]),
                None => self.note(path, what),
            }
            return Ok(None);
        }
        for done in ["Moved (server-side) to", "Copied (server-side copy) to"] {
            let from = path
                .strip_suffix(done)
                .and_then(|from| from.strip_suffix(": "));
            if let Some(from) = from {
                self.moved.insert(normal_path(from), normal_path(what));
                return Ok(None);
            }
        }
        self.request(line, at - first, path, what)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOG: &str = "\
2026/11/24 12:01:33 NOTICE: Local file system at /srv: WebDav Server started on http://127.0.0.1:8080/
2026/11/24 12:01:34 DEBUG : /a.bin: OpenFile: flags=O_RDWR|O_CREATE|O_TRUNC, perm=-rw-rw-rw-
2026/11/24 12:01:34 INFO  : /a.bin: PUT from 127.0.0.1:55710
2026/11/24 12:01:34 DEBUG : /a.bin: OpenFile: flags=O_RDONLY, perm=----------
2026/11/24 12:01:34 DEBUG : /a.bin: >OpenFile: fd=a.bin (r), err=<nil>
2026/11/24 12:01:34 DEBUG : a.bin: ChunkedReader.Read at 0 length 512 chunkOffset 0 chunkSize 134217728
2026/11/24 12:01:34 DEBUG : a.bin: ChunkedReader.RangeSeek from 512 to 1000 length -1
2026/11/24 12:01:34 DEBUG : a.bin: ChunkedReader.Read at -1 length 512 chunkOffset 1000 chunkSize 134217728
2026/11/24 12:01:34 DEBUG : a.bin: ChunkedReader.Read at 1512 length 489 chunkOffset 1000 chunkSize 134217728
2026/11/24 12:01:35 INFO  : /a.bin: GET from 127.0.0.1:55742
2026/11/24 12:01:36 INFO  : /a: b: PROPFIND from 127.0.0.1:55744
2026/11/24 12:01:36 INFO  : a.bin: Moved (server-side) to: d/b.bin
2026/11/24 12:01:36 INFO  : /a.bin: MOVE from 127.0.0.1:55772
2026/11/24 12:01:36 INFO  : /c: MOVE from 127.0.0.1:55772
2026/11/24 12:01:36 DEBUG : /none: >OpenFile: fd=<nil>, err=file does not exist
2026/11/24 12:01:36 INFO  : /none: GET from 127.0.0.1:55800
2026/11/24 12:01:37 INFO  : /late: GET from [::1]:55800
2026/11/24 12:01:38 INFO  : /d/b.bin: DELETE from [::1]:55788
";

    #[test]
    fn requests_are_read_with_what_was_logged_before_them() {
        let mut format = Rclone::default();
        let (mut entries, mut refused) = (Vec::new(), Vec::new());
        for line in LOG.lines() {
            assert!(is_rclone(line), "{line}");
            match format.line(line) {
                Ok(entry) => entries.extend(entry),
                Err(bad) => refused.push(bad.kind.split(' ').next().unwrap()),
            }
        }
        let seen: Vec<_> = entries
            .iter()
            .map(|e| {
                (
                    e.at_us / 1_000_000,
                    e.op,
                    &*e.path,
                    e.path2.as_deref(),
                    e.offset,
                    e.length,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (2, Op::DavGet, "a.bin", None, 1000, 1001),
                (3, Op::DavStat, "a: b", None, 0, 0),
                (3, Op::DavMove, "a.bin", Some("d/b.bin"), 0, 0),
                (3, Op::DavGet, "none", None, 0, 0),
                (5, Op::DavDelete, "d/b.bin", None, 0, 0),
            ]
        );
        assert_eq!(refused, ["upload", "MOVE", "GET"]);
        assert_eq!(entries[3].outcome, Outcome::Status(404));
        assert_eq!(
            (&*entries[0].client, &*entries[4].client),
            ("127.0.0.1", "[::1]")
        );
        assert!(
            !is_rclone("ts_us,client,op,path")
                && !is_rclone("2026/13/24 12:01:38 INFO : /x: GET from y")
        );
    }
}
