//! Reading what strace says while it runs: what it must be told, and what processes had open before.

use super::Strace;
use std::io;
use std::path::Path;

/// The system calls that the reader understands or counts.
pub const CALLS: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "creat",
    "close",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "lseek",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "flock",
    "ftruncate",
    "truncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "getdents",
    "getdents64",
    "fstatfs",
    "chdir",
    "fchdir",
    "getcwd",
    "mmap",
    "copy_file_range",
    "sendfile",
    "splice",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "io_uring_enter",
    "io_submit",
];

/// `O_APPEND` as `/proc/PID/fdinfo` prints it.
const APPEND: u64 = 0o2000;

impl Strace {
    /// Learns the descriptors, offsets, sizes and working directory of a process that already runs.
    ///
    /// # Errors
    /// When the process is gone or belongs to somebody else.
    pub fn attach(&mut self, pid: u32) -> io::Result<()> {
        let proc = Path::new("/proc").join(pid.to_string());
        let cwd = std::fs::read_link(proc.join("cwd"))?;
        self.tables.chdir(pid, &cwd.to_string_lossy());
        for entry in std::fs::read_dir(proc.join("fd"))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(fd) = name.to_str().and_then(|n| n.parse::<i64>().ok()) else {
                continue;
            };
            // A descriptor that was closed meanwhile needs no offset.
            let (Ok(path), Ok(info), Ok(meta)) = (
                std::fs::read_link(entry.path()),
                std::fs::read_to_string(proc.join("fdinfo").join(&name)),
                std::fs::metadata(entry.path()),
            ) else {
                continue;
            };
            if !meta.is_file() {
                continue;
            }
            let field = |name: &str| {
                info.lines()
                    .find_map(|l| l.strip_prefix(name))
                    .map(str::trim)
            };
            let offset = field("pos:").and_then(|n| n.parse().ok()).unwrap_or(0);
            let flags = field("flags:")
                .and_then(|n| u64::from_str_radix(n, 8).ok())
                .unwrap_or(0);
            self.tables.open(pid, fd, flags & APPEND != 0);
            self.tables.seek(pid, fd, offset);
            self.tables.resize(&path.to_string_lossy(), meta.len());
        }
        for task in std::fs::read_dir(proc.join("task"))? {
            let name = task?.file_name();
            if let Some(thread) = name.to_str().and_then(|n| n.parse().ok())
                && thread != pid
            {
                self.tables.fork(pid, thread, true);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_call_that_is_matched_is_asked_for_and_no_other() {
        let source = concat!(
            include_str!("../strace.rs"),
            include_str!("copy.rs"),
            include_str!("names.rs")
        );
        for name in super::CALLS {
            let quoted = format!("\"{name}\"");
            assert!(source.contains(&quoted), "{name} is traced for nothing");
        }
        let stems = [
            "open", "read", "pread", "write", "pwrite", "f", "unlink", "mkdir", "rename",
        ];
        let missing: Vec<&str> = source
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|word| stems.iter().any(|stem| word.starts_with(stem)))
            .filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric()))
            .filter(|word| !word.ends_with("64") && !super::CALLS.contains(word))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
