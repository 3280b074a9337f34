//! All `unsafe` of `calibrate --pool`: blocking calls of librados, wrapped so that safe code cannot misuse them.
//!
//! Declarations are those of the crate `ceph`. Its safe interface has no operations with flags, without which the OSDs keep
//! what they read in memory, and no settings before the connection, without which a missing monitor is waited for.
//!
//! Two rules make this sound:
//!
//! 1. *Handles outlive their use.* A [`Cluster`] is connected before it is shared and shut down when its last user is gone;
//!    every [`Context`] holds its `Cluster`, and every call borrows its `Context`. librados handles and contexts may be used
//!    from any thread (librados.h: "thread safe").
//! 2. *Memory that librados writes to comes back with success only.* A read is given its [`Place`]; when it fails, which may
//!    be a timeout with an answer still on its way, the place is leaked. Bytes to write are copied before the operation is sent.
#![allow(
    unsafe_code,
    reason = "the C interface of librados; see the rules above"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ceph::rados as c;

/// `LIBRADOS_OP_FLAG_FADVISE_NOCACHE`: the OSD is not to keep the bytes in its cache.
const NOCACHE: c_int = 0x40;
/// `LIBRADOS_OPERATION_FULL_TRY`: a full pool answers at once rather than when it has room again.
const FULL_TRY: c_int = 64;

/// `Ok` for a result that is not negative, else the error of that number.
fn check(result: c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
    }
}

fn text(s: &str) -> io::Result<CString> {
    CString::new(s)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{s:?} has a NUL")))
}

/// A connection to a cluster.
pub struct Cluster {
    raw: c::rados_t,
}

// SAFETY: rule 1; a `rados_t` is only a pointer to an object that locks itself.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// A client that is configured by the file `conf`, not connected.
    pub fn new(user: &str, conf: &str) -> io::Result<Cluster> {
        let mut raw = ptr::null_mut();
        let (name, user, conf) = (text("ceph")?, text(user)?, text(conf)?);
        // SAFETY: `raw` is a place for the new handle; the strings live across the call and are copied by it.
        check(unsafe { c::rados_create2(&mut raw, name.as_ptr(), user.as_ptr(), 0) })?;
        let cluster = Cluster { raw };
        // SAFETY: the handle is live (rule 1), the string too.
        check(unsafe { c::rados_conf_read_file(cluster.raw, conf.as_ptr()) })?;
        Ok(cluster)
    }

    /// Sets a setting. Before the connection.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: the handle is live (rule 1), the strings live across the call, which copies them.
        check(unsafe { c::rados_conf_set(self.raw, key.as_ptr(), value.as_ptr()) })
    }

    /// A setting's value, as the configuration file and the defaults give it.
    pub fn setting(&self, key: &str) -> io::Result<String> {
        let key = text(key)?;
        let mut buf = vec![0u8; 4096];
        // SAFETY: the handle is live (rule 1); the buffer is as long as it is said to be.
        check(unsafe {
            let at = buf.as_mut_ptr().cast::<c_char>();
            c::rados_conf_get(self.raw, key.as_ptr(), at, buf.len())
        })?;
        let end = buf.iter().position(|b| *b == 0).unwrap_or(buf.len());
        Ok(String::from_utf8_lossy(&buf[..end]).into_owned())
    }

    /// Connects, for `client_mount_timeout` at most. Call it once, before [`Cluster::context`].
    pub fn connect(&self) -> io::Result<()> {
        // SAFETY: the handle is live; it was made by `new` and not connected before.
        check(unsafe { c::rados_connect(self.raw) })
    }

    /// A pool's namespace.
    pub fn context(self: &Arc<Self>, pool: &str, namespace: &str) -> io::Result<Context> {
        let mut raw = ptr::null_mut();
        let (pool, namespace) = (text(pool)?, text(namespace)?);
        // SAFETY: `raw` is a place for the new context; handle and strings live across the calls.
        check(unsafe { c::rados_ioctx_create(self.raw, pool.as_ptr(), &mut raw) })?;
        // SAFETY: the context was just made, and nobody else has it yet.
        unsafe { c::rados_ioctx_set_namespace(raw, namespace.as_ptr()) };
        Ok(Context {
            raw,
            _cluster: Arc::clone(self),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: rule 1: no context, and so no call, is left.
        unsafe { c::rados_shutdown(self.raw) };
    }
}

/// A namespace of a pool.
pub struct Context {
    raw: c::rados_ioctx_t,
    _cluster: Arc<Cluster>,
}

// SAFETY: rule 1; contexts lock themselves, and the namespace is set before the context is shared.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `Cluster::context`, destroyed once, and no call is left that borrows it.
        unsafe { c::rados_ioctx_destroy(self.raw) };
    }
}

