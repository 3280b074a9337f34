//! How far a phase of a replay has come, for whoever waits for it.

use crate::cli;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Progress on standard error: one line rewritten on a terminal, a line every ten seconds elsewhere.
pub(crate) struct Progress {
    name: String,
    total: usize,
    shown: Instant,
    on: bool,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new(name: &str, total: usize, on: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            name: name.into(),
            total,
            shown: Instant::now(),
            on: on && total > 0,
            terminal,
        }
    }

    pub(crate) fn show(&mut self, done: usize, failures: u64, start: Instant) {
        let every = if self.terminal {
            Duration::from_millis(500)
        } else {
            Duration::from_secs(10)
        };
        if self.on && self.shown.elapsed() >= every {
            self.shown = Instant::now();
            self.line(done, failures, start);
        }
    }

    pub(crate) fn end(&mut self, done: usize, failures: u64, start: Instant) {
        if self.on {
            self.line(done, failures, start);
            if self.terminal {
                cli::tell(format_args!("\n"));
            }
        }
    }

    fn line(&self, done: usize, failures: u64, start: Instant) {
        let seconds = start.elapsed().as_secs_f64().max(1e-6);
        let rate = done as f64 / seconds;
        let left = (self.total - done) as f64 / rate.max(1e-6);
        let line = format!(
            "{}: {done}/{} requests, {rate:.0}/s, {failures} failed, {seconds:.0} s, {left:.0} s left",
            self.name, self.total
        );
        if self.terminal {
            cli::tell(format_args!("\r{line}\x1b[K"));
        } else {
            cli::tell(format_args!("{line}\n"));
        }
    }
}
