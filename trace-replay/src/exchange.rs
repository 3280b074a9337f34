//! One planned request on the wire: headers, body, answer, and whether that is what it should be.

use crate::client::{Body, Connection, Target};
use crate::content::{Content, Generator};
use crate::plan::{Expect, Kind, Plan, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How much of what is read is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Verify {
    /// Every byte of every read, and at the end every file that is left.
    #[default]
    All,
    /// Every byte of every read.
    Reads,
    /// Lengths only.
    Lengths,
}

/// As many times as davfs2 tries an upload by default (`max_upload_attempts`).
const ATTEMPTS: u32 = 15;
/// Longest wait that a Retry-After can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Bytes generated at a time for a PUT.
const CHUNK_BYTES: u64 = 256 << 10;

/// What all connections share.
pub struct Shared {
    /// What to send.
    pub plan: Arc<Plan>,
    /// Where to.
    pub target: Target,
    /// Seed of the content.
    pub seed: u64,
    /// What to compare.
    pub verify: Verify,
    learned: Mutex<Learned>,
}

/// What only the running server can tell.
#[derive(Default)]
struct Learned {
    tokens: HashMap<(u32, u32), String>,
    etags: HashMap<u32, String>,
}

/// What became of one request.
#[derive(Debug, Default)]
pub struct Done {
    /// Status of the last answer; 0 when there was none.
    pub status: u16,
    /// Body bytes, in either direction.
    pub bytes: u64,
    /// What is wrong, if anything.
    pub failure: Option<Failure>,
    /// Answers 503 that were tried again.
    pub retried: u32,
    /// Nothing was sent: the lock to release never was, or is gone.
    pub skipped: bool,
}

/// What went wrong.
#[derive(Debug)]
pub enum Failure {
    /// No answer, or one that broke off.
    Broken(String),
    /// Another status than the recording has.
    Status(String),
    /// Other bytes than were written.
    Content(String),
}

impl Shared {
    /// Nothing learned yet.
    pub fn new(plan: Arc<Plan>, target: Target, seed: u64, verify: Verify) -> Shared {
        Shared {
            plan,
            target,
            seed,
            verify,
            learned: Mutex::default(),
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn generator(&self) -> Generator<'_> {
        Generator {
            seed: self.seed,
            paths: &self.plan.paths,
        }
    }

    fn content(&self, request: &Request) -> Option<&Content> {
        request
            .content
            .and_then(|c| self.plan.contents.get(c as usize))
    }

    fn name(&self, path: u32) -> &str {
        self.plan.paths.get(path as usize).map_or("", |p| p)
    }

    /// Sends the request, again after 503 and once after a kept-alive connection was closed under it.
    pub async fn exchange(
        self: &Arc<Self>,
        connection: &mut Connection,
        request: &Request,
    ) -> Done {
        let mut done = Done::default();
        if request.kind == Kind::Unlock
            && !self
                .learned()
                .tokens
                .contains_key(&(request.client, request.path))
        {
            done.skipped = true;
            return done;
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let reused = connection.is_reused();
            let response = match self.message(request) {
                Ok(message) => connection.send(message).await,
                Err(e) => {
                    done.failure =
                        Some(Failure::Broken(format!("{}: {e}", self.describe(request))));
                    return done;
                }
            };
            match response {
                Err(_) if reused && attempt == 1 => connection.close(),
                Err(e) => {
                    connection.close();
                    done.failure =
                        Some(Failure::Broken(format!("{}: {e}", self.describe(request))));
                    return done;
                }
                Ok(response) if response.status() == 503 && attempt < ATTEMPTS => {
                    let wait = header(&response, "retry-after")
                        .and_then(|v| v.parse().ok())
                        .unwrap_or(1);
                    let _ = response.into_body().collect().await;
                    done.retried += 1;
                    tokio::time::sleep(Duration::from_secs(wait).min(RETRY_AFTER_MAX)).await;
                }
                Ok(response) => {
                    self.judge(connection, request, response, &mut done).await;
                    return done;
                }
            }
        }
    }

    /// `METHOD /path`, as in every message about it.
    pub fn describe(&self, request: &Request) -> String {
        format!("{} /{}", request.kind.name(), self.name(request.path))
    }

    fn message(self: &Arc<Self>, request: &Request) -> Result<http::Request<Body>, http::Error> {
        let method = match request.kind {
            Kind::Propfind0 | Kind::Propfind1 => "PROPFIND",
            Kind::GetIfChanged => "GET",
            Kind::PutRange => "PUT",
            kind => kind.name(),
        };
        let path = self.name(request.path);
        let mut message = http::Request::builder()
            .method(method)
            .uri(self.target.request_path(path));
        let mut body = Empty::new().map_err(|e| match e {}).boxed_unsync();
        let end = request.offset + request.length;
        let learned = self.learned();
        let token = learned.tokens.get(&(request.client, request.path));
        let etag = learned.etags.get(&request.path);
        match request.kind {
            Kind::Propfind0 | Kind::Propfind1 => {
                message = message.header(
                    "Depth",
                    if request.kind == Kind::Propfind0 {
                        "0"
                    } else {
                        "1"
                    },
                );
                message = message.header("Content-Type", "application/xml");
                body = full(PROPFIND_BODY);
            }
            Kind::Get => {
                let whole = self
                    .content(request)
                    .is_none_or(|c| request.offset == 0 && end >= c.len());
                if !whole {
                    message =
                        message.header("Range", format!("bytes={}-{}", request.offset, end - 1));
                }
            }
            Kind::GetIfChanged => {
                if let Some(etag) = etag {
                    message = message.header("If-None-Match", etag);
                }
            }
            Kind::Put | Kind::PutRange => {
                if request.kind == Kind::PutRange {
                    message = message.header(
                        "Content-Range",
                        format!("bytes {}-{}/*", request.offset, end.saturating_sub(1)),
                    );
                } else if token.is_some() && request.creates {
                    message = message.header("If-None-Match", "*");
                } else if let (Some(_), Some(etag)) = (token, etag) {
                    message = message.header("If-Match", etag);
                }
                message = message.header("Content-Length", request.length);
                body = self.generated(request);
            }
            Kind::Move | Kind::Copy => {
                message = message
                    .header("Destination", self.target.url(self.name(request.path2)))
                    .header("Overwrite", "T");
            }
            Kind::Proppatch => body = full(PROPPATCH_BODY),
            Kind::Lock if token.is_none() => {
                message = message
                    .header("Depth", "0")
                    .header("Timeout", "Second-1800");
                body = full(LOCK_BODY);
            }
            Kind::Unlock => {
                if let Some(token) = token {
                    message = message.header("Lock-Token", format!("<{token}>"));
                }
            }
            // Without headers of their own; calls are never sent.
            _ => {}
        }
        let under_lock = matches!(
            request.kind,
            Kind::Put | Kind::PutRange | Kind::Delete | Kind::Move | Kind::Proppatch | Kind::Lock
        );
        if let (true, Some(token)) = (under_lock, token) {
            message = message.header("If", format!("<{}> (<{token}>)", self.target.url(path)));
        }
        message.body(body)
    }

    fn generated(self: &Arc<Self>, request: &Request) -> Body {
        let (shared, content) = (self.clone(), request.content);
        let (start, end) = (request.offset, request.offset + request.length);
        let chunks = futures_util::stream::unfold(start, move |at| {
            let shared = shared.clone();
            async move {
                let len = CHUNK_BYTES.min(end - at);
                let content = shared.plan.contents.get(content? as usize)?;
                (len > 0).then(|| {
                    let mut bytes = vec![0; len as usize];
                    shared.generator().fill(content, at, &mut bytes);
                    (Ok(Frame::data(Bytes::from(bytes))), at + len)
                })
            }
        });
        StreamBody::new(chunks).boxed_unsync()
    }

    async fn judge(
        &self,
        connection: &mut Connection,
        request: &Request,
        response: http::Response<hyper::body::Incoming>,
        done: &mut Done,
    ) {
        done.status = response.status().as_u16();
        let expected = match request.expect {
            Expect::Success if request.kind == Kind::GetIfChanged => {
                matches!(done.status, 200 | 304)
            }
            Expect::Success => (200..300).contains(&done.status),
            Expect::SuccessOrAbsent => (200..300).contains(&done.status) || done.status == 404,
            Expect::Failure(a, b) => done.status == a || done.status == b,
        };
        let etag = header(&response, "etag");
        let token = header(&response, "lock-token").map(|t| t.trim_matches(['<', '>']).to_string());
        let length = header(&response, "content-length").and_then(|l| l.parse::<u64>().ok());
        let is_read = matches!(request.kind, Kind::Get | Kind::GetIfChanged)
            && (done.status == 200 || done.status == 206);
        let mut body = response.into_body();
        let mut at = if done.status == 206 {
            request.offset
        } else {
            0
        };
        let from = at;
        let mut wrong = None;
        loop {
            match body.frame().await {
                None => break,
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else {
                        continue;
                    };
                    if is_read {
                        if let (None, Some(content), true) = (
                            &wrong,
                            self.content(request),
                            self.verify != Verify::Lengths,
                        ) {
                            wrong = self.generator().check(content, at, data).err();
                        }
                        at += data.len() as u64;
                    }
                }
                Some(Err(e)) => {
                    connection.close();
                    done.failure = Some(Failure::Broken(format!(
                        "{}: the answer broke off after {} bytes: {e}",
                        self.describe(request),
                        at - from
                    )));
                    return;
                }
            }
        }
        if matches!(request.kind, Kind::Put | Kind::PutRange) {
            done.bytes = request.length;
        } else {
            done.bytes = at - from;
        }
        if !expected {
            done.failure = Some(Failure::Status(format!(
                "{}: status {}, expected {:?} as recorded",
                self.describe(request),
                done.status,
                request.expect
            )));
            return;
        }
        if let Some(wrong) = wrong {
            let expected = wrong.expected.map_or("the end of the file".into(), |o| {
                format!("version {} of /{}", o.version, self.name(o.path))
            });
            done.failure = Some(Failure::Content(format!(
                "{}: differs at offset {}: expected {expected}, found {}",
                self.describe(request),
                wrong.offset,
                wrong.found
            )));
        } else if let (true, Some(content)) = (is_read, self.content(request)) {
            let want = if done.status == 206 {
                request.length
            } else {
                content.len()
            };
            if at - from != want {
                done.failure = Some(Failure::Content(format!(
                    "{}: {} bytes, expected {want}",
                    self.describe(request),
                    at - from
                )));
            }
        } else if let (Kind::Head, Some(content), Some(length)) =
            (request.kind, self.content(request), length)
            && length != content.len()
        {
            done.failure = Some(Failure::Content(format!(
                "{}: Content-Length {length}, expected {}",
                self.describe(request),
                content.len()
            )));
        }
        if request.kind == Kind::Lock
            && token.is_none()
            && !self
                .learned()
                .tokens
                .contains_key(&(request.client, request.path))
        {
            done.failure = Some(Failure::Status(format!(
                "{}: no Lock-Token in the answer",
                self.describe(request)
            )));
        }
        if done.status < 400 {
            self.learn(request, etag, token);
        }
    }

    fn learn(&self, request: &Request, etag: Option<String>, token: Option<String>) {
        let mut learned = self.learned();
        let key = (request.client, request.path);
        match request.kind {
            Kind::Lock => {
                if let Some(token) = token {
                    learned.tokens.insert(key, token);
                }
            }
            Kind::Unlock => {
                learned.tokens.remove(&key);
            }
            Kind::Delete | Kind::Move => {
                let gone = self.name(request.path);
                let beneath = |path: u32| {
                    self.name(path)
                        .strip_prefix(gone)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                learned.tokens.retain(|(_, path), _| !beneath(*path));
                let moved = learned.etags.remove(&request.path);
                if let (Kind::Move, Some(etag)) = (request.kind, moved) {
                    learned.etags.insert(request.path2, etag);
                }
            }
            Kind::Put | Kind::PutRange => {
                learned.etags.remove(&request.path);
                if let Some(etag) = etag {
                    learned.etags.insert(request.path, etag);
                }
            }
            Kind::Head | Kind::Get | Kind::GetIfChanged => {
                if let Some(etag) = etag {
                    learned.etags.insert(request.path, etag);
                }
            }
            Kind::Copy => {
                learned.etags.remove(&request.path2);
            }
            _ => {}
        }
    }
}

/// How long something took, in whole microseconds.
pub fn micros(since: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
}

fn header(response: &http::Response<hyper::body::Incoming>, name: &str) -> Option<String> {
    response
        .headers()
        .get(name)?
        .to_str()
        .ok()
        .map(str::to_string)
}

fn full(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|e| match e {})
        .boxed_unsync()
}

/// The properties that davfs2 asks for.
const PROPFIND_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getetag/><getlastmodified/><executable xmlns="http://apache.org/dav/props/"/></prop></propfind>"#;
const PROPPATCH_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><propertyupdate xmlns="DAV:"><set><prop><executable xmlns="http://apache.org/dav/props/">F</executable></prop></set></propertyupdate>"#;
const LOCK_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>trace-replay</owner></lockinfo>"#;
