//! The WebDAV protocol: classes 1, 2 and 3 of RFC 4918, over [`crate::volume`].
//!
//! `Dav::handle` takes one request and gives one reply; it knows no sockets, and nothing of tiers beyond which one
//! served the first byte. A request's way: `handle` → `route` → one handler per method, which evaluates its
//! conditions (`guard`), lets the volume act, and evaluates them again inside the volume's `Check`. All errors become
//! replies through one table (`status`).
//!
//! # Why the handlers are our own and not dav-server's
//! dav-server 0.11 was read first. Its GET fills up a short read with zeros; its PUT writes in place and flushes before
//! it compares lengths; COPY, MOVE and DELETE work name by name; LOCK grants at most 600 s; nothing is ever 503;
//! PROPPATCH refuses `executable`. Its PROPFIND engine, which could be had through an adapter, leaves every property it
//! does not find out of the reply (RFC 4918 section 9.1 wants a 404 propstat), sends all dead properties whatever was
//! asked, takes a missing `Depth` for "children only", skips members that it cannot read (a lost tier would look like
//! deleted files, and davfs2 believes it), writes control characters of names into its XML, and builds one element tree
//! per property. None of this can be mended from outside without parsing its output again, so PROPFIND is ours as well.

pub mod body;
mod dates;
mod get;
mod guard;
pub mod ifheader;
mod listed;
mod listing;
mod lock;
pub mod locks;
mod mime;
mod propfind;
mod proppatch;
mod put;
mod quick;
pub mod range;
pub mod status;
#[cfg(test)]
mod tests;
mod tree;
pub mod uri;
pub mod xml;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use lru::LruCache;
use parking_lot::Mutex;
use tiering::trace::{Op, Record};
use tiering::{FileId, Nanos, Tier};
use tokio::sync::Semaphore;

pub use body::Body;
use body::{BoxError, Incoming};
use guard::{Guard, Intent, Tagged};
use locks::{Ended, LockTable};
pub use quick::{MEANINGLESS, QuickReply, Wanted};
use status::Refusal;
use uri::{Ours, Target, UriError};

use crate::metrics;
use crate::objects::IoContext;
use crate::recorder::Recorder;
use crate::volume::{Kind, Meta, PathError, ResourcePath, Volume, VolumeError};

/// A user as the protocol sees it.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name: the principal of its locks.
    pub name: String,
    /// What it sees as `/`.
    pub root: ResourcePath,
    /// May not change anything.
    pub read_only: bool,
}

/// What is known of a request besides the request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Where it came from.
    pub client: SocketAddr,
    /// Who sent it; `None` without authentication.
    pub user: Option<Arc<User>>,
    /// The client's id in the trace.
    pub io_client: u32,
    /// When it came, by the recorder's clock.
    pub started: Nanos,
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct DavOptions {
    /// URLs under which clients know this server, besides what they say in `Host`.
    pub public_base_url: Vec<Uri>,
    /// Answer PROPFIND with `Depth: infinity` on collections, rather than 403.
    pub allow_infinite_depth: bool,
    /// Longest XML request body, bytes.
    pub max_xml_bytes: usize,
    /// Longest upload, bytes.
    pub max_body_bytes: Option<u64>,
    /// Longest wait for the next bytes of a request body.
    pub body_idle_timeout: Duration,
    /// Longest lock granted.
    pub lock_timeout_max: Duration,
    /// Wait until a lock is on stable storage before granting it (`durability = "commit"`).
    pub sync_locks: bool,
}

impl Default for DavOptions {
    fn default() -> DavOptions {
        DavOptions {
            public_base_url: Vec::new(),
            allow_infinite_depth: false,
            max_xml_bytes: 1 << 20,
            max_body_bytes: None,
            body_idle_timeout: Duration::from_secs(60),
            lock_timeout_max: Duration::from_secs(3600),
            sync_locks: true,
        }
    }
}

