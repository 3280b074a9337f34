#!/usr/bin/env bash
# Replays a recorded Elasticsearch load (fixtures/es/local_256.csv.xz) over Ceph pools as fast as possible, with durable
# writes: everything in the HDD pool, tiered with a cache of 10 % of the trace's working set in the SSD pool, and everything
# in the SSD pool. The HDD pool's OSD is on a loop device that the kernel throttles to 120 operations and 160 MB per second.
# Every byte read back is checked. Needs root and Debian's Ceph.
#
#   benches/replay-es-pools.sh [ROUNDS [WHICH]]     WHICH: a word in the name of the runs wanted: HDD, tiered or SSD
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-1} WHICH=${2:-}
CEPH=$REPO/deploy/dev/ceph.sh
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay --features gateway/rados
BIN="${CARGO_TARGET_DIR:-$REPO/target}/release" TIERDAV="$BIN/tierdav"
TIERDAV_CEPH_DIR=$(mktemp -d /tmp/tierdav-ceph.XXXXXX)
export TIERDAV_CEPH_DIR
trap 'status=$?; "$CEPH" down; (exit $status); cleanup' EXIT
"$CEPH" up --hdd-iops 120 --hdd-mbps 160 > /dev/null

for round in $(seq "$ROUNDS"); do
    for run in "HDD pool only:tierdav-data:none:none" "tiered, 143 MiB cache:tierdav-data:tierdav-cache:cost-benefit" \
        "SSD pool only:tierdav-cache:none:none"; do
        IFS=: read -r name data cache policy <<< "$run"
        [[ "$name" = *"$WHICH"* ]] || continue
        : > "$WORK/out"
        "$TIERDAV" serve --root "$WORK/root" --ceph-conf "$TIERDAV_CEPH_DIR/ceph.conf" --data-pool "$data" --cache-pool "$cache" \
            --ceph-namespace "replay-$round-${data#tierdav-}-$policy" --policy "$policy" --cache-capacity 143MiB \
            --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --log-level error > "$WORK/out" 2>> "$WORK/gateway.log" &
        GATEWAY_PID=$! URL=""
        until [ -n "$URL" ]; do
            URL=$(sed -n 's/.* on \(http:[^ ]*\)$/\1/p' "$WORK/out")
            ADMIN=$(sed -n 's/.*--admin \([^ ]*\) .*/\1/p' "$WORK/out")
            kill -0 "$GATEWAY_PID"
        done
        echo "== round $round: $name"
        "$BIN/trace-replay" replay "$REPO/fixtures/es/local_256.csv.xz" --target "$URL" --prefix /es -q \
            | grep -E '^(operation|GET|PUT|DELETE|MOVE|replay|read back)'
        "$TIERDAV" status --admin "$ADMIN" | grep -E '^(clean|dirty|hit|promoted|flushed|evicted)' || true
        gateway_stop
        rm -rf "$WORK/root"
    done
done
