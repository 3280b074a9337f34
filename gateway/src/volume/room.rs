//! Spares small uploads the question how much is free, while there is plenty.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long an answer is good for: others may write to the same file system.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Only one part in so many of what is free is given away without asking again.
const SHARE: u64 = 64;

/// What is left of the last answer.
#[derive(Default)]
pub(crate) struct Room(Mutex<Option<Left>>);

struct Left {
    asked: Instant,
    bytes: u64,
}

impl Room {
    /// Takes `len` bytes of what is known to be free; `false` if it has to be asked for.
    pub fn take(&self, len: u64, now: Instant) -> bool {
        let mut left = self.0.lock();
        let Some(left) = left.as_mut() else {
            return false;
        };
        let good = now.saturating_duration_since(left.asked) < GOOD_FOR && left.bytes >= len;
        if good {
            left.bytes -= len;
        }
        good
    }

    /// So much was free at `asked`.
    pub fn answered(&self, free: u64, asked: Instant) {
        *self.0.lock() = Some(Left {
            asked,
            bytes: free / SHARE,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_of_what_was_free_is_given_away_for_a_second() {
        let (room, asked) = (Room::default(), Instant::now());
        assert!(!room.take(1, asked));
        room.answered(6400, asked);
        assert!(room.take(60, asked) && room.take(40, asked + GOOD_FOR / 2));
        assert!(!room.take(1, asked), "a sixty-fourth is used up");
        room.answered(6400, asked);
        assert!(!room.take(101, asked) && room.take(100, asked));
        room.answered(6400, asked);
        assert!(!room.take(1, asked + GOOD_FOR));
        // Nearly full: every upload asks.
        room.answered(63, asked);
        assert!(!room.take(1, asked));
    }
}
