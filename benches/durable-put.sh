#!/usr/bin/env bash
# The price of a durable 4 KiB PUT when the root is on a slow disk and the cache on a fast one, against everything on the
# fast one, in interleaved rounds. The slow disk does 120 operations and 160 MB per second. Needs root. Prints one row per
# set-up and the ratio of the medians (promise: at most 1.5).
#
#   benches/durable-put.sh [ROUNDS] [PUTS PER ROUND]
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-5} PUTS=${2:-400}
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --bin tierdav
TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"

slow_disk "$WORK/slow"
slow_start slow "$WORK/slow/root" "$WORK/cache1"; SLOW=$URL
slow_start fast "$WORK/root" "$WORK/cache2"; FAST=$URL
slow_start nolog "$WORK/slow/root2" none; NOCACHE=$URL
python3 - "$ROUNDS" "$PUTS" "root slow, cache fast=$SLOW" "all fast=$FAST" "root slow, no cache=$NOCACHE" <<'PY'
import http.client, statistics, sys, time, urllib.parse
rounds, puts = int(sys.argv[1]), int(sys.argv[2])
servers = [a.rsplit("=", 1) for a in sys.argv[3:]]
times = {name: [] for name, _ in servers}
for r in range(rounds):
    for name, url in servers:
        n = puts if "no cache" not in name else max(10, puts // 20)
        c = http.client.HTTPConnection(urllib.parse.urlparse(url).netloc)
        for i in range(n):
            body = (b"%08d" % (r * puts + i)) * 512
            t = time.perf_counter()
            c.request("PUT", "/f%d-%d" % (r, i), body)
            reply = c.getresponse(); reply.read()
            assert reply.status == 201, reply.status
            times[name].append(time.perf_counter() - t)
print("| set-up | PUTs | median | p99 |\n| --- | --- | --- | --- |")
for name, t in times.items():
    t.sort()
    print("| %s | %d | %.2f ms | %.2f ms |" % (name, len(t), statistics.median(t) * 1e3, t[int(len(t) * .99)] * 1e3))
m = [statistics.median(t) for t in times.values()]
print("\nratio of the medians, root slow / all fast: %.2f" % (m[0] / m[1]))
PY
