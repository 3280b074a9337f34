//! One gateway per namespace: an exclusive lock in the data pool, renewed while the gateway lives, and a marker that binds
//! the namespace to one root.
//!
//! A lock that is not renewed ends by itself after [`LEASE`]. It names the root's lock file, too: who holds that very file
//! need not wait, as the lock's owner must be dead. Anywhere else the root may be a clone of one that is served, and only a
//! lock that nobody renews proves it. Who ends a dead owner's lock, or waits for its end, shuts that one out of the
//! cluster (blocklist), so that none of its operations can arrive later. An owner that loses the lock, or is shut out,
//! refuses all operations from then on, connects anew and goes on when it has the lock again; unless another gateway had it
//! meanwhile, as the owner's object tells: then what is known here of the pools is of before, and the process ends.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::sys::Locker;
use super::{INFO, Live, OWNER, RadosPools, explain};
use crate::objects::pools::{AttachError, Claim};

const LOCK: &CStr = c"owner";
/// The cookie of who took the lock last: an attribute of [`OWNER`].
const TAKEN: &CStr = c"tierdav.taken";
/// How long a lock lives without being renewed.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// Between two tries to take the lock.
const RETRY: Duration = Duration::from_secs(1);
/// How long a dead owner stays shut out.
const BLOCKLIST: Duration = Duration::from_secs(3600);

