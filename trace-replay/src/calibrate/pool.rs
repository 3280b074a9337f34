//! A Ceph pool as what is measured: objects of its own names, read past the OSDs' caches.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::rados::{Cluster, Context, Place};
use super::{Ceph, LARGE, Medium, Stop, mib};
use crate::content::fill;

/// Longest wait for a monitor, seconds.
const CONNECT_SECONDS: u64 = 10;
/// Longest wait for an answer, seconds.
const ANSWER_SECONDS: u64 = 30;
/// Objects that are written, or removed, at once: as many as the gateway has of one upload.
const AT_ONCE: usize = 8;

/// The pool, and the objects that were made in it.
pub struct Pool {
    context: Context,
    about: About,
    /// What all names begin with, and nobody else's.
    prefix: String,
    objects: u64,
    /// Which of them may be there.
    there: Mutex<BTreeSet<u64>>,
}

impl Pool {
    /// Connects. Nothing is written yet; `size` is a multiple of [`LARGE`].
    ///
    /// # Errors
    /// All that can be wrong with the cluster or its settings, and which were used.
    pub fn open(options: &Ceph, pool: &str, size: u64) -> anyhow::Result<Pool> {
        let (context, about) = connect(options, pool)?;
        let mut id = [0; 8];
        getrandom(&mut id, GetRandomFlags::empty()).context("no random name for the objects")?;
        Ok(Pool {
            context,
            about,
            // The gateway's objects have hexadecimal names: it calls these foreign and leaves them alone.
            prefix: format!("trace-replay.calibrate.{:016x}.", u64::from_le_bytes(id)),
            objects: size / LARGE as u64,
            there: Mutex::default(),
        })
    }

    fn name(&self, index: u64) -> CString {
        // Never a NUL.
        CString::new(format!("{}{index:08x}", self.prefix)).unwrap_or_default()
    }

    /// Writes the objects, with bytes that nothing can compress; answers with the rate, MiB per second.
    pub fn write(&self, stop: Stop) -> anyhow::Result<f64> {
        let (begin, next) = (Instant::now(), AtomicU64::new(0));
        on_threads(|| {
            let (mut block, next) = (vec![0; LARGE], &next);
            move || {
                super::go_on(stop)?;
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.objects {
                    return Ok(false);
                }
                fill(0, index * LARGE as u64, &mut block);
                lock(&self.there).insert(index);
                let written = self.context.write(&self.name(index), &block);
                if written.as_ref().is_err_and(is_refused) {
                    lock(&self.there).remove(&index);
                }
                written.map_err(|e| self.about.failed("cannot write an object", &e))?;
                Ok(true)
            }
        })?;
        Ok(mib(self.objects * LARGE as u64) / begin.elapsed().as_secs_f64())
    }

    /// For reads of what was written.
    pub fn reads(&self) -> Reads<'_> {
        Reads {
            pool: self,
            place: None,
        }
    }

    /// Removes the objects.
    ///
    /// # Errors
    /// How many are left, what they are called, and why. A cluster that does not answer is not asked again.
    pub fn remove(&self) -> anyhow::Result<()> {
        let indices: Vec<u64> = lock(&self.there).iter().copied().collect();
        let next = AtomicUsize::new(0);
        let removed = on_threads(|| {
            || {
                let Some(index) = indices.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return Ok(false);
                };
                match self.context.remove(&self.name(*index)) {
                    Err(e) if Errno::from_io_error(&e) != Some(Errno::NOENT) => {
                        return Err(self.about.failed("cannot remove an object", &e));
                    }
                    Ok(()) | Err(_) => lock(&self.there).remove(index),
                };
                Ok(true)
            }
        });
        removed.with_context(|| {
            let (left, prefix) = (lock(&self.there).len(), &self.prefix);
            format!(
                "up to {left} objects whose names begin with {prefix} are left in {}",
                self.about.place
            )
        })
    }
}

/// The set, which no thread leaves half changed.
fn lock(set: &Mutex<BTreeSet<u64>>) -> MutexGuard<'_, BTreeSet<u64>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_refused(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::ACCESS | Errno::PERM))
}

