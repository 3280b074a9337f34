//! Times as HTTP and WebDAV write them.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second before the year 10000, which neither format can tell.
const LATEST_S: u64 = 253_402_300_799;

/// Seconds since 1970, as far as both formats can tell them: files may be older.
fn seconds(t: SystemTime) -> u64 {
    let since = t.duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs()).min(LATEST_S)
}

/// `Sat, 28 Nov 2026 19:24:36 GMT` (RFC 9110 section 5.6.7); the nearest that can be told for files from before 1970.
pub fn http_date(t: SystemTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds(t)))
}

/// `1996-12-19T16:39:57Z` (RFC 3339); the nearest that can be told for files from before 1970.
pub fn rfc3339(t: SystemTime) -> String {
    let s = seconds(t);
    let (days, rest) = (s / 86_400, s % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days, for days since 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    let mut out = String::with_capacity(20);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z");
    out
}

/// Tells dates, and remembers the last: the members of a collection have often come in the same second, and so have requests.
pub struct Dates {
    render: fn(SystemTime) -> String,
    /// The second and its date, once there was one.
    last: RefCell<Option<(u64, String)>>,
}

impl Dates {
    /// Tells what `render` makes of a time.
    pub const fn new(render: fn(SystemTime) -> String) -> Dates {
        let last = RefCell::new(None);
        Dates { render, last }
    }

    /// Hands the date of a time to `hear`.
    pub fn tell(&self, t: SystemTime, hear: impl FnOnce(&str)) {
        let second = seconds(t);
        let mut last = self.last.borrow_mut();
        let known = last.take().filter(|(of, _)| *of == second);
        let (_, date) = last.insert(known.unwrap_or_else(|| (second, (self.render)(t))));
        hear(date);
    }

    /// Writes the date of a time to `out`.
    pub fn push(&self, out: &mut String, t: SystemTime) {
        self.tell(t, |date| out.push_str(date));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        let dates = Dates::new(rfc3339);
        for (s, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (851_013_597, "1996-12-19T16:39:57Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LATEST_S, "9999-12-31T23:59:59Z"),
            (LATEST_S + 1, "9999-12-31T23:59:59Z"),
        ] {
            let t = UNIX_EPOCH + Duration::from_secs(s);
            let mut out = String::new();
            dates.push(&mut out, t + Duration::from_millis(999));
            dates.push(&mut out, t);
            assert_eq!(out, [want, want].concat());
        }
    }

    #[test]
    fn times_that_cannot_be_told_are_the_nearest_that_can() {
        let day = Duration::from_secs(86_400);
        let first = "Thu, 01 Jan 1970 00:00:00 GMT";
        assert_eq!(http_date(UNIX_EPOCH - 4000 * day), first);
        assert_eq!(http_date(UNIX_EPOCH), first);
        let last = "Fri, 31 Dec 9999 23:59:59 GMT";
        assert_eq!(http_date(UNIX_EPOCH + 4_000_000 * day), last);
    }
}
