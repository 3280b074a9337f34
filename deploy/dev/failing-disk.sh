#!/usr/bin/env bash
# The root's disk takes no more writes while clients change things, then the cache's: what was acknowledged is there once the disk
# is well again. The disk is an ext4 in a file on a tmpfs that is full from some moment on. Needs root and a loop device.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || { echo "a loop device needs root"; exit 1; }
build
mkdir "$WORK/ram" "$WORK/root" "$WORK/cache" "$WORK/sent" "$WORK/back"
mount -t tmpfs -o size=64m tmpfs "$WORK/ram"
MOUNTS+=("$WORK/ram")
# Unmounted before what it is on.
MOUNTS=("$WORK/root" "$WORK/cache" "${MOUNTS[@]}")
mount_disk() { mount -o loop "$WORK/ram/disk" "$WORK/$disk"; }

acknowledged=()
# put NAME: whether it was acknowledged.
put() {
    head -c 3000 /dev/urandom > "$WORK/sent/$1"
    curl -sf -o /dev/null -T "$WORK/sent/$1" "$URL$1" || return 1
    acknowledged+=("$1")
}
put_many() { # PREFIX N: until one is refused
    local i
    for i in $(seq "$2"); do put "$1$i" || return 1; done
}
whole() { # every acknowledged file
    local name
    for name in "${acknowledged[@]}"; do
        curl -sf -o "$WORK/back/file" "$URL$name" && cmp "$WORK/back/file" "$WORK/sent/$name" || { echo "$name"; return 1; }
    done
}
kept() { # 0 OR 1
    curl -sf -o "$WORK/metrics" "$ADMIN/.tierdav/metrics" && grep -qx "tierdav_intent_log_kept $1" "$WORK/metrics"
}
status_of() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
# What is refused must not be there later: a new file, and the end of an old one.
refused=()
refuses() {
    tries=$((tries + 1))
    [ "$(status_of -T "$WORK/sent/$disk-$end-before-1" "${URL}refused-$tries")" = 503 ] && refused+=("refused-$tries")
}
none_is_there() {
    local name
    for name in "${refused[@]}"; do [ "$(status_of "$URL$name")" = 404 ] || { echo "$name"; return 1; }; done
}

# Flushes go to the root at once, and fail with it. What the cache has, it alone has.
declare -A dirty_age=([root]=100ms [cache]=1h)
for disk in root cache; do
    rm -f "$WORK/ram/disk"
    truncate -s 256M "$WORK/ram/disk"
    mkfs.ext4 -q -F -O has_journal "$WORK/ram/disk"
    rm -rf "${WORK:?}/root" "$WORK/cache"
    mkdir "$WORK/root" "$WORK/cache"
    mount_disk
    for end in TERM KILL; do
        acknowledged=() refused=() tries=0
        : > "$WORK/gateway.log"
        gateway_start --max-dirty-age "${dirty_age[$disk]}" --log-level error
        check "the log is not kept yet" kept 0
        check "files are taken" put_many "$disk-$end-before-" 100
        dd if=/dev/zero of="$WORK/ram/full" bs=1M 2> /dev/null || true
        put_many "$disk-$end-after-" 200 || true
        check "a file is refused once the disk has failed" within_a_minute refuses
        check "so is the end of another" [ "$(status_of -X DELETE "$URL$disk-$end-before-2")" = 503 ]
        echo "acknowledged: ${#acknowledged[@]}, refused: ${refused[*]}"
        check "what was acknowledged is served" whole
        check "the log is kept, and the metrics say so" within_a_minute kept 1
        check "so does the gateway's log" grep -q "intent log: a checkpoint failed" "$WORK/gateway.log"
        status=0
        kill "-$end" "$GATEWAY_PID"
        wait "$GATEWAY_PID" || status=$?
        GATEWAY_PID=""
        [ $end = KILL ] || check "the end by $end is no success ($status)" [ "$status" != 0 ]
        # The disk is mended.
        umount "$WORK/$disk"
        rm "$WORK/ram/full"
        check "the file system is repaired" bash -c 'e2fsck -fp "$0" > "$1/fsck" 2>&1 || [ $? = 1 ]' "$WORK/ram/disk" "$WORK"
        mount_disk
        gateway_start --log-level error
        check "every acknowledged file is there after $end, $disk" whole
        check "nothing is there that was refused" none_is_there
        check "and new ones are taken" put_many "$disk-$end-mended-" 20
        "$TIERDAV" drain --admin "$ADMIN" > "$WORK/drained"
        check "all are flushed" grep -q '"failed":0' "$WORK/drained"
        gateway_stop
        check "they are plain files" bash -c 'cd "$0/sent" && for name; do cmp "$name" "../root/$name" || exit 1; done' "$WORK" "${acknowledged[@]}"
    done
    umount "$WORK/$disk"
done
echo "failing-disk: done"
