//! strace beside us: its log comes through a pipe, and is converted while it is written.

use super::Args;
use super::end::{self, Cause};
use crate::convert::Summary;
use crate::read::{self, Reader};
use crate::signals::Signals;
use anyhow::Context;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use tokio::process::Command;

/// Room for what strace writes while we write: it stops the watched program when the pipe is full.
const PIPE_BYTES: usize = 1 << 20;

/// Runs strace; `convert` hears its log to the end. What cannot be followed is told of files beneath `within`. Gives the exit status of the command, too.
pub fn watch(
    args: &Args,
    within: &[String],
    convert: impl FnOnce(Box<dyn Reader>) -> anyhow::Result<Summary>,
) -> anyhow::Result<(Summary, u8)> {
    let (log, log_in) = std::io::pipe()?;
    // Unprivileged users have less; then strace waits more often.
    let _ = rustix::pipe::fcntl_setpipe_size(&log_in, PIPE_BYTES);
    let rest = log.try_clone()?;
    let input = Box::new(std::io::BufReader::new(log));
    let reader = read::strace_output(input, Path::new("strace's log"), &args.pid, within)
        .context("--pid: no process that can be watched")?;
    let mut command = command(args, &log_in);
    let duration = args.duration;
    let attached = !args.pid.is_empty();
    let supervisor = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let signals = Signals::new()?;
            let child = command
                .spawn()
                .context("strace cannot be run; install it (package strace)")?;
            // While this end is open the log has no end, even before strace opens it.
            let id = child.id();
            let end = |cause| ask(id, attached, cause);
            let status = end::supervise(child, duration, signals, end).await;
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
    let nothing = summary.written == 0 && summary.left_out.is_empty();
    if !status.success() && nothing && summary.unusable.lines == 0 {
        anyhow::bail!("strace recorded nothing and ended with {status}; its message is above");
    }
    let code = if attached { 0 } else { end::code(status) };
    Ok((summary, code))
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

/// Asks strace to let go of what it is attached to, or the command to end.
fn ask(strace: Option<u32>, attached: bool, cause: Cause) {
    let Some(strace) = strace else { return };
    if attached {
        end::terminate(strace);
    } else if cause == Cause::Term {
        let children = format!("/proc/{strace}/task/{strace}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|p| p.parse().ok());
        pids.for_each(end::terminate);
    }
}

/// Reads on to the end: a log that nobody reads would stop the watched program.
fn drain(mut log: PipeReader) {
    let mut buffer = vec![0; 1 << 16];
    while log.read(&mut buffer).is_ok_and(|n| n > 0) {}
}
