//! All `unsafe` of the RADOS client: calls of librados and of `shim.cc`, wrapped so that safe code cannot misuse them.
//!
//! Three rules make this sound; each `unsafe` block below leans on one of them.
//!
//! 1. *Handles outlive their use.* A [`Handle`] is connected before it is shared and shut down when its last user is gone;
//!    every [`Context`] holds its `Handle`, every operation under way holds its `Context` (in [`Waiter`]). librados handles
//!    and contexts may be used from any thread (librados.h: "thread safe").
//! 2. *Nothing librados writes to belongs to Rust, and what it reads from later is lent by count.* Bytes read arrive in memory
//!    that librados allocated and that [`Reply`] owns from then on. Small writes are copied before the call returns. Large
//!    ones are lent: the shim holds the `Vec<Bytes>` until librados' own count of references to the memory says that nobody
//!    else has any, which may be long after the operation timed out. So a dropped future, a timed-out operation or one that is
//!    sent again later cannot touch freed memory.
//! 3. *The completion is called exactly once or never.* The shim returns 0 and later calls back once, or returns an error
//!    and never calls back. `Waiter` is leaked into the call and taken back in exactly one of the two places.
#![allow(
    unsafe_code,
    reason = "the C interface of librados; see the rules above"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::ptr;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use ceph::rados as c;
use tokio::sync::oneshot;

use crate::metrics::{RadosMetrics, RadosOp, RadosPool, RadosRunning};

/// Writes from this size on are lent to librados, not copied: below, the copy costs less than the accounts.
const LENT_FROM_BYTES: u64 = 128 << 10;

