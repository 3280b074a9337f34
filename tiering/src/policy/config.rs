//! Parameters of the policies, with units in their names.

use serde::{Deserialize, Serialize};

/// Which policy, and its parameters: `{ name = "cost-benefit", half_life_s = 600 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum PolicyConfig {
    /// Keeps nothing in the cache, and empties one that holds something.
    None(NoneConfig),
    /// Promotes on the first read, evicts the least recently used.
    Lru(LruConfig),
    /// Promotes what was seen in the last periods, like Ceph's hit sets.
    Recency(RecencyConfig),
    /// Promotes what has already cost the backing device its price in head time.
    CostBenefit(CostBenefitConfig),
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig::CostBenefit(CostBenefitConfig::default())
    }
}

/// `none` has no parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoneConfig {}

/// `lru` has no parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LruConfig {}

/// Parameters of `recency`. The defaults are Ceph's (`hit_set_count` 4, `hit_set_period` 1200 s,
/// `min_read_recency_for_promote` 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecencyConfig {
    /// Length of a period, seconds.
    pub period_s: u64,
    /// Periods remembered, the current one included.
    pub periods: u32,
    /// Promote when an object was already seen in each of the last so many periods; 0 promotes always.
    pub needed: u32,
    /// A period ends early when it has seen so many objects: bounds memory.
    pub period_objects_max: u32,
}

impl Default for RecencyConfig {
    fn default() -> Self {
        Self {
            period_s: 1200,
            periods: 4,
            needed: 1,
            period_objects_max: 100_000,
        }
    }
}

/// Parameters of `cost-benefit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CostBenefitConfig {
    /// Time in which the memory of an access fades to a half, seconds.
    pub half_life_s: f64,
    /// Promote when the head time spent exceeds this many times the price of the move.
    pub theta: f64,
    /// How much hotter than its victim an object must be, as a fraction.
    pub stickiness: f64,
    /// What a dirty victim's flush weighs, in head times of the object.
    pub dirty_weight: f64,
    /// What a 304 weighs, in head times of the object. It never promotes, but it keeps.
    pub revalidation_weight: f64,
    /// Share of the capacity for new writes.
    pub nursery_share: f64,
    /// Promotion budget, bytes per second; 0 is no limit.
    pub promote_bytes_per_s: u64,
    /// One seek of the backing device, milliseconds (Baleen, FAST '24: 11.5).
    pub seek_ms: f64,
    /// Its transfer rate, MiB/s (Baleen: 143).
    pub transfer_mib_per_s: f64,
    /// Residents compared for the choice of one victim.
    pub samples: u32,
    /// Objects outside the cache whose heat is remembered: bounds memory.
    pub ghosts_max: u32,
    /// Seed of the sampling.
    pub seed: u64,
}

impl Default for CostBenefitConfig {
    fn default() -> Self {
        Self {
            half_life_s: 600.0,
            theta: 1.0,
            stickiness: 0.2,
            dirty_weight: 0.3,
            revalidation_weight: 0.1,
            nursery_share: 0.4,
            promote_bytes_per_s: 20 << 20,
            seek_ms: 11.5,
            transfer_mib_per_s: 143.0,
            samples: 32,
            ghosts_max: 262_144,
            seed: 0x7469_6572,
        }
    }
}

/// A parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{key}` is {value}: allowed is {allowed}")]
pub struct InvalidParameter {
    /// The parameter's name below `policy`.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed, for people.
    pub allowed: &'static str,
}

impl PolicyConfig {
    /// All policies, by their names in the configuration.
    pub const NAMES: &[&str] = &["none", "lru", "recency", "cost-benefit"];

