//! Logs of `strace -f -ttt -T -yy`.
//!
//! Real lines: `28543 1795451877.975746 openat(AT_FDCWD</tmp/f5>, "a", O_RDONLY) = 3</tmp/f5/a> <0.000024>`, and in two
//! halves `28543 1795451877.976089 read(3</tmp/f5/a>,  <unfinished ...>`, `28543 … <... read resumed>"hi\n", 4096) = 3
//! <0.000020>`. Paths of descriptors are what strace printed (`-yy`); offsets are followed here, shared by descriptors
//! that were duplicated or inherited, as in the kernel. An operation's place in the output is where its call ended.

mod args;
mod copy;
mod links;
mod live;
mod names;
mod table;

use super::lines::{Bad, LineFormat};
use crate::trace::{Entry, Level, Op, Outcome, is_beneath, normal_path};
use args::{Call, Descriptor};
use links::Links;
pub use live::CALLS;
use std::collections::HashMap;
use std::sync::Arc;
use table::Tables;

/// Halves of calls that are remembered; one per thread is what there can be.
const MAX_UNFINISHED: usize = 1 << 16;

/// Reads a log of one or many processes.
#[derive(Default)]
pub struct Strace {
    first_us: Option<i64>,
    unfinished: HashMap<u32, (i64, String)>,
    tables: Tables,
    links: Links,
    /// The second operation of the last call, where it had two.
    second: Option<Entry>,
    /// Where mappings of files matter; nothing: everywhere.
    within: Vec<String>,
}

impl Strace {
    /// Tells of mappings of files beneath these directories only.
    pub fn beneath(within: &[String]) -> Strace {
        Strace {
            within: within.to_vec(),
            ..Strace::default()
        }
    }
}

impl LineFormat for Strace {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        let (pid, rest) = pid(line);
        let (time, rest) = rest
            .split_once(' ')
            .ok_or_else(|| Bad::at(line, rest, "no time (strace -ttt) in front"))?;
        let at =
            micros(time).ok_or_else(|| Bad::at(line, time, "no time (strace -ttt) in front"))?;
        let rest = rest.trim_start();
        if rest.starts_with("---") || rest.starts_with("+++") {
            if rest.starts_with("+++") {
                self.unfinished.remove(&pid);
                self.tables.exit(pid);
            }
            return Ok(None);
        }
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            if self.unfinished.len() < MAX_UNFINISHED {
                if ["clone", "fork", "vfork"]
                    .iter()
                    .any(|name| begin.starts_with(name))
                {
                    self.tables.begin_fork(pid, begin.contains("CLONE_FILES"));
                }
                self.unfinished.insert(pid, (at, begin.to_string()));
                return Ok(None);
            }
            return Err(Bad::at(line, rest, "too many unfinished calls"));
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, end)) = resumed.split_once(" resumed>") else {
                return Err(Bad::at(line, rest, "neither a call nor the end of one"));
            };
            let Some((began, begin)) = self.unfinished.remove(&pid) else {
                return Err(Bad::at(line, rest, "end of a call without its begin"));
            };
            if !begin.starts_with(name) {
                return Err(Bad::at(line, rest, "end of another call than was begun"));
            }
            let whole = format!("{begin}{end}");
            // The place in a line that was put together would mislead: the resumed part is named.
            return self
                .call(pid, began, &whole)
                .map_err(|bad| Bad { column: 1, ..bad });
        }
        let offset = rest.as_ptr() as usize - line.as_ptr() as usize;
        self.call(pid, at, rest).map_err(|bad| Bad {
            column: bad.column + offset,
            ..bad
        })
    }

    fn second(&mut self) -> Option<Entry> {
        self.second.take()
    }

    fn leftover(&mut self) -> Vec<Bad> {
        let mut left: Vec<_> = self.unfinished.drain().collect();
        left.sort();
        left.into_iter()
            .map(|(pid, (_, begin))| Bad {
                column: 1,
                kind: "call that never ended",
                detail: format!("{pid} {}", begin.chars().take(60).collect::<String>()),
            })
            .collect()
    }
}

/// Whether this looks like a line of such a log: a process, a time in microseconds, and a call. So does one without that
/// time, of whose lines it is said then that they lack it.
pub fn is_strace(line: &str) -> bool {
    let (_, rest) = pid(line);
    rest.split_once(' ').is_some_and(|(time, after)| {
        let call = after.contains('(') || after.starts_with(['-', '+', '<']);
        let timed = time.len() > 15 && micros(time).is_some() && call;
        timed || is_call(rest) || is_call(after)
    })
}

