//! A chart as SVG. Coordinates are in the units of a view box that the browser scales.

use super::chart::{Chart, Mark, Series};
use super::escape;
use super::scale::Scale;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 46.0;
/// Lines keep this many columns; within a column the least and the greatest value stay.
const COLUMNS: f64 = 900.0;
/// Points beyond this number are thinned evenly.
const POINTS_MAX: usize = 4000;
const DASHES: [&str; 4] = ["", "6 3", "2 3", "9 3 2 3"];

/// Where a chart's values stand on the drawing.
struct Plane {
    x: Scale,
    y: Scale,
}

impl Plane {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The chart with its title, legend and notes. `number` tells it from the others of its page.
pub(super) fn figure(chart: &Chart, number: usize) -> String {
    let id = format!("chart-{number}");
    let title = escape(&chart.title);
    let mut out =
        format!("<figure aria-labelledby=\"{id}\"><figcaption id=\"{id}\">{title}</figcaption>");
    if !chart.note.is_empty() {
        let _ = write!(out, "<p>{}</p>", escape(&chart.note));
    }
    let shown = |x: f64, y: f64| chart.x.takes(x) && chart.y.takes(y);
    let corners: Vec<(f64, f64)> = chart
        .series
        .iter()
        .flat_map(|s| s.mark.corners())
        .filter(|&(x, y)| shown(x, y) || (chart.x.takes(x) && matches_bar(chart) && y == 0.0))
        .collect();
    let scales = (
        chart.x.scale(corners.iter().map(|c| c.0)),
        chart.y.scale(corners.iter().map(|c| c.1)),
    );
    let (Some(x), Some(y)) = scales else {
        return out + "<p>No data.</p></figure>\n";
    };
    let plane = Plane { x, y };
    if chart.series.len() > 1 {
        out += &legend(chart);
    }
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
        escape(&description(chart, &corners))
    );
    out += &axes(chart, &plane);
    for (index, series) in chart.series.iter().enumerate() {
        out += &draw(chart, series, index, &plane);
    }
    out += "</svg>";
    let hidden: usize = chart.series.iter().map(|s| hidden(chart, &s.mark)).sum();
    if hidden > 0 {
        let _ = write!(
            out,
            "<p>{hidden} values have no place on a logarithmic axis (0 or below).</p>"
        );
    }
    out + "</figure>\n"
}

fn matches_bar(chart: &Chart) -> bool {
    chart.series.iter().any(|s| matches!(s.mark, Mark::Bars(_)))
}

/// Values that are numbers, but have no place. Empty bars are nothing to speak of.
fn hidden(chart: &Chart, mark: &Mark) -> usize {
    let lost =
        |x: f64, y: f64| x.is_finite() && y.is_finite() && !(chart.x.takes(x) && chart.y.takes(y));
    match mark {
        Mark::Bars(bars) => bars.iter().filter(|b| b.2 != 0.0 && lost(b.0, b.2)).count(),
        Mark::Line(points) | Mark::Step(points) | Mark::Points(points) => {
            points.iter().filter(|p| lost(p.0, p.1)).count()
        }
    }
}

/// What somebody who does not see the chart gets: axes, and the range of each series.
fn description(chart: &Chart, corners: &[(f64, f64)]) -> String {
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        })
    };
    let kind = |log: bool| if log { ", logarithmic" } else { "" };
    let (low, high) = range(&mut corners.iter().map(|c| c.0));
    let mut out = format!(
        "Across: {}, {} to {}{}. Up: {}{}.",
        chart.x.label,
        chart.x.unit.text(low),
        chart.x.unit.text(high),
        kind(chart.x.log),
        chart.y.label,
        kind(chart.y.log)
    );
    for series in &chart.series {
        let corners = series.mark.corners();
        let (low, high) = range(&mut corners.iter().map(|c| c.1).filter(|y| y.is_finite()));
        let _ = if low > high {
            write!(out, " {}: no data.", series.name)
        } else {
            let unit = chart.y.unit;
            let (low, high, count) = (unit.text(low), unit.text(high), series.mark.len());
            write!(
                out,
                " {}: {count} values from {low} to {high}.",
                series.name
            )
        };
    }
    out
}

fn legend(chart: &Chart) -> String {
    let mut out = String::from("<ul class=\"legend\">");
    for (index, series) in chart.series.iter().enumerate() {
        let sample = match series.mark {
            Mark::Line(_) | Mark::Step(_) => format!(
                "<path class=\"line c{}\" stroke-dasharray=\"{}\" d=\"M0 5H28\"/>",
                index % 8,
                dash(index)
            ),
            Mark::Points(_) => format!(
                "<circle class=\"f{}\" cx=\"14\" cy=\"5\" r=\"3.5\"/>",
                index % 8
            ),
            Mark::Bars(_) => format!("<path class=\"f{}\" d=\"M8 0H20V10H8Z\"/>", index % 8),
        };
        let _ = write!(
            out,
            "<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\">{sample}</svg>{}</li>",
            escape(&series.name)
        );
    }
    out + "</ul>"
}