/// An operation that is put together and then sent.
struct Operation {
    raw: NonNull<c_void>,
    release: unsafe extern "C" fn(*mut c_void),
}

impl Operation {
    fn write() -> io::Result<Operation> {
        // SAFETY: makes an operation out of nothing.
        Operation::of(
            unsafe { c::rados_create_write_op() },
            c::rados_release_write_op,
        )
    }

    fn read() -> io::Result<Operation> {
        // SAFETY: makes an operation out of nothing.
        Operation::of(
            unsafe { c::rados_create_read_op() },
            c::rados_release_read_op,
        )
    }

    fn of(raw: *mut c_void, release: unsafe extern "C" fn(*mut c_void)) -> io::Result<Operation> {
        let raw = NonNull::new(raw).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Operation { raw, release })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: `of` was given the function that belongs to the kind of operation; released once. The calls that send an
        // operation return when it has ended.
        unsafe { (self.release)(self.raw.as_ptr()) };
    }
}

/// Where a read puts its bytes.
pub struct Place {
    bytes: Box<[u8]>,
    read: usize,
    result: c_int,
}

impl Place {
    /// Of this many bytes.
    pub fn new(len: usize) -> Box<Place> {
        Box::new(Place {
            bytes: vec![0; len].into(),
            read: 0,
            result: 0,
        })
    }
}

impl Context {
    /// Makes an object of these bytes.
    pub fn write(&self, name: &CStr, bytes: &[u8]) -> io::Result<()> {
        let op = Operation::write()?;
        // SAFETY: the operation is live; the bytes live across the call, which copies them.
        unsafe {
            c::rados_write_op_write_full(op.raw.as_ptr(), bytes.as_ptr().cast(), bytes.len());
            c::rados_write_op_set_flags(op.raw.as_ptr(), NOCACHE);
        }
        self.send_write(&op, name)
    }

    /// Removes an object.
    pub fn remove(&self, name: &CStr) -> io::Result<()> {
        let op = Operation::write()?;
        // SAFETY: the operation is live.
        unsafe { c::rados_write_op_remove(op.raw.as_ptr()) };
        self.send_write(&op, name)
    }

    fn send_write(&self, op: &Operation, name: &CStr) -> io::Result<()> {
        // SAFETY: operation and context are live (rule 1), the name lives across the call; no time is given.
        check(unsafe {
            let time = ptr::null_mut();
            c::rados_write_op_operate(op.raw.as_ptr(), self.raw, name.as_ptr(), time, FULL_TRY)
        })
    }

    /// Reads `len` bytes from `offset` on, no more than the place has room for, and gives the place back.
    pub fn read(
        &self,
        name: &CStr,
        offset: u64,
        len: usize,
        place: Box<Place>,
    ) -> io::Result<Box<Place>> {
        let op = Operation::read()?;
        let len = len.min(place.bytes.len());
        let place = Box::into_raw(place);
        // SAFETY: the operation is live. What it is to write to is `place`, which is nobody else's until the operation has
        // ended well (rule 2), and whose bytes are `len` at least.
        let sent = check(unsafe {
            c::rados_read_op_read(
                op.raw.as_ptr(),
                offset,
                len,
                (*place).bytes.as_mut_ptr().cast(),
                &raw mut (*place).read,
                &raw mut (*place).result,
            );
            c::rados_read_op_set_flags(op.raw.as_ptr(), NOCACHE);
            c::rados_read_op_operate(op.raw.as_ptr(), self.raw, name.as_ptr(), 0)
        });
        sent?;
        // SAFETY: rule 2: the operation has ended, so the place is ours again, as `into_raw` made it.
        let place = unsafe { Box::from_raw(place) };
        check(place.result)?;
        if place.read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(place)
    }
}