/// `Dav::new` failed.
#[derive(Debug, thiserror::Error)]
pub enum DavError {
    /// The lock journal cannot be read or rewritten.
    #[error("lock journal in {dir}")]
    Locks {
        /// The state directory.
        dir: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Extension of a reply: what is to be told of its request when the last of it has left.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// As what it is counted.
    pub method: metrics::Method,
    /// Bytes of the request's body.
    pub received: u64,
    /// The trace's row, but for what only the end of the reply can tell.
    pub record: Record,
}

/// Trace details that a handler adds to its reply.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touched {
    pub file: Option<FileId>,
    /// The first byte that was read or written.
    pub offset: u64,
    /// How many were; of several ranges, their sum.
    pub len: u64,
    /// Only a part of the content was written.
    pub part: bool,
    pub to: Option<ResourcePath>,
    /// The tier of the first byte that was read.
    pub tier: Option<Tier>,
}

/// One lock, for the administrator.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LockInfo {
    /// What `break_lock` takes.
    pub token: String,
    /// The lock root.
    pub path: String,
    /// The user who took it.
    pub principal: Option<String>,
    /// What the client said of its owner, as XML.
    pub owner: String,
    /// `exclusive` or `shared`.
    pub scope: &'static str,
    /// `0` or `infinity`.
    pub depth: &'static str,
    /// Seconds until it runs out.
    pub expires_in_s: u64,
}

/// The protocol engine: one per server.
pub struct Dav {
    volume: Arc<Volume>,
    recorder: Recorder,
    opts: DavOptions,
    locks: Arc<LockTable>,
    /// Where a lock is gone that may have made a resource: that goes, too, or is an ordinary one from now on.
    unborn: Mutex<BTreeSet<(String, Ended)>>,
    patching: put::PatchQueue,
    /// Resources whose properties were asked for lately.
    asked: Mutex<LruCache<ResourcePath, ()>>,
    /// How many listings may be gathered to be kept.
    keeping: Arc<Semaphore>,
}

/// One request on its way through a handler.
pub(crate) struct Call<'a> {
    pub dav: &'a Dav,
    pub parts: &'a Parts,
    pub user: Option<&'a User>,
    pub root: ResourcePath,
    pub target: Target,
    pub io: IoContext,
}

/// Resources that are remembered for having been asked about.
const ASKED_MAX: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

type Reply = Result<Response<Body>, Refusal>;

