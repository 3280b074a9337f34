//! Connections that ask for nothing, and listeners that should not be reachable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Client, Gateway, content, eventually};

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn silent_connections_give_their_slots_back() {
    let limits = ["--max-connections", "4", "--header-timeout", "1s"];
    let gateway = Gateway::start(&limits);
    // Nothing; the first byte of PUT or PRI; half a request line; HTTP/2 without a request.
    let openings: [&[u8]; 4] = [b"", b"P", b"GET /", H2_PREFACE];
    let mut silent: Vec<TcpStream> = openings
        .iter()
        .map(|opening| {
            let mut stream = TcpStream::connect(gateway.address).unwrap();
            stream.write_all(opening).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            stream
        })
        .collect();
    // Again where this test itself was too slow, and its connection closed for it.
    eventually("served after all", || {
        Client::connect(gateway.address)
            .and_then(|mut c| c.request("PUT", "/f", &[], b"served after all"))
            .is_ok_and(|reply| reply.status < 300)
    });
    for (stream, opening) in silent.iter_mut().zip(openings) {
        // To the end: HTTP/2 sends its settings, HTTP/1 may say 408.
        let ended = stream.read_to_end(&mut Vec::new());
        let reset = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(
            ended.as_ref().map_or_else(reset, |_| true),
            "{opening:?}: {ended:?}"
        );
    }
}

#[test]
fn a_slow_upload_is_not_taken_for_silence() {
    let gateway = Gateway::start(&["--header-timeout", "1s"]);
    let mut client = gateway.connect();
    // Again where this test itself was silent for that long before its request.
    eventually("the upload is under way", || {
        client = gateway.connect();
        let sent = client.send_head("PUT", "/f", &[("Expect", "100-continue")], 4);
        sent.and_then(|()| client.reply_head())
            .is_ok_and(|reply| reply.status == 100)
    });
    client.send(b"ab").unwrap();
    let mut idle = gateway.connect();
    // Longer than the limit: until the server has closed the connection beside it.
    assert!(idle.reply(false).is_err());
    client.send(b"cd").unwrap();
    assert_eq!(client.reply(false).unwrap().status, 201);
    assert_eq!(gateway.get("/f").body, b"abcd");
}

#[test]
fn a_silent_admin_connection_gives_way_to_who_asks_for_health() {
    let gateway = Gateway::start(&[]);
    // As many as there are slots.
    let silent: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(gateway.admin).unwrap())
        .collect();
    assert_eq!(gateway.admin("GET", "/.tierdav/health").status, 200);
    // For the oldest of them alone.
    let closed = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&mut &*stream).read(&mut [0]), Ok(0))
    };
    eventually("the oldest is closed", || closed(&silent[0]));
    assert!(!closed(&silent[63]));
}

#[test]
fn stalled_admin_requests_give_their_slots_back() {
    let gateway = Gateway::start(&[]);
    // As many as there are slots, of a body that never comes.
    let request = b"POST /.tierdav/policy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";
    let stalled: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.admin).unwrap();
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    eventually("health is answered", || {
        let reply = Client::connect(gateway.admin)
            .and_then(|mut c| c.request("GET", "/.tierdav/health", &[], b""));
        reply.is_ok_and(|r| r.status == 200)
    });
    drop(stalled);
}

#[test]
fn an_admin_listener_for_everybody_must_be_asked_for() {
    let gateway = Gateway::start(&[]);
    let open = ["--admin-listen", "0.0.0.0:4919"];
    let refused = gateway.command("check-config", &open);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("admin_listen") && text.contains("allow_remote_admin"),
        "{text}"
    );
    let meant = [&open[..], &["--allow-remote-admin"]].concat();
    let meant = gateway.command("check-config", &meant);
    assert!(meant.status.success(), "{meant:?}");
}

/// Long enough to be sent by the kernel, from either tier, while it is overwritten again and again.
#[test]
fn a_long_file_under_overwrites_is_always_one_whole_version() {
    const LEN: usize = 300_000;
    const VERSIONS: u64 = 80;
    for write_policy in ["around", "back"] {
        let gateway = Gateway::start(&["--write-policy", write_policy]);
        let latest = AtomicU64::new(1);
        let body = |version: u64| {
            let mut body = content(version, LEN);
            body[..8].copy_from_slice(&version.to_le_bytes());
            body
        };
        assert_eq!(gateway.put("/long", &body(1)).status, 201);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    while latest.load(Ordering::SeqCst) < VERSIONS {
                        let least = latest.load(Ordering::SeqCst);
                        let reply = client.request("GET", "/long", &[], b"").unwrap();
                        assert_eq!(reply.status, 200);
                        let version = u64::from_le_bytes(reply.body[..8].try_into().unwrap());
                        assert!(version >= least, "{version} after {least}");
                        assert!(reply.body == body(version), "a torn version {version}");
                    }
                });
            }
            for version in 2..=VERSIONS {
                assert_eq!(gateway.put("/long", &body(version)).status, 204);
                latest.store(version, Ordering::SeqCst);
                // Each is read several times, so that it is sent from memory, too.
                for _ in 0..3 {
                    let reply = gateway.get("/long");
                    assert!(reply.body == body(version));
                }
            }
        });
    }
}
