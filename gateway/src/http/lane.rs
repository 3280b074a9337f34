//! Answers the plainest requests of an HTTP/1 connection before hyper sees them.
//!
//! A GET of a small file that is in memory costs hyper, its service and the reply's body more time than everything else
//! together, and one of a small file in pools a fifth of it. So the connection's stream is wrapped: whatever hyper would read
//! begins, between two messages, with a request's head, and a head that a [`Quick`] answers never gets to hyper. All others pass
//! on unchanged, byte by byte.
//!
//! Two things must be certain. *Where a message ends*: heads are read by httparse, as hyper does, and what is not plain
//! `Content-Length` framing (chunked bodies, upgrades, HTTP/1.0, HTTP/2, anything malformed) passes on for the rest of the
//! connection. *That no reply is under way*: an answer is given only when every request that passed has had its reply, and hyper
//! has flushed after the last of them ended; hyper flushes its stream only when all it has buffered was written.
//!
//! Request targets with a fragment are spoiled here, too: `DELETE /a/#b` must not delete `/a/`, but the `http` crate cuts
//! fragments off before anybody sees them. A `#` in a target is replaced by a byte that hyper answers with 400.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::HEADERS_MAX;
use super::activity::Activity;
use super::direct::Direct;
use crate::dav::{MEANINGLESS, Wanted};
use crate::metrics::Broken;
use crate::volume::FileContent;

/// Answers given one after the other before other connections get their turn.
const TURN_ANSWERS: usize = 16;
/// Bytes of files sent before that.
const TURN_BYTES: u64 = 2 << 20;
/// Smallest buffer of hyper's into which a head is read directly: it looks for HTTP/2 with 24 bytes.
const DIRECT_BYTES: usize = 1024;
/// What is read at a time otherwise.
const READ_BYTES: usize = 4096;

/// Longest body of a request that is answered here.
const BODY_BYTES_MAX: u64 = 2048;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish<'a> {
    /// GET or HEAD.
    Content(Wanted<'a>),
    /// PROPFIND with `Depth: 0`, and its body.
    Properties(&'a [u8]),
}

/// A request that is plain enough to be answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// What it wants.
    pub wish: Wish<'a>,
    /// The request target: a path, no query, no fragment.
    pub target: &'a str,
    /// The `Authorization` field.
    pub authorization: Option<&'a [u8]>,
}

/// Who answers.
pub trait Quick {
    /// Answers a request, with a file only if `files`; `None` lets it pass, with `out` as it was.
    fn answer(&self, ask: Ask<'_>, files: bool, out: &mut Vec<u8>) -> Option<Answer>;
}

/// An answer.
pub enum Answer {
    /// Its head is in `out`, this is its content.
    Now(Bytes),
    /// Its head is in `out`, the kernel sends this; who wants to know how that went.
    Sent(FileContent, OnSent),
    /// It has to be waited for.
    Later(Later),
}

/// The head and the content of an answer to come.
pub type Later = Pin<Box<dyn Future<Output = (Vec<u8>, Bytes)> + Send>>;

/// Told how many bytes of a file left, and why not all.
pub type OnSent = Box<dyn FnOnce(u64, Option<Broken>) + Send>;

/// What comes next on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A request's head.
    Head,
    /// So many bytes of a message for hyper.
    Body(u64),
    /// Who knows; all of it is hyper's.
    Opaque,
}

/// What a buffer begins with.
#[derive(Debug, PartialEq, Eq)]
enum Framing<'a> {
    /// The beginning of a head.
    Incomplete,
    /// Nothing that is understood here.
    Opaque,
    /// A head of so many bytes, and the body's length.
    Message {
        head: usize,
        body: u64,
        ask: Option<Ask<'a>>,
    },
}

/// A connection's stream, from the client to hyper.
pub struct Lane<S, Q> {
    stream: S,
    quick: Q,
    activity: Activity,
    /// Longest head that is kept here; hyper refuses longer ones.
    head_max: usize,
    next: Next,
    /// Read, but not yet passed on.
    held: Vec<u8>,
    /// The answer that is waited for, and how many of the bytes held it answers.
    later: Option<(Later, usize)>,
    /// Requests that passed.
    passed: usize,
    /// All of them have had their replies, down to the last byte.
    quiet: bool,
    /// The reply that is being written: its head, what of it is written, what is left of its content.
    out: Vec<u8>,
    written: usize,
    content: Bytes,
    file: Option<Sending>,
    /// Bytes of files that may be sent in this turn.
    turn: u64,
    answering: bool,
    /// An answer, or the last write, waits.
    blocked: bool,
}

