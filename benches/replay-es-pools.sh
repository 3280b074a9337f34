#!/usr/bin/env bash
# Replays a recorded Elasticsearch load (fixtures/es/local_256.csv.xz) over Ceph pools as fast as possible, with durable
# writes: everything in the HDD pool, tiered with a cache of 10 % of the trace's working set in the SSD pool, and everything
# in the SSD pool. The HDD pool's OSD is on a device that does 120 operations and 160 MB per second. The files of before the
# recording are in the HDD pool when it begins, not in the cache. Every byte read back is checked. Needs root and Debian's Ceph.
#
#   benches/replay-es-pools.sh [ROUNDS [WHICH]]     WHICH: a word in the name of the runs wanted: HDD, tiered or SSD
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-1} WHICH=${2:-}
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay --features gateway/rados
BIN="${CARGO_TARGET_DIR:-$REPO/target}/release" TIERDAV="$BIN/tierdav"
unset TIERDAV_CEPH_DIR # its HDD is not throttled
own_cluster --hdd-iops 120 --hdd-mbps 160

for round in $(seq "$ROUNDS"); do
    for run in "HDD pool only:tierdav-data:none:none" "tiered, 143 MiB cache:tierdav-data:tierdav-cache:cost-benefit" \
        "SSD pool only:tierdav-cache:none:none"; do
        IFS=: read -r name DATA_POOL CACHE_POOL policy <<< "$run"
        [[ "$name" = *"$WHICH"* ]] || continue
        POOLS="replay-$round-${DATA_POOL#tierdav-}-$policy"
        gateway_start --policy "$policy" --cache-capacity 143MiB --log-level error
        echo "== round $round: $name"
        ready=true
        [ "$CACHE_POOL" = none ] || ready="'$TIERDAV' drain --admin '$ADMIN'"
        "$BIN/trace-replay" replay "$REPO/fixtures/es/local_256.csv.xz" --target "$URL" --prefix /es -q \
            --after-set-up "$ready" --report "$WORK/report.json" \
            | grep -E '^(operation|GET|PUT|DELETE|MOVE|replay|read back)'
        "$TIERDAV" status --admin "$ADMIN" | grep -E '^(clean|dirty|hit|promoted|flushed|evicted|spared)' || true
        [ "$policy" = none ] || spared_share "$BIN/trace-replay" "$REPO/fixtures/es/local_256.csv.xz" "$WORK/report.json"
        gateway_stop
        rm -rf "$WORK/root"
    done
done