/// Calls what `make` makes on each of [`AT_ONCE`] threads, until it answers `false` or fails on one of them; the first error
/// is the answer.
fn on_threads<F: FnMut() -> anyhow::Result<bool>>(
    make: impl Fn() -> F + Sync,
) -> anyhow::Result<()> {
    let failed = AtomicBool::new(false);
    let first = Mutex::new(Ok(()));
    let fail = |e: anyhow::Error| {
        failed.store(true, Ordering::Relaxed);
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_ok() {
            *first = Err(e);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let work = || {
                let mut step = make();
                while !failed.load(Ordering::Relaxed) {
                    match step() {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(e) => fail(e),
                    }
                }
            };
            if let Err(e) = thread::Builder::new().spawn_scoped(scope, work) {
                fail(anyhow::Error::new(e).context("no thread"));
            }
        }
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Reads of the objects, one at a time.
pub struct Reads<'a> {
    pool: &'a Pool,
    /// Room for an object, while none is read.
    place: Option<Box<Place>>,
}

impl Medium for Reads<'_> {
    fn bytes(&self) -> u64 {
        self.pool.objects * LARGE as u64
    }

    fn direct(&self) -> bool {
        true
    }

    fn begin(&mut self) {}

    fn read(&mut self, at: u64, len: usize) -> anyhow::Result<()> {
        let place = self.place.take().unwrap_or_else(|| Place::new(LARGE));
        let (index, offset) = (at / LARGE as u64, at % LARGE as u64);
        let name = self.pool.name(index);
        let read = self.pool.context.read(&name, offset, len, place);
        self.place =
            Some(read.map_err(|e| self.pool.about.failed("cannot read an object back", &e))?);
        Ok(())
    }
}

fn connect(options: &Ceph, pool: &str) -> anyhow::Result<(Context, About)> {
    let conf = options.ceph_conf.display();
    // librados says EINVAL for all that can be wrong with it.
    std::fs::File::open(&options.ceph_conf).with_context(|| format!("--ceph-conf {conf}"))?;
    let path = options
        .ceph_conf
        .to_str()
        .with_context(|| format!("--ceph-conf {conf}: not UTF-8"))?;
    let prepare = || -> io::Result<Cluster> {
        let cluster = Cluster::new(&options.ceph_user, path)?;
        cluster.set("client_mount_timeout", &CONNECT_SECONDS.to_string())?;
        cluster.set("rados_mon_op_timeout", &ANSWER_SECONDS.to_string())?;
        cluster.set("rados_osd_op_timeout", &ANSWER_SECONDS.to_string())?;
        Ok(cluster)
    };
    let cluster = prepare()
        .with_context(|| format!("--ceph-conf {conf}: the configuration file is not understood"))?;
    let about = About::of(&cluster, options, pool);
    cluster
        .connect()
        .map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::NOENT) => {
                about.said(&format!("cannot connect: no key for this user ({e})"))
            }
            _ => about.failed("cannot connect", &e),
        })?;
    let context = Arc::new(cluster)
        .context(pool, &options.ceph_namespace)
        .map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::NOENT) => about.said(&format!("there is no pool {pool:?} ({e})")),
            _ => about.failed(&format!("cannot open pool {pool:?}"), &e),
        })?;
    Ok((context, about))
}

/// What was asked for, for an error's text.
struct About {
    /// Pool and namespace.
    place: String,
    monitors: String,
    keyring: String,
    conf: String,
    user: String,
}

impl About {
    fn of(cluster: &Cluster, options: &Ceph, pool: &str) -> About {
        let setting = |key| match cluster.setting(key) {
            Ok(value) if !value.is_empty() => value,
            Ok(_) | Err(_) => "not set".to_owned(),
        };
        About {
            place: format!("pool {pool}, namespace {}", options.ceph_namespace),
            monitors: setting("mon_host"),
            keyring: setting("keyring"),
            conf: options.ceph_conf.display().to_string(),
            user: options.ceph_user.clone(),
        }
    }

    fn failed(&self, what: &str, e: &io::Error) -> anyhow::Error {
        let hint = match Errno::from_io_error(e) {
            _ if is_refused(e) => "the key or its capabilities are not accepted",
            Some(Errno::TIMEDOUT) => "no answer",
            Some(Errno::NOTSUP) => "no key for this user, or no common way to authenticate",
            _ => return self.said(&format!("{what}: {e}")),
        };
        self.said(&format!("{what}: {hint} ({e})"))
    }

    fn said(&self, what: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "Ceph: {what}; {}; monitors {} and keyring {} by {}, user {}",
            self.place,
            self.monitors,
            self.keyring,
            self.conf,
            self.user
        )
    }
}
