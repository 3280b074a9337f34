#!/usr/bin/env bash
# A real Elasticsearch 7.0.0 node with its data directory on a davfs2 mount of the gateway: 64 MB of images go in; then
# node, mount and gateway stop, all three start again, and every document must still be there.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/es/node.sh"
[ "$(id -u)" = 0 ] || { echo "davfs2 mounts need root"; exit 1; }
MB=${MB:-64}
build
es_install "$MB" || exit 1

gateway_start --log-level warn || exit 1
dav_mount "$WORK/mnt" "delay_upload 0" "cache_size 4096" "table_size 8192" || exit 1
check "the node starts on the mount" es_start "$WORK/mnt/data"
check "an index is made" es_index
check "$MB MB of images are loaded" es_load "$MB" 5000000
check "they are committed" es_commit
before=$(es_count)
check "there are documents ($before)" [ "${before:-0}" -gt 100 ]
es_stop
check "unmount" umount "$WORK/mnt"
gateway_stop || exit 1
gateway_start --log-level warn || exit 1
dav_mount "$WORK/mnt" "delay_upload 0" "cache_size 4096" "table_size 8192" || exit 1
check "the node starts again" es_start "$WORK/mnt/data"
after=$(es_count)
check "every document is there after the restart of everything ($after)" [ "$after" = "$before" ]
es_stop
check "unmount again" umount "$WORK/mnt"
if es_lost; then echo "FAILED: uploads in lost+found"; exit 1; fi
gateway_stop
