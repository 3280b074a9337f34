//! Runs a plan: makes what existed before, sends the requests in order, reads back what is left.

mod phase;
mod turns;

use crate::calls::Calls;
use crate::client::{Connection, Target};
use crate::exchange::{Shared, Verify};
use crate::model;
use crate::plan::{Expect, Kind, NO_HANDLE, Plan, Request};
use crate::report::Report;
use phase::phase;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tiering::sim::Device;
use tokio::sync::watch;

/// How fast requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// At the recorded times, divided by this.
    Timed(f64),
    /// As fast as order and connections allow.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;
    fn from_str(text: &str) -> Result<Speed, String> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Speed::Timed(factor)),
            _ => Err(format!("`{text}` is neither `max` nor a number above 0")),
        }
    }
}

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Timing.
    pub speed: Speed,
    /// Connections, and so requests under way at once.
    pub clients: usize,
    /// Seed of the content.
    pub seed: u64,
    /// What to compare.
    pub verify: Verify,
    /// Whether progress goes to standard error.
    pub progress: bool,
    /// Start nothing more after this much of the replay.
    pub duration: Option<Duration>,
    /// What starts in this first part of the replay is counted apart.
    pub warmup: Duration,
    /// Shell command that runs between the set-up and the replay; when it fails, nothing is replayed.
    pub after_set_up: Option<String>,
    /// Start nothing more once this is true.
    pub interrupt: Option<watch::Receiver<bool>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            speed: Speed::Max,
            clients: 8,
            seed: 1,
            verify: Verify::All,
            progress: false,
            duration: None,
            warmup: Duration::ZERO,
            after_set_up: None,
            interrupt: None,
        }
    }
}

/// What a replay runs on.
#[derive(Debug, Clone)]
pub enum On {
    /// A WebDAV server.
    Http(Target),
    /// A directory, for a plan of calls.
    Dir(PathBuf),
    /// A device that is calculated.
    Model(Device),
}

impl From<Target> for On {
    fn from(target: Target) -> On {
        On::Http(target)
    }
}

/// Who carries requests out.
#[derive(Clone)]
enum Engine {
    Http(Arc<Shared>),
    Calls(Arc<Calls>),
}

/// Why and where a run ended before its plan did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Partial {
    /// `--duration` or an interrupt.
    pub because: &'static str,
    /// Requests that were never started.
    pub not_started: u64,
}

/// Replays `plan` against `target`.
pub async fn run(plan: Plan, on: impl Into<On>, options: Options) -> Report {
    crate::calls::raise_descriptor_limit();
    let on = on.into();
    let mut report = Report::new(&plan, &options, &on);
    let mut plan = plan;
    let requests = std::mem::take(&mut plan.requests);
    let waits = std::mem::take(&mut plan.waits);
    let calls = matches!(on, On::Dir(_));
    let set_up = existing_requests(&plan, calls);
    let read_back = remaining_requests(&plan, calls);
    let plan = Arc::new(plan);
    let (seed, verify) = (options.seed, options.verify);
    let engine = match on {
        On::Http(target) => {
            let mut shared = Shared::new(plan, target, seed, verify);
            shared.interrupt.clone_from(&options.interrupt);
            Engine::Http(Arc::new(shared))
        }
        On::Dir(root) => Engine::Calls(Arc::new(Calls::new(plan, &root, seed, verify))),
        On::Model(device) => {
            let done = model::calculate(&requests, &waits, device, &options);
            (report.warm_up, report.replay, report.partial) =
                (done.warm_up, done.summary, done.partial);
            return report;
        }
    };
    let unbounded = Options {
        speed: Speed::Max,
        duration: None,
        warmup: Duration::ZERO,
        ..options.clone()
    };
    let chain = set_up
        .iter()
        .enumerate()
        .map(|(i, _)| chained(&set_up, i))
        .collect();
    let done = phase(&engine, set_up, chain, &unbounded, "set-up").await;
    (report.set_up, report.partial) = (done.summary, done.partial);
    if let Some(command) = &options.after_set_up
        && report.set_up.is_clean()
        && report.partial.is_none()
        && let Err(why) = carry_out(command.clone()).await
    {
        report.set_up.fail(format!("`{command}`: {why}"));
    }
    if report.set_up.is_clean() && report.partial.is_none() {
        let done = phase(&engine, requests, waits, &options, "replay").await;
        (report.warm_up, report.replay, report.partial) =
            (done.warm_up, done.summary, done.partial);
        // What a run that was cut short leaves behind is no state of the plan's end.
        if options.verify == Verify::All && report.partial.is_none() {
            let free = vec![Vec::new(); read_back.len()];
            let done = phase(&engine, read_back, free, &unbounded, "read back").await;
            (report.read_back, report.partial) = (done.summary, done.partial);
        }
    }
    report
}

