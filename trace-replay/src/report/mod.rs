//! What came of a run: latencies per operation, totals, failures.

mod percentiles;

use crate::exchange::{Done, Failure};
use crate::info::human;
use crate::plan::{Kind, Plan};
use crate::replay::{On, Options, Partial, Speed};
use crate::trace::Level;
use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Longest latency a histogram holds: one hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Messages kept.
const EXAMPLES: usize = 20;

/// Intervals that a series may have before two become one.
const INTERVALS_MAX: usize = 400;

/// What was finished in each interval of a phase.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Series {
    /// Length of an interval; doubles as the phase grows long.
    pub interval_us: u64,
    /// Requests finished in each.
    pub requests: Vec<u64>,
    /// Bytes moved by them.
    pub bytes: Vec<u64>,
    /// Sum of their latencies.
    pub latency_us_sum: Vec<u64>,
    /// The longest of them.
    pub latency_us_max: Vec<u64>,
}

impl Default for Series {
    fn default() -> Series {
        Series {
            interval_us: 10_000,
            requests: Vec::new(),
            bytes: Vec::new(),
            latency_us_sum: Vec::new(),
            latency_us_max: Vec::new(),
        }
    }
}

impl Series {
    fn add(&mut self, at_us: u64, bytes: u64, latency_us: u64) {
        while at_us / self.interval_us >= INTERVALS_MAX as u64 {
            self.halve();
        }
        let index = (at_us / self.interval_us) as usize;
        self.reach(index + 1);
        self.requests[index] += 1;
        self.bytes[index] += bytes;
        self.latency_us_sum[index] += latency_us;
        self.latency_us_max[index] = self.latency_us_max[index].max(latency_us);
    }

    /// Makes one interval of two.
    fn halve(&mut self) {
        let sums = [
            &mut self.requests,
            &mut self.bytes,
            &mut self.latency_us_sum,
        ];
        for values in sums {
            *values = values.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        let pairs = self.latency_us_max.chunks(2);
        self.latency_us_max = pairs.filter_map(|p| p.iter().max().copied()).collect();
        self.interval_us *= 2;
    }

    /// Has at least so many intervals.
    fn reach(&mut self, intervals: usize) {
        if self.requests.len() < intervals {
            self.requests.resize(intervals, 0);
            self.bytes.resize(intervals, 0);
            self.latency_us_sum.resize(intervals, 0);
            self.latency_us_max.resize(intervals, 0);
        }
    }

    /// Adds what others finished in the same time.
    fn merge(&mut self, mut other: Series) {
        while self.interval_us < other.interval_us {
            self.halve();
        }
        while other.interval_us < self.interval_us {
            other.halve();
        }
        self.reach(other.requests.len());
        let sums = [
            (&mut self.requests, &other.requests),
            (&mut self.bytes, &other.bytes),
            (&mut self.latency_us_sum, &other.latency_us_sum),
        ];
        for (mine, others) in sums {
            mine.iter_mut().zip(others).for_each(|(m, o)| *m += o);
        }
        let longest = self.latency_us_max.iter_mut().zip(&other.latency_us_max);
        longest.for_each(|(m, o)| *m = (*m).max(*o));
    }
}

/// Makes the directories that [`Report::write`] will need.
///
/// # Errors
/// When one cannot be made, with its name.
pub fn make_way(to: &Path) -> anyhow::Result<()> {
    if to.extension().is_some_and(|e| e == "json") {
        return crate::cli::make_way(to);
    }
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())
}

/// One operation's numbers.
struct Row {
    latency: Histogram<u64>,
    service: Histogram<u64>,
    failures: u64,
    bytes: u64,
}

impl Default for Row {
    fn default() -> Row {
        Row {
            latency: histogram(),
            service: histogram(),
            failures: 0,
            bytes: 0,
        }
    }
}

