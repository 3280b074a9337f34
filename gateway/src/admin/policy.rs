//! `/.tierdav/policy`: the settings that may change while the gateway runs, shown and set.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::door::PEER_TIME_MAX;
use super::{Admin, Reply, json, text};
use crate::config::{Change, Config, InForce, Live};
use crate::objects::{Memory, ObjectCache};

/// Longest body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What the endpoint answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The policy in force.
    pub policy: String,
    /// What this request changed.
    pub changes: Vec<Change>,
    /// What is in force.
    pub settings: Vec<InForce>,
}

/// Key and value pairs from a JSON object or from lines of TOML.
fn pairs(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let body = std::str::from_utf8(body).map_err(|_| "not UTF-8".to_owned())?;
    let table: toml::Table = if body.trim_start().starts_with('{') {
        serde_json::from_str(body).map_err(|e| e.to_string())?
    } else {
        body.parse().map_err(|e: toml::de::Error| e.to_string())?
    };
    if table.is_empty() {
        return Err("no settings".to_owned());
    }
    let pair = |(key, value): (String, toml::Value)| match crate::config::text_of(&value) {
        Some(text) => Ok((key, text)),
        None => Err(format!("{key}: must be a plain value")),
    };
    table.into_iter().map(pair).collect()
}

/// Puts checked settings in force.
pub fn apply(cache: &ObjectCache, config: &Config) {
    if cache.retune(config.tuning()) == Memory::Rebuilt {
        tracing::info!(
            policy = config.policy.name(),
            "another policy decides from now on; it knows what is in the cache, not what was used"
        );
    }
}

/// Says what changed.
pub fn log(changes: &[Change]) {
    for Change { key, from, to } in changes {
        tracing::info!(key, from, to, "setting changed");
    }
}

impl Admin {
    pub(super) async fn policy_page(&self, request: Request<Incoming>) -> Reply {
        let mut changes = Vec::new();
        if request.method() == Method::POST {
            let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
            let pairs = match tokio::time::timeout(PEER_TIME_MAX, body.collect()).await {
                Ok(Ok(body)) => pairs(&body.to_bytes()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body does not come\n"),
            };
            let hint = "send {\"cost_benefit_theta\": 2} or lines of TOML";
            let pairs = match pairs {
                Ok(pairs) => pairs,
                Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}: {hint}\n")),
            };
            let (live, cache) = (Arc::clone(&self.live), Arc::clone(&self.cache));
            // Another policy is told of all that is cached: too long for a thread that serves.
            let set = move || live.set(&pairs, |config| apply(&cache, config));
            match tokio::task::spawn_blocking(set).await {
                Ok(Ok(done)) => changes = done,
                Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
                Err(error) => {
                    return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
                }
            }
            log(&changes);
        }
        json(&Policy::of(&self.live, &self.cache, changes))
    }
}

impl Policy {
    fn of(live: &Live, cache: &ObjectCache, changes: Vec<Change>) -> Policy {
        Policy {
            policy: cache.tuning().policy.name().to_owned(),
            changes,
            settings: live.in_force(),
        }
    }

    /// For people: what changed, or all that is in force, as the configuration has it.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for Change { key, from, to } in &self.changes {
            let _ = writeln!(out, "{key}: {from} -> {to}");
        }
        if !out.is_empty() {
            return out;
        }
        for setting in &self.settings {
            let value = toml::Value::String(setting.value.clone());
            let line = format!("{} = {value}", setting.key);
            let (source, meaning) = (&setting.source, &setting.meaning);
            let _ = writeln!(out, "{line:<44} # {source}; {meaning}: {}", setting.allowed);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_body_is_json_or_toml() {
        let both = [
            ("a".to_owned(), "2.5".to_owned()),
            ("b".into(), "1MiB".into()),
        ];
        for body in ["{\"a\": 2.5, \"b\": \"1MiB\"}", "a = 2.5\nb = \"1MiB\"\n"] {
            assert_eq!(pairs(body.as_bytes()).unwrap(), both, "{body}");
        }
        for body in [
            "",
            "{}",
            "a",
            "{\"a\": null}",
            "{\"a\": {}}",
            "a = 1 b = 2",
            "\u{0}",
        ] {
            assert!(pairs(body.as_bytes()).is_err(), "{body}");
        }
        assert!(pairs(&[0xff]).is_err());
    }
}
