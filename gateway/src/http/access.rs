//! One log event per request, written when its reply has been sent or broken off.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::activity::Busy;
use crate::dav::{Body, QuickReply, Served, User};

/// What is known when the request arrives.
pub struct Entry {
    method: Method,
    path: String,
    peer: SocketAddr,
    started: Instant,
}

impl Entry {
    pub fn new<B>(request: &Request<B>, peer: SocketAddr) -> Entry {
        Entry {
            method: request.method().clone(),
            path: request.uri().path().to_string(),
            peer,
            started: Instant::now(),
        }
    }

    /// Wraps the reply so that the event is written at its end, with the bytes that really left.
    pub fn finish(
        self,
        user: Option<&User>,
        busy: Busy,
        response: Response<Body>,
    ) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let served = parts
            .extensions
            .get::<Served>()
            .copied()
            .unwrap_or_default();
        let length = parts
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        let counted = Counted {
            body,
            bytes: 0,
            length,
            complete: false,
            entry: self,
            _busy: busy,
            user: user.map(|u| u.name.clone()),
            status: parts.status.as_u16(),
            tier: served.tier.map_or("none", tiering::Tier::as_str),
        };
        Response::from_parts(parts, counted.boxed_unsync())
    }
}

/// The event of a request that was answered before hyper saw it.
pub fn at_once(path: &str, peer: SocketAddr, user: Option<&User>, answer: &QuickReply) {
    let line = Line {
        method: answer.method,
        path,
        status: answer.status.as_u16(),
        bytes: answer.content.len(),
        duration: answer.latency,
        user: user.map(|u| u.name.as_str()),
        tier: answer.tier.map_or("none", tiering::Tier::as_str),
        peer,
        complete: true,
    };
    line.write();
}

/// One request in the log.
struct Line<'a> {
    method: &'a Method,
    path: &'a str,
    status: u16,
    bytes: u64,
    duration: Duration,
    user: Option<&'a str>,
    tier: &'static str,
    peer: SocketAddr,
    complete: bool,
}

impl Line<'_> {
    fn write(&self) {
        tracing::info!(
            target: "tierdav::access",
            method = %self.method,
            path = %self.path,
            status = self.status,
            bytes = self.bytes,
            duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            user = self.user.unwrap_or("-"),
            tier = self.tier,
            client = %self.peer,
            complete = self.complete,
        );
    }
}

struct Counted {
    body: Body,
    bytes: u64,
    /// As announced.
    length: Option<u64>,
    complete: bool,
    entry: Entry,
    /// The connection is busy for as long as this reply's body lives.
    _busy: Busy,
    user: Option<String>,
    status: u16,
    tier: &'static str,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        match &poll {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |d| d.len() as u64)
            }
            Poll::Ready(None) => self.complete = true,
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(path = %self.entry.path, %error, "reply broken off");
            }
            Poll::Pending => {}
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Of a body of known length hyper asks no further than its last byte.
        let complete = self.complete
            || self.body.is_end_stream()
            || self.length.is_some_and(|length| length == self.bytes);
        let line = Line {
            method: &self.entry.method,
            path: &self.entry.path,
            status: self.status,
            bytes: self.bytes,
            duration: self.entry.started.elapsed(),
            user: self.user.as_deref(),
            tier: self.tier,
            peer: self.entry.peer,
            complete,
        };
        line.write();
    }
}
