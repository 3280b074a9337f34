//! The replacement algorithms against numbers made by libCacheSim, where such a collection lies.
//!
//! Set `TIERDAV_POLICY_ORACLE` to a directory with `oracle.tsv` and traces in `*.oracleGeneral.zst`; without
//! it this test passes without looking at anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tiering::{FileId, ObjectId};

mod reference;
use reference::{misses, ours};

fn keys(dir: &Path, trace: &str) -> Option<Vec<ObjectId>> {
    let file = std::fs::File::open(dir.join(format!("{trace}.oracleGeneral.zst"))).ok()?;
    let bytes = zstd::stream::decode_all(file).expect("zstd");
    let key = |r: &[u8]| u64::from_le_bytes(r[4..12].try_into().unwrap());
    let ids = bytes.chunks_exact(24).map(|r| FileId(key(r)));
    Some(ids.map(|file| ObjectId::new(file, 0)).collect())
}

#[test]
fn miss_ratios_agree_with_libcachesim() {
    let Some(dir) = std::env::var_os("TIERDAV_POLICY_ORACLE").map(PathBuf::from) else {
        return;
    };
    let table = std::fs::read_to_string(dir.join("oracle.tsv")).expect("oracle.tsv");
    let mut traces = BTreeMap::new();
    let (mut checked, mut off) = (0, vec![]);
    for line in table.lines().filter(|l| !l.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let (trace, policy) = (cells[0], cells[1]);
        let (Some((name, tolerance)), Ok(objects)) = (ours(policy), cells[2].parse::<u64>()) else {
            continue;
        };
        let want: f64 = cells[4].parse().unwrap();
        let keys = traces
            .entry(trace.to_owned())
            .or_insert_with(|| keys(&dir, trace));
        // A window that rounds to no object is no reference.
        let Some(keys) = keys.as_ref().filter(|_| want < 1.0) else {
            continue;
        };
        let misses = misses(name, keys, objects, &[]);
        let got = misses as f64 / keys.len() as f64;
        checked += 1;
        if (got - want).abs() > tolerance + 1e-9 {
            off.push(format!(
                "{trace} {name} {objects}: {got:.4}, theirs {want:.4}"
            ));
        }
    }
    assert!(checked > 0, "nothing to check in {}", dir.display());
    let list = off.join("\n");
    assert!(off.is_empty(), "{} of {checked} differ:\n{list}", off.len());
}

/// Byte-weighted, as libCacheSim's own tests count it: misses, and bytes missed.
#[test]
fn misses_and_bytes_agree_with_its_own_tests() {
    let Some(dir) = std::env::var_os("TIERDAV_POLICY_ORACLE").map(PathBuf::from) else {
        return;
    };
    let table = dir.join("published_unit_test_counts.tsv");
    let table = std::fs::read_to_string(table).expect("published counts");
    let file = std::fs::File::open(dir.join("cloudPhysicsIO.oracleGeneral.zst")).expect("trace");
    let bytes = zstd::stream::decode_all(file).expect("zstd");
    let records = bytes.chunks_exact(24).map(|r| {
        let key = u64::from_le_bytes(r[4..12].try_into().unwrap());
        let len = u32::from_le_bytes(r[12..16].try_into().unwrap());
        (ObjectId::new(FileId(key), 0), len)
    });
    let accesses: Vec<(ObjectId, u32)> = records.collect();
    let mut checked = 0;
    for line in table.lines().filter(|l| !l.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let name = match cells[0] {
            "Belady" => "belady",
            "FIFO" => "fifo",
            "GDSF" => "gdsf",
            "LFU" => "lfu",
            "LIRS" => "lirs",
            "LRU" => "lru",
            "Sieve" => "sieve",
            _ => continue,
        };
        let capacity: u64 = cells[1].parse().unwrap();
        let missed = reference::missed(name, &accesses, capacity, &[]);
        let bytes: u64 = missed.iter().map(|at| u64::from(accesses[*at].1)).sum();
        let got = (missed.len().to_string(), bytes.to_string());
        assert_eq!(got, (cells[2].to_owned(), cells[3].to_owned()), "{line}");
        checked += 1;
    }
    assert_eq!(checked, 7 * 8);
}