impl Dav {
    /// Loads the locks and is ready.
    pub async fn new(
        volume: Arc<Volume>,
        recorder: Recorder,
        opts: DavOptions,
    ) -> Result<Arc<Dav>, DavError> {
        let dir = volume.state_dir().to_path_buf();
        let (at, sync) = (dir.clone(), opts.sync_locks);
        let opened = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&at)?;
            LockTable::open(&at, sync, guard::now())
        });
        let locks = match opened.await {
            Ok(Ok(locks)) => Arc::new(locks),
            Ok(Err(source)) => {
                return Err(DavError::Locks {
                    dir: dir.display().to_string(),
                    source,
                });
            }
            Err(e) => {
                return Err(DavError::Locks {
                    dir: dir.display().to_string(),
                    source: std::io::Error::other(e),
                });
            }
        };
        Ok(Arc::new(Dav {
            volume,
            recorder,
            opts,
            locks,
            unborn: Mutex::default(),
            patching: put::PatchQueue::default(),
            asked: Mutex::new(LruCache::new(ASKED_MAX)),
            keeping: Arc::new(Semaphore::new(listed::KEEPING_MAX)),
        }))
    }

    /// Answers one request. Whoever sends the reply counts it, by its [`Account`].
    pub async fn handle<B>(&self, ctx: RequestContext, req: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = req.into_parts();
        let mut incoming = Incoming::new(body, &parts.headers, self.opts.body_idle_timeout);
        if self.locks.due(guard::now()) {
            self.expire().await;
        }
        let root = ctx
            .user
            .as_ref()
            .map_or_else(ResourcePath::root, |u| u.root.clone());
        let target = match parts.uri.path() {
            // The server as a whole, which has only options (RFC 9112 section 3.2.4).
            "*" if parts.method == Method::OPTIONS => uri::target("/", &root),
            path => uri::target(path, &root),
        };
        let path_id = match &target {
            Ok(t) => self.recorder.path_id(&t.path.to_string()),
            Err(_) => 0,
        };
        let io = IoContext {
            client: ctx.io_client,
            path: path_id,
        };
        let reply = match target {
            Ok(target) => {
                let call = Call {
                    dav: self,
                    parts: &parts,
                    user: ctx.user.as_deref(),
                    root,
                    target,
                    io,
                };
                call.route(&mut incoming).await
            }
            Err(UriError::Path(PathError::Hidden)) if makes_names(&parts.method) => {
                Err(Refusal::forbidden("this name is reserved"))
            }
            Err(e) => Err(e.into()),
        };
        let mut response = reply.unwrap_or_else(Refusal::into_response);
        let received = incoming.received();
        incoming.discard();
        if parts.method == Method::HEAD {
            *response.body_mut() = body::empty();
        }
        let record = self.record_of(&parts.method, ctx.started, io, &mut response);
        let account = Account {
            method: (&parts.method).into(),
            received,
            record,
        };
        response.extensions_mut().insert(account);
        response
    }

    fn record_of(
        &self,
        method: &Method,
        started: Nanos,
        io: IoContext,
        response: &mut Response<Body>,
    ) -> Record {
        let status = response.status();
        let touched = response
            .extensions_mut()
            .remove::<Touched>()
            .unwrap_or_default();
        let op = if touched.part {
            Op::Patch
        } else {
            op_of(method, status)
        };
        Record {
            at_ns: started.0,
            client: io.client,
            op,
            path: io.path,
            path2: touched
                .to
                .map_or(0, |to| self.recorder.path_id(&to.to_string())),
            file: touched.file.unwrap_or(FileId(0)),
            object: u32::MAX,
            offset: touched.offset,
            len: touched.len,
            tier: touched.tier.into(),
            latency_ns: 0,
            status: status.as_u16(),
        }
    }

    /// Every active lock.
    pub fn locks(&self) -> Vec<LockInfo> {
        let now = guard::now();
        let live = self.locks.all().into_iter().filter(|l| l.expires_ms > now);
        live.map(|l| LockInfo {
            scope: if l.shared { "shared" } else { "exclusive" },
            depth: if l.deep { "infinity" } else { "0" },
            expires_in_s: (l.expires_ms - now) / 1000,
            path: if l.path.is_empty() {
                "/".into()
            } else {
                l.path
            },
            token: l.token,
            principal: l.principal,
            owner: l.owner,
        })
        .collect()
    }

    /// Drops a lock whoever holds it; false if there is none with this token. A resource that only it made stays.
    pub async fn break_lock(&self, token: &str) -> bool {
        let Some(key) = self.locks.break_lock(token) else {
            return false;
        };
        self.settle_lock_null(&guard::path_of(&key)).await;
        true
    }

    /// Drops locks that ran out, and with them resources to which nothing was done since. Call it about once a second.
    pub async fn expire(&self) {
        self.expire_at(guard::now()).await;
    }

    async fn expire_at(&self, now: u64) {
        self.unborn.lock().extend(self.locks.expire(now));
        loop {
            let next = self.unborn.lock().pop_first();
            let Some((key, how)) = next else { return };
            let mut unfinished = Unfinished(&self.unborn, Some((key.clone(), how)));
            let path = guard::path_of(&key);
            match how {
                Ended::Came => self.settle_lock_null(&path).await,
                Ended::Bare => self.remove_lock_null(&path, key).await,
            }
            unfinished.1 = None;
        }
    }

    async fn remove_lock_null(&self, path: &ResourcePath, key: String) {
        let locks = Arc::clone(&self.locks);
        let unlocked = move || locks.has_nothing(&key);
        match self.volume.remove_lock_null(path, unlocked).await {
            Ok(_) | Err(VolumeError::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(%path, error = &error as &dyn std::error::Error, "lock-null resource stays")
            }
        }
    }

    /// After UNLOCK: what the LOCK made is now an ordinary empty resource (RFC 4918 section 7.3).
    async fn settle_lock_null(&self, path: &ResourcePath) {
        if let Ok(meta) = self.volume.stat(path).await
            && meta.lock_null
            && let Err(error) = self.volume.clear_lock_null(path).await
        {
            tracing::warn!(%path, error = &error as &dyn std::error::Error, "lock-null mark stays");
        }
    }
}

