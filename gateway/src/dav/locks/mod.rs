//! The lock table: who holds what, until when (RFC 4918 sections 6 and 7), journalled so that it survives a restart.
//!
//! Paths are keys as `key` makes them: `""` for the root, `/a/b` below it. Time comes in with each call, as
//! milliseconds since the Unix epoch: locks outlive the process.
//!
//! A lock does not move with its resource. A client that still believes in its lock after its own MOVE (davfs2 does: it
//! renames first and uploads later) is served by a *moved* entry: the old token, where the resource went and the entity
//! tag it had there. It blocks nobody; it only lets that client's late PUT, refresh and UNLOCK come out right.

mod journal;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use journal::Ticket;
use journal::{Journal, Record};

/// Most locks held at a time; a further LOCK is answered 503.
pub const LOCKS_MAX: usize = 100_000;
/// Most of them on one resource, all shared; as many are remembered of those that its owners moved it away from.
const ON_ONE_MAX: usize = 64;
/// Most locks that are remembered because their resource was moved; of more, those that run out first are forgotten.
const MOVED_MAX: usize = 10_000;
/// Most bytes of all owners; a further LOCK is answered 503.
const OWNERS_BYTES_MAX: usize = 64 << 20;
/// A lock that ran out while the gateway was down lives this much longer, so that its owner can come back.
const RESTART_GRACE_MS: u64 = 60_000;

/// One active lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// `urn:uuid:…`.
    pub token: String,
    /// Key of the lock root.
    pub path: String,
    /// Shared rather than exclusive.
    pub shared: bool,
    /// Depth infinity rather than 0.
    pub deep: bool,
    /// The `DAV:owner` element's content, self-contained XML; empty if none was sent.
    pub owner: String,
    /// The user who took it, if there are users.
    pub principal: Option<String>,
    /// What was granted, seconds.
    pub timeout_s: u64,
    /// When it runs out, milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Its resource came here by a MOVE, and was a lock again when its owner asked to go on.
    #[serde(default)]
    pub came: bool,
}

/// What becomes of a resource that only a LOCK made, where a lock ran out. In this order, if several did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It stays: it was moved here since, and that was acknowledged.
    Came,
    /// It goes: no lock is left.
    Bare,
}

/// A lock whose resource its owner moved away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moved {
    lock: Lock,
    /// Where the resource is now.
    to: String,
    /// The entity tag it had when it arrived there.
    etag: Option<String>,
}

/// What stands in the way of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Key of the root of a lock whose token was not submitted.
    pub root: String,
}

/// Why a lock was not granted.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Locks at these roots, on the resource or above it, exclude it.
    Conflict(Vec<String>),
    /// Locks at these roots, below the resource, exclude a lock of depth infinity.
    Below(Vec<String>),
    /// `LOCKS_MAX` are held, or more on this resource or with longer owners than is kept.
    TooMany,
}

/// The answer to UNLOCK.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Unlock {
    /// Gone; the resource stays.
    Done,
    /// No such lock on that resource: 409.
    NoSuchLock,
    /// Another user's: 403.
    NotYours,
}

/// What a requester brings: tokens submitted in `If`, and who it is.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Submitted state tokens.
    pub tokens: Vec<String>,
    /// The authenticated user.
    pub principal: Option<String>,
}

impl Claim {
    fn opens(&self, lock: &Lock) -> bool {
        self.tokens.contains(&lock.token)
            && (lock.principal.is_none() || lock.principal == self.principal)
    }
}

/// All locks.
pub struct LockTable {
    state: Mutex<State>,
    journal: Journal,
}

#[derive(Default)]
struct State {
    by_path: BTreeMap<String, Vec<Lock>>,
    path_of: HashMap<String, String>,
    moved: HashMap<String, Moved>,
    /// Of the locks in `by_path`.
    owners_bytes: usize,
    /// No lock runs out before this.
    next_expiry_ms: u64,
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms(t: SystemTime) -> u64 {
    t.duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = &rest[..rest.rfind('/')?];
        Some(rest)
    })
}

impl State {
    fn insert(&mut self, lock: Lock) {
        self.next_expiry_ms = self.next_expiry_ms.min(lock.expires_ms);
        self.take(&lock.token);
        self.owners_bytes += lock.owner.len();
        self.path_of.insert(lock.token.clone(), lock.path.clone());
        self.by_path
            .entry(lock.path.clone())
            .or_default()
            .push(lock);
    }

