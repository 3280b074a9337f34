//! GET and HEAD of a small file that is in memory or in pools, and PROPFIND of a file, without a request, a reply or a body of
//! hyper's.
//!
//! What a reply of [`get`](super::get) or [`propfind`](super::propfind) said of a file is kept with what it sent; asked plainly
//! for the same again, or for a range, the same is said again. A small file of pools is read, and what [`get`](super::get) would say is said.
//! Whatever is not plain, or needs anything else than a look at the file's attributes, goes the usual way.

use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use tiering::trace::{Op, Record};
use tiering::{FileId, Nanos, Tier};

use super::body::Body;
use super::dates::{Dates, http_date};
use super::get::head_of;
use super::range::{self, Selection};
use super::status::Refusal;
use super::{Account, Call, Dav, User, guard, uri};
use crate::metrics;
use crate::objects::IoContext;
use crate::volume::{Content, Meta, Opened, ResourcePath, Told, VolumeError};

/// Longest XML that is kept, of a request or of its reply.
pub(super) const TOLD_BYTES_MAX: usize = 4 << 10;
/// Bytes of a reply's head beside what it says of its file.
const HEAD_BYTES: usize = 256;
/// Fields of a request that change nothing about the reply to a GET or PROPFIND.
pub const MEANINGLESS: [&str; 12] = [
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-charset",
    "te",
    "referer",
    "cookie",
    "pragma",
    "cache-control",
    "translate",
];
/// Other fields of a PROPFIND whose reply is kept.
const PLAIN: [&str; 5] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "depth",
];

/// What a request wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// No content (HEAD).
    Nothing,
    /// All of it.
    Whole,
    /// What this `Range` field says.
    Part(&'a [u8]),
}

impl Wanted<'_> {
    /// Which bytes, of so many; `None` if that is not one range.
    fn of(self, len: u64) -> Option<Range<u64>> {
        let Wanted::Part(field) = self else {
            return Some(0..len);
        };
        match range::select(std::str::from_utf8(field).ok()?, len) {
            Selection::Parts(parts) => match parts.as_slice() {
                [one] => Some(one.clone()),
                _ => None,
            },
            Selection::Whole | Selection::Unsatisfiable => None,
        }
    }
}

/// An answer: its head was written, the content follows.
pub struct QuickReply {
    /// Of the request.
    pub method: &'static Method,
    /// Empty for HEAD.
    pub content: Content,
    /// What is to be told of the request.
    pub account: Account,
}

