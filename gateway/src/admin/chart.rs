//! Small drawings for the page, as SVG in the HTML: lines over the last hour, and a file's objects. No script, no colours:
//! the style sheet knows those.

use std::fmt::Write as _;

use crate::html::escape;
use crate::metrics::{STEP, Sample};
use crate::objects::{Cell, HotFile};

/// Height of a chart's plot, in its own units.
const HEIGHT: f64 = 60.0;
/// Width: one unit per step of an hour.
const WIDTH: usize = 360;
/// Width and height of a cell of the heat map.
const CELL: (usize, f64) = (10, 24.0);

/// One line of a chart.
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Its class in the style sheet.
    pub class: &'static str,
    /// Its value in a step; `None` leaves a gap.
    pub value: fn(&Sample) -> Option<f64>,
}

/// A chart of the last hour, the newest step at the right. `top` is the upper end of the scale if it is fixed; `show` writes
/// a value with its unit.
pub fn chart(
    out: &mut String,
    title: &str,
    steps: &[Sample],
    lines: &[Line],
    top: Option<f64>,
    show: fn(f64) -> String,
) {
    let highest = |line: &Line| steps.iter().filter_map(line.value).fold(0.0, f64::max);
    let max = lines.iter().map(highest).fold(0.0, f64::max);
    let scale = top.unwrap_or(max);
    let now: Vec<String> = lines
        .iter()
        .map(|line| match steps.iter().rev().find_map(line.value) {
            Some(value) => format!("{} {}", line.name, show(value)),
            None => format!("{} none yet", line.name),
        })
        .collect();
    let _ = write!(
        out,
        "<figure><figcaption>{title}</figcaption><div class=\"plot\"><span class=\"max\">{}</span>\
         <svg role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-label=\"{} over the last hour. \
         Highest: {}. Last: {}.\">",
        show(scale),
        escape(title),
        show(max),
        escape(&now.join(", ")),
    );
    let _ = write!(
        out,
        "<path class=\"grid\" d=\"M0 .5H{WIDTH}M0 {}H{WIDTH}M0 {}H{WIDTH}\"/>",
        HEIGHT / 2.0,
        HEIGHT - 0.5
    );
    for line in lines {
        let path = path_of(steps, line.value, scale);
        let _ = write!(out, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
    }
    out.push_str("</svg><span class=\"from\">1 h ago</span><span class=\"to\">now</span></div><ul class=\"key\">");
    for (line, text) in lines.iter().zip(&now) {
        let _ = write!(
            out,
            "<li><i class=\"{}\"></i>{}</li>",
            line.class,
            escape(text)
        );
    }
    out.push_str("</ul></figure>");
}

fn path_of(steps: &[Sample], value: fn(&Sample) -> Option<f64>, scale: f64) -> String {
    let mut path = String::new();
    let mut drawing = false;
    let newest = steps.last().map_or(0, |s| s.at_s);
    for step in steps {
        let Some(value) = value(step) else {
            drawing = false;
            continue;
        };
        let ago = newest.saturating_sub(step.at_s) as f64 / STEP.as_secs_f64();
        let x = WIDTH as f64 - ago;
        if x < 0.0 {
            continue;
        }
        let part = if scale > 0.0 {
            (value / scale).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let y = HEIGHT - 1.0 - part * (HEIGHT - 2.0);
        // A lone value is drawn as a short dash.
        let _ = match drawing {
            false => write!(path, "M{:.1} {y:.1}h1", x - 1.0),
            true => write!(path, "L{x:.1} {y:.1}"),
        };
        drawing = true;
    }
    path
}

/// A file's objects in order: colour by state, height of the bar by recent uses. `hottest` cell of the page fills it.
pub fn heat_strip(out: &mut String, file: &HotFile, hottest: f32) {
    let o = file.objects;
    let width = file.cells.len() * CELL.0;
    let _ = write!(
        out,
        "<svg class=\"heat\" role=\"img\" width=\"{width}\" viewBox=\"0 0 {width} {}\" preserveAspectRatio=\"none\" \
         aria-label=\"{} objects: {} cold, {} clean, {} dirty, {} moving\">",
        CELL.1,
        o.all(),
        o.cold,
        o.clean,
        o.dirty,
        o.moving
    );
    let mut first = 0;
    for (i, cell) in file.cells.iter().enumerate() {
        let all = cell.objects.all();
        let last = (first + all).saturating_sub(1);
        // Square root: an object used a hundredth as much is still seen.
        let part = if hottest > 0.0 {
            f64::from(cell.uses / hottest).sqrt().clamp(0.0, 1.0)
        } else {
            0.0
        };
        let height = part * CELL.1;
        let class = state_class(cell);
        let x = i * CELL.0;
        let _ = write!(
            out,
            "<g class=\"{class}\"><title>{}</title><rect class=\"back\" x=\"{x}\" width=\"9\" height=\"{}\"/>",
            cell_title(cell, first, last),
            CELL.1
        );
        if height > 0.0 {
            let height = height.max(2.0);
            let _ = write!(
                out,
                "<rect x=\"{x}\" y=\"{:.1}\" width=\"9\" height=\"{height:.1}\"/>",
                CELL.1 - height
            );
        }
        out.push_str("</g>");
        first += all;
    }
    out.push_str("</svg>");
}

fn cell_title(cell: &Cell, first: u64, last: u64) -> String {
    let range = if first == last {
        format!("object {first}")
    } else {
        format!("objects {first} to {last}")
    };
    let o = cell.objects;
    let states: Vec<String> = [
        (o.cold, "cold"),
        (o.clean, "clean"),
        (o.dirty, "dirty"),
        (o.moving, "moving"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{count} {name}"))
    .collect();
    format!(
        "{range}: {}, {:.0} recent uses",
        states.join(", "),
        cell.uses
    )
}

/// What is rarest and matters most decides: dirty, moving, then whatever most of the objects are.
fn state_class(cell: &Cell) -> &'static str {
    let o = cell.objects;
    if o.dirty > 0 {
        "dirty"
    } else if o.moving > 0 {
        "moving"
    } else if o.clean >= o.cold {
        "clean"
    } else {
        "cold"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn lines_stop_where_nothing_happened_and_old_steps_are_left_out() {
        let step = |at_s, requests| Sample {
            at_s,
            requests,
            ..Sample::default()
        };
        let steps = [
            step(0, 9),
            step(10_000, 2),
            step(10_010, 0),
            step(10_020, 4),
        ];
        let value = |s: &Sample| (s.requests > 0).then_some(s.requests as f64);
        assert_eq!(path_of(&steps, value, 4.0), "M357.0 30.0h1M359.0 1.0h1");
        assert_eq!(path_of(&[], value, 0.0), "");
    }
}
