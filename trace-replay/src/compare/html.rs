//! `compare` as a page with charts.

use super::{Comparison, Row, Side};
use crate::page::{Axis, Chart, Page, Table, Unit};
use serde_json::Value;

impl Comparison {
    /// One page: ratios, latency distributions, throughput and latency over time. It needs no other file.
    pub(super) fn html(&self, sides: &[(String, Side)]) -> String {
        let mut page = Page::new("Replays compared");
        let names = sides.iter().enumerate().map(|(i, (name, runs))| {
            let role = if i == 0 { ", the base" } else { "" };
            let run = runs.first().map(|(_, run)| run);
            let text = |key: &str| run.and_then(|r| r[key].as_str()).unwrap_or("?").to_string();
            let count = runs.len();
            format!(
                "{name}{role}: {count} run(s) of {} on {}",
                text("level"),
                text("target")
            )
        });
        page.list(names);
        let notes: Vec<&String> = self.notes().collect();
        if !notes.is_empty() {
            page.heading("Notes").list(&notes);
        }
        page.heading("Ratios").paragraph(
            "Value of the side divided by the base's. Below 1 is faster for latencies (p50, p99, mean), above 1 for throughput.",
        );
        for side in self.rows.chunk_by(|a, b| a.side == b.side) {
            let name = side.first().map_or("", |row| &row.side);
            page.table(&format!("{name} against the base"), &ratios(side));
        }
        page.heading("Latency");
        for operation in operations(sides) {
            let axis = Axis::log("latency", Unit::Seconds);
            let share = Axis::linear("share of requests", Unit::Share).between(0.0, 1.0);
            let mut chart = Chart::new(operation.as_str(), axis, share);
            for (name, run) in runs(sides) {
                let points = &run["replay"]["operations"][&operation]["latency_cdf"];
                chart = chart.step(name, cdf(points));
            }
            page.chart(&chart);
        }
        page.heading("Over time");
        let time = || Axis::linear("time since the measured part began", Unit::Seconds);
        let mut requests = Chart::new(
            "Requests",
            time(),
            Axis::linear("requests a second", Unit::PerSecond),
        );
        let mut bytes = Chart::new(
            "Bytes",
            time(),
            Axis::linear("bytes a second", Unit::BytesPerSecond),
        );
        let mut mean = Chart::new("Mean latency", time(), Axis::log("latency", Unit::Seconds));
        for (name, run) in runs(sides) {
            let series = &run["replay"]["series"];
            let seconds = series["interval_us"].as_f64().unwrap_or(f64::NAN) / 1e6;
            let counts = numbers(&series["requests"]);
            let at = |i: usize| (i + 1) as f64 * seconds;
            let rate = |values: &[f64]| {
                values
                    .iter()
                    .enumerate()
                    .map(|(i, v)| (at(i), v / seconds))
                    .collect()
            };
            requests = requests.line(name.as_str(), rate(&counts));
            bytes = bytes.line(name.as_str(), rate(&numbers(&series["bytes"])));
            let sums = numbers(&series["latency_us_sum"]);
            // No request, no latency: 0 / 0 is a gap in the line.
            let means = sums.iter().zip(&counts).enumerate();
            mean = mean.line(
                name,
                means.map(|(i, (sum, n))| (at(i), sum / n / 1e6)).collect(),
            );
        }
        page.chart(&requests).chart(&bytes).chart(&mean);
        if runs(sides).any(|(_, run)| !run["tiers"].is_null()) {
            let axis = Axis::linear("time since the run began, set-up included", Unit::Seconds);
            let share = Axis::linear("share of object reads", Unit::Share).between(0.0, 1.0);
            let mut chart = Chart::new("Reads served by the cache tier", axis, share)
                .note("By the gateway's own counters, between one look and the next.");
            for (name, run) in runs(sides) {
                chart = chart.line(name, hit_ratio(&run["tiers"]["samples"]));
            }
            page.chart(&chart);
        }
        page.html()
    }
}

fn ratios(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "operation and measure",
        "base",
        "this",
        "ratio",
        "95 % interval",
        "",
    ]);
    for row in rows {
        let value = |v: f64| match row.measure {
            "throughput" => Unit::PerSecond.text(v),
            _ => Unit::Seconds.text(v / 1e6),
        };
        let interval = match row.interval {
            Some([low, high]) => format!("{low:.3} to {high:.3}"),
            None => "one run only".into(),
        };
        table.row([
            format!("{} {}", row.operation, row.measure),
            value(row.base),
            value(row.value),
            format!("{:.3}", row.ratio),
            interval,
            if row.failed { "worse" } else { "" }.to_string(),
        ]);
    }
    table
}

/// Every run with the name it has in legends: the side's, and its number where the side has several.
fn runs(sides: &[(String, Side)]) -> impl Iterator<Item = (String, &Value)> {
    sides.iter().flat_map(|(name, side)| {
        side.iter()
            .enumerate()
            .map(move |(i, (_, run))| match side.len() {
                1 => (name.clone(), run),
                _ => (format!("{name} #{}", i + 1), run),
            })
    })
}

fn operations(sides: &[(String, Side)]) -> std::collections::BTreeSet<String> {
    let maps = runs(sides).filter_map(|(_, run)| run["replay"]["operations"].as_object());
    maps.flat_map(|map| map.keys().cloned()).collect()
}

fn numbers(values: &Value) -> Vec<f64> {
    let values = values.as_array().map_or(&[][..], Vec::as_slice);
    values
        .iter()
        .map(|v| v.as_f64().unwrap_or(f64::NAN))
        .collect()
}

fn cdf(points: &Value) -> Vec<(f64, f64)> {
    let points = points.as_array().map_or(&[][..], Vec::as_slice);
    let pair = |p: &Value| Some((p[0].as_f64()? / 1e6, p[1].as_f64()?));
    points.iter().filter_map(pair).collect()
}

/// The cache tier's share of the reads since the sample before; no reads are a gap.
fn hit_ratio(samples: &Value) -> Vec<(f64, f64)> {
    let samples = samples.as_array().map_or(&[][..], Vec::as_slice);
    let sum = |s: &Value| match s["reads"].as_object() {
        Some(tiers) => tiers.values().filter_map(Value::as_f64).sum(),
        None => 0.0,
    };
    let cache = |s: &Value| s["reads"]["cache"].as_f64().unwrap_or(0.0);
    let pairs = samples.windows(2);
    pairs
        .map(|w| {
            let at = w[1]["at_us"].as_f64().unwrap_or(f64::NAN) / 1e6;
            (
                at,
                (cache(&w[1]) - cache(&w[0])) / (sum(&w[1]) - sum(&w[0])),
            )
        })
        .collect()
}
