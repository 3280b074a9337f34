//! `policy = "auto"`: which policy should decide, by what each would have achieved.

use std::fmt;

use crate::shadow::Estimate;
use crate::types::Nanos;

/// When to change to another policy. A change costs what the new policy must learn again, so it must pay for longer than a
/// busy moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Policies are compared once in this time.
    pub period: Nanos,
    /// Another policy must spare this share of the backing device's busy time,
    pub gain: f64,
    /// in so many periods one after the other,
    pub periods: u32,
    /// each with so many reads: one with fewer neither counts nor breaks the row.
    pub reads_min: f64,
    /// No change for so many periods after the start or a change: shadows begin with empty caches.
    pub rest: u32,
}

impl Rules {
    /// A tenth less in three periods, and six periods between two changes.
    pub const fn every(period: Nanos) -> Self {
        Rules {
            period,
            gain: 0.1,
            periods: 3,
            reads_min: 100.0,
            rest: 6,
        }
    }
}

/// Another policy should decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// The one that decides.
    pub from: String,
    /// The one that should.
    pub to: String,
    /// What the one that decides would have done in the periods that count.
    pub from_did: Did,
    /// What the other would have done.
    pub to_did: Did,
    /// How long these periods were.
    pub span: Nanos,
}

/// What a policy would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Did {
    /// Object reads.
    pub reads: f64,
    /// Of these, from the cache.
    pub read_hits: f64,
    /// Busy time of the backing device.
    pub head_seconds: f64,
}

impl Did {
    fn of(estimate: &Estimate) -> Self {
        Did {
            reads: estimate.reads,
            read_hits: estimate.read_hits,
            head_seconds: estimate.head_seconds,
        }
    }

    fn since(self, before: Did) -> Did {
        Did {
            reads: self.reads - before.reads,
            read_hits: self.read_hits - before.read_hits,
            head_seconds: self.head_seconds - before.head_seconds,
        }
    }

    fn plus(self, other: Did) -> Did {
        Did {
            reads: self.reads + other.reads,
            read_hits: self.read_hits + other.read_hits,
            head_seconds: self.head_seconds + other.head_seconds,
        }
    }

    fn hit_percent(self) -> f64 {
        100.0 * self.read_hits / self.reads.max(1.0)
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} instead of {}: in {:.0} s it would have kept the backing device busy for {:.1} s instead of {:.1} s, \
             with {:.1} % instead of {:.1} % of {:.0} reads from the cache",
            self.to,
            self.from,
            self.span.as_secs_f64(),
            self.to_did.head_seconds,
            self.from_did.head_seconds,
            self.to_did.hit_percent(),
            self.from_did.hit_percent(),
            self.to_did.reads
        )
    }
}

/// A policy that has been better for some periods.
#[derive(Clone, Debug)]
struct Row {
    policy: String,
    periods: u32,
    better: Did,
    current: Did,
    span: Nanos,
}

/// Compares, remembers who was better, and says when to change. Pure.
#[derive(Clone, Debug)]
pub struct Auto {
    rules: Rules,
    /// When the period began, and what each had done then.
    began: Option<(Nanos, Vec<(String, Did)>)>,
    row: Option<Row>,
    /// When a change may come.
    rest_until: Option<Nanos>,
}

impl Auto {
    /// Begins to compare.
    pub fn new(rules: Rules) -> Self {
        Auto {
            rules,
            began: None,
            row: None,
            rest_until: None,
        }
    }

    fn rest(&self, now: Nanos) -> Nanos {
        let rest = self
            .rules
            .period
            .0
            .saturating_mul(u64::from(self.rules.rest));
        now.plus(Nanos(rest))
    }

