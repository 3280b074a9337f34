//! What a policy's parameter is called, counts and may be: read from text and told to people the same everywhere.

use std::fmt::Write as _;

use serde::Serialize;

use super::config::{PARAMETERS, PolicyConfig};

/// One parameter of one policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Parameter {
    /// The policy's name in the configuration.
    pub policy: &'static str,
    /// Its name below `policy`.
    pub name: &'static str,
    /// Its name among all settings of the gateway: policy and name, with underscores.
    pub key: &'static str,
    /// What it counts; empty for a plain number.
    pub unit: &'static str,
    /// Smallest allowed value.
    pub min: f64,
    /// Largest allowed value.
    pub max: f64,
    /// Only whole numbers are allowed.
    pub whole: bool,
    /// Value when nothing is said.
    pub default: f64,
    /// Where `trace-replay tune` looks for better values; none for what describes devices or bounds memory.
    pub tune: Option<(f64, f64)>,
    /// What it does.
    pub doc: &'static str,
}

/// A parameter that is not what it may be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{key}` is {value}: allowed is {allowed}")]
pub struct InvalidParameter {
    /// The parameter's name below `policy`.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed, for people.
    pub allowed: String,
}

const SIZES: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl Parameter {
    fn is_size(&self) -> bool {
        self.unit.starts_with("bytes")
    }

    /// A value as it may be written: `20MiB`, `0.5`.
    pub fn text(&self, value: f64) -> String {
        let sizes = SIZES.iter().filter(|_| self.is_size());
        for (suffix, shift) in sizes {
            let count = value / (1_u64 << shift) as f64;
            if count >= 1.0 && count.fract() == 0.0 {
                return format!("{count}{suffix}");
            }
        }
        value.to_string()
    }

    /// What is allowed, for people.
    pub fn allowed(&self) -> String {
        let kind = if self.whole {
            "a whole number from "
        } else {
            ""
        };
        let range = format!("{kind}{} to {}", self.text(self.min), self.text(self.max));
        format!("{range} {}", self.unit).trim_end().to_owned()
    }

    /// Whether it may be that.
    pub fn allows(&self, value: f64) -> bool {
        (self.min..=self.max).contains(&value) && (!self.whole || value.fract() == 0.0)
    }

    /// Reads a number; bytes may be written as `20MiB`.
    ///
    /// # Errors
    /// When it is no number, or not an allowed one.
    pub fn parse(&self, text: &str) -> Result<f64, InvalidParameter> {
        let text = text.trim();
        let suffix = SIZES
            .iter()
            .find(|(suffix, _)| self.is_size() && text.ends_with(suffix));
        let number = suffix.map_or(text, |(suffix, _)| text.trim_end_matches(suffix).trim());
        let unit = suffix.map_or(1, |(_, shift)| 1_u64 << shift) as f64;
        let value = number.parse::<f64>().ok().map(|n| n * unit);
        value
            .filter(|v| self.allows(*v))
            .ok_or_else(|| self.invalid(text.to_owned()))
    }

    pub(super) fn invalid(&self, value: String) -> InvalidParameter {
        InvalidParameter {
            key: self.name,
            value,
            allowed: self.allowed(),
        }
    }
}

/// Why a parameter could not be set.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SetParameterError {
    /// The policy has none of this name.
    #[error("`{policy}` has no parameter `{name}`, but {known}")]
    Unknown {
        /// The policy.
        policy: &'static str,
        /// What was asked for.
        name: String,
        /// What it has, for people.
        known: String,
    },
    /// The value is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidParameter),
}

impl PolicyConfig {
    /// The table's rows for this policy.
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> + use<> {
        let name = self.name();
        PARAMETERS.iter().filter(move |p| p.policy == name)
    }

    /// Sets a parameter from text.
    ///
    /// # Errors
    /// When there is none of this name, or the value is not allowed.
    pub fn set_text(&mut self, name: &str, text: &str) -> Result<(), SetParameterError> {
        let Some(parameter) = self.parameters().find(|p| p.name == name) else {
            let names: Vec<&str> = self.parameters().map(|p| p.name).collect();
            let known = match names.is_empty() {
                true => "none at all".to_owned(),
                false => names.join(", "),
            };
            return Err(SetParameterError::Unknown {
                policy: self.name(),
                name: name.to_owned(),
                known,
            });
        };
        self.set(name, parameter.parse(text)?);
        Ok(())
    }

