//! Starts the real `tierdav` binary in directories of its own, and talks HTTP to it over plain sockets.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

pub mod address;
pub mod cluster;
pub mod disk;
pub mod fault;
pub mod storm;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The body of a LOCK for an exclusive write lock.
pub const LOCK: &[u8] = br#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;

/// A running gateway. Dropping it kills it.
pub struct Gateway {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    flags: Vec<String>,
    child: Child,
}

impl Gateway {
    /// With a cache tier, and these flags.
    pub fn start(flags: &[&str]) -> Gateway {
        let dir = tempfile::tempdir().expect("temporary directory");
        Gateway::start_in(dir, flags.iter().map(|f| (*f).to_string()).collect())
    }

    /// The same in a directory that has a `root`, or a `cache`, of its own already.
    pub fn start_in(dir: tempfile::TempDir, flags: Vec<String>) -> Gateway {
        let listen = SocketAddr::new(address::own(), 0).to_string();
        let (child, address, admin) = spawn(dir.path(), &flags, &listen);
        Gateway {
            dir,
            address,
            admin,
            flags,
            child,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// kill -9, then start again on the same directories.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM; returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        self.child.wait().expect("wait").code()
    }

    /// Sends SIGTERM without waiting.
    pub fn signal_term(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
    }

    /// Ctrl-C, without waiting.
    pub fn signal_int(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("SIGINT");
    }

    /// Starts the stopped gateway again, with other flags.
    pub fn restart_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        self.restart();
    }

    /// SIGHUP: read users and certificates again.
    pub fn signal_hup(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("SIGHUP");
    }

    /// Waits for the end; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("wait").code()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("gateway.log")).unwrap_or_default()
    }

    pub fn restart(&mut self) {
        let (child, address, admin) =
            spawn(self.dir.path(), &self.flags, &self.address.to_string());
        self.child = child;
        self.address = address;
        self.admin = admin;
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address).expect("connect")
    }

    /// One request on a connection of its own.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        self.connect()
            .request(method, path, headers, body)
            .expect("reply")
    }

    pub fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.request("PUT", path, &[], body)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub fn admin(&self, method: &str, path: &str) -> Reply {
        self.request_admin(method, path, b"")
    }

    /// With a body.
    pub fn request_admin(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        Client::connect(self.admin)
            .expect("admin")
            .request(method, path, &[], body)
            .expect("reply")
    }

    /// Runs another command of the binary.
    pub fn command_alone(&self, command: &str, flags: &[&str]) -> std::process::Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_tierdav"));
        c.arg(command).args(flags).output().expect("run")
    }

    /// Runs another command of the binary on this gateway's directories.
    pub fn command(&self, command: &str, flags: &[&str]) -> std::process::Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_tierdav"));
        c.arg(command)
            .arg("--root")
            .arg(self.root())
            .arg("--cache-dir")
            .arg(self.cache())
            .args(flags);
        c.output().expect("run")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("gateway.log"));
            let log = log.unwrap_or_default();
            let telling: Vec<&str> = log.lines().filter(|l| !l.contains(" INFO ")).collect();
            for line in telling.iter().rev().take(20).rev() {
                println!("gateway: {line}");
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, flags: &[String], listen: &str) -> (Child, SocketAddr, SocketAddr) {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("gateway.log"))
        .expect("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tierdav"))
        .arg("serve")
        .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--cache-dir")
        .arg(dir.join("cache"))
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("start tierdav");
    let (mut address, mut admin) = (None, None);
    for line in BufReader::new(child.stdout.take().expect("stdout")).lines() {
        let line = line.expect("line");
        let url = line.split_once(" on http://");
        if let Some((_, url)) = url.or_else(|| line.split_once(" on https://")) {
            address = url.trim_end_matches('/').parse().ok();
        }
        if let Some((_, rest)) = line.split_once("--admin ") {
            admin = rest.split_whitespace().next().and_then(|a| a.parse().ok());
        }
        if address.is_some() && admin.is_some() {
            break;
        }
    }
    let log = || std::fs::read_to_string(dir.join("gateway.log")).unwrap_or_default();
    let address = address.unwrap_or_else(|| panic!("tierdav did not start:\n{}", log()));
    (child, address, admin.expect("admin address"))
}

/// Flags for content in the pools of the cluster in `TIERDAV_CEPH_DIR`, in a namespace of its own.
pub fn pool_flags() -> Vec<String> {
    let dir = std::env::var("TIERDAV_CEPH_DIR").expect(
        "these tests need a cluster: deploy/dev/ceph.sh up, then eval \"$(deploy/dev/ceph.sh env)\"",
    );
    pool_flags_in(std::path::Path::new(&dir))
}

/// The same for the cluster in `dir`.
pub fn pool_flags_in(dir: &std::path::Path) -> Vec<String> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock");
    let namespace = format!("test-{}-{}", std::process::id(), now.as_nanos());
    let conf = dir.join("ceph.conf");
    [
        "--cache-dir",
        "none",
        "--ceph-conf",
        conf.to_str().expect("UTF-8"),
        "--data-pool",
        "tierdav-data",
        "--cache-pool",
        "tierdav-cache",
        "--ceph-namespace",
        namespace.as_str(),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A reply, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One keep-alive connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Client {
            stream: BufReader::new(stream),
            host: address.to_string(),
        })
    }

    /// Sends the head of a request with this Content-Length and no body yet.
    pub fn send_head(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
    ) -> io::Result<()> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n",
            self.host
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.stream.get_mut().write_all(head.as_bytes())
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        self.send_head(method, path, headers, body.len())?;
        self.send(body)?;
        self.reply(method == "HEAD")
    }

    /// Reads status line and headers.
    pub fn reply_head(&mut self) -> io::Result<Reply> {
        let status = self.line()?;
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| bad(&status))?;
        let mut headers = HashMap::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Reply {
                    status,
                    headers,
                    body: Vec::new(),
                });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
    }

    pub fn reply(&mut self, head_only: bool) -> io::Result<Reply> {
        let mut reply = self.reply_head()?;
        if head_only || matches!(reply.status, 204 | 304) || (100..200).contains(&reply.status) {
            return Ok(reply);
        }
        if reply.header("transfer-encoding") == "chunked" {
            loop {
                let line = self.line()?;
                let n = usize::from_str_radix(line.trim(), 16).map_err(|_| bad(&line))?;
                let at = reply.body.len();
                reply.body.resize(at + n, 0);
                self.stream.read_exact(&mut reply.body[at..])?;
                self.line()?;
                if n == 0 {
                    return Ok(reply);
                }
            }
        }
        let n = reply.header("content-length").parse().unwrap_or(0);
        reply.body.resize(n, 0);
        self.stream.read_exact(&mut reply.body)?;
        Ok(reply)
    }

    pub fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(buf)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_string())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}

/// A small deterministic generator (xorshift64*), so that a seed reproduces a run.
pub struct Random(u64);

impl Random {
    /// From `TIERDAV_SEED`, or a new seed, which is printed.
    pub fn from_env() -> Random {
        let given = std::env::var("TIERDAV_SEED")
            .ok()
            .and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .expect("clock");
            now.as_nanos() as u64
        });
        println!("TIERDAV_SEED={seed}");
        Random::new(seed)
    }

    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// `len` bytes that only this version has.
pub fn content(version: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(version.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&random.next().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Waits until `done` holds; panics after a minute.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{what}: not within a minute"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file system of this size on a directory.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: PathBuf, size: &str) -> Mount {
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        assert!(mount.status().expect("mount").success(), "needs root");
        Mount(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
