//! Turns a trace into WebDAV requests: their order, what each must find, what had to exist before.
//!
//! The whole plan is held in memory (about 150 bytes a request), since order and expected content need
//! the entries before and after.

mod calls;
mod dav;
mod files;
mod filter;
mod order;
mod reshape;
mod tree;

use crate::content::Content;
use crate::read::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Outcome};
pub use filter::{Condition, Filter};
use order::Order;
pub use reshape::Reshape;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tree::Tree;

/// How file writes become PUTs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Writes {
    /// New files whole; later changes of a file that the server has by PUT with Content-Range.
    #[default]
    Partial,
    /// Always the whole file, as davfs2 and every client without partial writes does.
    Whole,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Options,
    Propfind0,
    Propfind1,
    Head,
    Get,
    /// GET with the learned ETag in If-None-Match.
    GetIfChanged,
    Put,
    /// PUT with Content-Range.
    PutRange,
    Delete,
    Mkcol,
    Move,
    Copy,
    Proppatch,
    Lock,
    Unlock,
    // Calls on a mounted directory.
    Create,
    Open,
    Read,
    Write,
    Truncate,
    Fsync,
    Close,
    Rename,
    Unlink,
    Mkdir,
    Rmdir,
    Stat,
    List,
}

impl Kind {
    /// Whether it is a call on a mounted directory.
    pub fn is_call(self) -> bool {
        self >= Kind::Create
    }

    /// Name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Options => "OPTIONS",
            Kind::Propfind0 => "PROPFIND 0",
            Kind::Propfind1 => "PROPFIND 1",
            Kind::Head => "HEAD",
            Kind::Get => "GET",
            Kind::GetIfChanged => "GET 304",
            Kind::Put => "PUT",
            Kind::PutRange => "PUT range",
            Kind::Delete => "DELETE",
            Kind::Mkcol => "MKCOL",
            Kind::Move => "MOVE",
            Kind::Copy => "COPY",
            Kind::Proppatch => "PROPPATCH",
            Kind::Lock => "LOCK",
            Kind::Unlock => "UNLOCK",
            Kind::Create => "create",
            Kind::Open => "open",
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Truncate => "truncate",
            Kind::Fsync => "fsync",
            Kind::Close => "close",
            Kind::Rename => "rename",
            Kind::Unlink => "unlink",
            Kind::Mkdir => "mkdir",
            Kind::Rmdir => "rmdir",
            Kind::Stat => "stat",
            Kind::List => "list",
        }
    }
}

/// The answer that agrees with the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any 2xx (304 for a conditional GET).
    Success,
    /// One of these (HTTP status, or errno of a call), as the recording failed there. The second may equal the first.
    Failure(u16, u16),
    /// Success or 404: what only a LOCK made may be gone or not.
    SuccessOrAbsent,
}

/// One request to send.
#[derive(Debug, Clone)]
pub struct Request {
    /// Intended start since the trace's first entry.
    pub at_us: u64,
    /// Requests of one lane (client and thread) go one after the other.
    pub lane: u32,
    /// Lock tokens and ETags are learned per client.
    pub client: u32,
    /// What to send.
    pub kind: Kind,
    /// Index of the path.
    pub path: u32,
    /// Index of the destination of a MOVE or COPY.
    pub path2: u32,
    /// What the file holds (after a PUT; when read): an index into [`Plan::contents`].
    pub content: Option<u32>,
    /// Range of a read or partial write.
    pub offset: u64,
    /// Bytes of a read or write.
    pub length: u64,
    /// Whether a PUT makes the file: `If-None-Match: *` under a lock.
    pub creates: bool,
    /// Index of the request that opened the descriptor to use, or [`NO_HANDLE`]. Calls only.
    pub handle: u32,
    /// Whether an open is for writing, too. Calls only.
    pub writable: bool,
    /// What the recording says of the answer.
    pub expect: Expect,
}

/// No descriptor: the call opens the file itself.
pub const NO_HANDLE: u32 = u32::MAX;

/// What a recording of file operations is turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// WebDAV requests.
    #[default]
    Requests,
    /// Calls on a mounted directory.
    Calls,
}

