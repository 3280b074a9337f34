#!/usr/bin/env bash
# The gateway over Ceph pools against `rados bench`: same cluster, object size and number of requests under way, in
# alternating rounds. Prints medians and their ratio.
#
#   benches/pools.sh [--rounds N] [--seconds N] [--sizes "4194304 65536 4096"]     default 5 rounds of 5 seconds
#   benches/pools.sh --apart ...             the cluster has the first core to itself, who asks it all others
#
# Without --apart cluster, gateway and load share all cores: what the gateway takes of the processor, the cluster lacks. With it
# they are apart as on machines of their own, `rados bench` as well as gateway and load.
#
# Like is compared with like. `rados bench write` makes new objects, and so does the row `PUT, new names`. A PUT over a name
# also ends the version before; beside `PUT, overwriting` stands what rados takes to write as many objects and to remove them.
# GETs begin when no removal waits any more. Both read as many objects, in turn: an OSD keeps the data of a few thousand small
# ones in memory, and a read of one that it has not costs twice the processor. There are more small files than the gateway
# keeps in memory, except in the row `GET, in memory`.
#
# All of it runs in a network namespace of its own, with the congestion control that Debian comes with (reno where a namespace may
# not have that): a machine set to BBR paces even what never leaves it, and who sends and receives everything twice is paced twice.
#
# The root is a new ext4 with a journal, on a loop device: what /tmp is on may have none, and then every placeholder takes two
# syncs of its own. Needs root and Debian's Ceph (deploy/dev/ceph.sh). benches/load.rs is the load: wrk makes a string of each
# request, which takes more of the processor than the gateway does when bodies have 4 MiB. Starts a cluster of its own unless
# TIERDAV_CEPH_DIR names one.
set -euo pipefail
if [ -z "${TIERDAV_CEPH_DIR:-}" ] && [ -z "${BENCH_NAMESPACE:-}" ]; then
    BENCH_NAMESPACE=1 exec unshare --net "$0" "$@"
fi
if [ -n "${BENCH_NAMESPACE:-}" ]; then
    ip link set lo up
    control() { sysctl -qw "net.ipv4.tcp_congestion_control=$1"; }
    control cubic 2> /dev/null || control reno
fi
ROUNDS=5 SECONDS_EACH=5 SIZES="4194304 65536 4096" APART=""
while [ $# -gt 0 ]; do
    case "$1" in
        --apart) APART=1; shift ;;
        --rounds) ROUNDS=${2:?}; shift 2 ;;
        --seconds) SECONDS_EACH=${2:?}; shift 2 ;;
        --sizes) SIZES=${2:?}; shift 2 ;;
        *) sed -n '2,23s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
