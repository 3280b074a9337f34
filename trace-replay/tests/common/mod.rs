//! The real gateway beside a test, in a process of its own: this test program once more.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gateway::config::{Config, Raw};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set for the process that serves: the settings file.
const CONFIG: &str = "TRACE_REPLAY_TEST_GATEWAY";

/// Its log, beside the settings file.
const LOG: &str = "gateway.log";

/// A running gateway. Dropping it kills it.
pub struct Gateway {
    pub dir: tempfile::TempDir,
    /// `http://127.0.0.1:PORT/`.
    pub url: String,
    /// Where its metrics are.
    pub metrics: String,
    child: Child,
    /// The test program in it says when it has run for a minute, and ends if nobody can hear that.
    _stdout: BufReader<ChildStdout>,
}

impl Gateway {
    /// With a cache tier, on a free port. The test program must have a test `gateway_process` that calls [`serve`].
    pub fn start() -> Gateway {
        Gateway::with(|_| String::new())
    }

    /// The same, with more lines in its configuration; they may name files in its directory.
    pub fn with(more: impl FnOnce(&std::path::Path) -> String) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let text = format!(
            "root = \"{0}/root\"\ncache_dir = \"{0}/cache\"\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{1}",
            dir.path().display(),
            more(dir.path())
        );
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gateway_process", "--nocapture"])
            .env(CONFIG, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.by_ref().lines().map_while(Result::ok);
        let mut after = |word: &str| {
            let found = lines.find_map(|line| Some(line.split_once(word)?.1.to_string()));
            format!("http{}", found.expect("the gateway says where it serves"))
        };
        let url = after(" on http");
        let metrics = after("metrics http");
        Gateway {
            dir,
            url,
            metrics,
            child,
            _stdout: stdout,
        }
    }

    /// Warnings and errors of its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default()
    }

    /// Without the last slash.
    pub fn base(&self) -> &str {
        self.url.trim_end_matches('/')
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `look` finds, as soon as it does. Panics with `what` when that takes a minute.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "waited for {what}"
        );
        std::thread::yield_now();
    }
}

/// Sends a program a signal, as Ctrl-C does (`-INT`).
pub fn signal(signal: &str, child: &Child) {
    let id = child.id().to_string();
    let kill = Command::new("kill").args([signal, &id]).status();
    assert!(kill.unwrap().success());
}

/// How a program ended. Kills it, and panics, when that takes a minute.
pub fn ended(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("waited for the end of a program");
        }
        std::thread::yield_now();
    }
}

/// Serves in the process that [`Gateway::start`] makes; returns at once in any other.
pub fn serve() {
    let Some(file) = std::env::var_os(CONFIG) else {
        return;
    };
    let log = std::fs::File::create(Path::new(&file).with_file_name(LOG)).unwrap();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(log))
        .init();
    let mut raw = Raw::default();
    raw.read_file(Path::new(&file));
    let config = Config::check(&raw).unwrap();
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(gateway::serve::serve(config, raw))
        .unwrap();
}
