//! What the ways of sharing came to.

use super::balance::Share;
use crate::info::human;
use crate::read::Unusable;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What one side did in a run.
#[derive(Debug, Default, Clone, Serialize)]
pub struct SideOutcome {
    /// Parts of the load.
    pub parts: u64,
    /// Calls or requests.
    pub operations: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// When its last part ended, from the begin of the run.
    pub through_us: u64,
    /// What failed or differed.
    pub failures: u64,
    /// The first of those.
    pub examples: Vec<String>,
}

impl SideOutcome {
    /// Adds another worker of the same side.
    pub fn add(&mut self, other: SideOutcome) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.through_us = self.through_us.max(other.through_us);
        self.failures += other.failures;
        self.examples.extend(other.examples);
    }
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// `auto`, or the device's part from 0 to 1.
    pub share: String,
    /// Until both sides were through.
    pub makespan_us: u64,
    /// Calls on the directory.
    pub device: SideOutcome,
    /// Requests to the server.
    pub pod: SideOutcome,
}

/// All runs.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Entries of the trace.
    pub entries: u64,
    /// Parts that need nothing of each other.
    pub parts: u64,
    /// Entries that belong to no part, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Lines of the trace that could not be used.
    pub unusable: Unusable,
    /// The runs, in their order.
    pub outcomes: Vec<Outcome>,
}

impl Results {
    /// Whether nothing failed and nothing differed.
    pub fn is_clean(&self) -> bool {
        let clean = |o: &Outcome| o.device.failures + o.pod.failures == 0;
        self.outcomes.iter().all(clean)
    }

    /// The run of the median makespan for each way, in the order of the first.
    pub fn medians<'a>(&'a self) -> Vec<&'a Outcome> {
        let mut ways: Vec<Vec<&'a Outcome>> = Vec::new();
        for outcome in &self.outcomes {
            match ways.iter_mut().find(|w| w[0].share == outcome.share) {
                Some(way) => way.push(outcome),
                None => ways.push(vec![outcome]),
            }
        }
        let median = |way: &mut Vec<&'a Outcome>| {
            way.sort_by_key(|o| o.makespan_us);
            way.swap_remove((way.len() - 1) / 2)
        };
        ways.iter_mut().map(median).collect()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let medians = self.medians();
        let seconds = |us: u64| us as f64 / 1e6;
        let alone = |share: f64| {
            let found = medians
                .iter()
                .find(|o| o.share.parse() == Ok(Share::Fixed(share)));
            found.map(|o| seconds(o.makespan_us))
        };
        let (device, pod) = (alone(1.0), alone(0.0));
        let _ = writeln!(
            out,
            "file operations: {} entries in {} parts, as fast as possible, durable on both sides",
            self.entries, self.parts
        );
        let _ = writeln!(
            out,
            "{:<14}{:>12}{:>12}{:>12}{:>12}{:>16}{:>16}",
            "way", "makespan s", "device s", "pod s", "failed", "on the device", "device alone /"
        );
        for outcome in &medians {
            let name = match outcome.share.parse() {
                Ok(Share::Auto) => "adaptive".to_string(),
                Ok(Share::Fixed(1.0)) => "device only".to_string(),
                Ok(Share::Fixed(0.0)) => "pod only".to_string(),
                _ => format!("fixed {}", outcome.share),
            };
            let moved = outcome.device.bytes + outcome.pod.bytes;
            let part = outcome.device.bytes as f64 / moved.max(1) as f64 * 100.0;
            let ratio = device.map(|d| format!("{:.2}", d / seconds(outcome.makespan_us)));
            let _ = writeln!(
                out,
                "{name:<14}{:>12.2}{:>12.2}{:>12.2}{:>12}{:>16}{:>16}",
                seconds(outcome.makespan_us),
                seconds(outcome.device.through_us),
                seconds(outcome.pod.through_us),
                outcome.device.failures + outcome.pod.failures,
                format!("{part:.1} % bytes"),
                ratio.unwrap_or_else(|| "-".into())
            );
        }
        if let (Some(device), Some(pod)) = (device, pod) {
            let _ = writeln!(
                out,
                "a division without a remainder, each side at the rate it has alone: {:.2} s",
                device * pod / (device + pod)
            );
        }
        if let Some(last) = medians.last() {
            let (device, pod) = (&last.device, &last.pod);
            let _ = writeln!(
                out,
                "last row: device {} calls, {}; pod {} requests, {}",
                device.operations,
                human(device.bytes),
                pod.operations,
                human(pod.bytes)
            );
        }
        for (why, count) in &self.left_out {
            let _ = writeln!(out, "{count:>9}  {why}");
        }
        if self.unusable.lines > 0 {
            let _ = writeln!(out, "{:>9}  lines not usable", self.unusable.lines);
        }
        for outcome in &self.outcomes {
            for example in outcome.device.examples.iter().chain(&outcome.pod.examples) {
                let _ = writeln!(out, "FAILED (share {}) {example}", outcome.share);
            }
        }
        out
    }
}
