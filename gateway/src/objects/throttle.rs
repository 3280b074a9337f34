//! Token buckets for movement: pure, time comes in.

use std::time::Duration;

use tiering::Nanos;

/// Bytes and operations per second; a rate of 0 is unlimited. A bucket holds one second's worth, and a move
/// larger than that goes into debt, which the next one waits for.
#[derive(Debug)]
pub struct Throttle {
    bytes: Bucket,
    ops: Bucket,
}

#[derive(Debug)]
struct Bucket {
    per_s: u64,
    tokens: f64,
    last: Nanos,
}

impl Throttle {
    /// Full buckets.
    pub fn new(bytes_per_s: u64, ops_per_s: u64) -> Self {
        let bucket = |per_s: u64| Bucket {
            per_s,
            tokens: per_s as f64,
            last: Nanos(0),
        };
        Throttle {
            bytes: bucket(bytes_per_s),
            ops: bucket(ops_per_s),
        }
    }

    /// Goes on at other rates; debts stay.
    pub fn set_rates(&mut self, bytes_per_s: u64, ops_per_s: u64) {
        for (bucket, per_s) in [(&mut self.bytes, bytes_per_s), (&mut self.ops, ops_per_s)] {
            if bucket.per_s == 0 {
                // Nothing was counted.
                bucket.tokens = per_s as f64;
            }
            bucket.per_s = per_s;
        }
    }

    /// Takes what a move of `bytes` costs; the move may start after the returned time.
    pub fn take(&mut self, now: Nanos, bytes: u64) -> Duration {
        self.bytes.take(now, bytes).max(self.ops.take(now, 1))
    }
}

impl Bucket {
    fn take(&mut self, now: Nanos, amount: u64) -> Duration {
        if self.per_s == 0 {
            return Duration::ZERO;
        }
        let rate = self.per_s as f64;
        let passed = now.since(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + passed * rate).min(rate);
        let wait = if self.tokens >= 0.0 {
            0.0
        } else {
            -self.tokens / rate
        };
        self.tokens -= amount as f64;
        Duration::from_secs_f64(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_unlimited() {
        let mut t = Throttle::new(0, 0);
        assert_eq!(t.take(Nanos(0), u64::MAX), Duration::ZERO);
        assert_eq!(t.take(Nanos(0), u64::MAX), Duration::ZERO);
    }

    #[test]
    fn debt_is_waited_for_and_time_pays_it() {
        let mut t = Throttle::new(100, 0);
        assert_eq!(t.take(Nanos(0), 300), Duration::ZERO);
        assert_eq!(t.take(Nanos(0), 1), Duration::from_secs(2));
        assert_eq!(t.take(Nanos::from_secs(10), 1), Duration::ZERO);
    }

    #[test]
    fn other_rates_keep_the_debt() {
        let mut t = Throttle::new(100, 0);
        t.take(Nanos(0), 300);
        t.set_rates(50, 1);
        assert_eq!(t.take(Nanos(0), 0), Duration::from_secs(4));
        assert_eq!(t.take(Nanos(0), 0), Duration::from_secs(4));
        t.set_rates(0, 0);
        assert_eq!(t.take(Nanos(0), 1), Duration::ZERO);
    }

    #[test]
    fn operations_count_whatever_their_size() {
        let mut t = Throttle::new(0, 2);
        let waits: Vec<u64> = (0..5)
            .map(|_| t.take(Nanos(0), 0).as_millis() as u64)
            .collect();
        assert_eq!(waits, [0, 0, 0, 500, 1000]);
    }
}
