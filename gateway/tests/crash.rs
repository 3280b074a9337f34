//! kill -9 under a storm of PUT, MOVE, DELETE, MKCOL and PROPPATCH, restart, and compare with what was acknowledged.
//!
//! `TIERDAV_KILLS=200` runs the long form; `TIERDAV_SEED=n` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::storm::{MOVING, end, gather, round};
use common::{Gateway, Random};

const CLIENTS: u64 = 4;

fn storm(flags: &[&str], kills: u64) {
    let mut random = Random::from_env();
    let mut gateway = Gateway::start(flags);
    let mut storms = gather(&gateway, &mut random, CLIENTS, false);
    let mut acknowledged = 0;
    for _ in 0..kills {
        acknowledged += round(
            &mut storms,
            &mut gateway,
            &mut random,
            Gateway::kill_and_restart,
        );
        // Over pools a placeholder goes after its objects.
        common::eventually("nothing is left in .tierdav/tmp", || {
            std::fs::read_dir(gateway.root().join(".tierdav/tmp")).map_or(0, Iterator::count) == 0
        });
    }
    println!("{kills} kills, {acknowledged} operations acknowledged, none lost");
    assert!(acknowledged > kills, "the storm did nothing");
    end(&mut gateway, flags);
}

fn kills(normal: u64) -> u64 {
    std::env::var("TIERDAV_KILLS")
        .ok()
        .and_then(|k| k.parse().ok())
        .unwrap_or(normal)
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_with_a_cache_tier() {
    storm(&MOVING, kills(10));
}

#[cfg(feature = "rados")]
#[test]
fn nothing_acknowledged_is_lost_by_kill_9_over_pools() {
    let flags = common::storm::moving_over_pools();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    storm(&flags, kills(10));
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_without_a_cache_tier() {
    storm(&["--cache-dir", "none"], kills(10));
}
