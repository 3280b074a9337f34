//! Moves that did not happen, and objects that the cache tier did not take: what means trouble, and how often that is said.

use std::time::Duration;

use tiering::{Action, Nanos, ObjectId};

use super::pools::PoolError;
use super::store::StoreError;

/// Failures of one kind are said once in this time: on a full disk they are as many as there are objects.
const SAY_PERIOD: Duration = Duration::from_secs(60);

/// Why an object was not moved.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NotMoved {
    /// What it was to be moved for has changed since, or there is no room: nothing is wrong.
    #[error("{0}")]
    Dropped(&'static str),
    /// Something went wrong.
    #[error("{0}")]
    Failed(String),
}

impl NotMoved {
    pub fn is_failure(&self) -> bool {
        matches!(self, NotMoved::Failed(_))
    }
}

impl From<std::io::Error> for NotMoved {
    fn from(error: std::io::Error) -> Self {
        NotMoved::Failed(error.to_string())
    }
}

impl From<StoreError> for NotMoved {
    fn from(error: StoreError) -> Self {
        NotMoved::Failed(error.to_string())
    }
}

impl From<PoolError> for NotMoved {
    fn from(error: PoolError) -> Self {
        NotMoved::Failed(error.to_string())
    }
}

/// What was said of failures of each kind: when, and how many came since. Kinds of moves, and writes to the cache tier.
#[derive(Debug, Default)]
pub(super) struct Said([Option<(Nanos, u64)>; 4]);

const CACHE_WRITES: usize = 3;

impl Said {
    /// Says that a move failed, or counts it for the next time.
    pub fn not_moved(&mut self, now: Nanos, action: &Action, why: &str) {
        if let Some(others) = self.turn(now, action.kind as usize) {
            tracing::warn!(
                object = %action.id,
                action = %action.kind,
                error = why,
                others,
                "an object could not be moved; it stays where it is"
            );
        }
    }

    /// Says that the cache tier did not take an object, or counts it for the next time.
    pub fn not_cached(&mut self, now: Nanos, id: ObjectId, error: &dyn std::fmt::Display) {
        if let Some(others) = self.turn(now, CACHE_WRITES) {
            tracing::warn!(
                object = %id,
                %error,
                others,
                "cache tier does not take an object; it goes to the backing tier"
            );
        }
    }

    /// Whether it is time to say it: how many were not said since the last time.
    fn turn(&mut self, now: Nanos, kind: usize) -> Option<u64> {
        let said = self.0.get_mut(kind)?;
        match said {
            Some((at, others)) if now.since(*at) < SAY_PERIOD.into() => {
                *others += 1;
                None
            }
            _ => {
                let others = said.map_or(0, |(_, others)| others);
                *said = Some((now, 0));
                Some(others)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tiering::ActionKind;

    use super::*;

    #[test]
    fn failures_of_a_kind_are_said_once_a_minute_with_the_number_of_the_others() {
        let mut said = Said::default();
        let at = |seconds: u64| Nanos::from(Duration::from_secs(seconds));
        let mut turn = |seconds, kind: ActionKind| said.turn(at(seconds), kind as usize);
        assert_eq!(turn(5, ActionKind::Flush), Some(0));
        assert_eq!(turn(5, ActionKind::Promote), Some(0));
        for seconds in [5, 20, 64] {
            assert_eq!(turn(seconds, ActionKind::Flush), None);
        }
        assert_eq!(turn(65, ActionKind::Flush), Some(3));
        assert_eq!(turn(66, ActionKind::Flush), None);
        assert_eq!(turn(300, ActionKind::Flush), Some(1));
    }
}