impl Dav {
    /// Answers a GET, or HEAD, of `target` that has no conditions or body: writes the reply's head to `out` and returns the
    /// content, which may be left to the kernel to send if `files`. `None`: ask [`Dav::handle`]; `out` is as it was.
    pub fn quick(
        &self,
        (wanted, files): (Wanted<'_>, bool),
        target: &str,
        (user, io_client): (Option<&User>, u32),
        out: &mut Vec<u8>,
    ) -> Option<QuickReply> {
        let started = self.recorder.now();
        let (target, _) = plain_target(target, user)?;
        let head = wanted == Wanted::Nothing;
        let hot = self
            .volume
            .hot(&target, files || head, |len| wanted.of(len))?;
        if self.locks.due(guard::now()) {
            return None;
        }
        let io = IoContext {
            client: io_client,
            path: self.recorder.path_id(&target.to_string()),
        };
        let (method, counted, op, tier, content) = if head {
            let none = Content::Memory(Bytes::new());
            (&Method::HEAD, metrics::Method::Head, Op::Head, None, none)
        } else {
            let tier = self.volume.hot_read(&hot, started, io)?;
            // The tier of no bytes is none.
            let tier = (!hot.content.is_empty()).then_some(tier);
            let content = hot.content.clone();
            (&Method::GET, metrics::Method::Get, Op::Get, tier, content)
        };
        let status = match wanted {
            Wanted::Nothing | Wanted::Whole => StatusCode::OK,
            Wanted::Part(_) => StatusCode::PARTIAL_CONTENT,
        };
        begin(out, status, &hot.part, hot.len);
        out.extend_from_slice(&hot.fields);
        date(out);
        let answer = Answer {
            method,
            counted,
            op,
            status,
            file: hot.file,
            offset: hot.part.start,
            len: hot.content.len(),
            asked: 0,
            content,
            tier,
        };
        Some(answer.reply(started, io))
    }

    /// Begins to answer a GET of a small file of pools that is not in memory: as [`Dav::quick`], but what is returned tells the
    /// reply's head and content once the pool did, or what [`Dav::handle`] says to the trouble that there was.
    pub fn quick_pooled(
        self: &Arc<Self>,
        target: &str,
        (user, io_client): (Option<&User>, u32),
    ) -> Option<impl Future<Output = (Vec<u8>, Bytes, QuickReply)> + Send + use<>> {
        if !self.volume.has_pools() || self.locks.due(guard::now()) {
            return None;
        }
        let started = self.recorder.now();
        let (target, _) = plain_target(target, user)?;
        let io = IoContext {
            client: io_client,
            path: self.recorder.path_id(&target.to_string()),
        };
        let (meta, reader) = self.volume.open_small_pooled(&target, io)?;
        let dav = Arc::clone(self);
        Some(async move {
            reader.announce(meta.len);
            let read = reader.read(0, reader.len() as usize).await;
            // What it tells of the read comes before what is told of the request.
            drop(reader);
            let (status, file, mut head, content, tier) = match read {
                Ok((content, tier)) => {
                    let response = head_of(target.name(), &meta, StatusCode::OK, meta.len);
                    let said = fields(response.headers());
                    let mut head = Vec::with_capacity(HEAD_BYTES + said.len());
                    begin(&mut head, StatusCode::OK, &(0..meta.len), meta.len);
                    head.extend_from_slice(&said);
                    dav.volume.keep_hot(&target, &meta, || said, &content);
                    (StatusCode::OK, meta.file_id, head, content, Some(tier))
                }
                Err(trouble) => {
                    let (status, head, text) = refused(trouble.into()).await;
                    (status, FileId(0), head.into(), text, None)
                }
            };
            let answer = Answer {
                method: &Method::GET,
                counted: metrics::Method::Get,
                op: Op::Get,
                status,
                file,
                offset: 0,
                len: tier.map_or(0, |_| meta.len),
                asked: 0,
                content: Content::Memory(content.clone()),
                tier,
            };
            date(&mut head);
            (head, content, answer.reply(started, io))
        })
    }

    /// Answers a PROPFIND with `Depth: 0` and the body `asked` that has no conditions: as [`Dav::quick`].
    pub fn quick_properties(
        &self,
        asked: &[u8],
        target: &str,
        (user, io_client): (Option<&User>, u32),
        out: &mut Vec<u8>,
    ) -> Option<QuickReply> {
        let started = self.recorder.now();
        let (target, root) = plain_target(target, user)?;
        let told = self.volume.told(&target)?;
        let now = guard::now();
        if told.asked != asked
            || told.root != root
            || self.locks.due(now)
            || self.locks.covers(&guard::key(&target), now)
        {
            return None;
        }
        let io = IoContext {
            client: io_client,
            path: self.recorder.path_id(&target.to_string()),
        };
        out.extend_from_slice(&told.head);
        date(out);
        let answer = Answer {
            method: &PROPFIND,
            counted: metrics::Method::Propfind,
            op: Op::Propfind,
            status: StatusCode::MULTI_STATUS,
            file: FileId(0),
            offset: 0,
            len: 0,
            asked: asked.len() as u64,
            content: Content::Memory(told.content.clone()),
            tier: None,
        };
        Some(answer.reply(started, io))
    }
}

/// What is said and traced of an answer.
struct Answer {
    method: &'static Method,
    counted: metrics::Method,
    op: Op,
    status: StatusCode,
    file: FileId,
    /// What of the file the trace has for it.
    offset: u64,
    len: u64,
    /// Bytes of the request's body.
    asked: u64,
    content: Content,
    tier: Option<Tier>,
}

impl Answer {
    /// The answer to a request that came at `started`.
    fn reply(self, started: Nanos, io: IoContext) -> QuickReply {
        let record = Record {
            at_ns: started.0,
            client: io.client,
            op: self.op,
            path: io.path,
            path2: 0,
            file: self.file,
            object: u32::MAX,
            offset: self.offset,
            len: self.len,
            tier: self.tier.into(),
            latency_ns: 0,
            status: self.status.as_u16(),
        };
        QuickReply {
            method: self.method,
            content: self.content,
            account: Account {
                method: self.counted,
                received: self.asked,
                record,
            },
        }
    }
}

/// The resource that a request target of a file names, and what the asker sees as `/`.
fn plain_target(target: &str, user: Option<&User>) -> Option<(ResourcePath, ResourcePath)> {
    let root = user.map_or_else(ResourcePath::root, |u| u.root.clone());
    let target = uri::target(target, &root).ok().filter(|t| !t.slash)?;
    Some((target.path, root))
}

static PROPFIND: LazyLock<Method> =
    LazyLock::new(|| Method::from_bytes(b"PROPFIND").unwrap_or_default());

impl Call<'_> {
    /// Keeps a whole content that was just sent, and what was said of the file.
    pub(super) fn keep_hot(&self, meta: &Meta, response: &Response<Body>, content: &Bytes) {
        let fields = || fields(response.headers());
        let volume = &self.dav.volume;
        volume.keep_hot(&self.target.path, meta, fields, content);
    }

