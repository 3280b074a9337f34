//! What WebDAV servers are known to get wrong, asked of the real binary over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::HashSet;

use common::{Client, Gateway, LOCK, content, eventually};

fn litter(gateway: &Gateway) -> usize {
    std::fs::read_dir(gateway.root().join(".tierdav/tmp")).map_or(0, Iterator::count)
}

/// Takes an exclusive lock and returns its token with the angle brackets.
fn lock(gateway: &Gateway, path: &str, status: u16) -> String {
    let reply = gateway.request("LOCK", path, &[("Timeout", "Second-1800")], LOCK);
    assert_eq!(reply.status, status, "{}", reply.text());
    reply.header("lock-token").to_string()
}

#[test]
fn options_announce_classes_1_2_and_3() {
    let gateway = Gateway::start(&[]);
    let reply = gateway.request("OPTIONS", "/", &[], b"");
    let classes: Vec<&str> = reply.header("dav").split(',').map(str::trim).collect();
    assert!(
        ["1", "2", "3"].iter().all(|c| classes.contains(c)),
        "{classes:?}"
    );
}

#[test]
fn etags_are_strong_distinct_and_the_same_everywhere() {
    let mut gateway = Gateway::start(&[]);
    let mut seen = HashSet::new();
    for n in 0..20 {
        let tag = gateway
            .put("/f", &content(n, 100))
            .header("etag")
            .to_string();
        assert!(tag.starts_with('"'), "{tag}");
        seen.insert(tag);
    }
    assert_eq!(seen.len(), 20);
    let tag = gateway
        .request("HEAD", "/f", &[], b"")
        .header("etag")
        .to_string();
    assert!(seen.contains(&tag));
    let found = gateway.request("PROPFIND", "/f", &[("Depth", "0")], b"");
    let text = found.text().replace("&quot;", "\"");
    assert!(text.contains(&tag), "{text}");
    assert_eq!(
        gateway
            .request("MOVE", "/f", &[("Destination", "/g")], b"")
            .status,
        201
    );
    gateway.kill_and_restart();
    let reply = gateway.get("/g");
    assert_eq!(reply.header("etag"), tag);
    assert_eq!(reply.body, content(19, 100));
    let same = gateway.request("GET", "/g", &[("If-None-Match", &tag)], b"");
    assert_eq!((same.status, same.header("etag")), (304, tag.as_str()));
}

#[test]
fn if_match_guards_a_put() {
    let gateway = Gateway::start(&[]);
    let tag = gateway.put("/f", b"one").header("etag").to_string();
    let put = |tag: &str, body: &[u8]| {
        gateway
            .request("PUT", "/f", &[("If-Match", tag)], body)
            .status
    };
    assert_eq!(put("\"other\"", b"bad"), 412);
    assert_eq!(gateway.get("/f").body, b"one");
    assert_eq!(put(&tag, b"two"), 204);
    assert_eq!(put(&tag, b"bad"), 412);
    assert_eq!(gateway.get("/f").body, b"two");
}

#[test]
fn the_same_content_again_is_not_written_again() {
    let mut gateway = Gateway::start(&[]);
    for len in [100, 3 << 20] {
        let body = content(4, len);
        let first = gateway.put("/f", &body);
        let file = gateway.root().join("f");
        let inode = |path: &std::path::Path| {
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
        };
        let before = inode(&file);
        let again = gateway.put("/f", &body);
        assert_eq!(again.status, 204);
        for name in ["etag", "last-modified"] {
            assert_eq!(again.header(name), first.header(name));
        }
        assert_eq!(inode(&file), before);
        let metrics = gateway.admin("GET", "/.tierdav/metrics").text().to_string();
        assert!(metrics.contains(&format!("tierdav_unchanged_upload_bytes_total {len}\n")));
        // Conditions count as ever.
        let only_new = gateway.request("PUT", "/f", &[("If-None-Match", "*")], &body);
        assert_eq!(only_new.status, 412);
        gateway.kill_and_restart();
        assert_eq!(gateway.get("/f").header("etag"), first.header("etag"));
        assert!(gateway.get("/f").body == body);
    }
}

#[test]
fn partial_puts_and_patches_change_only_their_range() {
    let gateway = Gateway::start(&[]);
    gateway.put("/f", b"0123456789");
    let reply = gateway.request("PUT", "/f", &[("Content-Range", "bytes 2-4/10")], b"abc");
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(gateway.get("/f").body, b"01abc56789");
    let headers = [
        ("X-Update-Range", "bytes=7-8"),
        ("Content-Type", "application/x-sabredav-partialupdate"),
    ];
    let reply = gateway.request("PATCH", "/f", &headers, b"XY");
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(gateway.get("/f").body, b"01abc56XY9");
}

#[test]
fn a_dropped_put_leaves_the_old_content_and_no_litter() {
    let gateway = Gateway::start(&[]);
    gateway.put("/f", b"old");
    let mut client = gateway.connect();
    client.send_head("PUT", "/f", &[], 2 << 20).unwrap();
    client.send(&[1; 300_000]).unwrap();
    eventually("the upload begins", || litter(&gateway) > 0);
    drop(client);
    eventually("the upload is removed", || litter(&gateway) == 0);
    assert_eq!(gateway.get("/f").body, b"old");
}

