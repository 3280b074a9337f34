#!/bin/sh
# Mounts a TierDAV share on a Raspberry Pi or any Debian, now and at every start. POSIX sh; run as root.
#
#   install.sh --url https://dav.example.org/ --mount /mnt/tierdav --user pi --password-file FILE [options]
#   install.sh --mount /mnt/tierdav --uninstall
#
#   --url URL            the share
#   --mount DIR          where to mount it (default /mnt/tierdav)
#   --user NAME          login; leave out when the share has none
#   --password-file FILE file with the password alone (never an argument: others could read it with ps)
#   --owner USER         who owns the files on this device (default: the user who called sudo, else root)
#   --ca FILE            certificate of a private CA, PEM
#   --cache-mib N        MiB of files kept on the device (default 1024)
#   --fstab              a line in /etc/fstab instead of systemd units (chosen by itself when systemd does not run)
#   --no-start           set up, but do not mount now
#   --uninstall          unmount (waits for uploads) and remove what was installed
#
# Run it again to change a setting: what is right is left alone, and it says what it changed.
set -eu

URL="" DIR=/mnt/tierdav LOGIN="" PASSWORD_FILE="" OWNER=${SUDO_USER:-root} CA="" CACHE_MIB=1024 FSTAB=no START=yes REMOVE=no
while [ $# -gt 0 ]; do
    case "$1" in
        --url) URL=${2:?--url needs an address}; shift ;;
        --mount) DIR=${2:?--mount needs a directory}; shift ;;
        --user) LOGIN=${2:?--user needs a name}; shift ;;
        --password-file) PASSWORD_FILE=${2:?--password-file needs a file}; shift ;;
        --owner) OWNER=${2:?--owner needs a user}; shift ;;
        --ca) CA=${2:?--ca needs a file}; shift ;;
        --cache-mib) CACHE_MIB=${2:?--cache-mib needs a number}; shift ;;
        --fstab) FSTAB=yes ;;
        --no-start) START=no ;;
        --uninstall) REMOVE=yes ;;
        -h|--help) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "unknown option $1 (try --help)" >&2; exit 2 ;;
    esac
    shift
