//! What other servers get wrong, continued: quota, names, conditions, and locks on connections of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Gateway, Reply};

const LOCK: &str = "<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope>\
                    <D:locktype><D:write/></D:locktype><D:owner>test</D:owner></D:lockinfo>";

fn propfind(gateway: &Gateway, path: &str, props: &str) -> Reply {
    let body = format!("<D:propfind xmlns:D=\"DAV:\"><D:prop>{props}</D:prop></D:propfind>");
    gateway.request("PROPFIND", path, &[("Depth", "1")], body.as_bytes())
}

/// The text of the first element of this name, whatever its prefix.
fn value(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!(":{name}>"))?;
    Some(rest.split_once("</")?.0.to_string())
}

fn number(xml: &str, name: &str) -> u64 {
    let text = value(xml, name).unwrap_or_else(|| panic!("no {name} in {xml}"));
    text.parse().unwrap_or_else(|_| panic!("{name}: {text}"))
}

#[test]
fn df_sees_the_configured_quota_and_what_is_used_of_it() {
    const ASK: &str = "<D:quota-available-bytes/><D:quota-used-bytes/>";
    let quota: u64 = 8 << 20;
    let gateway = Gateway::start(&["--quota", "8MiB"]);
    let before = propfind(&gateway, "/", ASK);
    assert_eq!(before.status, 207);
    assert_eq!(number(&before.text(), "quota-available-bytes"), quota);
    assert_eq!(number(&before.text(), "quota-used-bytes"), 0);
    gateway.put("/f", &vec![1; 3 << 20]);
    let after = propfind(&gateway, "/", ASK).text();
    let used = number(&after, "quota-used-bytes");
    assert!((3 << 20..4 << 20).contains(&used), "{used}");
    assert_eq!(number(&after, "quota-available-bytes"), quota - used);
}

#[test]
fn df_sees_the_file_system_without_a_quota() {
    const ASK: &str = "<D:quota-available-bytes/><D:quota-used-bytes/>";
    let gateway = Gateway::start(&[]);
    let fs = rustix::fs::statvfs(gateway.root()).unwrap();
    let seen = number(
        &propfind(&gateway, "/", ASK).text(),
        "quota-available-bytes",
    );
    let real = fs.f_bavail * fs.f_frsize;
    // Others write to this file system, too.
    assert!(
        seen > 0 && seen.abs_diff(real) < (1 << 30) + real / 10,
        "{seen} {real}"
    );
}

#[test]
fn names_with_control_characters_are_well_formed_xml() {
    let gateway = Gateway::start(&[]);
    // Made beside the gateway, as a careless program on the same machine would.
    for name in [
        "bell\u{7}",
        "esc\u{1b}[1m",
        "tab\t",
        "line\nbreak",
        "del\u{7f}",
        "<&>\"'",
    ] {
        std::fs::write(gateway.root().join(name), name).unwrap();
    }
    let props = "<D:displayname/><D:getetag/><D:getcontentlength/>";
    let listing = propfind(&gateway, "/", props);
    assert_eq!(listing.status, 207);
    let text = String::from_utf8(listing.body).unwrap();
    let allowed = |c: char| c >= ' ' || matches!(c, '\t' | '\n' | '\r');
    assert!(text.chars().all(allowed), "{text:?}");
    let mut names = Vec::new();
    for event in xml::EventReader::from_str(&text) {
        // An error is XML that is not well-formed.
        if let xml::reader::XmlEvent::Characters(href) = event.unwrap()
            && let Some(name) = href.strip_prefix('/')
            && !name.is_empty()
        {
            names.push(format!("/{name}"));
        }
    }
    assert_eq!(names.len(), 6, "{text}");
    for href in names {
        let reply = gateway.get(&href);
        let name = percent_encoding::percent_decode_str(&href[1..]).decode_utf8();
        assert_eq!(
            (reply.status, reply.text()),
            (200, name.unwrap().into_owned())
        );
    }
}

#[test]
fn every_lock_may_come_on_a_connection_of_its_own_and_the_administrator_can_break_it() {
    let gateway = Gateway::start(&[]);
    let head = [("Depth", "0"), ("Timeout", "Second-1800")];
    // All at once, as a mount with several writers does; each Gateway::request connects anew.
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let lock = |n: usize| gateway.request("LOCK", &format!("/f{n}"), &head, LOCK.as_bytes());
        let threads: Vec<_> = (0..24).map(|n| scope.spawn(move || lock(n))).collect();
        let replies = threads.into_iter().map(|t| t.join().unwrap());
        replies
            .map(|r| {
                assert_eq!(r.status, 201, "{}", r.text());
                let token = r.header("lock-token");
                token.trim_matches(['<', '>']).to_string()
            })
            .collect()
    });
    assert_eq!(gateway.put("/f3", b"somebody else").status, 423);
    // The same listing over the wire and by the command.
    let listed = gateway.admin("GET", "/.tierdav/locks").text();
    let admin = gateway.admin.to_string();
    let command = |more: &[&str]| {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_tierdav"));
        c.args(["locks", "--admin", &admin])
            .args(more)
            .output()
            .unwrap()
    };
    let shown = String::from_utf8(command(&[]).stdout).unwrap();
    for (n, token) in tokens.iter().enumerate() {
        for list in [&listed, &shown] {
            assert!(
                list.contains(token) && list.contains(&format!("/f{n}\"")),
                "{list}"
            );
        }
    }
    assert!(command(&["--break", &tokens[3]]).status.success());
    assert_eq!(gateway.put("/f3", b"free again").status, 204);
    assert_eq!(gateway.put("/f4", b"somebody else").status, 423);
    let again = command(&["--break", &tokens[3]]);
    assert!(!again.status.success(), "{again:?}");
    let gone = gateway.admin("DELETE", "/.tierdav/locks?token=urn:uuid:none");
    assert_eq!(gone.status, 404);
}

