#!/usr/bin/env bash
# What davfs2's options cost and gain on this machine, one at a time against deploy/device/davfs2.conf. Needs root.
#   benches/davfs2-options.sh [FILES=300] [LARGE_MIB=256]
set -uo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway || exit 1
TIERDAV="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"
FILES=${1:-300} LARGE_MIB=${2:-256}
gateway_start --cache-capacity 4GiB || exit 1
chmod 755 "$WORK" # davfs2 gives root up and must still reach its cache
install -d -g davfs2 -m 775 "$WORK/davfs2-cache"
mkdir "$WORK/small" && for i in $(seq "$FILES"); do head -c 10240 /dev/urandom > "$WORK/small/$i"; done
head -c $((LARGE_MIB << 20)) /dev/urandom > "$WORK/large"
mkdir "$WORK/many" && (cd "$WORK/many" && seq 3000 | xargs touch)
curl -sf -X MKCOL "${URL}many/" -o /dev/null
(cd "$WORK/many" && find . -type f -printf '%f\n' | sed "s|.*|upload-file = \"&\"\nurl = \"${URL}many/&\"\noutput = /dev/null\nnext|" | sed '$d') > "$WORK/many.curl"
(cd "$WORK/many" && curl -sf --config "$WORK/many.curl")

ms() { local start=${EPOCHREALTIME/./}; "$@" > /dev/null 2>&1; local status=$?; echo $(((${EPOCHREALTIME/./} - start) / 1000)); return $status; }
echo "| changed | listing | copy $FILES files of 10 KiB | until uploaded | copy $LARGE_MIB MiB | until uploaded | read it cold | list 3000 names cold |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
row() { # NAME LINES...
    local name=$1 dir="$WORK/mnt" listing=works copy up large large_up cold list
    shift
    mkdir -p "$dir"
    {
        sed -e 's|@LOCK_OWNER@|bench|' -e 's|@CACHE_MIB@|1024|' "$REPO/deploy/device/davfs2.conf"
        printf '%s\n' "cache_dir $WORK/davfs2-cache" "$@"
    } > "$dir.conf"
    MOUNTS=("$dir")
    mount_it() { mount -t davfs -o "conf=$dir.conf,uid=0" "$URL" "$dir" < /dev/null || exit 1; }
    mount_it; ls "$dir" > /dev/null 2>&1 || listing=fails
    mkdir "$dir/t"
    copy=$(ms cp "$WORK/small/"* "$dir/t/"); up=$(ms umount "$dir"); mount_it
    large=$(ms cp "$WORK/large" "$dir/t/large"); large_up=$(ms umount "$dir")
    rm -rf "$WORK/davfs2-cache/"*; mount_it
    cold=$(ms cat "$dir/t/large"); list=$(ms ls -l "$dir/many"); umount "$dir"
    curl -sf -X DELETE "${URL}t/" -o /dev/null
    echo "| $name | $listing | $copy ms | +$up ms | $large ms | +$large_up ms | $cold ms | $list ms |"
}
row "nothing"
row "\`buf_size 16\` (davfs2's default)" "buf_size 16"
row "\`buf_size 64\`" "buf_size 64"
row "\`buf_size 1024\`" "buf_size 1024"
row "\`delay_upload 10\` (default)" "delay_upload 10"
row "\`use_locks 0\`" "use_locks 0"
row "\`table_size 1024\` (default)" "table_size 1024"
row "\`cache_size 50\` (default), smaller than the file" "cache_size 50"
row "\`use_expect100 1\`" "use_expect100 1"
gateway_stop
