//! What a chart shows.

use super::scale::Axis;

/// How one series is drawn.
#[derive(Debug, Clone)]
pub enum Mark {
    /// Points joined by a line. A point that is not a number is a gap.
    Line(Vec<(f64, f64)>),
    /// A line that keeps its value until the next point: distribution functions, states.
    Step(Vec<(f64, f64)>),
    /// Single points.
    Points(Vec<(f64, f64)>),
    /// A bar from the first to the second number, as high as the third.
    Bars(Vec<(f64, f64, f64)>),
}

impl Mark {
    /// All corners: what the axes must reach.
    pub(super) fn corners(&self) -> Vec<(f64, f64)> {
        match self {
            Mark::Line(points) | Mark::Step(points) | Mark::Points(points) => points.clone(),
            Mark::Bars(bars) => bars
                .iter()
                .flat_map(|&(from, to, high)| [(from, high), (to, high)])
                .collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Mark::Line(points) | Mark::Step(points) | Mark::Points(points) => points.len(),
            Mark::Bars(bars) => bars.len(),
        }
    }
}

/// A name in the legend and what belongs to it.
#[derive(Debug, Clone)]
pub struct Series {
    pub(super) name: String,
    pub(super) mark: Mark,
}

/// Series on two axes.
#[derive(Debug, Clone)]
pub struct Chart {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// An empty chart.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Chart {
        Chart {
            title: title.into(),
            note: String::new(),
            x,
            y,
            series: Vec::new(),
        }
    }

    /// Says beneath the title what the reader must know.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Chart {
        self.note = text.into();
        self
    }

    /// Adds a series. The colours repeat after eight, the dashes do not.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, mark: Mark) -> Chart {
        self.series.push(Series {
            name: name.into(),
            mark,
        });
        self
    }

    /// Adds points joined by a line.
    #[must_use]
    pub fn line(self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Chart {
        self.with(name, Mark::Line(points))
    }

    /// Adds a line of steps.
    #[must_use]
    pub fn step(self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Chart {
        self.with(name, Mark::Step(points))
    }

    /// Adds single points.
    #[must_use]
    pub fn points(self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Chart {
        self.with(name, Mark::Points(points))
    }

    /// Adds bars (from, to, height).
    #[must_use]
    pub fn bars(self, name: impl Into<String>, bars: Vec<(f64, f64, f64)>) -> Chart {
        self.with(name, Mark::Bars(bars))
    }
}
