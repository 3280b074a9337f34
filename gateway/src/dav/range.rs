//! Parses `Range`, `Content-Range` and `X-Update-Range`, and frames several ranges as `multipart/byteranges`.

use std::ops::Range;

/// Most ranges answered in one reply; a request for more gets the whole content (RFC 9110 section 14.2 allows it).
pub const RANGES_MAX: usize = 64;

/// What a `Range` header asks of content of a known length.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Selection {
    /// No usable `Range`: the whole content, 200.
    Whole,
    /// Non-empty ranges within the content, in the order asked: 206.
    Parts(Vec<Range<u64>>),
    /// Nothing of what was asked exists: 416.
    Unsatisfiable,
}

/// Reads a `Range` header against content of `len` bytes. Unknown units and malformed sets are ignored, as RFC 9110 asks.
pub fn select(header: &str, len: u64) -> Selection {
    let Some((unit, set)) = header.split_once('=') else {
        return Selection::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut parts = Vec::new();
    let mut asked = 0;
    for spec in set.split(',') {
        let spec = spec.trim();
        if spec.is_empty() {
            continue;
        }
        asked += 1;
        let Some((first, last)) = spec.split_once('-') else {
            return Selection::Whole;
        };
        let range = match (first.trim(), last.trim()) {
            ("", suffix) => match number(suffix) {
                Some(n) => len.saturating_sub(n)..len,
                None => return Selection::Whole,
            },
            (first, "") => match number(first) {
                Some(a) => a..len,
                None => return Selection::Whole,
            },
            (first, last) => match (number(first), number(last)) {
                (Some(a), Some(b)) if a <= b => a..b.saturating_add(1).min(len),
                _ => return Selection::Whole,
            },
        };
        if range.start < range.end {
            parts.push(range);
        }
    }
    let asked_bytes = parts
        .iter()
        .fold(0u64, |n, r| n.saturating_add(r.end - r.start));
    match (asked, parts.len()) {
        (0, _) => Selection::Whole,
        (_, 0) => Selection::Unsatisfiable,
        // Overlapping or numerous ranges cost more than the whole: answer with that instead.
        (_, n) if n > RANGES_MAX || (n > 1 && asked_bytes > len) => Selection::Whole,
        _ => Selection::Parts(parts),
    }
}

fn number(s: &str) -> Option<u64> {
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than u64 holds is a very large number, not a malformed one.
    Some(s.parse().unwrap_or(u64::MAX))
}

/// Where the body of a partial PUT or PATCH goes.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Update {
    /// From `start`; `len` is the exact number of bytes if the header tells it.
    At {
        /// First byte written.
        start: u64,
        /// Announced number of bytes.
        len: Option<u64>,
    },
    /// Replaces the last `n` bytes.
    Last(u64),
    /// After the end.
    Append,
}

/// Reads `Content-Range: bytes a-b/(total|*)`.
pub fn content_range(header: &str) -> Option<Update> {
    let rest = header.trim();
    let rest = rest
        .get(..5)
        .filter(|u| u.eq_ignore_ascii_case("bytes"))
        .and(rest.get(5..))?;
    let rest = rest.trim_start_matches([' ', '=', '\t']);
    let (range, total) = rest.split_once('/')?;
    let (a, b) = range.split_once('-')?;
    let (a, b) = (number(a.trim())?, number(b.trim())?);
    let total = match total.trim() {
        "*" => u64::MAX,
        t => number(t)?,
    };
    (a <= b && b < total && b < u64::MAX).then(|| Update::At {
        start: a,
        len: Some(b - a + 1),
    })
}

/// Reads `X-Update-Range: append | bytes=a-b | bytes=a- | bytes=-n`.
pub fn update_range(header: &str) -> Option<Update> {
    let header = header.trim();
    if header.eq_ignore_ascii_case("append") {
        return Some(Update::Append);
    }
    let (unit, range) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (a, b) = range.split_once('-')?;
    match (a.trim(), b.trim()) {
        ("", n) => number(n).map(Update::Last),
        (a, "") => number(a).map(|start| Update::At { start, len: None }),
        (a, b) => {
            let (a, b) = (number(a)?, number(b)?);
            (a <= b && b < u64::MAX).then(|| Update::At {
                start: a,
                len: Some(b - a + 1),
            })
        }
    }
}

