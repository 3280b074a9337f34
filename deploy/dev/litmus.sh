#!/usr/bin/env bash
# Runs litmus (all suites) against a gateway with a cache tier and against one without; with POOLS set, over Ceph pools.
# No failure, no warning.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
build
[ -n "${POOLS:-}" ] && kinds=(pools) || kinds=("$WORK/cache" none)
for cache in "${kinds[@]}"; do
    if [ "$cache" = pools ]; then gateway_start || exit 1; else gateway_start --cache-dir "$cache" || exit 1; fi
    (cd "$WORK" && TESTS="basic copymove props locks http" litmus -k "$URL") > "$WORK/litmus.out" 2>&1
    status=$?
    grep -E '^<- summary|FAIL|WARNING' "$WORK/litmus.out"
    check "litmus over $cache ends well" [ $status = 0 ]
    check "no failure and no warning" bash -c "! grep -qE 'FAIL|WARNING' '$WORK/litmus.out'"
    check "all five suites ran" [ "$(grep -c '^<- summary' "$WORK/litmus.out")" = 5 ]
    gateway_stop || exit 1
    rm -rf "$WORK/root" "$WORK/cache"
done
