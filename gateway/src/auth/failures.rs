//! What failed logins cost the address they come from.
//!
//! Failures are counted per address and, within it, per user name; they are forgotten a minute after the last one. All of an
//! IPv6 /64 is one address: whoever has one of it has all.
//!
//! - Up to [`FREE`] failures: nothing.
//! - Above that in sum, the address's attempts are verified one at a time, in one queue with those of all other such
//!   addresses. Guessing therefore never takes the hashers from addresses that do not guess.
//! - What is asked at once is not counted yet when it begins: an attempt's pace is looked at again when its queue is over.
//! - Above that with one name, attempts with this name take turns, one per [`TURN`]. Who would wait longer than
//!   [`WAIT_MAX`] in either queue is refused (503 with Retry-After).
//!
//! Nobody is locked out: a whole building may be behind one address, and a device with an old password must not keep
//! the right password of its neighbour out. A right password that was never seen before is let in at once with another
//! name, and in its turn with the guessed name. (Limiting by address alone locked all of them out; by user name alone it
//! would let anyone lock out anyone.) The same wrong password sent again counts once: it is a device with an old
//! password, not a guess.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failures that cost nothing.
pub const FREE: u32 = 10;
/// Time between two attempts with a name that is being guessed.
pub const TURN: Duration = Duration::from_millis(500);
/// Longest wait for a turn; more is refused.
pub const WAIT_MAX: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(60);
const ADDRESSES_MAX: usize = 4096;
const NAMES_MAX: usize = 64;

/// How an attempt is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Free,
    /// One at a time.
    Queued,
    /// One at a time, not before this.
    Turn(Instant),
    /// Not verified.
    Refused,
}

struct Name {
    failures: u32,
    /// The next free turn.
    turn: Instant,
}

struct Address {
    last: Instant,
    failures: u32,
    /// By the hash of the name: a name may be as long as a header.
    names: HashMap<u64, Name>,
}

/// The failures of all addresses.
#[derive(Default)]
pub struct Failures {
    addresses: HashMap<IpAddr, Address>,
    hasher: RandomState,
}

impl Failures {
    /// What an attempt with this name from this address has to wait for. A turn that is given out is taken.
    pub fn pace(&mut self, from: IpAddr, name: &str, now: Instant) -> Pace {
        let key = self.hasher.hash_one(name);
        let from = counted(from);
        let Some(address) = self.addresses.get_mut(&from) else {
            return Pace::Free;
        };
        if now.duration_since(address.last) >= WINDOW {
            self.addresses.remove(&from);
            return Pace::Free;
        }
        if address.failures < FREE {
            return Pace::Free;
        }
        match address.names.get_mut(&key) {
            Some(guessed) if guessed.failures >= FREE => {
                let turn = guessed.turn.max(now);
                if turn.duration_since(now) > WAIT_MAX {
                    return Pace::Refused;
                }
                guessed.turn = turn + TURN;
                Pace::Turn(turn)
            }
            _ => Pace::Queued,
        }
    }

    /// Counts one failure.
    pub fn count(&mut self, from: IpAddr, name: &str, now: Instant) {
        let from = counted(from);
        if !self.addresses.contains_key(&from) && self.addresses.len() >= ADDRESSES_MAX {
            self.make_room(now);
        }
        let key = self.hasher.hash_one(name);
        let address = self.addresses.entry(from).or_insert_with(|| Address {
            last: now,
            failures: 0,
            names: HashMap::new(),
        });
        address.last = now;
        address.failures = address.failures.saturating_add(1);
        // An address that tries that many names is not worth more memory; its names so far stay counted.
        if address.names.contains_key(&key) || address.names.len() < NAMES_MAX {
            let new = || Name {
                failures: 0,
                turn: now,
            };
            let guessed = address.names.entry(key).or_insert_with(new);
            guessed.failures = guessed.failures.saturating_add(1);
        }
    }

    fn make_room(&mut self, now: Instant) {
        self.addresses
            .retain(|_, a| now.duration_since(a.last) < WINDOW);
        if self.addresses.len() >= ADDRESSES_MAX
            && let Some(oldest) = self.addresses.iter().min_by_key(|(_, a)| a.last)
        {
            let oldest = *oldest.0;
            self.addresses.remove(&oldest);
        }
    }
}

/// What stands for all addresses that whoever has this one is likely to have.
fn counted(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn turns_are_given_out_one_by_one_refused_beyond_the_longest_wait_and_forgotten_in_time() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(failures.pace(FROM, "pi", now), Pace::Free);
            failures.count(FROM, "pi", now);
        }
        let turns = WAIT_MAX.as_millis() / TURN.as_millis() + 1;
        for n in 0..turns {
            let turn = now + TURN * n as u32;
            assert_eq!(failures.pace(FROM, "pi", now), Pace::Turn(turn));
        }
        assert_eq!(failures.pace(FROM, "pi", now), Pace::Refused);
        assert_eq!(failures.pace(FROM, "mo", now), Pace::Queued);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(failures.pace(elsewhere, "pi", now), Pace::Free);
        assert_eq!(failures.pace(FROM, "pi", now + WINDOW), Pace::Free);
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one_and_ipv4_addresses_stay_apart() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..FREE {
            let from = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, n as u16));
            failures.count(from, "pi", now);
            failures.count(ip("::ffff:10.0.0.1"), "pi", now);
        }
        for (from, pace) in [
            ("2001:db8:0:7:ffff:ffff:ffff:ffff", Pace::Turn(now)),
            ("2001:db8:0:8::", Pace::Free),
            ("10.0.0.1", Pace::Turn(now)),
            ("::ffff:10.0.0.2", Pace::Free),
        ] {
            assert_eq!(failures.pace(ip(from), "pi", now), pace, "{from}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for n in 0..ADDRESSES_MAX as u32 + 10 {
            failures.count(IpAddr::V4(Ipv4Addr::from_bits(n)), "x", now);
        }
        for n in 0..1000 {
            failures.count(FROM, &n.to_string(), now);
        }
        assert_eq!(failures.addresses.len(), ADDRESSES_MAX);
        assert_eq!(failures.addresses[&FROM].names.len(), NAMES_MAX);
    }
}
