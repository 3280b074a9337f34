//! Decides whether a request may go ahead: `If`, the conditions of RFC 9110 section 13, and locks.
//!
//! Every rule is evaluated twice, by the same code: once before any work (so that a client that waits for `100 Continue`
//! uploads nothing in vain) and once by the volume just before the change, while nothing else can change the target.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tiering::FileId;

use super::ifheader::{Answer, IfHeader, Test, Verdict};
use super::locks::{Blocked, Claim, LockTable};
use super::status::Refusal;
use super::uri;
use crate::volume::{Check, Kind, Meta, ResourcePath, VolumeError};

/// What kind of request the conditions belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// GET and HEAD: a failed `If-None-Match` is 304.
    Read,
    /// PUT and PATCH: a lock that is no more is forgiven where an entity tag, or the first look, proves that nothing was lost.
    Upload,
    /// Any other.
    Change,
}

/// A list of entity tags, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    List(Vec<String>),
}

impl Tags {
    fn parse(headers: &HeaderMap, name: HeaderName) -> Option<Tags> {
        let mut list = Vec::new();
        let mut present = false;
        for value in headers.get_all(name) {
            present = true;
            let mut rest = value.to_str().unwrap_or("").trim();
            if rest == "*" {
                return Some(Tags::Any);
            }
            while let Some(start) = rest.find('"') {
                let weak = rest[..start].ends_with("W/");
                let Some(end) = rest[start + 1..].find('"') else {
                    break;
                };
                let quoted = &rest[start..start + end + 2];
                list.push(if weak {
                    format!("W/{quoted}")
                } else {
                    quoted.to_string()
                });
                rest = &rest[start + end + 2..];
            }
        }
        present.then_some(Tags::List(list))
    }

    fn strong(&self, etag: Option<&str>) -> bool {
        match (self, etag) {
            (_, None) => false,
            (Tags::Any, Some(_)) => true,
            (Tags::List(l), Some(etag)) => l.iter().any(|t| t == etag),
        }
    }

    fn weak(&self, etag: Option<&str>) -> bool {
        match (self, etag) {
            (_, None) => false,
            (Tags::Any, Some(_)) => true,
            (Tags::List(l), Some(etag)) => {
                l.iter().any(|t| t.strip_prefix("W/").unwrap_or(t) == etag)
            }
        }
    }
}

/// The key of a path in the lock table.
pub fn key(path: &ResourcePath) -> String {
    if path.is_root() {
        String::new()
    } else {
        path.to_string()
    }
}

/// What locks know a collection's member by.
pub fn member_key(collection: &ResourcePath, name: &str) -> String {
    format!("{}/{name}", key(collection))
}

/// The path of a lock table's key.
pub fn path_of(key: &str) -> ResourcePath {
    ResourcePath::parse(key).unwrap_or_else(|_| ResourcePath::root())
}

/// A date field's value; a malformed one counts as absent.
pub fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// A time as an HTTP date can say it.
fn whole_seconds(t: SystemTime) -> SystemTime {
    t.duration_since(UNIX_EPOCH).map_or(UNIX_EPOCH, |d| {
        UNIX_EPOCH + Duration::from_secs(d.as_secs())
    })
}

/// The state of a resource named by a tag in the `If` header.
#[derive(Debug, Clone)]
pub struct Tagged {
    /// Its key; `None` if it is not ours.
    pub key: Option<String>,
    /// Its entity tag, if it exists.
    pub etag: Option<String>,
}

/// All conditions of one request.
pub struct Guard {
    locks: Arc<LockTable>,
    /// Tokens submitted and by whom.
    pub claim: Claim,
    /// The requester's root, for hrefs in answers.
    root: ResourcePath,
    own: String,
    intent: Intent,
    if_header: Option<IfHeader>,
    tagged: HashMap<String, Tagged>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_unmodified_since: Option<SystemTime>,
    if_modified_since: Option<SystemTime>,
    /// What an upload's first look met when it passed: a version, and whether only a LOCK had made it.
    passed: OnceLock<Option<(FileId, bool)>>,
}

