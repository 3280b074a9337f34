//! GET and HEAD: the whole content, one range, several ranges, or a collection's page.
//!
//! The first piece is read before the reply's head is sent, so that trouble there is still a status. Later trouble breaks
//! the connection: a reader gets every byte of one version, or notices.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tiering::Tier;

use super::body::{self, Body};
use super::guard::Intent;
use super::range::{self, Multipart, Selection};
use super::status::Refusal;
use super::{Call, Reply, Touched, listing, mime, validators};
use crate::objects::ContentReader;
use crate::volume::{Kind, Meta, VolumeError};

/// Bytes asked of the reader at a time.
const CHUNK_BYTES: usize = 512 << 10;

impl Call<'_> {
    pub(super) async fn get(&self) -> Reply {
        let head = self.parts.method == Method::HEAD;
        let guard = self.guard(Intent::Read).await?;
        let volume = &self.dav.volume;
        if head {
            let meta = self.stat().await?;
            guard
                .conditions(meta.as_ref())
                .inspect_err(|r| self.note_revalidation(r, meta.as_ref()))?;
            let meta = meta.ok_or_else(Refusal::not_found)?;
            return match meta.kind {
                Kind::Collection => Ok(listing::head(&meta)),
                Kind::File => Ok(self.head_of(&meta, StatusCode::OK, meta.len)),
            };
        }
        let opened = match volume.open_read(&self.target.path, self.io).await {
            Ok(_) if self.target.slash => Err(Refusal::not_found()),
            Ok(opened) => Ok(opened),
            Err(VolumeError::IsCollection { .. }) => {
                let meta = self.stat().await?;
                guard.conditions(meta.as_ref())?;
                return self.listing().await;
            }
            Err(e) => Err(e.into()),
        };
        let (meta, reader) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                if refusal.status == StatusCode::NOT_FOUND {
                    guard.conditions(None)?;
                }
                return Err(refusal);
            }
        };
        guard
            .conditions(Some(&meta))
            .inspect_err(|r| self.note_revalidation(r, Some(&meta)))?;
        self.content(meta, reader).await
    }

    /// A 304 is an access: davfs2 reads its own copy again after one.
    fn note_revalidation(&self, refusal: &Refusal, meta: Option<&Meta>) {
        if refusal.status == StatusCode::NOT_MODIFIED
            && let Some(meta) = meta.filter(|m| m.kind == Kind::File)
        {
            self.dav.volume.revalidated(meta, self.io);
        }
    }

    async fn content(&self, meta: Meta, reader: ContentReader) -> Reply {
        let selection = match self.header("range") {
            Some(range) if self.range_applies(&meta) => range::select(range, meta.len),
            _ => Selection::Whole,
        };
        match selection {
            Selection::Unsatisfiable => {
                let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
                let value = HeaderValue::from_str(&format!("bytes */{}", meta.len));
                Err(value
                    .map(|v| refusal.clone().with_header(header::CONTENT_RANGE, v))
                    .unwrap_or(refusal))
            }
            Selection::Whole => {
                let mut response = self.head_of(&meta, StatusCode::OK, meta.len);
                let whole = 0..meta.len;
                let all = send(&mut response, reader, vec![Piece::Content(whole)]).await?;
                match all {
                    Some(all) => self.keep_hot(&meta, &response, &all),
                    None => self.keep_long(&meta, &response),
                }
                Ok(response)
            }
            Selection::Parts(parts) => {
                let (mut response, pieces) = match parts.as_slice() {
                    [part] => {
                        let mut r =
                            self.head_of(&meta, StatusCode::PARTIAL_CONTENT, part.end - part.start);
                        let value = format!("bytes {}-{}/{}", part.start, part.end - 1, meta.len);
                        set(&mut r, header::CONTENT_RANGE, &value);
                        (r, vec![Piece::Content(part.clone())])
                    }
                    parts => {
                        let framing = Multipart::new(mime::of(self.target.path.name()), meta.len);
                        let len = framing.body_len(parts);
                        let mut r = self.head_of(&meta, StatusCode::PARTIAL_CONTENT, len);
                        set(&mut r, header::CONTENT_TYPE, &framing.header());
                        let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
                        for part in parts {
                            pieces.push(Piece::Framing(framing.head(part).into()));
                            pieces.push(Piece::Content(part.clone()));
                        }
                        pieces.push(Piece::Framing(framing.tail().into()));
                        (r, pieces)
                    }
                };
                if let Some(touched) = response.extensions_mut().get_mut::<Touched>() {
                    touched.offset = parts.first().map_or(0, |p| p.start);
                    touched.len = parts.iter().map(|p| p.end - p.start).sum();
                }
                send(&mut response, reader, pieces).await?;
                if parts.len() == 1 {
                    self.keep_long(&meta, &response);
                }
                Ok(response)
            }
        }
    }

    /// `If-Range`: the entity tag. A date never applies: two versions made within one second have the same (RFC 9110 section 8.8.2.2).
    fn range_applies(&self, meta: &Meta) -> bool {
        self.header("if-range").is_none_or(|tag| *tag == *meta.etag)
    }

    fn head_of(&self, meta: &Meta, status: StatusCode, len: u64) -> Response<Body> {
        let mut response = head_of(self.target.path.name(), meta, status, len);
        response.extensions_mut().insert(Touched {
            file: Some(meta.file_id),
            len: meta.len,
            ..Touched::default()
        });
        response
    }

    async fn listing(&self) -> Reply {
        let entries = self.dav.volume.list(&self.target.path).await?;
        let shown = super::uri::href(&self.target.path, &self.root, true);
        let at_root = self.target.path == self.root || self.target.path.is_root();
        // Links are relative, so that a proxy may put the server below any path.
        let base = match (self.target.slash, at_root) {
            (true, _) | (_, true) => String::new(),
            (false, false) => format!("{}/", super::uri::encode_name(self.target.path.name())),
        };
        let query = self.parts.uri.query().unwrap_or("");
        Ok(listing::page(&shown, &base, at_root, entries, query))
    }
}

