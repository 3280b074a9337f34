//! What a search found, for people, for scripts and for the gateway.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use serde::Serialize;
use tiering::PolicyConfig;

use super::Objective;
use super::case::{Case, Ratio};
use super::search::{Found, front};
use super::space::Space;
use crate::parallel;
use crate::simulate::Candidate;

/// Lines of the front that are printed.
const LINES: usize = 12;

/// One row of the front: costs as multiples of what the defaults cost, each in the case in which it is worst.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) parameters: BTreeMap<&'static str, f64>,
    #[serde(flatten)]
    pub(super) costs: Costs,
}

/// The best settings on one trace, as multiples of what the defaults cost there.
#[derive(Serialize)]
pub(super) struct OnCase {
    pub(super) case: String,
    pub(super) seen: Costs,
    pub(super) held_out: Costs,
}

/// What settings cost, and the one number of it that the search is for.
#[derive(Serialize)]
pub(super) struct Costs {
    pub(super) latency: f64,
    pub(super) hdd_time: f64,
    pub(super) bytes_moved: f64,
    pub(super) score: f64,
}

fn costs(ratio: Ratio, objective: Objective) -> Costs {
    Costs {
        latency: ratio.latency,
        hdd_time: ratio.hdd_time,
        bytes_moved: ratio.bytes_moved,
        score: ratio.by(objective),
    }
}

/// Each cost in the case in which it is worst; the score is that of the case whose score is worst.
fn worst(found: &Found, objective: Objective) -> Costs {
    Costs {
        score: found.score,
        ..costs(found.worst, objective)
    }
}

/// The result of a search.
#[derive(Serialize)]
pub struct Report {
    pub(super) policy: String,
    objective: Objective,
    /// Settings simulated, those on samples included.
    pub(super) tried: usize,
    /// What is better than the defaults, if anything.
    best: BTreeMap<&'static str, f64>,
    pub(super) front: Vec<Row>,
    pub(super) cases: Vec<OnCase>,
    /// What was tried on all cases, for the chart.
    #[serde(skip)]
    pub(super) all: Vec<Costs>,
    #[serde(skip)]
    config: PolicyConfig,
}

fn parameters(config: &PolicyConfig) -> BTreeMap<&'static str, f64> {
    let all = config.parameters();
    all.filter_map(|p| Some((p.name, config.get(p.name)?)))
        .collect()
}

/// A size for people.
pub fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / 1_048_576.0)
}

impl Report {
    /// Tries the best of `all` on what the search has not seen.
    pub fn new(
        policy: &Candidate,
        objective: Objective,
        cases: &[Case],
        all: &[Found],
        tried: usize,
    ) -> anyhow::Result<Report> {
        let best = all.first().context("no settings were simulated")?;
        let (old, new) = (&policy.config, &best.config);
        let on_cases = parallel::map(cases, |case| {
            let seen = case.seen(new, 1.0)?.over(&case.seen(old, 1.0)?);
            let held_out = case.held_out(new)?.over(&case.held_out(old)?);
            Ok(OnCase {
                case: case.name.clone(),
                seen: costs(seen, objective),
                held_out: costs(held_out, objective),
            })
        });
        let rows = front(all).into_iter().map(|found| Row {
            parameters: parameters(&found.config),
            costs: worst(found, objective),
        });
        Ok(Report {
            policy: policy.label.clone(),
            objective,
            tried,
            best: parameters(new),
            front: rows.collect(),
            cases: on_cases.into_iter().collect::<anyhow::Result<_>>()?,
            all: all.iter().map(|found| worst(found, objective)).collect(),
            config: new.clone(),
        })
    }

    /// Of all cases the worst score, on what was seen and on what was held out.
    fn worst(&self) -> (f64, f64) {
        let worst = |of: fn(&OnCase) -> f64| self.cases.iter().map(of).fold(0.0, f64::max);
        (worst(|c| c.seen.score), worst(|c| c.held_out.score))
    }

