//! A gateway that starts before its Ceph cluster does, in whatever way that is not there yet. The test has a cluster of its
//! own (deploy/dev/ceph.sh), which it breaks and mends.
#![cfg(feature = "rados")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::cluster::OwnCluster;
use common::{Client, Reply, address};

/// No wait is longer: it has the longest pause between two tries (30 s) in it.
const LONGEST: Duration = Duration::from_secs(120);

/// A gateway that may not serve yet.
struct Starting {
    dir: tempfile::TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Starting {
    fn start(cluster: &OwnCluster, flags: &[&str]) -> Starting {
        let dir = tempfile::tempdir().unwrap();
        let (address, admin) = (address::free(), address::free());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tierdav"))
            .args(["serve", "--cache-dir", "none", "--ceph-op-timeout", "2s"])
            .args([
                "--cache-pool",
                "tierdav-cache",
                "--data-pool",
                "tierdav-data",
            ])
            .args(["--listen", &address.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .arg("--root")
            .arg(dir.path().join("root"))
            .arg("--ceph-conf")
            .arg(cluster.dir().join("ceph.conf"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start tierdav");
        Starting {
            dir,
            address,
            admin,
            child,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<Reply> {
        let mut client = Client::connect(address).ok()?;
        client.request(method, path, &[], body).ok()
    }

    fn dav(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        self.ask(self.address, method, path, body).expect("a reply")
    }

    fn about(&self, page: &str) -> Reply {
        let path = format!("/.tierdav/{page}");
        self.ask(self.admin, "GET", &path, b"").expect("a reply")
    }

    /// Waits until `done`; the process must stay alive meanwhile.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Starting) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert_eq!(self.child.try_wait().unwrap(), None, "{what}: it ended");
            assert!(start.elapsed() < LONGEST, "{what}: not within {LONGEST:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it says on the admin listener that it waits for `what`, and checks that it is alive, not ready, and
    /// answers WebDAV with 503 and Retry-After.
    fn waits_for(&mut self, what: &str) -> String {
        self.until(what, |s| {
            let ready = s.ask(s.admin, "GET", "/.tierdav/ready", b"");
            ready.is_some_and(|r| r.status == 503 && r.text().contains(what))
        });
        let why = self.about("ready").text();
        assert_eq!(self.about("health").status, 200);
        assert_eq!(self.about("status").status, 503);
        let metrics = self.about("metrics");
        assert_eq!(metrics.status, 200);
        assert!(metrics.text().contains("\ntierdav_rados_owner 0\n"));
        for (method, path) in [
            ("OPTIONS", "/"),
            ("PROPFIND", "/"),
            ("GET", "/f"),
            ("PUT", "/f"),
        ] {
            let reply = self.dav(method, path, b"");
            assert_eq!(reply.status, 503, "{method}: {reply:?}");
            let seconds: u32 = reply.header("retry-after").parse().expect("Retry-After");
            assert!(seconds > 0);
        }
        assert!(self.log().contains("ERROR"), "{}", self.log());
        why
    }

    fn serves(&mut self) {
        self.until("it is ready", |s| s.about("ready").status == 200);
        assert_eq!(self.dav("PUT", "/f", b"content").status, 201);
        assert_eq!(self.dav("GET", "/f", b"").body, b"content");
        let metrics = self.about("metrics").text();
        assert!(metrics.contains("\ntierdav_rados_owner 1\n"), "{metrics}");
    }

    /// SIGTERM; the exit code.
    fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < LONGEST, "it does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_gateway_that_is_there_before_its_cluster_answers_503_and_serves_when_the_cluster_comes() {
    let cluster = OwnCluster::up();

    // No monitor answers.
    cluster.ceph(&["net-cut"]);
    let mut early = Starting::start(&cluster, &["--ceph-namespace", "early"]);
    let mut given_up = Starting::start(&cluster, &["--ceph-namespace", "given-up"]);
    let why = early.waits_for("no answer");
    let conf = cluster.dir().join("ceph.conf");
    let keyring = cluster.dir().join("ceph.client.tierdav.keyring");
    for part in [
        "monitors v1:127.0.0.1:",
        "librados says: monclient",
        "timed out",
        "user client.tierdav",
        conf.to_str().unwrap(),
        keyring.to_str().unwrap(),
    ] {
        assert!(why.contains(part), "{part:?} is not in {why}");
        assert!(
            early.log().contains(part),
            "{part:?} is not in {}",
            early.log()
        );
    }
    // One that is told to stop while it waits does so.
    given_up.waits_for("no answer");
    assert_eq!(given_up.terminate(), Some(0), "{}", given_up.log());
    cluster.ceph(&["net-heal"]);
    early.serves();
    assert_eq!(early.terminate(), Some(0), "{}", early.log());

    // Monitors answer, the OSD of the data pool does not: the lock cannot be taken.
    cluster.ceph(&["kill-osd", "1"]);
    let mut half = Starting::start(&cluster, &["--ceph-namespace", "half"]);
    half.waits_for("no answer");
    cluster.ceph(&["restart-osd", "1"]);
    half.serves();
    assert_eq!(half.terminate(), Some(0), "{}", half.log());

    // An operator such as Rook makes key and pool after the gateway was started.
    let flags = [
        "--ceph-namespace",
        "late",
        "--ceph-user",
        "client.late",
        "--data-pool",
        "late",
    ];
    let mut late = Starting::start(&cluster, &flags);
    late.waits_for("no key for this user");
    let keyring = cluster.dir().join("ceph.client.late.keyring");
    cluster.ceph(&[
        "ceph",
        "auth",
        "get-or-create",
        "client.late",
        "mon",
        "profile simple-rados-client-with-blocklist",
        "osd",
        "allow rwx pool=tierdav-cache, allow rwx pool=late",
        "-o",
        keyring.to_str().unwrap(),
    ]);
    late.waits_for("there is no such pool");
    cluster.ceph(&["ceph", "osd", "pool", "create", "late", "4", "4"]);
    late.serves();
    assert_eq!(late.terminate(), Some(0), "{}", late.log());
}

#[test]
fn a_configuration_file_that_cannot_be_read_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("absent.conf");
    let done = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_tierdav"), "serve"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--cache-dir", "none", "--data-pool", "d", "--root"])
        .arg(dir.path().join("root"))
        .arg("--ceph-conf")
        .arg(&conf)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(text.contains(conf.to_str().unwrap()), "{text}");
}

#[test]
fn a_cluster_that_is_away_for_longer_than_the_lock_lives_shows_as_a_lock_that_is_not_held() {
    let cluster = OwnCluster::up();
    let mut gateway = Starting::start(&cluster, &["--ceph-namespace", "away"]);
    gateway.until("it listens", |s| {
        s.ask(s.admin, "GET", "/.tierdav/health", b"").is_some()
    });
    gateway.serves();
    let owner = |s: &Starting, held: u8| {
        let line = format!("\ntierdav_rados_owner {held}\n");
        s.about("metrics").text().contains(&line)
    };
    cluster.ceph(&["net-cut"]);
    gateway.until("the lock has run out", |s| owner(s, 0));
    cluster.ceph(&["net-heal"]);
    gateway.until("it is renewed", |s| owner(s, 1));
    gateway.until("it serves", |s| s.dav("GET", "/f", b"").status == 200);
}
