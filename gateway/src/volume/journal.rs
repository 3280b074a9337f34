//! What one sync of the root's file system covers: whether it writes its metadata to one journal, in order, and whether `syncfs` is
//! as strong as a sync of each file.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

use rustix::fs::AtFlags;

use super::tree::statx;

/// `f_type` of ext2, ext3 and ext4, which share it, and of XFS (statfs(2)).
pub(crate) const EXT: u32 = 0xef53;
pub(crate) const XFS: u32 = 0x5846_5342;
/// Of Btrfs, and of CephFS mounted by the kernel (linux/magic.h).
pub(crate) const BTRFS: u32 = 0x9123_683e;
const CEPH: u32 = 0x00c3_6400;

/// Whether `syncfs` makes durable, and reports, what an `fsync` of each file would, on a file system that may keep a journal
/// (`journals`: [`covers_inodes`]). FUSE does not pass it on to its server, so that ceph-fuse would hear nothing of it; an ext4
/// without a journal empties the device's cache before the last inodes are written; of others we do not know.
pub(crate) fn syncs_whole(f_type: u32, journals: bool) -> bool {
    journals || [BTRFS, CEPH].contains(&f_type)
}

/// Whether a sync of a directory of `root`'s file system also makes the inodes durable that its entries name: XFS, and ext4 with a
/// journal. Others want each file synced, CephFS and an ext4 made without a journal (`^has_journal`) among them; so does one of
/// which we cannot find out.
pub(crate) fn covers_inodes(root: &OwnedFd, f_type: u32) -> io::Result<bool> {
    Ok(match f_type {
        XFS => true,
        EXT => {
            let (major, minor) = statx(root, "", AtFlags::EMPTY_PATH)?.dev;
            ext_has_journal(Path::new("/sys"), major, minor)
        }
        _ => false,
    })
}

/// Tells of a root on which an acknowledged change may be lost in spite of the intent log: what an ext4 without a journal has written of
/// one change when the power fails need not be there for the changes before it, and what a start finds applied is taken for whole
/// (`log::applied`).
pub(crate) fn warn_of_no_order(root: &Path, fd: BorrowedFd<'_>, journals: bool) -> io::Result<()> {
    if !journals && rustix::fs::fstatfs(fd)?.f_type as u32 == EXT {
        tracing::warn!(
            root = %root.display(),
            "the root is on an ext4 that shows no journal: it keeps no order of its changes, which the intent log relies on, and what was \
             acknowledged shortly before a power cut may be lost. Stop the gateway, unmount the file system and give it one \
             (tune2fs -O has_journal DEVICE), or use XFS"
        );
    }
    Ok(())
}

/// What the kernel says of the device's journal: the number of the task that writes it, or `<none>`.
fn ext_has_journal(sys: &Path, major: u32, minor: u32) -> bool {
    let device = fs::read_link(sys.join(format!("dev/block/{major}:{minor}")));
    let task = device.ok().and_then(|link| {
        let name = link.file_name()?.to_owned();
        fs::read_to_string(sys.join("fs/ext4").join(name).join("journal_task")).ok()
    });
    // In a container's own numbering it may be 0.
    task.is_some_and(|task| task.trim().parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_an_ext4_that_shows_its_journal_has_one() {
        let sys = tempfile::tempdir().unwrap();
        let (block, ext4) = (sys.path().join("dev/block"), sys.path().join("fs/ext4"));
        fs::create_dir_all(&block).unwrap();
        let rows = [("1234\n", true), ("0\n", true), ("<none>\n", false)];
        for (minor, (task, _)) in rows.iter().enumerate() {
            let name = format!("vd{minor}");
            let target = Path::new("../../devices/x").join(&name);
            std::os::unix::fs::symlink(target, block.join(format!("254:{minor}"))).unwrap();
            fs::create_dir_all(ext4.join(&name)).unwrap();
            fs::write(ext4.join(&name).join("journal_task"), task).unwrap();
        }
        for (minor, (task, has)) in rows.iter().enumerate() {
            let minor = minor as u32;
            assert_eq!(ext_has_journal(sys.path(), 254, minor), *has, "{task:?}");
        }
        // An older kernel, or no /sys at all.
        assert!(!ext_has_journal(sys.path(), 254, 9));
        assert!(!ext_has_journal(Path::new("/nowhere"), 254, 0));
    }
}
