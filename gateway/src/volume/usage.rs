//! Bytes of content in use, when a quota is configured.
//!
//! A clean shutdown leaves the sum in the attribute `user.tierdav.used` of `.tierdav`; any other
//! start counts again in the background, and the quota is enforced on what is counted so far.
//! Uploads reserve as they write, so that several together cannot exceed the quota.

use std::sync::Arc;

use parking_lot::Mutex;

/// Name of the attribute that keeps the sum between runs.
pub const ATTRIBUTE: &str = "user.tierdav.used";

#[derive(Default)]
struct Sums {
    used: i64,
    reserved: u64,
}

/// The running sums.
pub(crate) struct Usage {
    pub quota: Option<u64>,
    sums: Mutex<Sums>,
}

impl Usage {
    pub fn new(quota: Option<u64>) -> Arc<Usage> {
        Arc::new(Usage {
            quota,
            sums: Mutex::default(),
        })
    }

    /// Adds the difference a change made.
    pub fn change(&self, added: u64, removed: u64) {
        if self.quota.is_some() {
            let mut sums = self.sums.lock();
            sums.used = sums
                .used
                .saturating_add_unsigned(added)
                .saturating_sub_unsigned(removed);
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.sums.lock().used.max(0).unsigned_abs()
    }

    /// A reservation for an upload that will free `credit` bytes.
    pub fn reservation(self: &Arc<Self>, credit: u64) -> Reservation {
        Reservation {
            usage: Arc::clone(self),
            bytes: 0,
            credit,
        }
    }
}

/// Bytes an upload may write; given back when dropped.
pub(crate) struct Reservation {
    usage: Arc<Usage>,
    bytes: u64,
    credit: u64,
}

impl Reservation {
    /// Grows to `bytes` in all; `false` when the quota does not allow it.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let Some(quota) = self.usage.quota else {
            return true;
        };
        if bytes <= self.bytes {
            return true;
        }
        let mut sums = self.usage.sums.lock();
        let others = sums.reserved - self.bytes;
        let used = sums.used.max(0).unsigned_abs().saturating_sub(self.credit);
        if used.saturating_add(others).saturating_add(bytes) > quota {
            return false;
        }
        sums.reserved = others + bytes;
        self.bytes = bytes;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.usage.sums.lock().reserved -= self.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn reservations_together_stay_within_the_quota_to_the_byte() {
        let usage = Usage::new(Some(100));
        usage.change(60, 0);
        let (mut a, mut b) = (usage.reservation(0), usage.reservation(10));
        assert!(a.grow(30) && !a.grow(41) && a.grow(40));
        assert!(b.grow(10) && !b.grow(11));
        drop(a);
        assert!(b.grow(50) && !b.grow(51));
        usage.change(0, 60);
        assert!(b.grow(100));
        drop(b);
        assert_eq!((usage.used(), usage.sums.lock().reserved), (0, 0));
    }
}