    /// Settings of the gateway.
    pub fn toml(&self) -> String {
        let (seen, held_out) = self.worst();
        let mut out = String::from("# Found by trace-replay tune");
        for case in &self.cases {
            let _ = write!(out, "\n#   {}", case.case.replace(char::is_control, "?"));
        }
        let _ = writeln!(
            out,
            "\n# Cost ({}), worst case, defaults 1: {seen:.3}; on the held-out last third: {held_out:.3}\npolicy = \"{}\"",
            self.objective_name(),
            self.config.name()
        );
        for p in self.config.parameters() {
            let value = self.config.get(p.name).unwrap_or(p.default);
            if p.tune.is_some() || value != p.default {
                let text = p.text(value);
                let quoted = text.ends_with('B');
                let text = if quoted { format!("\"{text}\"") } else { text };
                let _ = writeln!(out, "{} = {text}", p.key);
            }
        }
        out
    }

    pub(super) fn objective_name(&self) -> &'static str {
        match self.objective {
            Objective::Latency => "latency",
            Objective::HddTime => "hdd-time",
            Objective::BytesMoved => "bytes-moved",
            Objective::Weighted => "weighted",
        }
    }

    /// Everything, for people.
    pub fn text(&self, space: &Space) -> String {
        let mut out = format!(
            "{}, {}: {} settings simulated. Costs are multiples of what the settings at the beginning cost.\n\n\
             Not beaten in everything, each number from the trace where it is worst:\n{:>8} {:>8} {:>8} {:>8}",
            self.policy,
            self.objective_name(),
            self.tried,
            "cost",
            "latency",
            "HDD time",
            "moved"
        );
        let axes: Vec<_> = space.axes().collect();
        for p in &axes {
            let _ = write!(out, "  {}", p.name);
        }
        for row in self.front.iter().take(LINES) {
            let _ = write!(
                out,
                "\n{:>8.3} {:>8.3} {:>8.3} {:>8.3}",
                row.costs.score, row.costs.latency, row.costs.hdd_time, row.costs.bytes_moved
            );
            for p in &axes {
                let value = p.text(row.parameters.get(p.name).copied().unwrap_or(p.default));
                let _ = write!(out, "  {value:>width$}", width = p.name.len());
            }
        }
        if self.front.len() > LINES {
            let _ = write!(out, "\n({} more with --json)", self.front.len() - LINES);
        }
        let _ = write!(
            out,
            "\n\nThe first of these (cost: seen by the search, then the last third, not seen):\n"
        );
        for case in &self.cases {
            let (seen, held) = (&case.seen, &case.held_out);
            let _ = writeln!(
                out,
                "{:>8.3} {:>8.3}  (latency {:.3} {:.3}, HDD time {:.3} {:.3}, moved {:.3} {:.3})  {}",
                seen.score,
                held.score,
                seen.latency,
                held.latency,
                seen.hdd_time,
                held.hdd_time,
                seen.bytes_moved,
                held.bytes_moved,
                case.case
            );
        }
        let _ = writeln!(out, "{}\n\n{}", self.verdict(), self.toml().trim_end());
        out
    }

    /// Whether it helps, and where.
    pub(super) fn verdict(&self) -> &'static str {
        let (seen, held_out) = self.worst();
        if self.config.parameters().all(|p| p.tune.is_none()) {
            "This policy has no parameters to search: there is nothing to tune."
        } else if seen >= 1.0 {
            "Nothing better was found."
        } else if held_out >= 1.0 {
            "Over-fitted: on what the search had not seen it is no better. Keep what you have, or record for longer."
        } else {
            "It also helps on what the search had not seen."
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_score_is_of_one_case_and_not_of_the_worst_parts_of_several() {
        let found = Found {
            config: PolicyConfig::from_name("lru").unwrap(),
            // Slow in one case, busy in another: no case is both.
            worst: Ratio {
                latency: 2.0,
                hdd_time: 2.0,
                bytes_moved: 1.0,
            },
            score: 1.3,
        };
        let costs = worst(&found, Objective::Weighted);
        assert_eq!(
            (costs.latency, costs.hdd_time, costs.score),
            (2.0, 2.0, 1.3)
        );
    }
}
