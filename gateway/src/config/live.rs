//! Settings that change while the gateway runs: by the file, read again, or by the administrator. All of a change is
//! checked before any of it counts.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, KEYS, Key, Raw, Source, find};

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its name in the configuration.
    pub key: String,
    /// Its value, as it would be written there.
    pub value: String,
    /// Where it comes from.
    pub source: String,
    /// What is allowed.
    pub allowed: String,
    /// What it does.
    pub meaning: String,
}

/// A setting that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its name in the configuration.
    pub key: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// What reading the file again brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// What changed.
    pub changes: Vec<Change>,
    /// What differs from the start and takes a start to count.
    pub waiting: Vec<Change>,
}

/// The settings of a running gateway.
#[derive(Debug)]
pub struct Live(Mutex<State>);

#[derive(Debug)]
struct State {
    /// As of the start: in force for what cannot change.
    start: Raw,
    /// Without what the administrator set.
    base: Raw,
    set: BTreeMap<&'static str, String>,
}

impl State {
    /// With what the administrator set.
    fn raw(&self) -> Raw {
        let mut raw = self.base.clone();
        for (key, value) in &self.set {
            raw.values.insert(key, (value.clone(), Source::Live));
        }
        raw
    }
}

fn changes(old: &Raw, new: &Raw, which: impl Fn(&Key) -> bool) -> Vec<Change> {
    let keys = KEYS.iter().filter(|key| which(key));
    let change = |key: &Key| {
        let (from, to) = (old.value(key.name).0, new.value(key.name).0);
        (from != to).then(|| Change {
            key: key.name.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        })
    };
    keys.filter_map(change).collect()
}

impl Live {
    /// Begins with the settings of the start, which have been checked.
    pub fn new(raw: Raw) -> Self {
        Live(Mutex::new(State {
            start: raw.clone(),
            base: raw,
            set: BTreeMap::new(),
        }))
    }

    /// Sets keys until the next start, or until the file says something new about them; `apply` puts them in force.
    ///
    /// # Errors
    /// [`ConfigError`] with a line for every key that there is not, that cannot change live, or whose value is not
    /// allowed: nothing has changed then.
    pub fn set(
        &self,
        pairs: &[(String, String)],
        apply: impl FnOnce(&Config),
    ) -> Result<Vec<Change>, ConfigError> {
        let mut state = self.0.lock();
        let old = state.raw();
        let (mut new, mut set) = (old.clone(), state.set.clone());
        for (name, value) in pairs {
            match find(name) {
                Some(key) if !key.live => new.faults.push(format!(
                    "  {name} = \"{value}\": cannot change while the gateway runs: set it in the file and restart"
                )),
                Some(key) => {
                    set.insert(key.name, value.clone());
                    new.set(name, value.clone(), Source::Live);
                }
                None => new.set(name, value.clone(), Source::Live),
            }
        }
        let config = Config::check(&new)?;
        state.set = set;
        apply(&config);
        Ok(changes(&old, &new, |key| key.live))
    }

    /// Reads the file again; `apply` puts in force what can change. What the administrator has set stays, unless the
    /// file says something new about it.
    ///
    /// # Errors
    /// [`ConfigError`]: all stays as it was.
    pub fn reread(&self, apply: impl FnOnce(&Config)) -> Result<Reread, ConfigError> {
        let mut state = self.0.lock();
        let old = state.raw();
        let base = state.base.reread();
        let mut set = state.set.clone();
        set.retain(|key, _| base.value(key).0 == state.base.value(key).0);
        let new = State {
            start: state.start.clone(),
            base,
            set,
        };
        let raw = new.raw();
        let config = Config::check(&raw)?;
        let waiting = changes(&new.start, &raw, |key| !key.live);
        *state = new;
        apply(&config);
        Ok(Reread {
            changes: changes(&old, &raw, |key| key.live),
            waiting,
        })
    }

