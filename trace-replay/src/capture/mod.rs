//! `trace-replay capture`: a trace of what happens now, by strace or by a proxy.

mod end;
mod proxy;
mod record;
mod strace;

use crate::convert::{Output, Summary, describe};
use crate::read::{ReadError, Reader, Unusable};
use crate::signals::Signals;
use crate::trace::{Entry, Level, is_beneath};
use crate::write;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Examples of the command's help; a test runs them.
pub const EXAMPLES: &str = "Examples:
  what a command does with files:
    trace-replay capture -o /tmp/copy.csv -- cp fixtures/es/smoke.csv.xz /tmp/copy
  only beneath one directory, at most a minute:
    trace-replay capture -o /tmp/sh.csv --within /tmp --duration 60 -- sh -c 'echo a > /tmp/a; cat /tmp/a; rm /tmp/a'
  a process that runs, until Ctrl-C:
    trace-replay capture -o es.csv --pid 1234 --within /var/lib/elasticsearch
  WebDAV requests to any server, here while one command runs:
    trace-replay capture -o /tmp/dav.csv --proxy 127.0.0.1:0=http://127.0.0.1:4918 -- sleep 0.1";

/// Arguments of `trace-replay capture`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the trace goes. It appears under this name when it is complete.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Format of the output; else it is told by the name's end, as for `convert`.
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Option<write::Format>,
    /// A process to watch with all its threads, until it ends or Ctrl-C. May be repeated.
    #[arg(long, value_name = "PID", conflicts_with = "command")]
    pid: Vec<u32>,
    /// Passes WebDAV requests on from LISTEN (host:port) to TARGET (http://host:port), and records those.
    ///
    /// Ends with Ctrl-C, or with the command if there is one.
    #[arg(long, value_name = "LISTEN=TARGET", conflicts_with_all = ["pid", "within"])]
    proxy: Option<proxy::Route>,
    /// Keeps operations beneath this directory only. May be repeated.
    #[arg(long, value_name = "DIR")]
    within: Vec<PathBuf>,
    /// Ends after this many seconds; a command is then sent SIGTERM.
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::seconds)]
    duration: Option<Duration>,
    /// The command to run and watch, with all processes it starts. With --proxy: to run beside it.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What a capture came to.
#[derive(Debug)]
pub struct Captured {
    /// What was written, and what could not be.
    pub summary: Summary,
    /// Exit status of the command that was watched; 0 without one.
    pub status: u8,
}

/// Why an operation is not in the trace.
const OUTSIDE: &str = "outside --within";

/// Captures until the command, the process or the time ends.
///
/// # Errors
/// When strace cannot be run, or the trace cannot be written.
pub fn capture(args: &Args) -> anyhow::Result<Captured> {
    if args.pid.is_empty() && args.command.is_empty() && args.proxy.is_none() {
        bail!(
            "nothing to capture: name a process with --pid, a server with --proxy, or a command after --"
        );
    }
    let within = args
        .within
        .iter()
        .map(|dir| root(dir))
        .collect::<Result<Vec<_>, _>>()?;
    let output = Output::create(&args.output, args.to)?;
    if let Some(route) = &args.proxy {
        let (summary, status) = through(route, args, &output)?;
        output.commit()?;
        return Ok(Captured { summary, status });
    }
    output.expect(Level::FileOperations)?;
    let (summary, status) = strace::watch(args, &within, |reader| {
        let mut within = Within {
            reader,
            roots: within.clone(),
            left_out: (0, String::new()),
        };
        let mut summary = output.fill(&mut within)?;
        let (count, first) = within.left_out;
        if count > 0 {
            summary.left_out.insert(OUTSIDE, count);
            summary.examples.insert(OUTSIDE, first);
        }
        Ok(summary)
    })?;
    output.commit()?;
    Ok(Captured { summary, status })
}

/// Records what passes a proxy; the command runs beside it.
fn through(route: &proxy::Route, args: &Args, output: &Output) -> anyhow::Result<(Summary, u8)> {
    let listener = route.bind()?;
    let (recorder, mut reader) = record::recorder();
    let (route, duration) = (route.clone(), args.duration);
    let command = args.command.split_first().map(|(name, rest)| {
        let mut command = tokio::process::Command::new(name);
        command.args(rest);
        command
    });
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let signals = Signals::new()?;
            let child = match command {
                Some(mut command) => {
                    let spawned = command.spawn();
                    Some(spawned.with_context(|| format!("{:?}", command.as_std().get_program()))?)
                }
                None => None,
            };
            let end = end::wait(child, duration, signals);
            route.serve(listener, recorder, end).await
        })
    });
    let summary = output.fill(&mut reader);
    // Requests that come after a failed write are passed on all the same.
    drop(reader);
    let status = match server.join() {
        Ok(status) => status?,
        Err(_) => bail!("the thread of the proxy ended early"),
    };
    Ok((summary?, status))
}

/// The directory as the trace names it; the command may be about to make it.
fn root(dir: &Path) -> anyhow::Result<String> {
    let real = match (std::fs::canonicalize(dir), dir.parent(), dir.file_name()) {
        (Err(e), Some(parent), Some(name)) if e.kind() == std::io::ErrorKind::NotFound => {
            let parent = match parent.as_os_str().is_empty() {
                true => Path::new("."),
                false => parent,
            };
            std::fs::canonicalize(parent).map(|parent| parent.join(name))
        }
        (real, ..) => real,
    };
    let real = real.map_err(|e| anyhow::anyhow!("--within {}: {e}", dir.display()))?;
    Ok(real.to_string_lossy().trim_matches('/').to_string())
}

/// Passes on what concerns a path beneath one of the roots, or all when there are none.
struct Within {
    reader: Box<dyn Reader>,
    roots: Vec<String>,
    /// How many operations, and the first of them.
    left_out: (u64, String),
}

impl Reader for Within {
    fn level(&self) -> Level {
        self.reader.level()
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        loop {
            let entry = match self.reader.next_entry()? {
                Ok(entry) => entry,
                Err(e) => return Some(Err(e)),
            };
            let takes = |path: &str| is_beneath(path, &self.roots);
            if takes(&entry.path) || entry.path2.as_deref().is_some_and(takes) {
                return Some(Ok(entry));
            }
            self.left_out.0 += 1;
            if self.left_out.0 == 1 {
                self.left_out.1 = describe(&entry);
            }
        }
    }

    fn unusable(&self) -> &Unusable {
        self.reader.unusable()
    }
}
