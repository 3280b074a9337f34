#!/usr/bin/env bash
# COPY of a file in Ceph pools, which the OSDs do, against a client that reads it and writes it anew: time, CPU time of the
# gateway, and bytes that passed through it. Medians, in alternating rounds.
#
#   benches/copy-pools.sh [--rounds N] [--mib "4 64 256"]     default 3 rounds
#
# Needs root and Debian's Ceph (deploy/dev/ceph.sh). Starts a cluster of its own unless TIERDAV_CEPH_DIR names one.
set -euo pipefail
ROUNDS=3 SIZES="4 64 256"
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) ROUNDS=${2:?}; shift 2 ;;
        --mib) SIZES=${2:?}; shift 2 ;;
        *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
. "$(dirname "$0")/../deploy/dev/lib.sh"
own_cluster
cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --features rados --bin tierdav
TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"
echo "| pool | file | COPY | CPU | through the gateway | read and write | CPU | through the gateway |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
for where in cache data; do
    POOLS="copy-$where-$$"
    CACHE_POOL=$([ $where = cache ] && echo tierdav-cache || echo none)
    capacity=(); [ $where = data ] || capacity=(--cache-capacity 4GiB)
    gateway_start "${capacity[@]}" --max-dirty-age 1h --log-level error
    python3 - "$URL" "$ADMIN" "$GATEWAY_PID" "$ROUNDS" "$where" "$SIZES" <<'P'
import http.client, os, re, statistics, sys, time, urllib.parse
url, admin, pid, rounds, where = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
at = urllib.parse.urlparse(url).netloc

def ask(method, path, body=None, headers={}, to=at):
    c = http.client.HTTPConnection(to)
    c.request(method, path, body, headers)
    reply = c.getresponse()
    data = reply.read()
    assert reply.status < 300, (method, path, reply.status)
    return data

def state():
    """CPU seconds of the gateway, and bytes that it read from the pools and wrote to them."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    text = ask("GET", "/.tierdav/metrics", to=admin).decode()
    moved = sum(int(v) for v in re.findall(r"^tierdav_rados_bytes_total\{.*\} (\d+)$", text, re.M))
    return (int(fields[11]) + int(fields[12])) / 100, moved

def measured(work):
    cpu, moved = state()
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    cpu_after, moved_after = state()
    return took, cpu_after - cpu, moved_after - moved

for mib in map(int, sys.argv[6].split()):
    ask("PUT", "/source", os.urandom(mib << 20))
    ways = {
        "copy": lambda: ask("COPY", "/source", headers={"Destination": url + "copied"}),
        "client": lambda: ask("PUT", "/carried", ask("GET", "/source")),
    }
    got = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            got[name].append(measured(work))
            ask("DELETE", "/copied" if name == "copy" else "/carried")
    row = [where, f"{mib} MiB"]
    for name in ways:
        took, cpu, moved = (statistics.median(column) for column in zip(*got[name]))
        row += [f"{took * 1e3:.0f} ms", f"{cpu * 1e3:.0f} ms", f"{moved / 2**20:.0f} MiB"]
    print("| " + " | ".join(row) + " |", flush=True)
P
    gateway_stop
    rm -rf "$WORK/root"
done
