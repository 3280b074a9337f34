//! What a request may be: lengths, protocols, connections; readiness while the server starts and stops; and a root that is full.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::disk::Disk;
use common::{Client, Gateway, content, eventually};

#[test]
fn what_is_too_long_is_refused_with_its_own_status() {
    let gateway = Gateway::start(&["--max-header-bytes", "32KiB", "--max-body-bytes", "1MiB"]);
    let path = format!("/{}", "a/".repeat(9000));
    assert_eq!(gateway.get(&path).status, 414);
    // Up to and beyond what is read at a time; of requests that hyper alone looks at (chunked), too.
    for len in [31_000, 40_000, 120_000, 400_000] {
        let big = "b".repeat(len);
        let status = if len < 32 << 10 { 200 } else { 431 };
        assert_eq!(
            gateway.request("GET", "/", &[("X-Big", &big)], b"").status,
            status,
            "{len}"
        );
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        let head = format!(
            "PUT /h HTTP/1.1\r\nHost: x\r\nX-Big: {big}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let sent = stream.write_all(format!("{head}1\r\nx\r\n0\r\n\r\n").as_bytes());
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap();
        let status = if status == 200 { "201" } else { "431" };
        assert_eq!(
            String::from_utf8_lossy(&reply),
            format!("HTTP/1.1 {status}"),
            "{len}: {sent:?}"
        );
        gateway.request("DELETE", "/h", &[], b"");
    }
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|n| (n.as_str(), "v")).collect();
    assert_eq!(gateway.request("GET", "/", &many, b"").status, 431);
    // Refused before the body is sent.
    let mut client = gateway.connect();
    client.send_head("PUT", "/f", &[], 1 << 30).unwrap();
    assert_eq!(client.reply(false).unwrap().status, 413);
    // A body that does not say its length is cut at the limit.
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let head = "PUT /g HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"80000\r\n".as_slice(), &vec![7; 0x80000], b"\r\n"].concat();
    for _ in 0..4 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 413");
    for name in ["f", "g"] {
        assert_eq!(gateway.get(&format!("/{name}")).status, 404);
    }
}

#[test]
fn http2_without_tls_is_served_with_prior_knowledge_and_an_upgrade_is_ignored() {
    let gateway = Gateway::start(&[]);
    gateway.put("/f", b"either way");
    let upgrade = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ];
    let reply = gateway.request("GET", "/f", &upgrade, b"");
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, &b"either way"[..])
    );

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (status, version, body) = runtime.block_on(prior_knowledge(gateway.address));
    assert_eq!((status, version), (200, http::Version::HTTP_2));
    assert_eq!(&body[..], b"either way");
}

async fn prior_knowledge(address: SocketAddr) -> (u16, http::Version, bytes::Bytes) {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let http = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp));
    let (mut sender, connection) = http.await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{address}/f"));
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (status, version) = (response.status().as_u16(), response.version());
    let body = response.into_body().collect().await.unwrap();
    (status, version, body.to_bytes())
}

#[test]
fn an_http2_stream_whose_peer_opens_no_window_is_reset_and_the_others_go_on() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let mut gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/big", &content(1, 4 << 20)).status, 201);
    assert_eq!(gateway.put("/small", b"f").status, 201);
    // The limit is for the stream, not for the uploads before it.
    assert_eq!(gateway.terminate(), Some(0));
    gateway.restart_with(&["--body-idle-timeout", "1s"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(gateway.address)
            .await
            .unwrap();
        // The window is opened again as bytes are read here: none are.
        let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1)
            .handshake(TokioIo::new(tcp));
        let (mut sender, connection) = http.await.unwrap();
        tokio::spawn(connection);
        let mut get = |path: &str| {
            let request = http::Request::get(format!("http://{}{path}", gateway.address));
            sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap())
        };
        let stalled = get("/big").await.unwrap().into_body();
        tokio::task::block_in_place(|| {
            eventually("the stream is reset", || {
                gateway.log().contains("complete=false")
            });
        });
        assert!(stalled.collect().await.is_err());
        let other = get("/small").await.unwrap().into_body();
        assert_eq!(&other.collect().await.unwrap().to_bytes()[..], b"f");
    });
}

