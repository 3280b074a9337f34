//! PROPFIND with `Depth: 1` of a collection that was asked for before: told again while nothing in it has changed.
//!
//! Kept with the volume, which knows whether that is so; here is what else a reply depends on: the request's body, what the asker
//! sees as `/`, `Prefer`, and locks.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{self, Body};
use super::quick::TOLD_BYTES_MAX;
use super::{Call, Depth, Touched};
use crate::volume::{Gathered, Listing, Piece, ResourcePath, Volume, Watched};

/// Replies that are gathered at a time, with 8 MiB each at most; others are not kept.
pub(super) const KEEPING_MAX: usize = 4;

/// A reply that is kept when it is complete.
pub(super) struct Keeping {
    watched: Watched,
    asked: Bytes,
    root: ResourcePath,
    minimal: bool,
    gathered: Gathered,
    _permit: OwnedSemaphorePermit,
}

impl Keeping {
    /// Notes the next piece of the reply; `false` if there is too much of it.
    pub fn add(&mut self, piece: &Bytes) -> bool {
        self.gathered.add(piece)
    }

    /// The reply is complete.
    pub fn keep(self, volume: &Volume) {
        let listing = Listing {
            asked: self.asked,
            root: self.root,
            minimal: self.minimal,
            pieces: self.gathered.pieces(),
        };
        volume.keep_listing(self.watched, listing);
    }
}

impl Call<'_> {
    /// What was said of this collection to the same request before, if it still holds.
    pub(super) fn listed(&self, asked: &Bytes, minimal: bool) -> Option<Response<Body>> {
        let listing = self.dav.volume.listed(&self.target.path)?;
        if listing.asked != asked || listing.root != self.root || listing.minimal != minimal {
            return None;
        }
        let body = match listing.pieces.as_slice() {
            [Piece::Plain(whole)] => body::full(whole.clone()),
            pieces => {
                let all = 0..pieces.len();
                let said = move |n: usize| listing.pieces[n].said().map(Frame::data);
                StreamBody::new(stream::iter(all.map(said))).boxed_unsync()
            }
        };
        Some(multistatus(body, Depth::One))
    }

    /// Whether the collection was asked for lately; from now on it was.
    pub(super) fn is_asked_again(&self) -> bool {
        let path = self.target.path.clone();
        self.dav.asked.lock().put(path, ()).is_some()
    }

    /// Keeps what is going to be said of the collection, which is watched since before its members were read.
    pub(super) fn keeping(&self, watched: Watched, asked: Bytes, minimal: bool) -> Option<Keeping> {
        if asked.len() > TOLD_BYTES_MAX {
            return None;
        }
        let permit = Arc::clone(&self.dav.keeping).try_acquire_owned().ok()?;
        Some(Keeping {
            watched,
            asked,
            root: self.root.clone(),
            minimal,
            gathered: Gathered::default(),
            _permit: permit,
        })
    }
}

/// A reply to PROPFIND.
pub(super) fn multistatus(body: Body, depth: Depth) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::MULTI_STATUS;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // The trace has the depth where other requests have an offset (tiering/TRACE_FORMAT.md).
    let offset = match depth {
        Depth::Zero => 0,
        Depth::One => 1,
        Depth::Infinity => 2,
    };
    response.extensions_mut().insert(Touched {
        offset,
        ..Touched::default()
    });
    response
}
