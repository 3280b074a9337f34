//! The replacement algorithms against the Python package `libcachesim`, on traces made from seeds.
//!
//! Needs `TIERDAV_LIBCACHESIM`, a Python that has the package; `deploy/dev/libcachesim.sh` installs one and
//! runs this. Without the variable nothing is compared, and the test says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::fmt::Write as _;
use std::process::Command;

use tiering::{FileId, ObjectId};

mod reference;
use reference::{Setting, misses, ours};

/// Steele, Lea, Flood (OOPSLA '14).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const REQUESTS: usize = 20_000;
const OBJECTS: u64 = 2_000;
const SIZES: [u64; 3] = [211, 499, 1_001];
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// Skewed requests with what makes algorithms differ: a loop, a scan, and a change of what is popular.
fn trace(seed: u64) -> Vec<u64> {
    let mut chance = Chance(seed);
    let (mut keys, mut scan) = (Vec::new(), OBJECTS);
    while keys.len() < REQUESTS {
        let shift = OBJECTS / 2 * u64::from(keys.len() > REQUESTS / 2);
        match chance.below(40) {
            0 => {
                let length = 20 + chance.below(200);
                keys.extend((0..length).map(|i| scan + i));
                scan += length;
            }
            1 => {
                let begin = chance.below(OBJECTS);
                for _ in 0..3 {
                    keys.extend((0..60).map(|i| (begin + i) % OBJECTS));
                }
            }
            _ => {
                let rank = (chance.unit().powi(3) * OBJECTS as f64) as u64;
                keys.push((rank * 7 + shift) % OBJECTS);
            }
        }
    }
    // Zero is no identity here.
    keys.iter().take(REQUESTS).map(|key| key + 1).collect()
}

/// libCacheSim's own format: time, object, size, index of the next access or -1.
fn encode(keys: &[u64]) -> Vec<u8> {
    let mut later = std::collections::BTreeMap::new();
    let mut records = Vec::new();
    for (at, key) in keys.iter().enumerate().rev() {
        let next = later.insert(*key, at as i64 + 1).unwrap_or(-1);
        let mut record = Vec::from((at as u32).to_le_bytes());
        record.extend(key.to_le_bytes());
        record.extend(1_u32.to_le_bytes());
        record.extend(next.to_le_bytes());
        records.push(record);
    }
    records.into_iter().rev().flatten().collect()
}

const THEIRS: &str = "
import sys, libcachesim as l
classes = dict(lru=l.LRU, fifo=l.FIFO, sieve=l.Sieve, lfu=l.LFU, arc=l.ARC, lirs=l.LIRS, twoq=l.TwoQ,
               s3fifo=l.S3FIFO, gdsf=l.GDSF, wtinylfu=l.WTinyLFU, belady=l.Belady)
path, sizes = sys.argv[1], [int(s) for s in sys.argv[2].split(',')]
for name, make in classes.items():
    for size in sizes:
        params = l.ReaderInitParam(ignore_obj_size=True)
        reader = l.TraceReader(path, l.TraceType.ORACLE_GENERAL_TRACE, params)
        print(name, size, make(cache_size=size, hashpower=16).process_trace(reader)[0])
";

#[test]
fn miss_ratios_agree_with_the_package() {
    let Some(python) = std::env::var_os("TIERDAV_LIBCACHESIM") else {
        eprintln!("not run: TIERDAV_LIBCACHESIM names no Python with libcachesim");
        return;
    };
    let dir = std::env::temp_dir().join(format!("tierdav-wheel-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let sizes = SIZES.map(|size| size.to_string()).join(",");
    let (mut checked, mut off) = (0, String::new());
    for seed in SEEDS {
        let keys = trace(seed);
        let path = dir.join(format!("{seed}.oracleGeneral"));
        std::fs::write(&path, encode(&keys)).unwrap();
        let mut command = Command::new(&python);
        let output = command.args(["-c", THEIRS]).arg(&path).arg(&sizes).output();
        let output = output.expect("python runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let ids: Vec<ObjectId> = keys.iter().map(|k| ObjectId::new(FileId(*k), 0)).collect();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let cells: Vec<&str> = line.split(' ').collect();
            let [theirs, size, want] = cells[..] else {
                continue;
            };
            let Some((name, tolerance)) = ours(theirs) else {
                continue;
            };
            // The package is later than the source that `ours` was held against, with changes of its own.
            let tolerance = match name {
                "s3-fifo" => 0.005,
                "gdsf" => 0.002,
                _ => tolerance,
            };
            let want: f64 = want.parse().unwrap();
            let more: &[Setting] = match name {
                "w-tinylfu" => &[("as_libcachesim", 2.0)],
                _ => &[],
            };
            let got = misses(name, &ids, size.parse().unwrap(), more) as f64 / ids.len() as f64;
            checked += 1;
            if (got - want).abs() > tolerance {
                let _ = writeln!(off, "seed {seed} {name} {size}: {got:.4}, theirs {want:.4}");
            }
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(checked, SEEDS.len() * SIZES.len() * 11);
    assert!(off.is_empty(), "{off}");
}