    /// Its name in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            PolicyConfig::None(_) => "none",
            PolicyConfig::Lru(_) => "lru",
            PolicyConfig::Recency(_) => "recency",
            PolicyConfig::CostBenefit(_) => "cost-benefit",
        }
    }

    /// The default parameters of a policy, by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" => PolicyConfig::None(NoneConfig::default()),
            "lru" => PolicyConfig::Lru(LruConfig::default()),
            "recency" => PolicyConfig::Recency(RecencyConfig::default()),
            "cost-benefit" => PolicyConfig::CostBenefit(CostBenefitConfig::default()),
            _ => return None,
        })
    }

    /// Names every parameter that is outside its range; none when all is well.
    pub fn violations(&self) -> Vec<InvalidParameter> {
        let mut found = Vec::new();
        match self {
            PolicyConfig::None(_) | PolicyConfig::Lru(_) => {}
            PolicyConfig::Recency(c) => {
                check(
                    &mut found,
                    "period_s",
                    c.period_s,
                    c.period_s >= 1,
                    "1 or more",
                );
                check(
                    &mut found,
                    "periods",
                    c.periods,
                    (1..=64).contains(&c.periods),
                    "1 to 64",
                );
                check(
                    &mut found,
                    "needed",
                    c.needed,
                    c.needed <= c.periods,
                    "0 to `periods`",
                );
                let objects = c.period_objects_max;
                check(
                    &mut found,
                    "period_objects_max",
                    objects,
                    objects >= 1,
                    "1 or more",
                );
            }
            PolicyConfig::CostBenefit(c) => {
                let mut over = |key, value: f64, ok: bool, allowed| {
                    check(&mut found, key, value, value.is_finite() && ok, allowed)
                };
                over(
                    "half_life_s",
                    c.half_life_s,
                    c.half_life_s > 0.0,
                    "more than 0",
                );
                over("theta", c.theta, c.theta > 0.0, "more than 0");
                over("stickiness", c.stickiness, c.stickiness >= 0.0, "0 or more");
                over(
                    "dirty_weight",
                    c.dirty_weight,
                    c.dirty_weight >= 0.0,
                    "0 or more",
                );
                over(
                    "revalidation_weight",
                    c.revalidation_weight,
                    c.revalidation_weight >= 0.0,
                    "0 or more",
                );
                over(
                    "nursery_share",
                    c.nursery_share,
                    (0.0..=1.0).contains(&c.nursery_share),
                    "0 to 1",
                );
                over("seek_ms", c.seek_ms, c.seek_ms >= 0.0, "0 or more");
                over(
                    "transfer_mib_per_s",
                    c.transfer_mib_per_s,
                    c.transfer_mib_per_s > 0.0,
                    "more than 0",
                );
                check(
                    &mut found,
                    "samples",
                    c.samples,
                    (1..=1024).contains(&c.samples),
                    "1 to 1024",
                );
                check(
                    &mut found,
                    "ghosts_max",
                    c.ghosts_max,
                    c.ghosts_max <= 1 << 26,
                    "0 to 67108864",
                );
            }
        }
        found
    }
}

fn check(
    found: &mut Vec<InvalidParameter>,
    key: &'static str,
    value: impl ToString,
    ok: bool,
    allowed: &'static str,
) {
    if !ok {
        found.push(InvalidParameter {
            key,
            value: value.to_string(),
            allowed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_ranges() {
        for name in ["none", "lru", "recency", "cost-benefit"] {
            let config = PolicyConfig::from_name(name);
            assert_eq!(config.as_ref().map(PolicyConfig::name), Some(name));
            assert_eq!(config.map(|c| c.violations()), Some(vec![]));
        }
        assert_eq!(PolicyConfig::from_name("arc"), None);
    }

    #[test]
    fn every_violation_is_named() {
        let config = PolicyConfig::CostBenefit(CostBenefitConfig {
            half_life_s: f64::NAN,
            nursery_share: 1.1,
            samples: 0,
            ..Default::default()
        });
        let keys: Vec<_> = config.violations().iter().map(|v| v.key).collect();
        assert_eq!(keys, ["half_life_s", "nursery_share", "samples"]);
        assert_eq!(
            config.violations()[1].to_string(),
            "`nursery_share` is 1.1: allowed is 0 to 1"
        );
    }
}
