#!/usr/bin/env bash
# What a gateway needs: resident memory at its peak in each of some loads, over directories and over Ceph pools, and the CPU
# time of a GiB. The figures behind `resources` in deploy/kubernetes (docs/deploy.md).
#
#   benches/memory.sh [--mib N] [--no-pools]     N MiB for each of 8 clients, default 256
#
# Needs root (it resets the kernel's peak, /proc/PID/clear_refs) and, for pools, Debian's Ceph (deploy/dev/ceph.sh): a cluster
# of its own, because it freezes it.
set -euo pipefail
MIB=256 WITH_POOLS=1
while [ $# -gt 0 ]; do
    case "$1" in
        --mib) MIB=${2:?}; shift 2 ;;
        --no-pools) WITH_POOLS=""; shift ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
. "$(dirname "$0")/../deploy/dev/lib.sh"
CEPH=$REPO/deploy/dev/ceph.sh
cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --features rados --bin tierdav
TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"
head -c "${MIB}M" /dev/urandom > "$WORK/large"
head -c 4K /dev/urandom > "$WORK/small"

peak_reset() { echo 5 > "/proc/$GATEWAY_PID/clear_refs"; }
mib_of() { awk -v key="$1:" '$1 == key { printf "%d", $2 / 1024 }' "/proc/$GATEWAY_PID/status"; }
cpu() { awk '{ print ($14 + $15) / 100 }' "/proc/$GATEWAY_PID/stat"; }

# row WHERE WHAT: the peak since the last one, and what is left of it now
row() { printf '| %s | %s | %s MiB | %s MiB |\n' "$1" "$2" "$(mib_of VmHWM)" "$(mib_of VmRSS)"; peak_reset; }
each() { # N COMMAND...: 8 at once, {} is the number
    local n=$1; shift
    seq "$n" | xargs -P 8 -I{} "$@"
}
idle_connections() { # N: held open until the function's end
    python3 - "$URL" "$1" <<'P'
import http.client, sys, urllib.parse
at = urllib.parse.urlparse(sys.argv[1]).netloc
held = []
for _ in range(int(sys.argv[2])):
    c = http.client.HTTPConnection(at)
    c.request("OPTIONS", "/")
    c.getresponse().read()
    held.append(c)
P
}

loads() { # WHERE
    local before after
    pause 2
    row "$1" "idle after the start"
    before=$(cpu)
    each 8 curl -sf -T "$WORK/large" "${URL}large-{}" -o /dev/null
    after=$(cpu)
    row "$1" "8 clients write $MIB MiB each"
    CPU_LINES+="$1: $(python3 -c "print(f'{($after - $before) / (8 * $MIB / 1024):.1f}')") CPU seconds per GiB written"
    before=$(cpu)
    each 8 curl -sf "${URL}large-{}" -o /dev/null
    after=$(cpu)
    row "$1" "8 clients read $MIB MiB each"
    CPU_LINES+=", $(python3 -c "print(f'{($after - $before) / (8 * $MIB / 1024):.1f}')") per GiB read"$'\n'
    each 4000 curl -sf -T "$WORK/small" "${URL}small-{}" -o /dev/null
    curl -sf -X PROPFIND -H 'Depth: 1' "$URL" -o /dev/null
    row "$1" "4000 files of 4 KiB, and a listing of them"
    idle_connections 1000
    row "$1" "1000 idle connections"
}
pause() { read -rt "$1" <> <(:) || true; }

CPU_LINES=""
FLAGS=(--cache-capacity 1GiB --max-connections 4096 --log-level error)
echo "| content in | load | peak | afterwards |"
echo "| --- | --- | --- | --- |"
gateway_start "${FLAGS[@]}"
loads directories
gateway_stop
rm -rf "$WORK/root" "$WORK/cache"
if [ -n "$WITH_POOLS" ]; then
    unset TIERDAV_CEPH_DIR
    own_cluster
    POOLS=memory
    gateway_start "${FLAGS[@]}" --ceph-op-timeout 15s
    loads pools
    # The most that can be on its way: everybody writes, nobody takes it.
    "$CEPH" net-cut
    seq 64 | xargs -P 64 -I{} curl -s -m 30 -T "$WORK/large" "${URL}stalled-{}" -o /dev/null || true
    row pools "64 clients write while the cluster stands still"
    "$CEPH" net-heal
    seq 64 | xargs -P 64 -I{} curl -s -T "$WORK/small" "${URL}after-{}" -o /dev/null
    row pools "and after it has come back"
    gateway_stop
fi
printf '\n%s' "$CPU_LINES"
