#!/bin/sh
# Mounts URL on DIR with davfs2, stays, and unmounts on SIGTERM. PID 1 of the sidecar; POSIX sh.
#
# umount waits for uploads. A file that the server refused for good stays in davfs2's lost+found, and umount still returns
# 0: so look there, and fail loudly.
set -eu
: "${URL:?}" "${DIR:?}"
LOGIN=${LOGIN:-/etc/tierdav-login}
CONF=${CONF:-/tmp/davfs2.conf}
CACHE=${CACHE:-/var/cache/davfs2}
TEMPLATE=${TEMPLATE:-/usr/local/share/davfs2.conf}

mkdir -p "$DIR"
{
    # The devices' settings, explained there.
    sed -e "s|@LOCK_OWNER@|$(hostname)-$$|" -e "s|@CACHE_MIB@|${CACHE_MIB:-2048}|" -e "s|^cache_dir .*|cache_dir $CACHE|" "$TEMPLATE"
    if [ -r "$LOGIN/user" ]; then
        umask 077
        printf '"%s" "%s" "%s"\n' "$DIR" "$(cat "$LOGIN/user")" "$(cat "$LOGIN/password")" > "$CONF.secrets"
        printf 'secrets %s\n' "$CONF.secrets"
    fi
} > "$CONF"
chmod 600 "$CONF"

stop() {
    trap '' TERM INT
    umount "$DIR" || umount -l "$DIR"
    lost=$(find "$CACHE" -path '*lost+found/*' -type f 2>/dev/null || true)
    [ -z "$lost" ] || { echo "uploads that the server refused are left in: $lost" >&2; exit 1; }
    echo "unmounted $DIR"
    exit 0
}
trap stop TERM INT

# The gateway may still be starting.
until mount -t davfs -o "conf=$CONF,uid=${MOUNT_UID:-0},gid=${MOUNT_GID:-0},dir_mode=0775,file_mode=0664" "$URL" "$DIR" < /dev/null; do
    echo "$URL does not answer yet" >&2
    sleep 2 & wait $!
done
echo "mounted $URL on $DIR"
while mountpoint -q "$DIR"; do
    sleep 5 & wait $!
done
echo "$DIR is no longer mounted" >&2
exit 1
