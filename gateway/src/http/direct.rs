//! Streams whose socket may be written to by other calls than theirs: a file is sent by the kernel itself (sendfile(2)), which
//! spares copying its bytes twice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

/// Writes to a socket without waiting, and says how much it wrote: zero is never "try again".
pub type Write<'a> = &'a mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>;

/// A stream that may have its socket written to.
pub trait Direct: AsyncWrite {
    /// Whether it may: not if what is written is changed on its way (TLS).
    fn is_direct(&self) -> bool {
        false
    }

    /// Calls `write` when the socket takes something.
    ///
    /// # Errors
    /// Those of `write`; `Unsupported` if the stream is not direct.
    fn poll_direct(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _write: Write<'_>,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Direct for TcpStream {
    fn is_direct(&self) -> bool {
        true
    }

    fn poll_direct(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        write: Write<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_io(Interest::WRITABLE, || write(self.as_fd())) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl<S> Direct for tokio_rustls::server::TlsStream<S> where Self: AsyncWrite {}

#[cfg(test)]
impl Direct for tokio::io::DuplexStream {}
