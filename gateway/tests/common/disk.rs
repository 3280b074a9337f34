//! A disk that can lose its power, or be full. Needs root and loop devices.

use std::path::PathBuf;
use std::process::Command;

/// A disk of its own with a file system that keeps a journal, which can lose its power.
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// `mkfs` with its flags; mounted on the directory `at`, which is made.
    pub fn new(mkfs: &[&str], at: PathBuf) -> Disk {
        Disk::sized(1 << 30, mkfs, at)
    }

    /// The same of `bytes`.
    pub fn sized(bytes: u64, mkfs: &[&str], at: PathBuf) -> Disk {
        let image = at.with_extension("image");
        let file = std::fs::File::create(&image).expect("image");
        file.set_len(bytes).expect("image");
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        std::fs::create_dir(&at).expect("mount point");
        let disk = Disk { image, at };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&self.image, &self.at]));
    }

    /// The power fails: what no sync has brought to the disk is gone, and the file system ends. Then it comes back.
    pub fn lose_power(&self) {
        // FS_IOC_SHUTDOWN without a flush of the journal, of ext4 and XFS (xfs_fs.h: XFS_FSOP_GOING_FLAGS_NOLOGFLUSH).
        let cut = "import fcntl, os, struct, sys\n\
                   fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", cut]).arg(&self.at));
        run(Command::new("umount").arg(&self.at));
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    let done = command.output().expect("run");
    assert!(done.status.success(), "{command:?} (needs root): {done:?}");
}
