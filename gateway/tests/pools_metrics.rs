//! The metrics of what the gateway asks of a real Ceph cluster (`TIERDAV_CEPH_DIR`, see deploy/dev/ceph.sh).
#![cfg(feature = "rados")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Gateway, content, eventually, pool_flags};

const MIB: usize = 1 << 20;

/// The value of `series`, as the gateway exports it now.
fn value(gateway: &Gateway, series: &str) -> u64 {
    let text = gateway.admin("GET", "/.tierdav/metrics").text();
    let line = text.lines().find_map(|l| l.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    value.trim().parse().expect(series)
}

fn rados(gateway: &Gateway, family: &str, op: &str, pool: &str) -> u64 {
    let series = format!("tierdav_rados_{family}{{op=\"{op}\",pool=\"{pool}\"}}");
    value(gateway, &series)
}

#[test]
fn operations_bytes_latencies_and_errors_are_counted_by_operation_and_pool() {
    let mut flags = pool_flags();
    flags.extend(["--max-dirty-age", "1h", "--object-size", "1MiB"].map(str::to_owned));
    let refs: Vec<&str> = flags.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&refs);
    assert_eq!(value(&gateway, "tierdav_rados_owner"), 1);
    assert_eq!(
        value(&gateway, "tierdav_rados_connects_total{result=\"ok\"}"),
        1
    );
    assert!(rados(&gateway, "operations_total", "lock", "data") > 0);
    assert!(rados(&gateway, "operations_total", "list", "cache") > 0);
    assert!(rados(&gateway, "operations_total", "command", "none") > 0);

    // Three objects into the cache pool.
    let before = rados(&gateway, "operations_total", "write", "cache");
    assert_eq!(gateway.put("/a", &content(1, 3 * MIB)).status, 201);
    assert_eq!(
        rados(&gateway, "operations_total", "write", "cache"),
        before + 3
    );
    assert_eq!(
        rados(&gateway, "bytes_total", "write", "cache"),
        3 * MIB as u64
    );
    assert_eq!(
        rados(
            &gateway,
            "operation_duration_seconds_count",
            "write",
            "cache"
        ),
        before + 3
    );

    // And out of it.
    assert_eq!(gateway.get("/a").body.len(), 3 * MIB);
    assert_eq!(
        rados(&gateway, "bytes_total", "read", "cache"),
        3 * MIB as u64
    );

    // A copy is made by the OSDs: its bytes are not in the counters, its operations are.
    let moved = |op| {
        let pools = ["cache", "data"].iter();
        pools
            .map(|pool| rados(&gateway, "bytes_total", op, pool))
            .sum::<u64>()
    };
    let before = (moved("read"), moved("write"));
    let copied = gateway.request("COPY", "/a", &[("Destination", "/b")], b"");
    assert_eq!(copied.status, 201);
    let copies = ["cache", "data"]
        .iter()
        .map(|pool| rados(&gateway, "operations_total", "copy", pool));
    assert_eq!(copies.sum::<u64>(), 3);
    assert_eq!((moved("read"), moved("write")), before);

    // A write of a part takes the object with the part through the gateway; the others are copied by the OSDs.
    let range = [("Content-Range", "bytes 1500000-1500009/*")];
    let patched = gateway.request("PUT", "/b", &range, b"0123456789");
    assert_eq!(patched.status, 204);
    let one = MIB as u64;
    assert_eq!(
        (moved("read"), moved("write")),
        (before.0 + one, before.1 + one)
    );
    let mut expected = content(1, 3 * MIB);
    expected[1_500_000..1_500_010].copy_from_slice(b"0123456789");
    assert_eq!(gateway.get("/b").body, expected);

    // What is not there is an error of its own kind: the reader finds no object in either pool.
    let id = gateway
        .get("/b")
        .header("etag")
        .trim_matches('"')
        .to_owned();
    let namespace = flags.iter().position(|f| f == "--ceph-namespace").unwrap() + 1;
    for pool in ["tierdav-cache", "tierdav-data"] {
        let object = format!("{id}.00000001");
        // It is in one of them only.
        common::cluster::ceph(&["rados", "-p", pool, "-N", &flags[namespace], "rm", &object]);
    }
    let range = [("Range", "bytes=1048576-1048577")];
    let lost = gateway.request("GET", "/b", &range, b"");
    assert_ne!(lost.status, 206);
    let missed = "tierdav_rados_errors_total{op=\"read\",pool=\"data\",error=\"not_found\"}";
    assert!(value(&gateway, missed) > 0);

    // Everything answered, nothing is under way.
    eventually("nothing is in flight", || {
        ["cache", "data", "none"].iter().all(|pool| {
            let series = format!("tierdav_rados_operations_in_flight{{pool=\"{pool}\"}}");
            value(&gateway, &series) == 0
        })
    });
}

#[test]
fn memory_that_a_load_used_is_given_back_after_it() {
    let mut flags = pool_flags();
    flags.extend(["--max-dirty-age", "1h"].map(str::to_owned));
    let refs: Vec<&str> = flags.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&refs);
    let resident = || value(&gateway, "process_resident_memory_bytes") / (1 << 20);
    let idle = resident();
    let body = content(1, 48 * MIB);
    std::thread::scope(|s| {
        for i in 0..12 {
            let (gateway, body) = (&gateway, &body);
            s.spawn(move || assert_eq!(gateway.put(&format!("/{i}"), body).status, 201));
        }
    });
    // What was allocated at once may have gone back before the load is over.
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let peak = peak.unwrap() / 1024;
    assert!(peak > idle + 50, "{idle} MiB, then {peak} MiB");
    eventually("most of it is given back", || {
        resident() < idle + (peak - idle) / 4
    });
    println!(
        "{idle} MiB idle, {peak} MiB at most, {} MiB now",
        resident()
    );
}
