#!/usr/bin/env bash
# The gateway over Ceph pools against `rados bench`: same cluster, object size and number of requests under way, in
# alternating rounds. Prints medians and their ratio.
#
#   benches/pools.sh [--rounds N] [--seconds N]     default 5 rounds of 5 seconds
#
# The root is a new ext4 with a journal, on a loop device: what /tmp is on may have none, and then every placeholder takes two
# syncs of its own. Needs root and Debian's Ceph (deploy/dev/ceph.sh). benches/load.rs is the load: wrk makes a string of each
# request, which takes more of the processor than the gateway does when bodies have 4 MiB. Starts a cluster of its own unless
# TIERDAV_CEPH_DIR names one.
set -euo pipefail
ROUNDS=5 SECONDS_EACH=5
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) ROUNDS=${2:?}; shift 2 ;;
        --seconds) SECONDS_EACH=${2:?}; shift 2 ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
. "$(dirname "$0")/../deploy/dev/lib.sh"
CEPH=$REPO/deploy/dev/ceph.sh
own_cluster
root_disk 8G
cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --features rados --bin tierdav
rustc -O --edition 2024 -o "$WORK/load" "$REPO/benches/load.rs"
TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"
POOLS="bench-$$"
# Writes and reads of both sides stay in the cache pool, on one OSD.
gateway_start --cache-capacity 8GiB --policy lru --max-dirty-age 1h --log-level error
python3 - "$URL" "$CEPH" "$ROUNDS" "$SECONDS_EACH" "$WORK" <<'P'
import re, statistics, subprocess, sys
url, ceph, rounds, seconds, work = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]

def bench(kind, size, threads):
    """Operations per second of rados bench in the cache pool."""
    args = [ceph, "rados", "-p", "tierdav-cache", "-N", "rados-bench", "bench", str(seconds), kind, "-t", str(threads)]
    if kind == "write":
        args += ["-b", str(size), "--no-cleanup"]
    out = subprocess.run(args, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Average IOPS:\s+([\d.]+)", out).group(1))

def clear():
    subprocess.run([ceph, "rados", "-p", "tierdav-cache", "-N", "rados-bench", "cleanup"], capture_output=True)

def ours(method, size, threads, names):
    """Requests per second of so many connections."""
    command = [f"{work}/load", method, url.removeprefix("http://").rstrip("/"), str(size), str(threads), str(seconds), str(names), str(size)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Requests/sec: ([\d.]+)", out).group(1))

rows = []
for label, size, threads, names in [("4 MiB", 4 << 20, 16, 64), ("64 KiB", 64 << 10, 16, 512), ("4 KiB", 4 << 10, 16, 2048)]:
    got = {k: [] for k in ("PUT", "rados write", "GET", "rados read")}
    for _ in range(rounds):
        got["rados write"].append(bench("write", size, threads))
        got["rados read"].append(bench("rand", size, threads))
        clear()
        got["PUT"].append(ours("PUT", size, threads, names))
        got["GET"].append(ours("GET", size, threads, names))
    for mine, theirs in (("PUT", "rados write"), ("GET", "rados read")):
        a, b = statistics.median(got[mine]), statistics.median(got[theirs])
        ratios = [x / y for x, y in zip(got[mine], got[theirs])]
        rows.append((f"{mine} {label}, {threads} at once", a, b, statistics.median(ratios), min(ratios), max(ratios)))
        print(rows[-1], file=sys.stderr, flush=True)
print("| row | gateway/s | rados bench/s | ratio (median) | least | most |\n| --- | --- | --- | --- | --- | --- |")
for row in rows:
    print("| {} | {:.0f} | {:.0f} | {:.2f} | {:.2f} | {:.2f} |".format(*row))
P
gateway_stop
