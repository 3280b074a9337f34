//! HTTP details and the admin listener, asked of the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Gateway, LOCK, eventually};

#[test]
fn dead_properties_survive_kill_9() {
    let mut gateway = Gateway::start(&[]);
    gateway.put("/f", b"x");
    let set = br#"<propertyupdate xmlns="DAV:"><set><prop><m xmlns="urn:t">kept</m></prop></set></propertyupdate>"#;
    assert_eq!(gateway.request("PROPPATCH", "/f", &[], set).status, 207);
    gateway.kill_and_restart();
    let find = br#"<propfind xmlns="DAV:"><prop><m xmlns="urn:t"/></prop></propfind>"#;
    let reply = gateway.request("PROPFIND", "/f", &[("Depth", "0")], find);
    assert!(reply.text().contains(">kept<"), "{}", reply.text());
}

#[test]
fn a_full_quota_answers_507_and_keeps_nothing() {
    let gateway = Gateway::start(&["--quota", "1MiB"]);
    assert_eq!(gateway.put("/big", &vec![1; 2 << 20]).status, 507);
    assert_eq!(gateway.get("/big").status, 404);
    assert_eq!(gateway.put("/small", b"fits").status, 201);
}

#[test]
fn a_get_during_an_overwriting_put_sees_the_old_bytes() {
    let gateway = Gateway::start(&[]);
    gateway.put("/f", b"old");
    let mut client = gateway.connect();
    client.send_head("PUT", "/f", &[], 400_000).unwrap();
    client.send(&[1; 300_000]).unwrap();
    assert_eq!(gateway.get("/f").body, b"old");
    client.send(&[1; 100_000]).unwrap();
    assert_eq!(client.reply(false).unwrap().status, 204);
    assert_eq!(gateway.get("/f").body, vec![1; 400_000]);
}

#[test]
fn several_ranges_come_as_one_multipart() {
    let gateway = Gateway::start(&[]);
    gateway.put("/f", b"0123456789");
    let reply = gateway.request("GET", "/f", &[("Range", "bytes=0-1,5-6")], b"");
    assert_eq!(reply.status, 206);
    assert!(
        reply
            .header("content-type")
            .starts_with("multipart/byteranges")
    );
    assert!(reply.text().contains("bytes 0-1/10") && reply.text().contains("bytes 5-6/10"));
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.connect();
    client
        .send_head("PUT", "/f", &[("Expect", "100-continue")], 2)
        .unwrap();
    assert_eq!(client.reply_head().unwrap().status, 100);
    client.send(b"ok").unwrap();
    assert_eq!(client.reply(false).unwrap().status, 201);
}

#[test]
fn a_body_in_a_transfer_coding_that_is_not_undone_is_not_stored() {
    let gateway = Gateway::start(&[]);
    for codings in [
        "gzip, chunked",
        "chunked, chunked",
        "gzip\r\nTransfer-Encoding: chunked",
    ] {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        let head = format!("PUT /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {codings}\r\n\r\n");
        let body = "8\r\n3\r\nabc\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n";
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"HTTP/1.1 501", "{codings}");
        assert_eq!(gateway.get("/f").status, 404);
    }
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let plain =
        "PUT /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    stream.write_all(plain.as_bytes()).unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 201");
    assert_eq!(gateway.get("/f").body, b"abc");
}

#[test]
fn a_destination_may_say_https_but_not_another_host() {
    let gateway = Gateway::start(&[]);
    gateway.put("/a", b"x");
    let here = format!("https://{}/b", gateway.address);
    let reply = gateway.request(
        "MOVE",
        "/a",
        &[("Destination", "http://other.example/b")],
        b"",
    );
    assert_eq!(reply.status, 502);
    let reply = gateway.request("MOVE", "/a", &[("Destination", &here)], b"");
    assert_eq!(reply.status, 201);
}

#[test]
fn an_expired_lock_takes_its_empty_resource_with_it() {
    let gateway = Gateway::start(&[]);
    let reply = gateway.request("LOCK", "/new", &[("Timeout", "Second-1")], LOCK);
    assert_eq!(reply.status, 201);
    eventually("the resource is gone", || gateway.get("/new").status == 404);
}

