//! When a capture ends: its command, its time, or a signal.

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Child;

use crate::signals::{Heard, Signals};

/// Waits for the child where there is one, else for Ctrl-C, SIGTERM or the end of `duration`; gives the exit status to
/// end with. A child hears of SIGTERM and of the end of `duration` by SIGTERM; Ctrl-C reaches it by itself. `signals` is older
/// than the child, so that nothing ends the process between the two.
pub async fn wait(
    child: Option<Child>,
    duration: Option<Duration>,
    mut signals: Signals,
) -> anyhow::Result<u8> {
    match child {
        Some(child) => {
            let id = child.id();
            let end = |cause| {
                if cause == Cause::Term {
                    id.into_iter().for_each(terminate);
                }
            };
            let status = supervise(child, duration, signals, end).await?;
            Ok(code(status))
        }
        None => {
            tokio::select! {
                _ = signals.next() => {}
                () = over(duration) => {}
            }
            // Once more: at once, whatever is under way.
            tokio::spawn(async move {
                while signals.again().await != Heard::Interrupt {}
                std::process::exit(Heard::Interrupt.status());
            });
            Ok(0)
        }
    }
}

/// Why a child should end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, or the end of the time.
    Term,
}

/// Waits for the child, which came after `signals`; `end` asks it to end, for SIGTERM and after `duration`. Ctrl-C is not for us
/// to act on: the terminal sends it to all.
pub async fn supervise(
    mut child: Child,
    duration: Option<Duration>,
    mut signals: Signals,
    end: impl Fn(Cause),
) -> anyhow::Result<ExitStatus> {
    let over = over(duration);
    tokio::pin!(over);
    let mut asked = false;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            heard = signals.next() => end(match heard {
                Heard::Interrupt => Cause::Interrupt,
                Heard::Termination => Cause::Term,
            }),
            () = &mut over, if !asked => { asked = true; end(Cause::Term) }
        }
    }
}

async fn over(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Sends SIGTERM.
pub fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is what was wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The status as a shell gives it.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|s| 128 + s));
    code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1)
}
