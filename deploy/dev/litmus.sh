#!/usr/bin/env bash
# Runs litmus (all suites) against a gateway with a cache tier and against one without. No failure, no warning.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
build
for cache in "$WORK/cache" none; do
    gateway_start --cache-dir "$cache" || exit 1
    (cd "$WORK" && TESTS="basic copymove props locks http" litmus -k "$URL") > "$WORK/litmus.out" 2>&1
    status=$?
    grep -E '^<- summary|FAIL|WARNING' "$WORK/litmus.out"
    check "litmus with cache_dir = $cache ends well" [ $status = 0 ]
    check "no failure and no warning" bash -c "! grep -qE 'FAIL|WARNING' '$WORK/litmus.out'"
    check "all five suites ran" [ "$(grep -c '^<- summary' "$WORK/litmus.out")" = 5 ]
    gateway_stop || exit 1
    rm -rf "$WORK/root" "$WORK/cache"
done