    /// Names every parameter that is not what it may be; none when all is well.
    pub fn violations(&self) -> Vec<InvalidParameter> {
        let mut found: Vec<InvalidParameter> = self
            .parameters()
            .filter_map(|p| Some((p, self.get(p.name)?)))
            .filter(|(p, value)| !p.allows(*value))
            .map(|(p, value)| p.invalid(p.text(value)))
            .collect();
        if let PolicyConfig::Recency(c) = self
            && c.needed > c.periods
        {
            found.push(InvalidParameter {
                key: "needed",
                value: c.needed.to_string(),
                allowed: format!("at most `periods`, which is {}", c.periods),
            });
        }
        found
    }
}

/// All parameters as a table in Markdown.
pub fn parameters_markdown() -> String {
    let mut out = String::from(
        "| policy | parameter | default | unit | range | tuned in | what it does |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for p in PARAMETERS {
        let (default, min, max) = (p.text(p.default), p.text(p.min), p.text(p.max));
        let tune = p.tune.map_or(String::new(), |(low, high)| {
            format!("{} to {}", p.text(low), p.text(high))
        });
        let (policy, name, unit, doc) = (p.policy, p.name, p.unit, p.doc.trim());
        let _ = writeln!(
            out,
            "| `{policy}` | `{name}` | {default} | {unit} | {min} to {max} | {tune} | {doc} |"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
    use super::*;

    fn find(policy: &str, name: &str) -> &'static Parameter {
        let mut rows = PARAMETERS.iter();
        rows.find(|p| p.policy == policy && p.name == name).unwrap()
    }

    #[test]
    fn a_bad_value_is_told_with_name_value_and_range() {
        let mut config = PolicyConfig::from_name("cost-benefit").unwrap();
        for (name, text, message) in [
            ("theta", "-1", "`theta` is -1: allowed is 0.001 to 1000"),
            ("theta", "much", "`theta` is much: allowed is 0.001 to 1000"),
            (
                "samples",
                "2.5",
                "`samples` is 2.5: allowed is a whole number from 1 to 1024 objects",
            ),
            (
                "promote_bytes_per_s",
                "2TiB",
                "`promote_bytes_per_s` is 2TiB: allowed is a whole number from 0 to 1TiB bytes per second",
            ),
            (
                "half_life_s",
                "nan",
                "`half_life_s` is nan: allowed is 0.001 to 31536000 seconds",
            ),
        ] {
            let before = config.clone();
            let error = config.set_text(name, text).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(config, before);
        }
        let unknown = config.set_text("nursery", "1").unwrap_err().to_string();
        assert!(
            unknown
                .starts_with("`cost-benefit` has no parameter `nursery`, but half_life_s, theta,")
        );
        let mut lru = PolicyConfig::from_name("lru").unwrap();
        let none = lru.set_text("theta", "1").unwrap_err().to_string();
        assert_eq!(none, "`lru` has no parameter `theta`, but none at all");
    }

    #[test]
    fn every_default_and_bound_reads_back_from_its_text() {
        for p in PARAMETERS {
            for value in [p.default, p.min, p.max] {
                assert_eq!(p.parse(&p.text(value)), Ok(value), "{p:?}");
            }
            if let Some((low, high)) = p.tune {
                assert!(p.allows(low) && p.allows(high) && low < high, "{p:?}");
            }
            let key = format!("{}_{}", p.policy.replace('-', "_"), p.name);
            assert_eq!(p.key, key);
        }
        let budget = find("cost-benefit", "promote_bytes_per_s");
        assert_eq!(budget.parse("20MiB"), Ok(20_971_520.0));
        assert_eq!(budget.parse("1.5 KiB"), Ok(1536.0));
        assert_eq!(budget.text(1000.0), "1000");
    }

    #[test]
    fn the_page_has_the_table_as_it_is() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tiering.md");
        let text = std::fs::read_to_string(page).unwrap();
        let begin = "<!-- parameters: trace-replay policies -->\n\n";
        let (_, rest) = text.split_once(begin).expect("marker");
        let (table, _) = rest
            .split_once("\n<!-- end of parameters -->")
            .expect("marker");
        assert_eq!(
            table,
            parameters_markdown(),
            "run benches/tiering-table.sh --parameters"
        );
    }
}