/// How to plan.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How file writes become PUTs.
    pub writes: Writes,
    /// Requests or calls.
    pub shape: Shape,
    /// Whether operations of one client and thread may overtake each other where their paths allow it.
    pub free_lanes: bool,
    /// Which entries to take.
    pub filter: Filter,
    /// What to make of those that were taken.
    pub reshape: Reshape,
}

/// A file or collection that must exist before the first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Index of the path.
    pub path: u32,
    /// Index of its content; `None` is a collection.
    pub content: Option<u32>,
}

/// Everything a replay needs.
#[derive(Debug)]
pub struct Plan {
    /// Level of the trace.
    pub level: Level,
    /// Path of each index.
    pub paths: Vec<Arc<str>>,
    /// Content of each index.
    pub contents: Vec<Content>,
    /// What to make first: parents before children.
    pub existing: Vec<Existing>,
    /// The requests in the trace's order.
    pub requests: Vec<Request>,
    /// For each request, the earlier requests it waits for.
    pub waits: Vec<Vec<u32>>,
    /// Files that are left at the end, and what they hold.
    pub remaining: Vec<(u32, u32)>,
    /// Whether any request depends on an ETag that the server gives: conditions and locks.
    pub conditional: bool,
    /// Entries that need no request, by reason.
    pub not_sent: BTreeMap<&'static str, u64>,
    /// Entries of the trace.
    pub entries: u64,
    /// Lines of the trace that could not be used.
    pub unusable: Unusable,
}

/// Reads the trace to its end and plans it.
pub fn plan(reader: &mut dyn Reader, writes: Writes) -> Result<Plan, ReadError> {
    let settings = Settings {
        writes,
        ..Settings::default()
    };
    plan_with(reader, &settings)
}

const WANDERS: &str = "path with `..` in it: it could lead out of the target";

/// Whether a path may lead out of the target.
fn wanders(path: &str) -> bool {
    path.split('/').any(|name| name == "..")
}

/// Reads the trace to its end and plans it.
pub fn plan_with(reader: &mut dyn Reader, settings: &Settings) -> Result<Plan, ReadError> {
    let mut entries = Vec::new();
    let (mut total, mut left_out, mut leads_out) = (0, 0, 0);
    while let Some(entry) = reader.next_entry() {
        let entry = entry?;
        total += 1;
        if !settings.filter.takes(&entry) {
            left_out += 1;
        } else if wanders(&entry.path) || entry.path2.as_deref().is_some_and(wanders) {
            leads_out += 1;
        } else {
            entries.push(entry);
        }
    }
    let mut entries = settings.reshape.apply(entries);
    entries.sort_by_key(|e| e.at_us);
    let mut builder = Builder::new(
        reader.level(),
        settings.writes,
        entries.first().map_or(0, |e| e.at_us),
    );
    builder.order.free_lanes = settings.free_lanes;
    builder.find_existing(&entries);
    for entry in &entries {
        match (builder.plan.level, settings.shape) {
            (_, Shape::Calls) => builder.call(entry),
            (Level::FileOperations, _) => builder.file_operation(entry),
            (Level::WebdavRequests, _) => builder.dav_request(entry),
        }
    }
    match (builder.plan.level, settings.shape) {
        (_, Shape::Calls) => builder.close_what_is_left(),
        (Level::FileOperations, _) => builder.send_what_is_left(),
        (Level::WebdavRequests, _) => {}
    }
    for (reason, count) in [("left out by --filter", left_out), (WANDERS, leads_out)] {
        if count > 0 {
            builder.plan.not_sent.insert(reason, count);
        }
    }
    builder.plan.entries = total;
    builder.plan.unusable = reader.unusable().clone();
    builder.plan.remaining = builder.tree.sent_files();
    Ok(builder.plan)
}

/// The state of planning.
struct Builder {
    plan: Plan,
    tree: Tree,
    order: Order,
    writes: Writes,
    start_us: i64,
    path_ids: HashMap<Arc<str>, u32>,
    lanes: HashMap<(Arc<str>, Arc<str>), u32>,
    clients: HashMap<Arc<str>, u32>,
    versions: HashMap<u32, u32>,
    last_list: HashMap<u32, Arc<str>>,
    locks: HashMap<(u32, u32), ()>,
    orphans: HashMap<Arc<str>, Vec<tree::OpenFile>>,
}

