//! LOCK, its refresh, and UNLOCK.

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;

use super::body::Incoming;
use super::guard::{self, Intent};
use super::locks::{Ended, Lock, Refused, Unlock};
use super::status::Refusal;
use super::xml::{self, DAV, Element};
use super::{Call, Depth, Reply, bare, uri, xml_reply};
use crate::volume::{ResourcePath, VolumeError};

/// Granted when the client asks for nothing.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1800);
/// Longest `DAV:owner` kept.
const OWNER_BYTES_MAX: usize = 4 << 10;

impl Call<'_> {
    pub(super) async fn lock(&self, body: &mut Incoming) -> Reply {
        let request = body.xml(self.dav.opts.max_xml_bytes).await?;
        let guard = self.guard(Intent::Change).await?;
        let path = &self.target.path;
        let key = guard::key(path);
        let timeout = self.timeout();
        let Some(request) = request else {
            return self.refresh(&guard, timeout).await;
        };

        let (shared, owner) = lockinfo(&request)?;
        let deep = match self.depth()? {
            Some(Depth::Zero) => false,
            None | Some(Depth::Infinity) => true,
            Some(Depth::One) => {
                return Err(Refusal::bad_request("a lock's Depth is 0 or infinity"));
            }
        };
        let meta = self.stat().await?;
        guard.conditions(meta.as_ref())?;
        if meta.is_none() {
            if self.target.slash {
                return Err(Refusal::conflict(
                    "LOCK makes a file; its name has no trailing slash",
                ));
            }
            guard.open_parent(path)?;
        }
        let now = guard::now();
        let lock = Lock {
            token: format!("urn:uuid:{}", uuid::Uuid::new_v4()),
            path: key,
            shared,
            deep,
            owner,
            principal: self.user.map(|u| u.name.clone()),
            timeout_s: timeout.as_secs(),
            expires_ms: now + timeout.as_millis() as u64,
            came: false,
        };
        let durable = self
            .dav
            .locks
            .lock(lock.clone(), now)
            .map_err(|r| self.refused(r))?;
        // Taken in memory already, so that of two simultaneous LOCKs one gets it; undone if anything fails.
        let undo = Undo {
            call: self,
            token: Some(&lock.token),
        };
        let created = if meta.is_none() {
            let (made, durable) = tokio::join!(self.dav.volume.touch_locked(path), durable.wait());
            durable.map_err(journal_trouble)?;
            match made {
                Ok(_) => true,
                Err(VolumeError::Exists { .. }) => false,
                Err(e) => return Err(e.into()),
            }
        } else {
            durable.wait().await.map_err(journal_trouble)?;
            false
        };
        undo.keep();
        let status = if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = xml_reply(status, self.lock_body(&lock));
        if let Ok(token) = HeaderValue::from_str(&format!("<{}>", lock.token)) {
            response.headers_mut().insert("lock-token", token);
        }
        Ok(response)
    }

    async fn refresh(&self, guard: &guard::Guard, timeout: Duration) -> Reply {
        if !guard.has_if() {
            return Err(Refusal::bad_request(
                "LOCK without a body refreshes a lock and needs If",
            ));
        }
        let key = guard::key(&self.target.path);
        let meta = self.stat().await?;
        // What a wrong token fails to prolong is not in anybody's way: 412, not 423.
        guard
            .conditions(meta.as_ref())
            .map_err(|r| match r.status {
                StatusCode::LOCKED => Refusal::precondition("If does not hold"),
                _ => r,
            })?;
        let refreshed = self
            .dav
            .locks
            .refresh(&key, &guard.claim, timeout, guard::now());
        let (lock, durable) = refreshed.ok_or_else(|| {
            let condition = "<D:lock-token-matches-request-uri/>";
            Refusal::precondition("no such lock on this resource").with_condition(condition)
        })?;
        durable.wait().await.map_err(journal_trouble)?;
        Ok(xml_reply(StatusCode::OK, self.lock_body(&lock)))
    }

    pub(super) async fn unlock(&self, body: &mut Incoming) -> Reply {
        self.no_body(body).await?;
        let token = self
            .header("lock-token")
            .ok_or_else(|| Refusal::bad_request("Lock-Token is missing"))?;
        let token = token.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
        let token = token.ok_or_else(|| Refusal::bad_request("malformed Lock-Token"))?;
        let locks = &self.dav.locks;
        let key = guard::key(&self.target.path);
        let resource = locks.resource_of(&key, token);
        match locks.unlock(
            &key,
            token,
            self.user.map(|u| u.name.as_str()),
            guard::now(),
        ) {
            Unlock::Done => {
                self.dav.settle_lock_null(&guard::path_of(&resource)).await;
                Ok(bare(StatusCode::NO_CONTENT))
            }
            Unlock::NotYours => Err(Refusal::forbidden("the lock is another user's")),
            Unlock::NoSuchLock => {
                let condition = "<D:lock-token-matches-request-uri/>";
                Err(Refusal::conflict("no such lock on this resource").with_condition(condition))
            }
        }
    }

    /// The first time-out in `Timeout` that is understood, bounded by what is granted at most.
    fn timeout(&self) -> Duration {
        let max = self.dav.opts.lock_timeout_max;
        let asked = self
            .header("timeout")
            .and_then(|v| v.split(',').find_map(|t| parse_timeout(t.trim())));
        asked
            .unwrap_or(TIMEOUT_DEFAULT)
            .clamp(Duration::from_secs(1).min(max), max)
    }

    fn refused(&self, refused: Refused) -> Refusal {
        let href = |root: &String| {
            format!(
                "<D:href>{}</D:href>",
                uri::href(&guard::path_of(root), &self.root, false)
            )
        };
        let condition = |roots: &[String]| {
            format!(
                "<D:no-conflicting-lock>{}</D:no-conflicting-lock>",
                roots.iter().map(href).collect::<String>()
            )
        };
        match refused {
            Refused::Conflict(roots) => {
                Refusal::new(StatusCode::LOCKED, "locked").with_condition(condition(&roots))
            }
            Refused::Below(roots) => {
                let mut refusal = Refusal::new(StatusCode::MULTI_STATUS, "locked");
                let mut out = String::from(
                    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">",
                );
                for root in &roots {
                    let condition = condition(std::slice::from_ref(root));
                    let _ = write!(
                        out,
                        "<D:response>{}<D:status>HTTP/1.1 423 Locked</D:status><D:error>{condition}</D:error></D:response>",
                        href(root)
                    );
                }
                let own = uri::href(&self.target.path, &self.root, true);
                let _ = writeln!(
                    out,
                    "<D:response><D:href>{own}</D:href><D:status>HTTP/1.1 424 Failed Dependency</D:status>\
                     </D:response></D:multistatus>"
                );
                refusal.multistatus = Some(out);
                refusal
            }
            Refused::TooMany => Refusal::unavailable("too many locks"),
        }
    }

    fn lock_body(&self, lock: &Lock) -> String {
        let mut out = String::from(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>",
        );
        active_lock(&mut out, lock, guard::now(), &self.root);
        out.push_str("</D:lockdiscovery></D:prop>\n");
        out
    }
}