/// One phase of a run.
pub struct Summary {
    rows: BTreeMap<Kind, Row>,
    /// From the intended start of each request to its sending.
    late: Histogram<u64>,
    /// From the first request's intended start to the last answer.
    pub elapsed_us: u64,
    /// No answer, or a broken one.
    pub broken: u64,
    /// Answers with another status than recorded.
    pub wrong_status: u64,
    /// Answers with other content than was written.
    pub wrong_content: u64,
    /// Answers 503 that were tried again.
    pub retried: u64,
    /// Requests that had nothing to send any more (UNLOCK of a lock that is gone).
    pub skipped: u64,
    series: Series,
    examples: Vec<String>,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary {
            rows: BTreeMap::new(),
            late: histogram(),
            elapsed_us: 0,
            broken: 0,
            wrong_status: 0,
            wrong_content: 0,
            retried: 0,
            skipped: 0,
            series: Series::default(),
            examples: Vec::new(),
        }
    }
}

impl Summary {
    /// Whether everything went as recorded.
    pub fn is_clean(&self) -> bool {
        self.failures() == 0
    }

    /// Failures of every kind.
    pub fn failures(&self) -> u64 {
        self.broken + self.wrong_status + self.wrong_content
    }

    /// Notes a failure of the run itself.
    pub fn fail(&mut self, message: String) {
        self.broken += 1;
        self.examples.push(message);
    }

    /// Adds one finished request: when it ended in this phase, its latency from the intended start, and from the
    /// sending.
    pub fn add(&mut self, kind: Kind, ended_us: u64, latency_us: u64, service_us: u64, done: Done) {
        self.retried += u64::from(done.retried);
        if done.skipped {
            self.skipped += 1;
            return;
        }
        let row = self.rows.entry(kind).or_default();
        row.latency.saturating_record(latency_us.max(1));
        row.service.saturating_record(service_us.max(1));
        self.late
            .saturating_record(latency_us.saturating_sub(service_us));
        row.bytes += done.bytes;
        self.series.add(ended_us, done.bytes, latency_us);
        if let Some(failure) = done.failure {
            row.failures += 1;
            let (counter, message) = match failure {
                Failure::Broken(message) => (&mut self.broken, message),
                Failure::Status(message) => (&mut self.wrong_status, message),
                Failure::Content(message) => (&mut self.wrong_content, message),
            };
            *counter += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(message);
            }
        }
    }

    /// Adds what others did in the same phase.
    pub fn merge(&mut self, other: Summary) {
        for (kind, row) in other.rows {
            let mine = self.rows.entry(kind).or_default();
            // All histograms have the same bounds.
            let _ = mine.latency.add(&row.latency);
            let _ = mine.service.add(&row.service);
            mine.failures += row.failures;
            mine.bytes += row.bytes;
        }
        let _ = self.late.add(&other.late);
        self.elapsed_us = self.elapsed_us.max(other.elapsed_us);
        self.broken += other.broken;
        self.wrong_status += other.wrong_status;
        self.wrong_content += other.wrong_content;
        self.retried += other.retried;
        self.skipped += other.skipped;
        self.series.merge(other.series);
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    fn bytes(&self, kinds: &[Kind]) -> u64 {
        kinds
            .iter()
            .filter_map(|k| self.rows.get(k))
            .map(|r| r.bytes)
            .sum()
    }

    fn requests(&self) -> u64 {
        self.rows.values().map(|r| r.latency.len()).sum()
    }

    /// Failure messages, the first of them.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    fn json(&self) -> Value {
        let operations: serde_json::Map<String, Value> = self
            .rows
            .iter()
            .map(|(kind, row)| {
                let value = json!({
                    "count": row.latency.len(), "failures": row.failures, "bytes": row.bytes,
                    "latency_us": quantiles(&row.latency), "service_us": quantiles(&row.service),
                    "latency_cdf": percentiles::cdf(&row.latency),
                });
                (kind.name().to_string(), value)
            })
            .collect();
        json!({
            "requests": self.requests(), "elapsed_us": self.elapsed_us, "broken": self.broken,
            "wrong_status": self.wrong_status, "wrong_content": self.wrong_content, "retried_503": self.retried,
            "skipped": self.skipped, "late_us": quantiles(&self.late), "read_bytes": self.bytes(READS), "written_bytes": self.bytes(WRITES),
            "operations": operations, "series": self.series, "examples": self.examples,
        })
    }
}

