//! HTTP details and the admin listener, asked of the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

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
fn the_admin_listener_answers() {
    let gateway = Gateway::start(&[]);
    for path in ["health", "ready", "metrics", "status", "locks"] {
        let reply = gateway.admin("GET", &format!("/.tierdav/{path}"));
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}
