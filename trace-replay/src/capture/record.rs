//! What passes the proxy, as entries of a trace: one for each request whose answer has gone to its end.

use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op, Outcome, normal_path};
use bytes::Buf;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use hyper::body::{Body, Frame, SizeHint};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// Entries that may wait for the writer; then requests wait.
const QUEUE_ENTRIES: usize = 4096;

/// An entry, or why there is none for a request, and which.
type Recorded = Result<Entry, (&'static str, String)>;

/// Takes down requests.
pub struct Recorder {
    out: SyncSender<Recorded>,
    started: Instant,
    connections: AtomicU64,
}

/// Who sends requests over one connection.
pub struct Peer {
    client: Arc<str>,
    thread: Arc<str>,
}

/// A request that is under way; dropped, it is taken down.
pub struct Ticket {
    recorder: Arc<Recorder>,
    begun: Instant,
    uploaded: Arc<AtomicU64>,
    downloaded: u64,
    recorded: Recorded,
    /// Whether the answer's body came to its end.
    ended: bool,
}

/// The recorder and the trace that it makes; the trace ends when the recorder is gone.
pub fn recorder() -> (Arc<Recorder>, impl Reader) {
    let (out, entries) = sync_channel(QUEUE_ENTRIES);
    let recorder = Recorder {
        out,
        started: Instant::now(),
        connections: AtomicU64::new(0),
    };
    let unusable = Unusable::default();
    (Arc::new(recorder), Requests { entries, unusable })
}

impl Recorder {
    /// A new connection.
    pub fn connection(&self, peer: IpAddr) -> Peer {
        let number = self.connections.fetch_add(1, Relaxed) + 1;
        Peer {
            client: peer.to_canonical().to_string().into(),
            thread: number.to_string().into(),
        }
    }

    /// A request has come.
    pub fn begin<B>(self: &Arc<Self>, peer: &Peer, request: &Request<B>) -> Ticket {
        let begun = Instant::now();
        let at = begun.duration_since(self.started).as_micros();
        let recorded = entry(request).map(|entry| Entry {
            at_us: i64::try_from(at).unwrap_or(i64::MAX),
            client: peer.client.clone(),
            thread: peer.thread.clone(),
            ..entry
        });
        let name = || format!("{} {}", request.method(), request.uri().path());
        Ticket {
            recorder: self.clone(),
            begun,
            uploaded: Arc::default(),
            downloaded: 0,
            recorded: recorded.map_err(|why| (why, name())),
            ended: false,
        }
    }
}

/// What the head of a request says.
fn entry<B>(request: &Request<B>) -> Result<Entry, &'static str> {
    let headers = request.headers();
    let op = match request.method().as_str() {
        "PROPFIND" if text(headers, "depth") == Some("0") => Op::DavStat,
        "PROPFIND" => Op::DavList,
        method => Op::from_name(method)
            .filter(|op| op.name().starts_with(char::is_uppercase))
            .ok_or("method that traces do not have")?,
    };
    let path = decode(request.uri())?;
    let mut entry = Entry::new(0, "".into(), op, path);
    if matches!(op, Op::DavMove | Op::DavCopy) {
        let to = text(headers, "destination").and_then(|d| d.parse::<Uri>().ok());
        entry.path2 = Some(decode(&to.ok_or("MOVE or COPY without a Destination")?)?);
    }
    let range = match op {
        Op::DavPut => text(headers, "content-range").and_then(|r| r.strip_prefix("bytes ")),
        Op::DavPatch => text(headers, "x-update-range").and_then(|r| r.strip_prefix("bytes=")),
        _ => None,
    };
    if let Some(range) = range {
        entry.offset = first(range).ok_or("upload to a place that is not a number")?;
        entry.ranged = true;
    } else if op == Op::DavPatch {
        return Err("PATCH without X-Update-Range");
    }
    Ok(entry)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn decode(uri: &Uri) -> Result<Arc<str>, &'static str> {
    percent_encoding::percent_decode_str(uri.path())
        .decode_utf8()
        .map(|path| normal_path(&path))
        .map_err(|_| "path that is not UTF-8")
}

/// The first number of `5-9/10`.
fn first(range: &str) -> Option<u64> {
    range.split('-').next()?.trim().parse().ok()
}

impl Ticket {
    /// The head of the answer has come.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        let Ok(entry) = &mut self.recorded else {
            return;
        };
        entry.outcome = Outcome::Status(status.as_u16());
        if entry.op != Op::DavGet || !status.is_success() {
            return;
        }
        let place = text(headers, "content-range").and_then(|r| r.strip_prefix("bytes "));
        match (status, place.and_then(first)) {
            _ if headers.contains_key(header::CONTENT_ENCODING) => {
                self.give_up("compressed answer: its length is not the file's");
            }
            (StatusCode::PARTIAL_CONTENT, Some(offset)) => {
                (entry.offset, entry.ranged) = (offset, true);
            }
            (StatusCode::PARTIAL_CONTENT, None) => self.give_up("answer in several ranges"),
            _ => {}
        }
    }

    /// The server did not answer.
    pub fn unanswered(&mut self) {
        self.give_up("request that the server did not answer");
    }

    fn give_up(&mut self, why: &'static str) {
        if let Ok(entry) = &self.recorded {
            self.recorded = Err((why, format!("{} /{}", entry.op.name(), entry.path)));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.give_up("request or answer that was broken off");
        }
        let nothing = || Err(("", String::new()));
        let recorded = std::mem::replace(&mut self.recorded, nothing());
        let recorded = recorded.map(|mut entry| {
            if entry.op.writes() {
                entry.length = self.uploaded.load(Relaxed);
            } else if entry.op.reads() && entry.outcome.is_ok() {
                entry.length = self.downloaded;
            }
            let took = self.begun.elapsed().as_micros();
            entry.latency_us = u64::try_from(took).unwrap_or(u64::MAX);
            entry
        });
        // The writer is gone only when writing failed, and that is reported.
        let _ = self.recorder.out.send(recorded);
    }
}

/// A body whose bytes are counted.
pub struct Watched<B> {
    body: B,
    role: Role,
}

enum Role {
    Upload(Arc<AtomicU64>),
    Answer(Ticket),
}

impl<B: Body> Watched<B> {
    /// What the client sends.
    pub fn upload(body: B, ticket: &Ticket) -> Watched<B> {
        let role = Role::Upload(ticket.uploaded.clone());
        Watched { body, role }
    }

    /// What the server answers; with its end the request is taken down.
    pub fn answer(body: B, mut ticket: Ticket) -> Watched<B> {
        ticket.ended = body.is_end_stream();
        let role = Role::Answer(ticket);
        Watched { body, role }
    }
}

impl<B: Body<Data: Buf> + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Buf::remaining) as u64,
            _ => 0,
        };
        match &mut this.role {
            Role::Upload(count) => _ = count.fetch_add(bytes, Relaxed),
            Role::Answer(ticket) => {
                ticket.downloaded += bytes;
                ticket.ended |= frame.is_none() || this.body.is_end_stream();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The trace as it comes.
struct Requests {
    entries: Receiver<Recorded>,
    unusable: Unusable,
}

impl Reader for Requests {
    fn level(&self) -> Level {
        Level::WebdavRequests
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        loop {
            match self.entries.recv().ok()? {
                Ok(entry) => return Some(Ok(entry)),
                Err((why, what)) => self.unusable.add_as(why, || format!("{why}: {what}")),
            }
        }
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}
