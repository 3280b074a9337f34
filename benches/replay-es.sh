#!/usr/bin/env bash
# Replays a recorded Elasticsearch load (fixtures/es/local_256.csv.xz: 256 MB of images, file operations) as fast as
# possible, with durable writes, against three gateways: everything on a slow disk, tiered with a cache of 10 % of the
# trace's working set, and everything on the fast disk. The slow disk does 120 operations and 160 MB per second. The files of
# before the recording are on the slow disk when it begins, not in the cache. Every byte read back is checked. Needs root, and
# xfsprogs for XFS.
#
#   benches/replay-es.sh [ROUNDS [FILE SYSTEM [WHICH]]]     the slow disk's: xfs (the default) or ext4; WHICH: a word in the name
#                                                           of the runs wanted: HDD, tiered or SSD
#   JOURNAL=ssd benches/replay-es.sh                        the slow disk's XFS has its journal on a device of the fast disk, for HDD
#                                                           only, too
#   TRACE=es-1gb.csv CACHE_MIB=716 benches/replay-es.sh     another load of file operations (`trace-replay synth` makes some), and
#                                                           10 % of the working set that `trace-replay info` tells
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-1} FILESYSTEM=${2:-xfs} WHICH=${3:-}
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay
BIN="${CARGO_TARGET_DIR:-$REPO/target}/release" TIERDAV="$BIN/tierdav"
TRACE=${TRACE:-$REPO/fixtures/es/local_256.csv.xz} CACHE_MIB=${CACHE_MIB:-143}
slow_disk "$WORK/slow" "$FILESYSTEM"
mapfile -t RUNS < <(slow_runs "$CACHE_MIB")

# least_disk_time: the time that the slow disk needs for the load's writes if a clairvoyant chooses what stays in the cache, and
# what the policy would need at the recorded speed; both with nothing but requests as large as the disk takes: no syncs, no
# journal, no metadata. Reads are left out, the disk has operations of their own for them.
least_disk_time() {
    local mib
    mib=$(awk -v kib="$(cat "/sys/block/${SLOW_BELOW#/dev/}/queue/max_sectors_kb")" -v iops="$SLOW_IOPS" -v mbps="$SLOW_MBPS" \
        'BEGIN { operations = iops * kib / 1024; bytes = mbps * 1e6 / 1048576; print operations < bytes ? operations : bytes }')
    case "$TRACE" in *.xz) xz -dc "$TRACE" ;; *) cat "$TRACE" ;; esac | grep -v ',read,' > "$WORK/writes.csv"
    "$BIN/trace-replay" simulate "$WORK/writes.csv" --cache-size "${CACHE_MIB}MiB" --hdd "0,$mib" --policy none,cost-benefit \
        --json | python3 -c '
import json, sys
none, policy = json.load(sys.stdin)
best, plan = (none[of] * none["hdd_busy_s"] for of in ("bound_vs_none", "clairvoyant_vs_none"))
print(f"== the slow disk needs at least {best:.2f} s for the writes with this cache, by a plan that fits {plan:.2f} s;"
      " %s at the recorded speed %.2f s" % (policy["policy"], policy["hdd_busy_s"]))'
}
least_disk_time

for round in $(seq "$ROUNDS"); do
    for run in "${RUNS[@]}"; do
        [[ "${run%%:*}" = *"$WHICH"* ]] || continue
        slow_run "$run" "$CACHE_MIB"
        echo "== round $round: $RUN_NAME, the slow disk has $FILESYSTEM${JOURNAL:+, its journal is on the fast one}"
        ready="sync -f '$RUN_ROOT'; cat '/sys/block/${SLOW_BELOW#/dev/}/stat' > '$WORK/before'"
        [ "$RUN_CACHE" = none ] || ready="'$TIERDAV' drain --admin '$ADMIN' && $ready"
        "$BIN/trace-replay" replay "$TRACE" --target "$URL" --prefix /es -q \
            --after-set-up "$ready" --report "$WORK/report.json" \
            | grep -E '^(operation|GET|PUT|DELETE|MOVE|replay|read back)'
        read -r operations bytes < <(slow_writes "$WORK/before")
        slow_written "$operations" "$bytes"
        "$TIERDAV" status --admin "$ADMIN" | grep -E '^(clean|dirty|hit|promoted|flushed|evicted|spared)' || true
        [ "$RUN_POLICY" = none ] || spared_share "$BIN/trace-replay" "$TRACE" "$WORK/report.json"
        slow_run_end
    done
done