#[test]
fn more_connections_than_allowed_wait_for_a_slot() {
    let gateway = Gateway::start(&["--max-connections", "2"]);
    let mut first = gateway.connect();
    let mut second = gateway.connect();
    for client in [&mut first, &mut second] {
        assert_eq!(
            client.request("OPTIONS", "/", &[], b"").unwrap().status,
            200
        );
    }
    let mut third = TcpStream::connect(gateway.address).unwrap();
    third
        .write_all(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    third
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut reply = [0; 12];
    assert!(third.read(&mut reply).is_err(), "served beyond the limit");
    drop(first);
    third
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    third.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200");
}

fn ready(admin: SocketAddr) -> Option<u16> {
    let mut client = Client::connect(admin).ok()?;
    let reply = client.request("GET", "/.tierdav/ready", &[], b"").ok()?;
    assert!(reply.status == 200 || !reply.header("retry-after").is_empty());
    Some(reply.status)
}

#[test]
fn ready_says_503_while_starting() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    // Reading the cache's object size holds the start up until somebody writes it.
    let fifo = cache.join("object_size");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let admin = common::address::free();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tierdav"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            &admin.to_string(),
        ])
        .arg("--root")
        .arg(dir.path().join("root"))
        .arg("--cache-dir")
        .arg(&cache)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("an answer", || ready(admin).is_some());
    let starting = ready(admin);
    let mut client = Client::connect(admin).unwrap();
    let health = client.request("GET", "/.tierdav/health", &[], b"");
    std::fs::write(&fifo, "4194304\n").unwrap();
    std::fs::remove_file(&fifo).unwrap();
    eventually("ready", || ready(admin) == Some(200));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((starting, health.unwrap().status), (Some(503), 200));
}

#[test]
fn ready_says_503_until_the_last_request_is_finished() {
    let mut gateway = Gateway::start(&[]);
    let big = content(1, 32 << 20);
    assert_eq!(gateway.put("/big", &big).status, 201);
    let mut client = gateway.connect();
    client.send_head("GET", "/big", &[], 0).unwrap();
    let head = client.reply_head().unwrap();
    assert_eq!(head.status, 200);
    gateway.signal_term();
    eventually("stopping", || ready(gateway.admin) == Some(503));
    // The transfer is still under way: it holds the stop up, and the answer stays.
    assert_eq!(ready(gateway.admin), Some(503));
    let mut body = vec![0; big.len()];
    client.read_exact(&mut body).unwrap();
    assert!(body == big);
    drop(client);
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(ready(gateway.admin), None);
}

#[test]
fn a_second_ctrl_c_ends_the_wait_for_running_requests() {
    let mut gateway = Gateway::start(&["--shutdown-grace", "1h"]);
    assert_eq!(gateway.put("/whole", b"content").status, 201);
    let mut client = gateway.connect();
    client.send_head("PUT", "/part", &[], 1 << 20).unwrap();
    client.send(b"begun").unwrap();
    eventually("it is under way", || {
        let metrics = gateway.admin("GET", "/.tierdav/metrics").text();
        metrics.contains("\ntierdav_requests_in_flight 1\n")
    });
    gateway.signal_int();
    eventually("stopping", || ready(gateway.admin) == Some(503));
    gateway.signal_int();
    assert_eq!(gateway.wait(), Some(0));
    assert!(gateway.log().contains("cut off"), "{}", gateway.log());
    gateway.restart();
    assert_eq!(gateway.get("/whole").body, b"content");
    assert_eq!(gateway.get("/part").status, 404);
}