. "$(dirname "$0")/../deploy/dev/lib.sh"
CEPH=$REPO/deploy/dev/ceph.sh
own_cluster
root_disk 8G
# Who is started by this script from here on is one who asks.
if [ -n "$APART" ]; then
    for pid in "$TIERDAV_CEPH_DIR"/*.pid; do taskset -acp 0 "$(cat "$pid")" > /dev/null; done
    taskset -cp "1-$(($(nproc --all) - 1))" $$ > /dev/null
fi
[ -n "${TIERDAV:-}" ] || cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --features rados --bin tierdav
rustc -O --edition 2024 -o "$WORK/load" "$REPO/benches/load.rs"
TIERDAV=${TIERDAV:-${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav}
POOLS="bench-$$"
# Writes and reads of both sides stay in the cache pool, on one OSD.
gateway_start --cache-capacity 8GiB --policy lru --max-dirty-age 1h --log-level error
python3 - "$URL" "$ADMIN" "$CEPH" "$ROUNDS" "$SECONDS_EACH" "$WORK" "$SIZES" <<'P'
import http.client, os, re, statistics, subprocess, sys, time
url, admin, ceph, work = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[6]
rounds, seconds, sizes = int(sys.argv[4]), int(sys.argv[5]), [int(s) for s in sys.argv[7].split()]
host = url.removeprefix("http://").rstrip("/")
AT_ONCE = 16
NAMES = {4 << 20: 64, 64 << 10: 512, 4 << 10: 16384}
IN_MEMORY = {4 << 10: 4096}
LABELS = {4 << 20: "4 MiB", 64 << 10: "64 KiB", 4 << 10: "4 KiB"}

def rados(namespace, *args):
    command = [ceph, "rados", "-p", "tierdav-cache", "-N", namespace, *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

def bench(namespace, kind, *args, longest=seconds):
    """How many operations rados bench did in the cache pool, and in how many seconds."""
    out = rados(namespace, "bench", str(longest), kind, "-t", str(AT_ONCE), *args)
    found = [re.search(label + r":\s+([\d.]+)", out).group(1) for label in ("Total (?:writes|reads) made", "Total time run")]
    return int(found[0]), float(found[1])

def write(size):
    """Objects per second under new names, and how many there are now."""
    objects, took = bench("bench-write", "write", "-b", str(size), "--no-cleanup")
    return objects / took, objects

def fill(size):
    """As many objects to be read as the gateway has names."""
    objects, _ = bench("bench-read", "write", "-b", str(size), "--no-cleanup", "--max-objects", str(NAMES[size]), longest=3600)
    assert objects == NAMES[size], objects

def read():
    """Objects per second, all of them in turn, again and again."""
    objects, took = 0, 0.0
    while took < seconds:
        more, longer = bench("bench-read", "seq")
        objects, took = objects + more, took + longer
    return objects / took

def clear(objects):
    """Removes what rados bench wrote; how many per second."""
    began = time.monotonic()
    rados("bench-write", "cleanup", "-t", str(AT_ONCE))
    return objects / (time.monotonic() - began)

def ours(method, size, names, prefix):
    """Requests per second of so many connections."""
    command = [f"{work}/load", method, host, str(size), str(AT_ONCE), str(seconds), str(names), prefix]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Requests/sec: ([\d.]+)", out).group(1))

def dav(method, path):
    connection = http.client.HTTPConnection(host)
    connection.request(method, path)
    reply = connection.getresponse()
    reply.read()
    assert 200 <= reply.status < 300, (method, path, reply.status)

def removed():
    """Waits until no removal is queued: the queue is this directory."""
    while any(os.scandir(f"{work}/root/.tierdav/tmp")):
        time.sleep(0.05)

rows = []
for size in sizes:
    got = {k: [] for k in ("rados write", "rados write and remove", "rados read", "PUT, new names", "PUT, overwriting", "GET", "GET, in memory")}
    fill(size)
    for n in range(rounds):
        rate, objects = write(size)
        got["rados write"].append(rate)
        got["rados write and remove"].append(1 / (1 / rate + 1 / clear(objects)))
        got["rados read"].append(read())
        dav("MKCOL", f"/new-{size}-{n}/")
        got["PUT, new names"].append(ours("PUT", size, 0, f"new-{size}-{n}/f"))
        dav("DELETE", f"/new-{size}-{n}/")
        removed()
        got["PUT, overwriting"].append(ours("PUT", size, NAMES[size], str(size)))
        removed()
        got["GET"].append(ours("GET", size, NAMES[size], str(size)))
        if size in IN_MEMORY:
            got["GET, in memory"].append(ours("GET", size, IN_MEMORY[size], str(size)))
    rados("bench-read", "cleanup", "-t", str(AT_ONCE))
    pairs = [("PUT, new names", "rados write"), ("PUT, overwriting", "rados write and remove"), ("GET", "rados read")]
    if size in IN_MEMORY:
        pairs.append(("GET, in memory", "rados read"))
    for mine, theirs in pairs:
        a, b = statistics.median(got[mine]), statistics.median(got[theirs])
        ratios = [x / y for x, y in zip(got[mine], got[theirs])]
        rows.append((f"{LABELS[size]} {mine}", a, theirs, b, statistics.median(ratios), min(ratios), max(ratios)))
        print(rows[-1], file=sys.stderr, flush=True)
print("| row | gateway/s | peer | peer/s | ratio (median) | least | most |\n| --- | --- | --- | --- | --- | --- | --- |")
for row in rows:
    print("| {} | {:.0f} | {} | {:.0f} | {:.2f} | {:.2f} | {:.2f} |".format(*row))
P
gateway_stop