    /// [`Call::keep_hot`] of content that is too long to be kept, or was one range.
    pub(super) fn keep_long(&self, meta: &Meta, response: &Response<Body>) {
        let fields = || fields(response.headers());
        let volume = &self.dav.volume;
        volume.keep_long(&self.target.path, meta, fields);
    }

    /// Opens a file whose properties are asked for plainly, and not for the first time: what is going to be said may be worth
    /// keeping.
    pub(super) fn worth_telling(&self) -> Option<Arc<Opened>> {
        let plain = self.parts.headers.keys().all(|name| {
            let name = name.as_str();
            PLAIN.contains(&name) || MEANINGLESS.contains(&name)
        });
        (plain && self.is_asked_again())
            .then(|| self.dav.volume.open_to_tell(&self.target.path))
            .flatten()
    }

    /// Keeps the whole reply to a PROPFIND with `Depth: 0` and the body `asked`, which began after the file was `opened`.
    pub(super) fn keep_told(
        &self,
        opened: &Opened,
        asked: Bytes,
        response: &Response<Body>,
        xml: &Bytes,
    ) {
        let mut headers = response.headers().clone();
        headers.insert(CONTENT_LENGTH, xml.len().into());
        let told = Told {
            asked,
            root: self.root.clone(),
            head: rendered(response.status(), &headers),
            content: xml.clone(),
        };
        self.dav.volume.keep_told(&self.target.path, opened, told);
    }
}

/// What is said to trouble: status, head up to the date, text.
async fn refused(trouble: VolumeError) -> (StatusCode, Bytes, Bytes) {
    let (mut parts, body) = Refusal::from(trouble).into_response().into_parts();
    // It is there already.
    let text = body.collect().await.map(|body| body.to_bytes());
    let text = text.unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, text.len().into());
    let head = rendered(parts.status, &parts.headers);
    (parts.status, head, text)
}

/// The head of a reply as hyper writes it, up to the date.
fn rendered(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut out = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in headers {
        field(&mut out, name, value);
    }
    out.into()
}

/// What a reply says of a file whatever part of it is sent.
fn fields(headers: &HeaderMap) -> Bytes {
    let mut out = Vec::new();
    for (name, value) in headers {
        if name != CONTENT_LENGTH && name != CONTENT_RANGE {
            field(&mut out, name, value);
        }
    }
    out.into()
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What stands before [`fields`]: the status, and which part of `len` bytes is sent.
fn begin(out: &mut Vec<u8>, status: StatusCode, part: &Range<u64>, len: u64) {
    let of_part = part.end - part.start;
    // Nothing that is written to memory fails.
    let _ = write!(out, "HTTP/1.1 {status}\r\ncontent-length: {of_part}\r\n");
    if status == StatusCode::PARTIAL_CONTENT {
        let (first, last) = (part.start, part.end.saturating_sub(1));
        let _ = write!(out, "content-range: bytes {first}-{last}/{len}\r\n");
    }
}

/// The end of a head: the date, rendered once a second and thread.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static DATES: Dates = const { Dates::new(http_date) };
    }
    out.extend_from_slice(b"date: ");
    let write = |date: &str| out.extend_from_slice(date.as_bytes());
    DATES.with(|dates| dates.tell(SystemTime::now(), write));
    out.extend_from_slice(b"\r\n\r\n");
}
