//! `tierdav import`, `export` and `scrub` over real pools (`TIERDAV_CEPH_DIR`), killed at random moments and run again.
//!
//! `TIERDAV_KILLS=200` runs the long form; `TIERDAV_SEED=n` repeats a run.
#![cfg(feature = "rados")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::cluster::ceph;
use common::{Gateway, Random, content, pool_flags};
use rustix::process::{Pid, Signal};

const FILES: u64 = 60;

struct Root {
    gateway: Gateway,
    flags: Vec<String>,
    files: Vec<(String, usize)>,
}

impl Root {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierdav"));
        let flags = self.flags.iter();
        command.arg(name).arg("--root").arg(self.gateway.root());
        command.args(flags.map(String::as_str));
        command
    }

    fn whole(&self, command: &str) -> Output {
        let done = self.command(command).output().expect("run");
        assert!(done.status.success(), "{command}: {done:?}");
        done
    }

    fn objects(&self) -> usize {
        let at = self.flags.iter().position(|f| f == "--ceph-namespace");
        let namespace = &self.flags[at.unwrap() + 1];
        let in_pool = |pool| {
            let listed = ceph(&["rados", "-p", pool, "-N", namespace, "ls"]);
            assert!(listed.status.success(), "{listed:?}");
            let names = String::from_utf8_lossy(&listed.stdout).into_owned();
            names.lines().filter(|n| *n != "tierdav.owner").count()
        };
        in_pool("tierdav-cache") + in_pool("tierdav-data")
    }

    /// Runs a command for a moment.
    fn cut_off(&self, name: &str, random: &mut Random) {
        let mut command = self.command(name);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("start");
        let pid = Pid::from_child(&child);
        // The moment of the end is the experiment, not a wait for something.
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        let (signal, status) = match random.below(3) {
            0 => (Signal::INT, Some(130)),
            1 => (Signal::TERM, Some(143)),
            _ => (Signal::KILL, None),
        };
        // It may have come to its end before.
        let _ = rustix::process::kill_process(pid, signal);
        let done = child.wait_with_output().expect("wait");
        let ended = done.status.code();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        // Before its first look at signals a process ends as any other does.
        assert!(
            ended == Some(0) || ended == status || ended.is_none(),
            "{name}: {done:?}"
        );
        if ended == Some(130) || ended == Some(143) {
            assert!(said.contains("interrupted"), "{said}");
        }
    }
}

#[test]
fn import_and_export_that_are_cut_off_at_any_moment_lose_and_double_nothing() {
    let mut random = Random::from_env();
    let mut flags = pool_flags();
    flags.extend(["--object-size", "64KiB"].map(str::to_owned));
    let gateway = Gateway::start(&["--cache-dir", "none"]);
    assert_eq!(gateway.request("MKCOL", "/d", &[], b"").status, 201);
    let mut files = Vec::new();
    for n in 0..FILES {
        let len = random.below(200_000) as usize;
        let path = format!("{}/{n}", if n % 2 == 0 { "" } else { "/d" });
        assert_eq!(gateway.put(&path, &content(n, len)).status, 201);
        files.push((path, len));
    }
    let mut root = Root {
        gateway,
        flags,
        files,
    };
    assert_eq!(root.gateway.terminate(), Some(0));
    let kills = std::env::var("TIERDAV_KILLS")
        .ok()
        .and_then(|k| k.parse().ok());
    let mut left: u64 = kills.unwrap_or(8);
    let each = |root: &Root| {
        root.files
            .iter()
            .map(|(_, len)| len.div_ceil(64 << 10))
            .sum::<usize>()
    };
    while left > 0 {
        for command in ["import", "export"] {
            for _ in 0..=random.below(3) {
                root.cut_off(command, &mut random);
                if random.below(4) == 0 {
                    root.cut_off("scrub", &mut random);
                }
                left = left.saturating_sub(1);
            }
            root.whole(command);
            if command == "import" {
                let mut scrub = root.command("scrub");
                let done = scrub.arg("--deep").output().expect("run");
                assert!(done.status.success(), "{done:?}");
                assert_eq!(
                    root.objects(),
                    each(&root),
                    "no object twice, none too many"
                );
            } else {
                assert_eq!(root.objects(), 0);
            }
        }
        for (n, (path, len)) in root.files.iter().enumerate() {
            let file = root.gateway.root().join(&path[1..]);
            assert!(
                std::fs::read(file).unwrap() == content(n as u64, *len),
                "{path}"
            );
        }
    }
}
