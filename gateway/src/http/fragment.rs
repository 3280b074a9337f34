//! Refuses HTTP/1 request targets with a fragment.
//!
//! `DELETE /a/#b` must not delete `/a/`, but the `http` crate cuts fragments off before anybody sees them. So the
//! connection's stream is wrapped: while no request is being answered, what is read begins with a request line, and a `#`
//! in its target is replaced by a byte that hyper answers with 400. Content is never touched: while a request is being
//! answered nothing is looked at, and what still arrives of its body afterwards is thrown away anyway.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// A connection's stream whose request lines are looked at.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    activity: Activity,
}

impl<S> Guarded<S> {
    /// Wraps a stream; the service counts its requests in `activity`.
    pub fn new(stream: S, activity: Activity) -> Guarded<S> {
        Guarded { stream, activity }
    }
}

/// Replaces the `#` in the request target that `bytes` begin with.
fn spoil(bytes: &mut [u8]) {
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

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.activity.awaits_request_line()
            && let Some(read) = buf.filled_mut().get_mut(before..)
        {
            spoil(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_targets_fragment_is_spoiled() {
        for (line, want) in [
            (
                "DELETE /a/#b HTTP/1.1\r\nX: #\r\n",
                "DELETE /a/\0b HTTP/1.1\r\nX: #\r\n",
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
}