/// A key that goes back into the set if whoever asks goes away before it is dealt with. Not there meanwhile: what is put into it in
/// that time is to be dealt with anew.
struct Unfinished<'a>(
    &'a Mutex<BTreeSet<(String, Ended)>>,
    Option<(String, Ended)>,
);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.1.take() {
            self.0.lock().insert(key);
        }
    }
}

fn makes_names(method: &Method) -> bool {
    matches!(method.as_str(), "PUT" | "PATCH" | "MKCOL" | "LOCK")
}

fn op_of(method: &Method, status: StatusCode) -> Op {
    match method.as_str() {
        "GET" | "HEAD" if status == StatusCode::NOT_MODIFIED => Op::Revalidate,
        "GET" => Op::Get,
        "HEAD" => Op::Head,
        "PUT" => Op::Put,
        "PATCH" => Op::Patch,
        "DELETE" => Op::Delete,
        "OPTIONS" => Op::Options,
        "PROPFIND" => Op::Propfind,
        "PROPPATCH" => Op::Proppatch,
        "MKCOL" => Op::Mkcol,
        "COPY" => Op::Copy,
        "MOVE" => Op::Move,
        "LOCK" => Op::Lock,
        "UNLOCK" => Op::Unlock,
        _ => Op::Other,
    }
}

const CHANGES: &[&str] = &[
    "PUT",
    "PATCH",
    "PROPPATCH",
    "MKCOL",
    "DELETE",
    "COPY",
    "MOVE",
    "LOCK",
];
const METHODS_ANY: &str = "OPTIONS, PROPFIND, PROPPATCH, COPY, MOVE, DELETE, LOCK, UNLOCK";

impl Call<'_> {
    async fn route(&self, body: &mut Incoming) -> Reply {
        let method = self.parts.method.as_str();
        let reads = matches!(method, "GET" | "HEAD" | "OPTIONS" | "PROPFIND");
        if !reads && self.user.is_some_and(|u| u.read_only) {
            return Err(Refusal::forbidden("this user may only read"));
        }
        // Not cut off, as little as that of a `Destination`: what is left names another resource, which would be changed.
        if CHANGES.contains(&method) && self.parts.uri.query().is_some() {
            return Err(Refusal::bad_request(
                "a change of a URL with a query; in a name ? is %3F",
            ));
        }
        match method {
            "GET" | "HEAD" => self.get().await,
            "OPTIONS" => self.options().await,
            "PUT" => self.put(body).await,
            "PATCH" => self.patch(body).await,
            "PROPFIND" => self.propfind(body).await,
            "PROPPATCH" => self.proppatch(body).await,
            "MKCOL" => self.mkcol(body).await,
            "DELETE" => self.delete(body).await,
            "COPY" => self.copy_or_move(body, false).await,
            "MOVE" => self.copy_or_move(body, true).await,
            "LOCK" => self.lock(body).await,
            "UNLOCK" => self.unlock(body).await,
            _ => {
                let known = matches!(method, "POST" | "TRACE" | "CONNECT");
                let status = if known {
                    StatusCode::METHOD_NOT_ALLOWED
                } else {
                    StatusCode::NOT_IMPLEMENTED
                };
                let allow = allow(self.stat().await?.as_ref());
                Err(Refusal::new(status, "method not supported").with_header(header::ALLOW, allow))
            }
        }
    }

    async fn options(&self) -> Reply {
        let meta = self.stat().await?;
        let mut response = Response::new(body::empty());
        let headers = response.headers_mut();
        headers.insert(
            "dav",
            HeaderValue::from_static("1, 2, 3, sabredav-partialupdate"),
        );
        headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
        headers.insert(header::ALLOW, allow(meta.as_ref()));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert("accept-patch", HeaderValue::from_static(put::PATCH_TYPE));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        Ok(response)
    }

    /// The target's state; `None` if it is unmapped. A file named with a trailing slash is not that file.
    async fn stat(&self) -> Result<Option<Meta>, Refusal> {
        stat(&self.dav.volume, &self.target).await
    }

    /// The request's conditions, with the resources its `If` header names looked up.
    async fn guard(&self, intent: Intent) -> Result<Guard, Refusal> {
        let principal = self.user.map(|u| u.name.clone());
        let locks = Arc::clone(&self.dav.locks);
        let headers = &self.parts.headers;
        let mut guard = Guard::new(
            locks,
            headers,
            &self.target.path,
            self.root.clone(),
            principal,
            intent,
        )?;
        for tag in guard.tags() {
            let ours = self.ours();
            let target = ours
                .path(&tag)
                .and_then(|raw| uri::target(raw, &self.root).ok());
            let state = match target {
                None => Tagged {
                    key: None,
                    etag: None,
                },
                // The volume tells the target's own state when it matters.
                Some(t) if t.path == self.target.path => Tagged {
                    key: Some(guard::key(&t.path)),
                    etag: None,
                },
                Some(t) => {
                    let meta = stat(&self.dav.volume, &t).await?;
                    Tagged {
                        key: Some(guard::key(&t.path)),
                        etag: meta.map(|m| m.etag.to_string()),
                    }
                }
            };
            guard.resolve(tag, state);
        }
        Ok(guard)
    }

    fn ours(&self) -> Ours<'_> {
        Ours::of(
            &self.parts.uri,
            &self.parts.headers,
            &self.dav.opts.public_base_url,
        )
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts
            .headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::trim)
    }

    /// The `Depth` header; 400 if it is none of `0`, `1` and `infinity`.
    fn depth(&self) -> Result<Option<Depth>, Refusal> {
        match self
            .parts
            .headers
            .get("depth")
            .map(|v| v.to_str().unwrap_or("").trim())
        {
            None => Ok(None),
            Some("0") => Ok(Some(Depth::Zero)),
            Some("1") => Ok(Some(Depth::One)),
            Some(d) if d.eq_ignore_ascii_case("infinity") => Ok(Some(Depth::Infinity)),
            Some(_) => Err(Refusal::bad_request("Depth must be 0, 1 or infinity")),
        }
    }

    /// Refuses a body where none is understood.
    async fn no_body(&self, body: &mut Incoming) -> Result<(), Refusal> {
        if body.has_bytes().await? {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a body is not understood here",
            ));
        }
        Ok(())
    }
}

