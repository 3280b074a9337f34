//! The parsers of outside bytes, for fuzzers: one function per target, which panics when something is wrong.
//!
//! `gateway/fuzz/` runs them under libFuzzer; the suite runs each on its seeds and on a fixed number of changed ones
//! (`tests/fuzz.rs`). Where a format has checksums, a target is given the bytes as they are and, again, with a checksum
//! that is right, so that what lies behind it is reached.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use tiering::FileId;
use tiering::trace::{FrameWriter, Op, Record as TraceRecord};

use crate::config::{Config, Raw};
use crate::dav::ifheader::{Answer, IfHeader};
use crate::dav::range::{self, Selection};
use crate::dav::uri::{self, Ours};
use crate::dav::xml::Element;
use crate::volume::ResourcePath;
use crate::volume::log::record;

/// One parser of outside bytes.
pub struct Target {
    /// Its name, also that of the libFuzzer target.
    pub name: &'static str,
    /// Runs it; panics when something is wrong.
    pub run: fn(&[u8]),
    /// Inputs that it accepts, to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of this crate.
pub const TARGETS: &[Target] = &[
    Target {
        name: "if_header",
        run: if_header,
        seeds: if_header_seeds,
    },
    Target {
        name: "ranges",
        run: ranges,
        seeds: range_seeds,
    },
    Target {
        name: "uris",
        run: uris,
        seeds: uri_seeds,
    },
    Target {
        name: "xml_body",
        run: xml_body,
        seeds: xml_seeds,
    },
    Target {
        name: "users_file",
        run: users_file,
        seeds: users_seeds,
    },
    Target {
        name: "config_file",
        run: config_file,
        seeds: config_seeds,
    },
    Target {
        name: "intent_log",
        run: intent_log,
        seeds: intent_log_seeds,
    },
    Target {
        name: "live_trace",
        run: live_trace,
        seeds: live_trace_seeds,
    },
    Target {
        name: "lock_journal",
        run: lock_journal,
        seeds: lock_journal_seeds,
    },
];

fn text(data: &[u8]) -> &str {
    match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&data[..e.valid_up_to()]).unwrap_or_default(),
    }
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// The `If` header.
pub fn if_header(data: &[u8]) {
    let Ok(header) = IfHeader::parse(text(data)) else {
        return;
    };
    assert!(!header.lists.is_empty());
    assert!(header.lists.iter().all(|l| !l.conditions.is_empty()));
    let tokens = header.tokens().count();
    for answer in [Answer::Yes, Answer::No, Answer::Stale] {
        let mut asked = 0;
        header.evaluate(|_, _| {
            asked += 1;
            answer
        });
        assert!(asked <= data.len() && tokens <= data.len());
    }
}

fn if_header_seeds() -> Vec<Vec<u8>> {
    bytes(&[
        "(<urn:uuid:1> [\"etag\"]) (Not <DAV:no-lock>)",
        "<http://h/a> (<urn:uuid:1>) <http://h/b> ([W/\"x\"] Not [\"y\"])",
        "</a%20b> (<opaquelocktoken:f81d4fae>)",
    ])
}

/// `Range`, `Content-Range` and `X-Update-Range`.
pub fn ranges(data: &[u8]) {
    let header = text(data);
    for len in [0, 1, 1000, u64::MAX] {
        if let Selection::Parts(parts) = range::select(header, len) {
            assert!(!parts.is_empty());
            assert!(parts.iter().all(|p| p.start < p.end && p.end <= len));
        }
    }
    let _ = range::content_range(header);
    let _ = range::update_range(header);
}

fn range_seeds() -> Vec<Vec<u8>> {
    bytes(&[
        "bytes=0-0,5-,-7",
        "bytes=0-18446744073709551615",
        "bytes 0-9/10",
        "bytes 5-9/*",
        "append",
        "bytes=-5",
    ])
}

/// Request paths and `Destination`.
pub fn uris(data: &[u8]) {
    let raw = text(data);
    for root in ["/", "/home/pi"] {
        let Ok(root) = ResourcePath::parse(root) else {
            return;
        };
        if let Ok(target) = uri::target(raw, &root) {
            // Never above the user's own root, and the same after a round trip.
            assert!(target.path == root || target.path.to_string().starts_with(&root.to_string()));
            let href = uri::href(&target.path, &root, target.slash);
            let again = uri::target(&href, &root).map(|t| t.path);
            assert_eq!(again.as_ref(), Ok(&target.path), "{raw:?} {href:?}");
        }
        let Ok(value) = http::HeaderValue::from_bytes(data) else {
            continue;
        };
        let mut headers = HeaderMap::new();
        headers.insert("destination", value);
        let public = [Uri::from_static("https://public.example/base")];
        let ours = Ours {
            authority: Some("host.example:80"),
            public: &public,
        };
        if let Ok(target) = uri::destination(&headers, &ours, &root) {
            assert!(target.path == root || target.path.to_string().starts_with(&root.to_string()));
        }
    }
}

fn uri_seeds() -> Vec<Vec<u8>> {
    bytes(&[
        "/a/b%20c/%C3%BC/",
        "/a/./../b//c",
        "http://host.example:80/x?query#f",
        "https://public.example/base/y",
        "*",
        "/%2e%2e/%00",
    ])
}

