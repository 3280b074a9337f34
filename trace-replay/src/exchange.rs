//! One planned request on the wire: headers, body, answer, and whether that is what it should be.

use crate::client::{Answer, ClientError, Connection, Source, Target};
use crate::content::{Content, Generator};
use crate::plan::{Expect, Kind, Plan, Request};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;

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
    /// Nothing is tried again once this is true.
    pub interrupt: Option<watch::Receiver<bool>>,
    learned: Mutex<Learned>,
}

/// What only the running server can tell.
#[derive(Default)]
struct Learned {
    tokens: HashMap<(u32, u32), String>,
    etags: HashMap<u32, String>,
    /// Contents (indices) whose upload failed, and how.
    not_uploaded: HashMap<u32, String>,
}

impl Learned {
    fn etag(&mut self, path: u32, answer: &Answer) {
        if let Some(etag) = answer.etag()
            && self.etags.get(&path).is_none_or(|known| known != etag)
        {
            self.etags.insert(path, etag.to_string());
        }
    }
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
    /// Not tried again as the run is interrupted: nothing starts after this one.
    pub interrupted: bool,
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

impl Failure {
    fn message_mut(&mut self) -> &mut String {
        match self {
            Failure::Broken(message) | Failure::Status(message) | Failure::Content(message) => {
                message
            }
        }
    }
}

impl Shared {
    /// Nothing learned yet.
    pub fn new(plan: Arc<Plan>, target: Target, seed: u64, verify: Verify) -> Shared {
        Shared {
            plan,
            target,
            seed,
            verify,
            interrupt: None,
            learned: Mutex::default(),
        }
    }

    /// Ends once the run is interrupted; never when nobody can.
    async fn interrupted(&self) {
        if let Some(mut interrupt) = self.interrupt.clone()
            && interrupt.wait_for(|is| *is).await.is_ok()
        {
            return;
        }
        std::future::pending().await
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

    /// Sends the request, again after 503 and once after a kept-alive connection was closed under it. A failure that follows from
    /// that of an earlier upload says so.
    pub async fn exchange(&self, connection: &mut Connection, request: &Request) -> Done {
        let mut done = self.attempts(connection, request).await;
        if let (Some(failure), Some(content)) = (&mut done.failure, request.content) {
            let mut learned = self.learned();
            let message = failure.message_mut();
            if let Some(why) = learned.not_uploaded.get(&content) {
                message.push_str("; its upload had failed: ");
                message.push_str(why);
            } else if matches!(request.kind, Kind::Put | Kind::PutRange) {
                learned.not_uploaded.insert(content, message.clone());
            }
        }
        done
    }

    async fn attempts(&self, connection: &mut Connection, request: &Request) -> Done {
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
            match self.send(connection, request).await {
                Err(_) if reused && attempt == 1 => {}
                Err(e) => {
                    done.failure =
                        Some(Failure::Broken(format!("{}: {e}", self.describe(request))));
                    return done;
                }
                Ok(answer) if answer.status == 503 && attempt < ATTEMPTS => {
                    let wait = answer.retry_after().and_then(|v| v.parse().ok());
                    // A connection that breaks here is opened anew.
                    let _ = connection.skip_body().await;
                    let wait = Duration::from_secs(wait.unwrap_or(1));
                    tokio::select! {
                        biased;
                        // Who ends the run does not wait for minutes of a busy server.
                        () = self.interrupted() => {
                            done.status = 503;
                            done.interrupted = true;
                            done.failure = Some(Failure::Status(format!(
                                "{}: status 503, and the interrupted run does not try again",
                                self.describe(request)
                            )));
                            return done;
                        }
                        () = tokio::time::sleep(wait.min(RETRY_AFTER_MAX)) => done.retried += 1,
                    }
                }
                Ok(answer) => {
                    done.status = answer.status;
                    let length = answer.length;
                    let unknown_lock = self.learn(request, answer);
                    self.judge(connection, request, length, &mut done).await;
                    if unknown_lock && done.failure.is_none() {
                        done.failure = Some(Failure::Status(format!(
                            "{}: no Lock-Token in the answer",
                            self.describe(request)
                        )));
                    }
                    return done;
                }
            }
        }
    }

