//! What a policy sees and what it proposes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{FileId, Nanos, ObjectId, Tier};

/// Something that happened to an object, in the order in which it happened.
///
/// The caller guarantees: the time given with an event never runs backwards by more than scheduling
/// noise (a policy treats an earlier time as "no time has passed"); an action that was proposed is
/// answered exactly once, by its confirmation ([`Event::Promoted`], [`Event::Flushed`], [`Event::Evicted`])
/// or by [`Event::Failed`]; after [`Event::Deleted`] the answer may be left out. An action without an
/// answer stays pending, and its bytes planned, for as long as the object exists. Answers that come
/// twice or about unknown objects are harmless, and [`Event::Failed`] never proposes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of an object went to a client.
    Read {
        /// The object.
        id: ObjectId,
        /// First byte, from the start of the object.
        offset: u32,
        /// Bytes read.
        len: u32,
        /// Bytes in the whole object.
        object_len: u32,
        /// Who served them.
        served: Tier,
    },
    /// A conditional GET was answered 304: an access that moved no bytes (davfs2 re-reads that way).
    Revalidated {
        /// The version that the client still holds.
        file: FileId,
        /// How many objects it has.
        objects: u32,
        /// Bytes in all of it.
        len: u64,
    },
    /// A new object was published. With write-through, [`Event::Flushed`] follows at once.
    Written {
        /// The object.
        id: ObjectId,
        /// Bytes in it.
        len: u32,
        /// `Cache`: it is dirty there. `Backing`: the cache has no copy.
        placed: Tier,
    },
    /// A version of content is gone: deleted or overwritten. Its objects are dropped, its flushes cancelled.
    Deleted {
        /// The version.
        file: FileId,
        /// How many objects it had.
        objects: u32,
    },
    /// A promotion is complete: the cache has a clean copy.
    Promoted {
        /// The object.
        id: ObjectId,
        /// Bytes in it.
        len: u32,
    },
    /// A flush is complete and on stable storage: the cached copy is clean.
    Flushed {
        /// The object.
        id: ObjectId,
    },
    /// The clean copy has left the cache, whoever wanted it.
    Evicted {
        /// The object.
        id: ObjectId,
    },
    /// A proposed action was not done; the object is as it was before.
    Failed {
        /// The object.
        id: ObjectId,
        /// What was not done.
        action: ActionKind,
    },
    /// Found in the cache at the start.
    Restored {
        /// The object.
        id: ObjectId,
        /// Bytes in it.
        len: u32,
        /// Whether the cache holds the only copy.
        dirty: bool,
    },
}

/// A movement between the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionKind {
    /// Copy up: cold becomes clean.
    Promote,
    /// Copy down: dirty becomes clean.
    Flush,
    /// Drop the clean copy: clean becomes cold.
    Evict,
}

impl ActionKind {
    /// All kinds, in order.
    pub const ALL: [ActionKind; 3] = [ActionKind::Promote, ActionKind::Flush, ActionKind::Evict];

    /// Its name in traces, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            ActionKind::Promote => "promote",
            ActionKind::Flush => "flush",
            ActionKind::Evict => "evict",
        }
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One proposal of a policy to the migrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What to do.
    pub kind: ActionKind,
    /// With which object.
    pub id: ObjectId,
    /// Why, for logs.
    pub reason: Reason,
}

/// Why an action was proposed, with the numbers that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A read missed, and the policy promotes at once.
    FirstRead,
    /// Seen in each of the last so many periods.
    Recency {
        /// Periods in a row, the current one included.
        periods: u32,
    },
    /// The backing device has already spent more on it than the move costs.
    HeadTime {
        /// Decayed head time spent on its accesses, microseconds.
        spent_us: u64,
        /// Head time of moving the whole object, microseconds.
        cost_us: u64,
    },
    /// It has been dirty for too long.
    DirtyAge {
        /// Milliseconds since it became dirty (or since the last failed attempt).
        age_ms: u64,
    },
    /// It shares a file, and so a sequential run, with an object that has to be flushed.
    SameRun,
    /// The cache is over its high watermark.
    Watermark {
        /// Bytes planned to be in use.
        used_bytes: u64,
        /// The watermark.
        high_bytes: u64,
    },
    /// The policy evicts one by one, ahead of the high watermark.
    Room {
        /// Bytes planned to be in use.
        used_bytes: u64,
        /// Where the policy begins to evict.
        most_bytes: u64,
    },
    /// The policy keeps nothing in the cache.
    NotWanted,
    /// The operator drains the cache.
    Drain,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::FirstRead => write!(f, "first read"),
            Reason::Recency { periods } => write!(f, "seen in the last {periods} periods"),
            Reason::HeadTime { spent_us, cost_us } => {
                write!(f, "head time {spent_us} us spent, {cost_us} us to move")
            }
            Reason::DirtyAge { age_ms } => write!(f, "dirty for {age_ms} ms"),
            Reason::SameRun => write!(f, "same sequential run"),
            Reason::Watermark {
                used_bytes,
                high_bytes,
            } => write!(f, "{used_bytes} of {high_bytes} bytes used"),
            Reason::Room {
                used_bytes,
                most_bytes,
            } => write!(
                f,
                "{used_bytes} bytes used, begins to evict at {most_bytes}"
            ),
            Reason::NotWanted => write!(f, "policy keeps nothing"),
            Reason::Drain => write!(f, "the cache is being drained"),
        }
    }
}

/// Share of the cache's capacity above which objects leave it: the gateway's default, and what simulations assume.
pub const HIGH_WATERMARK: f64 = 0.9;
/// Share of the cache's capacity down to which they leave: the gateway's default, and what simulations assume.
pub const LOW_WATERMARK: f64 = 0.8;
/// Time after which what is dirty is flushed: the gateway's default, and what simulations assume.
pub const MAX_DIRTY_AGE: Duration = Duration::from_secs(120);

/// The cache tier as it is at the moment of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheView {
    /// Bytes that the cache may hold.
    pub capacity_bytes: u64,
    /// Bytes that it holds, staged but unpublished ones and copies in flight included.
    pub used_bytes: u64,
    /// Of these, bytes that only the cache has.
    pub dirty_bytes: u64,
    /// Evict when more than this fraction of the capacity is used.
    pub high_watermark: f64,
    /// Evict down to this fraction.
    pub low_watermark: f64,
    /// Flush what has been dirty for this long.
    pub max_dirty_age: Nanos,
}

impl CacheView {
    /// The high watermark in bytes, rounded down.
    pub fn high_bytes(&self) -> u64 {
        fraction(self.capacity_bytes, self.high_watermark)
    }

    /// The low watermark in bytes, rounded down.
    pub fn low_bytes(&self) -> u64 {
        fraction(self.capacity_bytes, self.low_watermark)
    }
}

/// `share` of `bytes`, rounded down (but not by the noise of binary fractions), at most `bytes`.
pub(crate) fn fraction(bytes: u64, share: f64) -> u64 {
    let exact = bytes as f64 * share.clamp(0.0, 1.0);
    ((exact + exact * 1e-12).floor() as u64).min(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_exact_numbers_of_bytes() {
        assert_eq!(fraction(100, 0.85), 85);
        assert_eq!(fraction(1000, 0.29), 290);
        assert_eq!(fraction(99, 0.85), 84);
        assert_eq!(fraction(u64::MAX, 1.0), u64::MAX);
        assert_eq!(fraction(100, f64::NAN), 0);
        assert_eq!(fraction(100, 7.0), 100);
    }
}
