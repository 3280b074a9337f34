//! System calls of a running gateway, by strace: they fail, or are looked at.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Gateway;

/// strace that makes every so-manieth of these calls fail, until it is dropped.
pub struct Fault {
    strace: Child,
    seen: PathBuf,
}

impl Fault {
    pub fn inject(gateway: &Gateway, calls: &str, error: &str, every: u64) -> Fault {
        Fault::inject_when(gateway, calls, error, &format!("2+{every}"))
    }

    pub fn inject_when(gateway: &Gateway, calls: &str, error: &str, when: &str) -> Fault {
        let inject = format!("inject={calls}:error={error}:when={when}");
        Fault::attach(gateway, calls, &["-e", &inject])
    }

    /// Looks at these calls.
    pub fn attach(gateway: &Gateway, calls: &str, more: &[&str]) -> Fault {
        let seen = gateway.root().with_file_name("strace");
        let mut strace = Command::new("strace")
            .args(["-f", "-p", &gateway.pid().to_string(), "-o"])
            .arg(&seen)
            .args(["-e", &format!("trace={calls}")])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace");
        let mut line = String::new();
        let mut said = BufReader::new(strace.stderr.take().expect("stderr"));
        said.read_line(&mut line).expect("strace's first line");
        assert!(line.contains("attached"), "strace: {line}");
        // What it says of new threads is read, so that it never waits for us.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Fault { strace, seen }
    }

    /// Ends it; returns how many calls it made fail.
    pub fn end(self) -> usize {
        self.seen().matches("(INJECTED)").count()
    }

    /// Ends it; returns what it saw, a call a line.
    pub fn seen(self) -> String {
        let seen = self.seen.clone();
        drop(self);
        std::fs::read_to_string(seen).expect("strace's output")
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.strace.wait();
    }
}
