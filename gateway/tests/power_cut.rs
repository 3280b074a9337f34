//! The power fails under a storm of PUT, MOVE, DELETE, MKCOL and PROPPATCH: file systems are shut down without another write
//! (FS_IOC_SHUTDOWN), mounted again, and what is there is compared with what was acknowledged. Needs root and loop devices.
//!
//! `TIERDAV_KILLS=200` runs the long form; `TIERDAV_SEED=n` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::os::unix::fs::symlink;

use common::disk::Disk;
use common::storm::{MOVING, finds_nothing, gather, round};
use common::{Gateway, Random};

const CLIENTS: u64 = 4;
const EXT4: [&str; 5] = ["mkfs.ext4", "-q", "-F", "-O", "has_journal"];
const XFS: [&str; 2] = ["mkfs.xfs", "-q"];

/// Root and cache on one disk, or each on its own.
#[derive(Clone, Copy, PartialEq)]
enum Disks {
    One,
    Two,
}

fn cut(mkfs: &[&str], disks: Disks, more: &[&str]) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| dir.path().join(name);
    let disks = match disks {
        Disks::One => {
            let disk = Disk::new(mkfs, at("disk"));
            for name in ["root", "cache"] {
                std::fs::create_dir(at("disk").join(name)).expect("directory");
                symlink(at("disk").join(name), at(name)).expect("link");
            }
            vec![disk]
        }
        Disks::Two => vec![Disk::new(mkfs, at("root")), Disk::new(mkfs, at("cache"))],
    };
    let flags: Vec<&str> = MOVING.iter().chain(more).copied().collect();
    let mut random = Random::from_env();
    let mut gateway = Gateway::start_in(dir, flags.iter().map(|f| (*f).to_owned()).collect());
    let mut storms = gather(&gateway, &mut random, CLIENTS, false);
    let mut acknowledged = 0;
    let cuts = std::env::var("TIERDAV_KILLS").map_or(6, |n| n.parse().expect("a number"));
    for _ in 0..cuts {
        acknowledged += round(&mut storms, &mut gateway, &mut random, |gateway| {
            gateway.kill();
            disks.iter().for_each(Disk::lose_power);
            gateway.restart();
        });
    }
    println!("{cuts} cuts, {acknowledged} operations acknowledged, none lost");
    assert!(acknowledged > cuts, "the storm did nothing");
    // Copies of what the backing tier has are never synced: a cut may take their bytes, and whoever reads them finds that out.
    assert_eq!(gateway.terminate(), Some(0));
    gateway.command("scrub", &[&flags[..], &["--repair"]].concat());
    finds_nothing(&gateway, &flags);
}

#[test]
fn nothing_acknowledged_is_lost_on_one_ext4() {
    cut(&EXT4, Disks::One, &["--write-policy", "around"]);
}

#[test]
fn nothing_acknowledged_is_lost_on_one_xfs() {
    cut(&XFS, Disks::One, &["--write-policy", "around"]);
}

#[test]
fn nothing_acknowledged_is_lost_on_two_ext4() {
    cut(&EXT4, Disks::Two, &[]);
}

#[test]
fn nothing_acknowledged_is_lost_on_two_xfs() {
    cut(&XFS, Disks::Two, &[]);
}

#[test]
fn nothing_acknowledged_is_lost_on_an_ext4_alone() {
    cut(&EXT4, Disks::One, &["--cache-dir", "none"]);
}
