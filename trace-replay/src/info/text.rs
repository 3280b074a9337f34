//! `info` as text.

use super::{Histogram, Info, human, share};
use crate::page::Unit;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Rows that tell how a level grew.
const STEPS: usize = 10;

impl Info {
    /// The page for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let pair = |sizes: [u64; 2]| format!("{} / {}", human(sizes[0]), human(sizes[1]));
        let rows = [
            ("level", self.level.to_string()),
            ("entries", self.entries.to_string()),
            (
                "duration",
                format!("{:.1} s", self.duration_us as f64 / 1e6),
            ),
            ("clients", self.clients.join(", ")),
            ("paths", self.paths.to_string()),
            ("bytes read", human(self.read_bytes)),
            ("bytes written", human(self.written_bytes)),
            (
                "working set",
                format!(
                    "{} in {} pieces of 4 MiB",
                    human(self.working_set_bytes),
                    self.pieces
                ),
            ),
            ("pieces never read", percent(self.never_read_share)),
            ("reads of a piece read before", percent(self.reread_share)),
            (
                "reads of a piece written here",
                percent(self.read_after_write_share),
            ),
            ("read size, p50 / p90", pair(self.read_size_bytes)),
            ("write size, p50 / p90", pair(self.write_size_bytes)),
            (
                "sequential reads / writes",
                format!(
                    "{} / {} ({} / {} of the bytes)",
                    percent(self.reads.sequential_share),
                    percent(self.writes.sequential_share),
                    percent(self.reads.sequential_bytes_share),
                    percent(self.writes.sequential_bytes_share)
                ),
            ),
            (
                "bytes of reads and writes read",
                percent(share(self.read_bytes, self.read_bytes + self.written_bytes)),
            ),
            (
                "files made / of them gone",
                format!("{} / {}", self.lifetimes.born, self.lifetimes.died),
            ),
            (
                "written bytes gone by the end",
                format!(
                    "{} ({})",
                    human(self.lifetimes.died_bytes),
                    percent(self.lifetimes.died_bytes_share)
                ),
            ),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "{name:<31}{value}");
        }
        let _ = writeln!(
            out,
            "\n{:<12}{:>10}{:>8}{:>12}{:>12}{:>12}",
            "operation", "count", "failed", "bytes", "mean us", "max us"
        );
        for (op, i) in &self.operations {
            let bytes = if i.bytes == 0 {
                "-".into()
            } else {
                human(i.bytes)
            };
            let _ = writeln!(
                out,
                "{:<12}{:>10}{:>8}{:>12}{:>12}{:>12}",
                op.name(),
                i.count,
                i.failed,
                bytes,
                i.latency_us_mean,
                i.latency_us_max
            );
        }
        self.histograms(&mut out);
        self.growth(&mut out);
        self.paths(&mut out);
        if self.unusable.lines > 0 {
            let _ = writeln!(
                out,
                "\n{} lines could not be used, for example:",
                self.unusable.lines
            );
            for example in &self.unusable.examples {
                let _ = writeln!(out, "  {example}");
            }
        }
        out
    }

    /// Counts by powers of two, side by side where the unit is the same.
    fn histograms(&self, out: &mut String) {
        let bytes: fn(u64) -> String = human;
        let sizes = [
            ("reads", &self.reads.size_bytes),
            ("writes", &self.writes.size_bytes),
        ];
        table(out, "size of one", bytes, &sizes);
        let reuse = [
            ("reads", &self.reads.reuse_bytes),
            ("writes", &self.writes.reuse_bytes),
        ];
        table(out, "reuse distance of", bytes, &reuse);
        let _ = writeln!(
            out,
            "{:<28}{:>10}{:>10}",
            "first use", self.reads.first_uses, self.writes.first_uses
        );
        let times = [
            ("gaps", &self.gap_us),
            ("lifetimes", &self.lifetimes.lifetime_us),
        ];
        table(out, "between starts, and of files", duration, &times);
    }

    fn growth(&self, out: &mut String) {
        let over = &self.over_time;
        if over.intervals.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "\n{:<12}{:>12}{:>12}{:>12}{:>12}{:>12}",
            "until", "operations", "read", "written", "touched", "living"
        );
        let step = over.intervals.len().div_ceil(STEPS);
        for (index, part) in over.intervals.chunks(step).enumerate() {
            let Some(last) = part.last() else { continue };
            let until_us =
                ((index * step + part.len()) as u64 * over.interval_us).min(self.duration_us);
            let _ = writeln!(
                out,
                "{:<12}{:>12}{:>12}{:>12}{:>12}{:>12}",
                duration(until_us),
                part.iter().map(|i| i.operations).sum::<u64>(),
                human(part.iter().map(|i| i.read_bytes).sum()),
                human(part.iter().map(|i| i.written_bytes).sum()),
                human(last.touched_bytes),
                human(last.living_bytes)
            );
        }
    }

    fn paths(&self, out: &mut String) {
        if self.hottest.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "\n{:>10}{:>10}{:>12}{:>12}  hottest paths",
            "reads", "writes", "read", "written"
        );
        for hot in &self.hottest {
            let _ = writeln!(
                out,
                "{:>10}{:>10}{:>12}{:>12}  {}",
                hot.reads,
                hot.writes,
                human(hot.read_bytes),
                human(hot.written_bytes),
                // A terminal would obey what a path may hold.
                hot.path.escape_debug()
            );
        }
    }
}

/// One row for each bucket that any of the histograms has.
fn table(out: &mut String, name: &str, unit: fn(u64) -> String, columns: &[(&str, &Histogram)]) {
    let buckets = columns.iter().flat_map(|(_, h)| h.buckets());
    let rows: BTreeMap<u64, u64> = buckets.map(|b| (b.from, b.below)).collect();
    if rows.is_empty() {
        return;
    }
    let heads: String = columns
        .iter()
        .map(|(head, _)| format!("{head:>10}"))
        .collect();
    let _ = writeln!(out, "\n{name:<28}{heads}");
    for (from, below) in rows {
        let count = |h: &Histogram| h.buckets().find(|b| b.from == from).map_or(0, |b| b.count);
        let counts: String = columns
            .iter()
            .map(|(_, h)| format!("{:>10}", count(h)))
            .collect();
        let label = match from {
            0 => "0".to_string(),
            _ => format!("{} to {}", unit(from), unit(below)),
        };
        let _ = writeln!(out, "{label:<28}{counts}");
    }
}

/// Microseconds with a unit, for people.
fn duration(us: u64) -> String {
    Unit::Seconds.text(us as f64 / 1e6)
}