impl Builder {
    fn new(level: Level, writes: Writes, start_us: i64) -> Builder {
        Builder {
            plan: Plan {
                level,
                paths: Vec::new(),
                contents: Vec::new(),
                existing: Vec::new(),
                requests: Vec::new(),
                waits: Vec::new(),
                remaining: Vec::new(),
                conditional: false,
                not_sent: BTreeMap::new(),
                entries: 0,
                unusable: Unusable::default(),
            },
            tree: Tree::default(),
            order: Order::default(),
            writes,
            start_us,
            path_ids: HashMap::new(),
            lanes: HashMap::new(),
            clients: HashMap::new(),
            versions: HashMap::new(),
            last_list: HashMap::new(),
            locks: HashMap::new(),
            orphans: HashMap::new(),
        }
    }

    fn path_id(&mut self, path: &Arc<str>) -> u32 {
        if let Some(&id) = self.path_ids.get(path) {
            return id;
        }
        let id = self.plan.paths.len() as u32;
        self.plan.paths.push(path.clone());
        self.path_ids.insert(path.clone(), id);
        id
    }

    fn lane(&mut self, entry: &Entry) -> u32 {
        let next = self.lanes.len() as u32;
        *self
            .lanes
            .entry((entry.client.clone(), entry.thread.clone()))
            .or_insert(next)
    }

    fn client(&mut self, entry: &Entry) -> u32 {
        let next = self.clients.len() as u32;
        *self.clients.entry(entry.client.clone()).or_insert(next)
    }

    /// The next version number of a path; 0 is what existed before.
    fn next_version(&mut self, path: u32) -> u32 {
        let version = self.versions.entry(path).or_insert(0);
        *version += 1;
        *version
    }

    fn add_content(&mut self, content: Content) -> u32 {
        self.plan.contents.push(content);
        self.plan.contents.len() as u32 - 1
    }

    fn skip(&mut self, reason: &'static str) {
        *self.plan.not_sent.entry(reason).or_default() += 1;
    }

    /// A request for `entry` with nothing special.
    fn request(&mut self, entry: &Entry, kind: Kind) -> Request {
        let path = self.path_id(&entry.path);
        let path2 = entry.path2.as_ref().map_or(path, |p| self.path_id(p));
        Request {
            at_us: entry.at_us.abs_diff(self.start_us),
            lane: self.lane(entry),
            client: self.client(entry),
            kind,
            path,
            path2,
            content: None,
            offset: 0,
            length: 0,
            creates: false,
            handle: NO_HANDLE,
            writable: false,
            expect: expectation(kind, &entry.outcome),
        }
    }

    fn send(&mut self, request: Request) {
        self.plan.conditional |= matches!(request.kind, Kind::GetIfChanged | Kind::Lock);
        let index = self.plan.requests.len() as u32;
        let path = &self.plan.paths[request.path as usize];
        let path2 = &self.plan.paths[request.path2 as usize];
        self.plan.waits.push(
            self.order
                .add(index, request.lane, request.kind, path, path2),
        );
        self.plan.requests.push(request);
    }
}

/// What the recorded outcome promises for a request of this kind.
fn expectation(kind: Kind, outcome: &Outcome) -> Expect {
    match outcome {
        Outcome::Ok => Expect::Success,
        Outcome::Status(s) if *s < 400 => Expect::Success,
        Outcome::Status(s) => Expect::Failure(*s, *s),
        Outcome::Errno(name) if kind.is_call() => {
            let errno = calls::errno(name).unwrap_or(0);
            Expect::Failure(errno, errno)
        }
        Outcome::Errno(name) => match (kind, &**name) {
            (Kind::Mkcol | Kind::Move | Kind::Put, "ENOENT" | "ENOTDIR") => {
                Expect::Failure(409, 404)
            }
            (_, "ENOENT" | "ENOTDIR") => Expect::Failure(404, 409),
            (_, "EEXIST") => Expect::Failure(405, 412),
            _ => Expect::Failure(403, 403),
        },
    }
}

#[cfg(test)]
mod tests;
