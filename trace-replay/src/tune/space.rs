//! Where settings are looked for: the ranges that the table of parameters gives.

use tiering::PolicyConfig;
use tiering::policy::Parameter;

/// The parameters of one policy that are worth tuning.
pub struct Space {
    base: PolicyConfig,
    axes: Vec<(&'static Parameter, f64, f64)>,
    draws: u64,
}

const MIB: f64 = 1_048_576.0;

/// A number in 0..1 from the generator of Steele, Lea, Flood (OOPSLA '14).
fn random(draws: &mut u64) -> f64 {
    *draws = draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*draws ^ (*draws >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Three digits: what a person would write.
fn rounded(value: f64, whole: bool) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    let value = (value * scale).round() / scale;
    // Through text, so that no noise of binary fractions shows.
    let value = format!("{value:.6}").parse().unwrap_or(value);
    if whole { value.round() } else { value }
}

impl Space {
    /// The space around `base`, whose other parameters stay as they are.
    pub fn new(base: PolicyConfig, seed: u64) -> Self {
        let axes = base.parameters();
        let axes = axes.filter_map(|p| p.tune.map(|(low, high)| (p, low, high)));
        Self {
            axes: axes.collect(),
            base,
            draws: seed,
        }
    }

    /// The parameters that vary.
    pub fn axes(&self) -> impl Iterator<Item = &'static Parameter> + '_ {
        self.axes.iter().map(|(p, _, _)| *p)
    }

    /// Settings from anywhere; `at` numbers them: neighbours in number lie far apart (additive recurrence of
    /// Roberts' generalised golden ratio), so that few cover the space evenly.
    pub fn anywhere(&mut self, at: usize) -> PolicyConfig {
        let axes = self.axes.len() as f64;
        let ratio = (0..32).fold(2.0_f64, |x, _| (1.0 + x).powf(1.0 / (axes + 1.0)));
        self.valid(|space, axis| {
            let jitter = random(&mut space.draws) * 0.2;
            (at as f64 * ratio.powi(-(axis as i32) - 1) + 0.5 + jitter).fract()
        })
    }

    /// Settings near `center`: some of its parameters change by up to `step` of their range.
    pub fn near(&mut self, center: &PolicyConfig, step: f64) -> PolicyConfig {
        let center = center.clone();
        self.valid(|space, axis| {
            let at = space.place(&center, axis);
            let moved = random(&mut space.draws) < 0.5;
            let by = (random(&mut space.draws) * 2.0 - 1.0) * step;
            if moved { (at + by).clamp(0.0, 1.0) } else { at }
        })
    }

    /// Tries until parameters also suit each other.
    fn valid(&mut self, mut place: impl FnMut(&mut Self, usize) -> f64) -> PolicyConfig {
        for _ in 0..16 {
            let mut config = self.base.clone();
            for axis in 0..self.axes.len() {
                let at = place(self, axis);
                let (p, low, high) = self.axes[axis];
                let value = if logarithmic(low, high) {
                    low * (high / low).powf(at)
                } else {
                    low + (high - low) * at
                };
                let unit = match p.unit.starts_with("bytes") {
                    true if value >= MIB => MIB,
                    _ => 1.0,
                };
                let value = rounded(value / unit, p.whole) * unit;
                let value = if p.whole { value.round() } else { value };
                config.set(p.name, value.clamp(p.min, p.max));
            }
            if config.violations().is_empty() {
                return config;
            }
        }
        self.base.clone()
    }

    /// Where on an axis a configuration lies, 0 to 1.
    fn place(&self, config: &PolicyConfig, axis: usize) -> f64 {
        let (p, low, high) = self.axes[axis];
        let value = config.get(p.name).unwrap_or(p.default);
        let at = if logarithmic(low, high) {
            (value.max(low) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        at.clamp(0.0, 1.0)
    }
}

fn logarithmic(low: f64, high: f64) -> bool {
    low > 0.0 && high / low >= 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn settings_are_valid_cover_their_ranges_and_repeat() {
        for name in PolicyConfig::NAMES {
            let base = PolicyConfig::from_name(name).unwrap();
            let mut space = Space::new(base.clone(), 7);
            let mut again = Space::new(base, 7);
            let all: Vec<PolicyConfig> = (0..200).map(|at| space.anywhere(at)).collect();
            assert!((0..200).all(|at| again.anywhere(at) == all[at]), "{name}");
            assert!(all.iter().all(|c| c.violations().is_empty()), "{name}");
            for axis in 0..space.axes.len() {
                let below = |limit| {
                    let places = all.iter().map(|c| space.place(c, axis));
                    places.filter(|at| *at <= limit).count()
                };
                assert!(
                    (30..=100).contains(&below(0.34)),
                    "{name} {axis}: {}",
                    below(0.34)
                );
            }
        }
    }

    #[test]
    fn near_is_near() {
        let base = PolicyConfig::default();
        let mut space = Space::new(base.clone(), 1);
        let theta = space.axes().position(|p| p.name == "theta").unwrap();
        let home = space.place(&base, theta);
        for _ in 0..100 {
            let near = space.near(&base, 0.1);
            assert!((space.place(&near, theta) - home).abs() < 0.11);
            assert_eq!(near.get("seek_ms"), base.get("seek_ms"));
        }
        assert_eq!(rounded(1234.5, false), 1230.0);
        assert_eq!(rounded(0.123_456, false), 0.123);
        assert_eq!(rounded(2.7, true), 3.0);
    }
}
