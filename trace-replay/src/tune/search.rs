//! Successive halving: many settings on samples, the better ones on more, the best on all that may be seen.

use std::time::Instant;

use tiering::PolicyConfig;

use super::Objective;
use super::case::{Case, Cost, Ratio};
use super::space::Space;
use crate::parallel;

/// Settings kept from one rung to the next: one of so many.
const KEEP: usize = 3;
/// The rungs: shares of the files.
const RUNGS: [f64; 3] = [0.1, 0.33, 1.0];
/// Settings tried around the best in each later round.
const NEAR: usize = 24;
/// Rounds around the best that find nothing better before the search ends.
const IN_VAIN: usize = 3;

/// Settings, and what they cost compared with the defaults in the worst case.
#[derive(Clone, Debug)]
pub struct Found {
    /// The settings.
    pub config: PolicyConfig,
    /// Each objective in the case in which it is worst.
    pub worst: Ratio,
    /// What was searched for, in its worst case.
    pub score: f64,
}

/// A search under way.
pub struct Search<'a> {
    /// All traces, with all sizes.
    pub cases: &'a [Case],
    /// What is searched for.
    pub objective: Objective,
    /// When it must end; what is not known by then is left out.
    pub deadline: Instant,
    /// Whether it must end now.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// How many settings were simulated, those on samples included.
    pub tried: usize,
    /// Tells how far it is.
    pub progress: &'a dyn Fn(&str),
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline || (self.stop)()
    }

    /// Costs in all cases, of each of `configs`; none for those that time did not suffice for.
    fn costs(
        &mut self,
        configs: &[PolicyConfig],
        rate: f64,
    ) -> anyhow::Result<Vec<Option<Vec<Cost>>>> {
        let jobs: Vec<(usize, usize)> = (0..configs.len())
            .flat_map(|config| (0..self.cases.len()).map(move |case| (config, case)))
            .collect();
        let (deadline, stop, cases) = (self.deadline, self.stop, self.cases);
        let costs = parallel::map(&jobs, |&(config, case)| {
            let late = Instant::now() >= deadline || stop();
            let cost = (!late).then(|| cases[case].seen(&configs[config], rate));
            cost.transpose()
        });
        let costs: Vec<Option<Cost>> = costs.into_iter().collect::<anyhow::Result<_>>()?;
        let all: Vec<Option<Vec<Cost>>> = costs
            .chunks(self.cases.len())
            .map(|of_config| of_config.iter().copied().collect())
            .collect();
        self.tried += all.iter().flatten().count();
        Ok(all)
    }

    /// The costs of `base` in each case at a rate: what others are compared with. It takes its time.
    fn base(&self, base: &PolicyConfig, rate: f64) -> anyhow::Result<Vec<Cost>> {
        let costs = parallel::map(self.cases, |case| case.seen(base, rate));
        costs.into_iter().collect()
    }

    /// What `costs` are in terms of `base`; none without a case.
    fn found(&self, config: PolicyConfig, costs: &[Cost], base: &[Cost]) -> Option<Found> {
        let ratios = costs.iter().zip(base).map(|(c, b)| c.over(b));
        let ratios: Vec<Ratio> = ratios.collect();
        let worst = ratios.iter().copied().reduce(Ratio::worst)?;
        let scores = ratios.iter().map(|r| r.by(self.objective));
        let score = scores.fold(0.0, f64::max);
        Some(Found {
            config,
            worst,
            score,
        })
    }

    fn judge(
        &mut self,
        configs: Vec<PolicyConfig>,
        base: &[Cost],
        rate: f64,
    ) -> anyhow::Result<Vec<Found>> {
        let costs = self.costs(&configs, rate)?;
        let known = configs.into_iter().zip(costs);
        let mut found: Vec<Found> = known
            .filter_map(|(config, costs)| self.found(config, &costs?, base))
            .collect();
        sort(&mut found);
        Ok(found)
    }

    /// Searches; answers with all that was tried on the whole of what may be seen, the best first. The
    /// defaults are among it. `first` is how many settings the first round takes; chosen by the time if none.
    ///
    /// # Errors
    /// When a trace can no longer be read.
    pub fn run(
        &mut self,
        base: &PolicyConfig,
        space: &mut Space,
        first: Option<usize>,
    ) -> anyhow::Result<Vec<Found>> {
        let begin = Instant::now();
        let full = self.base(base, 1.0)?;
        let one_s = begin.elapsed().as_secs_f64().max(1e-4);
        // However long that took: a search without any time has the defaults to answer with.
        let mut all = Vec::from_iter(self.found(base.clone(), &full, &full));
        self.tried += all.len();
        if space.axes().next().is_none() {
            return Ok(all);
        }
        let budget_s = self.deadline.saturating_duration_since(begin).as_secs_f64();
        // One of nine reaches the whole; the samples before it cost a little more than that together.
        let affordable = (budget_s * 0.5 / one_s * 3.0) as usize;
        let first = first.unwrap_or(affordable.clamp(KEEP * KEEP, 729));
        let mut configs: Vec<PolicyConfig> = (0..first).map(|at| space.anywhere(at)).collect();
        for rate in RUNGS {
            if self.is_over() {
                break;
            }
            let on = configs.len();
            let base = if rate < 1.0 {
                self.base(base, rate)?
            } else {
                full.clone()
            };
            let mut found = self.judge(configs, &base, rate)?;
            self.report(
                &format!("{on} settings on {:.0} % of the files", rate * 100.0),
                &found,
            );
            if rate < 1.0 {
                found.truncate(found.len().div_ceil(KEEP));
                configs = found.into_iter().map(|f| f.config).collect();
            } else {
                configs = Vec::new();
                all.extend(found);
            }
        }
        sort(&mut all);
        self.refine(&mut all, &full, space)?;
        Ok(all)
    }

    /// Looks around the best, closer and closer.
    fn refine(
        &mut self,
        all: &mut Vec<Found>,
        full: &[Cost],
        space: &mut Space,
    ) -> anyhow::Result<()> {
        let (mut step, mut in_vain) = (0.3, 0);
        while in_vain < IN_VAIN && !self.is_over() {
            let Some(best) = all.first().cloned() else {
                return Ok(());
            };
            // Two thirds around the best, the rest around the next four.
            let centers: Vec<PolicyConfig> = all.iter().take(5).map(|f| f.config.clone()).collect();
            let configs = (0..NEAR).map(|n| {
                let center = if n % 3 < 2 { 0 } else { n / 3 % centers.len() };
                space.near(&centers[center], step)
            });
            let configs: Vec<PolicyConfig> = configs.collect();
            let found = self.judge(configs, full, 1.0)?;
            self.report(&format!("{NEAR} settings near the best"), &found);
            all.extend(found);
            sort(all);
            let better = all.first().is_some_and(|f| f.score < best.score * 0.999);
            in_vain = if better { 0 } else { in_vain + 1 };
            step *= if better { 1.0 } else { 0.5 };
        }
        Ok(())
    }

    fn report(&self, what: &str, found: &[Found]) {
        let best = found.first().map_or("none in time".to_owned(), |f| {
            format!("best {:.3} times the defaults", f.score)
        });
        (self.progress)(&format!("{what}: {best}"));
    }
}

