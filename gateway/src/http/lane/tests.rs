#![allow(clippy::unwrap_used, clippy::panic)]
//! Against the real hyper behind it: whatever is mixed and however it is cut into pieces, every request has its reply, in
//! order, from the one who should give it.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::super::closing::until_closed;
use super::*;

/// Answers what begins with `/q`; a little later, if it begins with `/ql`.
struct Answers;

impl Quick for Answers {
    fn answer(&self, ask: Ask<'_>, _: bool, out: &mut Vec<u8>) -> Option<Answer> {
        let content = format!("quick {}", ask.target);
        if !ask.target.starts_with("/q") {
            return None;
        }
        let len = content.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n").into_bytes();
        let content = match ask.wish {
            Wish::Content(Wanted::Nothing) => Bytes::new(),
            Wish::Content(Wanted::Whole | Wanted::Part(_)) => content.into(),
            Wish::Properties(body) => {
                assert!(body.iter().all(|b| *b == b'p'));
                content.into()
            }
        };
        if ask.target.starts_with("/ql") {
            let slow = ask.target == "/ql-slow";
            return Some(Answer::Later(Box::pin(async move {
                tokio::task::yield_now().await;
                if slow {
                    tokio::time::sleep(Duration::from_secs(50)).await;
                }
                (head, content)
            })));
        }
        out.extend_from_slice(&head);
        Some(Answer::Now(content))
    }
}

async fn serve(stream: tokio::io::DuplexStream) {
    serve_unless_idle(stream, Duration::from_secs(3600)).await;
}

async fn serve_unless_idle(stream: tokio::io::DuplexStream, limit: Duration) {
    serve_by(stream, Answers, limit).await;
}

async fn serve_by<S, Q>(stream: S, quick: Q, limit: Duration)
where
    S: AsyncRead + Direct + Unpin + Send + 'static,
    Q: Quick + Unpin + Send + 'static,
{
    let (_never, stop) = watch::channel(false);
    serve_until(stream, quick, limit, stop).await;
}

async fn serve_until<S, Q>(stream: S, quick: Q, limit: Duration, stop: watch::Receiver<bool>)
where
    S: AsyncRead + Direct + Unpin + Send + 'static,
    Q: Quick + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let seen = activity.clone();
    let lane = Lane::new(stream, quick, activity.clone(), 8192);
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = activity.begin();
        async move {
            let path = request.uri().to_string();
            let body = request
                .into_body()
                .collect()
                .await
                .map_or(0, |b| b.to_bytes().len());
            tokio::task::yield_now().await;
            let text = format!("hyper {path} {body}");
            let len = text.len();
            let reply = Full::new(Bytes::from(text));
            let reply = reply.map_frame(move |frame| {
                let _ends_with_the_body = &busy;
                frame
            });
            let reply = Response::builder()
                .header("content-length", len)
                .body(reply);
            Ok::<_, Infallible>(reply.unwrap())
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(false);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(lane), service);
    let connection = connection.into_owned();
    tokio::select! {
        _ = until_closed(connection, |c| c.graceful_shutdown(), &seen, stop) => {}
        () = seen.idle(limit) => {}
    }
}

