//! Plain caches, as papers and other simulators have them: every miss is fetched, at once.

use std::collections::BTreeSet;

use crate::objects::Table;
use crate::policy::{self, PolicyConfig};
use crate::types::ObjectId;

/// A cache under one replacement algorithm; what it holds is bounded by its capacity.
pub struct Replacement {
    evictor: Box<dyn policy::evict::Evictor>,
    capacity: u64,
}

impl Replacement {
    /// Makes an empty one; none for policies that are more than a replacement algorithm.
    pub fn new(config: &PolicyConfig, capacity: u64) -> Option<Self> {
        let mut evictor = policy::evictor(config)?;
        evictor.resize(capacity);
        Some(Self { evictor, capacity })
    }

    /// Serves one access to `len` bytes; true for a hit. What is larger than the cache is never kept.
    pub fn access(&mut self, id: ObjectId, len: u32) -> bool {
        let hit = self.evictor.access(id);
        if !hit {
            self.missed(id, len);
        }
        while self.evictor.overdue().is_some() {}
        hit
    }

    fn missed(&mut self, id: ObjectId, len: u32) {
        if u64::from(len) > self.capacity || !self.evictor.miss(id, len) {
            return;
        }
        while self.evictor.bytes() + u64::from(len) > self.capacity {
            if self.evictor.victim().is_none() {
                return;
            }
            while self.evictor.overdue().is_some() {}
        }
        self.evictor.insert(id, len);
    }

    /// Whether it holds an object.
    pub fn holds(&self, id: ObjectId) -> bool {
        self.evictor.holds(id)
    }
}

/// Gives a policy the parameters with which it does as libCacheSim (aa0fc40) does, where that differs.
pub fn as_libcachesim(config: &mut PolicyConfig) {
    let differences: &[(&str, f64)] = match config {
        PolicyConfig::Lfu(_) => &[("age_every", 0.0)],
        PolicyConfig::Lirs(_) => &[("demote_on_late_hit", 1.0)],
        PolicyConfig::WTinyLfu(_) => &[
            ("as_libcachesim", 1.0),
            ("age_every", 32.0),
            ("count_max", 65_535.0),
        ],
        _ => &[],
    };
    for (name, value) in differences {
        config.set(name, *value);
    }
}

/// Misses of a clairvoyant that evicts what is used furthest in the future (Belady 1966). For objects
/// of one size no cache that fetches every miss has fewer; for mixed sizes it is only a good one.
pub fn belady(accesses: &[(ObjectId, u32)], capacity: u64) -> u64 {
    belady_misses(accesses, capacity).len() as u64
}

/// Which accesses these are, by their places.
pub fn belady_misses(accesses: &[(ObjectId, u32)], capacity: u64) -> Vec<usize> {
    let mut next = vec![u64::MAX; accesses.len()];
    let mut seen = Table::default();
    for (at, (id, _)) in accesses.iter().enumerate().rev() {
        if let Some(later) = seen.insert(*id, at as u64) {
            next[at] = later;
        }
    }
    let mut residents: Table<ObjectId, (u64, u32)> = Table::default();
    let mut by_next = BTreeSet::new();
    let (mut used, mut misses) = (0, Vec::new());
    for (at, (&(id, len), &next)) in accesses.iter().zip(&next).enumerate() {
        if let Some((due, _)) = residents.get_mut(&id) {
            by_next.remove(&(*due, id));
            *due = next;
            by_next.insert((next, id));
            continue;
        }
        misses.push(at);
        if u64::from(len) > capacity {
            continue;
        }
        while used + u64::from(len) > capacity {
            let Some((_, victim)) = by_next.pop_last() else {
                break;
            };
            let gone = residents.remove(&victim);
            used -= gone.map_or(0, |(_, len)| u64::from(len));
        }
        residents.insert(id, (next, len));
        by_next.insert((next, id));
        used += u64::from(len);
    }
    misses
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::types::FileId;

    fn letter(c: char) -> (ObjectId, u32) {
        let len = if c.is_uppercase() { 2 } else { 1 };
        (ObjectId::new(FileId(c as u64), 0), len)
    }

    /// Serves letters with room for `room` units; a capital letter is two units large. Answers with a
    /// sign per access (`+` hit, `.` miss) and what is left.
    fn serve(name: &str, room: u64, letters: &str) -> (String, String) {
        let mut config = PolicyConfig::from_name(name).unwrap();
        config.set("age_every", 0.0);
        let mut cache = Replacement::new(&config, room).unwrap();
        let mut sign = |c| match cache.access(letter(c).0, letter(c).1) {
            true => '+',
            false => '.',
        };
        let signs = letters.chars().map(&mut sign).collect();
        let left = (0..128_u8).map(char::from);
        (signs, left.filter(|c| cache.holds(letter(*c).0)).collect())
    }

    #[test]
    fn small_cases_worked_out_by_hand() {
        for (name, room, letters, signs, left) in CASES {
            let want = ((*signs).to_owned(), (*left).to_owned());
            assert_eq!(serve(name, *room, letters), want, "{name} {letters}");
        }
    }

    const CASES: &[(&str, u64, &str, &str, &str)] = &[
        ("fifo", 3, "abcadab", "...+...", "abd"),
        ("fifo", 3, "abcCc", "....+", "Cc"),
        ("lru", 3, "abcadab", "...+.+.", "abd"),
        ("lru", 3, "abCaC", "....+", "Ca"),
        // c is the only one used once.
        ("lfu", 3, "aabbcdcab", ".+.+...++", "abc"),
        // b, c leave before a, whose bit protects it once.
        ("sieve", 3, "abcadeb", "...+...", "abe"),
        // The first miss only leaves a ghost.
        ("lru-2nd", 2, "aaabb", "..+..", "ab"),
        // a leaves Ain for the ghosts and comes back to Am, which a scan does not touch.
        ("2q", 4, "abcdeafghija", "...........+", "ahij"),
        // a and b have moved to T2; the scan takes T1's place alone.
        ("arc", 4, "aabbcdefgab", ".+.+.....++", "abfg"),
        // Used twice more, a is in main when the scan passes.
        (
            "s3-fifo",
            10,
            "aaabcdefghijklma",
            ".++............+",
            "aefghijklm",
        ),
        // a and b are LIR; a scan is its own victim.
        ("lirs", 3, "abcdeab", ".....++", "abe"),
        // The large one has the lowest rank and leaves first; back again, it outranks c but not a.
        ("gdsf", 3, "aBcaBc", "...+..", "ac"),
        // b is known to be used more than the scan's c, d, e.
        ("w-tinylfu", 3, "aabbcdeab", ".+.+...++", "abe"),
    ];

    #[test]
    fn belady_evicts_what_is_used_last() {
        let trace: Vec<_> = "abcabdabc".chars().map(letter).collect();
        // At d, c is the furthest away.
        assert_eq!(belady(&trace, 3), 5);
        assert_eq!(belady(&trace, 100), 4);
        assert_eq!(belady(&trace, 0), 9);
    }
}