/// Takes the lock back, with what it has made, unless told to keep it: also when the client goes away in the middle.
struct Undo<'a> {
    call: &'a Call<'a>,
    token: Option<&'a str>,
}

impl Undo<'_> {
    fn keep(mut self) {
        self.token = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            let dav = self.call.dav;
            dav.locks.break_lock(token);
            let made = guard::key(&self.call.target.path);
            dav.unborn.lock().insert((made, Ended::Bare));
        }
    }
}

fn journal_trouble(error: std::io::Error) -> Refusal {
    let condition = match error.kind() {
        std::io::ErrorKind::StorageFull => "<D:sufficient-disk-space/>",
        std::io::ErrorKind::QuotaExceeded => "<D:quota-not-exceeded/>",
        _ => return Refusal::unavailable("the lock cannot be recorded now"),
    };
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "no space for the lock")
        .with_condition(condition)
}

fn parse_timeout(s: &str) -> Option<Duration> {
    if s.eq_ignore_ascii_case("infinite") {
        return Some(Duration::MAX);
    }
    let seconds = s
        .get(..7)
        .filter(|p| p.eq_ignore_ascii_case("second-"))
        .and(s.get(7..))?;
    (!seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit()))
        .then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)))
}

/// Reads a `DAV:lockinfo`: shared?, and the owner's content.
fn lockinfo(request: &Element) -> Result<(bool, String), Refusal> {
    if !request.is(DAV, "lockinfo") {
        return Err(Refusal::bad_request("LOCK takes a DAV:lockinfo"));
    }
    let kind = |name| request.dav_child(name).and_then(|e| e.elements().next());
    if !kind("locktype").is_some_and(|t| t.is(DAV, "write")) {
        return Err(Refusal::bad_request("only write locks exist"));
    }
    let shared = match kind("lockscope") {
        Some(s) if s.is(DAV, "exclusive") => false,
        Some(s) if s.is(DAV, "shared") => true,
        _ => {
            return Err(Refusal::bad_request(
                "lockscope must be exclusive or shared",
            ));
        }
    };
    let owner = request
        .dav_child("owner")
        .map_or_else(String::new, |o| o.inner_fragment());
    if owner.len() > OWNER_BYTES_MAX {
        return Err(Refusal::too_large("the lock's owner is too long"));
    }
    Ok((shared, owner))
}

/// Writes one `DAV:activelock`; `DAV:` is bound to `D`.
pub(super) fn active_lock(out: &mut String, lock: &Lock, now: u64, root: &ResourcePath) {
    let scope = if lock.shared { "shared" } else { "exclusive" };
    let depth = if lock.deep { "infinity" } else { "0" };
    let left = lock.expires_ms.saturating_sub(now).div_ceil(1000);
    let _ = write!(
        out,
        "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>"
    );
    if !lock.owner.is_empty() {
        let _ = write!(out, "<D:owner>{}</D:owner>", lock.owner);
    }
    let href = uri::href(&guard::path_of(&lock.path), root, false);
    let _ = write!(
        out,
        "<D:timeout>Second-{left}</D:timeout><D:locktoken><D:href>{}</D:href></D:locktoken>\
         <D:lockroot><D:href>{href}</D:href></D:lockroot></D:activelock>",
        xml::escape(&lock.token)
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn timeouts_are_read() {
        assert_eq!(
            parse_timeout("Second-1800"),
            Some(Duration::from_secs(1800))
        );
        assert_eq!(
            parse_timeout("second-99999999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
        assert_eq!(parse_timeout("Infinite"), Some(Duration::MAX));
        for bad in ["Second-", "Second--1", "Minute-3", "", "Sécond-1"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_lockinfo_gives_scope_and_owner_as_sent() {
        let doc = br#"<l:lockinfo xmlns:l="DAV:"><l:lockscope><l:shared/></l:lockscope><l:locktype><l:write/></l:locktype><l:owner>me <h:a xmlns:h="urn:h" h:x="1"/></l:owner></l:lockinfo>"#;
        let (shared, owner) = lockinfo(&Element::parse(doc).unwrap()).unwrap();
        assert!(shared);
        assert_eq!(owner, r#"me <h:a xmlns:h="urn:h" h:x="1"/>"#);
        assert!(lockinfo(&Element::parse(b"<lockinfo/>").unwrap()).is_err());
    }
}
