#!/usr/bin/env bash
# How long a gateway over Ceph pools takes from `kill -9` to `/ready`, with so many objects in its cache pool, and whether it knows
# of each what it knew before: state by state, by the bytes of a sample, and by what it flushes afterwards.
#
#   benches/restart-pools.sh [--objects N] [--rounds N]     default 100000 objects of 1 KiB, a fifth of them dirty; 3 kills
#
# Needs root and Debian's Ceph (deploy/dev/ceph.sh). Starts a cluster of its own unless TIERDAV_CEPH_DIR names one.
set -euo pipefail
OBJECTS=100000 ROUNDS=3
while [ $# -gt 0 ]; do
    case "$1" in
        --objects) OBJECTS=${2:?}; shift 2 ;;
        --rounds) ROUNDS=${2:?}; shift 2 ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
. "$(dirname "$0")/../deploy/dev/lib.sh"
own_cluster
root_disk 8G
[ -n "${TIERDAV:-}" ] || cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --features rados --bin tierdav
TIERDAV=${TIERDAV:-${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav}
POOLS="restart-$$"
FLAGS=(--cache-capacity 8GiB --policy lru --log-level error)

# requests put FROM TO | get FROM TO STEP: one process, 16 connections, each answer checked.
requests() {
    python3 - "$URL" "$@" <<'P'
import hashlib, socket, sys, urllib.parse
at, what, first, end = urllib.parse.urlparse(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
step = int(sys.argv[5]) if len(sys.argv) > 5 else 1
body = lambda n: hashlib.shake_128(str(n).encode()).digest(1024)
held = [socket.create_connection((at.hostname, at.port)) for _ in range(16)]
answers = [c.makefile("rb") for c in held]

def head(n):
    path = f"/{n % 100}/{n}"
    if what == "put":
        return f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n\r\n".encode() + body(n)
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

def read(answer):
    status, length = int(answer.readline().split()[1]), 0
    while (line := answer.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return status, answer.read(length)

numbers = range(first, end, step)
for at_once in range(0, len(numbers), 16):
    some = numbers[at_once:at_once + 16]
    for c, n in zip(held, some):
        c.sendall(head(n))
    for answer, n in zip(answers, some):
        status, got = read(answer)
        if what == "put":
            assert status == 201, (n, status)
        else:
            assert (status, got) == (200, body(n)), (n, status, len(got))
P
}
states() { # objects and bytes of each state
    curl -sf "$ADMIN/.tierdav/status" | python3 -c '
import json, sys
tiers = json.load(sys.stdin)["tiers"]
print(*(f"{state} {tiers[state]}" for state in ("clean", "dirty", "used_bytes")))'
}
until_states() { # SECONDS PATTERN
    local i
    for i in $(seq "$1"); do
        [[ "$(states)" != *"$2"* ]] || return 0
        read -rt 1 <> <(:) || true
    done
    echo "not so after $1 s: $2; but $(states)"; return 1
}

# Four fifths go to both pools at once, and are clean; the rest is new.
CLEAN=$((OBJECTS / 5 * 4))
gateway_start "${FLAGS[@]}" --write-policy through
for n in $(seq 0 99); do curl -sf -X MKCOL "$URL$n/"; done
requests put 0 $((CLEAN / 2)) & first=$!
requests put $((CLEAN / 2)) "$CLEAN" & wait "$first" $!
gateway_stop
gateway_start "${FLAGS[@]}" --write-policy back --max-dirty-age 1d
requests put $CLEAN "$OBJECTS"
BEFORE=$(states)
for _ in $(seq "$ROUNDS"); do
    gateway_stop KILL
    began=$(date +%s%N)
    gateway_start "${FLAGS[@]}" --write-policy back --max-dirty-age 1d
    until curl -sf "$ADMIN/.tierdav/ready" -o /dev/null; do :; done
    echo "ready after $(( ($(date +%s%N) - began) / 1000000 )) ms"
    [ "$(states)" = "$BEFORE" ] || { echo "before: $BEFORE, after: $(states)"; exit 1; }
done
echo "residency as before: $BEFORE"
requests get 0 "$OBJECTS" 37
echo "every 37th read back and equal"
gateway_stop KILL
gateway_start "${FLAGS[@]}" --write-policy back --max-dirty-age 1s --migrate-in-flight 16
until_states 120 "dirty {'objects': 0,"
echo "all flushed: $(states)"
gateway_stop
tiers
"$TIERDAV" scrub --root "$WORK/root" "${TIERS[@]}" "${FLAGS[@]}" > "$WORK/scrub.json" || { cat "$WORK/scrub.json"; exit 1; }
echo "scrub finds nothing"