impl<S, Q> Lane<S, Q> {
    /// Wraps a stream; the service counts its requests in `activity`.
    pub fn new(stream: S, quick: Q, activity: Activity, head_max: usize) -> Lane<S, Q> {
        Lane {
            stream,
            quick,
            activity,
            head_max,
            next: Next::Head,
            held: Vec::new(),
            later: None,
            passed: 0,
            quiet: true,
            out: Vec::new(),
            written: 0,
            content: Bytes::new(),
            file: None,
            turn: 0,
            answering: false,
            blocked: false,
        }
    }

    /// Notes whether something waits: an answer to come, or a write to be taken. An answer that did waits until it is over: hyper
    /// flushes in the meantime.
    fn noted<T>(&mut self, poll: Poll<T>) -> Poll<T> {
        let answering = self.later.is_some() || self.answering;
        let waits = poll.is_pending() || (self.blocked && answering);
        if waits != self.blocked {
            self.blocked = waits;
            self.activity.blocked(waits);
        }
        poll
    }
}

/// A file on its way.
struct Sending {
    content: FileContent,
    sent: u64,
    unreadable: bool,
    on_sent: Option<OnSent>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let broken = match self.sent >= self.content.len() {
            true => None,
            false if self.unreadable => Some(Broken::Unreadable),
            false => Some(Broken::Gone),
        };
        if let Some(tell) = self.on_sent.take() {
            tell(self.sent, broken);
        }
    }
}