    fn take(&mut self, token: &str) -> Option<Lock> {
        let path = self.path_of.remove(token)?;
        let at = self.by_path.get_mut(&path)?;
        let i = at.iter().position(|l| l.token == token)?;
        let lock = at.swap_remove(i);
        self.owners_bytes -= lock.owner.len();
        if at.is_empty() {
            self.by_path.remove(&path);
        }
        Some(lock)
    }

    fn at(&self, path: &str, now: u64) -> impl Iterator<Item = &Lock> {
        self.by_path
            .get(path)
            .into_iter()
            .flatten()
            .filter(move |l| l.expires_ms > now)
    }

    /// Locks on the resource itself and those of depth infinity above it.
    fn covering(&self, path: &str, now: u64) -> Vec<&Lock> {
        let mut found: Vec<&Lock> = self.at(path, now).collect();
        if !self.by_path.is_empty() {
            for above in parents(path) {
                found.extend(self.at(above, now).filter(|l| l.deep));
            }
        }
        found
    }

    /// Paths with locks strictly below.
    fn below<'a>(
        &'a self,
        path: &str,
        now: u64,
    ) -> impl Iterator<Item = (&'a String, Vec<&'a Lock>)> {
        let range = (
            Bound::Included(format!("{path}/")),
            Bound::Excluded(format!("{path}0")),
        );
        let live = move |(p, locks): (&'a String, &'a Vec<Lock>)| {
            let locks: Vec<&Lock> = locks.iter().filter(|l| l.expires_ms > now).collect();
            (!locks.is_empty()).then_some((p, locks))
        };
        self.by_path.range::<String, _>(range).filter_map(live)
    }

    fn has_nothing(&self, path: &str) -> bool {
        !self.by_path.contains_key(path) && !self.moved.values().any(|m| m.to == path)
    }

    fn below_or_at(&self, path: &str) -> Vec<Lock> {
        let at = self.by_path.get(path).into_iter().flatten().cloned();
        at.chain(self.below(path, 0).flat_map(|(_, l)| l).cloned())
            .collect()
    }
}

fn within(path: &str, tree: &str) -> bool {
    path == tree
        || path
            .strip_prefix(tree)
            .is_some_and(|rest| rest.starts_with('/'))
}

impl LockTable {
    /// Loads the journal in `dir`. With `sync` false nothing is forced to disk (`durability = "relaxed"`).
    pub fn open(dir: &Path, sync: bool, now: u64) -> io::Result<LockTable> {
        let mut state = State {
            next_expiry_ms: u64::MAX,
            ..State::default()
        };
        for record in journal::load(dir)? {
            match record {
                Record::Put(lock) => {
                    state.moved.remove(&lock.token);
                    state.take(&lock.token);
                    state.insert(lock);
                }
                Record::Drop(token) => {
                    state.take(&token);
                    state.moved.remove(&token);
                }
                Record::Moved(m) => {
                    state.take(&m.lock.token);
                    state.moved.insert(m.lock.token.clone(), m);
                }
            }
        }
        // What ran out in normal running was dropped from the journal then: these ran out while we were down.
        let revive = |l: &mut Lock| {
            // Nor is any longer than it was granted for, if the clock was set back since.
            let longest = now.saturating_add(l.timeout_s.saturating_mul(1000));
            l.expires_ms = l.expires_ms.min(longest);
            if l.expires_ms <= now {
                l.expires_ms = now + RESTART_GRACE_MS.min(l.timeout_s.saturating_mul(1000));
            }
        };
        state.by_path.values_mut().flatten().for_each(revive);
        state.moved.values_mut().for_each(|m| revive(&mut m.lock));
        state.next_expiry_ms = 0;
        let journal = Journal::start(dir, sync, &state.snapshot())?;
        Ok(LockTable {
            state: Mutex::new(state),
            journal,
        })
    }

