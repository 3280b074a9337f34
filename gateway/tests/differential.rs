//! The same generated requests to a gateway that answers from memory wherever it can (`in_place = true`, the default) and to
//! one that never does: every status, header and byte must be the same. `TIERDAV_REQUESTS` and `TIERDAV_SEED` lengthen and
//! repeat a run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::{Client, Gateway, LOCK, Random, Reply, content};

/// One of the two servers, and what its own values are called: both make entity tags, tokens and dates of their own.
struct Side {
    gateway: Gateway,
    client: Client,
    /// Entity tags and lock tokens, in order of appearance.
    names: Vec<String>,
    /// The last entity tag seen of each path, be it old.
    tags: BTreeMap<String, String>,
    /// Dates seen since the last change: an older one may be in the same second on one side alone.
    dates: BTreeMap<String, String>,
    tokens: Vec<String>,
}

/// A header's value that each side fills in with its own.
#[derive(Clone, Debug)]
enum Value {
    Plain(String),
    /// The path's last known entity tag between two texts.
    Tag(String, &'static str, &'static str),
    /// The path's last known date.
    Date(String),
    /// A lock token that was handed out, between two texts.
    Token(usize, &'static str, &'static str),
}

#[derive(Debug)]
struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, Value)>,
    body: Vec<u8>,
}

impl Side {
    fn start(flags: &[&str]) -> Side {
        let gateway = Gateway::start(flags);
        let client = gateway.connect();
        Side {
            gateway,
            client,
            names: Vec::new(),
            tags: BTreeMap::new(),
            dates: BTreeMap::new(),
            tokens: Vec::new(),
        }
    }

    fn fill(&self, value: &Value) -> String {
        match value {
            Value::Plain(text) => text.clone(),
            Value::Tag(path, before, after) => {
                let tag = self.tags.get(path).map_or("\"none\"", String::as_str);
                format!("{before}{tag}{after}")
            }
            Value::Date(path) => {
                let date = self.dates.get(path).map(String::as_str);
                date.unwrap_or("Thu, 01 Jan 1970 00:00:00 GMT").to_owned()
            }
            Value::Token(n, before, after) => {
                let token = self.tokens.get(*n).map_or("urn:uuid:none", String::as_str);
                format!("{before}{token}{after}")
            }
        }
    }

    /// Sends the request; returns the reply in words that both sides share.
    fn ask(&mut self, request: &Request) -> (u16, BTreeMap<String, String>, String) {
        let values: Vec<(&str, String)> = request
            .headers
            .iter()
            .map(|(name, value)| (*name, self.fill(value)))
            .collect();
        let headers: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let Request {
            method, path, body, ..
        } = request;
        let reply = self.client.request(method, path, &headers, body);
        let reply = match reply {
            Ok(reply) => reply,
            // The server may end a connection after a refusal.
            Err(_) => {
                self.client = self.gateway.connect();
                let reply = self.client.request(method, path, &headers, body);
                reply.unwrap_or_else(|e| panic!("{request:?}: {e}"))
            }
        };
        self.learn(request, &reply);
        let body = match reply.header("content-type") {
            kind if kind.contains("xml")
                || kind.contains("multipart")
                || kind.contains("text/html") =>
            {
                reply.text()
            }
            // Content: compared as it is.
            _ => reply.body.iter().map(|b| char::from(*b)).collect(),
        };
        let headers = reply
            .headers
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| match name.as_str() {
                "last-modified" => (name.clone(), "a date".to_owned()),
                _ => (name.clone(), self.in_common(value, &reply)),
            })
            .collect();
        let mut body = self.in_common(&body, &reply);
        if reply.header("content-type").contains("text/html") {
            body = without_times(&body);
        }
        (reply.status, headers, body)
    }

    fn learn(&mut self, request: &Request, reply: &Reply) {
        let changes = !matches!(request.method, "GET" | "HEAD" | "PROPFIND" | "OPTIONS");
        if changes && reply.status < 300 {
            self.dates.clear();
        }
        let tag = reply.header("etag").to_owned();
        if !tag.is_empty() {
            self.name(&tag);
            let date = reply.header("last-modified").to_owned();
            self.tags.insert(request.path.clone(), tag);
            self.dates.insert(request.path.clone(), date);
        }
        let token = reply
            .header("lock-token")
            .trim_matches(['<', '>'])
            .to_owned();
        if !token.is_empty() {
            self.name(&token);
            if !self.tokens.contains(&token) {
                self.tokens.push(token);
            }
        }
        // Tags that only a listing shows, in its order.
        for part in reply.text().split("getetag>").skip(1).step_by(2) {
            let tag = part
                .split('<')
                .next()
                .unwrap_or_default()
                .replace("&quot;", "\"");
            self.name(&tag);
        }
    }

    fn break_locks(&self) {
        let locks = self.gateway.admin("GET", "/.tierdav/locks").text();
        for token in self.tokens.iter().filter(|t| locks.contains(t.as_str())) {
            let path = format!("/.tierdav/locks?token={token}");
            assert!(self.gateway.admin("DELETE", &path).status < 300, "{path}");
        }
    }

    fn name(&mut self, value: &str) {
        if !self.names.iter().any(|n| n == value) {
            self.names.push(value.to_owned());
        }
    }

    fn in_common(&self, text: &str, reply: &Reply) -> String {
        let mut text = text.replace(&self.gateway.address.to_string(), "HOST");
        if let Some((_, boundary)) = reply.header("content-type").split_once("boundary=") {
            text = text.replace(boundary.trim_matches('"'), "BOUNDARY");
        }
        for (n, name) in self.names.iter().enumerate() {
            let bare = name.trim_matches('"');
            if !bare.is_empty() {
                text = text.replace(bare, &format!("NAME{n}"));
            }
        }
        for element in ["getlastmodified>", "creationdate>", "timeout>"] {
            let mut parts = text.split(element);
            let mut out = parts.next().unwrap_or_default().to_owned();
            for (n, part) in parts.enumerate() {
                let rest = if n % 2 == 0 {
                    &part[part.find('<').unwrap_or(0)..]
                } else {
                    part
                };
                out = out + element + rest;
            }
            text = out;
        }
        text
    }
}