impl<S: AsyncRead + Direct + Unpin, Q: Quick + Unpin> Lane<S, Q> {
    /// Waits for the answer that is to come, and writes what is left of it.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some((later, used)) = &mut self.later {
            let (polled, used) = (later.as_mut().poll(cx), *used);
            let polled = self.noted(polled);
            if polled.is_pending() {
                ready!(self.poll_gone(cx))?;
            }
            (self.out, self.content) = ready!(polled);
            self.written = 0;
            self.later = None;
            self.answering = true;
            self.held.drain(..used);
            self.free_held();
            self.activity.touch();
        }
        if !self.answering {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_file(cx))?;
        while self.written < self.out.len() || !self.content.is_empty() {
            let head = self.out.get(self.written..).unwrap_or_default();
            let parts = [io::IoSlice::new(head), io::IoSlice::new(&self.content)];
            let stream = Pin::new(&mut self.stream);
            let of_head = head.len();
            let polled = match head {
                [] => stream.poll_write(cx, &self.content),
                _ => stream.poll_write_vectored(cx, &parts),
            };
            let n = ready!(self.noted(polled))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = n.min(of_head);
            self.written += of_head;
            self.content.advance(n - of_head);
        }
        // A buffering stream (TLS) must not keep it.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.noted(flushed))?;
        self.answering = false;
        self.noted(Poll::Ready(Ok(())))
    }

    /// Ends the connection when the client has gone while its answer is to come: nobody should have to wait for what nobody wants.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() <= self.head_max {
            if ready!(self.poll_held(cx))? == 0 {
                self.later = None;
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Pending
    }

    /// Thousands of idle connections should not keep an empty buffer each.
    fn free_held(&mut self) {
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Reads behind what is held.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = self.held.len();
        self.held.resize(held + READ_BYTES, 0);
        let mut own = ReadBuf::new(self.held.get_mut(held..).unwrap_or_default());
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut own);
        let n = own.filled().len();
        self.held.truncate(held + n);
        polled.map_ok(|()| n)
    }

    /// Has the kernel send the file that the answer consists of, after its head.
    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(Sending { content, sent, .. }) = &self.file {
            if self.turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let head = self.out.get(self.written..).unwrap_or_default();
            let of_head = !head.is_empty();
            let polled = Pin::new(&mut self.stream).poll_direct(cx, &mut |socket| match head {
                [] => content.send(socket, *sent),
                // The kernel may wait for what comes next: a head in a packet of its own is one more to be received.
                _ => {
                    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
                    Ok(rustix::net::send(socket, head, flags)?)
                }
            });
            let polled = ready!(self.noted(polled));
            if let (Err(error), Some(sending)) = (&polled, &mut self.file) {
                sending.unreadable = FileContent::is_trouble(error);
            }
            let n = polled?;
            if of_head {
                self.written += n;
            } else {
                self.turn = self.turn.saturating_sub(n as u64);
                self.file.take_if(|sending| {
                    sending.sent += n as u64;
                    sending.sent >= sending.content.len()
                });
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at `bytes`, where a head is due: answers the request, or lets it pass.
    fn judge(&mut self, bytes: &mut [u8]) -> Judged {
        let framing = framing(bytes);
        let (head, body, ask) = match framing {
            Framing::Incomplete if bytes.len() <= self.head_max => return Judged::Incomplete,
            Framing::Incomplete | Framing::Opaque => {
                spoil(bytes);
                self.next = Next::Opaque;
                return Judged::Passes;
            }
            Framing::Message { head, body, ask } => (head, body, ask),
        };
        if self.quiet
            && let Some(ask) = ask
        {
            self.out.clear();
            self.written = 0;
            let files = self.stream.is_direct();
            if let Some(answer) = self.quick.answer(ask, files, &mut self.out) {
                let body = match ask.wish {
                    Wish::Content(_) => 0,
                    Wish::Properties(body) => body.len(),
                };
                match answer {
                    Answer::Now(bytes) => self.content = bytes,
                    Answer::Sent(content, on_sent) => {
                        self.file = Some(Sending {
                            content,
                            sent: 0,
                            unreadable: false,
                            on_sent: Some(on_sent),
                        });
                    }
                    Answer::Later(later) => {
                        self.later = Some((later, head + body));
                        return Judged::Later;
                    }
                }
                self.answering = true;
                self.activity.touch();
                return Judged::Answered(head + body);
            }
        }
        spoil(bytes);
        self.passed += 1;
        self.quiet = false;
        self.next = Next::Body((head as u64).saturating_add(body));
        Judged::Passes
    }

    /// How many of the next `n` bytes are hyper's.
    fn passing(&self, n: usize) -> usize {
        match self.next {
            Next::Head => 0,
            Next::Body(left) => usize::try_from(left).unwrap_or(usize::MAX).min(n),
            Next::Opaque => n,
        }
    }

    /// Gives hyper what is held, as far as it is hyper's.
    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.passing(buf.remaining().min(self.held.len()));
        buf.put_slice(self.held.get(..n).unwrap_or_default());
        self.held.drain(..n);
        self.gone(n);
    }

    /// `n` bytes have been passed on.
    fn gone(&mut self, n: usize) {
        if let Next::Body(left) = &mut self.next {
            *left = left.saturating_sub(n as u64);
            if *left == 0 {
                self.next = Next::Head;
            }
        }
    }

    /// Leaves in hyper's buffer what is hyper's of what was read behind `before`, and holds the rest but for the first `used`.
    fn divide(&mut self, buf: &mut ReadBuf<'_>, before: usize, used: usize) {
        let ours = self.passing(buf.filled().len() - before);
        let rest = buf.filled().get(before + ours.max(used)..);
        self.held.extend_from_slice(rest.unwrap_or_default());
        buf.set_filled(before + ours);
        self.gone(ours);
    }

    /// Reads into hyper's buffer what is hyper's anyway.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.next == Next::Opaque && self.activity.awaits_request_line() {
            spoil(buf.filled_mut().get_mut(before..).unwrap_or_default());
        }
        // The beginning of the next message may have been read with it.
        self.divide(buf, before, 0);
        Poll::Ready(Ok(()))
    }

    /// Reads where a head is due: into hyper's buffer if that is large enough and nothing is held, else behind what is held.
    /// `true` at the end of the stream.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        if self.held.is_empty() && buf.remaining() >= DIRECT_BYTES {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            // Where it was read is where most of it stays: only what is not hyper's, or not yet, is moved.
            let read = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if read.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let used = match self.judge(read) {
                Judged::Answered(used) => used,
                Judged::Incomplete | Judged::Later | Judged::Passes => 0,
            };
            self.divide(buf, before, used);
            return Poll::Ready(Ok(false));
        }
        let polled = self.poll_held(cx);
        self.free_held();
        Poll::Ready(Ok(ready!(polled)? == 0))
    }
}

/// What became of the bytes where a head was due.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// More are needed.
    Incomplete,
    /// So many of them were a request that has its answer.
    Answered(usize),
    /// They begin with a request that will have its answer: all are to be held until then.
    Later,
    /// They are hyper's, as far as `next` says.
    Passes,
}

