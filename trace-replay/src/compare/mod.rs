//! `trace-replay compare`: what changed between runs, as ratios per operation.

mod html;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Shown with `--help`, and run by a test.
pub const EXAMPLES: &str = "Examples:
    trace-replay replay fixtures/es/smoke.csv.xz --target dir:/tmp --prefix /run-a --report /tmp/a
    trace-replay replay fixtures/es/smoke.csv.xz --target dir:/tmp --prefix /run-b --report /tmp/b
    trace-replay compare /tmp/a /tmp/b --fail-above 100000 --html /tmp/compare.html";

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Reports of `replay --report`: the first side is the base. A directory of reports is a side of several runs.
    #[arg(required = true, num_args = 2..)]
    pub sides: Vec<PathBuf>,
    /// Exit status 1 when a side is worse than the base by more than this factor.
    ///
    /// Where both sides have several runs, only a confidence interval that lies wholly beyond the factor counts.
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    pub fail_above: Option<f64>,
    /// Prints JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Writes a page with charts to this file, too: one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor >= 1.0 => Ok(factor),
        _ => Err(format!("`{text}` is no number from 1 up")),
    }
}

/// Measures of an operation, where they stand in a report, and whether more is better.
const MEASURES: [(&str, bool); 4] = [
    ("p50", false),
    ("p99", false),
    ("mean", false),
    ("throughput", true),
];

/// 97.5 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
const T_QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// One measure of one operation, of one side against the base.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The side.
    pub side: String,
    /// The operation.
    pub operation: String,
    /// What was measured: latencies in microseconds, throughput in operations per second.
    pub measure: &'static str,
    /// Geometric mean over the base's runs.
    pub base: f64,
    /// Geometric mean over the side's runs.
    pub value: f64,
    /// `value / base`.
    pub ratio: f64,
    /// 95 % confidence interval of the ratio, where both sides have several runs.
    pub interval: Option<[f64; 2]>,
    /// Whether it is worse than the threshold allows.
    pub failed: bool,
}

/// The comparison of all sides with the first.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// All ratios.
    pub rows: Vec<Row>,
    /// What makes the runs hard to compare.
    pub warnings: Vec<String>,
    /// What a threshold cannot be held against: runs with failures, operations that one side lacks.
    pub unsound: Vec<String>,
    /// Whether there is a threshold.
    #[serde(skip)]
    thresholds: bool,
}

/// The runs of one side: reports and their names.
type Side = Vec<(String, Value)>;

/// Reads the sides and compares them.
pub fn compare(args: &Args) -> anyhow::Result<Comparison> {
    if let Some(file) = &args.html {
        crate::cli::make_way(file)?;
    }
    let sides: Vec<Side> = args
        .sides
        .iter()
        .map(|p| load(p))
        .collect::<Result<_, _>>()?;
    let mut result = Comparison {
        rows: Vec::new(),
        warnings: Vec::new(),
        unsound: Vec::new(),
        thresholds: args.fail_above.is_some(),
    };
    let runs = || sides.iter().flatten();
    for (name, run) in runs() {
        for setting in ["level", "speed", "clients", "entries"] {
            let first = runs().next().map_or(&Value::Null, |(_, run)| &run[setting]);
            if first != &run[setting] {
                let here = &run[setting];
                let text = format!("{name}: {setting} {here}, where the first run has {first}");
                result.warnings.push(text);
            }
        }
        let known = runs().find_map(|(_, run)| run["settings"].as_object());
        for (setting, first) in known.into_iter().flatten() {
            // Reports of before have none.
            let here = &run["settings"][setting];
            if !here.is_null() && here != first {
                let text = format!("{name}: {setting} {here}, where the first run has {first}");
                result.warnings.push(text);
            }
        }
        if run["clean"] != Value::Bool(true) {
            result.unsound.push(format!("{name}: had failures"));
        }
        if !run["partial"].is_null() {
            result.warnings.push(format!("{name}: is partial"));
        }
    }
    let operations: BTreeSet<&String> = runs()
        .filter_map(|(_, run)| run["replay"]["operations"].as_object())
        .flat_map(|operations| operations.keys())
        .collect();
    let Some((base, others)) = sides.split_first() else {
        return Ok(result);
    };
    for (side, path) in others.iter().zip(&args.sides[1..]) {
        for operation in &operations {
            for (measure, more_is_better) in MEASURES {
                let (a, b) = (
                    logs(base, operation, measure),
                    logs(side, operation, measure),
                );
                if a.is_empty() || b.is_empty() {
                    let name = path.display();
                    let gap = format!("{operation}: not in every side ({name} against the base)");
                    if !result.unsound.contains(&gap) {
                        result.unsound.push(gap);
                    }
                    continue;
                }
                let difference = mean(&b) - mean(&a);
                let interval = half_width(&a, &b)
                    .map(|half| [(difference - half).exp(), (difference + half).exp()]);
                let ratio = difference.exp();
                // The side's best case: what even it exceeds is worse beyond doubt.
                let [low, high] = interval.unwrap_or([ratio; 2]);
                let worse_by = if more_is_better { 1.0 / high } else { low };
                result.rows.push(Row {
                    side: path.display().to_string(),
                    operation: (*operation).clone(),
                    measure,
                    base: mean(&a).exp(),
                    value: mean(&b).exp(),
                    ratio,
                    interval,
                    failed: args.fail_above.is_some_and(|limit| worse_by > limit),
                });
            }
        }
    }
    if let Some(file) = &args.html {
        let names = args.sides.iter().map(|p| p.display().to_string());
        let named: Vec<(String, Side)> = names.zip(sides).collect();
        std::fs::write(file, result.html(&named)).with_context(|| file.display().to_string())?;
    }
    Ok(result)
}

