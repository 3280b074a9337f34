#!/usr/bin/env bash
# TierDAV beside other WebDAV servers: same file system, same data, wrk as the load, rounds that alternate between the servers.
# Prints Markdown tables (medians of requests per second with p99, TierDAV's ratio to the best of the others; CPU time per
# request and peak memory) and writes all figures as JSON.
#
#   [DISK=ext4|xfs] benches/compare.sh [--quick] [--rounds N] [--seconds N] [--rows REGEX] [--servers REGEX] [--json FILE] [--list]
#
# Default: 3 rounds of 3 seconds, all rows, all servers: over an hour. --quick: 1 round of 1 second, without the rows that take
# long to prepare. --list names the rows. Peers: Apache mod_dav, nginx with dav-ext, lighttpd mod_webdav, rclone (Debian's
# packages), WsgiDAV (PyPI), dufs (crates.io) and the dav-server crate over a directory (benches/peer). None of them syncs an
# upload to disk: TierDAV runs with `durability = relaxed`, which compares; through its cache tier (`write_policy = back`; on one
# file system the default goes past it); with `commit`; and once without its trace. DISK: all of them on a new file system in a
# loop device (ext4: with a journal) rather than where /tmp is. Needs root and /dev/fuse for the davfs2 rows; installs what is
# missing.
set -euo pipefail
case " $* " in *" --help "*|*" -h "*) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
. "$(dirname "$0")/../deploy/dev/lib.sh"
missing=()
for p in apache2 nginx libnginx-mod-http-dav-ext lighttpd lighttpd-mod-webdav lighttpd-mod-openssl rclone wrk python3-venv davfs2 openssl; do
    dpkg -s "$p" > /dev/null 2>&1 || missing+=("$p")
done
if [ ${#missing[@]} != 0 ]; then
    apt-get update -qq
    # Debian starts what it installs; these run on ports of ours.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" > /dev/null
    rm -f /usr/sbin/policy-rc.d
fi
TARGET="${CARGO_TARGET_DIR:-$REPO/target}"
PEERS="$TARGET/peers"
[ -x "$PEERS/venv/bin/wsgidav" ] || { python3 -m venv "$PEERS/venv"; "$PEERS/venv/bin/pip" -q install 'wsgidav==4.3.3' 'cheroot>=10,<11' 2> /dev/null; }
[ -x "$PEERS/bin/dufs" ] || cargo install --quiet --locked --root "$PEERS" --target-dir "$PEERS/build" dufs@0.47.0
cargo build --quiet --release --locked --manifest-path "$REPO/benches/peer/Cargo.toml" --target-dir "$PEERS/build"
cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --bin tierdav
AT=$WORK
if [ -n "${DISK:-}" ]; then
    AT=$WORK/disk
    mkdir "$AT"
    truncate -s 24G "$WORK/disk.image"
    case $DISK in
        ext4) mkfs.ext4 -q -F -O has_journal "$WORK/disk.image" ;;
        *) "mkfs.$DISK" -q "$WORK/disk.image" ;;
    esac
    mount -o loop "$WORK/disk.image" "$AT"
    MOUNTS+=("$AT")
    losetup --direct-io=on "$(findmnt -no SOURCE "$AT")"
    # The peers' own users pass through it.
    chmod 711 "$WORK"
fi
python3 "$REPO/benches/compare.py" --work "$AT" --tierdav "$TARGET/release/tierdav" --peers "$PEERS" "$@"
