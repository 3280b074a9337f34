//! What is told of each request when its reply has been sent or broken off: to the metrics, the trace and the log.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tiering::Nanos;
use tiering::trace::Op;

use super::Front;
use super::activity::Busy;
use super::lane::OnSent;
use crate::dav::{self, Account, Body, User};
use crate::metrics::{Broken, Running};

/// What is known when the request arrives.
pub struct Entry {
    method: Method,
    path: String,
    peer: SocketAddr,
    started: Nanos,
    /// It counts as running until it is dropped.
    _running: Running,
}

impl Entry {
    pub fn new<B>(front: &Front, request: &Request<B>, peer: SocketAddr) -> Entry {
        Entry {
            method: request.method().clone(),
            path: request.uri().path().to_string(),
            peer,
            started: front.recorder.now(),
            _running: front.metrics.request_started(),
        }
    }

    /// When it arrived.
    pub fn started(&self) -> Nanos {
        self.started
    }

    /// Wraps the reply so that all is told at its end, with the bytes that really left.
    pub fn finish(
        self,
        front: Arc<Front>,
        user: Option<&User>,
        busy: Busy,
        response: Response<Body>,
    ) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let length = parts
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        let counted = Counted {
            front,
            body,
            bytes: 0,
            length,
            complete: false,
            unreadable: false,
            entry: self,
            _busy: busy,
            user: user.map(|u| u.name.clone()),
            status: parts.status.as_u16(),
            account: parts.extensions.remove(),
        };
        Response::from_parts(parts, counted.boxed_unsync())
    }
}

/// A request that is answered before hyper sees it.
pub struct Asked<'a> {
    pub method: &'static Method,
    pub path: &'a str,
    pub peer: SocketAddr,
}

impl Asked<'_> {
    /// Tells of it: what is sent was in memory, `bytes` of content.
    pub fn at_once(&self, front: &Front, user: Option<&User>, account: Account, bytes: u64) {
        self.ended(front, user, account, (bytes, None));
    }

    /// What tells of it when the kernel has sent its content.
    pub fn once_sent(self, front: Arc<Front>, user: Option<Arc<User>>, account: Account) -> OnSent {
        let Asked { method, peer, .. } = self;
        let (path, running) = (self.path.to_owned(), front.metrics.request_started());
        Box::new(move |bytes, broken| {
            let asked = Asked {
                method,
                path: &path,
                peer,
            };
            asked.ended(&front, user.as_deref(), account, (bytes, broken));
            drop(running);
        })
    }

    fn ended(
        &self,
        front: &Front,
        user: Option<&User>,
        account: Account,
        (bytes, broken): (u64, Option<Broken>),
    ) {
        let ended = Ended {
            method: self.method,
            path: self.path,
            peer: self.peer,
            user: user.map(|u| u.name.as_str()),
            status: account.record.status,
            started: Nanos(account.record.at_ns),
            account: Some(account),
            bytes,
            broken,
        };
        ended.tell(front);
    }
}

/// A request whose reply has ended.
struct Ended<'a> {
    method: &'a Method,
    path: &'a str,
    peer: SocketAddr,
    user: Option<&'a str>,
    status: u16,
    started: Nanos,
    /// `None`: it was refused before WebDAV saw it, and is not in the trace.
    account: Option<Account>,
    /// Those of the reply's body that left.
    bytes: u64,
    /// Why these are not all.
    broken: Option<Broken>,
}

impl Ended<'_> {
    fn tell(&self, front: &Front) {
        let took = front.recorder.now().since(self.started);
        let (counted, received) = match &self.account {
            Some(account) => (account.method, account.received),
            None => (self.method.into(), 0),
        };
        if let Some(why) = self.broken {
            front.metrics.reply_broken(why);
        }
        let (status, bytes, metrics) = (self.status, self.bytes, &front.metrics);
        let latency = Duration::from_nanos(took.0);
        metrics.request(counted, status, received, bytes, latency);
        let mut tier = None;
        if let Some(Account { mut record, .. }) = self.account {
            tier = record.tier.tier();
            record.latency_ns = took.0;
            if record.op == Op::Get && self.broken.is_some() {
                record.len = record.len.min(bytes);
            }
            front.recorder.record(record);
        }
        tracing::info!(
            target: "tierdav::access",
            method = %self.method,
            path = %self.path,
            status = self.status,
            bytes = self.bytes,
            duration_us = took.0 / 1000,
            user = self.user.unwrap_or("-"),
            tier = tier.map_or("none", tiering::Tier::as_str),
            client = %self.peer,
            complete = self.broken.is_none(),
        );
    }
}

struct Counted {
    front: Arc<Front>,
    body: Body,
    bytes: u64,
    /// As announced.
    length: Option<u64>,
    complete: bool,
    /// Its content came to an error.
    unreadable: bool,
    entry: Entry,
    /// The connection is busy for as long as this reply's body lives.
    _busy: Busy,
    user: Option<String>,
    status: u16,
    account: Option<Account>,
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
                self.unreadable = true;
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
        // What it tells of its reads comes before what is told of the request.
        let body = std::mem::replace(&mut self.body, dav::body::empty());
        // Of a body of known length hyper asks no further than its last byte.
        let complete = self.complete
            || body.is_end_stream()
            || self.length.is_some_and(|length| length == self.bytes);
        drop(body);
        let broken = match (complete, self.unreadable) {
            (true, _) => None,
            (false, true) => Some(Broken::Unreadable),
            (false, false) => Some(Broken::Gone),
        };
        let ended = Ended {
            method: &self.entry.method,
            path: &self.entry.path,
            peer: self.entry.peer,
            user: self.user.as_deref(),
            status: self.status,
            started: self.entry.started,
            account: self.account,
            bytes: self.bytes,
            broken,
        };
        ended.tell(&self.front);
    }
}
