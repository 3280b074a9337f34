//! PROPFIND: live properties from what a listing already knows, dead ones only when asked, streamed in bounded pieces.
//!
//! The members are read before the reply's head is sent: a directory that cannot be read is an error, never a shorter
//! list. Names that XML cannot carry (control characters) are whole in their `href`, which is percent-encoded.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::body::{self, Body, Incoming};
use super::dates::{self, Dates};
use super::guard::{self, Intent};
use super::listed::{Keeping, multistatus};
use super::lock::active_lock;
use super::locks::LockTable;
use super::quick::TOLD_BYTES_MAX;
use super::status::Refusal;
use super::xml::{self, APACHE, DAV, Element};
use super::{Call, Depth, Reply, mime, uri};
use crate::volume::{DeadProp, Kind, Meta, Quota, ResourcePath, Volume, VolumeError};

/// Members whose dead properties are read at a time.
const MEMBERS_AT_ONCE: usize = 256;
/// Bytes of XML sent at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Most properties that are asked for by name, and the bytes of all these names: those that are not there are told for each member.
const NAMES_MAX: usize = 1024;
const NAMES_BYTES_MAX: usize = 64 << 10;

/// A property that the server knows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Live {
    CreationDate,
    DisplayName,
    ContentLength,
    ContentType,
    Etag,
    LastModified,
    LockDiscovery,
    ResourceType,
    SupportedLock,
    QuotaAvailable,
    QuotaUsed,
    Executable,
}

use Live::{
    ContentLength, ContentType, CreationDate, DisplayName, Etag, Executable, LastModified,
    LockDiscovery, QuotaAvailable, QuotaUsed, ResourceType, SupportedLock,
};

/// What `allprop` answers: everything cheap (RFC 4331 section 3 leaves quota out).
const ALLPROP: [Live; 10] = [
    ResourceType,
    ContentLength,
    ContentType,
    Etag,
    LastModified,
    CreationDate,
    DisplayName,
    LockDiscovery,
    SupportedLock,
    Executable,
];
const EVERY: [Live; 12] = [
    ResourceType,
    ContentLength,
    ContentType,
    Etag,
    LastModified,
    CreationDate,
    DisplayName,
    LockDiscovery,
    SupportedLock,
    Executable,
    QuotaAvailable,
    QuotaUsed,
];

impl Live {
    /// Its local name.
    pub(super) fn name(self) -> &'static str {
        match self {
            CreationDate => "creationdate",
            DisplayName => "displayname",
            ContentLength => "getcontentlength",
            ContentType => "getcontenttype",
            Etag => "getetag",
            LastModified => "getlastmodified",
            LockDiscovery => "lockdiscovery",
            ResourceType => "resourcetype",
            SupportedLock => "supportedlock",
            QuotaAvailable => "quota-available-bytes",
            QuotaUsed => "quota-used-bytes",
            Executable => "executable",
        }
    }

    fn namespace(self) -> &'static str {
        if self == Executable { APACHE } else { DAV }
    }

    /// The live property of this name.
    pub(super) fn of(namespace: &str, name: &str) -> Option<Live> {
        EVERY
            .into_iter()
            .find(|l| l.name() == name && l.namespace() == namespace)
    }
}

/// One property asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Live(Live),
    Other { namespace: String, name: String },
}

/// What the request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Find {
    /// Values of these; what is missing is named in a 404 propstat.
    Props(Vec<Asked>),
    /// Everything cheap, and these live ones too.
    All(Vec<Live>),
    /// Names only.
    Names,
}

