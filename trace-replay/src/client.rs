//! One keep-alive HTTP/1.1 connection to the target.
//!
//! A client of its own, because what it costs is taken from the server that is measured: a request is one write and its
//! answer one read, in buffers that stay, on the task that waits for it.

mod inbox;

use http::Uri;
pub use inbox::{Answer, Malformed};
use inbox::{Chunk, Inbox};
use std::fmt::Display;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::Tls;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port`.
    pub authority: Arc<str>,
    /// Path in front of every request's, encoded, without trailing slash.
    pub prefix: Arc<str>,
    /// Value of the Authorization header.
    pub authorization: Option<http::HeaderValue>,
    /// Set for https.
    pub tls: Option<Tls>,
}

/// A path as it stands in a request.
fn encoded(path: &str) -> impl Display + '_ {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(path, KEEP)
}

/// A prefix and what is beneath it.
struct Joined<'a, T>(&'a str, T);

impl<T: Display> Display for Joined<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)?;
        f.write_str("/")?;
        self.1.fmt(f)
    }
}

/// Why a request got no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(Arc<str>, std::io::Error),
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The answer was no HTTP/1.1, or ended early.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

impl Target {
    /// Takes `http[s]://host[:port][/path]`; the system's authorities vouch for https.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn parse(url: &str, prefix: &str) -> Result<Target, String> {
        Target::trusting(url, prefix, None)
    }

    /// The same; the authorities in a PEM file vouch for https.
    ///
    /// # Errors
    /// What is wrong with the address or the file.
    pub fn trusting(url: &str, prefix: &str, ca_file: Option<&Path>) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|e| format!("--target {url}: {e}"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!(
                    "--target {url}: an address begins with http:// or https://"
                ));
            }
        };
        let host = uri
            .host()
            .ok_or_else(|| format!("--target {url}: no host"))?;
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            let why = "--target: an address has no user and password; give them with --user and --password-file";
            return Err(why.into());
        }
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = secure
            .then(|| Tls::new(host, ca_file).map_err(|e| format!("--target {url}: {e}")))
            .transpose()?;
        // An address is encoded already; a prefix is a path, as in a trace.
        let prefix = format!(
            "{}/{}",
            uri.path().trim_end_matches('/'),
            encoded(prefix.trim_matches('/'))
        );
        Ok(Target {
            authority: format!("{host}:{port}").into(),
            prefix: prefix.trim_end_matches('/').into(),
            authorization: None,
            tls,
        })
    }

    /// The request target of a path below the prefix.
    pub fn request_path<'a>(&'a self, path: &'a str) -> impl Display + 'a {
        Joined(&self.prefix, encoded(path))
    }

    /// The absolute URL of a path, for Destination and If.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}", self.origin(), self.request_path(path))
    }

    /// Scheme and authority.
    pub fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// Bytes in both directions, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where the bytes of a request's body come from, a piece at a time.
pub trait Source: Send {
    /// How many there are; `None` for a request without a body.
    fn length(&self) -> Option<u64>;
    /// Appends the next of them to `out`; nothing at their end.
    fn next(&mut self, out: &mut Vec<u8>);
}

/// No body.
impl Source for () {
    fn length(&self) -> Option<u64> {
        None
    }
    fn next(&mut self, _: &mut Vec<u8>) {}
}

/// A body that is there.
impl Source for &'static str {
    fn length(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
    fn next(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(std::mem::take(self).as_bytes());
    }
}

/// A connection that is opened when needed and again after it broke.
///
/// A request is begun, gets its headers, and is sent; then its body is read to the end: `begin`, `header`, `send`, `body`.
/// A future dropped on the way leaves a connection to be closed with [`Connection::close`].
pub struct Connection {
    target: Target,
    /// The headers that each request has.
    common: Vec<u8>,
    stream: Option<Box<dyn Stream>>,
    out: Vec<u8>,
    inbox: Inbox,
    /// Connections opened.
    pub opened: u64,
}

impl Connection {
    /// Opens nothing yet.
    pub fn new(target: Target) -> Connection {
        let mut common = b" HTTP/1.1\r\nHost: ".to_vec();
        common.extend_from_slice(target.authority.as_bytes());
        common.extend_from_slice(b"\r\n");
        if let Some(authorization) = &target.authorization {
            common.extend_from_slice(b"Authorization: ");
            common.extend_from_slice(authorization.as_bytes());
            common.extend_from_slice(b"\r\n");
        }
        Connection {
            target,
            common,
            stream: None,
            out: Vec::new(),
            inbox: Inbox::default(),
            opened: 0,
        }
    }

    /// Whether the next request goes over a connection that has been used before.
    pub fn is_reused(&self) -> bool {
        self.stream.is_some()
    }

    /// Begins a request for `path`, which is encoded already.
    pub fn begin(&mut self, method: &str, path: impl Display) {
        self.out.clear();
        self.out.extend_from_slice(method.as_bytes());
        self.out.push(b' ');
        // A vector takes everything.
        let _ = write!(self.out, "{path}");
        self.out.extend_from_slice(&self.common);
        self.inbox.expect(method == "HEAD");
    }

