//! Ctrl-C and SIGTERM, heard instead of ending the process.

use futures_util::FutureExt;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// timeout(1) signals the process and then its group: that is once.
const ONCE: Duration = Duration::from_millis(500);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Termination,
}

impl Heard {
    /// What a program that it ended exits with.
    pub fn status(self) -> i32 {
        match self {
            Heard::Interrupt => 130,
            Heard::Termination => 143,
        }
    }
}

/// What comes from the moment on at which this is made. From then on neither ends the process.
#[derive(Debug)]
pub struct Signals {
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    /// Listens. Belongs to the runtime in which it is made.
    ///
    /// # Errors
    /// When the system has no room for the handlers.
    pub fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupts: signal(SignalKind::interrupt())?,
            terminations: signal(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupts.recv() => Heard::Interrupt,
            _ = self.terminations.recv() => Heard::Termination,
        }
    }

    /// The next one after one that was heard just now, and that is not the same one once more.
    pub async fn again(&mut self) -> Heard {
        tokio::time::sleep(ONCE).await;
        // By when each came, not by when it is looked at: a busy machine looks late.
        while self.next().now_or_never().is_some() {}
        self.next().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn what_came_within_half_a_second_is_the_first_one_however_late_it_is_looked_at() {
        let mut signals = Signals::new().unwrap();
        let mut witness = signal(SignalKind::interrupt()).unwrap();
        let mut again = Box::pin(signals.again());
        assert_eq!((&mut again).now_or_never(), None);
        kill_process(getpid(), Signal::INT).unwrap();
        witness.recv().await;
        // Nothing runs for a while, as on a busy machine.
        std::thread::sleep(ONCE * 2);
        let late = tokio::time::timeout(Duration::from_millis(50), &mut again).await;
        assert!(late.is_err(), "{late:?}");
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(again.await, Heard::Interrupt);
    }
}