impl Find {
    fn parse(request: Option<&Element>) -> Result<Find, Refusal> {
        let Some(request) = request else {
            return Ok(Find::All(Vec::new()));
        };
        if !request.is(DAV, "propfind") {
            return Err(Refusal::bad_request("PROPFIND takes a DAV:propfind"));
        }
        let asked = |e: &Element| match Live::of(&e.namespace, &e.name) {
            Some(live) => Asked::Live(live),
            None => Asked::Other {
                namespace: e.namespace.clone(),
                name: e.name.clone(),
            },
        };
        let known: Vec<&Element> = request
            .elements()
            .filter(|e| {
                e.namespace == DAV && matches!(e.name.as_str(), "prop" | "allprop" | "propname")
            })
            .collect();
        match known.as_slice() {
            [e] if e.name == "prop" => {
                let mut all: Vec<Asked> = Vec::new();
                let mut bytes = 0;
                for e in e.elements() {
                    let a = asked(e);
                    if !all.contains(&a) {
                        all.push(a);
                        bytes += e.namespace.len() + e.name.len();
                    }
                    if all.len() > NAMES_MAX || bytes > NAMES_BYTES_MAX {
                        return Err(Refusal::too_large("PROPFIND asks for too many properties"));
                    }
                }
                Ok(Find::Props(all))
            }
            [e] if e.name == "propname" => Ok(Find::Names),
            [_] => {
                let include = request
                    .dav_child("include")
                    .into_iter()
                    .flat_map(Element::elements);
                let live = include.filter_map(|e| Live::of(&e.namespace, &e.name));
                Ok(Find::All(live.filter(|l| !ALLPROP.contains(l)).collect()))
            }
            _ => Err(Refusal::bad_request(
                "DAV:propfind takes one of prop, allprop and propname",
            )),
        }
    }

    fn wants_dead(&self) -> bool {
        match self {
            Find::Props(asked) => asked
                .iter()
                .any(|a| matches!(a, Asked::Other { .. } | Asked::Live(DisplayName))),
            Find::All(_) | Find::Names => true,
        }
    }

    fn wants_locks(&self) -> bool {
        match self {
            Find::Props(asked) => asked.contains(&Asked::Live(LockDiscovery)),
            Find::All(_) => true,
            Find::Names => false,
        }
    }

    fn wants_quota(&self) -> bool {
        let quota = |l: &Live| matches!(l, QuotaAvailable | QuotaUsed);
        match self {
            Find::Props(asked) => asked
                .iter()
                .any(|a| matches!(a, Asked::Live(l) if quota(l))),
            Find::All(more) => more.iter().any(quota),
            Find::Names => false,
        }
    }
}

impl Call<'_> {
    /// Properties that are missing are not to be named (RFC 7240 section 2, and Microsoft's `Brief`).
    fn minimal(&self) -> bool {
        self.header("prefer")
            .is_some_and(|p| p.contains("return=minimal"))
            || self
                .header("brief")
                .is_some_and(|b| b.eq_ignore_ascii_case("t"))
    }

    pub(super) async fn propfind(&self, body: &mut Incoming) -> Reply {
        let (asked, request) = body.xml_as_sent(self.dav.opts.max_xml_bytes).await?;
        let find = Find::parse(request.as_deref())?;
        let depth = self.depth()?.unwrap_or(Depth::Infinity);
        let opened = match depth {
            Depth::Zero => self.worth_telling(),
            Depth::One | Depth::Infinity => None,
        };
        let meta = self.stat().await?;
        let guard = self.guard(Intent::Read).await?;
        if guard.has_if() {
            guard.conditions(meta.as_ref())?;
        }
        let meta = meta.ok_or_else(Refusal::not_found)?;
        let collection = meta.kind == Kind::Collection;
        if collection && depth == Depth::Infinity && !self.dav.opts.allow_infinite_depth {
            let refusal = Refusal::forbidden("Depth: infinity is not allowed");
            return Err(refusal.with_condition("<D:propfind-finite-depth/>"));
        }
        let volume = &self.dav.volume;
        let path = self.target.path.clone();
        let minimal = self.minimal();
        let locked = find.wants_locks() && !self.dav.locks.is_empty();
        let quota = find.wants_quota();
        let plain = collection && depth == Depth::One && !guard.has_if() && !quota && !locked;
        if plain && let Some(reply) = self.listed(&asked, minimal) {
            return Ok(reply);
        }
        let (members, watched) = match depth {
            Depth::One if plain && self.is_asked_again() => volume.list_watched(&path).await?,
            Depth::One | Depth::Infinity if collection => (volume.list(&path).await?, None),
            _ => (Vec::new(), None),
        };
        // A quota that cannot be told is unknown (404 propstat), not zero: davfs2 would show a full disk.
        let quota = if collection && quota {
            volume.quota().await.ok()
        } else {
            None
        };
        // What the collection itself is was asked for before it was watched.
        let keeping = match watched {
            Some(watched) if self.stat().await?.as_ref() == Some(&meta) => {
                self.keeping(watched, asked.clone(), minimal)
            }
            _ => None,
        };
        let mut answer = Answer {
            volume: Arc::clone(volume),
            locks: Arc::clone(&self.dav.locks),
            root: self.root.clone(),
            find,
            quota,
            minimal,
            deep: collection && depth == Depth::Infinity,
            first: Some((path.clone(), meta)),
            at_href: match members.is_empty() {
                true => String::new(),
                false => uri::href(&path, &self.root, true),
            },
            at: path,
            members: members.into_iter(),
            ahead: Vec::new().into_iter(),
            todo: Vec::new(),
            started: false,
            finished: false,
            modified: Dates::new(dates::http_date),
            created: Dates::new(dates::rfc3339),
            told_locks: Cell::new(false),
            keeping,
        };
        let first = answer.piece().await.map_err(Refusal::from)?;
        let whole = answer.finished;
        let told_locks = answer.told_locks.get();
        let body = match whole {
            true => body::full(first.clone()),
            false => answer.stream(first.clone()),
        };
        let response = multistatus(body, depth);
        // Locks end and are prolonged without a change of the file.
        if let Some(opened) = opened
            && whole
            && asked.len().max(first.len()) <= TOLD_BYTES_MAX
            && !told_locks
        {
            self.keep_told(&opened, asked, &response, &first);
        }
        Ok(response)
    }
}

