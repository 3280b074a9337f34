#!/usr/bin/env bash
# A load shared by a device with a slow disk and its pod: device only, pod only, half and half, and adaptive.
# The device's disk is a loop device that the kernel throttles to 120 operations and 160 MB per second; the pod is a
# gateway with durable writes on the disk of this machine. Needs root.
#
#   benches/split.sh [ROUNDS] [TRACE]     BIN=DIR takes binaries that are built already
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-3}
TRACE=${2:-$REPO/fixtures/es/local_256.csv.xz}
if [ -z "${BIN:-}" ]; then
    cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay
    BIN="${CARGO_TARGET_DIR:-$REPO/target}/release"
fi
TIERDAV=${TIERDAV:-$BIN/tierdav}
slow_disk "$WORK/slow"
trap 'status=$?; slow_disk_off; (exit $status); cleanup' EXIT
gateway_start --log-level error
bash -c 'echo $$ > "$0/tasks"; exec "$@"' "$SLOW_GROUP" "$BIN/trace-replay" split "$TRACE" \
    --device "dir:$WORK/slow" --pod "$URL" --rounds "$ROUNDS"
