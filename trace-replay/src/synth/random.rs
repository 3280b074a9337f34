//! Random numbers from one seed, the same on every machine, and the distributions that the generators are documented by.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers; `stream` separates the uses of one seed.
    pub fn new(seed: u64, stream: u64) -> Random {
        Random(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 up to, but not, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, but not, `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.unit() * n as f64) as u64).min(n.saturating_sub(1))
    }

    /// Exponential with this mean: the time between independent events.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Log-normal: `median * e^(sigma * Z)`, Z by Box and Muller (1958).
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        median * (sigma * z).exp()
    }

    /// A permutation of 0 to `n` - 1 (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i as u64 + 1) as usize);
        }
        all
    }
}

/// Ranks from 0, with probability in proportion to `1 / (rank + 1)^skew`.
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Over `n` ranks.
    pub fn new(n: usize, skew: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=n).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Zipf(weights.collect())
    }

    /// One rank.
    pub fn rank(&self, random: &mut Random) -> usize {
        let at = random.unit() * self.0.last().copied().unwrap_or(0.0);
        let rank = self.0.partition_point(|sum| *sum <= at);
        rank.min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_what_they_are_called() {
        let mut random = Random::new(7, 1);
        let n = 100_000;
        let mean = (0..n).map(|_| random.exponential(3.0)).sum::<f64>() / f64::from(n);
        assert!((mean - 3.0).abs() < 0.05, "{mean}");
        let mut sizes: Vec<f64> = (0..n).map(|_| random.log_normal(90.0, 0.6)).collect();
        sizes.sort_by(f64::total_cmp);
        let at = |q: f64| sizes[(q * f64::from(n)) as usize];
        // 0.8413 is one sigma above the median.
        assert!(
            (at(0.5) / 90.0 - 1.0).abs() < 0.02 && ((at(0.8413) / at(0.5)).ln() - 0.6).abs() < 0.02
        );
        let zipf = Zipf::new(1000, 0.9);
        let mut counts = vec![0_u32; 1000];
        (0..n).for_each(|_| counts[zipf.rank(&mut random)] += 1);
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((ratio / 10_f64.powf(0.9) - 1.0).abs() < 0.1, "{ratio}");
        let mut all = random.permutation(500);
        assert_ne!(all, (0..500).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
    }
}
