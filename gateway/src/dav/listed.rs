//! PROPFIND with `Depth: 1` of a collection that was asked for before: told again while nothing in it has changed.
//!
//! Kept with the volume, which knows whether that is so; here is what else a reply depends on: the request's body, what the asker
//! sees as `/`, `Prefer`, and locks.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::Call;
use super::body::{self, Body};
use crate::volume::{LISTING_BYTES_MAX, Listing, Meta, Volume, Watched};

/// A reply that is kept when it is complete.
pub(super) struct Keeping {
    watched: Watched,
    listing: Listing,
    len: usize,
}

impl Keeping {
    /// Notes the next piece of the reply; `false` if there is too much of it.
    pub fn add(&mut self, piece: &Bytes) -> bool {
        self.len += piece.len();
        self.listing.pieces.push(piece.clone());
        self.len <= LISTING_BYTES_MAX
    }

    /// The reply is complete.
    pub fn keep(self, volume: &Volume) {
        volume.keep_listing(self.watched, self.listing);
    }
}

impl Call<'_> {
    /// What was said of this collection to the same request before, if it still holds.
    pub(super) fn listed(&self, asked: &Bytes, minimal: bool) -> Option<Response<Body>> {
        let listing = self.dav.volume.listed(&self.target.path)?;
        if listing.asked != asked || listing.root != self.root || listing.minimal != minimal {
            return None;
        }
        Some(multistatus(match listing.pieces.as_slice() {
            [whole] => body::full(whole.clone()),
            pieces => {
                let piece = |p: &Bytes| Ok(Frame::data(p.clone()));
                let pieces: Vec<_> = pieces.iter().map(piece).collect();
                StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
            }
        }))
    }

    /// Whether the collection was asked for lately; from now on it was.
    pub(super) fn is_asked_again(&self) -> bool {
        let path = self.target.path.clone();
        self.dav.asked.lock().put(path, ()).is_some()
    }

    /// Keeps what is going to be said of the collection, which is watched since before its members were read.
    pub(super) fn keeping(
        &self,
        watched: Watched,
        said: &Meta,
        asked: Bytes,
        minimal: bool,
    ) -> Option<Keeping> {
        watched.is(said).then(|| Keeping {
            watched,
            listing: Listing {
                asked,
                root: self.root.clone(),
                minimal,
                pieces: Vec::new(),
            },
            len: 0,
        })
    }
}

/// A reply to PROPFIND.
pub(super) fn multistatus(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::MULTI_STATUS;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