/// A listing without the times of day in it.
fn without_times(text: &str) -> String {
    let mut parts = text.split(':');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
        if out.get(out.len().saturating_sub(2)..).is_some_and(digits) {
            out.truncate(out.len() - 2);
        }
        let part = part
            .get(..2)
            .filter(|s| digits(s))
            .map_or(part, |_| &part[2..]);
        out = out + ":" + part;
    }
    out
}

const PATHS: [&str; 24] = [
    "/a",
    "/a",
    "/a",
    "/b",
    "/b",
    "/big",
    "/big",
    "/empty",
    "/dir",
    "/dir/",
    "/dir/c",
    "/dir/c",
    "/dir/sub/d",
    "/a/",
    "/dir%2Fc",
    "/%61",
    "/nope",
    "/sp%20ace",
    "/%C3%A9%23%3F",
    "/dir/../a",
    "/%2e%2e/a",
    "/%ff",
    "/.tierdav/tmp",
    "/",
];
const RANGES: [&str; 13] = [
    "bytes=0-99",
    "bytes=-10",
    "bytes=5-",
    "bytes=0-0,10-20",
    "bytes=999999999-",
    "bytes=abc",
    "bytes=5-2",
    "bytes=0-",
    "bytes=65530-65545",
    "bytes=30000-80000",
    "bytes=70000-",
    "items=0-1",
    "bytes=-0",
];
const FIND: [&str; 6] = [
    "",
    r#"<propfind xmlns="DAV:"><allprop/></propfind>"#,
    r#"<propfind xmlns="DAV:"><propname/></propfind>"#,
    r#"<propfind xmlns="DAV:"><prop><getetag/><getcontentlength/><resourcetype/><lockdiscovery/><x xmlns="urn:t"/></prop></propfind>"#,
    r#"<propfind xmlns="DAV:"><prop><getcontenttype/><supportedlock/><nothing/></prop></propfind>"#,
    "<propfind",
];

fn path(random: &mut Random) -> String {
    match random.below(40) {
        0 => format!("/{}", "n".repeat(255)),
        1 => format!("/{}", "n".repeat(256)),
        _ => PATHS[random.below(PATHS.len() as u64) as usize].to_owned(),
    }
}

fn plain(text: &str) -> Value {
    Value::Plain(text.to_owned())
}

