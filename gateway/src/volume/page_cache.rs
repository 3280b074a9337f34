//! Whether the kernel has a file in memory.
#![expect(
    unsafe_code,
    reason = "cachestat(2) has no safe wrapper yet; see `cached_pages`"
)]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{ReadWriteFlags, preadv2};

/// Number of cachestat(2) on all architectures that Rust's Linux targets with a standard library share numbers of new calls with;
/// on others (MIPS) it is none, and answers `ENOSYS`.
const CACHESTAT: libc::c_long = 451;

/// What part of a file cachestat is asked about; `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// Its answer, in pages; `struct cachestat` of linux/mman.h.
#[repr(C)]
#[derive(Default)]
struct Answer {
    cached: u64,
    dirty: u64,
    written_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether the kernel has the first `len` bytes of a file in memory. Before Linux 6.5 one byte in `step` is looked at.
pub(crate) fn holds(file: &File, len: u64, step: usize) -> bool {
    /// The kernel does not know the call.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    if len == 0 {
        return true;
    }
    if !UNKNOWN.load(Ordering::Relaxed) {
        match cached_pages(file, len) {
            Ok(pages) => return pages >= len.div_ceil(rustix::param::page_size() as u64),
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                UNKNOWN.store(true, Ordering::Relaxed);
            }
            // Not of this file: it belongs to somebody else.
            Err(_) => {}
        }
    }
    looks(file, len, step)
}

/// How many pages of the first `len` bytes, at least one, are in memory. Asking for each by a read takes a third of the time of a
/// whole GET of 1 MiB.
fn cached_pages(file: &File, len: u64) -> io::Result<u64> {
    let range = Range { offset: 0, len };
    let mut answer = Answer::default();
    // SAFETY: the descriptor is open while `file` is borrowed. The kernel reads one `cachestat_range` and writes one `cachestat`,
    // to which both types are equal in layout (`repr(C)`, fields of 64 bits); both live until the call returns, and nothing is kept.
    let status = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &range, &mut answer, 0u32) };
    match status {
        0 => Ok(answer.cached),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether one byte in `step` is in memory, and the last.
fn looks(file: &File, len: u64, step: usize) -> bool {
    let mut places = (0..len).step_by(step).chain(len.checked_sub(1));
    places.all(|at| {
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        preadv2(file, &mut parts, at, ReadWriteFlags::NOWAIT) == Ok(1)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use rustix::fs::Advice;

    #[test]
    fn pages_that_were_dropped_are_missed() {
        // Not on a tmpfs, which has nowhere to drop pages to.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let len = 300_000;
        io::Write::write_all(&mut file, &vec![7; len as usize]).unwrap();
        assert!(looks(&file, len, 4096) && holds(&file, len, 4096) && holds(&file, 0, 4096));
        assert!(!looks(&file, len + 1, 4096), "the file ends before");
        file.sync_all().unwrap();
        // Tried until it is done, since what is in use just then stays. Each look comes after a drop of its own: a read that
        // must not wait has the kernel fetch what it misses.
        let missed_once_dropped = |look: fn(&File, u64, usize) -> bool| {
            (0..10_000).any(|_| {
                rustix::fs::fadvise(&file, 65_536, None, Advice::DontNeed).unwrap();
                std::thread::yield_now();
                !look(&file, len, 4096)
            })
        };
        assert!(missed_once_dropped(holds));
        assert!(missed_once_dropped(looks));
        assert!(looks(&file, 65_536, 4096) && holds(&file, 65_536, 4096));
    }
}