/// Where a check leaves the reason of its no.
pub type Reason = Arc<Mutex<Option<Refusal>>>;

impl Guard {
    /// Reads the conditions of a request on `path`.
    pub fn new(
        locks: Arc<LockTable>,
        headers: &HeaderMap,
        path: &ResourcePath,
        root: ResourcePath,
        principal: Option<String>,
        intent: Intent,
    ) -> Result<Guard, Refusal> {
        let mut lines = Vec::new();
        for value in headers.get_all("if") {
            let line = std::str::from_utf8(value.as_bytes())
                .map_err(|_| Refusal::bad_request("If is not UTF-8"))?;
            lines.push(line);
        }
        let if_header = match lines.as_slice() {
            [] => None,
            lines => Some(
                IfHeader::parse(&lines.join(" "))
                    .map_err(|e| Refusal::bad_request(e.to_string()))?,
            ),
        };
        let tokens = if_header
            .iter()
            .flat_map(|h| h.tokens())
            .map(str::to_string)
            .collect();
        Ok(Guard {
            locks,
            claim: Claim { tokens, principal },
            root,
            own: key(path),
            intent,
            if_header,
            tagged: HashMap::new(),
            if_match: Tags::parse(headers, header::IF_MATCH),
            if_none_match: Tags::parse(headers, header::IF_NONE_MATCH),
            if_unmodified_since: date(headers, header::IF_UNMODIFIED_SINCE),
            if_modified_since: date(headers, header::IF_MODIFIED_SINCE),
            passed: OnceLock::new(),
        })
    }

    /// True if the request has an `If` header.
    pub fn has_if(&self) -> bool {
        self.if_header.is_some()
    }

    /// The resources that the `If` header names.
    pub fn tags(&self) -> Vec<String> {
        let lists = self.if_header.iter().flat_map(|h| &h.lists);
        let mut tags: Vec<String> = lists.filter_map(|l| l.resource.clone()).collect();
        tags.sort();
        tags.dedup();
        tags
    }

    /// Tells the state of one of them.
    pub fn resolve(&mut self, tag: String, state: Tagged) {
        self.tagged.insert(tag, state);
    }

    /// Notes that an upload may begin, over what is there now: if that is still so at its end, a lock that ran out meanwhile was
    /// missed by nobody.
    pub fn pass(&self, meta: Option<&Meta>) {
        let _ = self.passed.set(meta.map(|m| (m.file_id, m.lock_null)));
    }

    /// Whether an upload that has [passed](Self::pass) meets what it met then; what only its LOCK had made may have gone with that.
    fn unchanged(&self, meta: Option<&Meta>) -> bool {
        self.passed.get().is_some_and(|seen| match (seen, meta) {
            (None, None) => true,
            (Some((id, _)), Some(meta)) => *id == meta.file_id,
            (Some((_, lock_null)), None) => *lock_null,
            (None, Some(_)) => false,
        })
    }

    /// Evaluates everything but locks against the target's current state.
    pub fn conditions(&self, meta: Option<&Meta>) -> Result<(), Refusal> {
        self.conditions_beside(meta, None)
    }

    /// Whether there is anything that [`Guard::conditions`] looks at.
    pub fn has_conditions(&self) -> bool {
        self.if_header.is_some()
            || self.if_match.is_some()
            || self.if_none_match.is_some()
            || self.if_unmodified_since.is_some()
    }

