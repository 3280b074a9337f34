//! PUT, partial PUT (`Content-Range`, RFC 9110 section 14.5) and PATCH (`X-Update-Range`, as sabre/dav defined it).
//!
//! Nothing is visible before every announced byte has arrived. A partial write makes a new version of the whole content:
//! partial writes of one resource therefore queue, so that each starts from what the one before made.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use parking_lot::Mutex;

use super::body::{Body, Incoming};
use super::guard::{self, Guard, Intent, Reason};
use super::range::{self, Update};
use super::status::Refusal;
use super::{Call, Reply, Touched, allow_of, bare, validators};
use crate::parts::Parts;
use crate::volume::{Check, Kind, Meta, ResourcePath, Upload, VolumeError};

/// What a PATCH body must be.
pub const PATCH_TYPE: &str = "application/x-sabredav-partialupdate";

/// `Content-*` fields that a PUT may carry: they describe the body and change nothing about storing its bytes.
const KNOWN_CONTENT_FIELDS: &[&str] = &[
    "content-length",
    "content-type",
    "content-language",
    "content-location",
    "content-disposition",
    "content-digest",
    "content-md5",
    "content-range",
    "content-encoding",
    "content-transfer-encoding",
];

/// Who is writing parts of what.
#[derive(Default)]
pub(super) struct PatchQueue(Mutex<HashMap<ResourcePath, Weak<tokio::sync::Mutex<()>>>>);

impl PatchQueue {
    async fn enter(&self, path: &ResourcePath) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut map = self.0.lock();
            map.retain(|_, waiting| waiting.strong_count() > 0);
            match map.get(path).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(tokio::sync::Mutex::new(()));
                    map.insert(path.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

impl Call<'_> {
    pub(super) async fn put(&self, body: &mut Incoming) -> Reply {
        self.understands_content_fields()?;
        let partial = match self.parts.headers.get(header::CONTENT_RANGE) {
            None => None,
            Some(v) => {
                let range = v.to_str().ok().and_then(range::content_range);
                Some(range.ok_or_else(|| Refusal::bad_request("malformed Content-Range"))?)
            }
        };
        if partial.is_none()
            && let Some(small) = self.small(body)
            && let Some(_room) = self.dav.volume.gather(small)
        {
            return self.put_whole(body).await;
        }
        let (guard, meta) = self.writable().await?;
        match (partial, &meta) {
            // The first part of something new makes it.
            (Some(update), None) => {
                let Update::At { start: 0, len } = update else {
                    return Err(unsatisfiable(0));
                };
                self.announced_matches(body, len)?;
                self.limit(body, 0)?;
                let upload = self
                    .dav
                    .volume
                    .create(&self.target.path, self.io, len)
                    .await?;
                self.receive(guard, upload, body, Some((0, len)), None)
                    .await
            }
            (Some(update), Some(_)) => self.update(guard, update, body).await,
            (None, _) => {
                self.limit(body, 0)?;
                let upload = self
                    .dav
                    .volume
                    .create(&self.target.path, self.io, body.announced())
                    .await?;
                self.receive(guard, upload, body, None, None).await
            }
        }
    }

    /// Bounds a body that comes behind so many bytes of content.
    fn limit(&self, body: &mut Incoming, before: u64) -> Result<(), Refusal> {
        match self.dav.opts.max_body_bytes {
            Some(max) => body.limit(max.saturating_sub(before)),
            None => Ok(()),
        }
    }

    /// The length of a body that is better received first: its rules are then looked at once, with the change itself.
    fn small(&self, body: &Incoming) -> Option<u64> {
        let small = |len: &u64| *len <= self.dav.volume.whole_bytes_max();
        body.announced()
            .filter(small)
            .filter(|_| !body.expects_continue())
    }

    async fn put_whole(&self, body: &mut Incoming) -> Reply {
        let path = &self.target.path;
        if path.is_root() {
            return Err(is_collection());
        }
        let guard = Arc::new(self.guard(Intent::Upload).await?);
        self.limit(body, 0)?;
        let mut data = Parts::default();
        while let Some(part) = body.next().await? {
            data.push(part);
        }
        let (admit, reason) = guard::check(&guard, self.admission());
        let (meta, created) = self
            .dav
            .volume
            .put_whole(path, self.io, data.into_vec(), admit)
            .await
            .map_err(|e| guard::refusal(e, &reason))?;
        Ok(self.stored(&guard, &meta, created))
    }

    /// All that new content of this resource must comply with.
    fn admission(&self) -> impl Fn(&Guard, Option<&Meta>) -> Result<(), Refusal> + Send + use<> {
        let slash = self.target.slash;
        let rule = rule(&self.target.path);
        move |guard, meta| {
            if meta.is_some_and(|m| m.kind == Kind::Collection) {
                return Err(is_collection());
            }
            if slash {
                return Err(Refusal::conflict(
                    "a name with a trailing slash is a collection's",
                ));
            }
            rule(guard, meta)
        }
    }

    pub(super) async fn patch(&self, body: &mut Incoming) -> Reply {
        let content_type = self.header("content-type").unwrap_or("");
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case(PATCH_TYPE) {
            let wrong = Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("PATCH takes {PATCH_TYPE}"),
            );
            let accept = http::HeaderName::from_static("accept-patch");
            return Err(wrong.with_header(accept, HeaderValue::from_static(PATCH_TYPE)));
        }
        self.understands_content_fields()?;
        let update = self.header("x-update-range").and_then(range::update_range);
        let update =
            update.ok_or_else(|| Refusal::bad_request("X-Update-Range is missing or malformed"))?;
        let (guard, meta) = self.writable().await?;
        if meta.is_none() {
            return Err(Refusal::not_found());
        }
        self.update(guard, update, body).await
    }