/// A multistatus in the making.
struct Answer {
    volume: Arc<Volume>,
    locks: Arc<LockTable>,
    root: ResourcePath,
    find: Find,
    quota: Option<Quota>,
    minimal: bool,
    deep: bool,
    first: Option<(ResourcePath, Meta)>,
    at: ResourcePath,
    at_href: String,
    members: std::vec::IntoIter<(String, Meta)>,
    /// The dead properties of the next members, when they are asked for.
    ahead: std::vec::IntoIter<Option<Vec<DeadProp>>>,
    todo: Vec<ResourcePath>,
    started: bool,
    finished: bool,
    modified: Dates,
    created: Dates,
    /// A lock was told of.
    told_locks: Cell<bool>,
    /// What is told is kept.
    keeping: Option<Keeping>,
}

/// A resource in the answer.
#[derive(Clone, Copy)]
enum Named<'a> {
    /// By its whole path.
    Path(&'a ResourcePath),
    /// A member of the collection that the answer is at.
    Member(&'a str),
}

impl<'a> Named<'a> {
    fn name(self) -> &'a str {
        match self {
            Named::Path(path) => path.name(),
            Named::Member(name) => name,
        }
    }
}

impl Answer {
    /// What locks know it by.
    fn key(&self, named: Named<'_>) -> String {
        match named {
            Named::Path(path) => guard::key(path),
            Named::Member(name) => guard::member_key(&self.at, name),
        }
    }

    fn stream(self, first: Bytes) -> Body {
        let rest = stream::unfold((self, false), |(mut answer, broken)| async move {
            if answer.finished || broken {
                return None;
            }
            match answer.piece().await {
                Ok(piece) => Some((Ok(Frame::data(piece)), (answer, false))),
                // The reply's head is out: breaking off is the only honest end.
                Err(error) => Some((Err(io::Error::other(error)), (answer, true))),
            }
        });
        let first = stream::iter([Ok(Frame::data(first))]);
        StreamBody::new(futures_util::StreamExt::chain(first, rest)).boxed_unsync()
    }

    /// The next piece of XML.
    async fn piece(&mut self) -> Result<Bytes, VolumeError> {
        let piece = Bytes::from(self.text().await?);
        // Locks end and are prolonged without a change of any file.
        self.keeping
            .take_if(|k| !k.add(&piece) || self.told_locks.get());
        if self.finished
            && let Some(keeping) = self.keeping.take()
        {
            keeping.keep(&self.volume);
        }
        Ok(piece)
    }

