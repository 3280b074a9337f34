//! HTTP/2 streams whose peer must take what is there of a reply within a time limit.
//!
//! Each stream has a window of its own, and hyper asks a body for no more than the window has room for. While the peer opens
//! none, nothing is written, so [`Stalling`](super::stall::Stalling) sees nothing; a ping is answered all the same.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::rt::Executor;
use tokio::time::Instant;

use crate::dav::Body;

/// Most of a body that a stream gets at a time: whoever takes this much within the limit is slow, not stalled.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Most that may wait in h2 when the stream's task has ended, where no limit reaches it.
const LAST_BYTES_MAX: usize = 16 << 10;

/// Whom a stream waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// There is no reply yet, or its next bytes are being read.
    Us,
    /// To take what it got, since then.
    Peer(Instant),
}

tokio::task_local! {
    static WAIT: Cell<Wait>;
}

fn waits_for(wait: Wait) {
    // Outside of a stream there is no limit.
    let _ = WAIT.try_with(|w| w.set(wait));
}

/// Runs the streams of HTTP/2 connections. One is reset when its peer has not taken a piece for `limit`, at the latest after twice
/// that.
#[derive(Debug, Clone)]
pub struct Streams {
    pub limit: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let limit = self.limit;
        let limited = async move {
            tokio::select! {
                biased;
                () = stream => {}
                // Hyper drops what it had of the stream, so that h2 resets it and forgets what was not sent.
                () = stalled(limit) => tracing::debug!("a stream is reset: its peer takes no bytes"),
            }
        };
        tokio::spawn(WAIT.scope(Cell::new(Wait::Us), limited));
    }
}

async fn stalled(limit: Duration) {
    loop {
        let until = match WAIT.with(Cell::get) {
            Wait::Us => Instant::now(),
            Wait::Peer(since) => since,
        } + limit;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// A stream's reply, in pieces.
pub struct Paced {
    body: Body,
    rest: Bytes,
}

impl Paced {
    pub fn wrap(body: Body) -> Body {
        waits_for(Wait::Peer(Instant::now()));
        let rest = Bytes::new();
        Paced { body, rest }.boxed_unsync()
    }

    /// Of more than [`LAST_BYTES_MAX`] the last byte is a piece of its own: hyper hands it over once the window has room for all
    /// before it.
    fn piece(&mut self) -> Frame<Bytes> {
        let len = match self.rest.len() {
            len @ ..=LAST_BYTES_MAX => len,
            len => (len - 1).min(PIECE_BYTES_MAX),
        };
        Frame::data(self.rest.split_to(len))
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => {
                    waits_for(Wait::Us);
                    return other;
                }
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        waits_for(Wait::Peer(Instant::now()));
        Poll::Ready(Some(Ok(self.piece())))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::{pending, poll_fn};
    use tokio::sync::oneshot;

    const LIMIT: Duration = Duration::from_secs(60);

    fn run(stream: impl Future<Output = ()> + Send + 'static) -> oneshot::Receiver<()> {
        let (alive, ended) = oneshot::channel::<()>();
        Streams { limit: LIMIT }.execute(async move {
            stream.await;
            drop(alive);
        });
        ended
    }

    async fn read(body: &mut Body) -> Bytes {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_whose_peer_takes_nothing_is_ended() {
        let reply = || crate::dav::body::full(vec![7; 3 * PIECE_BYTES_MAX]);
        // Its handler is at work, or its next bytes are being read.
        let mut at_work = run(pending());
        let mut reading = run(async {
            let mut body = Paced::wrap(pending_body());
            poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        });
        let stalled = run(async move {
            let mut body = Paced::wrap(reply());
            read(&mut body).await;
            pending::<()>().await;
        });
        let slow = run(async move {
            let mut body = Paced::wrap(reply());
            while !body.is_end_stream() {
                tokio::time::sleep(LIMIT * 3 / 4).await;
                read(&mut body).await;
            }
            tokio::time::sleep(LIMIT / 4).await;
            waits_for(Wait::Us);
            tokio::time::sleep(LIMIT * 10).await;
        });
        let began = Instant::now();
        let _ = stalled.await;
        assert!((LIMIT..=LIMIT * 2).contains(&began.elapsed()));
        let _ = slow.await;
        assert!(began.elapsed() > LIMIT * 12);
        assert!(at_work.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        assert!(reading.try_recv() == Err(oneshot::error::TryRecvError::Empty));
    }

    fn pending_body() -> Body {
        http_body_util::StreamBody::new(futures_util::stream::pending()).boxed_unsync()
    }

    #[tokio::test]
    async fn the_pieces_are_the_whole_and_only_a_small_one_is_last() {
        for len in [
            0,
            1,
            LAST_BYTES_MAX,
            LAST_BYTES_MAX + 1,
            PIECE_BYTES_MAX + 1,
            500_000,
        ] {
            let whole = Bytes::from((0..len).map(|n| n as u8).collect::<Vec<_>>());
            let mut body = Paced::wrap(crate::dav::body::full(whole.clone()));
            let (mut got, mut last) = (Vec::new(), 0);
            assert_eq!(body.size_hint().exact(), Some(len as u64));
            while !body.is_end_stream() {
                let piece = read(&mut body).await;
                last = piece.len();
                assert!(last <= PIECE_BYTES_MAX);
                got.extend_from_slice(&piece);
                assert_eq!(body.size_hint().exact(), Some((len - got.len()) as u64));
            }
            assert!(got == whole && last <= LAST_BYTES_MAX, "{len}: {last}");
        }
    }
}
