//! Ceph clusters of deploy/dev/ceph.sh: the suite's, and those that a test starts for itself.

use std::path::Path;
use std::process::{Command, Output};

/// Runs ceph.sh with the cluster in `dir`, for ten minutes at most.
pub fn ceph_in(dir: &Path, args: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/dev/ceph.sh");
    let mut command = Command::new("timeout");
    command.args(["-k", "10", "600", script]).args(args);
    command
        .env("TIERDAV_CEPH_DIR", dir)
        .output()
        .expect("ceph.sh")
}

/// Runs ceph.sh with the suite's cluster.
pub fn ceph(args: &[&str]) -> Output {
    let dir = std::env::var("TIERDAV_CEPH_DIR").expect("TIERDAV_CEPH_DIR");
    ceph_in(Path::new(&dir), args)
}

/// A cluster of a test's own, which it may break; gone at its end.
pub struct OwnCluster(tempfile::TempDir);

impl OwnCluster {
    pub fn up() -> OwnCluster {
        OwnCluster::up_with(&[])
    }

    /// With flags of `ceph.sh up`.
    pub fn up_with(flags: &[&str]) -> OwnCluster {
        let cluster = OwnCluster(tempfile::tempdir().expect("a directory"));
        cluster.ceph(&[&["up"], flags].concat());
        cluster
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Runs ceph.sh, which must succeed.
    pub fn ceph(&self, args: &[&str]) {
        let done = ceph_in(self.dir(), args);
        assert!(done.status.success(), "ceph.sh {args:?}: {done:?}");
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:?}", ceph_in(self.dir(), &["status"]));
        }
        println!("{:?}", ceph_in(self.dir(), &["down"]));
    }
}