/// What the shim's replies point to.
#[repr(C)]
struct RawReply {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawPart {
    data: *const c_char,
    len: usize,
}

type Done = extern "C" fn(*mut c_void, c_int, *mut RawReply);
type GiveBack = extern "C" fn(*mut c_void);
type Name = extern "C" fn(*mut c_void, *const c_char, usize);

unsafe extern "C" {
    fn tierdav_read(
        io: c::rados_ioctx_t,
        oid: *const c_char,
        offset: u64,
        len: usize,
        attr: *const c_char,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_write(
        io: c::rados_ioctx_t,
        oid: *const c_char,
        parts: *const RawPart,
        count: usize,
        attr: *const c_char,
        value: *const c_char,
        value_len: usize,
        sum_at: usize,
        sum: *mut u32,
        mark: *const c_char,
        owner: *mut c_void,
        give_back: GiveBack,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_settle_loans();
    fn tierdav_copy(
        to: c::rados_ioctx_t,
        to_oid: *const c_char,
        from: c::rados_ioctx_t,
        from_oid: *const c_char,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_set_mark(
        io: c::rados_ioctx_t,
        oid: *const c_char,
        mark: *const c_char,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_unset_mark(
        io: c::rados_ioctx_t,
        oid: *const c_char,
        mark: *const c_char,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_attributes(
        io: c::rados_ioctx_t,
        oid: *const c_char,
        attr: *const c_char,
        mark: *const c_char,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_remove(
        io: c::rados_ioctx_t,
        oid: *const c_char,
        done: Done,
        arg: *mut c_void,
    ) -> c_int;
    fn tierdav_list(io: c::rados_ioctx_t, each: Name, arg: *mut c_void) -> c_int;
    fn tierdav_reply_data(reply: *mut RawReply, len: *mut usize) -> *const c_char;
    fn tierdav_reply_attr(reply: *mut RawReply, len: *mut usize) -> *const c_char;
    fn tierdav_reply_sum(reply: *const RawReply) -> u32;
    fn tierdav_reply_free(reply: *mut RawReply);
}

/// `Ok` for a result that is not negative, else the error of that number.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(result)
    }
}

fn text(s: &str) -> io::Result<CString> {
    CString::new(s)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{s:?} has a NUL")))
}

/// A connection to a cluster.
pub struct Handle {
    raw: c::rados_t,
    metrics: Arc<RadosMetrics>,
}

// SAFETY: rule 1; a `rados_t` is only a pointer to an object that locks itself.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// A client that is configured but not connected. Blocks.
    pub fn new(
        user: &str,
        conf: &str,
        options: &[(&str, String)],
        metrics: Arc<RadosMetrics>,
    ) -> io::Result<Handle> {
        let mut raw = ptr::null_mut();
        let (cluster, user, conf) = (text("ceph")?, text(user)?, text(conf)?);
        // SAFETY: `raw` is a place for the new handle; the strings live across the call and are copied by it.
        check(unsafe { c::rados_create2(&mut raw, cluster.as_ptr(), user.as_ptr(), 0) })?;
        let handle = Handle { raw, metrics };
        // SAFETY: the handle is live (rule 1), the string too.
        check(unsafe { c::rados_conf_read_file(handle.raw, conf.as_ptr()) }).map_err(|e| {
            let why = format!(
                "the configuration file is not understood ({e}): each line must end with a newline"
            );
            io::Error::new(e.kind(), why)
        })?;
        for (key, value) in options {
            handle.set(key, value)?;
        }
        Ok(handle)
    }

    /// Sets a setting. Before the handle is connected.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: the handle is live (rule 1), the strings live across the call, which copies them.
        check(unsafe { c::rados_conf_set(self.raw, key.as_ptr(), value.as_ptr()) }).map(|_| ())
    }

    /// A setting's value, as the configuration file and the defaults give it.
    pub fn setting(&self, key: &str) -> io::Result<String> {
        let key = text(key)?;
        let mut buf = vec![0u8; 4096];
        // SAFETY: the buffer is as long as it is said to be.
        check(unsafe {
            c::rados_conf_get(
                self.raw,
                key.as_ptr(),
                buf.as_mut_ptr().cast::<c_char>(),
                buf.len(),
            )
        })?;
        Ok(until_nul(&buf))
    }

    /// Connects. Blocks for `client_mount_timeout` at most. Call it once.
    pub fn connect(&self) -> io::Result<()> {
        // SAFETY: the handle is live; it was made by `new` and not connected before.
        check(unsafe { c::rados_connect(self.raw) }).map(|_| ())
    }

    /// The cluster's id.
    pub fn fsid(&self) -> io::Result<String> {
        let mut buf = [0u8; 64];
        // SAFETY: the buffer is as long as it is said to be.
        check(unsafe {
            c::rados_cluster_fsid(self.raw, buf.as_mut_ptr().cast::<c_char>(), buf.len())
        })?;
        Ok(until_nul(&buf))
    }

    /// Shuts another client out for `seconds`. Blocks.
    pub fn blocklist(&self, address: &str, seconds: u32) -> io::Result<()> {
        let address = text(address)?;
        self.timed(|| {
            let raw = address.as_ptr().cast_mut();
            // SAFETY: the handle and the string live across the call; the call does not write to the string.
            check(unsafe { c::rados_blacklist_add(self.raw, raw, seconds) }).map(|_| ())
        })
    }

    /// Counts what is asked of the monitors.
    fn timed<T>(&self, ask: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        timed(&self.metrics, RadosOp::Command, RadosPool::None, ask)
    }

    /// Asks the monitors. Blocks for `rados_mon_op_timeout` at most.
    pub fn mon_command(&self, command: &str) -> io::Result<Vec<u8>> {
        self.timed(|| self.ask(command))
    }

    fn ask(&self, command: &str) -> io::Result<Vec<u8>> {
        let command = text(command)?;
        let mut commands = [command.as_ptr()];
        let (mut out, mut out_len) = (ptr::null_mut(), 0usize);
        let (mut status, mut status_len) = (ptr::null_mut(), 0usize);
        // SAFETY: one command is given, and it lives across the call; the output pointers are places for buffers that
        // librados allocates.
        let result = unsafe {
            c::rados_mon_command(
                self.raw,
                commands.as_mut_ptr(),
                1,
                ptr::null(),
                0,
                &mut out,
                &mut out_len,
                &mut status,
                &mut status_len,
            )
        };
        let mut bytes = Vec::new();
        if !out.is_null() {
            // SAFETY: librados says that `out` has `out_len` bytes; they are copied before they are given back.
            bytes.extend_from_slice(unsafe { slice::from_raw_parts(out.cast::<u8>(), out_len) });
        }
        for buffer in [out, status] {
            if !buffer.is_null() {
                // SAFETY: allocated by the call above, given back once.
                unsafe { c::rados_buffer_free(buffer) };
            }
        }
        check(result)?;
        Ok(bytes)
    }

    /// The context of a pool's namespace. Blocks if the map of pools has yet to arrive.
    /// `role` is what the pool is for.
    pub fn context(
        self: &Arc<Self>,
        pool: &str,
        namespace: &str,
        role: RadosPool,
    ) -> io::Result<Context> {
        let mut raw = ptr::null_mut();
        let (pool, namespace) = (text(pool)?, text(namespace)?);
        // SAFETY: `raw` is a place for the new context; handle and strings live across the calls.
        check(unsafe { c::rados_ioctx_create(self.raw, pool.as_ptr(), &mut raw) })?;
        // SAFETY: the context was just made.
        unsafe { c::rados_ioctx_set_namespace(raw, namespace.as_ptr()) };
        Ok(Context {
            inner: Arc::new(ContextInner {
                raw,
                handle: Arc::clone(self),
                role,
            }),
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: rule 1: no context, and so no operation, is left. Waits for librados' threads: see `Cluster`, which
        // leaves the last drop to a blocking thread.
        unsafe { c::rados_shutdown(self.raw) };
    }
}

fn until_nul(buf: &[u8]) -> String {
    let end = buf.iter().position(|b| *b == 0).unwrap_or(buf.len());
    String::from_utf8_lossy(&buf[..end]).into_owned()
}

struct ContextInner {
    raw: c::rados_ioctx_t,
    handle: Arc<Handle>,
    role: RadosPool,
}

// SAFETY: rule 1; contexts lock themselves, and the namespace is set before the context is shared.
unsafe impl Send for ContextInner {}
// SAFETY: as above.
unsafe impl Sync for ContextInner {}

impl Drop for ContextInner {
    fn drop(&mut self) {
        // SAFETY: made by `Handle::context`, destroyed once; operations under way hold references of their own.
        unsafe { c::rados_ioctx_destroy(self.raw) };
    }
}

/// A namespace of a pool, on which operations are started.
#[derive(Clone)]
pub struct Context {
    inner: Arc<ContextInner>,
}

/// What an operation brought: memory of librados, freed with this.
pub struct Reply {
    raw: *mut RawReply,
    data: *const u8,
    data_len: usize,
    attr: *const u8,
    attr_len: usize,
}

// SAFETY: rule 2: the reply is this value's alone, and nothing in it is bound to a thread.
unsafe impl Send for Reply {}
// SAFETY: all access through a shared reference only reads memory that does not change any more.
unsafe impl Sync for Reply {}

impl Reply {
    /// Takes a reply over from the shim.
    ///
    /// # Safety
    /// `raw` must be a reply that the shim handed out, and nobody else's.
    unsafe fn take(raw: *mut RawReply) -> Option<Reply> {
        let (mut data_len, mut attr_len) = (0, 0);
        // SAFETY: the caller's promise. The pointers stay valid until the reply is freed: nothing touches it but this.
        let (data, attr) = unsafe {
            (
                tierdav_reply_data(raw, &mut data_len),
                tierdav_reply_attr(raw, &mut attr_len),
            )
        };
        let reply = Reply {
            raw,
            data: data.cast(),
            data_len,
            attr: attr.cast(),
            attr_len,
        };
        // Dropping it frees it.
        (!data.is_null() && !attr.is_null()).then_some(reply)
    }

    /// The attribute that was asked for; empty when there is none.
    pub fn attr(&self) -> &[u8] {
        // SAFETY: valid for `attr_len` bytes as long as the reply lives, see `take`.
        unsafe { slice::from_raw_parts(self.attr, self.attr_len) }
    }

    /// crc32c of the bytes that were read.
    pub fn sum(&self) -> u32 {
        // SAFETY: the reply lives, and nothing in it changes any more, see `take`.
        unsafe { tierdav_reply_sum(self.raw) }
    }

    /// The bytes that were read, without a copy.
    pub fn into_bytes(self) -> Bytes {
        if self.data_len == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: valid for `data_len` bytes as long as the reply lives, see `take`.
        unsafe { slice::from_raw_parts(self.data, self.data_len) }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: `take` made this the only owner; freed once.
        unsafe { tierdav_reply_free(self.raw) };
    }
}

/// What an operation under way holds.
struct Waiter {
    done: oneshot::Sender<io::Result<Reply>>,
    contexts: (Context, Option<Context>),
    running: RadosRunning,
    /// Bytes that it writes.
    written: u64,
}

impl Waiter {
    /// Counts the operation and hands its outcome to who waits, if anyone does; else the reply is freed here.
    fn settle(self, outcome: io::Result<Reply>) -> (Context, Option<Context>) {
        self.running.end(match &outcome {
            Ok(reply) => Ok(self.written + reply.data_len as u64),
            Err(e) => Err(e),
        });
        let _ = self.done.send(outcome);
        self.contexts
    }
}

/// A lock's holder: client, cookie and address.
pub type Locker = [String; 3];

/// An operation's result, later.
pub type Wait = oneshot::Receiver<io::Result<Reply>>;

/// Called once by librados for each operation that was begun.
extern "C" fn complete(arg: *mut c_void, result: c_int, reply: *mut RawReply) {
    // SAFETY: rule 3: `arg` is the `Waiter` that `Context::begin` leaked, and this is the one call for it.
    let waiter = unsafe { Box::from_raw(arg.cast::<Waiter>()) };
    // SAFETY: the shim hands the reply over with this call.
    let reply = unsafe { Reply::take(reply) };
    let outcome = check(result)
        .and_then(|_| reply.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory)));
    // The last context may end the connection, which must not happen on a thread that belongs to it.
    release(waiter.settle(outcome));
}

/// Takes what was lent to a write back. Called once for each loan, when nothing of librados refers to the bytes any more.
extern "C" fn give_back(owner: *mut c_void) {
    // SAFETY: `owner` is the vector that `Context::write` leaked, and this is the one call for it.
    drop(unsafe { Box::from_raw(owner.cast::<Vec<Bytes>>()) });
}

/// Takes back what was lent to writes whose time was over before librados had let go of it, as far as it has now.
pub fn settle_loans() {
    // SAFETY: no pointer goes in or out; the shim locks what it looks at.
    unsafe { tierdav_settle_loans() };
}

/// Gives memory that was freed back to the system. Objects of some MiB, mixed with small buffers, leave glibc's heaps full of
/// holes: after a load it would keep ten times what it uses. Takes milliseconds, so it is for times without load.
pub fn give_back_memory() {
    settle_loans();
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer goes in or out, and any thread may call it (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Runs an operation that blocks, and counts it.
fn timed<T>(
    metrics: &Arc<RadosMetrics>,
    op: RadosOp,
    pool: RadosPool,
    run: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let running = metrics.begin(op, pool);
    let outcome = run();
    running.end(outcome.as_ref().map(|_| 0));
    outcome
}

/// Drops contexts where they may end a connection.
fn release(contexts: (Context, Option<Context>)) {
    let shared = |c: &Context| Arc::strong_count(&c.inner) > 1;
    if shared(&contexts.0) && contexts.1.as_ref().is_none_or(shared) {
        return;
    }
    // A thread that cannot be started leaves the connection to the end of the process.
    let kept = std::mem::ManuallyDrop::new(contexts);
    let _ = std::thread::Builder::new()
        .name("rados-shutdown".into())
        .spawn(move || drop(std::mem::ManuallyDrop::into_inner(kept)));
}

impl Context {
    fn begin(
        &self,
        op: RadosOp,
        written: u64,
        other: Option<&Context>,
        submit: impl FnOnce(c::rados_ioctx_t, Done, *mut c_void) -> c_int,
    ) -> Wait {
        let (done, wait) = oneshot::channel();
        let waiter = Box::into_raw(Box::new(Waiter {
            done,
            contexts: (self.clone(), other.cloned()),
            running: self.inner.handle.metrics.begin(op, self.inner.role),
            written,
        }));
        if let Err(e) = check(submit(self.inner.raw, complete, waiter.cast())) {
            // SAFETY: rule 3: the operation was not begun, so `complete` will not take the waiter.
            let waiter = unsafe { Box::from_raw(waiter) };
            drop(waiter.settle(Err(e)));
        }
        wait
    }

    /// Counts an operation that blocks.
    fn timed<T>(&self, op: RadosOp, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        timed(&self.inner.handle.metrics, op, self.inner.role, run)
    }

    /// Begins to read `len` bytes, and with them the attribute `attr`, if any, in one operation.
    pub fn read(&self, oid: &CStr, offset: u64, len: usize, attr: Option<&CStr>) -> Wait {
        let attr = attr.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY (here and in the methods below): rule 1 for the context; names are copied before the call returns.
        self.begin(RadosOp::Read, 0, None, |io, done, arg| unsafe {
            tierdav_read(io, oid.as_ptr(), offset, len, attr, done, arg)
        })
    }

    /// Begins to replace an object by `parts`, with an attribute of this name and value, and `mark` if there is one, in one
    /// operation. With `sum_at` the crc32c of the parts is put into the value, little endian, from that byte on; it is returned as
    /// well then.
    pub fn write(
        &self,
        oid: &CStr,
        parts: Vec<Bytes>,
        (attr, value): (&CStr, &[u8]),
        sum_at: Option<usize>,
        mark: Option<&CStr>,
    ) -> (Wait, u32) {
        let sum_at = sum_at.filter(|at| at + size_of::<u32>() <= value.len());
        let mut sum = 0u32;
        let raw: Vec<RawPart> = parts
            .iter()
            .map(|p| RawPart {
                data: p.as_ptr().cast(),
                len: p.len(),
            })
            .collect();
        let written = parts.iter().map(|p| p.len() as u64).sum();
        // The bytes of a `Bytes` stay where they are when it is moved.
        let (owner, copied) = if written >= LENT_FROM_BYTES {
            (Box::into_raw(Box::new(parts)).cast(), None)
        } else {
            (ptr::null_mut(), Some(parts))
        };
        // SAFETY: rule 2: with an owner the bytes live until `give_back`, without they are copied before the call returns, as
        // is `value`, and `copied` lives until then. `sum` is written before the call returns, if at all.
        let wait = self.begin(RadosOp::Write, written, None, |io, done, arg| unsafe {
            tierdav_write(
                io,
                oid.as_ptr(),
                raw.as_ptr(),
                raw.len(),
                attr.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                sum_at.unwrap_or(0),
                sum_at.map_or(ptr::null_mut(), |_| &raw mut sum),
                mark.map_or(ptr::null(), CStr::as_ptr),
                owner,
                give_back,
                done,
                arg,
            )
        });
        drop(copied);
        (wait, sum)
    }

    /// Begins to copy `from_oid` of the context `from` to `oid` here, from OSD to OSD, attributes included.
    pub fn copy_from(&self, oid: &CStr, from: &Context, from_oid: &CStr) -> Wait {
        // SAFETY: both contexts are held by the waiter.
        self.begin(RadosOp::Copy, 0, Some(from), |io, done, arg| unsafe {
            tierdav_copy(
                io,
                oid.as_ptr(),
                from.inner.raw,
                from_oid.as_ptr(),
                done,
                arg,
            )
        })
    }

    /// Begins to set `mark` on an object that exists.
    pub fn set_mark(&self, oid: &CStr, mark: &CStr) -> Wait {
        // SAFETY: see `read`.
        self.begin(RadosOp::Mark, 0, None, |io, done, arg| unsafe {
            tierdav_set_mark(io, oid.as_ptr(), mark.as_ptr(), done, arg)
        })
    }

    /// Begins to take `mark` from an object that exists.
    pub fn unset_mark(&self, oid: &CStr, mark: &CStr) -> Wait {
        // SAFETY: see `read`.
        self.begin(RadosOp::Mark, 0, None, |io, done, arg| unsafe {
            tierdav_unset_mark(io, oid.as_ptr(), mark.as_ptr(), done, arg)
        })
    }

    /// Begins to read the attribute `attr`; the reply has a byte if the object carries `mark`.
    pub fn attributes(&self, oid: &CStr, attr: &CStr, mark: &CStr) -> Wait {
        // SAFETY: see `read`.
        self.begin(RadosOp::Stat, 0, None, |io, done, arg| unsafe {
            tierdav_attributes(io, oid.as_ptr(), attr.as_ptr(), mark.as_ptr(), done, arg)
        })
    }

    /// Begins to remove an object.
    pub fn remove(&self, oid: &CStr) -> Wait {
        // SAFETY: see `read`.
        self.begin(RadosOp::Remove, 0, None, |io, done, arg| unsafe {
            tierdav_remove(io, oid.as_ptr(), done, arg)
        })
    }

    /// The names of all objects. Blocks.
    pub fn list(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        extern "C" fn name<F: FnMut(&[u8])>(arg: *mut c_void, name: *const c_char, len: usize) {
            // SAFETY: `arg` is the closure below, which nobody else uses during the call.
            let each = unsafe { &mut *arg.cast::<F>() };
            // SAFETY: the shim says that `name` has `len` bytes, for the time of the call.
            each(unsafe { slice::from_raw_parts(name.cast::<u8>(), len) });
        }
        fn call<F: FnMut(&[u8])>(io: c::rados_ioctx_t, each: &mut F) -> c_int {
            // SAFETY: the context is live (rule 1); the closure lives across the call, which is synchronous.
            unsafe { tierdav_list(io, name::<F>, ptr::from_mut(each).cast()) }
        }
        self.timed(RadosOp::List, || {
            check(call(self.inner.raw, &mut each)).map(|_| ())
        })
    }

    /// Takes, or renews, the exclusive lock `lock` on `oid` for `seconds`. Blocks. `EBUSY`: another holds it.
    pub fn lock(
        &self,
        oid: &CStr,
        lock: &CStr,
        cookie: &str,
        description: &str,
        seconds: u32,
    ) -> io::Result<()> {
        /// `LIBRADOS_LOCK_FLAG_RENEW`.
        const RENEW: u8 = 1;
        let (cookie, description) = (text(cookie)?, text(description)?);
        let mut duration = libc::timeval {
            tv_sec: seconds.into(),
            tv_usec: 0,
        };
        // SAFETY: the context is live, the strings and the duration live across the call.
        self.timed(RadosOp::Lock, || {
            check(unsafe {
                c::rados_lock_exclusive(
                    self.inner.raw,
                    oid.as_ptr(),
                    lock.as_ptr(),
                    cookie.as_ptr(),
                    description.as_ptr(),
                    &mut duration,
                    RENEW,
                )
            })
            .map(|_| ())
        })
    }

    /// Gives a lock of ours back. Blocks.
    pub fn unlock(&self, oid: &CStr, lock: &CStr, cookie: &str) -> io::Result<()> {
        let cookie = text(cookie)?;
        // SAFETY: the context is live, the strings live across the call.
        self.timed(RadosOp::Lock, || {
            check(unsafe {
                c::rados_unlock(self.inner.raw, oid.as_ptr(), lock.as_ptr(), cookie.as_ptr())
            })
            .map(|_| ())
        })
    }

    /// Ends another client's lock. Blocks.
    pub fn break_lock(
        &self,
        oid: &CStr,
        lock: &CStr,
        client: &str,
        cookie: &str,
    ) -> io::Result<()> {
        let (client, cookie) = (text(client)?, text(cookie)?);
        // SAFETY: the context is live, the strings live across the call.
        self.timed(RadosOp::Lock, || {
            check(unsafe {
                c::rados_break_lock(
                    self.inner.raw,
                    oid.as_ptr(),
                    lock.as_ptr(),
                    client.as_ptr(),
                    cookie.as_ptr(),
                )
            })
            .map(|_| ())
        })
    }

    /// Who holds the lock, the first of them. Blocks.
    pub fn locker(&self, oid: &CStr, lock: &CStr) -> io::Result<Option<Locker>> {
        let mut exclusive = 0;
        let mut buffers = [[0u8; 1024]; 4];
        let mut lens = [1024usize; 4];
        let [tag, clients, cookies, addresses] = &mut buffers;
        let [tag_len, clients_len, cookies_len, addresses_len] = &mut lens;
        // SAFETY: each buffer is as long as the length beside it says.
        let count = self.timed(RadosOp::Lock, || {
            check(unsafe {
                c::rados_list_lockers(
                    self.inner.raw,
                    oid.as_ptr(),
                    lock.as_ptr(),
                    &mut exclusive,
                    tag.as_mut_ptr().cast(),
                    tag_len,
                    clients.as_mut_ptr().cast(),
                    clients_len,
                    cookies.as_mut_ptr().cast(),
                    cookies_len,
                    addresses.as_mut_ptr().cast(),
                    addresses_len,
                ) as c_int
            })
        })?;
        let [_, clients, cookies, addresses] = &buffers;
        Ok((count > 0).then(|| [until_nul(clients), until_nul(cookies), until_nul(addresses)]))
    }
}
