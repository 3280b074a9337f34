//! Whether change times of a file system tell any two states of a file apart that somebody has looked at.
//!
//! Before Linux 6.13 times come from a clock that moves on every 1 to 10 ms, so that two changes may get the same. Since then
//! ext4, XFS, Btrfs and tmpfs look at a finer clock for a change of an inode whose time was asked for since its last one
//! (Documentation/filesystems/multigrain-ts.rst). Nothing tells which kind a mounted one is, so it is tried.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::tree::statx;

/// The smallest step of the coarse clock: a kernel's tick is at most 1000 Hz.
const TICK: Duration = Duration::from_millis(1);
/// Changes made to find out: on a busy machine up to so many ticks less two may pass meanwhile.
const TRIES: u32 = 16;

/// Makes a file in `dir`, changes it, and looks whether each change has a time of its own.
pub(crate) fn tells_changes_apart(dir: &OwnedFd) -> io::Result<bool> {
    let name = format!("{:016x}.time", super::identity::fresh()?.0);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name.as_str(), flags, Mode::from(0o600))?;
    // Its name is no longer needed.
    rustix::fs::unlinkat(dir, name.as_str(), AtFlags::empty())?;
    let begun = Instant::now();
    let mut times = Vec::new();
    for n in 0..TRIES {
        rustix::fs::fchmod(&file, Mode::from(0o600 | (n & 1) << 5))?;
        times.push(statx(&file, "", AtFlags::EMPTY_PATH)?.ctime_ns);
    }
    Ok(proves(&times, begun.elapsed()))
}

/// Whether a coarse clock could not have given these times to changes made within `elapsed`.
fn proves(times: &[i64], elapsed: Duration) -> bool {
    let rises = times.windows(2).all(|pair| pair[0] < pair[1]);
    let ticks = elapsed.as_nanos() / TICK.as_nanos() + 2;
    rises && times.len() as u128 > ticks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_more_times_than_ticks_prove_it() {
        let times: Vec<i64> = (0..16).collect();
        let ms = Duration::from_millis;
        assert!(proves(&times, ms(13)) && !proves(&times, ms(14)));
        let mut twice = times.clone();
        twice[9] = twice[8];
        assert!(!proves(&twice, Duration::ZERO));
        assert!(!proves(&[], Duration::ZERO));
    }

    /// What was said of a file system must hold for it: a change after a look is seen, however soon.
    #[test]
    fn where_changes_are_told_apart_none_hides_behind_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let dir = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        if !tells_changes_apart(&dir).unwrap() {
            eprintln!("times of this file system are coarse: nothing to see");
            return;
        }
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = rustix::fs::openat(&dir, "f", flags, Mode::from(0o600)).unwrap();
        let mut last = 0;
        for n in 0..20_000u32 {
            rustix::io::pwrite(&file, &n.to_le_bytes(), 0).unwrap();
            let stat = statx(&file, "", AtFlags::EMPTY_PATH).unwrap();
            assert!(stat.ctime_ns > last, "write {n}");
            last = stat.ctime_ns;
        }
    }
}
