//! Access logs of Apache and nginx, common or combined. Real line:
//! `127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a%20b HTTP/1.0" 200 2326 "-" "davfs2/1.6.1"`.
//!
//! Such a log holds neither sizes of uploads, nor offsets of ranges, nor destinations: requests that need them are
//! counted, not guessed.

use super::lines::{Bad, LineFormat, field, number};
use crate::trace::{Entry, Level, Op, Outcome, normal_path};

/// Reads one log.
#[derive(Default)]
pub struct Access {
    first: Option<i64>,
}

impl LineFormat for Access {
    fn level(&self) -> Level {
        Level::WebdavRequests
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        let no_log = || Bad::at(line, line, "not a line of an access log");
        let (who, rest) = line.split_once(" [").ok_or_else(no_log)?;
        let (date, rest) = rest.split_once("] \"").ok_or_else(no_log)?;
        let (request, rest) = rest.split_once("\" ").ok_or_else(no_log)?;
        let seconds = seconds(date).ok_or_else(|| Bad::at(line, date, "not a date"))?;
        let words: Vec<&str> = request.split(' ').collect();
        let method = field(line, &words, 0)?;
        let op = match method {
            "PROPFIND" => Op::DavStat,
            method => Op::from_name(method)
                .filter(|op| op.name().starts_with(char::is_uppercase))
                .ok_or_else(|| Bad::at(line, method, "method without counterpart"))?,
        };
        let after: Vec<&str> = rest.split(' ').collect();
        let status: u16 = number(line, field(line, &after, 0)?)?;
        let sent = field(line, &after, 1)?;
        let missing = match op {
            Op::DavMove | Op::DavCopy => Some("MOVE or COPY (no destination in the log)"),
            Op::DavPut | Op::DavPatch if status < 400 => Some("upload (no size in the log)"),
            Op::DavGet if status == 206 => Some("partial GET (no offset in the log)"),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(Bad::at(line, method, missing));
        }
        let length = match sent {
            "-" => 0,
            sent => number(line, sent)?,
        };
        super::check_end(op, 0, length).map_err(|why| Bad::at(line, sent, why))?;
        let target = field(line, &words, 1)?;
        let path = target.split('?').next().unwrap_or_default();
        let path = percent_encoding::percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Bad::at(line, target, "name that is not UTF-8"))?;
        let first = *self.first.get_or_insert(seconds);
        Ok(Some(Entry {
            // What other methods send back is no content.
            length: if op == Op::DavGet && status == 200 {
                length
            } else {
                0
            },
            outcome: Outcome::Status(status),
            ..Entry::new(
                (seconds - first) * 1_000_000,
                who.split(' ').next().unwrap_or_default().into(),
                op,
                normal_path(&path),
            )
        }))
    }
}

/// Whether this looks like a line of such a log.
pub fn is_access(line: &str) -> bool {
    let date = line
        .split_once(" [")
        .and_then(|(_, rest)| rest.split_once("] \""));
    date.is_some_and(|(date, _)| seconds(date).is_some())
}

/// Seconds since 1970 of `10/Oct/2000:13:55:36 -0700`.
fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (time, zone) = date.split_once(' ')?;
    let parts: Vec<&str> = time.split(['/', ':']).collect();
    let &[day, month, year, hour, minute, second] = parts.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let small = |text: &str, most: i64| text.parse().ok().filter(|n| (0..=most).contains(n));
    let (day, year) = (small(day, 31)?, small(year, 9999)?);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let shift = zone.get(1..5).and_then(|z| small(z, 2400))?;
    let days = days(year, month, day);
    let clock = (small(hour, 23)? * 60 + small(minute, 59)?) * 60 + small(second, 60)?;
    Some(days * 86_400 + clock - sign * (shift / 100 * 3600 + shift % 100 * 60))
}

/// Days since 1970 of a date of the civil calendar; years begin in March here.
pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
        - 719_469
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dates_count_from_1970_in_utc() {
        assert_eq!(seconds("10/Oct/2000:13:55:36 -0700"), Some(971_211_336));
        assert_eq!(seconds("01/Jan/1970:01:00:00 +0100"), Some(0));
        assert_eq!(seconds("29/Feb/2024:00:00:00 +0000"), Some(1_709_164_800));
        assert_eq!(seconds("10/Foo/2000:13:55:36 -0700"), None);
    }

    #[test]
    fn what_a_log_does_not_hold_is_refused_by_name() {
        let line = |rest: &str| {
            let line =
                format!("10.0.0.7 - bob [10/Oct/2000:13:55:36 -0700] {rest} \"-\" \"davfs2\"");
            assert!(is_access(&line));
            Access::default().line(&line)
        };
        let get = line(r#""GET /a%20b/c?x=1 HTTP/1.1" 200 2326"#)
            .unwrap()
            .unwrap();
        assert_eq!(
            (&*get.path, &*get.client, get.length),
            ("a b/c", "10.0.0.7", 2326)
        );
        let stat = line(r#""PROPFIND / HTTP/1.1" 207 900"#).unwrap().unwrap();
        assert_eq!(
            (stat.op, stat.length, stat.outcome),
            (Op::DavStat, 0, Outcome::Status(207))
        );
        for (request, why) in [
            (r#""PUT /a HTTP/1.1" 201 -"#, "upload"),
            (r#""MOVE /a HTTP/1.1" 201 -"#, "MOVE or COPY"),
            (r#""GET /a HTTP/1.1" 206 10"#, "partial GET"),
            (r#""POST /a HTTP/1.1" 200 10"#, "method"),
            (r#""GET /a HTTP/1.1" x 10"#, "not a number"),
        ] {
            assert!(
                line(request).unwrap_err().kind.starts_with(why),
                "{request}"
            );
        }
    }
}