/// The `Depth` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Zero,
    One,
    Infinity,
}

async fn stat(volume: &Volume, target: &Target) -> Result<Option<Meta>, Refusal> {
    match volume.stat(&target.path).await {
        Ok(meta) if target.slash && meta.kind == Kind::File => Ok(None),
        Ok(meta) => Ok(Some(meta)),
        Err(VolumeError::NotFound { .. } | VolumeError::NotCollection { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The methods that a resource, or an unmapped URL, takes.
fn allow(meta: Option<&Meta>) -> HeaderValue {
    allow_of(meta.map(|m| m.kind))
}

fn allow_of(kind: Option<Kind>) -> HeaderValue {
    let text = match kind {
        None => "OPTIONS, MKCOL, PUT, LOCK".to_string(),
        Some(Kind::File) => format!("{METHODS_ANY}, GET, HEAD, PUT, PATCH"),
        Some(Kind::Collection) => format!("{METHODS_ANY}, GET, HEAD"),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(METHODS_ANY))
}

/// A reply of one status and no body.
fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

/// Adds `ETag` and `Last-Modified`.
fn validators(response: &mut Response<Body>, meta: &Meta) {
    if let Ok(etag) = HeaderValue::from_str(&meta.etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    last_modified(response, meta.modified);
}

fn last_modified(response: &mut Response<Body>, at: SystemTime) {
    if let Ok(date) = HeaderValue::from_str(&dates::http_date(at)) {
        response.headers_mut().insert(header::LAST_MODIFIED, date);
    }
}

/// An XML reply.
fn xml_reply(status: StatusCode, xml: String) -> Response<Body> {
    let mut response = Response::new(body::full(xml));
    *response.status_mut() = status;
    let xml_type = HeaderValue::from_static("application/xml; charset=utf-8");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, xml_type);
    response
}
