#!/usr/bin/env bash
# A load shared by a device and its pod: device only, pod only, half and half, and adaptive. Both disks are loop devices
# that the kernel throttles: the device's to 60 operations and 20 MB per second (an SD card), the pod's to 120 and 160 MB
# (a hard disk). The pod is a gateway with durable writes and without a cache tier. Needs root and cgroup v1 blkio.
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

# disk NAME OPERATIONS BYTES: mounts $WORK/NAME, and makes the group whose processes are throttled on it.
disk() {
    local group=/sys/fs/cgroup/blkio/tierdav-split-$1 loop op number
    truncate -s 6G "$WORK/$1.disk"
    mkfs.ext4 -q -F "$WORK/$1.disk"
    loop=$(losetup --find --show --direct-io=on "$WORK/$1.disk")
    LOOPS+=("$loop")
    mkdir -p "$WORK/$1" "$group"
    mount "$loop" "$WORK/$1"
    number=$(cat "/sys/block/${loop#/dev/}/dev")
    for op in read write; do
        echo "$number $2" > "$group/blkio.throttle.${op}_iops_device"
        echo "$number $3" > "$group/blkio.throttle.${op}_bps_device"
    done
}
LOOPS=()
PID=""
undo() {
    [ -z "$PID" ] || { kill -9 "$PID" 2>/dev/null; wait "$PID" 2>/dev/null; }
    for name in device pod; do umount -l "$WORK/$name"; rmdir "/sys/fs/cgroup/blkio/tierdav-split-$name"; done
    for loop in "${LOOPS[@]}"; do losetup -d "$loop"; done
}
trap 'status=$?; undo || true; (exit $status); cleanup' EXIT
disk device 60 20000000
disk pod 120 160000000
bash -c 'echo $$ > "$0/tasks"; exec "$@"' /sys/fs/cgroup/blkio/tierdav-split-pod "$BIN/tierdav" serve \
    --root "$WORK/pod/root" --cache-dir none --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --log-level error \
    > "$WORK/out" 2>> "$WORK/gateway.log" &
PID=$!
URL=""
until [ -n "$URL" ]; do
    URL=$(sed -n 's/.* on \(http:[^ ]*\)$/\1/p' "$WORK/out")
    kill -0 "$PID"
done
bash -c 'echo $$ > "$0/tasks"; exec "$@"' /sys/fs/cgroup/blkio/tierdav-split-device "$BIN/trace-replay" split "$TRACE" \
    --device "dir:$WORK/device" --pod "$URL" --rounds "$ROUNDS"