/// Hyper has a whole reply in its buffer long before a slow client has it.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_its_time_over_a_reply_is_not_idle() {
    for path in ["/h", "/q"] {
        let path = format!("{path}{}", "x".repeat(300));
        let (ours, mut theirs) = tokio::io::duplex(512);
        let server = tokio::spawn(serve_unless_idle(ours, Duration::from_secs(30)));
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        theirs.write_all(request.as_bytes()).await.unwrap();
        theirs.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        let mut replies = Vec::new();
        theirs.read_to_end(&mut replies).await.unwrap();
        let replies = String::from_utf8(replies).unwrap();
        assert_eq!(replies.matches(&path).count(), 2, "{replies}");
        server.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_answer_takes_its_time_is_not_idle() {
    let (ours, mut theirs) = tokio::io::duplex(512);
    let server = tokio::spawn(serve_unless_idle(ours, Duration::from_secs(30)));
    // Hyper speaks HTTP/1 from the first request on that it gets, and flushes whenever it is asked.
    for (path, said) in [
        ("/h", "hyper /h 0"),
        ("/ql-slow", "quick /ql-slow"),
        ("/q", "quick /q"),
    ] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        theirs.write_all(asked.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut theirs, false).await, said);
    }
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_an_answer_to_come_whatever_was_asked_before() {
    for before in [None, Some("/h"), Some("/q")] {
        let (ours, mut theirs) = tokio::io::duplex(512);
        let (stop, stopped) = watch::channel(false);
        let limit = Duration::from_secs(3600);
        let server = tokio::spawn(serve_until(ours, Answers, limit, stopped));
        if let Some(path) = before {
            let asked = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            theirs.write_all(asked.as_bytes()).await.unwrap();
            reply(&mut theirs, false).await;
        }
        let asked = b"GET /ql-slow HTTP/1.1\r\nHost: x\r\n\r\n";
        theirs.write_all(asked).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.send(true).unwrap();
        assert_eq!(
            reply(&mut theirs, false).await,
            "quick /ql-slow",
            "{before:?}"
        );
        server.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_anything_to_say_ends_at_once_with_a_stop() {
    for asked in [
        "",
        "GET /h HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /q HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let (ours, mut theirs) = tokio::io::duplex(512);
        let (stop, stopped) = watch::channel(false);
        let limit = Duration::from_secs(3600);
        let server = tokio::spawn(serve_until(ours, Answers, limit, stopped));
        theirs.write_all(asked.as_bytes()).await.unwrap();
        let second = Duration::from_secs(1);
        tokio::time::sleep(second).await;
        stop.send(true).unwrap();
        tokio::time::timeout(second, server).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_waits_for_any_more_is_given_up() {
    let (ours, mut theirs) = tokio::io::duplex(512);
    let server = tokio::spawn(serve(ours));
    theirs
        .write_all(b"GET /ql-slow HTTP/1.1\r\nHost: x\r\n\r\nGET /q")
        .await
        .unwrap();
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    drop(theirs);
    tokio::time::timeout(second, server).await.unwrap().unwrap();
}

#[derive(Debug, Clone)]
enum Message {
    Quick { head: bool, later: bool },
    Find(usize),
    Query,
    Put(usize),
    Chunked(usize),
    Plain,
}

impl Message {
    fn bytes(&self, n: usize) -> Vec<u8> {
        let body = |len| {
            b"GET /q-in-body HTTP/1.1\r\nHost: x\r\n\r\n"
                .iter()
                .copied()
                .cycle()
                .take(len)
        };
        match self {
            Message::Quick { head, later } => {
                let method = if *head { "HEAD" } else { "GET" };
                let later = if *later { "l" } else { "" };
                format!("{method} /q{later}{n} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
            }
            Message::Find(len) => {
                let head = format!(
                    "PROPFIND /q{n} HTTP/1.1\r\nHost: x\r\nDepth: 0\r\nContent-Length: {len}\r\n\r\n"
                );
                head.into_bytes()
                    .into_iter()
                    .chain(vec![b'p'; *len])
                    .collect()
            }
            Message::Query => format!("GET /q{n}?x HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            Message::Plain => {
                format!("\r\nGET /h{n} HTTP/1.1\r\nHost: x\r\nRange: x\r\n\r\n").into_bytes()
            }
            Message::Put(len) => {
                let head = format!("PUT /q{n} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n");
                head.into_bytes().into_iter().chain(body(*len)).collect()
            }
            Message::Chunked(len) => {
                let mut out = format!("PUT /q{n} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .into_bytes();
                if *len > 0 {
                    out.extend(format!("{len:x}\r\n").into_bytes());
                    out.extend(body(*len));
                    out.extend(b"\r\n");
                }
                out.extend(b"0\r\n\r\n");
                out
            }
        }
    }

    /// The reply's content: whoever gives it, where that depends on what was sent before.
    fn reply(&self, n: usize) -> Vec<String> {
        let quick = format!("quick /q{n}");
        match self {
            Message::Quick { head: true, .. } => vec![String::new()],
            Message::Quick { later: true, .. } => {
                vec![format!("quick /ql{n}"), format!("hyper /ql{n} 0")]
            }
            Message::Quick { .. } => vec![quick, format!("hyper /q{n} 0")],
            Message::Find(len) => vec![quick, format!("hyper /q{n} {len}")],
            Message::Query => vec![format!("hyper /q{n}?x 0")],
            Message::Plain => vec![format!("hyper /h{n} 0")],
            Message::Put(len) | Message::Chunked(len) => vec![format!("hyper /q{n} {len}")],
        }
    }
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let one = prop_oneof![
        4 => any::<(bool, bool)>().prop_map(|(head, later)| Message::Quick { head, later }),
        2 => prop_oneof![0usize..80, 2000usize..2100].prop_map(Message::Find),
        1 => Just(Message::Query),
        2 => Just(Message::Plain),
        2 => prop_oneof![0usize..80, 4000usize..20_000].prop_map(Message::Put),
        1 => prop_oneof![0usize..80, 4000usize..20_000].prop_map(Message::Chunked),
    ];
    prop::collection::vec(one, 1..12)
}

/// Reads one reply: its content, empty after HEAD.
async fn reply(client: &mut (impl AsyncReadExt + Unpin), head_only: bool) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .unwrap();
    let len = if head_only {
        0
    } else {
        length.parse().unwrap()
    };
    let mut body = vec![0; len];
    client.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

async fn exchange(messages: Vec<Message>, cuts: Vec<usize>, in_turns: bool) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(serve(server));
    let (mut from, mut to) = tokio::io::split(client);
    let numbered: Vec<_> = messages.into_iter().enumerate().collect();
    let sent = numbered.clone();
    let (turn, mut turns) = tokio::sync::mpsc::unbounded_channel();
    let writer = tokio::spawn(async move {
        let mut cuts = cuts.into_iter().cycle();
        for (n, message) in sent {
            let bytes = message.bytes(n);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let cut = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
                to.write_all(&rest[..cut]).await.unwrap();
                rest = &rest[cut..];
                tokio::task::yield_now().await;
            }
            if in_turns {
                turns.recv().await.unwrap();
            }
        }
        to
    });
    for (n, message) in &numbered {
        let got = reply(
            &mut from,
            matches!(message, Message::Quick { head: true, .. }),
        )
        .await;
        assert!(
            message.reply(*n).contains(&got),
            "request {n}, {message:?}: {got:?}"
        );
        let chunked_before = numbered[..*n]
            .iter()
            .any(|(_, m)| matches!(m, Message::Chunked(_)));
        // Whose body comes in pieces, or is long, is hyper's.
        let in_one = !matches!(message, Message::Find(1..));
        if in_turns && in_one && !chunked_before {
            assert_eq!(got, message.reply(*n)[0], "request {n}, {message:?}");
        }
        let _ = turn.send(());
    }
    drop((writer.await.unwrap(), from));
    server.await.unwrap();
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .unwrap()
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_request_has_its_reply_in_order(
        messages in messages(),
        cuts in prop::collection::vec(prop_oneof![1usize..40, 1usize..9000], 1..8),
        in_turns in any::<bool>(),
    ) {
        run(exchange(messages, cuts, in_turns));
    }
}

#[test]
fn a_stop_does_not_cut_an_answer_off() {
    for path in ["/q", "/ql"] {
        run(async move {
            let (mut client, server) = tokio::io::duplex(16);
            let mut lane = Lane::new(server, Answers, Activity::new(), 8192);
            let asked = format!("GET {path} HTTP/1.1\r\nHost: x");
            let read = tokio::spawn(async move {
                client.write_all(asked.as_bytes()).await.unwrap();
                client.write_all(b"\r\n\r\n").await.unwrap();
                let mut got = String::new();
                client.read_to_string(&mut got).await.unwrap();
                got
            });
            // It is to come, or does not fit into the stream, when the stop comes.
            let mut buf = [0; 64];
            let asked = async {
                while !lane.answering && lane.later.is_none() {
                    let _ = futures_util::poll!(Box::pin(lane.read(&mut buf)));
                    tokio::task::yield_now().await
                }
            };
            asked.await;
            lane.shutdown().await.unwrap();
            drop(lane);
            let got = read.await.unwrap();
            assert!(got.ends_with(&format!("\r\n\r\nquick {path}")), "{got:?}");
        });
    }
}

#[test]
fn only_plain_requests_are_asked() {
    let ask = |text: &str| match framing(text.as_bytes()) {
        Framing::Message { ask, .. } => ask.map(|a| {
            (
                a.wish == Wish::Content(Wanted::Nothing),
                a.target.to_owned(),
            )
        }),
        Framing::Incomplete | Framing::Opaque => None,
    };
    let get = |more: &str| format!("GET /a HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    for plain in [
        "",
        "Connection: keep-alive, TE\r\nTE: trailers\r\n",
        "User-Agent: x\r\nAuthorization: Basic eDp5\r\n",
    ] {
        assert_eq!(ask(&get(plain)), Some((false, "/a".to_owned())), "{plain}");
    }
    for other in [
        "Range: bytes=0-1\r\nRange: bytes=0-1\r\n",
        "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n",
        "If-None-Match: \"x\"\r\n",
        "If: (<x>)\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "Depth: 1\r\n",
        "Content-Length: 0\r\n",
        "Authorization: Basic eDp5\r\nAuthorization: Basic eDp6\r\n",
    ] {
        assert_eq!(ask(&get(other)), None, "{other}");
    }
    for line in [
        "PUT /a",
        "GET /a?b",
        "GET /a#b",
        "GET http://x/a",
        "OPTIONS *",
        "DELETE /a",
    ] {
        assert_eq!(
            ask(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")),
            None,
            "{line}"
        );
    }
}

#[test]
fn a_range_is_part_of_what_a_get_asks() {
    let asked = |method: &str| {
        let text =
            format!("{method} /a HTTP/1.1\r\nHost: x\r\nDepth: 0\r\nrange: bytes=5-\r\n\r\n");
        let text = match method {
            "PROPFIND" => text,
            _ => text.replace("Depth: 0\r\n", ""),
        };
        match framing(text.as_bytes()) {
            Framing::Message { ask, .. } => {
                ask.map(|a| a.wish == Wish::Content(Wanted::Part(b"bytes=5-")))
            }
            Framing::Incomplete | Framing::Opaque => None,
        }
    };
    assert_eq!(asked("GET"), Some(true));
    assert_eq!(asked("HEAD"), None);
    assert_eq!(asked("PROPFIND"), None);
}

#[test]
fn only_a_propfind_of_depth_0_with_all_of_a_short_body_is_asked() {
    let asked = |text: String| match framing(text.as_bytes()) {
        Framing::Message { ask, .. } => ask.and_then(|a| match a.wish {
            Wish::Properties(body) => Some(body.len()),
            Wish::Content(_) => None,
        }),
        Framing::Incomplete | Framing::Opaque => None,
    };
    let find = |more: &str, body: usize| {
        format!(
            "PROPFIND /a HTTP/1.1\r\nHost: x\r\n{more}\r\n{}",
            "p".repeat(body)
        )
    };
    let xml = "Depth: 0\r\nContent-Type: text/xml\r\n";
    assert_eq!(asked(find(xml, 0)), Some(0));
    for (announced, sent, want) in [
        (7, 7, Some(7)),
        (7, 9, Some(7)),
        (7, 6, None),
        (2048, 2048, Some(2048)),
        (2049, 2049, None),
    ] {
        let text = find(&format!("{xml}Content-Length: {announced}\r\n"), sent);
        assert_eq!(asked(text), want, "{announced} {sent}");
    }
    for other in [
        "",
        "Depth: 1\r\n",
        "Depth: infinity\r\n",
        "Depth: 0\r\nDepth: 0\r\n",
        "Depth: 0\r\nIf: (<x>)\r\n",
        "Depth: 0\r\nPrefer: return=minimal\r\n",
        "Depth: 0\r\nBrief: t\r\n",
    ] {
        assert_eq!(asked(find(other, 0)), None, "{other}");
    }
    let get = "GET /a HTTP/1.1\r\nHost: x\r\nDepth: 0\r\n\r\n".to_owned();
    assert!(matches!(
        framing(get.as_bytes()),
        Framing::Message { ask: None, .. }
    ));
}

#[test]
fn what_does_not_say_plainly_where_it_ends_is_not_framed() {
    for head in [
        "PUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT /a HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "PUT /a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        "PUT /a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "PUT /a HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "GET /a HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
        "GET /a HTTP/1.0\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        assert_eq!(framing(head.as_bytes()), Framing::Opaque, "{head}");
    }
}

#[test]
fn only_a_targets_fragment_is_spoiled() {
    for (line, want) in [
        (
            "DELETE /a/#b HTTP/1.1\r\nX: #\r\n",
            "DELETE /a/\0b HTTP/1.1\r\nX: #\r\n",
        ),
        (
            "\r\nDELETE /a/#b HTTP/1.1\r\n",
            "\r\nDELETE /a/\0b HTTP/1.1\r\n",
        ),
        (
            "GET /a%23b HTTP/1.1\r\nX: #\r\n\r\nbody #",
            "GET /a%23b HTTP/1.1\r\nX: #\r\n\r\nbody #",
        ),
        ("# not a request #", "# not a request #"),
        ("text a#b", "text a#b"),
        ("", ""),
    ] {
        let mut bytes = line.as_bytes().to_vec();
        spoil(&mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), want);
    }
}

/// Answers what begins with `/q` by a file.
struct Files(FileContent);

impl Quick for Files {
    fn answer(&self, ask: Ask<'_>, files: bool, out: &mut Vec<u8>) -> Option<Answer> {
        if !files || !ask.target.starts_with("/q") {
            return None;
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            self.0.len()
        );
        out.extend_from_slice(head.as_bytes());
        Some(Answer::Sent(self.0.clone(), Box::new(|_, _| {})))
    }
}

const FILE_BYTES: usize = 3_000_000;

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// A client of a server that answers by a file of so many bytes, and the file.
async fn files(len: usize) -> (tokio::net::TcpStream, std::fs::File) {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &pattern(len)).unwrap();
    let content = FileContent::of_test(file.try_clone().unwrap(), len as u64);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    tokio::spawn(serve_by(
        accepted.unwrap().0,
        Files(content),
        Duration::from_secs(3600),
    ));
    (client.unwrap(), file)
}

/// The content of the next reply; what came behind it stays in `got`.
async fn next_content(stream: &mut (impl AsyncRead + Unpin), got: &mut Vec<u8>) -> Vec<u8> {
    loop {
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&got[..end]).unwrap();
            let len = head.to_ascii_lowercase();
            let len = len.split("content-length: ").nth(1).unwrap();
            let len: usize = len.split("\r\n").next().unwrap().parse().unwrap();
            while got.len() < end + 4 + len {
                assert_ne!(stream.read_buf(got).await.unwrap(), 0);
                tokio::task::yield_now().await;
            }
            let rest = got.split_off(end + 4 + len);
            return std::mem::replace(got, rest).split_off(end + 4);
        }
        assert_ne!(stream.read_buf(got).await.unwrap(), 0);
    }
}

#[test]
fn a_slow_client_gets_files_and_other_replies_whole_and_in_order() {
    run(async {
        let pattern = pattern(FILE_BYTES);
        let (mut client, _file) = files(FILE_BYTES).await;
        let mut got = Vec::new();
        // Hyper's replies between those by a file, and several requests at once.
        for paths in [
            &["/q1"][..],
            &["/h"],
            &["/q2", "/q3", "/q4", "/h"],
            &["/q5"],
        ] {
            for path in paths {
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
                client.write_all(request.as_bytes()).await.unwrap();
            }
            for path in paths {
                let content = next_content(&mut client, &mut got).await;
                match path.starts_with("/q") {
                    true => assert!(content == pattern, "{path}"),
                    false => assert_eq!(content, format!("hyper {path} 0").as_bytes()),
                }
            }
        }
        assert!(got.is_empty());
    });
}

#[test]
fn a_file_cut_off_on_its_way_ends_the_connection() {
    run(async {
        // More than sockets hold.
        let len = 50_000_000;
        let (mut client, file) = files(len).await;
        client
            .write_all(b"GET /q HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 1000];
        client.read_exact(&mut first).await.unwrap();
        file.set_len(len as u64 - 1).unwrap();
        let mut rest = Vec::new();
        let ended = client.read_to_end(&mut rest).await;
        assert!(ended.is_err() || rest.len() < len);
    });
}