done
fail() { echo "$1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "run this as root (sudo $0 …): mounting needs it"
DIR=${DIR%/}
case "$DIR" in /*[!A-Za-z0-9/._-]*|[!/]*|'') fail "--mount $DIR: an absolute path of letters, digits and / . _ -" ;; esac
case "$CACHE_MIB" in ''|*[!0-9]*) fail "--cache-mib $CACHE_MIB: a whole number of MiB" ;; esac

# One share per directory: everything is named by it.
NAME=$(printf %s "${DIR#/}" | tr / -)
ETC=/etc/tierdav/$NAME
UNITS=/etc/systemd/system
UNIT=$(systemd-escape --path --suffix=mount "$DIR" 2>/dev/null || echo "$NAME.mount")
AUTOMOUNT=${UNIT%.mount}.automount
HERE=$(dirname "$0")
# /mnt/a/b and /mnt/a-b have one name.
if [ -s "$ETC/mount" ] && [ "$(cat "$ETC/mount")" != "$DIR" ]; then
    fail "--mount $DIR: $ETC has the settings of $(cat "$ETC/mount"): choose another directory"
fi
MARK="# tierdav $DIR"
has_systemd() { [ -d /run/systemd/system ]; }
has_systemd || FSTAB=yes

# put FILE MODE: writes standard input there if it differs.
put() {
    new=$(mktemp "$1.XXXXXX")
    cat > "$new"
    chmod "$2" "$new"
    if cmp -s "$new" "$1"; then rm "$new"; chmod "$2" "$1"; else mv "$new" "$1"; echo "wrote $1" | tee -a "$CHANGES"; fi
}
# fstab_without: /etc/fstab less our two lines.
fstab_without() { awk -v mark="$MARK" '$0 == mark { skip = 1; next } skip { skip = 0; next } { print }' /etc/fstab; }
drop_fstab() { if grep -qxF "$MARK" /etc/fstab 2>/dev/null; then fstab_without | put /etc/fstab 644; fi; }
drop_units() {
    for unit in "$AUTOMOUNT" "$UNIT"; do
        [ -e "$UNITS/$unit" ] || continue
        ! has_systemd || systemctl disable --now "$unit" || true
        rm "$UNITS/$unit"; echo "removed $UNITS/$unit" | tee -a "$CHANGES"
    done
}
# A file, because the writers stand behind pipes.
CHANGES=$(mktemp)
trap 'rm -f "$CHANGES"' EXIT

if [ $REMOVE = yes ]; then
    ! has_systemd || systemctl stop "$AUTOMOUNT" 2>/dev/null || true
    if mountpoint -q "$DIR"; then echo "unmounting $DIR (waits for uploads)"; umount "$DIR"; fi
    drop_units
    drop_fstab
    ! has_systemd || systemctl daemon-reload
    rm -rf "$ETC"
    rmdir /etc/tierdav "$DIR" 2>/dev/null || true
    # What the server refused for good is only here: never removed.
    lost=$(find /var/cache/davfs2 -path "*+$NAME+*/lost+found/*" -type f 2>/dev/null || true)
    [ -z "$lost" ] || echo "kept: uploads of $DIR that the server refused: $lost"
    echo "uninstalled $DIR"
    exit 0
fi

case "$URL" in http://*|https://*) ;; *) fail "--url '$URL': an address that starts with http:// or https://" ;; esac
case "$URL" in *[[:space:]\'\"\\]*) fail "--url: no blanks, quotes or backslashes" ;; esac
if [ -n "$CA" ]; then [ -r "$CA" ] || fail "--ca $CA: cannot be read"; fi
id "$OWNER" > /dev/null 2>&1 || fail "--owner $OWNER: no such user"
if [ -n "$LOGIN" ]; then
    [ -n "$PASSWORD_FILE" ] || fail "--user needs --password-file"
    [ -r "$PASSWORD_FILE" ] || fail "--password-file $PASSWORD_FILE: cannot be read"
    PASSWORD=$(cat "$PASSWORD_FILE")
    case "$LOGIN$PASSWORD" in *[\"\\]*) fail "davfs2 cannot take quotes or backslashes in a login" ;; esac
    case "$URL" in http://127.*|http://localhost*|https://*) ;; *) echo "warning: over http:// the password can be read on the way" >&2 ;; esac
fi
if ! command -v mount.davfs > /dev/null; then
    echo "installing davfs2"
    apt-get install -y -qq davfs2 > /dev/null || fail "apt-get install davfs2 failed: run apt-get update, then try again"
fi

mkdir -p "$DIR" /etc/tierdav "$ETC"
{
    sed -e "s|@LOCK_OWNER@|$(hostname)-$NAME|" -e "s|@CACHE_MIB@|$CACHE_MIB|" "$HERE/davfs2.conf"
    if [ -n "$LOGIN" ]; then printf '\nsecrets         %s\n' "$ETC/secrets"; fi
    if [ -n "$CA" ]; then printf '\ntrust_ca_cert   %s\n' "$ETC/ca.pem"; fi
} | put "$ETC/davfs2.conf" 644
# Keyed by mount point, readable by root alone: davfs2 refuses anything else.
if [ -n "$LOGIN" ]; then printf '"%s" "%s" "%s"\n' "$DIR" "$LOGIN" "$PASSWORD" | put "$ETC/secrets" 600; else rm -f "$ETC/secrets"; fi
printf '%s\n' "$DIR" | put "$ETC/mount" 644
if [ -n "$CA" ]; then put "$ETC/ca.pem" 644 < "$CA"; else rm -f "$ETC/ca.pem"; fi

OPTIONS=conf=$ETC/davfs2.conf,uid=$(id -u "$OWNER"),gid=$(id -g "$OWNER"),file_mode=0664,dir_mode=0775
if [ $FSTAB = yes ]; then
    drop_units
    {
        fstab_without
        # nofail and _netdev: a start without network does not hang. Mounted at the first use; ended after uploads.
        printf '%s\n%s %s davfs %s,_netdev,nofail,x-systemd.automount,x-systemd.mount-timeout=10min 0 0\n' "$MARK" "$URL" "$DIR" "$OPTIONS"
    } | put /etc/fstab 644
else
    drop_fstab
    for unit in mount automount; do
        sed -e "s|@URL@|$(printf %s "$URL" | sed 's/[&|]/\\&/g; s/%/%%/g')|" -e "s|@DIR@|$DIR|" -e "s|@OPTIONS@|$OPTIONS|" \
            "$HERE/systemd/tierdav.$unit" | put "$UNITS/${UNIT%.mount}.$unit" 644
    done
fi

if has_systemd; then
    systemctl daemon-reload
    if [ $FSTAB = no ]; then systemctl enable "$AUTOMOUNT"; fi
fi
if [ $START = yes ]; then
    if mountpoint -q "$DIR" && [ -s "$CHANGES" ]; then
        echo "mounting again, for the new settings"
        umount "$DIR"
    fi
    if [ $FSTAB = no ]; then systemctl restart "$AUTOMOUNT"; fi
    mountpoint -q "$DIR" || mount "$DIR" < /dev/null || fail "the mount failed; what was set up stays (--uninstall removes it)"
    ls "$DIR" > /dev/null || fail "$DIR is mounted, but cannot be listed (Linux 6.16 and later need buf_size 64 or more)"
fi
[ -s "$CHANGES" ] || echo "nothing to change"
if [ $START = yes ]; then echo "$URL is on $DIR"; else echo "$URL is set up for $DIR, and not mounted"; fi