/// The lock, held and renewed by a thread. Dropping it gives it back.
pub struct Owner {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Lock {
    pools: Arc<RadosPools>,
    claim: Claim,
    cookie: String,
}

impl Owner {
    /// Takes the lock, waiting for a dead owner's to end, and keeps it. Blocks.
    ///
    /// # Errors
    /// The namespace belongs to another root, or another gateway is alive: the message says which.
    pub fn take(pools: Arc<RadosPools>, claim: Claim) -> Result<Owner, AttachError> {
        let id = uuid::Uuid::new_v4();
        let lock = Lock {
            cookie: format!("{} {} {id}", claim.root_id, claim.place),
            claim,
            pools,
        };
        // Said at once rather than when the lock is free. Who binds a namespace that nobody has must hold the lock.
        lock.is_bound()?;
        lock.take()?;
        lock.bind()
            .and_then(|()| lock.set_mark(TAKEN, &lock.cookie))
            .inspect_err(|_| lock.give_back())?;
        lock.pools.set_fenced(false);
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("rados-owner".into())
            .spawn(move || lock.keep(&stopped))
            .map_err(|e| AttachError::lasting(format!("cannot start a thread: {e}")))?;
        Ok(Owner {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn wait(operation: super::sys::Wait) -> io::Result<super::sys::Reply> {
    operation
        .blocking_recv()
        .unwrap_or_else(|_| Err(io::Error::other("the operation vanished")))
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Lock {
    fn failed(&self, what: &str, e: &io::Error) -> AttachError {
        AttachError::passing(format!("{}: {what}: {}", self.pools.name(), explain(e)))
    }

    /// An attribute of the owner's object, if it is there.
    fn mark(live: &Live, name: &CStr) -> io::Result<Option<Vec<u8>>> {
        match wait(live.data.read(OWNER, 0, 0, Some(name))) {
            Ok(reply) => Ok(Some(reply.attr().to_vec())),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODATA)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn set_mark(&self, name: &CStr, value: &str) -> Result<(), AttachError> {
        let live = self.pools.live.load();
        let mark = (name, value.as_bytes());
        let written = live.data.write(OWNER, Vec::new(), mark, None, None);
        wait(written.0)
            .map(|_| ())
            .map_err(|e| self.failed("cannot be written", &e))
    }

    /// Whether the namespace has this root's id; `false` if it is a new one. Refuses one that is another root's.
    fn is_bound(&self) -> Result<bool, AttachError> {
        match Self::mark(&self.pools.live.load(), INFO) {
            Ok(Some(id)) if id == self.claim.root_id.as_bytes() => Ok(true),
            Ok(Some(id)) => Err(AttachError::lasting(format!(
                "{}: has the data of root {}, not of this root {}: give another ceph_namespace",
                self.pools.name(),
                String::from_utf8_lossy(&id),
                self.claim.root_id
            ))),
            Ok(None) => Ok(false),
            Err(e) => Err(self.failed("cannot be read", &e)),
        }
    }

    /// Writes the root's id into a new namespace.
    fn bind(&self) -> Result<(), AttachError> {
        match self.is_bound()? {
            true => Ok(()),
            false => self.set_mark(INFO, &self.claim.root_id),
        }
    }

    /// Whether nobody else has taken the lock since this gateway did.
    fn was_last(&self, live: &Live) -> io::Result<bool> {
        Ok(Self::mark(live, TAKEN)?.is_some_and(|cookie| cookie == self.cookie.as_bytes()))
    }

    fn give_back(&self) {
        let live = self.pools.live.load();
        if let Err(error) = live.data.unlock(OWNER, LOCK, &self.cookie) {
            tracing::warn!(%error, "cannot give the pools' lock back; it ends by itself");
        }
    }

    fn renew(&self, live: &Live) -> io::Result<()> {
        let seconds = LEASE.as_secs() as u32;
        live.data
            .lock(OWNER, LOCK, &self.cookie, &self.claim.description, seconds)
    }

    fn take(&self) -> Result<(), AttachError> {
        let live = self.pools.live.load_full();
        let began = Instant::now();
        let mut waited_for = None;
        let depose = |holder: &Locker| {
            self.depose(&live, holder)
                .map_err(|e| self.failed("a dead owner's lock cannot be ended", &e))
        };
        loop {
            match self.renew(&live) {
                Ok(()) => return waited_for.as_ref().map_or(Ok(()), depose),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => return Err(self.failed("the owner's lock cannot be taken", &e)),
            }
            let holder = live
                .data
                .locker(OWNER, LOCK)
                .map_err(|e| self.failed("the owner's lock cannot be read", &e))?;
            let Some(holder) = holder else {
                continue;
            };
            let [client, cookie, address] = &holder;
            let mut of_holder = cookie.split(' ');
            let root = of_holder.next().unwrap_or_default();
            if root == self.claim.root_id && of_holder.next() == Some(&self.claim.place) {
                depose(&holder)?;
                continue;
            }
            if began.elapsed() > LEASE + RETRY {
                return Err(AttachError::lasting(format!(
                    "{}: owned by another gateway, {client} at {address}, which is alive and serves root {root}, or a clone of it, \
                     elsewhere: only one of them can be served",
                    self.pools.name(),
                )));
            }
            if waited_for.is_none() {
                tracing::info!(%client, %address, "the pools' lock is held from elsewhere; waiting for it to end, {} s at most", LEASE.as_secs());
            }
            waited_for = Some(holder);
            std::thread::sleep(RETRY);
        }
    }

    /// Ends the lock of an owner that is known to be dead, and makes sure that it stays so.
    fn depose(&self, live: &Live, [client, cookie, address]: &Locker) -> io::Result<()> {
        match live.handle.blocklist(address, BLOCKLIST.as_secs() as u32) {
            Ok(()) => tracing::info!(%client, %address, "shut the former owner out of the cluster"),
            Err(error) => {
                tracing::warn!(%client, %address, %error, "cannot shut the former owner out of the cluster: its key needs `profile simple-rados-client-with-blocklist`");
            }
        }
        match live.data.break_lock(OWNER, LOCK, client, cookie) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
            _ => Ok(()),
        }
    }

    /// Until told to stop.
    fn keep(&self, stopped: &mpsc::Receiver<()>) {
        let fenced = &self.pools.fenced;
        let mut period = RENEW;
        let mut renewed = Instant::now();
        let (mut moved, mut given_back) = (0, 0);
        while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            // Where writes hang, none ends that would look whether others are over.
            super::sys::settle_loans();
            // Once after each load, when it is over.
            let now = self.pools.metrics.moved_bytes();
            if now == moved && now != given_back {
                super::sys::give_back_memory();
                given_back = now;
            }
            moved = now;
            let began = Instant::now();
            let held = !fenced.load(Ordering::Relaxed);
            let outcome = if held {
                self.renew(&self.pools.live.load())
            } else {
                self.regain()
            };
            match outcome {
                Ok(()) if held => {
                    renewed = began;
                    self.pools.metrics.set_owner(true);
                }
                Ok(()) => {
                    renewed = began;
                    tracing::info!("the pools' lock is held again; serving");
                    self.pools.set_fenced(false);
                }
                Err(e) if !held => {
                    tracing::debug!(error = %explain(&e), "the pools' lock is not to be had yet");
                }
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EBUSY | libc::ENOENT | libc::ESHUTDOWN)
                    ) =>
                {
                    tracing::error!(error = %explain(&e), "lost the pools' lock; nothing is served until it is held again");
                    self.pools.set_fenced(true);
                }
                // The cluster does not answer: its lock may run out, but then nobody can take it either.
                Err(e) => {
                    tracing::warn!(error = %explain(&e), "cannot renew the pools' lock; tried again");
                    if renewed.elapsed() > LEASE {
                        self.pools.metrics.set_owner(false);
                    }
                }
            }
            period = if fenced.load(Ordering::Relaxed) {
                RETRY
            } else {
                RENEW
            };
        }
        if !fenced.load(Ordering::Relaxed) {
            self.give_back();
        }
        self.pools.metrics.set_owner(false);
    }

    /// Connects anew and takes the lock if it is free or still this gateway's own.
    fn regain(&self) -> io::Result<()> {
        let live =
            Live::connect(&self.pools.options, &self.pools.metrics).map_err(io::Error::other)?;
        if let Err(e) = self.renew(&live) {
            match live.data.locker(OWNER, LOCK)? {
                Some([client, cookie, _]) if cookie == self.cookie => {
                    live.data.break_lock(OWNER, LOCK, &client, &cookie)?;
                    self.renew(&live)?;
                }
                _ => return Err(e),
            }
        }
        if !self.was_last(&live)? {
            let _ = live.data.unlock(OWNER, LOCK, &self.cookie);
            tracing::error!(
                pools = self.pools.name(),
                "another gateway had the pools' lock meanwhile: what is known here of the pools may be wrong; ending, to be started anew"
            );
            // Nothing is under way that could still be acknowledged: all is refused since the lock was lost.
            std::process::exit(1);
        }
        self.pools.live.store(Arc::new(live));
        Ok(())
    }
}