/// The best first; of those that are equally good, the one that is better in the rest.
fn sort(all: &mut Vec<Found>) {
    let rest = |f: &Found| f.worst.latency * f.worst.hdd_time * f.worst.bytes_moved;
    all.sort_by(|a, b| {
        let by_rest = || rest(a).total_cmp(&rest(b));
        a.score.total_cmp(&b.score).then_with(by_rest)
    });
    all.dedup_by(|a, b| a.config == b.config);
}

/// The best, and all that no other is better than in everything; one of equals.
pub fn front(all: &[Found]) -> Vec<&Found> {
    let beaten = |f: &Found| all.iter().any(|other| other.worst.dominates(&f.worst));
    let mut front: Vec<&Found> = all
        .iter()
        .enumerate()
        .filter(|(at, f)| *at == 0 || !beaten(f))
        .map(|(_, f)| f)
        .collect();
    let mut seen: Vec<Ratio> = Vec::new();
    front.retain(|f| {
        let new = !seen.contains(&f.worst);
        seen.push(f.worst);
        new
    });
    front
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats_in_everything() {
        let found = |latency, hdd_time| Found {
            config: PolicyConfig::default(),
            worst: Ratio {
                latency,
                hdd_time,
                bytes_moved: 1.0,
            },
            score: latency,
        };
        let all = [(0.8, 1.1), (0.8, 1.1), (0.9, 0.9), (0.95, 0.9), (1.0, 1.0)];
        let all = all.map(|(latency, hdd_time)| found(latency, hdd_time));
        let kept: Vec<_> = front(&all).iter().map(|f| f.worst.latency).collect();
        assert_eq!(kept, [0.8, 0.9]);
    }
}
