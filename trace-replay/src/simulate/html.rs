//! Simulations as a page with charts.

use super::{plain, tiered};
use crate::page::{Axis, Chart, Page, Table, Unit};

const PERCENT: fn(f64) -> String = |share| format!("{:.1} %", share * 100.0);

/// A line's name, and its value in a row.
type Beside<R> = (&'static str, fn(&R) -> Option<f64>);

/// What to draw against the size of the cache.
struct Figure<R: 'static> {
    title: &'static str,
    note: &'static str,
    axis: Axis,
    of: fn(&R) -> f64,
    /// Lines that are no policy's.
    beside: &'static [Beside<R>],
}

/// A figure with nothing but the policies' lines.
fn figure<R>(title: &'static str, axis: Axis, of: fn(&R) -> f64) -> Figure<R> {
    Figure {
        title,
        note: "",
        axis,
        of,
        beside: &[],
    }
}

/// The page of a simulation over two devices.
pub(super) fn tiered(rows: &[tiered::Row]) -> String {
    let mut page = Page::new("Simulated policies");
    page.paragraph(
        "One queue per device, shared by clients and migration. HDD time is a share of what the disk needs without a cache.",
    );
    for rows in rows.chunk_by(|a, b| a.trace == b.trace) {
        let Some(first) = rows.first() else { continue };
        page.heading(&first.trace).paragraph(&format!(
            "{} reads and writes of objects. No cache of any size can go below {} of the HDD time.",
            first.requests,
            PERCENT(first.compulsory_vs_none)
        ));
        let share = || Axis::linear("share", Unit::Share);
        let time = || Axis::linear("response time", Unit::Seconds);
        let figures = [
            Figure {
                note: "Clients and moves. Below the bound no policy can go; the clairvoyant knows the load.",
                beside: &[
                    ("(bound)", |r: &tiered::Row| r.bound_vs_none),
                    ("(clairvoyant)", |r: &tiered::Row| r.clairvoyant_vs_none),
                ],
                ..figure("HDD time", share(), |r: &tiered::Row| r.hdd_busy_vs_none)
            },
            figure("Mean response time", time(), |r| r.mean_ms / 1e3),
            figure("99th percentile of the response time", time(), |r| {
                r.p99_ms / 1e3
            }),
            figure(
                "Reads that the cache does not serve",
                share().between(0.0, 1.0),
                |r| r.miss_ratio,
            ),
            Figure {
                note: "By clients and by promotions.",
                ..figure(
                    "Bytes written to the SSD",
                    Axis::linear("bytes", Unit::Bytes),
                    |r| r.ssd_written_bytes as f64,
                )
            },
        ];
        let size = |r: &tiered::Row| r.cache_bytes as f64;
        draw(&mut page, rows, figures, Unit::Bytes, size, |r| &r.policy);
        let mut table = Table::new([
            "policy",
            "cache",
            "reads missed",
            "bytes missed",
            "HDD time",
            "saved of clairvoyant's",
            "promoted",
            "flushed",
            "evicted",
            "SSD written",
            "write amplification",
            "HDD busy",
            "SSD busy",
            "HDD idle",
            "mean",
            "p50",
            "p99",
        ]);
        let bytes = |n: u64| Unit::Bytes.text(n as f64);
        let or_none = |n: Option<f64>, text: &dyn Fn(f64) -> String| n.map_or("-".into(), text);
        for r in rows {
            table.row([
                r.policy.clone(),
                bytes(r.cache_bytes),
                PERCENT(r.miss_ratio),
                PERCENT(r.byte_miss_ratio),
                PERCENT(r.hdd_busy_vs_none),
                or_none(r.saved_of_clairvoyant, &PERCENT),
                bytes(r.promoted_bytes),
                bytes(r.flushed_bytes),
                bytes(r.evicted_bytes),
                bytes(r.ssd_written_bytes),
                or_none(r.write_amplification, &|n| format!("{n:.2}")),
                Unit::Seconds.text(r.hdd_busy_s),
                Unit::Seconds.text(r.ssd_busy_s),
                PERCENT(r.hdd_idle),
                Unit::Seconds.text(r.mean_ms / 1e3),
                Unit::Seconds.text(r.p50_ms / 1e3),
                Unit::Seconds.text(r.p99_ms / 1e3),
            ]);
        }
        page.table("All numbers", &table);
    }
    page.html()
}

/// The page of plain caches.
pub(super) fn plain(rows: &[plain::Row]) -> String {
    let mut page = Page::new("Simulated caches");
    page.paragraph("Plain caches: no devices, no moves, every miss is fetched at once.");
    for rows in rows.chunk_by(|a, b| a.trace == b.trace) {
        let Some(first) = rows.first() else { continue };
        page.heading(&first.trace)
            .paragraph(&format!("{} accesses.", first.requests));
        let axis = || Axis::linear("share", Unit::Share).between(0.0, 1.0);
        let figures = [
            figure("Misses", axis(), |r: &plain::Row| r.miss_ratio),
            figure("Bytes missed", axis(), |r| r.byte_miss_ratio),
        ];
        let unit = match first.cache_objects {
            Some(_) => Unit::Count,
            None => Unit::Bytes,
        };
        let size = |r: &plain::Row| r.cache_objects.or(r.cache_bytes).unwrap_or(0) as f64;
        draw(&mut page, rows, figures, unit, size, |r| &r.policy);
        let mut table = Table::new([
            "policy",
            "cache",
            "misses",
            "misses, share",
            "bytes missed, share",
        ]);
        for r in rows {
            table.row([
                r.policy.clone(),
                unit.text(size(r)),
                r.misses.to_string(),
                PERCENT(r.miss_ratio),
                PERCENT(r.byte_miss_ratio),
            ]);
        }
        page.table("All numbers", &table);
    }
    page.html()
}

/// One chart for each figure, with a line for each policy. With a single size there is nothing to draw a line
/// through: bars then.
fn draw<R: 'static, const N: usize>(
    page: &mut Page,
    rows: &[R],
    figures: [Figure<R>; N],
    unit: Unit,
    size: impl Fn(&R) -> f64,
    name: impl Fn(&R) -> &String,
) {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&name(row).as_str()) {
            names.push(name(row));
        }
    }
    let one_size = rows
        .iter()
        .all(|r| rows.first().is_some_and(|f| size(f) == size(r)));
    for figure in figures {
        let beside = figure.beside.iter();
        if one_size {
            let text = |value: f64| figure.axis.unit().text(value);
            let extra = beside.filter_map(|(name, of)| Some((*name, of(rows.first()?)?)));
            let all = rows.iter().map(|r| (name(r).as_str(), (figure.of)(r)));
            let bars = extra
                .chain(all)
                .map(|(name, value)| (name, value, text(value)));
            page.bars(figure.title, bars);
            continue;
        }
        let axis = Axis::log("size of the cache", unit);
        let mut chart = Chart::new(figure.title, axis, figure.axis).note(figure.note);
        // Policies first: so each has the same colour in all charts.
        for line in &names {
            let own = rows.iter().filter(|r| name(r) == line);
            chart = chart.line(*line, own.map(|r| (size(r), (figure.of)(r))).collect());
        }
        for (line, of) in beside {
            let mut points: Vec<(f64, f64)> = Vec::new();
            for row in rows {
                let point = of(row).map(|value| (size(row), value));
                points.extend(point.filter(|p| !points.contains(p)));
            }
            if !points.is_empty() {
                chart = chart.line(*line, points);
            }
        }
        page.chart(&chart);
    }
}