#[test]
fn if_modified_since_counts_only_without_an_entity_tag() {
    let gateway = Gateway::start(&[]);
    let put = gateway.put("/f", b"one");
    let (tag, date) = (put.header("etag"), put.header("last-modified"));
    assert!(!date.is_empty(), "{put:?}");
    let get = |headers: &[(&str, &str)]| gateway.request("GET", "/f", headers, b"").status;
    let past = "Thu, 01 Jan 2015 00:00:00 GMT";
    assert_eq!(get(&[("If-Modified-Since", date)]), 304);
    assert_eq!(get(&[("If-Modified-Since", past)]), 200);
    assert_eq!(get(&[("If-Modified-Since", "yesterday")]), 200);
    // davfs2 sends both: the tag decides (RFC 9110 section 13.2.2).
    let other = "\"another\"";
    assert_eq!(
        get(&[("If-None-Match", tag), ("If-Modified-Since", past)]),
        304
    );
    assert_eq!(
        get(&[("If-None-Match", other), ("If-Modified-Since", date)]),
        200
    );
    assert_eq!(get(&[("If-Unmodified-Since", past)]), 412);
    assert_eq!(get(&[("If-Unmodified-Since", date)]), 200);
}

#[test]
fn if_none_match_star_on_a_delayed_put_counts_what_only_the_lock_made_as_nothing() {
    let gateway = Gateway::start(&[]);
    let head = [("Depth", "0"), ("Timeout", "Second-1800")];
    let lock = gateway.request("LOCK", "/new", &head, LOCK.as_bytes());
    assert_eq!(lock.status, 201);
    let condition = format!(
        "<http://{}/new> ({})",
        gateway.address,
        lock.header("lock-token")
    );
    let delayed = [("If", condition.as_str()), ("If-None-Match", "*")];
    let put = |body: &[u8]| gateway.request("PUT", "/new", &delayed, body).status;
    assert!(matches!(put(b"first"), 201 | 204));
    // Now there is content, which the same condition protects.
    assert_eq!(put(b"second"), 412);
    assert_eq!(gateway.get("/new").body, b"first");
    // And for somebody without the lock, what the lock made exists.
    let lock = gateway.request("LOCK", "/other", &head, LOCK.as_bytes());
    assert_eq!(lock.status, 201);
    let stranger = gateway.request("PUT", "/other", &[("If-None-Match", "*")], b"x");
    assert!(matches!(stranger.status, 412 | 423), "{}", stranger.status);
}

#[test]
fn the_trace_knows_ranges_parts_and_methods_that_are_not_served() {
    use tiering::trace::Op;
    let mut gateway = Gateway::start(&[]);
    gateway.put("/f", &[7; 1000]);
    gateway.request("GET", "/f", &[("Range", "bytes=100-299")], b"");
    gateway.request("GET", "/f", &[("Range", "bytes=10-19,900-")], b"");
    gateway.request("PUT", "/f", &[("Content-Range", "bytes 0-3/*")], b"abcd");
    assert_eq!(gateway.request("SEARCH", "/f", &[], b"").status, 501);
    gateway.get("/f");
    // Killed, the live segment stays as it is: nothing later than a second ago is missing.
    let dir = gateway.cache().join("trace");
    let mut seen = Vec::new();
    common::eventually("the trace", || {
        let files = std::fs::read_dir(&dir).unwrap().flatten();
        let live = files
            .map(|e| e.path())
            .find(|p| p.extension().is_some_and(|e| e == "live"));
        // Made with the first records, a moment after the first request.
        let Some(live) = live else { return false };
        let bytes = std::fs::read(live).unwrap();
        let Ok(rows) = tiering::trace::read_live(&bytes[..]) else {
            return false;
        };
        let ops = [Op::Put, Op::Get, Op::Patch, Op::Other];
        let rows = rows.filter_map(Result::ok).map(|r| r.record);
        let rows = rows.filter(|r| ops.contains(&r.op));
        seen = rows.map(|r| (r.op, r.offset, r.len, r.status)).collect();
        seen.len() == 6
    });
    let expected = [
        (Op::Put, 0, 1000, 201),
        (Op::Get, 100, 200, 206),
        (Op::Get, 10, 110, 206),
        (Op::Patch, 0, 4, 204),
        (Op::Other, 0, 0, 501),
        (Op::Get, 0, 1000, 200),
    ];
    assert_eq!(seen, expected);
    gateway.terminate();
}
