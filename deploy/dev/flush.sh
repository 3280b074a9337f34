#!/usr/bin/env bash
# Many small files on a file system with a journal: flushed with few syncs, plain files afterwards, and there after a kill -9.
# Needs root, strace and a loop device; without one the files are flushed where they are, and syncs are not counted.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
FILES=300

[ "$(id -u)" = 0 ] || { echo "a loop device needs root"; exit 1; }
build
mkdir "$WORK/files" "$WORK/back"
root_disk 256M || echo "no loop device here"
for i in $(seq "$FILES"); do printf '%s\n' "file $i" > "$WORK/files/f$i"; done

same() { # DIR: holds the files
    (cd "$WORK/files" && sha256sum f*) | (cd "$1" && sha256sum --quiet -c)
}

gateway_start --policy lru --max-dirty-age 1h --log-level error
curl -sf -T "{$(seq -s, -f "$WORK/files/f%g" "$FILES")}" "$URL"
strace -f -qq -yy -e trace=fsync,fdatasync,syncfs -o "$WORK/syncs" -p "$GATEWAY_PID" &
TRACER=$!
CHILDREN+=("$TRACER")
until [ -z "$(grep -L "TracerPid:[[:space:]]*$TRACER" "/proc/$GATEWAY_PID"/task/*/status)" ]; do read -rt 0.1 <> <(:) || true; done
"$TIERDAV" drain --admin "$ADMIN" | tee "$WORK/drained"
syncs=$(grep -c "<$WORK/root" "$WORK/syncs" || true)
check "all $FILES were flushed" grep -q "\"objects\":$FILES,\"failed\":0" "$WORK/drained"
[ ${#MOUNTS[@]} = 0 ] || check "with $syncs syncs of the disk" test "$syncs" -gt 0 -a "$syncs" -lt 20
check "they are plain files" same "$WORK/root"
gateway_stop KILL
gateway_start --policy lru --log-level error
curl -sf "${URL}f[1-$FILES]" -o "$WORK/back/f#1"
check "and are served after a kill -9" same "$WORK/back"
gateway_stop
echo "flush: done"