    /// [`Guard::conditions`], where another resource that `If` may name, by its key, has this entity tag now.
    pub fn conditions_beside(
        &self,
        meta: Option<&Meta>,
        other: Option<(&str, Option<&str>)>,
    ) -> Result<(), Refusal> {
        let etag = meta.map(|m| &*m.etag);
        let now = now();
        let if_match = self.if_match.as_ref().map(|tags| tags.strong(etag));
        // What only a LOCK made does not exist yet for those who ask that nothing be overwritten: its owner's first PUT
        // says `If-None-Match: *`, and everybody else meets the lock.
        let unborn = self.intent == Intent::Upload && meta.is_some_and(|m| m.lock_null);
        let if_none_match = self.if_none_match.as_ref().map(|tags| {
            if unborn && *tags == Tags::Any {
                true
            } else {
                !tags.weak(etag)
            }
        });
        if let Some(header) = &self.if_header {
            let verdict =
                header.evaluate(|resource, test| self.answer((resource, test), etag, other, now));
            let proven =
                if_match == Some(true) || if_none_match == Some(true) || self.unchanged(meta);
            let forgiven = verdict == Verdict::OnlyStale && self.intent == Intent::Upload && proven;
            if verdict != Verdict::Holds && !forgiven {
                // The token of a lock that is no more: if another lock is in the way, davfs2 should hear that (423) and
                // look for its own again, rather than give up the upload (412).
                if verdict == Verdict::OnlyStale && self.intent != Intent::Read {
                    self.open(&self.own, false)?;
                }
                return Err(Refusal::precondition("If does not hold"));
            }
        }
        if if_match == Some(false) {
            return Err(Refusal::precondition("If-Match does not hold"));
        }
        if if_match.is_none()
            && let (Some(since), Some(meta)) = (self.if_unmodified_since, meta)
            && whole_seconds(meta.modified) > since
        {
            return Err(Refusal::precondition("modified since"));
        }
        match (if_none_match, self.intent) {
            (Some(false), Intent::Read) => return Err(not_modified(meta)),
            (Some(false), _) => return Err(Refusal::precondition("If-None-Match does not hold")),
            (Some(true), _) | (None, _) => {}
        }
        if self.if_none_match.is_none()
            && self.intent == Intent::Read
            && let (Some(since), Some(m)) = (self.if_modified_since, meta)
            && whole_seconds(m.modified) <= since
        {
            return Err(not_modified(meta));
        }
        Ok(())
    }

    fn answer(
        &self,
        (resource, test): (Option<&str>, &Test),
        own_etag: Option<&str>,
        other: Option<(&str, Option<&str>)>,
        now: u64,
    ) -> Answer {
        let (key, etag) = match resource {
            None => (Some(self.own.as_str()), own_etag),
            Some(tag) => match self.tagged.get(tag) {
                Some(t) if t.key.as_deref() == Some(&self.own) => {
                    (Some(self.own.as_str()), own_etag)
                }
                Some(t) => match other.filter(|(key, _)| t.key.as_deref() == Some(*key)) {
                    Some((key, etag)) => (Some(key), etag),
                    None => (t.key.as_deref(), t.etag.as_deref()),
                },
                None => (None, None),
            },
        };
        let (Some(key), yes) = (key, Answer::Yes) else {
            return Answer::No;
        };
        match test {
            Test::Etag(tag) if etag == Some(tag) => yes,
            Test::Etag(_) => Answer::No,
            Test::Token(token) if self.locks.matches(key, token, now) => yes,
            Test::Token(token) if self.locks.moved_here(key, token, etag, now) => yes,
            Test::Token(token) if self.locks.held(token, now) => Answer::No,
            Test::Token(token)
                if token.starts_with("urn:uuid:") || token.starts_with("opaquelocktoken:") =>
            {
                Answer::Stale
            }
            Test::Token(_) => Answer::No,
        }
    }

    /// May the requester change the resource at `key` (and all below it)? 423, or 207 if only something below is locked.
    pub fn open(&self, key: &str, tree: bool) -> Result<(), Refusal> {
        let now = now();
        let blocked = if tree {
            self.locks.check_tree(key, &self.claim, now)
        } else {
            self.locks.check(key, &self.claim, now)
        };
        blocked.map_err(|b| self.locked(key, &b))
    }

    /// May the requester add to or take from the collection that holds `path`?
    pub fn open_parent(&self, path: &ResourcePath) -> Result<(), Refusal> {
        path.parent()
            .map_or(Ok(()), |parent| self.open(&key(&parent), false))
    }