const READS: &[Kind] = &[Kind::Get, Kind::GetIfChanged, Kind::Read];
const WRITES: &[Kind] = &[Kind::Put, Kind::PutRange, Kind::Write];

/// Three digits of precision, growing as needed up to [`LATENCY_US_MAX`].
fn histogram() -> Histogram<u64> {
    // Three digits are always accepted (the limit is five).
    #[expect(clippy::unwrap_used, reason = "constant arguments, checked by a test")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).unwrap()
}

fn quantiles(h: &Histogram<u64>) -> Value {
    let q = |q| h.value_at_quantile(q);
    json!({ "mean": h.mean(), "p50": q(0.5), "p90": q(0.9), "p99": q(0.99), "p99.9": q(0.999), "max": h.max() })
}

/// A whole run.
pub struct Report {
    level: Level,
    speed: Speed,
    clients: usize,
    seed: u64,
    entries: u64,
    not_sent: BTreeMap<&'static str, u64>,
    unusable: crate::read::Unusable,
    target: String,
    /// What else was asked for, by name: for `compare`.
    pub settings: Value,
    /// Which tier answered, where the target says so.
    pub tiers: Option<crate::tiers::Tiers>,
    /// Why the run ended before its plan did.
    pub partial: Option<Partial>,
    /// What came before the measured part.
    pub warm_up: Summary,
    /// What existed before the trace.
    pub set_up: Summary,
    /// The trace itself.
    pub replay: Summary,
    /// What was left at its end.
    pub read_back: Summary,
}

impl Report {
    /// Nothing ran yet.
    pub fn new(plan: &Plan, options: &Options, on: &On) -> Report {
        Report {
            level: plan.level,
            speed: options.speed,
            clients: options.clients,
            seed: options.seed,
            entries: plan.entries,
            not_sent: plan.not_sent.clone(),
            unusable: plan.unusable.clone(),
            target: match on {
                On::Http(target) => format!("{}{}", target.origin(), target.prefix),
                On::Dir(root) => format!("dir:{}", root.display()),
                On::Model(device) => {
                    format!("model:{},{}", device.seek_ms, device.transfer_mib_per_s)
                }
            },
            settings: Value::Null,
            tiers: None,
            partial: None,
            warm_up: Summary::default(),
            set_up: Summary::default(),
            replay: Summary::default(),
            read_back: Summary::default(),
        }
    }

    /// Whether nothing failed and nothing differed.
    pub fn is_clean(&self) -> bool {
        self.set_up.is_clean()
            && self.warm_up.is_clean()
            && self.replay.is_clean()
            && self.read_back.is_clean()
    }

