//! The keys that say who decides what lives in the cache, and who runs beside it.

use std::time::Duration;

use tiering::PolicyConfig;
use tiering::policy::PARAMETERS;
use tiering::shadow::POLICIES_MAX;
use tiering::sim::Device;

use super::{Checker, units};

/// Who decides, who runs beside it, and the backing device that the parameters describe.
pub(super) struct Policies {
    pub policy: Option<PolicyConfig>,
    pub auto: Option<Duration>,
    pub shadow: Option<Vec<PolicyConfig>>,
    pub backing: Device,
}

/// `policy` that changes to the best of the shadows.
const AUTO: &str = "auto";
/// Shadows of `auto` when none are named, beside the default policy.
const AUTO_CANDIDATES: [&str; 3] = ["recency", "lru-2nd", "s3-fifo"];

/// The policy whose parameters are shown for this value of `policy`.
pub(super) fn shown(policy: &str) -> &str {
    match policy.trim() {
        AUTO => PolicyConfig::default().name(),
        name => name,
    }
}

/// Names of policies with commas between them.
fn names(text: &str) -> Option<Vec<PolicyConfig>> {
    let names = text.split(',').map(str::trim).filter(|n| !n.is_empty());
    let policies: Vec<PolicyConfig> = names.map(PolicyConfig::from_name).collect::<Option<_>>()?;
    let twice = |(i, p): (usize, &PolicyConfig)| policies[..i].contains(p);
    let once = !policies.iter().enumerate().any(twice);
    (once && policies.len() <= POLICIES_MAX).then_some(policies)
}

/// Policies with their parameters. Those of other policies are checked too: a file may keep them.
pub(super) fn check(c: &mut Checker<'_>) -> Policies {
    let is_auto = c.raw.value("policy").0.trim() == AUTO;
    let mut policy = c.get("policy", |t| match is_auto {
        true => Some(PolicyConfig::default()),
        false => PolicyConfig::from_name(t),
    });
    let mut shadow = c.get("shadow", names);
    let period = c.get("auto_period", |t| {
        units::duration(t).filter(|t| t.as_secs() > 0)
    });
    let auto = period.filter(|_| is_auto);
    if let (Some(candidates), Some(policy), true) = (&mut shadow, &policy, is_auto) {
        if candidates.is_empty() {
            let names = AUTO_CANDIDATES.iter();
            candidates.extend(names.filter_map(|n| PolicyConfig::from_name(n)));
        }
        if !candidates.contains(policy) {
            candidates.insert(0, policy.clone());
        }
        if candidates.len() > POLICIES_MAX {
            let most = POLICIES_MAX - 1;
            let beside = policy.name();
            c.fault(
                "shadow",
                &format!(
                    "may name {most} policies beside {beside}, which policy = \"auto\" also tries"
                ),
            );
        }
    }
    let mut backing = Device::HDD;
    let before = c.faults.len();
    for parameter in PARAMETERS {
        let Some(value) = c.get(parameter.key, |t| parameter.parse(t).ok()) else {
            continue;
        };
        match parameter.key {
            "cost_benefit_seek_ms" => backing.seek_ms = value,
            "cost_benefit_transfer_mib_per_s" => backing.transfer_mib_per_s = value,
            _ => {}
        }
        for policy in policy.iter_mut().chain(shadow.iter_mut().flatten()) {
            if policy.name() == parameter.policy {
                policy.set(parameter.name, value);
            }
        }
    }
    if c.faults.len() == before {
        // What is wrong only together.
        let mut told = Vec::new();
        for policy in policy.iter().chain(shadow.iter().flatten()) {
            for wrong in policy.violations() {
                let of_policy = PARAMETERS.iter().filter(|p| p.policy == policy.name());
                let parameter = { of_policy }.find(|p| p.name == wrong.key);
                if let Some(p) = parameter.filter(|p| !told.contains(&p.key)) {
                    told.push(p.key);
                    c.fault(p.key, &format!("must be {}", wrong.allowed));
                }
            }
        }
    }
    Policies {
        policy,
        auto,
        shadow,
        backing,
    }
}
