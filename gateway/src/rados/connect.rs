//! Connecting to a cluster, and saying why that failed: what we asked for, what librados answered, and what it logged.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Live, explain, sys};
use crate::config::PoolSettings;
use crate::metrics::{RadosMetrics, RadosPool};
use crate::objects::pools::AttachError;

/// Longest wait for a monitor, seconds.
const CONNECT_SECONDS: u64 = 10;
/// Lines of librados' log that an error repeats.
const SAID_MAX: usize = 4;
/// Characters of each.
const SAID_CHARS: usize = 300;
/// Longest wait for the end of the log of a connection that failed.
const SAID_WAIT: Duration = Duration::from_secs(1);

impl Live {
    /// Connects and opens the pools. Blocks for [`CONNECT_SECONDS`], or the operations' timeout, at most if nobody answers.
    ///
    /// # Errors
    /// Lasting: the configuration file cannot be used. Passing: all that the cluster or its operator can mend.
    pub(super) fn connect(
        options: &PoolSettings,
        metrics: &Arc<RadosMetrics>,
    ) -> Result<Live, AttachError> {
        let handle = prepare(options, metrics);
        let live = handle.and_then(|handle| {
            let about = About::of(&handle, options);
            let log = Log::of(&handle);
            match Live::open(handle, options) {
                Ok(live) => {
                    log.connected();
                    Ok(live)
                }
                // The handle is gone, so librados has written its log to the end.
                Err((what, e)) => Err(about.failed(&what, &e, &log.errors())),
            }
        });
        metrics.connected(live.is_ok());
        live
    }

    fn open(handle: sys::Handle, options: &PoolSettings) -> Result<Live, (String, io::Error)> {
        handle
            .connect()
            .map_err(|e| ("cannot connect".to_owned(), e))?;
        let handle = Arc::new(handle);
        let open = |pool: &str, role| {
            let context = handle.context(pool, &options.namespace, role);
            context.map_err(|e| (format!("cannot open pool {pool:?}"), e))
        };
        let cache = match options.cache_pool.as_deref() {
            Some(pool) => Some(open(pool, RadosPool::Cache)?),
            None => None,
        };
        let data = open(&options.data_pool, RadosPool::Data)?;
        let fsid = handle.fsid();
        let fsid = fsid.map_err(|e| ("cannot ask for the cluster's id".to_owned(), e))?;
        Ok(Live {
            handle,
            cache,
            data,
            fsid,
        })
    }
}

/// A client that is configured, not connected.
fn prepare(
    options: &PoolSettings,
    metrics: &Arc<RadosMetrics>,
) -> Result<sys::Handle, AttachError> {
    let conf = options.conf.display();
    // librados says EINVAL for all that can be wrong with it.
    std::fs::File::open(&options.conf)
        .map_err(|e| AttachError::lasting(format!("ceph_conf {conf}: {e}")))?;
    let seconds = options.op_timeout.as_secs().max(1).to_string();
    let settings = [
        ("client_mount_timeout", CONNECT_SECONDS.to_string()),
        ("rados_mon_op_timeout", seconds.clone()),
        ("rados_osd_op_timeout", seconds),
        // The gateway bounds what is under way itself: librados must not block the thread that begins an operation.
        ("objecter_inflight_ops", "65536".to_owned()),
        ("objecter_inflight_op_bytes", (8u64 << 30).to_string()),
        ("log_to_stderr", "false".to_owned()),
    ];
    sys::Handle::new(
        &options.user,
        text_of(&options.conf)?,
        &settings,
        Arc::clone(metrics),
    )
    .map_err(|e| AttachError::lasting(format!("ceph_conf {conf}: {e}")))
}

fn text_of(path: &Path) -> Result<&str, AttachError> {
    path.to_str()
        .ok_or_else(|| AttachError::lasting(format!("ceph_conf {}: not UTF-8", path.display())))
}

/// What we asked for, for an error's text.
struct About {
    monitors: String,
    keyring: String,
    conf: String,
    user: String,
}

impl About {
    fn of(handle: &sys::Handle, options: &PoolSettings) -> About {
        let setting = |key| match handle.setting(key) {
            Ok(value) if !value.is_empty() => value,
            Ok(_) | Err(_) => "not set".to_owned(),
        };
        About {
            monitors: setting("mon_host"),
            keyring: setting("keyring"),
            conf: options.conf.display().to_string(),
            user: options.user.clone(),
        }
    }

    /// All that a failed connection has to say. It may pass: monitors, OSDs, pools, keys and capabilities are made by
    /// others, perhaps after us.
    fn failed(&self, what: &str, e: &io::Error, said: &[String]) -> AttachError {
        let connecting = what == "cannot connect";
        let why = match e.raw_os_error() {
            Some(libc::ENOENT) if connecting => format!("no key for this user ({e})"),
            Some(libc::ENOENT) => format!("there is no such pool ({e})"),
            _ => explain(e),
        };
        let said = match said {
            [] => String::new(),
            lines => format!("; librados says: {}", lines.join(" | ")),
        };
        AttachError::passing(format!(
            "Ceph: {what}: {why}{said}; monitors {} and keyring {} by {}, user {}",
            self.monitors, self.keyring, self.conf, self.user
        ))
    }
}

/// librados' own log of one connection, which comes through a pipe and goes into ours (target `librados`).
struct Log {
    /// Kept until librados has opened it too.
    writer: Option<PipeWriter>,
    heard: Arc<Heard>,
    ended: Receiver<()>,
}

#[derive(Default)]
struct Heard {
    /// Set once the connection stands: from then on what librados calls an error is one in our log.
    connected: AtomicBool,
    errors: Mutex<VecDeque<String>>,
}