impl<S: AsyncRead + Direct + Unpin, Q: Quick + Unpin> AsyncRead for Lane<S, Q> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        this.turn = TURN_BYTES;
        for _ in 0..TURN_ANSWERS {
            ready!(this.poll_answer(cx))?;
            if this.next == Next::Head && !this.held.is_empty() {
                let mut held = std::mem::take(&mut this.held);
                let judged = this.judge(&mut held);
                if let Judged::Answered(used) = judged {
                    held.drain(..used);
                }
                this.held = held;
                if let Judged::Answered(_) | Judged::Later = judged {
                    continue;
                }
            }
            if this.next != Next::Head {
                if this.held.is_empty() {
                    return this.poll_through(cx, buf);
                }
                this.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            let ended = ready!(this.poll_head(cx, buf))?;
            if ended && !this.held.is_empty() {
                // Half a head: hyper knows what to say to that.
                this.next = Next::Opaque;
                continue;
            }
            if ended || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Direct + Unpin, Q: Quick + Unpin> AsyncWrite for Lane<S, Q> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.noted(flushed))?;
        if !self.quiet && self.activity.finished() == self.passed {
            self.quiet = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Hyper does not know of an answer that its stop would cut off.
        self.turn = TURN_BYTES;
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Reads the head that `bytes` begin with.
fn framing(bytes: &[u8]) -> Framing<'_> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Framing::Incomplete,
        Err(_) => return Framing::Opaque,
    };
    let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version)
    else {
        return Framing::Opaque;
    };
    let mut body = None;
    let mut authorization = None;
    let mut plain = true;
    let mut hosts = 0;
    let mut depth = None;
    let mut range = None;
    let mut of_propfind = false;
    for field in request.headers.iter() {
        let name = field.name.as_bytes();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("content-length") {
            let digits = field.value.iter().all(u8::is_ascii_digit);
            let len = std::str::from_utf8(field.value).ok().filter(|_| digits);
            match (body, len.and_then(|l| l.parse().ok())) {
                (None, Some(len)) => body = Some(len),
                _ => return Framing::Opaque,
            }
        } else if is("transfer-encoding") || is("upgrade") {
            return Framing::Opaque;
        } else if is("authorization") {
            plain &= authorization.is_none();
            authorization = Some(field.value);
        } else if is("connection") {
            plain &= keeps_alive(field.value);
        } else if is("depth") {
            of_propfind = true;
            plain &= depth.is_none();
            depth = Some(field.value);
        } else if is("range") {
            plain &= range.is_none();
            range = Some(field.value);
        } else if is("content-type") {
            of_propfind = true;
        } else {
            hosts += usize::from(is("host"));
            plain &= MEANINGLESS.iter().any(|known| is(known));
        }
    }
    plain &= hosts == 1;
    if method == "CONNECT" {
        return Framing::Opaque;
    }
    let path = target.starts_with('/') && !target.contains(['?', '#']);
    let read = body.is_none() && !of_propfind;
    let len = body.unwrap_or(0);
    let wish = match method {
        "GET" if read => Some(Wish::Content(range.map_or(Wanted::Whole, Wanted::Part))),
        "HEAD" if read && range.is_none() => Some(Wish::Content(Wanted::Nothing)),
        "PROPFIND" if range.is_none() && depth == Some(b"0") && len <= BODY_BYTES_MAX => {
            bytes.get(head..head + len as usize).map(Wish::Properties)
        }
        _ => None,
    };
    Framing::Message {
        head,
        body: len,
        ask: wish.filter(|_| plain && path).map(|wish| Ask {
            wish,
            target,
            authorization,
        }),
    }
}

/// Whether a `Connection` field only says that there may be more requests.
fn keeps_alive(value: &[u8]) -> bool {
    let mut options = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    options.all(|o| o.eq_ignore_ascii_case(b"keep-alive") || o.eq_ignore_ascii_case(b"te"))
}

/// Replaces the `#` in the request target that `bytes` begin with.
fn spoil(bytes: &mut [u8]) {
    // Empty lines before a request are skipped by hyper.
    let start = bytes.iter().position(|b| *b != b'\r' && *b != b'\n');
    let bytes = bytes.get_mut(start.unwrap_or(0)..).unwrap_or_default();
    let line_end = bytes
        .iter()
        .position(|b| *b == b'\r' || *b == b'\n')
        .unwrap_or(bytes.len());
    let line = &mut bytes[..line_end];
    let Some(space) = line.iter().position(|b| *b == b' ') else {
        return;
    };
    let method = &line[..space];
    if method.is_empty() || !method.iter().all(u8::is_ascii_uppercase) {
        return;
    }
    let target = &mut line[space + 1..];
    let end = target
        .iter()
        .position(|b| *b == b' ')
        .unwrap_or(target.len());
    if let Some(hash) = target[..end].iter_mut().find(|b| **b == b'#') {
        *hash = 0;
    }
}

#[cfg(test)]
mod tests;
