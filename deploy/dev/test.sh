#!/usr/bin/env bash
# Runs the whole suite. Installs what the tests need (apt, as root or through sudo); skips what is there.
#
#   deploy/dev/test.sh                     everything
#   deploy/dev/test.sh --quick             smaller loads, and no Elasticsearch node, browser or walk-through: for a first look
#   deploy/dev/test.sh --long              200 kills of the gateway under load instead of 10
#   deploy/dev/test.sh --only litmus       one stage: install format clippy plain unit libcachesim litmus davfs2 flush
#                                          failing-disk pools elasticsearch manifests device walkthrough page; for unit
#                                          and pools a Ceph cluster is started, unless TIERDAV_CEPH_DIR names one
#   deploy/dev/test.sh --without pools     all but this stage; may be repeated
#
# Ends with why each failed stage did, and one line "N passed, N failed"; exits non-zero when anything failed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
only="" without=" "
while [ $# -gt 0 ]; do
    case "$1" in
        --quick)
            without+="elasticsearch page walkthrough "
            export TIERDAV_MIXED_SECONDS=10 FILES=100 LARGE_MIB=64
            shift ;;
        --long) export TIERDAV_KILLS=200; shift ;;
        --without) without+="${2:?--without needs a stage} "; shift 2 ;;
        --only) only="${2:?--only needs a stage}"; shift 2 ;;
        -h|--help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) echo "unknown option $1 (try --help)" >&2; exit 2 ;;
    esac
done

passed=0 failed=0 failures=()
sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"

# One log for each stage whose command is none of this shell's own.
logs=$(mktemp -d)
running=()
trap 'rm -rf "$logs"' EXIT
# What runs is in groups of its own, where a Ctrl-C does not come by itself.
trap '[ ${#running[@]} = 0 ] || { kill "${running[@]}"; wait "${running[@]}"; }; exit 130' INT TERM

# beside SECONDS LOG COMMAND...: starts it; what hangs ends after so long.
beside() {
    : > "$2"
    # With job control the command's group does not ignore SIGINT, which tests send.
    set -m
    timeout -k 60 "$1" "${@:3}" >> "$2" 2>&1 &
    running+=($!)
    set +m
}

# bounded SECONDS LOG COMMAND...: what hangs is a failure of its stage, not of the whole run.
bounded() {
    local status
    beside "$@"
    tail -n +1 -f --pid="${running[-1]}" "$2" &
    wait "${running[-1]}"; status=$?
    wait $!
    unset 'running[-1]'
    return "$status"
}

# why STAGE: the lines of its log that say why it failed, each panic with its message, and the last lines.
why() {
    [ -e "$logs/$1" ] || return 0
    echo "== $1 failed:"
    awk '/ \.\.\. ok$/ { next } /FAILED|panicked|error/ { print; panic = /panicked/; next } panic { print; panic = 0 }' "$logs/$1" |
        head -n 30 | cut -c 1-300
    echo "== the last lines of $1:"
    tail -n 15 "$logs/$1" | cut -c 1-300
}

stage() { # NAME COMMAND...
    local name="$1" start=$SECONDS; shift
    case "$only" in
        ""|"$name") ;;
        unit|pools) [ "$name" = cluster ] || return 0 ;;
        *) return 0 ;;
    esac
    [[ "$without" != *" $name "* ]] || { echo "== $name: left out"; return 0; }
    echo "== $name"
    declare -F "$1" > /dev/null || set -- bounded 1500 "$logs/$name" "$@"
    if "$@"; then echo "== $name: ok ($((SECONDS - start)) s)"
    else echo "== $name: FAILED ($((SECONDS - start)) s)"; failed=$((failed + 1)); failures+=("$name"); return 1; fi
    passed=$((passed + 1))
}

install() {
    local missing=() p
    for p in litmus davfs2 strace fio curl gcc libc6-dev make openjdk-17-jdk-headless python3-pip python3-venv unzip openssl prometheus chromium python3-seccomp iproute2 man-db e2fsprogs xfsprogs g++ ceph-mon ceph-mgr ceph-osd ceph-common librados-dev libradospp-dev; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
    [ ${#missing[@]} = 0 ] && return 0
    $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
}

# A throwaway cluster for the stages that need one; gone at the end.
cluster() {
    [ -z "${TIERDAV_CEPH_DIR:-}" ] || { echo "using the cluster in $TIERDAV_CEPH_DIR"; return 0; }
    TIERDAV_CEPH_DIR=$(mktemp -d /tmp/tierdav-ceph.XXXXXX)
    export TIERDAV_CEPH_DIR
    trap 'deploy/dev/ceph.sh down; rm -rf "$logs"' EXIT
    deploy/dev/ceph.sh up > /dev/null
}

# Cargo's own "N passed; M failed" lines count in the totals.
unit() {
    local log=$logs/unit mixed=after_a_mixed_load_with_moves_at_full_tilt_a_deep_scrub_finds_nothing status passes fails
    local tests=(cargo test --workspace --features "gateway/rados,trace-replay/rados" --no-fail-fast)
    bounded 1500 "$log" "${tests[@]}" --no-run || return
    # Five minutes of load, of which the others take nothing away.
    local seconds=${TIERDAV_MIXED_SECONDS:-300}
    TIERDAV_MIXED_SECONDS=$seconds beside $((seconds + 600)) "$logs/mixed" "${tests[@]}" --test pools -- --exact "$mixed"
    bounded 2400 "$log" "${tests[@]}" -- --skip "$mixed"
    status=$?
    wait "${running[-1]}" || status=$?
    unset 'running[-1]'
    tee -a "$log" < "$logs/mixed"
    read -r passes fails < <(awk '/^test result:/ { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
    passed=$((passed + passes)) failed=$((failed + fails))
    [ "$passes" -gt 0 ] || { echo "cargo ran no test"; return 1; }
    return "$status"
}

stage install install
stage cluster cluster
stage format cargo fmt --all --check
stage clippy cargo clippy --quiet --workspace --all-targets --features gateway/rados,trace-replay/rados -- -D warnings
stage plain cargo check --quiet --workspace
stage unit unit
stage libcachesim deploy/dev/libcachesim.sh
stage litmus deploy/dev/litmus.sh
stage davfs2 deploy/dev/davfs2.sh
stage flush deploy/dev/flush.sh
stage failing-disk deploy/dev/failing-disk.sh
stage pools deploy/dev/pools.sh
stage elasticsearch deploy/dev/elasticsearch.sh
stage manifests deploy/dev/manifests.sh
stage device deploy/dev/device.sh
stage walkthrough deploy/dev/walkthrough.sh
stage page deploy/dev/page.sh

if [ $failed != 0 ]; then
    for name in "${failures[@]}"; do why "$name"; done
    echo "failed: ${failures[*]}"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
