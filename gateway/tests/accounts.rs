//! What metrics and trace say of a request: what really happened, when it has ended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io::Read;
use std::time::Instant;

use common::{Client, Gateway, content, eventually};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use tiering::trace::{Op, Record};

/// The value of a line of the metrics; 0 if there is none.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.admin("GET", "/.tierdav/metrics").text();
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or(0.0)
}

/// The rows of the live segment.
fn rows(gateway: &Gateway, op: Op) -> Vec<Record> {
    let files = std::fs::read_dir(gateway.cache().join("trace")).unwrap();
    let mut files = files.map(|e| e.unwrap().path());
    let Some(live) = files.find(|p| p.extension().is_some_and(|e| e == "live")) else {
        return Vec::new();
    };
    let bytes = std::fs::read(live).unwrap();
    let Ok(rows) = tiering::trace::read_live(&bytes[..]) else {
        return Vec::new();
    };
    let rows = rows.map_while(Result::ok).map(|row| row.record);
    rows.filter(|r| r.op == op).collect()
}

/// A client whose kernel takes little of a reply that nobody reads.
fn reluctant(gateway: &Gateway) -> std::net::TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    connect(&socket, &gateway.address).unwrap();
    socket.into()
}

/// Begins to GET `path`, of which nothing but the beginning is read until the gateway was asked for its metrics; then goes away.
fn break_off(gateway: &Gateway, path: &str) {
    let before = rows(gateway, Op::Get).len();
    let finished = || {
        metric(
            gateway,
            r#"tierdav_requests_total{method="get",status="200"}"#,
        )
    };
    let (finished_before, sent_before) = (finished(), metric(gateway, SENT));
    let took_before = metric(gateway, TOOK);
    let mut client = reluctant(gateway);
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.address);
    std::io::Write::write_all(&mut client, ask.as_bytes()).unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    let running = Instant::now();
    assert_eq!(metric(gateway, "tierdav_requests_in_flight"), 1.0);
    assert_eq!(finished(), finished_before, "counted before its end");
    let took = running.elapsed();
    drop(client);
    eventually("its end", || finished() == finished_before + 1.0);
    assert_eq!(metric(gateway, "tierdav_requests_in_flight"), 0.0);
    let sent = metric(gateway, SENT) - sent_before;
    assert!(sent > 0.0 && sent < LEN as f64, "{sent} bytes were sent");
    assert!(metric(gateway, TOOK) - took_before >= took.as_secs_f64());
    eventually("its row", || rows(gateway, Op::Get).len() > before);
    let row = rows(gateway, Op::Get).pop().unwrap();
    assert_eq!((row.len as f64, row.status), (sent, 200));
    assert!(u128::from(row.latency_ns) >= took.as_nanos());
}

const SENT: &str = "tierdav_sent_bytes_total";
const TOOK: &str = r#"tierdav_request_duration_seconds_sum{method="get"}"#;
/// Two objects of 2 MiB.
const LEN: usize = 4 << 20;

#[test]
fn a_get_counts_with_what_was_sent_when_it_ends() {
    let gateway = Gateway::start(&["--object-size", "2MiB"]);
    assert_eq!(gateway.put("/f", &content(1, LEN)).status, 201);
    break_off(&gateway, "/f");
    let gone = r#"tierdav_replies_broken_total{reason="gone"}"#;
    assert_eq!(metric(&gateway, gone), 1.0);
    // A whole one, by somebody who takes it all.
    assert_eq!(gateway.get("/f").body.len(), LEN);
    eventually("two rows", || rows(&gateway, Op::Get).len() == 2);
    assert_eq!(rows(&gateway, Op::Get)[1].len, LEN as u64);
    assert_eq!(metric(&gateway, gone), 1.0);
}

#[test]
fn a_get_that_the_kernel_sends_counts_with_what_was_sent_when_it_ends() {
    let gateway = Gateway::start(&["--write-policy", "around"]);
    assert_eq!(gateway.put("/f", &content(1, LEN)).status, 201);
    // Read once, it is sent from then on.
    assert_eq!(gateway.get("/f").body.len(), LEN);
    eventually("its row", || rows(&gateway, Op::Get).len() == 1);
    break_off(&gateway, "/f");
    let mut client = Client::connect(gateway.address).unwrap();
    for _ in 0..3 {
        assert_eq!(
            client.request("GET", "/f", &[], b"").unwrap().body.len(),
            LEN
        );
    }
    eventually("their rows", || rows(&gateway, Op::Get).len() == 5);
    let lens: Vec<u64> = rows(&gateway, Op::Get).iter().map(|r| r.len).collect();
    assert_eq!([lens[0], lens[2], lens[3], lens[4]], [LEN as u64; 4]);
    assert!(lens[1] < LEN as u64);
}