/// The head of a reply with `len` bytes of the file `name`.
pub(super) fn head_of(name: &str, meta: &Meta, status: StatusCode, len: u64) -> Response<Body> {
    let mut response = super::bare(status);
    validators(&mut response, meta);
    let headers = response.headers_mut();
    let content_type = mime::of(name);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Or a cache takes it for fresh, for a tenth of its age (RFC 9111 section 4.2.2).
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if mime::may_have_scripts(content_type) {
        // What somebody stored must not act, in a browser, for whoever looks at it (RFC 4918 section 20.7).
        let sandbox = HeaderValue::from_static("sandbox");
        headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What a body is made of.
enum Piece {
    Framing(Bytes),
    Content(Range<u64>),
}

/// Reads the pieces in order, a chunk at a time.
struct Source {
    reader: ContentReader,
    pieces: std::vec::IntoIter<Piece>,
    current: Range<u64>,
}

impl Source {
    async fn next(&mut self) -> Result<Option<(Bytes, Option<Tier>)>, VolumeError> {
        while self.current.is_empty() {
            match self.pieces.next() {
                None => return Ok(None),
                Some(Piece::Framing(bytes)) => return Ok(Some((bytes, None))),
                Some(Piece::Content(range)) => {
                    self.reader.announce(range.end);
                    self.current = range;
                }
            }
        }
        let want = usize::try_from(self.current.end - self.current.start)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        let (bytes, tier) = self.reader.read(self.current.start, want).await?;
        if bytes.is_empty() {
            // Never padded, never an endless loop: the announced length cannot be kept.
            return Err(VolumeError::Startup(
                "content ends before its announced length".into(),
            ));
        }
        self.current.start += bytes.len() as u64;
        Ok(Some((bytes, Some(tier))))
    }

    fn at_end(&self) -> bool {
        self.current.is_empty() && self.pieces.len() == 0
    }
}

/// Puts the content into the reply: at once if one read has it all, which is returned then; else as a stream.
async fn send(
    response: &mut Response<Body>,
    reader: ContentReader,
    pieces: Vec<Piece>,
) -> Result<Option<Bytes>, Refusal> {
    let mut source = Source {
        reader,
        pieces: pieces.into_iter(),
        current: 0..0,
    };
    let mut ready = Vec::new();
    let mut tier = None;
    while tier.is_none() {
        let Some((bytes, from)) = source.next().await? else {
            break;
        };
        ready.push(bytes);
        tier = from;
    }
    if let Some(touched) = response.extensions_mut().get_mut::<Touched>() {
        touched.tier = tier;
    }
    if source.at_end() && ready.len() <= 1 {
        let all = ready.pop().unwrap_or_default();
        *response.body_mut() = body::full(all.clone());
        return Ok(Some(all));
    }
    let first = stream::iter(ready).map(|bytes| Ok(Frame::data(bytes)));
    // What the kernel has in memory is read here; what it has not, by a thread that may wait, while the kernel reads ahead.
    let rest = stream::unfold(Some(source), |source| async move {
        let mut source = source?;
        match source.next().await {
            Ok(None) => None,
            Ok(Some((bytes, _))) => Some((Ok(Frame::data(bytes)), Some(source))),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "content cannot be read; connection broken off"
                );
                Some((Err(io::Error::other(error)), None))
            }
        }
    });
    let frames = first.chain(rest);
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(None)
}
