# A disk that does so many operations and megabytes per second, for whoever asks: a file system's journal and the kernel's own
# writeback, too. Sourced. Needs root.
#
# Below, a loop device that the kernel throttles (cgroup v1 blkio, limits of the root group). Above it another one with a short
# queue, which sorts and merges what waits there before it is counted, as a disk's queue does.
# shellcheck shell=bash

# Requests that wait above at once.
SLOW_QUEUE=8

# slow_on FILE IOPS MBPS: sets SLOW_LOOP, the device to use, and SLOW_BELOW. 0 is no limit.
slow_on() {
    local device op
    SLOW_BELOW=$(losetup --find --show --direct-io=on "$1")
    SLOW_LOOP=$(losetup --find --show --direct-io=on "$SLOW_BELOW")
    echo mq-deadline > "/sys/block/${SLOW_LOOP#/dev/}/queue/scheduler"
    echo "$SLOW_QUEUE" > "/sys/block/${SLOW_LOOP#/dev/}/queue/nr_requests"
    device=$(cat "/sys/block/${SLOW_BELOW#/dev/}/dev")
    for op in read write; do
        echo "$device $2" > "/sys/fs/cgroup/blkio/blkio.throttle.${op}_iops_device"
        echo "$device $(($3 * 1000000))" > "/sys/fs/cgroup/blkio/blkio.throttle.${op}_bps_device"
    done
}

# slow_off SLOW_LOOP SLOW_BELOW
slow_off() {
    local device op
    device=$(cat "/sys/block/${2#/dev/}/dev")
    for op in read write; do
        echo "$device 0" > "/sys/fs/cgroup/blkio/blkio.throttle.${op}_iops_device"
        echo "$device 0" > "/sys/fs/cgroup/blkio/blkio.throttle.${op}_bps_device"
    done
    losetup -d "$1" || true
    losetup -d "$2" || true
}
