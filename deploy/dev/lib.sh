# Shared by the system tests: starts and stops a gateway on free ports in a directory of its own.
# shellcheck shell=bash

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$REPO/deploy/dev/slow-disk.sh"
WORK=$(mktemp -d /tmp/tierdav-test.XXXXXX)
MOUNTS=()
GATEWAY_PID=""
CHILDREN=()

cleanup() {
    local status=${1:-$?} m
    for m in "${CHILDREN[@]}"; do kill -9 "$m" 2>/dev/null || true; done
    for m in "${MOUNTS[@]}"; do if mountpoint -q "$m"; then umount -il "$m"; fi; done
    [ -z "$GATEWAY_PID" ] || kill -9 "$GATEWAY_PID" 2>/dev/null || true
    [ -z "${SLOW_LOOP:-}" ] || slow_off "$SLOW_LOOP" "$SLOW_BELOW" || true
    [ -z "${SLOW_JOURNAL:-}" ] || losetup -d "$SLOW_JOURNAL" || true
    [ $status = 0 ] || { echo "--- last lines of the gateway's log"; tail -20 "$WORK/gateway.log" 2>/dev/null || true; }
    rm -rf --one-file-system "$WORK"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# With the very features of the suite's tests: others would have the dependencies built once more.
BUILT_AS=(--workspace --features "gateway/rados,trace-replay/rados")

build() {
    cargo build --quiet --manifest-path "$REPO/Cargo.toml" "${BUILT_AS[@]}" --bin tierdav || exit 1
    TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/debug/tierdav"
}

# Where content lives: a cache directory, or with POOLS set (to a namespace) Ceph pools of the cluster in TIERDAV_CEPH_DIR.
tiers() {
    if [ -n "${POOLS:-}" ]; then
        TIERS=(--cache-dir none --ceph-conf "$TIERDAV_CEPH_DIR/ceph.conf" --data-pool "${DATA_POOL:-tierdav-data}"
            --cache-pool "${CACHE_POOL:-tierdav-cache}" --ceph-namespace "$POOLS")
    else
        TIERS=(--cache-dir "$WORK/cache")
    fi
}

# own_cluster [FLAGS OF ceph.sh up...]: a throwaway cluster that is gone at the end, unless TIERDAV_CEPH_DIR names one.
own_cluster() {
    [ -z "${TIERDAV_CEPH_DIR:-}" ] || { echo "using the cluster in $TIERDAV_CEPH_DIR"; return 0; }
    TIERDAV_CEPH_DIR=$(mktemp -d /tmp/tierdav-ceph.XXXXXX)
    export TIERDAV_CEPH_DIR
    trap 'status=$?; "$REPO/deploy/dev/ceph.sh" down; cleanup $status' EXIT
    "$REPO/deploy/dev/ceph.sh" up "$@" > /dev/null
}

# root_disk SIZE: a new ext4 with a journal as the root of the gateway to come. Needs root and a loop device.
root_disk() {
    truncate -s "$1" "$WORK/root.disk"
    mkfs.ext4 -q -F -O has_journal "$WORK/root.disk"
    mkdir -p "$WORK/root"
    mount -o loop "$WORK/root.disk" "$WORK/root" || return 1
    MOUNTS+=("$WORK/root")
    losetup --direct-io=on "$(findmnt -no SOURCE "$WORK/root")"
}

# gateway_start [FLAGS...]: sets URL and ADMIN. Ports are the kernel's choice the first time and kept over restarts.
gateway_start() {
    : > "$WORK/out"
    tiers
    "$TIERDAV" serve --root "$WORK/root" "${TIERS[@]}" --listen "127.0.0.1:${PORT:-0}" \
        --admin-listen 127.0.0.1:0 "$@" > "$WORK/out" 2>> "$WORK/gateway.log" &
    GATEWAY_PID=$!
    local i
    for i in $(seq 600); do
        URL=$(sed -n 's/.* on \(https\{0,1\}:[^ ]*\)$/\1/p' "$WORK/out")
        ADMIN=$(sed -n 's/.*--admin \([^ ]*\) .*/\1/p' "$WORK/out")
        [ -n "$URL" ] && [ -n "$ADMIN" ] && { PORT=${URL##*:}; PORT=${PORT%/}; return 0; }
        kill -0 "$GATEWAY_PID" 2>/dev/null || { echo "the gateway did not start"; return 1; }
        read -rt 0.1 <> <(:) || true
    done
    echo "the gateway did not listen within a minute"; return 1
}

# gateway_stop [SIGNAL]: TERM must end with status 0.
gateway_stop() {
    local status=0
    kill "-${1:-TERM}" "$GATEWAY_PID"
    wait "$GATEWAY_PID" || status=$?
    GATEWAY_PID=""
    [ "${1:-TERM}" = KILL ] || [ $status = 0 ] || { echo "the gateway ended with status $status"; return 1; }
}

# dav_mount DIR [CONFIG LINES...]
dav_mount() {
    local dir="$1"; shift
    mkdir -p "$dir"
    printf '%s\n' "ask_auth 0" "use_locks 1" "buf_size 256" "$@" > "$dir.conf"
    mount -t davfs -o "conf=$dir.conf,uid=0" "$URL" "$dir" < /dev/null
    MOUNTS+=("$dir")
}

# What the slow disk does in a second: operations, and MB.
SLOW_IOPS=120 SLOW_MBPS=160

# Of XFS's journal on a device of its own: what mkfs.xfs gives it within the slow disk.
SLOW_JOURNAL_MIB=64

# slow_disk DIR [FILESYSTEM]: mounts a disk there that does no more than that (slow-disk.sh). With JOURNAL=ssd, the journal of its
# XFS is on a second device, SLOW_JOURNAL, which is as fast as $WORK.
slow_disk() {
    local filesystem=${2:-ext4} make=(-f) options=defaults
    [ "$filesystem" = xfs ] || [ -z "${JOURNAL:-}" ] || { echo "JOURNAL is for XFS, not $filesystem"; return 1; }
    case ${JOURNAL:-} in
        "") [ "$filesystem" != ext4 ] || make=(-F) ;;
        ssd)
            truncate -s "${SLOW_JOURNAL_MIB}M" "$WORK/journal"
            SLOW_JOURNAL=$(losetup --find --show --direct-io=on "$WORK/journal")
            make+=(-l "logdev=$SLOW_JOURNAL,size=${SLOW_JOURNAL_MIB}m") options="logdev=$SLOW_JOURNAL"
            ;;
        *) echo "JOURNAL is ssd or not set, not $JOURNAL"; return 1 ;;
    esac
    truncate -s 6G "$WORK/disk"
    slow_on "$WORK/disk" "$SLOW_IOPS" "$SLOW_MBPS"
    "mkfs.$filesystem" -q "${make[@]}" "$SLOW_LOOP"
    mkdir -p "$1"
    mount -o "$options" "$SLOW_LOOP" "$1"
    MOUNTS+=("$1")
}

