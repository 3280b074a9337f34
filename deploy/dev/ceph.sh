#!/usr/bin/env bash
# A throwaway Ceph cluster on loopback: one monitor, one manager, OSD 0 of class ssd and OSD 1 of class hdd.
#
#   deploy/dev/ceph.sh up [--hdd-iops N] [--hdd-mbps N] [--osd-gib N] [--cache-quota BYTES] [--data-quota BYTES]
#                         starts a cluster and prints how to serve from it
#   deploy/dev/ceph.sh down            stops it and removes everything
#   deploy/dev/ceph.sh status          what `ceph -s` says
#   deploy/dev/ceph.sh env             prints the variables for a shell: eval "$(deploy/dev/ceph.sh env)"
#   deploy/dev/ceph.sh kill-osd N      kill -9 of an OSD;   restart-osd N starts it again and waits until it is up
#   deploy/dev/ceph.sh stop-osd N      freezes an OSD (SIGSTOP);   cont-osd N lets it go on
#   deploy/dev/ceph.sh kill-mon        kill -9 of the monitor;   restart-mon starts it again
#   deploy/dev/ceph.sh net-cut         freezes all daemons, as a cut cable does;   net-heal lets them go on
#   deploy/dev/ceph.sh ceph ARGS...    `ceph` as the administrator;   rados ARGS... likewise
#
# Needs root and Debian's ceph-mon, ceph-osd, ceph-mgr and ceph-common. Everything is in $TIERDAV_CEPH_DIR (default
# /tmp/tierdav-ceph): ceph.conf, ceph.client.admin.keyring, ceph.client.tierdav.keyring. Clusters in other directories run
# beside it. cephx is on; client.tierdav has the caps that deploy/kubernetes/overlays/rook-pools gives it.
# --hdd-iops and --hdd-mbps let the kernel throttle OSD 1's block device (slow-disk.sh).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/slow-disk.sh"

DIR=${TIERDAV_CEPH_DIR:-/tmp/tierdav-ceph}
CONF=$DIR/ceph.conf
OSDS=(0 1)
CLASSES=(ssd hdd)

fail() { echo "ceph.sh: $*" >&2; exit 1; }
pause() { read -rt "${1:-0.1}" <> <(:) || true; }
# Nothing waits for ever on a cluster that does not answer.
admin() { timeout -k 5 60 ceph -c "$CONF" --connect-timeout 20 "$@"; }
pid_of() { cat "$DIR/$1.pid" 2>/dev/null; }
alive() { local pid; pid=$(pid_of "$1") && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }

free_ports() { # N: that many free ports, which the kernel chose
    python3 - "$1" <<'P'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])
P
}

start() { # NAME COMMAND...: a daemon in the foreground, put into the background by us, so that its pid is known
    local name=$1; shift
    setsid "$@" --foreground >> "$DIR/$name.out" 2>&1 < /dev/null &
    echo $! > "$DIR/$name.pid"
    disown
}

start_mon() { start mon ceph-mon -c "$CONF" -i a; }
start_mgr() { start mgr ceph-mgr -c "$CONF" -i x; }
start_osd() {
    start "osd.$1" ceph-osd -c "$CONF" -i "$1"
}

booted() { # N: the epoch since which the monitor has the OSD up; 0 while it is down
    admin osd dump -f json 2>/dev/null |
        python3 -c 'import json,sys; n=int(sys.argv[1]); print(max([o["up_from"] for o in json.load(sys.stdin)["osds"] if o["osd"]==n and o["up"]], default=0))' "$1"
}

wait_up() { # N [EPOCH]: until the monitor has the OSD up, and since another epoch than EPOCH
    local i now
    for i in $(seq 300); do
        now=$(booted "$1") || now=0
        [ "$now" = 0 ] || [ "$now" = "${2:-0}" ] || return 0
        alive "osd.$1" || { tail -5 "$DIR/osd.$1.out" >&2; fail "osd.$1 ended"; }
        pause
    done
    fail "osd.$1 is not up"
}

restart_osd() { # N: until the monitor knows the new process, not the one that was killed
    local before
    before=$(booted "$1")
    start_osd "$1"
    wait_up "$1" "$before"
}

# Whether every placement group answers within 15 s. What the manager says of them may be older than the trouble, so they are
# asked: for objects that do not exist, enough of them to meet every group. (Debian's python has the module that `ceph` needs.)
serves() {
    timeout -k 5 60 /usr/bin/python3 - "$CONF" <<'P'
import errno, rados, sys, threading
with rados.Rados(conffile=sys.argv[1], name="client.admin", conf={"client_mount_timeout": "15", "rados_osd_op_timeout": "15"}) as c:
    wrong = []
    for pool in c.list_pools():
        with c.open_ioctx(pool) as io:
            asked = [(threading.Event(), []) for _ in range(256)]
            for n, (done, said) in enumerate(asked):
                io.aio_stat(f"tierdav.probe.{n}", lambda x, size, when, done=done, said=said: (said.append(x.get_return_value()), done.set()))
            for done, said in asked:
                if not done.wait(30) or said != [-errno.ENOENT]:
                    wrong.append((pool, said))
sys.exit(f"{len(wrong)} of the asked objects have no answer, the first {wrong[0]}" if wrong else 0)
P
}