    /// Takes a lock. The ticket tells when it is on stable storage.
    pub fn lock(&self, lock: Lock, now: u64) -> Result<Ticket, Refused> {
        let mut state = self.state.lock();
        let excludes = |held: &&Lock| !(held.shared && lock.shared);
        let conflicts: Vec<String> = state
            .covering(&lock.path, now)
            .into_iter()
            .filter(excludes)
            .map(|l| l.path.clone())
            .collect();
        if !conflicts.is_empty() {
            return Err(Refused::Conflict(conflicts));
        }
        if lock.deep {
            let below: Vec<String> = state
                .below(&lock.path, now)
                .filter(|(_, locks)| locks.iter().any(&excludes))
                .map(|(p, _)| p.clone())
                .collect();
            if !below.is_empty() {
                return Err(Refused::Below(below));
            }
        }
        let on_it = state.by_path.get(&lock.path).map_or(0, Vec::len);
        if state.path_of.len() >= LOCKS_MAX
            || on_it >= ON_ONE_MAX
            || state.owners_bytes + lock.owner.len() > OWNERS_BYTES_MAX
        {
            return Err(Refused::TooMany);
        }
        let record = Record::Put(lock.clone());
        state.insert(lock);
        Ok(self.append(&state, record))
    }

    /// Prolongs the first of `claim`'s locks that covers `path`; one that was left behind by a MOVE to `path` becomes a
    /// real lock there if nothing excludes it.
    pub fn refresh(
        &self,
        path: &str,
        claim: &Claim,
        timeout: Duration,
        now: u64,
    ) -> Option<(Lock, Ticket)> {
        let mut state = self.state.lock();
        let mine = state
            .covering(path, now)
            .into_iter()
            .find(|l| claim.opens(l))
            .cloned();
        let mut lock = match mine {
            Some(lock) => lock,
            None => {
                let moved = state
                    .moved
                    .values()
                    .find(|m| m.to == path && claim.opens(&m.lock))?;
                let lock = Lock {
                    path: path.into(),
                    deep: false,
                    came: true,
                    ..moved.lock.clone()
                };
                if state
                    .covering(path, now)
                    .iter()
                    .any(|held| !(held.shared && lock.shared))
                {
                    return None;
                }
                lock
            }
        };
        lock.timeout_s = timeout.as_secs();
        lock.expires_ms = now + timeout.as_millis() as u64;
        state.moved.remove(&lock.token);
        state.insert(lock.clone());
        let ticket = self.append(&state, Record::Put(lock.clone()));
        Some((lock, ticket))
    }

    /// Gives up a lock. Not waited for: a lock that comes back after a power cut runs out by itself.
    pub fn unlock(&self, path: &str, token: &str, principal: Option<&str>, now: u64) -> Unlock {
        let mut state = self.state.lock();
        let mut here = state
            .covering(path, now)
            .into_iter()
            .find(|l| l.token == token);
        if here.is_none() {
            here = state
                .moved
                .get(token)
                .filter(|m| m.to == path || m.lock.path == path)
                .map(|m| &m.lock);
        }
        match here {
            None => Unlock::NoSuchLock,
            Some(l) if l.principal.is_some() && l.principal.as_deref() != principal => {
                Unlock::NotYours
            }
            Some(_) => {
                self.forget(&mut state, token);
                Unlock::Done
            }
        }
    }

    /// Where the resource is that a token given up at `path` belonged to: `path`, or where it was moved.
    pub fn resource_of(&self, path: &str, token: &str) -> String {
        self.state
            .lock()
            .moved
            .get(token)
            .map_or_else(|| path.to_string(), |m| m.to.clone())
    }

    /// Drops a lock whoever holds it, for the administrator. Returns its lock root, or where its resource was moved.
    pub fn break_lock(&self, token: &str) -> Option<String> {
        let mut state = self.state.lock();
        let path = state
            .path_of
            .get(token)
            .cloned()
            .or_else(|| state.moved.get(token).map(|m| m.to.clone()))?;
        self.forget(&mut state, token);
        Some(path)
    }

    /// May `claim` change the resource itself? For shared locks any one of them is enough.
    pub fn check(&self, path: &str, claim: &Claim, now: u64) -> Result<(), Blocked> {
        let state = self.state.lock();
        open_one(&state.covering(path, now), claim)
    }

    /// May `claim` change the resource and everything below it?
    pub fn check_tree(&self, path: &str, claim: &Claim, now: u64) -> Result<(), Blocked> {
        let state = self.state.lock();
        open_one(&state.covering(path, now), claim)?;
        state
            .below(path, now)
            .try_for_each(|(_, locks)| open_one(&locks, claim))
    }

