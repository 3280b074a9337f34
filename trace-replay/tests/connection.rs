//! The replayer's connection against servers that behave in ways a gateway rarely does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use trace_replay::client::{ClientError, Connection, Source, Target};

/// A server that has one connection after the other carried out by `serve`, which is told their number.
fn server(
    connections: usize,
    serve: impl Fn(usize, &mut TcpStream) + Send + 'static,
) -> (Target, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        for number in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            serve(number, &mut stream);
        }
    });
    (Target::parse(&url, "/p").unwrap(), thread)
}

/// Reads a request's head.
fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

async fn get(connection: &mut Connection) -> Result<(u16, Vec<u8>), ClientError> {
    connection.begin("GET", "/f");
    let status = connection.send(()).await?.status;
    let mut body = Vec::new();
    while let Some(piece) = connection.body().await? {
        body.extend_from_slice(piece);
    }
    Ok((status, body))
}

/// A body of many pieces.
struct Pieces(u64);

impl Source for Pieces {
    fn length(&self) -> Option<u64> {
        Some(self.0 << 20)
    }
    fn next(&mut self, out: &mut Vec<u8>) {
        if self.0 > 0 {
            self.0 -= 1;
            out.resize(out.len() + (1 << 20), b'x');
        }
    }
}

#[tokio::test]
async fn a_request_is_what_was_begun() {
    let (target, thread) = server(1, |_, stream| {
        let host = stream.local_addr().unwrap();
        assert_eq!(
            head(stream),
            format!(
                "PUT /p/a%20b HTTP/1.1\r\nHost: {host}\r\nIf-Match: \"1\"\r\nContent-Length: 5\r\n\r\n"
            )
        );
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"hello");
        let answer = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 201 Created\r\nETag: \"2\"\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).unwrap();
    });
    let mut connection = Connection::new(target.clone());
    connection.begin("PUT", target.request_path("a b"));
    connection.header("If-Match", "\"1\"");
    let answer = connection.send("hello").await.unwrap();
    assert_eq!((answer.status, answer.etag()), (201, Some("\"2\"")));
    assert!(connection.body().await.unwrap().is_none());
    assert!(connection.is_reused());
    thread.join().unwrap();
}

#[tokio::test]
async fn an_upload_that_is_refused_halfway_has_its_answer() {
    let (seen, sees) = std::sync::mpsc::channel();
    let (target, thread) = server(2, move |_, stream| {
        head(stream);
        let answer = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 4\r\n\r\nfull";
        stream.write_all(answer).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Nothing is read before the answer was, so that the upload cannot come to its end; but then the rest is, or else the
        // kernel would reset the connection.
        sees.recv().unwrap();
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let mut connection = Connection::new(target);
    for _ in 0..2 {
        connection.begin("PUT", "/f");
        let answer = connection.send(Pieces(64)).await.unwrap();
        assert_eq!(answer.status, 507);
        assert_eq!(connection.body().await.unwrap(), Some(&b"full"[..]));
        assert!(connection.body().await.unwrap().is_none());
        // What was not sent would be taken for the next request.
        assert!(!connection.is_reused());
        seen.send(()).unwrap();
    }
    thread.join().unwrap();
}

#[tokio::test]
async fn what_the_server_said_unasked_answers_nothing() {
    let (target, thread) = server(2, |number, stream| {
        head(stream);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(answer).unwrap();
        // The surplus comes in one piece with the body's end, so that it is there when the next request is made.
        let rest = match number {
            0 => &b"okHTTP/1.1 408 Request Timeout\r\n\r\n"[..],
            _ => b"ok",
        };
        stream.write_all(rest).unwrap();
    });
    let mut connection = Connection::new(target);
    for _ in 0..2 {
        let (status, body) = get(&mut connection).await.unwrap();
        assert_eq!((status, &body[..]), (200, &b"ok"[..]));
    }
    assert_eq!(connection.opened, 2);
    thread.join().unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_ends_the_connection() {
    let (target, thread) = server(3, |number, stream| {
        head(stream);
        let answer = match number {
            0 => &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"[..],
            1 => b"",
            _ => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
        };
        stream.write_all(answer).unwrap();
    });
    let mut connection = Connection::new(target);
    for _ in 0..2 {
        let error = get(&mut connection).await.unwrap_err();
        assert!(error.to_string().contains("closed before"), "{error}");
        assert!(!connection.is_reused());
    }
    assert_eq!(get(&mut connection).await.unwrap().1, b"to the end");
    assert!(!connection.is_reused());
    thread.join().unwrap();
}
