//! strace beside us: its log comes through a pipe, and is converted while it is written.

use super::Args;
use crate::convert::Summary;
use crate::read::{self, Reader};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Room for what strace writes while we write: it stops the watched program when the pipe is full.
const PIPE_BYTES: usize = 1 << 20;

/// Runs strace; `convert` hears its log to the end. Gives the exit status of the command, too.
pub fn watch(
    args: &Args,
    convert: impl FnOnce(Box<dyn Reader>) -> anyhow::Result<Summary>,
) -> anyhow::Result<(Summary, u8)> {
    let (log, log_in) = std::io::pipe()?;
    // Unprivileged users have less; then strace waits more often.
    let _ = rustix::pipe::fcntl_setpipe_size(&log_in, PIPE_BYTES);
    let rest = log.try_clone()?;
    let input = Box::new(std::io::BufReader::new(log));
    let reader = read::strace_output(input, Path::new("strace's log"), &args.pid)
        .context("--pid: no process that can be watched")?;
    let mut command = command(args, &log_in);
    let duration = args.duration;
    let attached = !args.pid.is_empty();
    let supervisor = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let child = command
                .spawn()
                .context("strace cannot be run; install it (package strace)")?;
            // While this end is open the log has no end, even before strace opens it.
            let status = supervise(child, attached, duration).await;
            drop(log_in);
            status
        })
    });
    let summary = convert(reader);
    if summary.is_err() {
        drain(rest);
    }
    let status = match supervisor.join() {
        Ok(status) => status?,
        Err(_) => anyhow::bail!("the thread that watches strace ended early"),
    };
    let summary = summary?;
    if !status.success() && summary.written == 0 && summary.unusable.lines == 0 {
        anyhow::bail!("strace recorded nothing and ended with {status}; its message is above");
    }
    let code = status.code().or(status.signal().map(|s| 128 + s));
    let code = code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
    Ok((summary, if attached { 0 } else { code }))
}

fn command(args: &Args, log: &PipeWriter) -> Command {
    // Opened by its name in /proc, the pipe need not be inherited by whatever strace starts.
    let log = format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd());
    let calls: Vec<String> = read::STRACE_CALLS.iter().map(|c| format!("?{c}")).collect();
    let mut command = Command::new("strace");
    // Strings are left out (-s 0): names are never cut, content is not needed.
    command.args(["-f", "-q", "-ttt", "-T", "-s", "0"]);
    // Sockets are not looked up: each would cost a question to the kernel.
    command.arg("--decode-fds=path,dev");
    command.arg(format!("--trace={}", calls.join(",")));
    command.arg("-o").arg(log);
    for pid in &args.pid {
        command.arg("-p").arg(pid.to_string());
    }
    if !args.command.is_empty() {
        // Calls that are not asked for do not stop the program.
        command.arg("--seccomp-bpf").arg("--").args(&args.command);
    }
    command
}

async fn supervise(
    mut child: Child,
    attached: bool,
    duration: Option<Duration>,
) -> anyhow::Result<ExitStatus> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut asked = false;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            // Ctrl-C reaches a command by itself; its end is waited for.
            _ = interrupts.recv() => if attached { end(&child, attached) },
            _ = terminations.recv() => end(&child, attached),
            () = &mut over, if !asked => { asked = true; end(&child, attached) }
        }
    }
}

/// Asks strace to let go of what it is attached to, or the command to end.
fn end(child: &Child, attached: bool) {
    let Some(strace) = child.id() else { return };
    let pids = if attached {
        vec![strace]
    } else {
        let children = format!("/proc/{strace}/task/{strace}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|p| p.parse().ok())
            .collect()
    };
    for pid in pids {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // Gone already is what was wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// Reads on to the end: a log that nobody reads would stop the watched program.
fn drain(mut log: PipeReader) {
    let mut buffer = vec![0; 1 << 16];
    while log.read(&mut buffer).is_ok_and(|n| n > 0) {}
}
