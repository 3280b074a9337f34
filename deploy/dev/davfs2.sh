#!/usr/bin/env bash
# Real davfs2 mounts: small files, a large one, rename and delete while open, two mounts, restarts under a delayed
# upload, a cache so small that objects must move. Every byte is compared; davfs2's lost+found must stay empty.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || { echo "davfs2 mounts need root"; exit 1; }
[ -e /dev/fuse ] || { echo "/dev/fuse is missing"; exit 1; }
build
FILES=${FILES:-1000} LARGE_MIB=${LARGE_MIB:-1024}

nothing_lost() { ! find /var/cache/davfs2 -path '*lost+found*' -type f -newer "$WORK/start" | grep -q .; }
sums() { (cd "$1" && find . -type f -not -path './lost+found/*' -print0 | sort -z | xargs -0 sha256sum); }
touch "$WORK/start"

# A cache much smaller than the large file: promotion, flush and eviction all happen.
flags=(--cache-capacity "$((LARGE_MIB / 4))MiB" --max-dirty-age 2s)
gateway_start "${flags[@]}" || exit 1
A="$WORK/a" B="$WORK/b"
dav_mount "$A" "delay_upload 0" "cache_size 4096" || exit 1

mkdir "$WORK/small" && for i in $(seq "$FILES"); do head -c $((i * 37 % 20000)) /dev/urandom > "$WORK/small/file $i #?%.bin"; done
check "copy $FILES small files in" cp -r "$WORK/small" "$A/small"
head -c $((LARGE_MIB << 20)) /dev/urandom > "$WORK/large"
check "copy a file of $LARGE_MIB MiB in" cp "$WORK/large" "$A/large"

exec 5<> "$A/small/file 1 #?%.bin"; echo "more" >&5
lock_of() { "$TIERDAV" locks --admin "$ADMIN" | grep -qF "\"path\":\"/small/$1\""; }
requests() { grep -oE "method=$1 path=/small/$2 status=[0-9]+" "$WORK/gateway.log"; }
check "davfs2 holds the open file's lock" lock_of "file 1 #?%.bin"
locks=$(requests UNLOCK 'file%201%20[^ ]*' | wc -l)
check "rename a file that is open" mv "$A/small/file 1 #?%.bin" "$A/small/renamed"
check "MOVE succeeded" grep -q 'status=201$' <(requests MOVE 'file%201%20[^ ]*')
check "before any UNLOCK, so under the lock" [ "$(requests UNLOCK 'file%201%20[^ ]*' | wc -l)" = "$locks" ]
check "davfs2 has the lock of the new name" lock_of renamed
echo "after" >&5; exec 5>&-
exec 6< "$A/small/file 2 #?%.bin"
check "delete a file that is open" rm "$A/small/file 2 #?%.bin"
exec 6<&-
mkdir "$A/dir"; echo text > "$A/dir/new"
check "rename a directory" mv "$A/dir" "$A/moved"
check "make a file executable" chmod +x "$A/moved/new"
sums "$A" > "$WORK/before"
check "unmount" umount "$A"

dav_mount "$A" "delay_upload 0" || exit 1
sums "$A" > "$WORK/after"
check "every checksum is the same after a new mount" cmp "$WORK/before" "$WORK/after"
check "the large file is whole" cmp "$WORK/large" "$A/large"
check "the execute bit survived" test -x "$A/moved/new"
check "the appended lines arrived" grep -q after "$A/small/renamed"

# davfs2 sends a file again that was opened for writing and synced, changed or not. (Content in pools is not compared.)
unchanged() { curl -sf "$ADMIN/.tierdav/metrics" | awk '$1 == "tierdav_unchanged_upload_bytes_total" { print $2 }'; }
unchanged_are() { [ "$(unchanged)" = "$1" ]; }
header() { curl -sfI "${URL%/}/kept" | tr -d '\r' | sed -n "s/^$1: //Ip"; }
# davfs2 uploads after close() has returned.
uploaded() { [ "$(header content-length)" = "$1" ]; }
head -c 300000 "$WORK/large" > "$A/kept"
check "a file arrives after its close" within_a_minute uploaded 300000
tag=$(header etag) before=$(unchanged)
check "sync a file that nobody changed" dd if=/dev/null of="$A/kept" conv=notrunc,fsync status=none
if [ -z "${POOLS:-}" ]; then
    check "it arrives and is not written again" within_a_minute unchanged_are $((before + 300000))
    check "its entity tag is as before" [ -n "$tag" -a "$(header etag)" = "$tag" ]
fi
check "it has the bytes it had" cmp <(head -c 300000 "$WORK/large") "$A/kept"

dav_mount "$B" "delay_upload 0" "dir_refresh 1" || exit 1
echo "from a" > "$A/shared"; check "unmount one of two mounts" umount "$A"
# What the second mount has of a directory may be older than what is in it: a listing makes it look.
other_reads() { [ "$(cat "$B/shared" 2>/dev/null)" = "from a" ] || { ls "$B" > /dev/null; return 1; }; }
check "the other mount sees its file" within_a_minute other_reads
dav_mount "$A" "delay_upload 0" "dir_refresh 1" || exit 1
# Files of its own in a shared directory. (Not one that both create: davfs2 1.6.1, refused the lock of a file that it wants to
# create, gives the name's inode to another file. With Apache as the server, too.)
write_from() { # MOUNT NAME
    local i
    for i in $(seq 60); do
        head -c $((i * 997)) /dev/zero | tr '\0' "$2" > "$1/both/$2-$i" || return 1
    done
}
mkdir "$A/both"; echo > "$A/both/ready"; ls "$B" > /dev/null
seen() { ls "$B" > /dev/null; [ -e "$B/both/ready" ]; }
check "both mounts have the directory" within_a_minute seen
write_from "$A" a 2> "$WORK/a.err" & one=$!
write_from "$B" b 2> "$WORK/b.err" & two=$!
check "one mount writes 60 files" wait "$one"
check "the other writes 60 files at the same time" wait "$two"
check "unmount both" umount "$A" "$B"
whole() { # what each wrote is there, in full
    local name i
    for name in a b; do
        for i in $(seq 60); do
            [ "$(curl -sf "${URL}both/$name-$i" | tr -d "$name" | wc -c)" = 0 ] || return 1
            [ "$(curl -sf "${URL}both/$name-$i" | wc -c)" = $((i * 997)) ] || return 1
        done
    done
}
check "every file of both is whole" whole

status=$("$TIERDAV" status --admin "$ADMIN" --json)
moved() { echo "$status" | grep -qE "\"$1\":\{\"objects\":[1-9]"; }
check "objects were flushed" moved flushed
check "objects were evicted" moved evicted

# The gateway goes away between LOCK and the delayed PUT.
for signal in TERM KILL; do
    dav_mount "$A" "delay_upload 3" || exit 1
    echo "written before $signal" > "$A/delayed-$signal"
    gateway_stop "$signal" || exit 1
    gateway_start "${flags[@]}" || exit 1
    check "unmount after $signal of the gateway" umount "$A"
    check "the delayed upload arrived" [ "$(curl -sf "${URL}delayed-$signal")" = "written before $signal" ]
done
check "nothing is in lost+found" nothing_lost

"$TIERDAV" status --admin "$ADMIN" | head -20
gateway_stop || exit 1
drain() { "$TIERDAV" drain --root "$WORK/root" "${TIERS[@]}" 2>> "$WORK/gateway.log"; }
check "drain" drain
[ -n "${POOLS:-}" ] || check "after drain the root holds the plain file" cmp "$WORK/large" "$WORK/root/large"
