//! Which entries of a trace are replayed.

use crate::trace::{Entry, Op};
use std::fmt;
use std::str::FromStr;

/// Takes an entry when every kind of condition has one that fits; no condition takes all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Conditions on the path (either path of a rename, MOVE or COPY).
    pub paths: Vec<Box<str>>,
    /// Conditions on the operation.
    pub ops: Vec<Op>,
}

/// One condition, as `path=GLOB` or `op=NAME[,NAME...]`.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Any run of characters stands for `*` (within one segment) or `**` (across segments), one character for `?`.
    Path(Box<str>),
    /// Names as `info` prints them.
    Ops(Vec<Op>),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Path(glob) => write!(f, "path={glob}"),
            Condition::Ops(ops) => {
                let names: Vec<_> = ops.iter().map(|op| op.name()).collect();
                write!(f, "op={}", names.join(","))
            }
        }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        match text.split_once('=') {
            Some(("path", glob)) if !glob.is_empty() => {
                Ok(Condition::Path(glob.trim_matches('/').into()))
            }
            Some(("op", names)) => names
                .split(',')
                .map(|name| {
                    Op::from_name(name).ok_or_else(|| {
                        format!("`{name}` is no operation; `trace-replay info` shows the trace's")
                    })
                })
                .collect::<Result<_, _>>()
                .map(Condition::Ops),
            _ => Err(format!("`{text}` is neither `path=GLOB` nor `op=NAME,...`")),
        }
    }
}

impl FromIterator<Condition> for Filter {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Filter {
        let mut filter = Filter::default();
        for condition in conditions {
            match condition {
                Condition::Path(glob) => filter.paths.push(glob),
                Condition::Ops(ops) => filter.ops.extend(ops),
            }
        }
        filter
    }
}

impl Filter {
    /// Whether the entry is to be replayed.
    pub fn takes(&self, entry: &Entry) -> bool {
        let path2 = entry.path2.as_deref();
        let fits = |path: &str| {
            self.paths
                .iter()
                .any(|g| glob(g.as_bytes(), path.as_bytes()))
        };
        (self.paths.is_empty() || fits(&entry.path) || path2.is_some_and(fits))
            && (self.ops.is_empty() || self.ops.contains(&entry.op))
    }
}

/// Whether all of `text` fits the pattern, in time of the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Reachable[t]: the pattern so far fits text[..t].
    let mut reachable = vec![false; text.len() + 1];
    reachable[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let deep = pattern[at..].starts_with(b"**");
        let star = pattern[at] == b'*';
        let mut next = vec![false; text.len() + 1];
        for t in 0..=text.len() {
            next[t] = if star {
                reachable[t] || (t > 0 && next[t - 1] && (deep || text[t - 1] != b'/'))
            } else {
                t > 0
                    && reachable[t - 1]
                    && (pattern[at] == text[t - 1] || (pattern[at] == b'?' && text[t - 1] != b'/'))
            };
        }
        reachable = next;
        at += if deep { 2 } else { 1 };
    }
    reachable[text.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn one_star_stays_in_its_segment_and_two_do_not() {
        let fits = |p: &str, t: &str| glob(p.as_bytes(), t.as_bytes());
        assert!(fits("a/*.dat", "a/x.dat") && !fits("a/*.dat", "a/b/x.dat"));
        assert!(fits("a/**.dat", "a/b/x.dat") && fits("**/x.dat", "a/b/x.dat"));
        assert!(fits("a/?", "a/b") && !fits("a/?", "a/bc") && !fits("a?b", "a/b"));
        assert!(fits("**", "") && fits("*", "") && !fits("?", ""));
    }

    #[test]
    fn conditions_of_one_kind_add_and_of_two_kinds_narrow() {
        let filter: Filter = ["path=a/**", "path=b", "op=read,write"]
            .iter()
            .map(|c| c.parse::<Condition>().unwrap())
            .collect();
        let takes = |op, path: &str| filter.takes(&Entry::new(0, "c".into(), op, path.into()));
        assert!(takes(Op::FileRead, "a/x") && takes(Op::FileWrite, "b"));
        assert!(!takes(Op::FileUnlink, "b") && !takes(Op::FileRead, "c"));
        assert!("op=frobnicate".parse::<Condition>().is_err());
        assert!("size=4".parse::<Condition>().is_err());
    }
}
