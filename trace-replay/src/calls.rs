//! Planned calls on a mounted directory: the POSIX side of what [`crate::exchange`] does over HTTP.

use crate::content::Generator;
use crate::exchange::{Done, Failure, Verify};
use crate::plan::{Expect, Kind, NO_HANDLE, Plan, Request};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of one `pread` or `pwrite`; a recorded operation is often several system calls joined.
const CHUNK_BYTES: u64 = 256 << 10;

/// What all workers share.
pub struct Calls {
    plan: Arc<Plan>,
    root: PathBuf,
    seed: u64,
    verify: Verify,
    open: Mutex<HashMap<u32, Arc<File>>>,
}

/// How one call ended.
enum Fault {
    Io(io::Error),
    Content(String),
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        Fault::Io(e)
    }
}

impl Calls {
    /// Calls beneath `root`, which must be there.
    pub fn new(plan: Arc<Plan>, root: &Path, seed: u64, verify: Verify) -> Calls {
        Calls {
            plan,
            root: root.to_path_buf(),
            seed,
            verify,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u32, Arc<File>>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn name(&self, path: u32) -> &str {
        self.plan.paths.get(path as usize).map_or("", |p| p)
    }

    fn path(&self, path: u32) -> PathBuf {
        self.root.join(self.name(path))
    }

    /// `read /path`, as in every message about it.
    pub fn describe(&self, request: &Request) -> String {
        format!("{} /{}", request.kind.name(), self.name(request.path))
    }

    /// Makes the call. `index` is the request's own: the name of the descriptor that an open makes.
    pub fn call(&self, index: u32, request: &Request) -> Done {
        let mut done = Done::default();
        let result = self.attempt(index, request, &mut done.bytes);
        let (errno, message) = match &result {
            Err(Fault::Io(e)) => (e.raw_os_error().unwrap_or(-1), e.to_string()),
            _ => (0, "success".to_string()),
        };
        done.status = u16::try_from(errno).unwrap_or(u16::MAX);
        let expected = match request.expect {
            Expect::Failure(a, b) => done.status == a || done.status == b,
            Expect::Success | Expect::SuccessOrAbsent => errno == 0,
        };
        let name = || self.describe(request);
        done.failure = match result {
            Err(Fault::Content(wrong)) => Some(Failure::Content(format!("{}: {wrong}", name()))),
            _ if expected => None,
            Err(Fault::Io(e)) if e.raw_os_error().is_none() => {
                Some(Failure::Broken(format!("{}: {e}", name())))
            }
            _ => {
                let recorded = match request.expect {
                    Expect::Failure(a, _) => io::Error::from_raw_os_error(i32::from(a)).to_string(),
                    _ => "success".into(),
                };
                Some(Failure::Status(format!(
                    "{}: {message}, expected {recorded} as recorded",
                    name()
                )))
            }
        };
        done
    }

    fn attempt(&self, index: u32, request: &Request, bytes: &mut u64) -> Result<(), Fault> {
        let path = self.path(request.path);
        match request.kind {
            Kind::Create | Kind::Open => {
                let writable = request.writable;
                let file = OpenOptions::new()
                    .read(true)
                    .write(writable)
                    .create_new(request.kind == Kind::Create)
                    .open(path)?;
                self.open().insert(index, Arc::new(file));
            }
            Kind::Read => return self.read(request, bytes),
            Kind::Write => self.write(request, bytes)?,
            Kind::Truncate => OpenOptions::new()
                .write(true)
                .open(path)?
                .set_len(request.length)?,
            Kind::Fsync => self.file(request, false)?.sync_all()?,
            Kind::Close => {
                // No request uses a descriptor while it is closed (plan/order.rs), so this is the last reference;
                // `close` itself says what a network file system could not send.
                let file = self.open().remove(&request.handle);
                if let Some(file) = file.and_then(Arc::into_inner) {
                    close(file)?;
                }
            }
            Kind::Rename => std::fs::rename(path, self.path(request.path2))?,
            Kind::Unlink => std::fs::remove_file(path)?,
            Kind::Mkdir => std::fs::create_dir(path)?,
            Kind::Rmdir => std::fs::remove_dir(path)?,
            Kind::Stat => _ = std::fs::symlink_metadata(path)?,
            Kind::List => {
                for entry in std::fs::read_dir(path)? {
                    entry?;
                }
            }
            other => {
                return Err(io::Error::other(format!("{} is no call", other.name())).into());
            }
        }
        Ok(())
    }

    /// The request's descriptor, or one of its own.
    fn file(&self, request: &Request, create: bool) -> io::Result<Arc<File>> {
        if request.handle != NO_HANDLE {
            return self.open().get(&request.handle).cloned().ok_or_else(|| {
                io::Error::other("the open that this descriptor comes from failed")
            });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(request.writable)
            .create_new(create)
            .open(self.path(request.path))?;
        Ok(Arc::new(file))
    }

    fn generator(&self) -> Generator<'_> {
        Generator {
            seed: self.seed,
            paths: &self.plan.paths,
        }
    }

    fn write(&self, request: &Request, bytes: &mut u64) -> io::Result<()> {
        let content = request
            .content
            .and_then(|c| self.plan.contents.get(c as usize))
            .ok_or_else(|| io::Error::other("nothing to write"))?;
        let file = self.file(request, request.creates)?;
        let end = request.offset + request.length;
        let mut buffer = vec![0; CHUNK_BYTES.min(request.length) as usize];
        let mut at = request.offset;
        while at < end {
            let len = CHUNK_BYTES.min(end - at);
            let chunk = &mut buffer[..len as usize];
            self.generator().fill(content, at, chunk);
            file.write_all_at(chunk, at)?;
            at += len;
            *bytes += len;
        }
        match Arc::into_inner(file) {
            Some(own) if request.handle == NO_HANDLE => close(own),
            _ => Ok(()),
        }
    }

    fn read(&self, request: &Request, bytes: &mut u64) -> Result<(), Fault> {
        let content = request
            .content
            .and_then(|c| self.plan.contents.get(c as usize))
            .ok_or_else(|| io::Error::other("nothing is known of the content"))?;
        let file = self.file(request, false)?;
        let end = request.offset + request.length;
        let mut buffer = vec![0; CHUNK_BYTES.min(request.length) as usize];
        let mut at = request.offset;
        while at < end {
            let want = CHUNK_BYTES.min(end - at) as usize;
            let got = match file.read_at(&mut buffer[..want], at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                got => got?,
            };
            if got == 0 {
                return Err(Fault::Content(format!(
                    "the file ends at offset {at}, expected {}",
                    content.len()
                )));
            }
            if self.verify != Verify::Lengths {
                self.generator()
                    .check(content, at, &buffer[..got])
                    .map_err(|wrong| {
                        let expected = wrong.expected.map_or("the end of the file".into(), |o| {
                            format!("version {} of /{}", o.version, self.name(o.path))
                        });
                        Fault::Content(format!(
                            "differs at offset {}: expected {expected}, found {}",
                            wrong.offset, wrong.found
                        ))
                    })?;
            }
            at += got as u64;
            *bytes += got as u64;
        }
        // Only the read back at the end asks for the whole file on its own: its length must be right, too.
        if request.handle == NO_HANDLE && request.offset == 0 && request.length == content.len() {
            let len = file.metadata()?.len();
            if len != content.len() {
                return Err(Fault::Content(format!(
                    "{len} bytes, expected {}",
                    content.len()
                )));
            }
        }
        Ok(())
    }
}

/// Closes and tells the error that dropping would hide: davfs2 and NFS report failed uploads here.
fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file).map_err(io::Error::from)
}

