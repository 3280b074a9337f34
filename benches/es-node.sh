#!/usr/bin/env bash
# A real Elasticsearch node with its data on a davfs2 mount of the gateway, given images by HTTP, with everything on a slow
# disk, tiered (a cache of 10 % of what the load touches, as in replay-es.sh), and with everything on the fast disk. The slow
# disk does 120 operations and 160 MB per second. What davfs2 keeps of its own is on the machine's disk in all three. Needs root,
# davfs2, Java 17, and xfsprogs.
#
#   benches/es-node.sh [MEGABYTES [WHICH [FILE SYSTEM]]]     128 of images unless given; WHICH: a word in the name of the runs
#                                                            wanted: HDD, tiered or SSD; the slow disk's: xfs (the default) or ext4
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
. "$(dirname "$0")/../deploy/dev/es/node.sh"
MB=${1:-128} WHICH=${2:-} FILESYSTEM=${3:-xfs}
# Bytes of a bulk request: some seven documents, so that there are requests enough for a p99.
BULK=1000000
CACHE_MIB=$((MB * 143 / 256))
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay
TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"
es_install "$MB"
slow_disk "$WORK/slow" "$FILESYSTEM"

took() { # COMMAND...: runs it; TOOK is how long that took, seconds
    local start=${EPOCHREALTIME/./}
    "$@" > "$WORK/said" 2>&1 || { cat "$WORK/said"; return 1; }
    TOOK=$(awk -v us=$((${EPOCHREALTIME/./} - start)) 'BEGIN { printf "%.1f", us / 1e6 }')
}

mapfile -t RUNS < <(slow_runs "$CACHE_MIB")
for run in "${RUNS[@]}"; do
    [[ "${run%%:*}" = *"$WHICH"* ]] || continue
    slow_run "$run" "$CACHE_MIB"
    echo "== $MB MB of images, $RUN_NAME, the slow disk has $FILESYSTEM"
    dav_mount "$WORK/mnt" "delay_upload 0" "cache_size 4096" "table_size 8192"
    read -r operations bytes < <(slow_writes)
    took es_start "$WORK/mnt/data"
    echo "node started in $TOOK s"
    es_index
    es_load "$MB" "$BULK"
    took es_commit
    echo "committed in $TOOK s, $(es_count) documents"
    took es_stop
    echo "node stopped in $TOOK s"
    took umount "$WORK/mnt"
    echo "all uploaded $TOOK s later"
    if es_lost; then echo "FAILED: uploads in lost+found"; exit 1; fi
    slow_written "$operations" "$bytes"
    curl -sf "$ADMIN/.tierdav/metrics" | awk '
        $1 == "tierdav_received_bytes_total" { received = $2 }
        $1 == "tierdav_unchanged_upload_bytes_total" { same = $2 }
        $1 == "tierdav_spared_bytes_total" { spared = $2 }
        END { printf "uploaded: %.2f GB, of it %.1f %% what was there already, %.1f %% deleted before it was flushed\n",
            received / 1e9, 100 * same / received, 100 * spared / received }'
    slow_run_end
done
