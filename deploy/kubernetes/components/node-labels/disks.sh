#!/bin/sh
# Prints the patch that labels a node by its disks: disks.sh [/sys/block]. POSIX sh, for busybox.
# Not disks: loop devices, RAM, device mapper, CD, network block devices. An SD card (mmcblk) says rotational = 0 and is
# still no SSD.
ssd=false hdd=false
for disk in "${1:-/sys/block}"/*; do
    case "${disk##*/}" in loop*|ram*|zram*|dm-*|md*|sr*|fd*|nbd*|rbd*|mmcblk*|'*') continue ;; esac
    [ -r "$disk/queue/rotational" ] || continue
    case "$(cat "$disk/queue/rotational")" in 0) ssd=true ;; 1) hdd=true ;; esac
done
printf '{"metadata":{"labels":{"tierdav.github.io/ssd":"%s","tierdav.github.io/hdd":"%s"}}}\n' "$ssd" "$hdd"