    fn speed(&self) -> String {
        match self.speed {
            Speed::Max => "max".into(),
            Speed::Timed(factor) => factor.to_string(),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "target": self.target, "settings": self.settings, "tiers": self.tiers, "partial": self.partial, "warm_up": self.warm_up.json(),
            "level": self.level, "speed": self.speed(), "clients": self.clients, "seed": self.seed, "clean": self.is_clean(),
            "entries": self.entries, "not_sent": self.not_sent, "unusable": self.unusable,
            "set_up": self.set_up.json(), "replay": self.replay.json(), "read_back": self.read_back.json(),
        })
    }

    /// Writes the report where `--report` says: a file that ends in `.json`, else a directory with `report.json`,
    /// the latencies of every operation and phase as `PHASE-OPERATION.hgrm`, and all of them as `latencies.hlog`.
    ///
    /// # Errors
    /// When something cannot be written, with its name.
    pub fn write(&self, to: &Path) -> anyhow::Result<()> {
        let put = |file: &Path, text: String| {
            std::fs::write(file, text).with_context(|| file.display().to_string())
        };
        let json = serde_json::to_string_pretty(&self.json())? + "\n";
        if to.extension().is_some_and(|e| e == "json") {
            return put(to, json);
        }
        std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        let phases = [
            ("set-up", &self.set_up),
            ("warm-up", &self.warm_up),
            ("replay", &self.replay),
            ("read-back", &self.read_back),
        ];
        let mut all = Vec::new();
        for (phase, summary) in phases {
            for (kind, row) in &summary.rows {
                let name = format!("{phase}-{}", kind.name().replace(' ', "-"));
                put(
                    &to.join(format!("{name}.hgrm")),
                    percentiles::hgrm(&row.latency),
                )?;
                all.push((name, summary.elapsed_us, &row.latency));
            }
        }
        put(&to.join("latencies.hlog"), percentiles::log(&all)?)?;
        // Last: whoever sees it has the rest.
        put(&to.join("report.json"), json)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let timing = match self.speed {
            Speed::Max => "as fast as possible, latency from the sending".to_string(),
            Speed::Timed(f) => {
                format!("original timing x {f}, open loop, latency from the intended start")
            }
        };
        let _ = writeln!(
            out,
            "{}: {timing}; {} connections, seed {}",
            self.level, self.clients, self.seed
        );
        let _ = writeln!(
            out,
            "{:<11}{:>8}{:>7}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}  (ms)",
            "operation", "count", "failed", "bytes", "p50", "p90", "p99", "p99.9", "max"
        );
        for (kind, row) in &self.replay.rows {
            let ms = |q: f64| format!("{:.2}", row.latency.value_at_quantile(q) as f64 / 1e3);
            let bytes = if row.bytes == 0 {
                "-".into()
            } else {
                human(row.bytes)
            };
            let _ = writeln!(
                out,
                "{:<11}{:>8}{:>7}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}",
                kind.name(),
                row.latency.len(),
                row.failures,
                bytes,
                ms(0.5),
                ms(0.9),
                ms(0.99),
                ms(0.999),
                ms(1.0)
            );
        }
        for (name, phase) in [
            ("set-up", &self.set_up),
            ("warm-up", &self.warm_up),
            ("replay", &self.replay),
            ("read back", &self.read_back),
        ] {
            if name == "warm-up" && phase.elapsed_us == 0 {
                continue;
            }
            let seconds = phase.elapsed_us as f64 / 1e6;
            let _ = writeln!(
                out,
                "{name:<10} {} requests in {seconds:.2} s, {} written, {} read; {} failed: {} broken, {} wrong status, {} wrong content; {} retried after 503",
                phase.requests(),
                human(phase.bytes(WRITES)),
                human(phase.bytes(READS)),
                phase.failures(),
                phase.broken,
                phase.wrong_status,
                phase.wrong_content,
                phase.retried
            );
        }
        if self.speed != Speed::Max && !self.replay.late.is_empty() {
            let ms = |q: f64| self.replay.late.value_at_quantile(q) as f64 / 1e3;
            let _ = writeln!(
                out,
                "late       p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2} ms from the intended start to the sending, part of the latency",
                ms(0.5),
                ms(0.9),
                ms(0.99),
                ms(1.0)
            );
        }
        if let Some(partial) = &self.partial {
            let _ = writeln!(
                out,
                "PARTIAL: {}; {} requests were never started, and what is left was not read back",
                partial.because, partial.not_started
            );
        }
        if self.replay.skipped > 0 {
            let _ = writeln!(
                out,
                "{} UNLOCKs not sent: the lock is gone",
                self.replay.skipped
            );
        }
        let _ = writeln!(
            out,
            "{} entries of the trace; without a request of their own:",
            self.entries
        );
        for (reason, count) in &self.not_sent {
            let _ = writeln!(out, "{count:>9}  {reason}");
        }
        if self.unusable.lines > 0 {
            let _ = writeln!(
                out,
                "{:>9}  lines not usable, for example {}",
                self.unusable.lines,
                self.unusable.examples.join("; ")
            );
        }
        for phase in [&self.set_up, &self.warm_up, &self.replay, &self.read_back] {
            for example in &phase.examples {
                let _ = writeln!(out, "FAILED {example}");
            }
        }
        out
    }
}