/// XML bodies.
pub fn xml_body(data: &[u8]) {
    let Ok(element) = Element::parse(data) else {
        return;
    };
    // What is stored of a dead property is read back when it is asked for.
    let fragment = element.to_fragment();
    assert!(Element::parse(fragment.as_bytes()).is_ok(), "{fragment}");
}

fn xml_seeds() -> Vec<Vec<u8>> {
    bytes(&[
        "<?xml version=\"1.0\"?><D:propfind xmlns:D=\"DAV:\"><D:prop><D:getetag/><x xmlns=\"urn:x\"/></D:prop></D:propfind>",
        "<propertyupdate xmlns=\"DAV:\" xml:lang=\"de\"><set><prop><a b=\"&lt;&#x41;\">t<![CDATA[<]]></a></prop></set></propertyupdate>",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
        "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><owner><!-- c --><href>x</href></owner></lockinfo>",
    ])
}

/// The file of users.
pub fn users_file(data: &[u8]) {
    let _ = crate::auth::fuzz_users(text(data));
}

fn users_seeds() -> Vec<Vec<u8>> {
    bytes(&[
        "# devices\npi:$2y$04$abcdefghijklmnopqrstuuQ1:root=/pi:ro\n\nmo:$2b$10$x:rw\n",
        "a:$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Ng:root=/x y\n",
    ])
}

/// The configuration file.
pub fn config_file(data: &[u8]) {
    let mut raw = Raw::default();
    raw.file(Path::new("fuzz.toml"), text(data));
    if Config::check(&raw).is_ok() {
        let mut again = Raw::default();
        again.file(Path::new("fuzz.toml"), &raw.render());
        assert!(Config::check(&again).is_ok(), "{}", raw.render());
    }
}

fn config_seeds() -> Vec<Vec<u8>> {
    bytes(&[
        "root = \"/srv\"\nobject_size = \"1MiB\"\nmax_dirty_age = \"5m\"\npublic_base_url = [\"https://a/b\"]\n",
        "quota = 1024\ntrace = false\nlisten = \"[::1]:80\"\nhigh_watermark = 0.5\nlow_watermark = 0.2\n",
    ])
}

/// Segments of the intent log.
pub fn intent_log(data: &[u8]) {
    for (number, record) in record::parse_segment(Bytes::copy_from_slice(data)).unwrap_or_default()
    {
        let mut out = record::segment_header(number, 1).to_vec();
        record::frame(number, &record, 1, &mut out);
        assert_eq!(
            record::parse_segment(out.into()).unwrap_or_default(),
            [(number, record)]
        );
    }
    record::fuzz_payload(data);
}

fn intent_log_seeds() -> Vec<Vec<u8>> {
    record::fuzz_seeds()
}

/// Live segments of the trace.
pub fn live_trace(data: &[u8]) {
    let read = |bytes: &[u8]| {
        if let Ok(rows) = tiering::trace::read_live(bytes) {
            // Ends, and does not go on after damage.
            assert!(rows.count() <= bytes.len());
        }
    };
    read(data);
    let mut whole = tiering::trace::header(0);
    whole.extend_from_slice(&(data.len() as u32).to_le_bytes());
    whole.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    whole.extend_from_slice(data);
    read(&whole);
}

fn live_trace_seeds() -> Vec<Vec<u8>> {
    let mut frame = FrameWriter::default();
    frame.path(1, "/a");
    frame.client(1, "10.0.0.1");
    for op in [Op::Get, Op::Promote, Op::Other] {
        let of = TraceRecord::new(op, 5);
        frame.record(&TraceRecord {
            path: 1,
            client: 1,
            file: FileId(7),
            ..of
        });
    }
    let mut out = tiering::trace::header(1);
    let head = out.len() + 8;
    frame.finish(&mut out);
    // As a segment, and the payload alone.
    vec![out.clone(), out[head..].to_vec()]
}

/// The lock journal.
pub fn lock_journal(data: &[u8]) {
    let _ = crate::dav::locks::fuzz_journal(data);
}

fn lock_journal_seeds() -> Vec<Vec<u8>> {
    crate::dav::locks::fuzz_seeds()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Seeds that are refused at once would lead nowhere.
    #[test]
    fn seeds_are_accepted() {
        for seed in if_header_seeds() {
            IfHeader::parse(text(&seed)).unwrap();
        }
        for seed in users_seeds() {
            assert_ne!(crate::auth::fuzz_users(text(&seed)), 0);
        }
        for seed in config_seeds() {
            let mut raw = Raw::default();
            raw.file(Path::new("x"), text(&seed));
            Config::check(&raw).unwrap();
        }
        let accepted = |s: &Vec<u8>| Element::parse(s).is_ok();
        assert_eq!(xml_seeds().iter().filter(|s| accepted(s)).count(), 3);
        let segment = intent_log_seeds().remove(0);
        assert_eq!(
            record::parse_segment(segment.into())
                .unwrap_or_default()
                .len(),
            4
        );
        let segment = live_trace_seeds().remove(0);
        let rows = tiering::trace::read_live(&segment[..]).unwrap();
        assert_eq!(rows.filter(Result::is_ok).count(), 3);
        let journals = lock_journal_seeds();
        assert!(
            journals
                .iter()
                .all(|s| crate::dav::locks::fuzz_journal(s) == 1)
        );
    }
}