/// Solid for the first colours, dashed where colours alone would not tell apart.
fn dash(index: usize) -> &'static str {
    DASHES[(index + index / 8) % DASHES.len()]
}

fn axes(chart: &Chart, plane: &Plane) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut out = String::new();
    for tick in plane.y.ticks() {
        let y = plane.y(tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            escape(&chart.y.unit.text(tick))
        );
    }
    for tick in plane.x.ticks() {
        let x = plane.x(tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 17.0,
            escape(&chart.x.unit.text(tick))
        );
    }
    let log = |log: bool| if log { " (log)" } else { "" };
    let _ = write!(
        out,
        "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/><text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}{}</text><text x=\"4\" y=\"14\">{}{}</text>",
        HEIGHT - 8.0,
        escape(&chart.x.label),
        log(chart.x.log),
        escape(&chart.y.label),
        log(chart.y.log)
    );
    out
}

fn draw(chart: &Chart, series: &Series, index: usize, plane: &Plane) -> String {
    let colour = index % 8;
    let takes = |x: f64, y: f64| chart.x.takes(x) && chart.y.takes(y);
    let mut path = String::new();
    match &series.mark {
        Mark::Line(points) => line(points, plane, &takes, false, &mut path),
        Mark::Step(points) => line(points, plane, &takes, true, &mut path),
        Mark::Points(points) => {
            let mut out = format!("<g class=\"f{colour}\" fill-opacity=\"0.65\">");
            let every = points.len().div_ceil(POINTS_MAX).max(1);
            for &(x, y) in points.iter().step_by(every).filter(|p| takes(p.0, p.1)) {
                let _ = write!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.4\"/>",
                    plane.x(x),
                    plane.y(y)
                );
            }
            return out + "</g>";
        }
        Mark::Bars(bars) => {
            let bottom = HEIGHT - BOTTOM;
            for &(from, to, high) in bars
                .iter()
                .filter(|b| chart.x.takes(b.0) && takes(b.1, b.2))
            {
                let (left, right) = (plane.x(from), plane.x(to));
                // Bars of a series that has company are half as wide, beside each other.
                let wide = (right - left).max(1.0);
                let part = wide / chart.series.len() as f64;
                let gap = if part > 4.0 { 1.0 } else { 0.0 };
                let left = left + part * index as f64;
                let _ = write!(
                    path,
                    "M{left:.1} {bottom}V{:.1}H{:.1}V{bottom}Z",
                    plane.y(high),
                    left + part - gap
                );
            }
            return format!("<path class=\"f{colour}\" d=\"{path}\"/>");
        }
    }
    format!(
        "<path class=\"line c{colour}\" stroke-dasharray=\"{}\" d=\"{path}\"/>",
        dash(index)
    )
}

fn line(
    points: &[(f64, f64)],
    plane: &Plane,
    takes: &dyn Fn(f64, f64) -> bool,
    steps: bool,
    path: &mut String,
) {
    let mut open = false;
    let mut last = (f64::NAN, f64::NAN);
    let mut count = 0;
    for (x, y) in thin(points, plane, takes) {
        if !takes(x, y) {
            open = false;
            continue;
        }
        let (x, y) = (plane.x(x), plane.y(y));
        let _ = match (open, steps) {
            (false, _) => write!(path, "M{x:.1} {y:.1}"),
            (true, false) => write!(path, "L{x:.1} {y:.1}"),
            (true, true) => write!(path, "H{x:.1}V{y:.1}"),
        };
        (open, last, count) = (true, (x, y), count + 1);
    }
    // A line of one point would be invisible.
    if count == 1 && last.0.is_finite() {
        let _ = write!(path, "M{:.1} {:.1}h6", last.0 - 3.0, last.1);
    }
}

/// At most four points a column: first, least, greatest, last, in their order. The drawing is the same, the file small.
fn thin(points: &[(f64, f64)], plane: &Plane, takes: &dyn Fn(f64, f64) -> bool) -> Vec<(f64, f64)> {
    if points.len() <= 2 * COLUMNS as usize {
        return points.to_vec();
    }
    let column = |&(x, y): &(f64, f64)| match takes(x, y) {
        true => (plane.x.place(x) * COLUMNS) as i64,
        false => -1,
    };
    let mut out = Vec::new();
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let by_height = |a: &usize, b: &usize| group[*a].1.total_cmp(&group[*b].1);
        let mut kept = vec![0, group.len() - 1];
        kept.extend((0..group.len()).min_by(by_height));
        kept.extend((0..group.len()).max_by(by_height));
        kept.sort_unstable();
        kept.dedup();
        out.extend(kept.into_iter().map(|i| group[i]));
    }
    out
}