    fn locked(&self, asked: &str, blocked: &Blocked) -> Refusal {
        let href = uri::href(&path_of(&blocked.root), &self.root, false);
        let condition =
            format!("<D:lock-token-submitted><D:href>{href}</D:href></D:lock-token-submitted>");
        let mut refusal =
            Refusal::new(StatusCode::LOCKED, "locked").with_condition(condition.clone());
        let below = blocked.root.len() > asked.len();
        if below {
            refusal.status = StatusCode::MULTI_STATUS;
            refusal.multistatus = Some(format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\"><D:response>\
                 <D:href>{href}</D:href><D:status>HTTP/1.1 423 Locked</D:status><D:error>{condition}</D:error>\
                 </D:response></D:multistatus>\n"
            ));
        }
        refusal
    }
}

/// Turns a rule into what the volume asks just before the change; the reason of a no is left in the `Reason`.
pub fn check(
    guard: &Arc<Guard>,
    rule: impl Fn(&Guard, Option<&Meta>) -> Result<(), Refusal> + Send + 'static,
) -> (Check, Reason) {
    let reason = Reason::default();
    let (guard, slot) = (Arc::clone(guard), Arc::clone(&reason));
    let check: Check = Box::new(move |meta| match rule(&guard, meta) {
        Ok(()) => true,
        Err(refusal) => {
            *slot.lock() = Some(refusal);
            false
        }
    });
    (check, reason)
}

/// The refusal for a failed operation: the check's own reason if it was the check that said no.
pub fn refusal(error: VolumeError, reason: &Reason) -> Refusal {
    match (&error, reason.lock().take()) {
        (VolumeError::PreconditionFailed { .. }, Some(refusal)) => refusal,
        _ => error.into(),
    }
}

/// Milliseconds since the Unix epoch, by the clock as it was when this was first asked: a lock lives as long as it was granted for,
/// whoever sets the clock meanwhile.
pub fn now() -> u64 {
    static START: LazyLock<(Instant, u64)> =
        LazyLock::new(|| (Instant::now(), super::locks::unix_ms(SystemTime::now())));
    let (began, unix_ms) = *START;
    unix_ms.saturating_add(began.elapsed().as_millis() as u64)
}

fn not_modified(meta: Option<&Meta>) -> Refusal {
    let mut refusal = Refusal::new(StatusCode::NOT_MODIFIED, "");
    if let Some(meta) = meta {
        if let Ok(etag) = HeaderValue::from_str(&meta.etag) {
            refusal = refusal.with_header(header::ETAG, etag);
        }
        if let Ok(date) = HeaderValue::from_str(&super::dates::http_date(meta.modified)) {
            refusal = refusal.with_header(header::LAST_MODIFIED, date);
        }
        if meta.kind == Kind::File {
            let no_cache = HeaderValue::from_static("no-cache");
            refusal = refusal.with_header(header::CACHE_CONTROL, no_cache);
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn entity_tag_lists_are_read_whole() {
        let mut h = HeaderMap::new();
        h.append(header::IF_MATCH, "\"a,b\", W/\"c\"".parse().unwrap());
        h.append(header::IF_MATCH, "\"d\"".parse().unwrap());
        let tags = Tags::parse(&h, header::IF_MATCH).unwrap();
        assert_eq!(
            tags,
            Tags::List(vec!["\"a,b\"".into(), "W/\"c\"".into(), "\"d\"".into()])
        );
        assert!(tags.strong(Some("\"a,b\"")) && tags.strong(Some("\"d\"")));
        assert!(!tags.strong(Some("\"c\"")) && tags.weak(Some("\"c\"")));
        assert!(!tags.strong(None) && !Tags::Any.strong(None) && Tags::Any.strong(Some("x")));
        h.clear();
        h.append(header::IF_MATCH, "unquoted".parse().unwrap());
        assert_eq!(Tags::parse(&h, header::IF_MATCH), Some(Tags::List(vec![])));
    }
}