    /// The common beginning: may this resource get new content?
    async fn writable(&self) -> Result<(Arc<Guard>, Option<Meta>), Refusal> {
        let path = &self.target.path;
        if path.is_root() {
            return Err(is_collection());
        }
        let guard = Arc::new(self.guard(Intent::Upload).await?);
        let meta = match self.dav.volume.stat(path).await {
            Ok(meta) => Some(meta),
            Err(VolumeError::NotFound { .. } | VolumeError::NotCollection { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        self.admission()(&guard, meta.as_ref())?;
        guard.pass(meta.as_ref());
        Ok((guard, meta))
    }

    /// Writes a part of what exists.
    async fn update(&self, guard: Arc<Guard>, update: Update, body: &mut Incoming) -> Reply {
        let _turn = self.dav.patching.enter(&self.target.path).await;
        let meta = self.dav.volume.stat(&self.target.path).await?;
        let (start, len) = match update {
            Update::At { start, len } if start <= meta.len => (start, len),
            Update::At { .. } => return Err(unsatisfiable(meta.len)),
            Update::Append => (meta.len, None),
            Update::Last(n) => (meta.len.saturating_sub(n), Some(n.min(meta.len))),
        };
        self.announced_matches(body, len)?;
        self.limit(body, start)?;
        let upload = self.dav.volume.patch(&self.target.path, self.io).await?;
        self.receive(guard, upload, body, Some((start, len)), Some(meta.file_id))
            .await
    }

    fn announced_matches(&self, body: &Incoming, len: Option<u64>) -> Result<(), Refusal> {
        match (body.announced(), len) {
            (Some(announced), Some(len)) if announced != len => Err(Refusal::bad_request(format!(
                "the range has {len} bytes, the body {announced}"
            ))),
            _ => Ok(()),
        }
    }

    /// Streams the body into the upload and makes it the resource's content.
    async fn receive(
        &self,
        guard: Arc<Guard>,
        mut upload: Upload,
        body: &mut Incoming,
        part: Option<(u64, Option<u64>)>,
        base: Option<tiering::FileId>,
    ) -> Reply {
        let mut received = 0;
        match part {
            None => {
                while let Some(data) = body.next().await? {
                    upload.write(data).await?;
                }
            }
            Some((start, len)) => {
                let end = len.map(|n| start.saturating_add(n));
                let mut at = start;
                while let Some(data) = body.next().await? {
                    let next = at + data.len() as u64;
                    if end.is_some_and(|end| next > end) {
                        return Err(Refusal::bad_request("the body is longer than its range"));
                    }
                    upload.write_at(at, data).await?;
                    at = next;
                }
                received = at - start;
                if end.is_some_and(|end| at != end) {
                    return Err(Refusal::bad_request("the body is shorter than its range"));
                }
            }
        }
        let (check, reason) = self.last_check(&guard, part.map(|_| base));
        let (meta, created) = upload
            .commit(check)
            .await
            .map_err(|e| guard::refusal(e, &reason))?;
        let mut response = self.stored(&guard, &meta, created);
        if let Some((start, _)) = part
            && let Some(touched) = response.extensions_mut().get_mut::<Touched>()
        {
            (touched.offset, touched.len, touched.part) = (start, received, true);
        }
        Ok(response)
    }

    /// The reply, after the locks have heard of the new entity tag.
    fn stored(&self, guard: &Guard, meta: &Meta, created: bool) -> Response<Body> {
        self.dav
            .locks
            .moved_etag(&guard::key(&self.target.path), &guard.claim, &meta.etag);
        stored(meta, created)
    }

    /// `base`: what a part was written into, `None` for something new.
    fn last_check(
        &self,
        guard: &Arc<Guard>,
        base: Option<Option<tiering::FileId>>,
    ) -> (Check, Reason) {
        let rule = rule(&self.target.path);
        guard::check(guard, move |g, meta| {
            if base.is_some_and(|base| meta.map(|m| m.file_id) != base) {
                // The part belongs to a version that is no more; sent again, it applies to the new one.
                return Err(Refusal::unavailable("the content changed meanwhile"));
            }
            rule(g, meta)
        })
    }

    fn understands_content_fields(&self) -> Result<(), Refusal> {
        for name in self.parts.headers.keys() {
            if name.as_str().starts_with("content-")
                && !KNOWN_CONTENT_FIELDS.contains(&name.as_str())
            {
                // RFC 2616 section 9.6: not to be ignored.
                return Err(Refusal::new(
                    StatusCode::NOT_IMPLEMENTED,
                    format!("{name} is not understood"),
                ));
            }
        }
        // A coding of the message, which is not part of the content: all but the last `chunked` would be left in it.
        let mut codings = self
            .parts
            .headers
            .get_all(header::TRANSFER_ENCODING)
            .into_iter();
        let chunked = |v: &HeaderValue| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !codings.next().is_none_or(chunked) || codings.next().is_some() {
            return Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                "no Transfer-Encoding but chunked is understood",
            ));
        }
        match self.header("content-encoding") {
            None => Ok(()),
            Some(e) if e.is_empty() || e.eq_ignore_ascii_case("identity") => Ok(()),
            Some(_) => {
                let refusal = Refusal::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "content codings are not stored",
                );
                Err(refusal.with_header(
                    header::ACCEPT_ENCODING,
                    HeaderValue::from_static("identity"),
                ))
            }
        }
    }
}

/// Conditions, the resource's locks, and its collection's if it is new.
fn rule(
    path: &ResourcePath,
) -> impl Fn(&Guard, Option<&Meta>) -> Result<(), Refusal> + Send + use<> {
    let path = path.clone();
    move |guard, meta| {
        guard.conditions(meta)?;
        guard.open(&guard::key(&path), false)?;
        if meta.is_none() {
            guard.open_parent(&path)
        } else {
            Ok(())
        }
    }
}

fn is_collection() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "is a collection")
        .with_header(header::ALLOW, allow_of(Some(Kind::Collection)))
}

fn stored(meta: &Meta, created: bool) -> Response<Body> {
    let mut response = bare(if created {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    });
    validators(&mut response, meta);
    response.extensions_mut().insert(Touched {
        file: Some(meta.file_id),
        len: meta.len,
        ..Touched::default()
    });
    response
}

fn unsatisfiable(len: u64) -> Refusal {
    let refusal = Refusal::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "the range begins beyond the content's end",
    );
    match HeaderValue::from_str(&format!("bytes */{len}")) {
        Ok(value) => refusal.with_header(header::CONTENT_RANGE, value),
        Err(_) => refusal,
    }
}
