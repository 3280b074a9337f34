#!/bin/sh
# What `trace-replay capture` costs the program that is watched: seconds without, with strace alone writing a log, and
# with capture. Every row is the median of ROUNDS runs (default 5); the page cache stays warm.
#
#     cargo build --release -p trace-replay && benches/capture-overhead.sh target/release/trace-replay
set -eu
tool=$(realpath "${1:-target/release/trace-replay}")
rounds=${ROUNDS:-5}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir tree
i=0
while [ $i -lt 2000 ]; do
    head -c 10000 /dev/urandom >tree/$i
    i=$((i + 1))
done
head -c 268435456 /dev/urandom >big

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }
seconds() {
    rm -rf out copy
    begin=$(date +%s.%N)
    "$@" >/dev/null 2>&1
    echo "$begin $(date +%s.%N)" | awk '{ printf "%.3f\n", $2 - $1 }'
}
row() {
    name=$1
    shift
    for kind in plain strace capture; do
        case $kind in
            plain) run='' ;;
            strace) run="strace -f -ttt -T -yy -s 4096 -o log" ;;
            capture) run="$tool capture -o trace.csv --" ;;
        esac
        r=0
        while [ $r -lt "$rounds" ]; do
            # shellcheck disable=SC2086
            seconds $run "$@"
            r=$((r + 1))
        done | median >$kind
    done
    entries=$(($(wc -l <trace.csv) - 1))
    echo "$name|$(cat plain)|$(cat strace)|$(cat capture)|$entries" | awk -F'|' '{
        printf "| %s | %.2f s | %.2f s | %.2f s (%+.0f %%) | %d | %.0f us |\n", $1, $2, $3, $4, ($4/$2 - 1) * 100, $5, ($4 - $2) / $5 * 1e6 }'
}
echo '| load | plain | strace to a log | capture | operations | each costs |'
echo '| --- | --- | --- | --- | --- | --- |'
row 'copy 2000 files of 10 kB' cp -r tree copy
row 'write 100 000 blocks of 4 KiB' dd if=/dev/zero of=out bs=4096 count=100000
row 'checksum of 256 MiB, 32 KiB reads' sha256sum big
row 'compress 2000 files (tar, gzip)' tar czf out tree