wait_clean() { # until all placement groups serve
    local i id
    for i in 1 2 3 4; do
        serves && return 0
        # Ceph 16.2 leaves groups of one replica "laggy" for good when their OSD was frozen at the wrong moment; a new start
        # of the OSD ends that.
        for id in "${OSDS[@]}"; do
            if alive "osd.$id"; then kill_wait "osd.$id"; restart_osd "$id"; fi
        done
    done
    fail "placement groups do not answer: see $0 status"
}

throttle() { # IOPS MBPS: OSD 1's block file becomes a device that the kernel slows
    slow_on "$DIR/osd.1/disk" "$1" "$2"
    echo "$SLOW_LOOP $SLOW_BELOW" > "$DIR/loops"
    ln -sfn "$SLOW_LOOP" "$DIR/osd.1/block"
}

up() {
    local iops=0 mbps=0 gib=20 cache_quota=0 data_quota=0 port fsid id uuid
    while [ $# -gt 0 ]; do
        case "$1" in
            --hdd-iops) iops=${2:?}; shift 2 ;;
            --hdd-mbps) mbps=${2:?}; shift 2 ;;
            --osd-gib) gib=${2:?}; shift 2 ;;
            --cache-quota) cache_quota=${2:?}; shift 2 ;;
            --data-quota) data_quota=${2:?}; shift 2 ;;
            *) fail "unknown option $1 (see --help)" ;;
        esac
    done
    [ ! -e "$CONF" ] || fail "$DIR has a cluster: $0 down, or another TIERDAV_CEPH_DIR"
    [ "$(id -u)" = 0 ] || fail "needs root"
    mkdir -p "$DIR"
    DIR=$(cd "$DIR" && pwd); CONF=$DIR/ceph.conf
    trap '[ $? = 0 ] || { trap - EXIT; tail -n 3 "$DIR"/*.out >&2; down; }' EXIT
    port=$(free_ports 1)
    fsid=$(cat /proc/sys/kernel/random/uuid)
    cat > "$CONF" <<C
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$port
public addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $DIR/ceph.\$name.keyring
run dir = $DIR
admin socket = $DIR/\$name.\$pid.asok
pid file =
log file = $DIR/\$name.log
log to stderr = false
crash dir = $DIR/crash
setuser match path =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 16
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
# The monitor's data is tiny: it must not refuse to start on a disk that is fuller than the default 95 %.
mon data avail crit = 0
mon data avail warn = 0
mon data = $DIR/mon
mgr data = $DIR/mgr
osd data = $DIR/osd.\$id
osd objectstore = bluestore
osd memory target = 1073741824
bluestore block size = $((gib << 30))
bluestore fsck quick fix on mount = false
# A killed OSD is noticed at once, by its refused connections. A short grace would also shorten the leases of placement
# groups, which a frozen OSD of Ceph 16.2 does not always get back.
mon osd min down reporters = 1
mon osd down out interval = 0
osd class update on start = false
# Two OSDs on one machine: the defaults measure the disk for seconds at start.
osd op queue = wpq
[mon]
keyring = $DIR/mon/keyring
[mgr]
mgr initial modules =
keyring = $DIR/mgr/keyring
[osd]
keyring = $DIR/osd.\$id/keyring
C
    mkdir "$DIR/mon" "$DIR/mgr" "$DIR/crash"
    ceph-authtool --create-keyring "$DIR/mon.init" --gen-key -n mon. --cap mon 'allow *' > /dev/null
    ceph-authtool --create-keyring "$DIR/ceph.client.admin.keyring" --gen-key -n client.admin \
        --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *' > /dev/null
    ceph-authtool "$DIR/mon.init" --import-keyring "$DIR/ceph.client.admin.keyring" > /dev/null
    monmaptool --create --fsid "$fsid" --addv a "[v1:127.0.0.1:$port]" "$DIR/monmap" > /dev/null
    ceph-mon -c "$CONF" --mkfs -i a --monmap "$DIR/monmap" --keyring "$DIR/mon.init"
    start_mon
    admin auth get-or-create mgr.x mon 'allow profile mgr' osd 'allow *' mds 'allow *' -o "$DIR/mgr/keyring"
    start_mgr
    for id in "${OSDS[@]}"; do
        uuid=$(cat /proc/sys/kernel/random/uuid)
        mkdir "$DIR/osd.$id"
        admin osd new "$uuid" "$id" > /dev/null
        admin auth get-or-create "osd.$id" mon 'allow profile osd' mgr 'allow profile osd' osd 'allow *' -o "$DIR/osd.$id/keyring"
        truncate -s "${gib}G" "$DIR/osd.$id/disk"
        ln -s "$DIR/osd.$id/disk" "$DIR/osd.$id/block"
        [ "$id" != 1 ] || [ "$iops$mbps" = 00 ] || throttle "$iops" "$mbps"
        ceph-osd -c "$CONF" -i "$id" --mkfs --osd-uuid "$uuid" >> "$DIR/osd.$id.out" 2>&1
        start_osd "$id"
    done
    for id in "${OSDS[@]}"; do wait_up "$id"; done
    for id in "${OSDS[@]}"; do
        admin osd crush rm-device-class "osd.$id" 2> /dev/null
        admin osd crush set-device-class "${CLASSES[$id]}" "osd.$id" 2> /dev/null
        admin osd crush rule create-replicated "on-${CLASSES[$id]}" default osd "${CLASSES[$id]}"
    done
    pool tierdav-cache on-ssd "$cache_quota"
    pool tierdav-data on-hdd "$data_quota"
    admin auth get-or-create client.tierdav \
        mon 'profile simple-rados-client-with-blocklist' \
        osd 'allow rwx pool=tierdav-cache, allow rwx pool=tierdav-data' -o "$DIR/ceph.client.tierdav.keyring"
    wait_clean
    trap - EXIT
    echo "Ceph is up: export TIERDAV_CEPH_DIR=$DIR"
    echo "tierdav serve --root ROOT --ceph-conf $CONF --ceph-user client.tierdav --cache-pool tierdav-cache --data-pool tierdav-data"
}

