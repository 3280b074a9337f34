//! Calls that open files, and the whole paths of names.

use super::super::lines::Bad;
use super::args::{self, Call, Descriptor};
use super::{Meaning, Strace, table};
use crate::trace::Op;

impl Strace {
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
        let Some((fd, path)) = result.and_then(Descriptor::into_file) else {
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

    /// The absolute path at argument `index`, relative to the descriptor at `dirfd` or the working directory.
    pub(super) fn path(
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