/// Runs `command` by the shell, its output on standard error.
async fn carry_out(command: String) -> Result<(), String> {
    let run = move || {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).stdout(std::io::stderr());
        match shell.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(status.to_string()),
            Err(e) => Err(e.to_string()),
        }
    };
    let done = tokio::task::spawn_blocking(run).await;
    done.unwrap_or_else(|e| Err(e.to_string()))
}

fn plain(kind: Kind, path: u32, content: Option<u32>, length: u64) -> Request {
    let expect = Expect::Success;
    Request {
        at_us: 0,
        lane: 0,
        client: u32::MAX,
        kind,
        path,
        path2: path,
        content,
        offset: 0,
        length,
        creates: kind == Kind::Write,
        handle: NO_HANDLE,
        writable: kind == Kind::Write,
        expect,
    }
}

pub(crate) fn existing_requests(plan: &Plan, calls: bool) -> Vec<Request> {
    let (write, mkdir) = if calls {
        (Kind::Write, Kind::Mkdir)
    } else {
        (Kind::Put, Kind::Mkcol)
    };
    plan.existing
        .iter()
        .map(|e| match e.content {
            Some(content) => plain(
                write,
                e.path,
                Some(content),
                plan.contents[content as usize].len(),
            ),
            None => plain(mkdir, e.path, None, 0),
        })
        .collect()
}

/// Collections are made one after the other, files after the last collection.
fn chained(all: &[Request], index: usize) -> Vec<u32> {
    all[..index]
        .iter()
        .rposition(|r| matches!(r.kind, Kind::Mkcol | Kind::Mkdir))
        .map(|i| i as u32)
        .into_iter()
        .collect()
}

pub(crate) fn remaining_requests(plan: &Plan, calls: bool) -> Vec<Request> {
    plan.remaining
        .iter()
        .map(|&(path, content)| {
            plain(
                if calls { Kind::Read } else { Kind::Get },
                path,
                Some(content),
                plan.contents[content as usize].len(),
            )
        })
        .collect()
}

/// Makes the collections of the prefix; what is there already is fine. Without a prefix asks whether anyone is there.
pub async fn make_prefix(target: &Target) -> Result<(), String> {
    let mut connection = at_root(target);
    if target.prefix.is_empty() {
        bare(&mut connection, "OPTIONS", "").await?;
    }
    let mut path = String::new();
    for segment in target.prefix.split('/').filter(|s| !s.is_empty()) {
        path = format!("{path}/{segment}");
        let status = bare(&mut connection, "MKCOL", &path).await?;
        if !(200..300).contains(&status) && status != 405 {
            return Err(format!("MKCOL {path}: status {status}"));
        }
    }
    Ok(())
}

/// Removes the prefix's last collection with all that is in it; when it is gone already that is fine.
pub async fn remove_prefix(target: &Target) -> Result<(), String> {
    let path = &*target.prefix;
    let status = bare(&mut at_root(target), "DELETE", path).await?;
    if (200..300).contains(&status) || status == 404 {
        return Ok(());
    }
    Err(format!("DELETE {path}: status {status}"))
}

fn at_root(target: &Target) -> Connection {
    Connection::new(Target {
        prefix: "".into(),
        ..target.clone()
    })
}

/// A request for a collection, without a body; gives the status.
async fn bare(connection: &mut Connection, method: &str, path: &str) -> Result<u16, String> {
    connection.begin(method, format_args!("{path}/"));
    let answer = connection.send(()).await.map_err(|e| e.to_string())?;
    let status = answer.status;
    let _ = connection.skip_body().await;
    Ok(status)
}