pool() { # NAME RULE QUOTA
    admin osd pool create "$1" 16 16 replicated "$2" 2> /dev/null
    admin osd pool application enable "$1" tierdav 2> /dev/null
    [ "$3" = 0 ] || admin osd pool set-quota "$1" max_bytes "$3" 2> /dev/null
}

signal() { # NAME SIGNAL
    local pid; pid=$(pid_of "$1") || return 0
    [ -z "$pid" ] || kill "-$2" "$pid" 2>/dev/null || true
}

kill_wait() { # NAME: killed and gone
    local pid; pid=$(pid_of "$1") || return 0
    kill -9 "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do pause 0.02; done
    rm -f "$DIR/$1.pid"
}

daemons() { local f; for f in "$DIR"/*.pid; do [ ! -e "$f" ] || basename "$f" .pid; done; }

down() {
    local d
    [ -e "$DIR" ] || return 0
    [ -e "$CONF" ] || fail "$DIR is not a directory of ours: it has no ceph.conf"
    for d in $(daemons); do kill_wait "$d"; done
    # shellcheck disable=SC2046
    if [ -f "$DIR/loops" ]; then slow_off $(cat "$DIR/loops"); fi
    rm -rf "$DIR"
}

osd_id() { [[ "${1:-}" =~ ^[01]$ ]] || fail "which OSD? 0 (ssd) or 1 (hdd)"; }

command=${1:---help}; [ $# = 0 ] || shift
case "$command" in
    up|down|-h|--help) ;;
    *) [ -e "$CONF" ] || fail "no cluster in $DIR: $0 up" ;;
esac
case "$command" in
    up) up "$@" ;;
    down) down ;;
    status) admin -s ;;
    env) echo "export TIERDAV_CEPH_DIR='$DIR' CEPH_CONF='$CONF'" ;;
    ceph) admin "$@" ;;
    rados) timeout -k 5 300 rados -c "$CONF" "$@" ;;
    kill-osd) osd_id "${1:-}"; kill_wait "osd.$1" ;;
    restart-osd) osd_id "${1:-}"; alive "osd.$1" || restart_osd "$1"; wait_clean ;;
    stop-osd) osd_id "${1:-}"; signal "osd.$1" STOP ;;
    cont-osd) osd_id "${1:-}"; signal "osd.$1" CONT; wait_up "$1"; wait_clean ;;
    kill-mon) kill_wait mon ;;
    restart-mon) alive mon || start_mon; admin mon stat > /dev/null ;;
    net-cut) for d in $(daemons); do signal "$d" STOP; done ;;
    net-heal) for d in $(daemons); do signal "$d" CONT; done; for id in "${OSDS[@]}"; do wait_up "$id"; done; wait_clean ;;
    -h|--help) sed -n '2,22s/^# \{0,1\}//p' "$0" ;;
    *) fail "unknown command $command (see --help)" ;;
esac