#[test]
fn uploads_that_a_stop_cuts_off_leave_nothing() {
    let mut gateway = Gateway::start(&["--shutdown-grace", "0s"]);
    let body = content(1, 9 << 20);
    let mut client = gateway.connect();
    client.send_head("PUT", "/part", &[], body.len()).unwrap();
    client.send(&body[..6 << 20]).unwrap();
    let (unfinished, shards) = (
        gateway.root().join(".tierdav/tmp"),
        gateway.cache().join("objects"),
    );
    let left = || {
        let shards = std::fs::read_dir(&shards).unwrap();
        let dirs = shards.map(|shard| shard.unwrap().path());
        dirs.chain([unfinished.clone()])
            .flat_map(|dir| std::fs::read_dir(dir).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    eventually("it is under way", || left().len() > 1);
    gateway.signal_term();
    assert_eq!(gateway.wait(), Some(0));
    assert!(gateway.log().contains("cut off"), "{}", gateway.log());
    let left = left();
    assert!(left.is_empty(), "{left:?}");
}

/// A gateway whose root is a disk of 64 MiB, with a cache elsewhere. What is written stays in that for the time of a test.
fn on_a_small_root(flags: &[&str]) -> (Disk, Gateway) {
    let dir = tempfile::tempdir().unwrap();
    let mkfs = ["mkfs.ext4", "-q", "-F", "-m", "0"];
    let disk = Disk::sized(64 << 20, &mkfs, dir.path().join("root"));
    let dirty = ["--write-policy", "back", "--max-dirty-age", "1h"];
    let flags = dirty.iter().chain(flags).map(|f| (*f).to_owned());
    (disk, Gateway::start_in(dir, flags.collect()))
}

/// Takes every block that is free.
fn fill(root: &Path) {
    let mut how = std::fs::OpenOptions::new();
    let mut filler = how
        .append(true)
        .create(true)
        .open(root.join("filler"))
        .unwrap();
    let blocks =
        |file: &std::fs::File| std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    let mut taken = u64::MAX;
    // What was kept for the metadata of a write is free after it.
    while blocks(&filler) != taken {
        taken = blocks(&filler);
        for len in [1 << 20, 4096, 1] {
            while filler.write_all(&vec![1; len]).is_ok() {}
        }
        filler.sync_all().unwrap();
    }
    let more = std::fs::write(root.join("one-more"), "x");
    assert!(more.is_err(), "it is not full");
}

#[test]
fn a_root_that_is_full_is_served_and_room_can_be_made_in_it() {
    let (disk, mut gateway) = on_a_small_root(&[]);
    for n in 0..2 {
        assert_eq!(
            gateway.put(&format!("/{n}"), &content(n, 40_000)).status,
            201
        );
    }
    assert_eq!(gateway.admin("POST", "/.tierdav/drain").status, 200);
    assert_eq!(gateway.terminate(), Some(0));
    fill(&gateway.root());
    gateway.restart();
    assert!(gateway.get("/0").body == content(0, 40_000));
    assert_eq!(gateway.request("DELETE", "/0", &[], b"").status, 204);
    // Now with data that only the cache has.
    assert_eq!(gateway.put("/2", &content(2, 20_000)).status, 201);
    fill(&gateway.root());
    assert_eq!(gateway.terminate(), Some(0));
    for _ in 0..2 {
        gateway.restart();
        assert!(gateway.get("/1").body == content(1, 40_000));
        assert!(gateway.get("/2").body == content(2, 20_000));
        gateway.kill();
    }
    gateway.restart();
    assert_eq!(gateway.request("DELETE", "/1", &[], b"").status, 204);
    drop(disk);
}

/// What PROPFIND says of a quota.
fn available(gateway: &Gateway) -> u64 {
    let asked = br#"<propfind xmlns="DAV:"><prop><quota-available-bytes/></prop></propfind>"#;
    let text = gateway
        .request("PROPFIND", "/", &[("Depth", "0")], asked)
        .text();
    let (_, rest) = text.split_once("quota-available-bytes>").unwrap();
    rest.split('<').next().unwrap().parse().unwrap()
}

#[test]
fn a_root_is_promised_no_more_than_it_can_hold_however_large_its_cache() {
    let (disk, gateway) = on_a_small_root(&["--cache-capacity", "1GiB"]);
    let free = available(&gateway);
    let name = |n: u64| format!("/{n}");
    let len = 4_000_000;
    let mut taken = 0;
    let refused = loop {
        let status = gateway.put(&name(taken), &content(taken, len)).status;
        if status != 201 {
            break status;
        }
        taken += 1;
        assert!(taken < 40, "160 MB in {free} bytes");
    };
    assert_eq!(refused, 507);
    assert!(
        taken > 10 && taken <= free / len as u64,
        "{taken} in {free} bytes"
    );
    assert!(available(&gateway) < len as u64);
    let drained = gateway.admin("POST", "/.tierdav/drain");
    assert_eq!(drained.status, 200, "{}", drained.text());
    for n in 0..taken {
        assert!(gateway.get(&name(n)).body == content(n, len), "{n}");
    }
    drop(disk);
}

#[test]
fn a_copy_of_a_collection_is_refused_only_if_it_does_not_fit() {
    let (disk, gateway) = on_a_small_root(&["--cache-dir", "none"]);
    assert_eq!(gateway.request("MKCOL", "/d", &[], b"").status, 201);
    let free = available(&gateway);
    let len = usize::try_from(free / 14).unwrap();
    for n in 0..6 {
        let put = gateway.put(&format!("/d/{n}"), &content(n, len));
        assert_eq!(put.status, 201, "{n}");
    }
    let copy = |to: &str| {
        let to = [("Destination", to)];
        gateway.request("COPY", "/d", &to, b"").status
    };
    assert_eq!((copy("/e"), copy("/f")), (201, 507));
    assert!(gateway.get("/e/5").body == content(5, len));
    drop(disk);
}