    /// What may change, as it is: of the policies' parameters those of the policy in force, and what was set of others.
    pub fn in_force(&self) -> Vec<InForce> {
        let raw = self.0.lock().raw();
        let policy = super::policies::shown(raw.value("policy").0);
        let shown = KEYS.iter().filter(|key| {
            let own = key.parameter.is_none_or(|p| p.policy == policy);
            key.live && (own || raw.value(key.name).1 != Source::Default)
        });
        shown
            .map(|key| {
                let (value, source) = raw.value(key.name);
                InForce {
                    key: key.name.to_owned(),
                    value: value.to_owned(),
                    source: source.to_string(),
                    allowed: key.allowed.to_string(),
                    meaning: key.doc.to_owned(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tiering::PolicyConfig;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn theta(config: &Config) -> f64 {
        match &config.policy {
            PolicyConfig::CostBenefit(c) => c.theta,
            other => panic!("{other:?}"),
        }
    }

    fn value(live: &Live, key: &str) -> (String, String) {
        let found = live.in_force().into_iter().find(|s| s.key == key);
        found.map(|s| (s.value, s.source)).expect(key)
    }

    #[test]
    fn nothing_is_half_applied_and_every_fault_is_named() {
        let live = Live::new(Raw::default());
        let before = live.in_force();
        let bad = pairs(&[
            ("cost_benefit_theta", "2"),
            ("cost_benefit_margin", "-1"),
            ("root", "/elsewhere"),
            ("cost_benefit_teta", "1"),
            ("low_watermark", "0.95"),
        ]);
        let refused = live
            .set(&bad, |_| panic!("applied"))
            .unwrap_err()
            .to_string();
        for line in [
            "cost_benefit_margin = \"-1\" (set while running): must be 0 to 1000",
            "root = \"/elsewhere\": cannot change while the gateway runs",
            "cost_benefit_teta (set while running): no such key; did you mean cost_benefit_theta?",
            "low_watermark = \"0.95\" (set while running): must not be above high_watermark",
        ] {
            assert!(refused.contains(line), "{line}\n{refused}");
        }
        assert_eq!(live.in_force(), before);
    }

    #[test]
    fn what_the_administrator_set_stays_until_the_file_says_something_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tierdav.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("cost_benefit_theta = 2\nquota = \"1GiB\"\n");
        let mut raw = Raw::default();
        raw.read_file(&file);
        raw.set(
            "max_dirty_age",
            "9s".into(),
            Source::Flag("--max-dirty-age".into()),
        );
        let live = Live::new(raw);
        let mut seen = 0.0;
        let changed = live
            .set(&pairs(&[("cost_benefit_theta", "3")]), |c| seen = theta(c))
            .unwrap();
        assert_eq!(
            (seen, changed.len(), changed[0].from.as_str()),
            (3.0, 1, "2")
        );

        write("cost_benefit_theta = 2\nquota = \"2GiB\"\nmax_dirty_age = \"1s\"\n");
        let reread = live.reread(|c| seen = theta(c)).unwrap();
        assert_eq!((seen, reread.changes.len()), (3.0, 0));
        assert_eq!(reread.waiting[0].key, "quota");
        assert_eq!(
            value(&live, "max_dirty_age"),
            ("9s".into(), "--max-dirty-age".into())
        );

        write("cost_benefit_theta = 4\nquota = \"1GiB\"\n");
        let reread = live.reread(|c| seen = theta(c)).unwrap();
        assert_eq!((seen, reread.waiting.len()), (4.0, 0));
        assert_eq!(
            (
                reread.changes[0].from.as_str(),
                reread.changes[0].to.as_str()
            ),
            ("3", "4")
        );

        write("cost_benefit_theta = 0\n");
        let refused = live.reread(|_| panic!("applied")).unwrap_err().to_string();
        assert!(refused.contains("cost_benefit_theta = \"0\""), "{refused}");
        assert_eq!(value(&live, "cost_benefit_theta").0, "4");
    }
}