fn load(path: &Path) -> anyhow::Result<Side> {
    let mut files = vec![path.to_path_buf()];
    let report = |dir: &Path| Some(dir.join("report.json")).filter(|file| file.is_file());
    if let Some(file) = report(path) {
        files = vec![file];
    } else if path.is_dir() {
        files = std::fs::read_dir(path)
            .with_context(|| path.display().to_string())?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut runs: Vec<PathBuf> = files.iter().filter_map(|f| report(f)).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "json"));
        files.append(&mut runs);
        files.sort();
        anyhow::ensure!(
            !files.is_empty(),
            "{}: no report in it, neither .json files nor directories with report.json",
            path.display()
        );
    }
    files
        .iter()
        .map(|file| {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
            let run: Value = serde_json::from_str(&text).with_context(|| name.clone())?;
            anyhow::ensure!(
                run["replay"]["operations"].is_object(),
                "{name}: no report of `trace-replay replay --report`"
            );
            Ok((name, run))
        })
        .collect()
}

/// The logarithms of a measure in every run that has it: ratios are differences of these.
fn logs(side: &Side, operation: &str, measure: &str) -> Vec<f64> {
    let value = |run: &Value| {
        let row = &run["replay"]["operations"][operation];
        if measure == "throughput" {
            let seconds = run["replay"]["elapsed_us"].as_f64()? / 1e6;
            return Some(row["count"].as_f64()? / seconds);
        }
        row["latency_us"][measure].as_f64()
    };
    side.iter()
        .filter_map(|(_, run)| value(run))
        .filter(|v| v.is_finite() && *v > 0.0)
        .map(f64::ln)
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half of the 95 % confidence interval of the difference of two means (Welch 1947).
fn half_width(a: &[f64], b: &[f64]) -> Option<f64> {
    let part = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = mean(values);
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        (values.len() > 1).then(|| (squares / (n - 1.0) / n, n - 1.0))
    };
    let ((a, a_free), (b, b_free)) = (part(a)?, part(b)?);
    if a + b == 0.0 {
        return Some(0.0);
    }
    let free = (a + b).powi(2) / (a * a / a_free + b * b / b_free);
    // Rounded down: the wider interval.
    let quantile = T_QUANTILES.get((free as usize).max(1) - 1).unwrap_or(&1.96);
    Some(quantile * (a + b).sqrt())
}

impl Comparison {
    /// Whether a threshold was exceeded, or says nothing.
    pub fn failed(&self) -> bool {
        self.thresholds && (!self.unsound.is_empty() || self.rows.iter().any(|row| row.failed))
    }

    /// All that is to be known of the runs beside the ratios.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.unsound.iter().chain(&self.warnings)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut side = "";
        for row in &self.rows {
            if row.side != side {
                side = &row.side;
                let _ = writeln!(
                    out,
                    "{side} against the base (us; throughput: operations/s)"
                );
                let _ = writeln!(
                    out,
                    "{:<11}{:<11}{:>12}{:>12}{:>9}  95 % interval",
                    "operation", "measure", "base", "this", "ratio"
                );
            }
            let interval = match row.interval {
                Some([low, high]) => format!("{low:.3} to {high:.3}"),
                None => "one run only".into(),
            };
            let _ = writeln!(
                out,
                "{:<11}{:<11}{:>12.1}{:>12.1}{:>9.3}  {interval}{}",
                row.operation,
                row.measure,
                row.base,
                row.value,
                row.ratio,
                if row.failed { "  WORSE" } else { "" }
            );
        }
        let mark = if self.thresholds { "FAILED" } else { "note" };
        for unsound in &self.unsound {
            let _ = writeln!(out, "{mark}: {unsound}");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "note: {warning}");
        }
        out
    }
}
