//! Where a value stands on an axis, where the axis has its ticks, and how they read.

/// What the numbers of an axis count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: 1, 20, 3k, 4M.
    Count,
    /// Bytes in powers of 1024.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// Things in a second.
    PerSecond,
    /// Seconds, shown as us, ms, s, min or h.
    Seconds,
    /// A share from 0 to 1, shown in percent.
    Share,
    /// A number without unit.
    Number,
}

impl Unit {
    /// A value with its unit, short.
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::Count => decimal(value, ""),
            Unit::PerSecond => decimal(value, "/s"),
            Unit::Bytes => binary(value, ""),
            Unit::BytesPerSecond => binary(value, "/s"),
            Unit::Seconds => seconds(value),
            Unit::Share => format!("{} %", short(value * 100.0)),
            Unit::Number => short(value),
        }
    }

    fn is_binary(self) -> bool {
        matches!(self, Unit::Bytes | Unit::BytesPerSecond)
    }
}

/// Three significant digits at most, without trailing zeros.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".into() } else { "?".into() };
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..7).contains(&magnitude) {
        return format!("{value:.0e}");
    }
    let digits = (2 - magnitude).clamp(0, 8) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

fn scaled(value: f64, base: f64, names: &[&str]) -> (f64, String) {
    let mut value = value;
    let mut index = 0;
    while value.abs() >= base * 0.9995 && index + 1 < names.len() {
        value /= base;
        index += 1;
    }
    (value, names[index].to_string())
}

fn decimal(value: f64, per: &str) -> String {
    let (value, name) = scaled(value, 1000.0, &["", "k", "M", "G", "T"]);
    format!("{}{name}{per}", short(value))
}

fn binary(value: f64, per: &str) -> String {
    let (value, name) = scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
    format!("{} {name}{per}", short(value))
}

fn seconds(value: f64) -> String {
    let size = value.abs() * 1.0005;
    let (divisor, name) = match size {
        0.0 => return "0 s".into(),
        _ if size < 1e-3 => (1e-6, "us"),
        _ if size < 1.0 => (1e-3, "ms"),
        _ if size < 120.0 => (1.0, "s"),
        _ if size < 7200.0 => (60.0, "min"),
        _ => (3600.0, "h"),
    };
    format!("{} {name}", short(value / divisor))
}

/// One axis of a chart.
#[derive(Debug, Clone)]
pub struct Axis {
    pub(super) label: String,
    pub(super) unit: Unit,
    pub(super) log: bool,
    pub(super) bounds: Option<[f64; 2]>,
}

impl Axis {
    /// An axis in equal steps. It starts at 0 when no value is below.
    pub fn linear(label: impl Into<String>, unit: Unit) -> Axis {
        Axis {
            label: label.into(),
            unit,
            log: false,
            bounds: None,
        }
    }

    /// An axis in equal factors. Values of 0 and below have no place on it, and are counted beneath the chart.
    pub fn log(label: impl Into<String>, unit: Unit) -> Axis {
        Axis {
            log: true,
            ..Axis::linear(label, unit)
        }
    }

    /// What its numbers count.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Shows from `low` to `high` whatever the data, for example 0 to 1 for shares.
    #[must_use]
    pub fn between(mut self, low: f64, high: f64) -> Axis {
        self.bounds = Some([low, high]);
        self
    }

    /// Whether a value has a place on this axis. Beyond 1e100 differences of values would overflow.
    pub(super) fn takes(&self, value: f64) -> bool {
        value.abs() <= 1e100 && (!self.log || value >= 1e-100)
    }

    /// The scale for these values, none when no value has a place.
    pub(super) fn scale(&self, values: impl Iterator<Item = f64>) -> Option<Scale> {
        let (low, high) = values
            .filter(|v| self.takes(*v))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                (l.min(v), h.max(v))
            });
        if low > high {
            return None;
        }
        let [mut low, mut high] = match self.bounds {
            Some(bounds) if self.takes(bounds[0]) && bounds[0] < bounds[1] => bounds,
            _ if self.log => [low, high],
            _ => [low.min(0.0), high.max(0.0)],
        };
        if low == high {
            [low, high] = if self.log {
                [low / 2.0, high * 2.0]
            } else {
                [low, low + 1.0]
            };
        }
        Some(Scale {
            low,
            high,
            log: self.log,
            binary: self.unit.is_binary(),
            sixties: self.unit == Unit::Seconds,
        })
    }
}

/// From the least to the greatest value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    binary: bool,
    sixties: bool,
}

impl Scale {
    /// 0 at the low end, 1 at the high one; values beyond stop there.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(1e-100) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Values that get a tick, at most about eight.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let all = if self.log {
            self.log_ticks()
        } else {
            self.linear_ticks()
        };
        let slack = 1e-9 * (self.high - self.low);
        all.into_iter()
            .filter(|t| *t >= self.low - slack && *t <= self.high + slack)
            .collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let raw = (self.high - self.low) / 6.0;
        let step = if self.binary && raw >= 1.0 {
            raw.log2().ceil().exp2()
        } else if self.sixties && raw > 10.0 {
            let steps = [
                20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
            ];
            let hours = (raw / 3600.0).ceil() * 3600.0;
            steps.into_iter().find(|s| *s >= raw).unwrap_or(hours)
        } else {
            let decade = 10_f64.powf(raw.log10().floor());
            let factors = [1.0, 2.0, 5.0, 10.0];
            let factor = factors.into_iter().find(|f| f * decade >= raw * 0.999);
            factor.unwrap_or(10.0) * decade
        };
        let first = (self.low / step).ceil() as i64;
        (0..12).map(|i| (first + i) as f64 * step).collect()
    }

    fn log_ticks(&self) -> Vec<f64> {
        let base: f64 = if self.binary { 2.0 } else { 10.0 };
        let (low, high) = (self.low.log(base), self.high.log(base));
        let width = high - low;
        let powers = |step: i32| {
            let first = (low / f64::from(step)).ceil() as i32 * step;
            (0..12)
                .map(|i| base.powi(first + i * step))
                .collect::<Vec<f64>>()
        };
        if self.binary {
            return powers(((width / 7.0).ceil() as i32).max(1));
        }
        if width < 2.0 {
            let first = low.floor() as i32;
            let decades = (first..=first + 3).map(|p| 10_f64.powi(p));
            return decades.flat_map(|d| [d, 2.0 * d, 5.0 * d]).collect();
        }
        powers(((width / 8.0).ceil() as i32).max(1))
    }
}