# slow_writes [COPY]: operations and bytes written to the slow disk so far, after merging; COPY is an earlier copy of its stat.
slow_writes() {
    awk '{ printf "%d %.0f\n", $5, $7 * 512 }' "${1:-/sys/block/${SLOW_BELOW#/dev/}/stat}"
}

# slow_start NAME ROOT CACHE [FLAGS...]: a release gateway; sets URL, ADMIN and SLOW_PID.
slow_start() {
    local name=$1 root=$2 cache=$3
    shift 3
    URL=""
    : > "$WORK/$name.out"
    "$TIERDAV" serve --root "$root" --cache-dir "$cache" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --log-level error "$@" \
        > "$WORK/$name.out" 2>> "$WORK/gateway.log" &
    SLOW_PID=$!
    CHILDREN+=("$SLOW_PID")
    until [ -n "$URL" ]; do
        URL=$(sed -n 's/.* on \(http:[^ ]*\)$/\1/p' "$WORK/$name.out")
        ADMIN=$(sed -n 's/.*--admin \([^ ]*\) .*/\1/p' "$WORK/$name.out")
        kill -0 "$SLOW_PID" || return 1
    done
}

# slow_stop: the gateway of slow_start.
slow_stop() {
    kill "$SLOW_PID" 2>/dev/null || true
    wait "$SLOW_PID" 2>/dev/null || true
}

# slow_runs MIB: the three ways that a load is measured: name, disk and policy; MIB of cache for the tiered one.
slow_runs() {
    printf '%s\n' "HDD only, policy = none:slow:none" "tiered, $1 MiB cache:slow:cost-benefit" "SSD only:fast:none"
}

# slow_run RUN MIB: starts the gateway of one of them; sets RUN_NAME, RUN_ROOT, RUN_CACHE and RUN_POLICY.
slow_run() {
    local disk
    IFS=: read -r RUN_NAME disk RUN_POLICY <<< "$1"
    RUN_ROOT="$WORK/fastroot" RUN_CACHE="$WORK/cache"
    [ "$disk" != slow ] || RUN_ROOT="$WORK/slow/root"
    # "none" is the whole system without a fast device: no cache tier, no intent log on one.
    [ "$RUN_POLICY" != none ] || RUN_CACHE=none
    slow_start run "$RUN_ROOT" "$RUN_CACHE" --policy "$RUN_POLICY" --cache-capacity "${2}MiB"
}

# slow_run_end: stops it and removes what it kept.
slow_run_end() {
    slow_stop
    rm -rf "$RUN_ROOT" "$WORK/cache"
}

# slow_written OPERATIONS BYTES: what was written to the slow disk from these counts (slow_writes) on.
slow_written() {
    local operations bytes
    read -r operations bytes < <(slow_writes)
    echo "written to the slow disk: $(((bytes - $2) / 1000000)) MB in $((operations - $1)) operations"
}

# spared_share TRACE-REPLAY TRACE REPORT.json: what the cache kept from the disk in a replay, beside what the most patient
# cache could: what is gone by the end of the trace.
spared_share() {
    local in_trace
    in_trace=$("$1" info --json "$2" | python3 -c 'import json, sys; print(json.load(sys.stdin)["lifetimes"]["died_bytes_share"])')
    curl -sf "$ADMIN/.tierdav/metrics" | awk '$1 == "tierdav_spared_bytes_total" { print $2 }' | python3 -c '
import json, sys
written = json.load(open(sys.argv[1]))["replay"]["written_bytes"]
share = 100 * int(sys.stdin.read()) / written
print(f"deleted before they were flushed: {share:.1f} % of the {written / 1e9:.2f} GB written;"
      f" gone by the end of the trace: {100 * float(sys.argv[2]):.1f} %")' "$3" "$in_trace"
}

# within_a_minute COMMAND...: asks until it is so; fails when that takes longer.
within_a_minute() {
    for _ in $(seq 300); do
        "$@" && return 0
        read -rt 0.2 <> <(:) || true
    done
    return 1
}

check() { # DESCRIPTION COMMAND...
    local what="$1"; shift
    if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; exit 1; fi
}
