//! A search as a page: what was tried, and what nothing beats.

use super::report::{Costs, Report};
use super::space::Space;
use crate::page::{Axis, Chart, Page, Table, Unit};

/// One number of what settings cost.
type Measure = fn(&Costs) -> f64;

impl Report {
    /// The page: one HTML file that needs nothing else.
    pub fn html(&self, space: &Space) -> String {
        let mut page = Page::new(format!("Settings of {} tried", self.policy));
        page.paragraph(&format!(
            "{} settings simulated, the goal: {}. All costs are multiples of what the settings at the beginning cost, \
             each from the trace where it is worst. Shown are those that were tried on all of the traces' first two thirds.",
            self.tried,
            self.objective_name()
        ));
        page.heading("Not beaten in everything");
        let measures: [(&str, Measure); 2] = [
            ("Mean response time", |c| c.latency),
            ("Bytes moved", |c| c.bytes_moved),
        ];
        for (title, y) in measures {
            let point = |c: &Costs| (c.hdd_time, y(c));
            let all: Vec<(f64, f64)> = self.all.iter().map(point).collect();
            let front: Vec<(f64, f64)> = self.front.iter().map(|row| point(&row.costs)).collect();
            let chosen = front.first().copied().into_iter().collect();
            let x_axis = around("HDD time", all.iter().map(|p| p.0));
            let y_axis = around(title, all.iter().map(|p| p.1));
            let chart = Chart::new(format!("{title} against HDD time"), x_axis, y_axis)
                .note("Left and below is better. The front is not beaten in all three costs, of which two are shown.")
                .points("tried", all)
                .points("the front", front)
                .points("where it began", vec![(1.0, 1.0)])
                .points("chosen", chosen);
            page.chart(&chart);
        }
        let axes: Vec<_> = space.axes().collect();
        let head = ["cost", "latency", "HDD time", "moved"].into_iter();
        let mut table = Table::new(head.chain(axes.iter().map(|p| p.name)));
        for row in &self.front {
            let costs = [
                row.costs.score,
                row.costs.latency,
                row.costs.hdd_time,
                row.costs.bytes_moved,
            ];
            let costs = costs.map(|cost| format!("{cost:.3}")).into_iter();
            let value = |name| row.parameters.get(name).copied();
            table.row(
                costs.chain(
                    axes.iter()
                        .map(|p| p.text(value(p.name).unwrap_or(p.default))),
                ),
            );
        }
        page.table("The front; the first one is chosen", &table);
        page.heading("Does it hold where the search has not looked?")
            .paragraph(self.verdict());
        let mut table = Table::new(["trace and cache", "seen by the search", "the last third"]);
        for case in &self.cases {
            table.row([
                case.case.clone(),
                format!("{:.3}", case.seen.score),
                format!("{:.3}", case.held_out.score),
            ]);
        }
        page.table("Cost of the chosen settings", &table);
        page.heading("For the gateway").code(self.toml().trim_end());
        page.html()
    }
}

/// An axis from the least to the greatest of the values and 1, where the search began, and a little more.
fn around(name: &str, values: impl Iterator<Item = f64>) -> Axis {
    let (low, high) = values.fold((1.0_f64, 1.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    let more = (high - low).max(0.01) * 0.05;
    Axis::linear(name, Unit::Number).between(low - more, high + more)
}