#[test]
fn a_request_that_is_refused_before_webdav_counts_too() {
    let users = tempfile::NamedTempFile::new().unwrap();
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(users.path(), format!("alice:{hash}\n")).unwrap();
    let gateway = Gateway::start(&["--users-file", users.path().to_str().unwrap()]);
    let denied = gateway.get("/f");
    assert_eq!(denied.status, 401);
    assert_eq!(gateway.put("/f", b"content").status, 401);
    let long = format!("/{}", "x".repeat(20_000));
    assert_eq!(gateway.get(&long).status, 414);
    let count = |of: &str| metric(&gateway, &format!("tierdav_requests_total{{{of}}}"));
    eventually("all are counted", || {
        count(r#"method="get",status="401""#) == 1.0
            && count(r#"method="put",status="401""#) == 1.0
            && count(r#"method="get",status="414""#) == 1.0
    });
    assert!(metric(&gateway, SENT) >= denied.body.len() as f64);
    for wrong in ["Basic !!!", "Bearer x", "Basic YWxpY2U6d3Jvbmc="] {
        let reply = gateway.request("GET", "/f", &[("Authorization", wrong)], b"");
        assert_eq!(reply.status, 401);
    }
    let failed = ["malformed", "bad_credentials"].map(|why| {
        metric(
            &gateway,
            &format!("tierdav_login_failures_total{{reason=\"{why}\"}}"),
        )
    });
    assert_eq!(failed, [2.0, 1.0]);
}

#[test]
fn metrics_trace_and_shadows_count_the_same_object_reads() {
    let flags = ["--object-size", "4MiB", "--shadow", "lru"];
    let gateway = Gateway::start(&flags);
    let body = content(1, 10 << 20);
    assert_eq!(gateway.put("/f", &body).status, 201);
    assert!(gateway.get("/f").body == body);
    let count = |what: &str, tier: &str| {
        let name = format!("tierdav_object_{what}_total{{op=\"read\",tier=\"{tier}\"}}");
        metric(&gateway, &name)
    };
    let all = |what: &str| count(what, "cache") + count(what, "backing");
    eventually("the rows", || rows(&gateway, Op::ObjectRead).len() == 3);
    assert_eq!(all("operations"), 3.0);
    assert_eq!(all("bytes"), body.len() as f64);
    let shadow = r#"tierdav_shadow_reads_total{policy="lru",size="1x"}"#;
    eventually("the shadow", || metric(&gateway, shadow) == 3.0);
}

/// The files of the cache's objects of `len` bytes that nobody else has.
fn dirty(gateway: &Gateway, len: u64) -> Vec<std::path::PathBuf> {
    let dirs = std::fs::read_dir(gateway.cache().join("objects")).unwrap();
    let files = dirs.flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap());
    let files = files.map(|e| e.unwrap().path());
    let dirty = |p: &std::path::PathBuf| p.extension().is_some_and(|e| e == "d");
    let mut all: Vec<_> = files
        .filter(|p| dirty(p) && p.metadata().unwrap().len() == len)
        .collect();
    all.sort();
    all
}

#[test]
fn damage_and_loss_are_in_the_metrics() {
    let mut gateway = Gateway::start(&[
        "--object-size=1MiB",
        "--write-policy=back",
        "--max-dirty-age=1h",
    ]);
    let body = content(1, (2 << 20) + 70_000);
    assert_eq!(gateway.put("/damaged", &body).status, 201);
    assert_eq!(gateway.put("/lost", &content(2, 90_000)).status, 201);
    for name in LOSSES {
        assert_eq!(metric(&gateway, name), 0.0);
    }
    gateway.kill();
    let [last] = &dirty(&gateway, 70_000)[..] else {
        panic!("one object of that length");
    };
    let mut bytes = std::fs::read(last).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(last, bytes).unwrap();
    let lost = dirty(&gateway, 90_000);
    assert_eq!(lost.len(), 1);
    std::fs::remove_file(&lost[0]).unwrap();
    gateway.restart();
    let broken = gateway.connect().request("GET", "/damaged", &[], b"");
    assert!(broken.is_err(), "its end must not come");
    assert_eq!(gateway.get("/lost").status, 503);
    let ok = r#"tierdav_requests_total{method="get",status="200"}"#;
    eventually("its end is counted", || metric(&gateway, ok) == 1.0);
    let seen = LOSSES.map(|name| metric(&gateway, name));
    assert_eq!(seen, [1.0, 1.0, 1.0], "{LOSSES:?}");
    assert!(metric(&gateway, SENT) < body.len() as f64);
}

const LOSSES: [&str; 3] = [
    "tierdav_lost_objects",
    "tierdav_damage_found_total",
    r#"tierdav_replies_broken_total{reason="unreadable"}"#,
];