/// Headers under which a request may or may not happen.
fn conditions(random: &mut Random, path: &str) -> Vec<(&'static str, Value)> {
    let path = path.to_owned();
    let future = || plain("Fri, 01 Jan 2100 00:00:00 GMT");
    let past = || plain("Sat, 01 Jan 2000 00:00:00 GMT");
    let one = match random.below(25) {
        0 => ("If-None-Match", Value::Tag(path, "", "")),
        1 => ("If-None-Match", Value::Tag(path, "\"x\", W/", "")),
        2 => ("If-None-Match", plain("*")),
        3 => ("If-None-Match", plain("\"zz\"")),
        4 => ("If-None-Match", plain("not a tag")),
        5 => ("If-Match", Value::Tag(path, "", "")),
        6 => ("If-Match", Value::Tag(path, "W/", "")),
        7 => ("If-Match", plain("*")),
        8 => ("If-Match", plain("\"zz\", \"yy\"")),
        9 => ("If-Modified-Since", Value::Date(path)),
        10 => ("If-Modified-Since", past()),
        11 => ("If-Modified-Since", future()),
        12 => ("If-Modified-Since", plain("yesterday")),
        13 => ("If-Unmodified-Since", Value::Date(path)),
        14 => ("If-Unmodified-Since", past()),
        15 => ("If-Unmodified-Since", future()),
        16 => ("If", Value::Tag(path, "([", "])")),
        17 => ("If", Value::Tag(path, "(Not [", "])")),
        18 => ("If", Value::Token(random.below(4) as usize, "(<", ">)")),
        19 => ("If", Value::Token(random.below(4) as usize, "(Not <", ">)")),
        20 => ("If", plain("(<DAV:no-lock>)")),
        21 => ("If", plain("(garbage")),
        // As davfs2 asks for what it has.
        22 => {
            let since = ("If-Modified-Since", Value::Date(path.clone()));
            return vec![("If-None-Match", Value::Tag(path, "", "")), since];
        }
        _ => return Vec::new(),
    };
    vec![one]
}