    /// `METHOD /path`, as in every message about it.
    pub fn describe(&self, request: &Request) -> String {
        format!("{} /{}", request.kind.name(), self.name(request.path))
    }

    async fn send<'c>(
        &self,
        connection: &'c mut Connection,
        request: &Request,
    ) -> Result<&'c Answer, ClientError> {
        match self.message(connection, request) {
            Body::None => connection.send(()).await,
            Body::Text(text) => connection.send(text).await,
            Body::Content => {
                let end = request.offset + request.length;
                let generated = Generated {
                    generator: self.generator(),
                    content: self.content(request),
                    at: request.offset,
                    end,
                };
                connection.send(generated).await
            }
        }
    }

    /// Begins the request with all its headers; says what its body is.
    fn message(&self, connection: &mut Connection, request: &Request) -> Body {
        let method = match request.kind {
            Kind::Propfind0 | Kind::Propfind1 => "PROPFIND",
            Kind::GetIfChanged => "GET",
            Kind::PutRange => "PUT",
            kind => kind.name(),
        };
        let path = self.name(request.path);
        connection.begin(method, self.target.request_path(path));
        let end = request.offset + request.length;
        if request.kind == Kind::Get {
            let whole = self
                .content(request)
                .is_none_or(|c| request.offset == 0 && end >= c.len());
            if !whole {
                connection.header(
                    "Range",
                    format_args!("bytes={}-{}", request.offset, end - 1),
                );
            }
            return Body::None;
        }
        let learned = self.learned();
        let token = learned.tokens.get(&(request.client, request.path));
        let etag = learned.etags.get(&request.path);
        let mut body = Body::None;
        match request.kind {
            Kind::Propfind0 | Kind::Propfind1 => {
                let depth = u8::from(request.kind == Kind::Propfind1);
                connection.header("Depth", depth);
                connection.header("Content-Type", "application/xml");
                body = Body::Text(PROPFIND_BODY);
            }
            Kind::GetIfChanged => {
                if let Some(etag) = etag {
                    connection.header("If-None-Match", etag);
                }
            }
            Kind::Put | Kind::PutRange => {
                if request.kind == Kind::PutRange {
                    let last = end.saturating_sub(1);
                    connection.header(
                        "Content-Range",
                        format_args!("bytes {}-{last}/*", request.offset),
                    );
                } else if token.is_some() && request.creates {
                    connection.header("If-None-Match", "*");
                } else if let (Some(_), Some(etag)) = (token, etag) {
                    connection.header("If-Match", etag);
                }
                body = Body::Content;
            }
            Kind::Move | Kind::Copy => {
                connection.header("Destination", self.target.url(self.name(request.path2)));
                connection.header("Overwrite", "T");
            }
            Kind::Proppatch => body = Body::Text(PROPPATCH_BODY),
            Kind::Lock if token.is_none() => {
                connection.header("Depth", "0");
                connection.header("Timeout", "Second-1800");
                body = Body::Text(LOCK_BODY);
            }
            Kind::Unlock => {
                if let Some(token) = token {
                    connection.header("Lock-Token", format_args!("<{token}>"));
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
            let url = self.target.url(path);
            connection.header("If", format_args!("<{url}> (<{token}>)"));
        }
        body
    }

    /// Reads the answer's body; says what is wrong with the answer. `length` is its Content-Length.
    async fn judge(
        &self,
        connection: &mut Connection,
        request: &Request,
        length: Option<u64>,
        done: &mut Done,
    ) {
        let expected = match request.expect {
            Expect::Success if request.kind == Kind::GetIfChanged => {
                matches!(done.status, 200 | 304)
            }
            Expect::Success => (200..300).contains(&done.status),
            Expect::SuccessOrAbsent => (200..300).contains(&done.status) || done.status == 404,
            Expect::Failure(a, b) => done.status == a || done.status == b,
        };
        let is_read = matches!(request.kind, Kind::Get | Kind::GetIfChanged)
            && (done.status == 200 || done.status == 206);
        let from = match done.status {
            206 => request.offset,
            _ => 0,
        };
        let compared = self
            .content(request)
            .filter(|_| is_read && self.verify != Verify::Lengths);
        let (mut at, mut wrong) = (from, None);
        loop {
            match connection.body().await {
                Ok(None) => break,
                Ok(Some(data)) if is_read => {
                    if let (None, Some(content)) = (&wrong, compared) {
                        wrong = self.generator().check(content, at, data).err();
                    }
                    at += data.len() as u64;
                }
                Ok(Some(_)) => {}
                Err(e) => {
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
            let wanted = match request.expect {
                Expect::Success => "success".to_string(),
                Expect::Failure(a, b) if a == b => a.to_string(),
                Expect::Failure(a, b) => format!("{a} or {b}"),
                Expect::SuccessOrAbsent => "success or 404".to_string(),
            };
            // What exists before the trace is no part of the recording.
            let recorded = match request.client {
                u32::MAX => "",
                _ => " as recorded",
            };
            let hint = match (request.kind, done.status) {
                (Kind::Mkcol, 405) => "; it is there already: name another --prefix",
                _ => "",
            };
            done.failure = Some(Failure::Status(format!(
                "{}: status {}, expected {wanted}{recorded}{hint}",
                self.describe(request),
                done.status,
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
    }

    /// Keeps what later requests need of an answer. Says whether that is a lock whose token nobody knows.
    fn learn(&self, request: &Request, answer: &Answer) -> bool {
        let looks = matches!(request.kind, Kind::Head | Kind::Get | Kind::GetIfChanged);
        // Only conditions and locks ask for ETags, and few plans have any.
        if looks && !self.plan.conditional {
            return false;
        }
        let mut learned = self.learned();
        let key = (request.client, request.path);
        if request.kind == Kind::Lock
            && answer.status < 300
            && answer.lock_token().is_none()
            && !learned.tokens.contains_key(&key)
        {
            return true;
        }
        if answer.status >= 400 {
            return false;
        }
        match request.kind {
            Kind::Lock => {
                if let Some(token) = answer.lock_token() {
                    learned.tokens.insert(key, token.to_string());
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
                learned.etag(request.path, answer);
            }
            Kind::Head | Kind::Get | Kind::GetIfChanged => learned.etag(request.path, answer),
            Kind::Copy => {
                learned.etags.remove(&request.path2);
            }
            _ => {}
        }
        false
    }
}

/// What a request carries.
enum Body {
    None,
    Text(&'static str),
    /// What the file holds, from the request's offset on.
    Content,
}

/// Generated content on its way up.
struct Generated<'a> {
    generator: Generator<'a>,
    content: Option<&'a Content>,
    at: u64,
    end: u64,
}

impl Source for Generated<'_> {
    fn length(&self) -> Option<u64> {
        Some(self.end - self.at)
    }

    fn next(&mut self, out: &mut Vec<u8>) {
        let (before, length) = (out.len(), CHUNK_BYTES.min(self.end - self.at));
        out.resize(before + length as usize, 0);
        if let Some(content) = self.content {
            self.generator.fill(content, self.at, &mut out[before..]);
        }
        self.at += length;
    }
}

/// How long something took, in whole microseconds.
pub fn micros(since: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
}

/// The properties that davfs2 asks for.
const PROPFIND_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getetag/><getlastmodified/><executable xmlns="http://apache.org/dav/props/"/></prop></propfind>"#;
const PROPPATCH_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><propertyupdate xmlns="DAV:"><set><prop><executable xmlns="http://apache.org/dav/props/">F</executable></prop></set></propertyupdate>"#;
const LOCK_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>trace-replay</owner></lockinfo>"#;