/// `brk(NULL) = 0x5625de3c8000`.
fn is_call(text: &str) -> bool {
    text.split_once('(').is_some_and(|(name, rest)| {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty() && name.chars().all(letter) && rest.contains(" = ")
    })
}

/// The process in front: `28543 `, `[pid 28543] `, or none with a single process.
fn pid(line: &str) -> (u32, &str) {
    if let Some(rest) = line.strip_prefix("[pid")
        && let Some((pid, rest)) = rest.split_once(']')
        && let Ok(pid) = pid.trim().parse()
    {
        return (pid, rest.trim_start());
    }
    match line.split_once(' ') {
        Some((pid, rest)) => match pid.parse() {
            Ok(pid) => (pid, rest.trim_start()),
            Err(_) => (0, line),
        },
        None => (0, line),
    }
}

/// Seconds with a fraction, as whole microseconds.
fn micros(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = fraction.len();
    if digits == 0 || digits > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = fraction.parse().ok()?;
    let micros = fraction * 10_i64.pow(9 - digits as u32) / 1000;
    seconds
        .parse::<i64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(micros)
}

/// The size in a `stat` of a plain file: `{st_mode=S_IFREG|0644, st_size=12, ...}`.
fn shown_size(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once("S_IFREG")?;
    let (_, size) = rest.split_once("_size=")?;
    size.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// What a call means, before it is dated.
struct Meaning {
    op: Op,
    path: Arc<str>,
    path2: Option<Arc<str>>,
    offset: u64,
    length: u64,
}

impl Meaning {
    fn of(op: Op, path: &str) -> Meaning {
        Meaning {
            op,
            path: normal_path(path),
            path2: None,
            offset: 0,
            length: 0,
        }
    }
}

impl Strace {
    /// Where a file ends, as far as the call shows it: that is where appends go.
    fn learn_size(&mut self, pid: u32, text: &str, call: &Call) {
        let named = |index: usize, dirfd: Option<usize>| self.path(pid, text, call, dirfd, index);
        let held = || {
            let file = call.descriptor(text, 0).ok().and_then(|d| self.file(d));
            file.map(|(_, path)| path)
        };
        let (path, size) = match call.name {
            "lseek" => {
                let at_end = matches!(call.argument(text, 1), Ok("0"))
                    && matches!(call.argument(text, 2), Ok("SEEK_END"));
                (
                    held(),
                    at_end.then(|| call.result_number(text).ok()).flatten(),
                )
            }
            "fstat" => (held(), shown_size(text)),
            "stat" => (named(0, None).ok(), shown_size(text)),
            "newfstatat" | "statx" if text.contains("AT_EMPTY_PATH") => (held(), shown_size(text)),
            "newfstatat" | "statx" => (named(1, Some(0)).ok(), shown_size(text)),
            _ => return,
        };
        // What is known may be less: where writes have ended so far. More than what is shown was written meanwhile.
        if let (Some(path), Some(size)) = (path, size) {
            self.tables.grow(&path, size.unsigned_abs());
        }
    }

    fn call(&mut self, pid: u32, at: i64, text: &str) -> Result<Option<Entry>, Bad> {
        let call = Call::parse(text)?;
        let first = *self.first_us.get_or_insert(at);
        if call.name == "getcwd" && call.error.is_none() {
            if let Some(cwd) = args::quoted(call.argument(text, 0)?) {
                self.tables.chdir(pid, &cwd);
            }
        } else if let Some(Descriptor {
            fd: -100,
            path: Some(cwd),
        }) = call.argument(text, 0).ok().and_then(Descriptor::parse)
        {
            self.tables.chdir(pid, &cwd);
        }
        if call.error.is_none() {
            self.learn_size(pid, text, &call);
        }
        let outcome = match &call.error {
            Some(name) => Outcome::Errno(Arc::from(*name)),
            None => Outcome::Ok,
        };
        let (meaning, second) = match call.name {
            "sendfile" | "sendfile64" | "copy_file_range" | "splice" => {
                match self.copy(pid, text, &call)? {
                    [Some(read), write] => (Some(read), write),
                    [None, write] => (write, None),
                }
            }
            "rename" | "renameat" | "renameat2" => match self.rename(pid, text, &call)? {
                [first, second] => (first, second),
            },
            _ => (self.meaning(pid, text, &call)?, None),
        };
        let took = call.took.and_then(micros).unwrap_or(0).unsigned_abs();
        let entry = |meaning: Meaning, latency_us| {
            super::check_end(meaning.op, meaning.offset, meaning.length)
                .map_err(|why| Bad::at(text, text, why))?;
            Ok(Entry {
                thread: pid.to_string().into(),
                path2: meaning.path2,
                offset: meaning.offset,
                length: meaning.length,
                latency_us,
                outcome: outcome.clone(),
                ..Entry::new(
                    at.saturating_sub(first),
                    Arc::from("strace"),
                    meaning.op,
                    meaning.path,
                )
            })
        };
        // The call's time counts once: with the write, when there is one.
        let first_took = if second.is_some() { 0 } else { took };
        self.second = second.map(|write| entry(write, took)).transpose()?;
        meaning.map(|m| entry(m, first_took)).transpose()
    }

    fn meaning(&mut self, pid: u32, text: &str, call: &Call) -> Result<Option<Meaning>, Bad> {
        let failed = call.error.is_some();
        let number = |index: usize| call.number(text, index);
        Ok(match call.name {
            "open" | "openat" | "creat" | "openat2" => self.open(pid, text, call)?,
            "close" => {
                let Some(file) = self.file(call.descriptor(text, 0)?) else {
                    return Ok(None);
                };
                let (fd, path) = file;
                if !failed {
                    self.tables.close(pid, fd);
                }
                Some(Meaning::of(Op::FileClose, &path))
            }
            "dup" | "dup2" | "dup3" | "fcntl" => {
                let copies = call.name != "fcntl" || call.argument(text, 1)?.starts_with("F_DUPFD");
                if copies && !failed {
                    let (from, to) = (call.descriptor(text, 0)?, call.result_number(text)?);
                    self.tables.duplicate(pid, from.fd, to);
                    // What `to` was before is closed.
                    let replaces = matches!(call.name, "dup2" | "dup3") && from.fd != to;
                    if replaces && let Some((_, path)) = self.file(call.descriptor(text, 1)?) {
                        return Ok(Some(Meaning::of(Op::FileClose, &path)));
                    }
                    return Ok(None);
                }
                let locks = call.name == "fcntl" && call.argument(text, 1)?.contains("LK");
                match self.file(call.descriptor(text, 0)?) {
                    Some((_, path)) if locks => Some(Meaning::of(Op::FileLock, &path)),
                    _ => None,
                }
            }
            "fork" | "vfork" | "clone" | "clone3" if !failed => {
                let threads = text.contains("CLONE_FILES");
                let child = call.result_number(text)?;
                self.tables.fork(pid, child.unsigned_abs() as u32, threads);
                None
            }
            "read" | "write" | "readv" | "writev" | "pread64" | "pwrite64" | "preadv"
            | "pwritev" | "preadv2" | "pwritev2" => {
                let descriptor = call.descriptor(text, 0)?;
                let Some((fd, path)) = self.file(descriptor) else {
                    return Ok(None);
                };
                let op = if call.name.contains("read") {
                    Op::FileRead
                } else {
                    Op::FileWrite
                };
                let mut meaning = Meaning::of(op, &path);
                meaning.length = if failed {
                    0
                } else {
                    call.result_number(text)?.unsigned_abs()
                };
                let explicit = match call.name {
                    "read" | "write" | "readv" | "writev" => None,
                    // `preadv2` with -1 uses the descriptor's own offset.
                    _ => u64::try_from(number(3)?).ok(),
                };
                meaning.offset = match explicit {
                    Some(offset) => offset,
                    None => self.tables.advance(pid, fd, &path, op, meaning.length),
                };
                if op == Op::FileWrite {
                    self.tables.grow(&path, meaning.offset + meaning.length);
                }
                Some(meaning)
            }
            "lseek" => {
                if !failed && let Some((fd, _)) = self.file(call.descriptor(text, 0)?) {
                    let to = call.result_number(text)?.unsigned_abs();
                    self.tables.seek(pid, fd, to);
                }
                None
            }
            "fsync" | "fdatasync" | "sync_file_range" | "flock" => {
                let op = if call.name == "flock" {
                    Op::FileLock
                } else {
                    Op::FileSync
                };
                let file = call.descriptor(text, 0)?;
                self.file(file).map(|(_, path)| Meaning::of(op, &path))
            }
            "ftruncate" | "ftruncate64" | "truncate" | "truncate64" => {
                let path = if call.name.starts_with('f') {
                    match self.file(call.descriptor(text, 0)?) {
                        Some((_, path)) => path,
                        None => return Ok(None),
                    }
                } else {
                    self.path(pid, text, call, None, 0)?
                };
                let mut meaning = Meaning::of(Op::FileTruncate, &path);
                meaning.length = number(1)?.unsigned_abs();
                if !failed {
                    self.tables.resize(&path, meaning.length);
                }
                Some(meaning)
            }
            "fallocate" => {
                let Some((_, path)) = self.file(call.descriptor(text, 0)?) else {
                    return Ok(None);
                };
                if call.argument(text, 1)? != "0" || failed {
                    return Err(Bad::at(
                        text,
                        call.argument(text, 1)?,
                        "fallocate that is not plain",
                    ));
                }
                let end = number(2)?
                    .unsigned_abs()
                    .saturating_add(number(3)?.unsigned_abs());
                let Some(size) = self.tables.size(&path) else {
                    return Err(Bad::at(
                        text,
                        text,
                        "fallocate of a file whose size is not known",
                    ));
                };
                if end <= size {
                    return Ok(None);
                }
                let mut meaning = Meaning::of(Op::FileTruncate, &path);
                meaning.length = end;
                self.tables.resize(&path, end);
                Some(meaning)
            }
            "unlink" | "rmdir" | "mkdir" | "unlinkat" | "mkdirat" | "stat" | "lstat" | "access"
            | "newfstatat" | "statx" | "faccessat" | "faccessat2" => {
                let at = call.name.contains("at") && !matches!(call.name, "stat" | "lstat");
                let op = match call.name {
                    "unlinkat" if text.contains("AT_REMOVEDIR") => Op::FileRmdir,
                    "unlink" | "unlinkat" => Op::FileUnlink,
                    "rmdir" => Op::FileRmdir,
                    "mkdir" | "mkdirat" => Op::FileMkdir,
                    _ => Op::FileStat,
                };
                let (dirfd, index) = (at.then_some(0), usize::from(at));
                if op == Op::FileUnlink {
                    let name = self.name(pid, text, call, dirfd, index)?;
                    return Ok(self.unlink(&name, failed));
                }
                let nofollow = call.name == "lstat" || text.contains("AT_SYMLINK_NOFOLLOW");
                if nofollow && !failed {
                    let name = self.name(pid, text, call, dirfd, index)?;
                    if self.links.is_symbolic(&name) {
                        return Ok(None);
                    }
                }
                let path = self.path(pid, text, call, dirfd, index)?;
                Some(Meaning::of(op, &path))
            }
            "fstat" | "getdents" | "getdents64" | "fstatfs" => {
                let op = match call.name {
                    "fstat" => Op::FileStat,
                    "fstatfs" => Op::FileStatfs,
                    _ => Op::FileList,
                };
                let file = call.descriptor(text, 0)?;
                self.file(file).map(|(_, path)| Meaning::of(op, &path))
            }
            "chdir" if !failed => {
                let to = self.path(pid, text, call, None, 0)?;
                self.tables.chdir(pid, &to);
                None
            }
            "fchdir" if !failed => {
                if let Some((_, path)) = call.descriptor(text, 0)?.into_file() {
                    self.tables.chdir(pid, &path);
                }
                None
            }
            "mmap" | "mmap2" => {
                let mapped = call.descriptor(text, 4).ok().and_then(|d| self.file(d));
                let matters =
                    |(_, path): (i64, String)| is_beneath(&normal_path(&path), &self.within);
                if !failed && mapped.is_some_and(matters) {
                    return Err(Bad::at(
                        text,
                        call.argument(text, 4)?,
                        "mmap (its reads and writes are unseen)",
                    ));
                }
                None
            }
            "link" | "linkat" | "symlink" | "symlinkat" => {
                if !failed {
                    self.link(pid, text, call)?;
                }
                None
            }
            "io_uring_enter" | "io_submit" if !failed => {
                return Err(Bad::at(text, call.name, "call that is not followed"));
            }
            _ => None,
        })
    }
}