    /// Looks at the shadows with the real cache's size; call at least once a period. `current` decides, and is among
    /// them. Of equally good policies the first is taken.
    pub fn decide(&mut self, now: Nanos, current: &str, estimates: &[Estimate]) -> Option<Switch> {
        let rest_until = self.rest_until.unwrap_or_else(|| self.rest(now));
        self.rest_until = Some(rest_until);
        let own = estimates.iter().filter(|e| e.size == 1.0);
        let did: Vec<(String, Did)> = own.map(|e| (e.policy.clone(), Did::of(e))).collect();
        let Some((began, before)) = &self.began else {
            self.began = Some((now, did));
            return None;
        };
        let span = now.since(*began);
        if span < self.rules.period {
            return None;
        }
        let since = |(policy, did): &(String, Did)| {
            let (_, before) = before.iter().find(|(p, _)| p == policy)?;
            // Shadows that began anew have done less than before.
            let did = did.since(*before);
            (did.reads >= 0.0 && did.head_seconds >= 0.0).then(|| (policy.clone(), did))
        };
        let period: Option<Vec<(String, Did)>> = did.iter().map(since).collect();
        self.began = Some((now, did));
        let Some(period) = period else {
            self.row = None;
            return None;
        };
        let mine = period.iter().find(|(policy, _)| policy == current)?.1;
        if mine.reads < self.rules.reads_min {
            return None;
        }
        let (policy, did) = { period.into_iter() }
            .min_by(|(_, a), (_, b)| a.head_seconds.total_cmp(&b.head_seconds))?;
        let row = self.row.take();
        if policy == current || did.head_seconds > (1.0 - self.rules.gain) * mine.head_seconds {
            return None;
        }
        let row = match row.filter(|row| row.policy == policy) {
            Some(row) => Row {
                policy,
                periods: row.periods + 1,
                better: row.better.plus(did),
                current: row.current.plus(mine),
                span: row.span.plus(span),
            },
            None => Row {
                policy,
                periods: 1,
                better: did,
                current: mine,
                span,
            },
        };
        if row.periods < self.rules.periods || now < rest_until {
            self.row = Some(row);
            return None;
        }
        self.rest_until = Some(self.rest(now));
        Some(Switch {
            from: current.to_owned(),
            to: row.policy,
            from_did: row.current,
            to_did: row.better,
            span: row.span,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const MINUTE: Nanos = Nanos::from_secs(60);

    /// Policies `a` and `b` (and what `b` is at twice the size, which must not matter), a period per call.
    struct Case {
        auto: Auto,
        now: Nanos,
        heads: [f64; 2],
        reads: f64,
    }

    impl Case {
        fn new(rest: u32) -> Case {
            let rules = Rules {
                rest,
                ..Rules::every(MINUTE)
            };
            let mut case = Case {
                auto: Auto::new(rules),
                now: Nanos::from_secs(5),
                heads: [0.0; 2],
                reads: 0.0,
            };
            assert_eq!(case.auto.decide(case.now, "a", &case.estimates()), None);
            case
        }

        fn estimates(&self) -> Vec<Estimate> {
            let estimate = |policy: &str, size, head_seconds| Estimate {
                policy: policy.into(),
                size,
                reads: self.reads,
                read_hits: self.reads / 2.0,
                head_seconds,
                ..Default::default()
            };
            vec![
                estimate("b", 2.0, 0.0),
                estimate("a", 1.0, self.heads[0]),
                estimate("b", 1.0, self.heads[1]),
            ]
        }

        /// A period with so many reads, in which `a` and `b` kept the device busy so long.
        fn period(&mut self, current: &str, reads: f64, heads: [f64; 2]) -> Option<Switch> {
            self.now = self.now.plus(MINUTE);
            self.reads += reads;
            self.heads = [self.heads[0] + heads[0], self.heads[1] + heads[1]];
            self.auto.decide(self.now, current, &self.estimates())
        }
    }

    #[test]
    fn a_tenth_less_in_three_periods_changes_and_the_log_says_the_numbers() {
        let mut case = Case::new(0);
        assert_eq!(case.period("a", 100.0, [16.0, 14.0]), None);
        assert_eq!(case.period("a", 100.0, [16.0, 8.0]), None);
        let switch = case.period("a", 100.0, [16.0, 7.0]).unwrap();
        assert_eq!(
            switch.to_string(),
            "b instead of a: in 180 s it would have kept the backing device busy for 29.0 s instead of 48.0 s, \
             with 50.0 % instead of 50.0 % of 300 reads from the cache"
        );
    }

    #[test]
    fn a_little_less_or_one_bad_period_does_not() {
        let mut case = Case::new(0);
        for _ in 0..20 {
            assert_eq!(case.period("a", 100.0, [16.0, 14.5]), None);
        }
        for _ in 0..5 {
            assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
            assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
            assert_eq!(case.period("a", 100.0, [16.0, 16.0]), None);
        }
    }

    #[test]
    fn idle_periods_neither_count_nor_break_the_row() {
        let mut case = Case::new(0);
        assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
        assert_eq!(case.period("a", 99.0, [16.0, 1.0]), None);
        assert_eq!(case.period("a", 0.0, [0.0, 0.0]), None);
        assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
        let switch = case.period("a", 100.0, [16.0, 1.0]).unwrap();
        assert_eq!(switch.to_did.head_seconds, 3.0);
    }

    #[test]
    fn it_rests_after_the_start_and_after_a_change() {
        let mut case = Case::new(6);
        for _ in 0..5 {
            assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
        }
        assert!(case.period("a", 100.0, [16.0, 1.0]).is_some());
        for _ in 0..5 {
            assert_eq!(case.period("b", 100.0, [1.0, 16.0]), None);
        }
        assert_eq!(case.period("b", 100.0, [1.0, 16.0]).unwrap().to, "a");
    }

    #[test]
    fn shadows_that_began_anew_are_compared_from_there() {
        let mut case = Case::new(0);
        case.period("a", 100.0, [16.0, 2.0]);
        case.period("a", 100.0, [16.0, 2.0]);
        (case.heads, case.reads) = ([0.0; 2], 0.0);
        assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
        assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
        assert_eq!(case.period("a", 100.0, [16.0, 1.0]), None);
        assert!(case.period("a", 100.0, [16.0, 1.0]).is_some());
    }
}
