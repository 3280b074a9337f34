//! Recording through the proxy, in front of the real gateway and of servers that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Gateway;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use trace_replay::read::open;
use trace_replay::trace::{Entry, Op, Outcome};

#[test]
fn gateway_process() {
    common::serve();
}

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_trace-replay"))
}

/// A capture that runs; its address is what it prints.
struct Capture {
    child: Child,
    address: String,
    trace: PathBuf,
    said: BufReader<std::process::ChildStderr>,
}

impl Capture {
    fn start(target: &str, dir: &Path) -> Capture {
        let trace = dir.join("t.csv");
        let mut child = tool()
            .args(["capture", "--proxy", &format!("127.0.0.1:0={target}"), "-o"])
            .arg(&trace)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.split(' ').next().unwrap();
        let address = address.strip_prefix("http://").unwrap().to_string();
        Capture {
            child,
            address,
            trace,
            said,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Ctrl-C, then the trace and what was said of it.
    fn end(mut self) -> (Vec<Entry>, String) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let mut text = String::new();
        self.said.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        let mut reader = open(&self.trace).unwrap();
        let entries = std::iter::from_fn(|| reader.next_entry());
        (entries.map(Result::unwrap).collect(), text)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn replay(trace: &Path, url: &str, prefix: &str) -> Output {
    let mut command = tool();
    command.args([
        "replay", "--quiet", "--json", "--target", url, "--prefix", prefix,
    ]);
    command.arg(trace).output().unwrap()
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_replay_through_the_proxy_is_recorded_whole_and_replays_clean() {
    let gateway = Gateway::start();
    let dir = tempfile::tempdir().unwrap();
    let smoke = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/es/smoke.csv.xz");
    let capture = Capture::start(gateway.base(), dir.path());
    let trace = capture.trace.clone();
    let through = replay(&smoke, &format!("http://{}/", capture.address), "/a");
    assert!(through.status.success(), "{through:?}");
    let (entries, said) = capture.end();
    assert!(!said.contains("not used"), "{said}");
    let first: serde_json::Value = serde_json::from_slice(&through.stdout).unwrap();
    // Each request of the replay, and of its set-up and reading back, is one entry with its bytes.
    let sum = |field: &str| {
        let phases = ["set_up", "replay", "read_back"];
        phases
            .iter()
            .map(|p| first[p][field].as_u64().unwrap())
            .sum::<u64>()
    };
    // One more: MKCOL of the prefix.
    assert_eq!(entries.len() as u64, sum("requests") + 1);
    let bytes = |op: fn(Op) -> bool| {
        entries
            .iter()
            .filter(|e| op(e.op))
            .map(|e| e.length)
            .sum::<u64>()
    };
    assert_eq!(bytes(Op::writes), sum("written_bytes"));
    assert_eq!(bytes(Op::reads), sum("read_bytes"));
    assert!(
        entries
            .iter()
            .all(|e| e.latency_us > 0 && &*e.client == "127.0.0.1")
    );
    let again = replay(&trace, &gateway.url, "/again");
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stdout)
    );
    // Same files with the same sizes; the content differs, as it derives from other versions.
    let sizes = |sub: &str| -> BTreeMap<String, usize> {
        let dir = gateway.dir.path().join("root").join(sub);
        files(&dir)
            .into_iter()
            .map(|(name, bytes)| (name, bytes.len()))
            .collect()
    };
    let recorded = sizes("a");
    assert!(recorded.len() > 100);
    assert_eq!(recorded, sizes("again/a"));
}

/// Sends one request and reads the answer's head and as much body as its Content-Length says.
fn ask(stream: &mut TcpStream, request: &str) -> (String, Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

fn answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.to_lowercase();
    let length = length
        .split_once("content-length: ")
        .map(|(_, l)| l.split('\r').next().unwrap().parse().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    if !head.starts_with("HTTP/1.1 304") {
        stream.read_exact(&mut body).unwrap();
    }
    (head, body)
}

#[test]
fn ranges_destinations_and_failures_are_taken_down_as_they_were() {
    let gateway = Gateway::start();
    let dir = tempfile::tempdir().unwrap();
    let capture = Capture::start(gateway.base(), dir.path());
    let mut client = capture.connect();
    let host = capture.address.clone();
    let mut say = |text: &str| ask(&mut client, &text.replace("HOST", &host)).0;
    for (request, status) in [
        ("MKCOL /d/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 201),
        (
            "PUT /d/a%20b HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello",
            201,
        ),
        (
            "PUT /d/a%20b HTTP/1.1\r\nHost: HOST\r\nContent-Range: bytes 3-5/*\r\nContent-Length: 3\r\n\r\nLO!",
            204,
        ),
        (
            "GET /d/a%20b HTTP/1.1\r\nHost: HOST\r\nRange: bytes=-4\r\n\r\n",
            206,
        ),
        (
            "PROPFIND /d/ HTTP/1.1\r\nHost: HOST\r\nDepth: 0\r\nContent-Length: 0\r\n\r\n",
            207,
        ),
        (
            "MOVE /d/a%20b HTTP/1.1\r\nHost: HOST\r\nDestination: http://HOST/d/%C3%BC\r\n\r\n",
            201,
        ),
        (
            "GET /d/a%20b HTTP/1.1\r\nHost: HOST\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n",
            404,
        ),
        (
            "PUT /d/g HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            201,
        ),
        (
            "REPORT /d/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
            501,
        ),
    ] {
        let head = say(request);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{head}"
        );
    }
    drop(client);
    let (entries, said) = capture.end();
    let short = |e: &Entry| {
        let status = match e.outcome {
            Outcome::Status(status) => status,
            _ => 0,
        };
        (
            e.op,
            e.path.to_string(),
            e.offset,
            e.length,
            e.ranged,
            status,
        )
    };
    let row = |op, path: &str, offset, length, ranged, status| {
        (op, path.to_string(), offset, length, ranged, status)
    };
    let expected = [
        row(Op::DavMkcol, "d", 0, 0, false, 201),
        row(Op::DavPut, "d/a b", 0, 5, false, 201),
        row(Op::DavPut, "d/a b", 3, 3, true, 204),
        row(Op::DavGet, "d/a b", 2, 4, true, 206),
        row(Op::DavStat, "d", 0, 0, false, 207),
        row(Op::DavMove, "d/a b", 0, 0, false, 201),
        row(Op::DavGet, "d/a b", 0, 0, false, 404),
        row(Op::DavPut, "d/g", 0, 5, false, 201),
    ];
    assert_eq!(entries.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(entries[5].path2.as_deref(), Some("d/\u{fc}"));
    assert!(entries.iter().all(|e| &*e.thread == "1"));
    assert!(
        said.contains("method that traces do not have: REPORT /d/"),
        "{said}"
    );
}

/// Reads until this has come.
fn read_to(stream: &mut TcpStream, end: &[u8]) {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

/// Closes it for good: a program that a test beside this one starts just then has a copy of it for a moment.
fn end(socket: impl std::os::fd::AsFd) {
    rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap();
}

#[test]
fn bodies_stream_in_both_directions_and_what_breaks_off_is_counted() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let capture = Capture::start(
        &format!("http://{}", server.local_addr().unwrap()),
        dir.path(),
    );
    let mut client = capture.connect();
    client
        .write_all(b"PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfirst")
        .unwrap();
    let (mut upstream, _) = server.accept().unwrap();
    // The first half arrives while the second has not been sent.
    read_to(&mut upstream, b"first");
    client.write_all(b"later").unwrap();
    upstream.read_exact(&mut [0; 5]).unwrap();
    upstream
        .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nabc")
        .unwrap();
    read_to(&mut client, b"abc");
    upstream.write_all(b"def").unwrap();
    read_to(&mut client, b"def");
    // The kept connection is closed before the next request: a new one is made without the client's noticing.
    end(upstream);
    client
        .write_all(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    let (mut upstream, _) = server.accept().unwrap();
    let mut request = [0; 14];
    upstream.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"GET /f HTTP/1.");
    upstream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly a part")
        .unwrap();
    read_to(&mut client, b"only a part");
    end(upstream);
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    // Nobody there.
    end(server);
    let (head, body) = ask(&mut capture.connect(), "GET /g HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("cannot connect"));
    let (entries, said) = capture.end();
    assert_eq!(entries.len(), 1, "{said}");
    assert_eq!((entries[0].op, entries[0].length), (Op::DavPut, 10));
    assert!(
        said.contains("broken off: GET /f") && said.contains("did not answer: GET /g"),
        "{said}"
    );
}

#[test]
fn a_target_that_cannot_be_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (route, why) in [
        ("127.0.0.1:0", "expected LISTEN=TARGET"),
        ("nowhere=http://h", "no address to listen on"),
        ("127.0.0.1:0=https://h", "only http://"),
        ("127.0.0.1:0=http://h/path", "host and port only"),
    ] {
        let out = tool()
            .args(["capture", "-o", "t.csv", "--proxy", route])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(why), "{said}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