#[test]
fn a_destination_with_a_fragment_or_a_query_replaces_nothing() {
    let gateway = Gateway::start(&[]);
    gateway.put("/keep", b"kept");
    gateway.put("/x", b"x");
    for destination in ["/keep#1.txt", "/keep?1.txt"] {
        let reply = gateway.request("MOVE", "/x", &[("Destination", destination)], b"");
        assert_eq!(reply.status, 400, "{destination}");
    }
    assert_eq!(gateway.get("/keep").body, b"kept");
    let escaped = [("Destination", "/keep%231%3F.txt")];
    assert_eq!(gateway.request("MOVE", "/x", &escaped, b"").status, 201);
    assert_eq!(gateway.get("/keep%231%3F.txt").body, b"x");
}

/// Whoever replaces a file by a MOVE, if it is still what it was, replaces no newer one.
#[test]
fn counting_together_by_conditional_moves_loses_no_count() {
    const CLIENTS: usize = 4;
    const EACH: usize = 50;
    let gateway = Gateway::start(&["--http-threads", "2"]);
    gateway.put("/count", b"0");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut connection = gateway.connect();
                let next = format!("/next-{client}");
                let mut counted = 0;
                while counted < EACH {
                    let now = connection.request("GET", "/count", &[], b"").unwrap();
                    let more = now.text().parse::<usize>().unwrap() + 1;
                    let put = connection.request("PUT", &next, &[], more.to_string().as_bytes());
                    assert!([201, 204].contains(&put.unwrap().status));
                    let unchanged = format!("</count> ([{}])", now.header("etag"));
                    let headers = [("Destination", "/count"), ("If", unchanged.as_str())];
                    let moved = connection.request("MOVE", &next, &headers, b"").unwrap();
                    match moved.status {
                        204 => counted += 1,
                        412 => {}
                        other => panic!("{other}: {}", moved.text()),
                    }
                }
            });
        }
    });
    let total = (CLIENTS * EACH).to_string();
    assert_eq!(gateway.get("/count").text(), total);
}

#[test]
fn host_is_there_once_and_gives_way_to_an_absolute_target() {
    let gateway = Gateway::start(&[]);
    gateway.put("/f", b"x");
    let status = |head: &str| {
        let mut client = gateway.connect();
        client.send(head.as_bytes()).unwrap();
        client.reply(true).unwrap().status
    };
    // Asked again and again, a file is answered past hyper.
    for _ in 0..4 {
        assert_eq!(status("GET /f HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
        assert_eq!(status("GET /f HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET /f HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    }
    assert_eq!(status("GET /f HTTP/1.0\r\n\r\n"), 200);
    let moved = "MOVE http://a/f HTTP/1.1\r\nHost: b\r\nDestination: http://a/g\r\n\r\n";
    assert_eq!(status(moved), 201);
    let elsewhere = "MOVE http://a/g HTTP/1.1\r\nHost: b\r\nDestination: http://b/f\r\n\r\n";
    assert_eq!(status(elsewhere), 502);
}

#[test]
fn the_server_as_a_whole_has_options_and_nothing_else() {
    let gateway = Gateway::start(&[]);
    let status = |method: &str| {
        let mut client = gateway.connect();
        let head = format!("{method} * HTTP/1.1\r\nHost: a\r\nDepth: 0\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        client.reply(false).unwrap().status
    };
    assert_eq!(status("OPTIONS"), 200);
    for method in ["PROPFIND", "GET", "LOCK", "PROPPATCH", "DELETE"] {
        assert_eq!(status(method), 400, "{method}");
    }
}

#[test]
fn an_empty_chunked_body_is_none() {
    let gateway = Gateway::start(&[]);
    let status = |path: &str, chunks: &str| {
        let mut client = gateway.connect();
        let head = format!(
            "MKCOL {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        );
        client.send(head.as_bytes()).unwrap();
        client.reply(false).unwrap().status
    };
    assert_eq!(status("/a", "0\r\n\r\n"), 201);
    assert_eq!(status("/b", "1\r\nx\r\n0\r\n\r\n"), 415);
}

#[test]
fn what_is_stored_is_asked_for_again_and_acts_for_nobody() {
    let gateway = Gateway::start(&[]);
    for (name, sandbox) in [
        ("/f.html", "sandbox"),
        ("/f.svg", "sandbox"),
        ("/f.txt", ""),
    ] {
        gateway.put(name, b"<script>alert(1)</script>");
        for _ in 0..4 {
            let reply = gateway.get(name);
            assert_eq!(reply.header("cache-control"), "no-cache", "{name}");
            assert_eq!(reply.header("content-security-policy"), sandbox, "{name}");
        }
    }
}

#[test]
fn the_admin_listener_answers() {
    let gateway = Gateway::start(&[]);
    for path in ["health", "ready", "metrics", "status", "locks"] {
        let reply = gateway.admin("GET", &format!("/.tierdav/{path}"));
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}