/// The framing of a `multipart/byteranges` body.
#[derive(Debug, Clone)]
pub struct Multipart {
    boundary: String,
    content_type: String,
    len: u64,
}

impl Multipart {
    /// A framing for parts of content of `len` bytes.
    pub fn new(content_type: &str, len: u64) -> Multipart {
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        Multipart {
            boundary,
            content_type: content_type.into(),
            len,
        }
    }

    /// The reply's `Content-Type`.
    pub fn header(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What stands before a part's bytes.
    pub fn head(&self, part: &Range<u64>) -> String {
        format!(
            "\r\n--{}\r\nContent-Type: {}\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            self.boundary,
            self.content_type,
            part.start,
            part.end - 1,
            self.len
        )
    }

    /// What stands after the last part.
    pub fn tail(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// The body's exact length.
    pub fn body_len(&self, parts: &[Range<u64>]) -> u64 {
        let parts: u64 = parts
            .iter()
            .map(|p| self.head(p).len() as u64 + (p.end - p.start))
            .sum();
        parts + self.tail().len() as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let parts = |v: &[(u64, u64)]| Selection::Parts(v.iter().map(|&(a, b)| a..b).collect());
        for (header, len, want) in [
            ("bytes=0-4", 10, parts(&[(0, 5)])),
            ("Bytes = 0-4", 10, parts(&[(0, 5)])),
            ("bytes=5-", 10, parts(&[(5, 10)])),
            ("bytes=-3", 10, parts(&[(7, 10)])),
            ("bytes=-30", 10, parts(&[(0, 10)])),
            ("bytes=0-99999999999999999999999", 10, parts(&[(0, 10)])),
            ("bytes=0-0, 9-9", 10, parts(&[(0, 1), (9, 10)])),
            ("bytes=10-", 10, Selection::Unsatisfiable),
            ("bytes=-0", 10, Selection::Unsatisfiable),
            ("bytes=0-", 0, Selection::Unsatisfiable),
            ("bytes=10-12,3-4", 10, parts(&[(3, 5)])),
            ("bytes=4-3", 10, Selection::Whole),
            ("bytes=a-b", 10, Selection::Whole),
            ("bytes=", 10, Selection::Whole),
            ("lines=0-4", 10, Selection::Whole),
            ("bytes=0-9,0-9", 10, Selection::Whole),
        ] {
            assert_eq!(select(header, len), want, "{header} of {len}");
        }
        let many = format!("bytes={}", "0-0,".repeat(RANGES_MAX + 1));
        assert_eq!(select(&many, 1 << 20), Selection::Whole);
    }

    #[test]
    fn partial_writes_are_read_exactly() {
        let at = |start, len| Some(Update::At { start, len });
        assert_eq!(content_range("bytes 0-4/5"), at(0, Some(5)));
        assert_eq!(content_range("bytes 3-3/*"), at(3, Some(1)));
        for bad in [
            "bytes 0-4/4",
            "bytes 4-3/*",
            "bytes */5",
            "bytes 0-4",
            "lines 0-4/5",
            "",
            "bytes",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        assert_eq!(update_range("append"), Some(Update::Append));
        assert_eq!(update_range("bytes=2-5"), at(2, Some(4)));
        assert_eq!(update_range("bytes=2-"), at(2, None));
        assert_eq!(update_range("bytes=-7"), Some(Update::Last(7)));
        for bad in ["bytes=5-2", "bytes=-", "5-6", "chars=1-2", ""] {
            assert_eq!(update_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn selected_parts_lie_within(header in "bytes=([0-9]{0,3}-[0-9]{0,3},?){0,5}", len in 0u64..500) {
            if let Selection::Parts(parts) = select(&header, len) {
                prop_assert!(!parts.is_empty());
                for p in parts { prop_assert!(p.start < p.end && p.end <= len); }
            }
        }

        #[test]
        fn no_header_panics(s in "\\PC{0,60}", len: u64) {
            let _ = select(&s, len);
            let _ = content_range(&s);
            let _ = update_range(&s);
        }
    }
}