#[test]
fn a_put_cut_by_kill_9_leaves_the_old_content_and_no_litter() {
    let mut gateway = Gateway::start(&[]);
    gateway.put("/f", b"old");
    let mut client = gateway.connect();
    client.send_head("PUT", "/f", &[], 2 << 20).unwrap();
    client.send(&[1; 300_000]).unwrap();
    eventually("the upload begins", || litter(&gateway) > 0);
    gateway.kill_and_restart();
    assert_eq!(gateway.get("/f").body, b"old");
    assert_eq!(litter(&gateway), 0);
}

#[test]
fn an_infinite_propfind_is_refused_with_its_condition() {
    let gateway = Gateway::start(&[]);
    for headers in [&[("Depth", "infinity")][..], &[]] {
        let reply = gateway.request("PROPFIND", "/", headers, b"");
        assert_eq!(reply.status, 403);
        assert!(
            reply.text().contains("propfind-finite-depth"),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn a_huge_propfind_body_is_refused_before_it_is_sent() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.connect();
    client
        .send_head("PROPFIND", "/", &[("Depth", "0")], 32 << 20)
        .unwrap();
    assert_eq!(client.reply_head().unwrap().status, 413);
}

#[test]
fn a_file_from_before_1970_has_the_earliest_date_that_can_be_told() {
    let gateway = Gateway::start(&[]);
    let file = std::fs::File::create(gateway.root().join("old")).unwrap();
    let long_ago = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1 << 28);
    file.set_modified(long_ago).unwrap();
    let first = "Thu, 01 Jan 1970 00:00:00 GMT";
    for method in ["GET", "HEAD"] {
        let reply = gateway.request(method, "/old", &[], b"");
        assert_eq!((reply.status, reply.header("last-modified")), (200, first));
    }
    for depth in ["0", "1"] {
        let path = if depth == "0" { "/old" } else { "/" };
        let list = gateway.request("PROPFIND", path, &[("Depth", depth)], b"");
        assert_eq!(list.status, 207);
        assert!(
            list.text().contains("<D:href>/old</D:href>"),
            "{}",
            list.text()
        );
        assert!(list.text().contains(first), "{}", list.text());
    }
    assert!(gateway.get("/").text().contains("01 Jan 1970 00:00:00"));
    let since = [("If-Modified-Since", first)];
    assert_eq!(gateway.request("GET", "/old", &since, b"").status, 304);
}

#[test]
fn a_symbolic_link_out_of_the_root_does_not_exist() {
    let gateway = Gateway::start(&[]);
    std::os::unix::fs::symlink("/etc/passwd", gateway.root().join("leak")).unwrap();
    assert_eq!(gateway.get("/leak").status, 404);
    let list = gateway.request("PROPFIND", "/", &[("Depth", "1")], b"");
    assert_eq!(list.status, 207);
    assert!(!list.text().contains("leak"), "{}", list.text());
}

#[test]
fn the_hidden_directory_and_bad_names_are_unreachable() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.get("/.tierdav").status, 404);
    assert_eq!(gateway.get("/.tierdav/format").status, 404);
    assert_eq!(gateway.get("/%FF").status, 400);
    let longest = format!("/{}", "n".repeat(255));
    for name in [longest.as_str(), "/a%20b", "/a%23b", "/a%3Fb", "/a%25b"] {
        assert_eq!(gateway.put(name, name.as_bytes()).status, 201, "{name}");
        assert_eq!(gateway.get(name).body, name.as_bytes());
    }
    let list = gateway
        .request("PROPFIND", "/", &[("Depth", "1")], b"")
        .text();
    assert!(!list.contains(".tierdav"), "{list}");
    assert!(list.contains("/a%25b") && list.contains("/a%23b"), "{list}");
}

#[test]
fn a_delayed_put_under_a_lock_outlives_restarts() {
    let mut gateway = Gateway::start(&[]);
    for (path, kill) in [("/term", false), ("/kill", true)] {
        let token = lock(&gateway, path, 201);
        if kill {
            gateway.kill_and_restart();
        } else {
            assert_eq!(gateway.terminate(), Some(0));
            gateway.restart();
        }
        assert_eq!(gateway.put(path, b"stranger").status, 423);
        let condition = format!("<http://{}{path}> ({token})", gateway.address);
        let reply = gateway.request("PUT", path, &[("If", &condition)], b"late");
        assert!(matches!(reply.status, 201 | 204), "{}", reply.status);
        assert_eq!(gateway.get(path).body, b"late");
    }
}

#[test]
fn a_locked_source_moves_with_only_its_own_token() {
    let gateway = Gateway::start(&[]);
    gateway.put("/a", b"x");
    let token = lock(&gateway, "/a", 200);
    let condition = format!("<http://{}/a> ({token})", gateway.address);
    let headers = [("Destination", "/b"), ("If", condition.as_str())];
    assert_eq!(
        gateway.request("MOVE", "/a", &headers[..1], b"").status,
        423
    );
    assert_eq!(gateway.request("MOVE", "/a", &headers, b"").status, 201);
    assert_eq!(gateway.get("/b").body, b"x");
}

#[test]
fn a_get_finishes_on_sigterm() {
    let mut gateway = Gateway::start(&[]);
    let big = content(7, 24 << 20);
    assert_eq!(gateway.put("/big", &big).status, 201);
    let mut client = gateway.connect();
    client.send_head("GET", "/big", &[], 0).unwrap();
    assert_eq!(client.reply_head().unwrap().status, 200);
    gateway.signal_term();
    let address = gateway.address;
    eventually("new connections are refused", || {
        Client::connect(address).is_err()
    });
    let mut body = vec![0; big.len()];
    client.read_exact(&mut body).unwrap();
    assert!(body == big, "the body differs");
    drop(client);
    assert_eq!(gateway.terminate(), Some(0));
}
