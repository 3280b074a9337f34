#!/usr/bin/env bash
# Replays a recorded Elasticsearch load (fixtures/es/local_256.csv.xz: 256 MB of images, file operations) as fast as
# possible, with durable writes, against three gateways: everything on a slow disk, tiered with a cache of 10 % of the
# trace's working set, and everything on the fast disk. The slow disk is a loop device that the kernel throttles to 120
# operations and 160 MB per second. Every byte read back is checked. Needs root.
#
#   benches/replay-es.sh [ROUNDS]
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-1}
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay
BIN="${CARGO_TARGET_DIR:-$REPO/target}/release" TIERDAV="$BIN/tierdav"
slow_disk "$WORK/slow"
trap 'status=$?; slow_disk_off; (exit $status); cleanup' EXIT

for round in $(seq "$ROUNDS"); do
    for run in "HDD only, policy = none:slow:none" "tiered, 143 MiB cache:slow:cost-benefit" "SSD only:fast:none"; do
        IFS=: read -r name disk policy <<< "$run"
        root="$WORK/fastroot"
        [ "$disk" = slow ] && root="$WORK/slow/root"
        cache="$WORK/cache"
        # "none" is the whole system without a fast device: no cache tier, no intent log on one.
        [ "$policy" = none ] && cache=none
        slow_start run "$root" "$cache" --policy "$policy" --cache-capacity 143MiB
        echo "== round $round: $name"
        "$BIN/trace-replay" replay "$REPO/fixtures/es/local_256.csv.xz" --target "$URL" --prefix /es -q \
            | grep -E '^(operation|GET|PUT|DELETE|MOVE|replay|read back)'
        "$TIERDAV" status --admin "$ADMIN" | grep -E '^(clean|dirty|hit|promoted|flushed|evicted)' || true
        kill "$SLOW_PID"
        while kill -0 "$SLOW_PID" 2>/dev/null; do read -rt 0.1 <> <(:) || true; done
        rm -rf "$root" "$cache"
    done
done