impl Log {
    /// Begins to listen. Without a pipe or a thread the log is lost, which costs an explanation and nothing else.
    fn of(handle: &sys::Handle) -> Log {
        let heard = Arc::<Heard>::default();
        let (end, ended) = mpsc::sync_channel(1);
        let listen = || -> io::Result<PipeWriter> {
            let (reader, writer) = io::pipe()?;
            let heard = Arc::clone(&heard);
            let thread = std::thread::Builder::new().name("rados-log".into());
            thread.spawn(move || heard.listen(reader, &end))?;
            handle.set("log_file", &format!("/proc/self/fd/{}", writer.as_raw_fd()))?;
            Ok(writer)
        };
        let writer = listen()
            .inspect_err(|error| tracing::debug!(%error, "librados' log is lost"))
            .ok();
        Log {
            writer,
            heard,
            ended,
        }
    }

    /// The connection stands.
    fn connected(self) {
        self.heard.connected.store(true, Ordering::Relaxed);
    }

    /// What librados called errors. The connection is gone.
    fn errors(mut self) -> Vec<String> {
        drop(self.writer.take());
        // The thread drops its end of the channel when librados has closed the pipe.
        let _ = self.ended.recv_timeout(SAID_WAIT);
        self.heard.errors.lock().iter().cloned().collect()
    }
}

impl Heard {
    /// Until the last writer is gone.
    fn listen(&self, reader: PipeReader, _end: &SyncSender<()>) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            self.hear(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }

    fn hear(&self, line: &str) {
        let (level, text) = parse(line);
        let connected = self.connected.load(Ordering::Relaxed);
        match level {
            ..0 if connected => tracing::warn!(target: "librados", "{text}"),
            0 if connected => tracing::info!(target: "librados", "{text}"),
            _ => tracing::debug!(target: "librados", level, "{text}"),
        }
        if connected || level > 0 {
            return;
        }
        let mut errors = self.errors.lock();
        if !errors.contains(&text) {
            if errors.len() == SAID_MAX {
                errors.pop_front();
            }
            errors.push_back(text);
        }
    }
}

/// Level and text of a line such as `2026-11-24T00:42:29.296+0000 7f95f929e6c0 -1 auth: unable to find a keyring on …`.
/// Addresses of objects in memory are left out, so that the same is said the same way.
fn parse(line: &str) -> (i32, String) {
    let line = line.trim();
    let mut words = line.splitn(3, ' ');
    let head = (words.next(), words.next(), words.next());
    let (level, text) = match head {
        (Some(date), Some(_), Some(rest)) if date.contains('T') => {
            let (level, text) = rest.trim_start().split_once(' ').unwrap_or_default();
            level.parse().map_or((1, line), |level| (level, text))
        }
        // The rest of a message of several lines.
        _ => (1, line),
    };
    let mut out = String::new();
    let mut left = text;
    while let Some((before, after)) = left.split_once("(0x") {
        out += before;
        left = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out += left;
    (level, out.chars().take(SAID_CHARS).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn settings(conf: &Path) -> PoolSettings {
        PoolSettings {
            conf: conf.to_owned(),
            user: "client.tierdav".into(),
            cache_pool: None,
            data_pool: "d".into(),
            namespace: "n".into(),
            op_timeout: Duration::from_secs(1),
        }
    }

    fn refused(conf: &Path) -> AttachError {
        Live::connect(&settings(conf), &Arc::default())
            .err()
            .unwrap()
    }

    #[test]
    fn a_configuration_file_that_cannot_be_used_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let garbage = dir.path().join("garbage.conf");
        std::fs::write(&garbage, "no section [").unwrap();
        for conf in [Path::new("/nonexistent/ceph.conf"), &garbage] {
            let error = refused(conf);
            assert!(
                error.to_string().contains(conf.to_str().unwrap()),
                "{error}"
            );
            assert!(!error.may_pass());
        }
    }

    #[test]
    fn a_missing_key_is_waited_for_and_told_in_librados_words() {
        let dir = tempfile::tempdir().unwrap();
        let (conf, keyring) = (dir.path().join("ceph.conf"), dir.path().join("absent"));
        let text = format!(
            "[global]\nmon host = v1:127.0.0.1:1\nauth client required = cephx\nkeyring = {}\n",
            keyring.display()
        );
        std::fs::write(&conf, text).unwrap();
        let error = refused(&conf);
        assert!(error.may_pass());
        let error = error.to_string();
        let keyring = keyring.display();
        for part in [
            "no key for this user".to_owned(),
            format!("librados says: auth: unable to find a keyring on {keyring}"),
            "monitors v1:127.0.0.1:1".into(),
            format!("keyring {keyring}"),
            format!("by {}", conf.display()),
            "user client.tierdav".into(),
        ] {
            assert!(error.contains(&part), "{part:?} is not in {error}");
        }
    }

    #[test]
    fn lines_of_the_log_are_taken_apart() {
        let line = "2026-11-24T00:42:29.296+0000 7f95f929e6c0 -1 AuthRegistry(0x7f95f005a2b0) no keyring found\n";
        assert_eq!(parse(line), (-1, "AuthRegistry no keyring found".into()));
        let line = "2026-11-24T00:42:25.292+0000 7f979a4166c0  0 monclient(hunting): authenticate timed out after 10";
        let text = "monclient(hunting): authenticate timed out after 10";
        assert_eq!(parse(line), (0, text.into()));
        for odd in ["", " ", "x", "one two three four five", "2026T 1"] {
            assert_eq!(parse(odd), (1, odd.trim().to_owned()));
        }
        assert_eq!(parse(&"y".repeat(1000)).1.len(), SAID_CHARS);
    }
}