    /// Does a lock with this token cover the resource?
    pub fn matches(&self, path: &str, token: &str, now: u64) -> bool {
        self.state
            .lock()
            .covering(path, now)
            .iter()
            .any(|l| l.token == token)
    }

    /// Is this the token of any lock held now?
    pub fn held(&self, token: &str, now: u64) -> bool {
        let state = self.state.lock();
        state
            .path_of
            .get(token)
            .is_some_and(|p| state.at(p, now).any(|l| l.token == token))
    }

    /// Was the lock's resource moved to `path` by its owner and not changed since?
    pub fn moved_here(&self, path: &str, token: &str, etag: Option<&str>, now: u64) -> bool {
        let state = self.state.lock();
        let moved = state
            .moved
            .get(token)
            .filter(|m| m.to == path && m.lock.expires_ms > now);
        moved.is_some_and(|m| etag.is_none() || m.etag.as_deref() == etag)
    }

    /// Notes the entity tag that a late upload under a moved lock made.
    pub fn moved_etag(&self, path: &str, claim: &Claim, etag: &str) {
        let mut state = self.state.lock();
        for m in state
            .moved
            .values_mut()
            .filter(|m| m.to == path && claim.opens(&m.lock))
        {
            m.etag = Some(etag.to_string());
        }
    }

    /// The locks on the resource and those of depth infinity above it, for `DAV:lockdiscovery`.
    pub fn discover(&self, path: &str, now: u64) -> Vec<Lock> {
        let state = self.state.lock();
        state.covering(path, now).into_iter().cloned().collect()
    }

    /// Whether there is any lock on the resource, or one of depth infinity above it.
    pub fn covers(&self, path: &str, now: u64) -> bool {
        !self.state.lock().covering(path, now).is_empty()
    }

    /// True while nothing at all is locked.
    pub fn is_empty(&self) -> bool {
        self.state.lock().by_path.is_empty()
    }

    /// True while nothing is locked, and no lock has been left behind.
    pub fn knows_none(&self) -> bool {
        let state = self.state.lock();
        state.by_path.is_empty() && state.moved.is_empty()
    }

    /// Every lock, by path.
    pub fn all(&self) -> Vec<Lock> {
        self.state
            .lock()
            .by_path
            .values()
            .flatten()
            .cloned()
            .collect()
    }

    /// After a DELETE: locks on the resource and below go with it.
    pub fn removed(&self, path: &str) {
        let mut state = self.state.lock();
        let gone: Vec<String> = state
            .below_or_at(path)
            .into_iter()
            .map(|l| l.token)
            .collect();
        let moved = state
            .moved
            .values()
            .filter(|m| within(&m.to, path))
            .map(|m| m.lock.token.clone());
        let gone: Vec<String> = gone.into_iter().chain(moved).collect();
        gone.iter().for_each(|t| self.forget(&mut state, t));
    }

    /// After a COPY over something: locks strictly below the destination are gone with what they protected.
    pub fn replaced(&self, path: &str) {
        let mut state = self.state.lock();
        self.bury(&mut state, path);
    }

    fn bury(&self, state: &mut State, path: &str) {
        let below: Vec<String> = state
            .below(path, 0)
            .flat_map(|(_, l)| l)
            .map(|l| l.token.clone())
            .collect();
        let moved = state
            .moved
            .values()
            .filter(|m| within(&m.to, path))
            .map(|m| m.lock.token.clone());
        let gone: Vec<String> = below.into_iter().chain(moved).collect();
        gone.iter().for_each(|t| self.forget(state, t));
    }

    /// After a MOVE: locks at the source stay behind as moved entries; locks strictly below the destination are gone,
    /// one on the destination itself still protects that URL.
    pub fn renamed(&self, from: &str, to: &str, etag: Option<&str>) {
        let mut state = self.state.lock();
        self.bury(&mut state, to);
        let mut left: Vec<Moved> = Vec::new();
        for lock in state.below_or_at(from) {
            state.take(&lock.token);
            let to = format!("{to}{}", &lock.path[from.len()..]);
            let etag = if lock.path == from {
                etag.map(str::to_string)
            } else {
                None
            };
            left.push(Moved { lock, to, etag });
        }
        for m in state.moved.values().filter(|m| within(&m.to, from)) {
            left.push(Moved {
                to: format!("{to}{}", &m.to[from.len()..]),
                ..m.clone()
            });
        }
        // Of each resource those that run out last.
        left.sort_by(|a, b| (&a.to, b.lock.expires_ms).cmp(&(&b.to, a.lock.expires_ms)));
        for of_one in left.chunk_by(|a, b| a.to == b.to) {
            for (n, m) in of_one.iter().enumerate() {
                let token = m.lock.token.clone();
                let record = if n < ON_ONE_MAX {
                    state.moved.insert(token, m.clone());
                    Record::Moved(m.clone())
                } else {
                    state.moved.remove(&token);
                    Record::Drop(token)
                };
                drop(self.append(&state, record));
            }
        }
        self.forget_moved(&mut state);
    }