fn request(random: &mut Random, n: u64) -> Request {
    let path = path(random);
    let mut headers = conditions(random, &path);
    let mut body = Vec::new();
    let method = match random.below(100) {
        0..42 => {
            if random.below(3) == 0 {
                let range = RANGES[random.below(RANGES.len() as u64) as usize];
                headers.push(("Range", plain(range)));
                match random.below(6) {
                    0 => headers.push(("If-Range", Value::Tag(path.clone(), "", ""))),
                    1 => headers.push(("If-Range", Value::Date(path.clone()))),
                    2 => headers.push(("If-Range", plain("\"zz\""))),
                    _ => {}
                }
            }
            if random.below(4) == 0 { "HEAD" } else { "GET" }
        }
        42..62 => {
            let depth = ["0", "0", "1", "1", "infinity", "7"][random.below(6) as usize];
            if random.below(12) > 0 {
                headers.push(("Depth", plain(depth)));
            }
            body = FIND[random.below(FIND.len() as u64) as usize]
                .as_bytes()
                .to_vec();
            "PROPFIND"
        }
        62..76 => {
            let len = [0, 1, 300, 5000, 70_000, 140_000][random.below(6) as usize];
            body = content(n, len);
            if random.below(8) == 0 {
                headers.push(("Content-Range", plain(&format!("bytes 10-{}/*", 9 + len))));
            }
            "PUT"
        }
        76..80 => "DELETE",
        80..82 => "MKCOL",
        82..88 => {
            let to = PATHS[random.below(PATHS.len() as u64) as usize];
            headers.push(("Destination", plain(to)));
            if random.below(2) == 0 {
                headers.push(("Overwrite", plain(["T", "F"][random.below(2) as usize])));
            }
            if random.below(2) == 0 { "MOVE" } else { "COPY" }
        }
        88..91 => {
            body = match random.below(3) {
                0 => format!(r#"<propertyupdate xmlns="DAV:"><set><prop><x xmlns="urn:t">{n}</x></prop></set></propertyupdate>"#),
                1 => r#"<propertyupdate xmlns="DAV:"><remove><prop><x xmlns="urn:t"/></prop></remove></propertyupdate>"#.to_owned(),
                _ => r#"<propertyupdate xmlns="DAV:"><set><prop><getetag>"mine"</getetag></prop></set></propertyupdate>"#.to_owned(),
            }
            .into_bytes();
            "PROPPATCH"
        }
        91..94 => {
            headers.push(("Timeout", plain("Second-600")));
            headers.push(("Depth", plain(["0", "infinity"][random.below(2) as usize])));
            body = LOCK.to_vec();
            "LOCK"
        }
        // Locks go as fast as they come, so that most requests meet none.
        94..98 => {
            headers.push((
                "Lock-Token",
                Value::Token(random.below(40) as usize, "<", ">"),
            ));
            "UNLOCK"
        }
        98 => "OPTIONS",
        _ => "BREW",
    };
    Request {
        method,
        path,
        headers,
        body,
    }
}

/// What has to happen at least once, whatever is generated after it.
fn always() -> Vec<Request> {
    let tag = |before| Value::Tag("/a".to_owned(), before, "");
    let all = [
        ("PUT", vec![], content(1, 5000)),
        ("GET", vec![], vec![]),
        ("GET", vec![("Range", plain("bytes=0-99"))], vec![]),
        ("GET", vec![("Range", plain("bytes=999999999-"))], vec![]),
        ("GET", vec![("If-None-Match", tag(""))], vec![]),
        ("GET", vec![("If-Match", tag("W/"))], vec![]),
        ("HEAD", vec![], vec![]),
        ("PROPFIND", vec![("Depth", plain("0"))], vec![]),
        ("LOCK", vec![], LOCK.to_vec()),
        ("PUT", vec![], content(2, 300)),
    ];
    let all = all.into_iter().map(|(method, headers, body)| Request {
        method,
        path: "/a".to_owned(),
        headers,
        body,
    });
    all.collect()
}

/// A request that changes nothing; often the plainest of all.
fn reading(random: &mut Random, n: u64) -> Request {
    loop {
        let mut request = request(random, n);
        if matches!(request.method, "GET" | "HEAD") && random.below(2) == 0 {
            request.headers.clear();
        }
        if matches!(request.method, "GET" | "HEAD" | "PROPFIND" | "OPTIONS") {
            return request;
        }
    }
}

#[test]
fn answers_from_memory_are_those_of_the_plain_path() {
    let objects = ["--object-size", "64KiB"];
    compare(
        &[&["--in-place=true"], &objects[..]].concat(),
        &[&["--in-place=false"], &objects[..]].concat(),
    );
}

#[test]
fn files_sent_by_the_kernel_are_those_of_the_plain_path() {
    // Nothing is in the cache, and every file is one object.
    let around = "--write-policy=around";
    compare(&[around, "--policy=none"], &[around, "--in-place=false"]);
}

#[test]
fn changes_made_at_once_and_past_the_cache_are_those_of_the_plain_path() {
    compare(
        &["--durability=relaxed", "--write-policy=around"],
        &["--durability=relaxed", "--in-place=false"],
    );
}

#[test]
#[cfg(feature = "rados")]
fn small_files_of_pools_are_those_of_the_plain_path() {
    let (fast, slow) = (common::pool_flags(), common::pool_flags());
    let fast: Vec<&str> = fast.iter().map(String::as_str).collect();
    let mut slow: Vec<&str> = slow.iter().map(String::as_str).collect();
    slow.push("--in-place=false");
    compare(&fast, &slow);
}

/// Often the last one again: then it is in memory. A listing is kept when it is asked for again, and told from memory from
/// the third time on.
fn repeated(random: &mut Random, last: Option<Request>) -> Option<Request> {
    last.filter(|r| random.below(3) == 0 || r.method == "PROPFIND" && random.below(2) == 0)
}

fn compare(fast: &[&str], slow: &[&str]) {
    let mut random = Random::from_env();
    let requests = std::env::var("TIERDAV_REQUESTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(6000);
    let (mut fast, mut slow) = (Side::start(fast), Side::start(slow));
    let mut statuses: BTreeMap<(&str, u16), u64> = BTreeMap::new();
    let mut last = None;
    let mut first = always().into_iter();
    for n in 0..requests {
        let request = match first.next().or_else(|| repeated(&mut random, last.take())) {
            Some(request) => request,
            // Half of the time nothing changes for a while: what was read then is in memory.
            None if n / 200 % 2 == 1 => reading(&mut random, n),
            None => request(&mut random, n),
        };
        let (a, b) = (fast.ask(&request), slow.ask(&request));
        assert_eq!(a, b, "request {n}: {request:?}");
        *statuses.entry((request.method, a.0)).or_default() += 1;
        last = Some(request);
        // A lock of the whole tree would refuse every change until the end of the run.
        if n % 100 == 0 {
            fast.break_locks();
            slow.break_locks();
        }
    }
    println!("{statuses:?}");
    for wanted in [
        ("GET", 200),
        ("GET", 206),
        ("GET", 304),
        ("GET", 412),
        ("GET", 416),
        ("HEAD", 200),
        ("PROPFIND", 207),
        ("PUT", 423),
    ] {
        assert!(
            statuses.contains_key(&wanted),
            "{wanted:?} never happened: {statuses:?}"
        );
    }
}
