//! Whether the kernel has a file in memory.
#![expect(
    unsafe_code,
    reason = "cachestat(2) has no safe wrapper yet; see `cached_pages`"
)]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{ReadWriteFlags, preadv2};

/// Number of cachestat(2) on all architectures that Rust's Linux targets with a standard library share numbers of new calls with;
/// on others (MIPS) it is none, and answers `ENOSYS`.
const CACHESTAT: libc::c_long = 451;

/// What part of a file cachestat is asked about; `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct Asked {
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

/// Whether the kernel has a part of a file in memory. Before Linux 6.5 one byte in `step` is looked at.
pub(crate) fn holds(file: &File, part: Range<u64>, step: usize) -> bool {
    /// The kernel does not know the call.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    if part.is_empty() {
        return true;
    }
    if !UNKNOWN.load(Ordering::Relaxed) {
        let page = rustix::param::page_size() as u64;
        match cached_pages(file, &part) {
            Ok(pages) => return pages >= part.end.div_ceil(page) - part.start / page,
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                UNKNOWN.store(true, Ordering::Relaxed);
            }
            // Not of this file: it belongs to somebody else.
            Err(_) => {}
        }
    }
    looks(file, part, step)
}

/// How many pages of a part that is not empty are in memory. Asking for each by a read takes a third of the time of a
/// whole GET of 1 MiB.
fn cached_pages(file: &File, part: &Range<u64>) -> io::Result<u64> {
    let range = Asked {
        offset: part.start,
        len: part.end - part.start,
    };
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
fn looks(file: &File, part: Range<u64>, step: usize) -> bool {
    let last = part.end.checked_sub(1);
    let mut places = part.step_by(step).chain(last);
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
        assert!(looks(&file, 0..len, 4096) && holds(&file, 0..len, 4096));
        assert!(holds(&file, 9..9, 4096));
        assert!(!looks(&file, 0..len + 1, 4096), "the file ends before");
        file.sync_all().unwrap();
        // Tried until it is done, since what is in use just then stays. Each look comes after a drop of its own: a read that
        // must not wait has the kernel fetch what it misses.
        let missed_once_dropped = |look: fn(&File, Range<u64>, usize) -> bool, part: Range<u64>| {
            (0..10_000).any(|_| {
                rustix::fs::fadvise(&file, 65_536, None, Advice::DontNeed).unwrap();
                std::thread::yield_now();
                !look(&file, part.clone(), 4096)
            })
        };
        for look in [holds, looks] {
            assert!(missed_once_dropped(look, 0..len));
            assert!(missed_once_dropped(look, len - 1..len));
            assert!(look(&file, 0..65_536, 4096) && look(&file, 60_000..65_536, 4096));
        }
    }
}
