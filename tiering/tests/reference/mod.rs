//! What libCacheSim calls our policies, what it defines differently, and how far results may be apart.

use tiering::sim::{Replacement, as_libcachesim, belady_misses};
use tiering::{ObjectId, PolicyConfig};

/// Four digits are given: the same up to rounding.
const EXACT: f64 = 0.00005;

/// Our name for one of theirs, and how far the miss ratio may be off.
pub fn ours(name: &str) -> Option<(&'static str, f64)> {
    Some(match name {
        "fifo" => ("fifo", EXACT),
        "lru" => ("lru", EXACT),
        "sieve" => ("sieve", EXACT),
        "lfu" => ("lfu", EXACT),
        "belady" => ("belady", EXACT),
        "arc" => ("arc", EXACT),
        "gdsf" => ("gdsf", 0.001),
        "wtinylfu" => ("w-tinylfu", EXACT),
        // Ties among ghosts are broken differently; below 200 objects theirs counts a hit on what has left.
        "lirs" => ("lirs", 0.002),
        "twoq" => ("2q", 0.002),
        "s3fifo" => ("s3-fifo", 0.0005),
        _ => return None,
    })
}

/// A parameter and its value.
pub type Setting = (&'static str, f64);

/// Misses of one of our policies, defined as theirs and with `more` settings, with room for so many objects.
pub fn misses(name: &str, keys: &[ObjectId], objects: u64, more: &[Setting]) -> u64 {
    let accesses: Vec<_> = keys.iter().map(|id| (*id, 1)).collect();
    missed(name, &accesses, objects, more).len() as u64
}

/// Which accesses miss, by their places, with room for so many bytes.
pub fn missed(
    name: &str,
    accesses: &[(ObjectId, u32)],
    capacity: u64,
    more: &[Setting],
) -> Vec<usize> {
    if name == "belady" {
        return belady_misses(accesses, capacity);
    }
    let mut config = PolicyConfig::from_name(name).expect("a policy's name");
    as_libcachesim(&mut config);
    for (parameter, value) in more {
        config.set(parameter, *value);
    }
    let mut cache = Replacement::new(&config, capacity).expect("a replacement algorithm");
    let accesses = accesses.iter().enumerate();
    let missed = accesses.filter(|(_, (id, len))| !cache.access(*id, *len));
    missed.map(|(at, _)| at).collect()
}