    /// Forgets of the moved entries those beyond [`MOVED_MAX`] that run out first, and some more, so that this is seldom done.
    fn forget_moved(&self, state: &mut State) {
        if state.moved.len() <= MOVED_MAX {
            return;
        }
        let mut by_end: Vec<(u64, String)> = state
            .moved
            .values()
            .map(|m| (m.lock.expires_ms, m.lock.token.clone()))
            .collect();
        by_end.sort_unstable();
        let surplus = by_end.len() - MOVED_MAX / 10 * 9;
        for (_, token) in by_end.into_iter().take(surplus) {
            self.forget(state, &token);
        }
    }

    /// True if a call to `expire` at `now` could find anything.
    pub fn due(&self, now: u64) -> bool {
        self.state.lock().next_expiry_ms <= now
    }

    /// Drops what has run out and returns where, and what that means for a resource there that nobody ever PUT.
    pub fn expire(&self, now: u64) -> Vec<(String, Ended)> {
        let mut state = self.state.lock();
        if state.next_expiry_ms > now {
            return Vec::new();
        }
        let over = |lock: &Lock| lock.expires_ms <= now;
        let mut tokens = Vec::new();
        let mut ended = Vec::new();
        for lock in state.by_path.values().flatten().filter(|l| over(l)) {
            let how = if lock.came { Ended::Came } else { Ended::Bare };
            tokens.push(lock.token.clone());
            ended.push((lock.path.clone(), how));
        }
        for moved in state.moved.values().filter(|m| over(&m.lock)) {
            tokens.push(moved.lock.token.clone());
            ended.push((moved.to.clone(), Ended::Came));
        }
        for token in &tokens {
            self.forget(&mut state, token);
        }
        let held = state.by_path.values().flatten().map(|l| l.expires_ms);
        let next = held
            .chain(state.moved.values().map(|m| m.lock.expires_ms))
            .min();
        state.next_expiry_ms = next.unwrap_or(u64::MAX);
        ended.sort();
        ended.dedup();
        ended.retain(|(path, how)| *how == Ended::Came || state.has_nothing(path));
        ended
    }

    /// Whether no lock has its root at `path`, or has been left behind by what is there.
    pub fn has_nothing(&self, path: &str) -> bool {
        self.state.lock().has_nothing(path)
    }

    fn forget(&self, state: &mut State, token: &str) {
        let known = state.take(token).is_some() | state.moved.remove(token).is_some();
        if known {
            drop(self.append(state, Record::Drop(token.into())));
        }
    }

    /// Called with the state locked, so that the journal's order is the table's.
    fn append(&self, state: &State, record: Record) -> Ticket {
        self.journal.append(record, || state.snapshot())
    }
}

impl State {
    fn snapshot(&self) -> Vec<Record> {
        let held = self.by_path.values().flatten().cloned().map(Record::Put);
        held.chain(self.moved.values().cloned().map(Record::Moved))
            .collect()
    }
}

fn open_one(locks: &[&Lock], claim: &Claim) -> Result<(), Blocked> {
    match locks.first() {
        Some(first) if !locks.iter().any(|l| claim.opens(l)) => Err(Blocked {
            root: first.path.clone(),
        }),
        _ => Ok(()),
    }
}

/// For [`crate::fuzzing`].
pub(crate) fn fuzz_journal(data: &[u8]) -> usize {
    journal::fuzz(data)
}

/// For [`crate::fuzzing`].
pub(crate) fn fuzz_seeds() -> Vec<Vec<u8>> {
    journal::fuzz_seeds()
}

#[cfg(test)]
mod tests;
