//! Calls that open files, and the whole paths of names.

use super::super::lines::Bad;
use super::args::{self, Call, Descriptor};
use super::{Meaning, Strace, table};
use crate::trace::{Op, normal_path};

impl Strace {
    /// Number of the descriptor, and the name that its file goes by; none for sockets, pipes and devices.
    pub(super) fn file(&self, descriptor: Descriptor) -> Option<(i64, String)> {
        let (fd, path) = descriptor.into_file()?;
        Some((fd, self.links.file(path)))
    }

    /// `link` and `symlink`, which make further names: no operation of a trace.
    pub(super) fn link(&mut self, pid: u32, text: &str, call: &Call) -> Result<(), Bad> {
        let at = call.name.ends_with("at");
        if call.name.starts_with("symlink") {
            let target = args::quoted(call.argument(text, 0)?);
            let name = self.name(pid, text, call, at.then_some(1), 1 + usize::from(at))?;
            let target =
                target.ok_or_else(|| Bad::at(text, text, "no whole path (strace -s 4096)"))?;
            self.links.symlink(&target, &name);
            return Ok(());
        }
        let from = self.name(pid, text, call, at.then_some(0), usize::from(at))?;
        if from.starts_with("/proc/") {
            // A file without a name gets one.
            return Err(Bad::at(text, call.name, "call that is not followed"));
        }
        let to = self.name(pid, text, call, at.then_some(2), if at { 3 } else { 1 })?;
        self.links.link(&from, &to);
        Ok(())
    }

    /// What the end of a name means: nothing for a further name, and for the first of several a rename to the next.
    pub(super) fn unlink(&mut self, name: &str, failed: bool) -> Option<Meaning> {
        if failed {
            return Some(Meaning::of(Op::FileUnlink, name));
        }
        if self.links.is_further(name) {
            self.links.forget(name);
            return None;
        }
        let meaning = self.give_up(name);
        self.tables.forget(name);
        Some(meaning.unwrap_or_else(|| Meaning::of(Op::FileUnlink, name)))
    }

    /// The rename that keeps a file which loses `name` and has another.
    fn give_up(&mut self, name: &str) -> Option<Meaning> {
        let next = self.links.next_name(name)?;
        self.tables.rename(name, &next);
        let mut meaning = Meaning::of(Op::FileRename, name);
        meaning.path2 = Some(normal_path(&next));
        Some(meaning)
    }

    /// What a rename means: two operations where another name keeps what is replaced.
    pub(super) fn rename(
        &mut self,
        pid: u32,
        text: &str,
        call: &Call,
    ) -> Result<[Option<Meaning>; 2], Bad> {
        let at = call.name != "rename";
        let from = self.name(pid, text, call, at.then_some(0), usize::from(at))?;
        let to = self.name(pid, text, call, at.then_some(2), if at { 3 } else { 1 })?;
        let mut meaning = Meaning::of(Op::FileRename, &from);
        meaning.path2 = Some(normal_path(&to));
        if call.error.is_some() {
            return Ok([Some(meaning), None]);
        }
        if text.contains("RENAME_EXCHANGE") {
            return Err(Bad::at(text, call.name, "exchange of two names"));
        }
        // The kernel leaves two names of one file as they are.
        if self.links.same(&from, &to) {
            return Ok([None, None]);
        }
        if self.links.is_further(&from) {
            let replaced = match self.links.is_further(&to) {
                true => None,
                false if self.tables.size(&to).is_some() => self.unlink(&to, false),
                false => self.give_up(&to),
            };
            self.links.rename(&from, &to);
            return Ok([replaced, None]);
        }
        let kept = match self.links.is_further(&to) {
            true => None,
            false => self.give_up(&to),
        };
        self.links.rename(&from, &to);
        self.tables.rename(&from, &to);
        Ok(match kept {
            Some(kept) => [Some(kept), Some(meaning)],
            None => [Some(meaning), None],
        })
    }

    pub(super) fn open(
        &mut self,
        pid: u32,
        text: &str,
        call: &Call,
    ) -> Result<Option<Meaning>, Bad> {
        let at = matches!(call.name, "openat" | "openat2");
        let named = self.path(pid, text, call, at.then_some(0), usize::from(at))?;
        let flags = match call.name {
            "creat" => "O_WRONLY|O_CREAT|O_TRUNC",
            _ => call.argument(text, usize::from(at) + 1)?,
        };
        if call.error.is_some() {
            return Ok(Some(Meaning::of(Op::FileOpen, &named)));
        }
        let result = Descriptor::parse(call.result);
        let Some((fd, path)) = result.and_then(|d| self.file(d)) else {
            return Ok(None);
        };
        let directory = flags.contains("O_DIRECTORY");
        // Without the directory's listing nobody knows whether O_CREAT found the file: it is made when it is not
        // known from before, or must be new.
        let creates = flags.contains("O_CREAT")
            && (flags.contains("O_EXCL") || self.tables.size(&path).is_none());
        let truncates = flags.contains("O_TRUNC");
        if creates || truncates {
            self.tables.resize(&path, 0);
        }
        self.tables.open(pid, fd, flags.contains("O_APPEND"));
        let op = if directory {
            Op::FileOpendir
        } else if creates || truncates {
            Op::FileCreate
        } else {
            Op::FileOpen
        };
        Ok(Some(Meaning::of(op, &path)))
    }

    /// The name that what argument `index` leads to goes by.
    pub(super) fn path(
        &self,
        pid: u32,
        text: &str,
        call: &Call,
        dirfd: Option<usize>,
        index: usize,
    ) -> Result<String, Bad> {
        let name = self.name(pid, text, call, dirfd, index)?;
        Ok(self.links.file(name))
    }

    /// The absolute path at argument `index`, relative to the descriptor at `dirfd` or the working directory.
    pub(super) fn name(
        &self,
        pid: u32,
        text: &str,
        call: &Call,
        dirfd: Option<usize>,
        index: usize,
    ) -> Result<String, Bad> {
        let argument = call.argument(text, index)?;
        let path = args::quoted(argument)
            .ok_or_else(|| Bad::at(text, argument, "no whole path (strace -s 4096)"))?;
        if path.starts_with('/') {
            return Ok(table::resolve("", &path));
        }
        let base = match dirfd {
            Some(dirfd) => Descriptor::parse(call.argument(text, dirfd)?).and_then(|d| d.path),
            None => self.tables.cwd(pid),
        };
        let base = base.ok_or_else(|| {
            Bad::at(
                text,
                argument,
                "relative path, directory not known (strace -yy)",
            )
        })?;
        if path.is_empty() {
            return Ok(base);
        }
        Ok(table::resolve(&base, &path))
    }
}
