//! How much of all uploads together waits in memory to be written.
//!
//! Slow clients are many, and each may have sent all but the last byte: what each alone may gather bounds nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes of all uploads; what comes beyond is written as it comes.
pub const GATHERED_BYTES_MAX: u64 = 64 << 20;

/// What is gathered.
#[derive(Debug, Default)]
pub struct Gathering(AtomicU64);

/// A part of it; given back when dropped.
#[derive(Debug)]
pub struct Gathered {
    all: Arc<Gathering>,
    bytes: u64,
}

impl Gathering {
    /// Room for so many bytes, if there is.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Gathered> {
        let mut gathered = Gathered {
            all: Arc::clone(self),
            bytes: 0,
        };
        gathered.grow(bytes).then_some(gathered)
    }
}

impl Gathered {
    /// Takes room for further bytes; `false` if there is none.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let before = self.all.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= GATHERED_BYTES_MAX;
        match fits {
            true => self.bytes += bytes,
            false => drop(self.all.0.fetch_sub(bytes, Ordering::Relaxed)),
        }
        fits
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_to_the_byte_and_given_back() {
        let all = Arc::new(Gathering::default());
        let mut one = all.take(GATHERED_BYTES_MAX - 10);
        assert!(all.take(11).is_none());
        let ten = all.take(10);
        assert!(ten.is_some() && all.take(1).is_none());
        assert!(one.as_mut().is_some_and(|one| !one.grow(1)));
        drop(ten);
        assert!(one.is_some_and(|mut one| one.grow(10) && !one.grow(1)));
        assert!(all.take(GATHERED_BYTES_MAX).is_some());
    }
}
