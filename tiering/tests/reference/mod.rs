//! What libCacheSim calls our policies, what it defines differently, and how far results may be apart.

use tiering::sim::{Replacement, belady};
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

/// Misses of one of our policies, defined as theirs, with room for so many objects.
pub fn misses(name: &str, keys: &[ObjectId], objects: u64) -> u64 {
    if name == "belady" {
        let accesses: Vec<_> = keys.iter().map(|id| (*id, 1)).collect();
        return belady(&accesses, objects);
    }
    let mut config = PolicyConfig::from_name(name).expect("a policy's name");
    let differences: &[(&str, f64)] = match name {
        "lfu" => &[("age_every", 0.0)],
        "lirs" => &[("demote_on_late_hit", 1.0)],
        "w-tinylfu" => &[
            ("as_libcachesim", 1.0),
            ("age_every", 32.0),
            ("count_max", 65535.0),
        ],
        _ => &[],
    };
    for (key, value) in differences {
        assert!(config.set(key, *value), "{key}");
    }
    let mut cache = Replacement::new(&config, objects).expect("a replacement algorithm");
    keys.iter().filter(|id| !cache.access(**id, 1)).count() as u64
}