/// Applications hold many files open, and each of many clients a connection: the soft limit is raised to the hard one.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where this is refused, opens past the limit fail and are reported one by one.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Makes the directory beneath which everything happens, and its parents; it must be empty.
pub fn make_root(root: &Path) -> Result<(), String> {
    std::fs::create_dir_all(root).map_err(|e| format!("dir:{}: {e}", root.display()))?;
    match std::fs::read_dir(root).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!(
            "dir:{}: not empty; name a new directory, for example with --prefix",
            root.display()
        )),
        Err(e) => Err(format!("dir:{}: {e}", root.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::plan::{Settings, Shape, plan_with};
    use crate::read::CsvReader;

    #[test]
    fn a_changed_byte_is_named_by_path_and_offset_and_a_lost_tail_too() {
        let text = "ts_us,client,op,path,offset,length,result\n1,c,write,f,0,5000,ok\n2,c,read,f,10,4000,ok\n";
        let settings = Settings {
            shape: Shape::Calls,
            ..Settings::default()
        };
        let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
        let plan = Arc::new(plan_with(&mut reader, &settings).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"").unwrap();
        let calls = Calls::new(plan.clone(), dir.path(), 7, Verify::All);
        assert!(calls.call(0, &plan.requests[0]).failure.is_none());
        assert!(calls.call(1, &plan.requests[1]).failure.is_none());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1234] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let failure = |verify| {
            let calls = Calls::new(plan.clone(), dir.path(), 7, verify);
            calls.call(1, &plan.requests[1]).failure
        };
        let Some(Failure::Content(text)) = failure(Verify::All) else {
            panic!("not noticed");
        };
        assert!(
            text.starts_with("read /f: differs at offset 1234: expected version 1 of /f"),
            "{text}"
        );
        assert!(failure(Verify::Lengths).is_none());
        std::fs::write(&path, &bytes[..100]).unwrap();
        let Some(Failure::Content(text)) = failure(Verify::Lengths) else {
            panic!("not noticed");
        };
        assert!(text.contains("the file ends at offset 100"), "{text}");
    }
}