    async fn text(&mut self) -> Result<String, VolumeError> {
        let mut out =
            String::with_capacity(PIECE_BYTES.min(1024 + 512 * self.members.len()) + 1024);
        if !self.started {
            self.started = true;
            out.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\" xmlns:A=\"");
            out.push_str(APACHE);
            out.push_str("\">\n");
        }
        while out.len() < PIECE_BYTES {
            if let Some((path, meta)) = self.first.take() {
                let dead = match self.find.wants_dead() {
                    false => Some(Vec::new()),
                    true if meta.bare => Some(Vec::new()),
                    true => match self.volume.props(&path).await {
                        // Deleted since it was looked at: as if it had been before.
                        Err(VolumeError::NotFound { .. }) => None,
                        dead => Some(dead?),
                    },
                };
                if let Some(dead) = dead {
                    self.response(&mut out, Named::Path(&path), &meta, &dead);
                }
                continue;
            }
            let next = self.members.as_slice().first();
            if self.find.wants_dead()
                && self.ahead.len() == 0
                && next.is_some_and(|(_, meta)| !meta.bare)
            {
                let next = self
                    .members
                    .as_slice()
                    .iter()
                    .filter(|(_, meta)| !meta.bare);
                let names = next.take(MEMBERS_AT_ONCE).map(|(name, _)| name.clone());
                let names = names.collect();
                self.ahead = self.volume.member_props(&self.at, names).await?.into_iter();
            }
            if let Some((name, meta)) = self.members.next() {
                let dead = match self.find.wants_dead() {
                    false => Vec::new(),
                    true if meta.bare => Vec::new(),
                    true => match self.ahead.next().flatten() {
                        Some(dead) => dead,
                        // Deleted since it was listed.
                        None => continue,
                    },
                };
                self.response(&mut out, Named::Member(&name), &meta, &dead);
                if self.deep && meta.kind == Kind::Collection {
                    self.todo.push(self.at.join(&name)?);
                }
                continue;
            }
            let Some(next) = self.todo.pop() else {
                out.push_str("</D:multistatus>\n");
                self.finished = true;
                break;
            };
            match self.volume.list(&next).await {
                Ok(members) => {
                    self.at_href = uri::href(&next, &self.root, true);
                    (self.at, self.members) = (next, members.into_iter());
                }
                // Deleted since it was listed.
                Err(VolumeError::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    fn response(&self, out: &mut String, named: Named<'_>, meta: &Meta, dead: &[DeadProp]) {
        out.push_str("<D:response><D:href>");
        let collection = meta.kind == Kind::Collection;
        match named {
            Named::Path(path) => out.push_str(&uri::href(path, &self.root, collection)),
            Named::Member(name) => {
                out.push_str(&self.at_href);
                uri::push_name(out, name);
                out.push_str(if collection { "/" } else { "" });
            }
        }
        out.push_str("</D:href><D:propstat><D:prop>");
        let before = out.len();
        let mut missing = String::new();
        let find = |ns: &str, name: &str| dead.iter().find(|d| d.namespace == ns && d.name == name);
        match &self.find {
            Find::Props(asked) => {
                for a in asked {
                    match a {
                        Asked::Live(DisplayName) if find(DAV, "displayname").is_some() => {
                            push_dead(out, find(DAV, "displayname"));
                        }
                        Asked::Live(live) => {
                            if !self.live(out, *live, named, meta) {
                                push_empty(&mut missing, live.namespace(), live.name());
                            }
                        }
                        Asked::Other { namespace, name } => match find(namespace, name) {
                            Some(d) => push_dead(out, Some(d)),
                            None => push_empty(&mut missing, namespace, name),
                        },
                    }
                }
            }
            Find::All(more) => {
                for live in ALLPROP.iter().chain(more) {
                    if *live != DisplayName || find(DAV, "displayname").is_none() {
                        self.live(out, *live, named, meta);
                    }
                }
                dead.iter().for_each(|d| push_dead(out, Some(d)));
            }
            Find::Names => {
                let mut scratch = String::new();
                for live in EVERY {
                    scratch.clear();
                    let quota =
                        matches!(live, QuotaAvailable | QuotaUsed) && meta.kind == Kind::Collection;
                    if quota || self.live(&mut scratch, live, named, meta) {
                        push_empty(out, live.namespace(), live.name());
                    }
                }
                for d in dead
                    .iter()
                    .filter(|d| Live::of(&d.namespace, &d.name).is_none())
                {
                    push_empty(out, &d.namespace, &d.name);
                }
            }
        }
        let found = out.len() > before;
        let tell_missing = !missing.is_empty() && !self.minimal;
        if found || !tell_missing {
            out.push_str("</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>");
        } else {
            out.truncate(before - "<D:propstat><D:prop>".len());
        }
        if tell_missing {
            out.push_str("<D:propstat><D:prop>");
            out.push_str(&missing);
            out.push_str("</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>");
        }
        out.push_str("</D:response>\n");
    }

    /// Writes one live property; false if the resource has none.
    fn live(&self, out: &mut String, live: Live, named: Named<'_>, meta: &Meta) -> bool {
        let file = meta.kind == Kind::File;
        match live {
            ResourceType if file => out.push_str("<D:resourcetype/>"),
            ResourceType => out.push_str("<D:resourcetype><D:collection/></D:resourcetype>"),
            ContentLength if file => {
                let _ = write!(out, "<D:getcontentlength>{}</D:getcontentlength>", meta.len);
            }
            ContentType if file => {
                out.extend(["<D:getcontenttype>", mime::of(named.name()), "</D:getcontenttype>"]);
            }
            // A collection's page changes with every member: it has no strong tag.
            Etag if file => {
                out.extend(["<D:getetag>", &meta.etag, "</D:getetag>"]);
            }
            LastModified => {
                out.push_str("<D:getlastmodified>");
                self.modified.push(out, meta.modified);
                out.push_str("</D:getlastmodified>");
            }
            CreationDate => {
                out.push_str("<D:creationdate>");
                self.created.push(out, meta.created);
                out.push_str("</D:creationdate>");
            }
            DisplayName => {
                let name = match named {
                    Named::Path(path) if *path == self.root => "",
                    named => named.name(),
                };
                // Rather no name than a wrong one.
                if name.is_empty() || !name.chars().all(xml::representable) {
                    return false;
                }
                out.push_str("<D:displayname>");
                xml::escape_into(out, name);
                out.push_str("</D:displayname>");
            }
            LockDiscovery => {
                let now = guard::now();
                let locks = if self.locks.is_empty() { Vec::new() } else { self.locks.discover(&self.key(named), now) };
                if locks.is_empty() {
                    out.push_str("<D:lockdiscovery/>");
                } else {
                    self.told_locks.set(true);
                    out.push_str("<D:lockdiscovery>");
                    locks.iter().for_each(|l| active_lock(out, l, now, &self.root));
                    out.push_str("</D:lockdiscovery>");
                }
            }
            SupportedLock => out.push_str(
                "<D:supportedlock><D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
                 </D:lockentry><D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype>\
                 </D:lockentry></D:supportedlock>",
            ),
            QuotaAvailable | QuotaUsed => {
                let Some(quota) = self.quota.filter(|_| !file) else { return false };
                let bytes = if live == QuotaUsed { quota.used } else { quota.available };
                let _ = write!(out, "<D:{0}>{bytes}</D:{0}>", live.name());
            }
            Executable if file => {
                let value = if meta.executable { "T" } else { "F" };
                out.extend(["<A:executable>", value, "</A:executable>"]);
            }
            ContentLength | ContentType | Etag | Executable => return false,
        }
        true
    }
}

fn push_dead(out: &mut String, prop: Option<&DeadProp>) {
    if let Some(prop) = prop {
        out.push_str(&String::from_utf8_lossy(&prop.xml));
    }
}

/// Writes an empty element of any namespace.
pub(super) fn push_empty(out: &mut String, namespace: &str, name: &str) {
    match namespace {
        DAV => out.extend(["<D:", name, "/>"]),
        APACHE => out.extend(["<A:", name, "/>"]),
        "" => out.extend(["<", name, "/>"]),
        ns => {
            out.extend(["<N:", name, " xmlns:N=\""]);
            xml::escape_into(out, ns);
            out.push_str("\"/>");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let find = |s: &str| Find::parse(Some(&Element::parse(s.as_bytes()).unwrap()));
        let asked = r#"<propfind xmlns="DAV:"><prop><getetag/><getetag/><x xmlns="urn:x"/></prop></propfind>"#;
        let other = Asked::Other {
            namespace: "urn:x".into(),
            name: "x".into(),
        };
        assert_eq!(
            find(asked).unwrap(),
            Find::Props(vec![Asked::Live(Etag), other])
        );
        let all = r#"<a:propfind xmlns:a="DAV:"><a:allprop/><a:include><a:quota-used-bytes/></a:include></a:propfind>"#;
        assert_eq!(find(all).unwrap(), Find::All(vec![QuotaUsed]));
        assert_eq!(Find::parse(None).unwrap(), Find::All(vec![]));
        for bad in [
            "<propfind/>",
            r#"<propfind xmlns="DAV:"/>"#,
            r#"<propfind xmlns="DAV:"><propname/><allprop/></propfind>"#,
            r#"<other xmlns="DAV:"><prop/></other>"#,
        ] {
            assert!(find(bad).is_err(), "{bad}");
        }
    }
}