    /// Adds a header to the request that was begun.
    pub fn header(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.out, "{name}: {value}\r\n");
    }

    /// Sends the request with its body, and waits for the answer's head.
    ///
    /// # Errors
    /// When there is no connection, or no answer. The connection is closed then.
    pub async fn send(&mut self, mut body: impl Source) -> Result<&Answer, ClientError> {
        if let Some(length) = body.length() {
            self.header("Content-Length", length);
        }
        self.out.extend_from_slice(b"\r\n");
        body.next(&mut self.out);
        if self.is_over().await {
            self.close();
        }
        if self.stream.is_none() {
            self.stream = Some(self.connect().await?);
        }
        let answered = self.converse(&mut body).await;
        if answered.is_err() {
            self.close();
        }
        answered?;
        Ok(&self.inbox.answer)
    }

    /// Whether the server has closed the connection, or said something unasked, as far as that is known without waiting.
    async fn is_over(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let inbox = &mut self.inbox;
        inbox.has_surplus()
            || poll_fn(|cx| {
                let mut space = ReadBuf::new(inbox.space());
                Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut space).is_ready())
            })
            .await
    }

    async fn converse(&mut self, body: &mut impl Source) -> Result<(), ClientError> {
        while !self.out.is_empty() {
            if self.write().await? {
                self.out.clear();
                body.next(&mut self.out);
            } else if self.head().await? >= 200 {
                // Answered before the request's end: a refusal. The rest is never sent.
                self.inbox.answer.closes = true;
                return Ok(());
            }
        }
        while self.head().await? < 200 {}
        Ok(())
    }

    /// Writes `out`, unless an answer comes first; says whether all was written.
    async fn write(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (out, inbox, mut at) = (&mut self.out, &mut self.inbox, 0);
        let all = poll_fn(|cx| {
            loop {
                if at == out.len() {
                    return Poll::Ready(Ok(true));
                }
                match Pin::new(&mut *stream).poll_write(cx, &out[at..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => at += written,
                    // Who refuses a body may close the connection; the answer may be there all the same.
                    Poll::Ready(Err(_)) if at > 0 => return Poll::Ready(Ok(false)),
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {
                        let mut space = ReadBuf::new(inbox.space());
                        return match Pin::new(&mut *stream).poll_read(cx, &mut space) {
                            Poll::Pending => Poll::Pending,
                            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                            Poll::Ready(Ok(())) => {
                                let read = space.filled().len();
                                inbox.received(read);
                                match read {
                                    0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                                    _ => Poll::Ready(Ok(false)),
                                }
                            }
                        };
                    }
                }
            }
        })
        .await?;
        if all {
            stream.flush().await?;
        } else {
            out.drain(..at);
        }
        Ok(all)
    }

    /// Reads to the end of a head; answers with its status.
    async fn head(&mut self) -> Result<u16, ClientError> {
        while !self.inbox.head()? {
            if self.more().await? == 0 {
                return Err(Malformed::Ended.into());
            }
        }
        Ok(self.inbox.answer.status)
    }

    async fn more(&mut self) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let read = stream.read(self.inbox.space()).await?;
        self.inbox.received(read);
        Ok(read)
    }

    /// The next bytes of the answer's body; `None` at its end.
    ///
    /// # Errors
    /// When the answer breaks off. The connection is closed then.
    pub async fn body(&mut self) -> Result<Option<&[u8]>, ClientError> {
        loop {
            let more = match self.inbox.chunk() {
                Ok(Chunk::Bytes(range)) => return Ok(Some(self.inbox.bytes(range))),
                Ok(Chunk::End) => {
                    if self.inbox.answer.closes {
                        self.close();
                    }
                    return Ok(None);
                }
                Ok(Chunk::More) => self.more().await.map_err(ClientError::from),
                Err(e) => Err(e.into()),
            };
            let ended = match more {
                Ok(0) => self.inbox.ended().map_err(ClientError::from),
                Ok(_) => Ok(()),
                Err(e) => Err(e),
            };
            if let Err(e) = ended {
                self.close();
                return Err(e);
            }
        }
    }

    /// Reads the answer's body to its end, for nothing.
    ///
    /// # Errors
    /// As [`Connection::body`].
    pub async fn skip_body(&mut self) -> Result<(), ClientError> {
        while self.body().await?.is_some() {}
        Ok(())
    }

    async fn connect(&mut self) -> Result<Box<dyn Stream>, ClientError> {
        let failed = |e| ClientError::Connect(self.target.authority.clone(), e);
        let stream = TcpStream::connect(&*self.target.authority)
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let stream: Box<dyn Stream> = match &self.target.tls {
            Some(tls) => Box::new(tls.connect(stream).await.map_err(failed)?),
            None => Box::new(stream),
        };
        self.opened += 1;
        Ok(stream)
    }

    /// Drops the connection: its answer was not read to the end.
    pub fn close(&mut self) {
        self.stream = None;
        self.inbox.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_encoded_as_paths_are() -> Result<(), String> {
        assert!(Target::parse("http://u:p@h/", "").is_err_and(|why| why.contains("--user")));
        let target = Target::parse("http://h:80/a%20b/", "/my run/50%?#")?;
        let there = target.request_path("c d").to_string();
        assert_eq!(there, "/a%20b/my%20run/50%25%3F%23/c%20d");
        Ok(())
    }
}
