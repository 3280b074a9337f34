#!/usr/bin/env bash
# Runs the commands of docs/deploy.md, as they stand there (blocks after `<!-- run: NAME -->`), and checks what they promise.
#
# In a sandbox: namespaces for mounts, processes and network, and a copy-on-write view of this machine's file system, so that
# packages, /etc, ports and mounts are the walk-through's own and gone afterwards. systemctl is deploy/dev/unit_run.py, which
# runs a unit's own command under its own sandbox options.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
PAGE="$REPO/docs/deploy.md"

block() { # NAME: the commands of one block
    awk -v want="<!-- run: $1 -->" '$0 == want { found = 1; next } found && /^```sh/ { on = 1; next } on && /^```/ { exit } on' "$PAGE"
}

# Not installed in the sandbox: images of containers leave manual pages out (dpkg's path-exclude).
pages() { # DIR: each page by its name, as a user asks for it
    local file page text
    for page in tierdav trace-replay; do
        [ -s "$1/man1/$page.1.gz" ] || { echo "no page of $page"; return 1; }
    done
    for file in "$1"/man1/*; do
        page=$(basename "$file" .1.gz)
        text=$(MANPATH="$1" MANWIDTH=100 man --warnings "$page" 2>&1) || { echo "$text"; return 1; }
        grep -q "^SYNOPSIS" <<< "$text" && ! grep -qi "warning" <<< "$text" || { echo "$page: $text"; return 1; }
    done
}

completes() { # PROGRAM DIR: in a shell of its own, the way bash-completion loads it
    bash --norc -c 'set -e
        source "$1/$0"
        function=$(complete -p "$0" | sed -n "s/.* -F \([^ ]*\) .*/\1/p")
        COMP_WORDS=("$0" comple) COMP_CWORD=1
        "$function" "$0" comple "$0"
        [ "${COMPREPLY[*]}" = completions ]' "$1" "$2"
}

outside() {
    [ "$(id -u)" = 0 ] || { echo "the walk-through needs root"; exit 1; }
    local target=${CARGO_TARGET_DIR:-$REPO/target} p program revision
    for p in python3-seccomp iproute2 prometheus davfs2 man-db librados-dev libradospp-dev; do
        dpkg -s $p > /dev/null 2>&1 || { echo "$p is missing: apt-get install $p"; exit 1; }
    done
    # The page's first block, with the development profile: the same package, built in seconds.
    if ! [ -x "$target/deb-tools/bin/cargo-deb" ]; then
        local version; version=$(sed -n 's/^cargo install cargo-deb --version \([0-9.]*\).*/\1/p' "$PAGE")
        CARGO_TARGET_DIR="$target" cargo install --quiet cargo-deb --version "$version" --locked --root "$target/deb-tools" || exit 1
    fi
    export PATH="$target/deb-tools/bin:$PATH"
    mkdir "$WORK/debian"
    for revision in 1 2; do
        PROFILE=dev "$REPO/deploy/debian/build.sh" --deb-revision $revision --output "$WORK/debian/" > /dev/null || exit 1
    done
    check "packages are built: $(cd "$WORK/debian" && echo *)" test "$(ls "$WORK/debian" | wc -l)" = 2
    dpkg-deb --extract "$WORK"/debian/tierdav_*-1_*.deb "$WORK/unpacked" || exit 1
    check "man renders every page of the package" pages "$WORK/unpacked/usr/share/man"
    for program in tierdav trace-replay; do
        check "bash completes $program" completes $program "$WORK/unpacked/usr/share/bash-completion/completions"
        check "zsh and fish find theirs" bash -c 'cd "$0" && head -1 "zsh/vendor-completions/_$1" | grep -qx "#compdef $1" \
            && grep -q "complete -c $1 " "fish/vendor_completions.d/$1.fish"' "$WORK/unpacked/usr/share" $program
    done
    check "systemd finds no fault with the unit" bash -c "! systemd-analyze verify --man=no $REPO/deploy/systemd/tierdav.service 2>&1 | grep -v 'not executable'"
    exposure=$(systemd-analyze security --offline=true "$REPO/deploy/systemd/tierdav.service" 2> /dev/null | sed -n 's/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p')
    check "the page tells the unit's exposure ($exposure)" grep -q "says $exposure, OK" "$PAGE"

    mkdir "$WORK/real" "$WORK/tmpfs" "$WORK/root"
    SANDBOX="$WORK" unshare --mount --net --pid --fork --kill-child "$0" --inside || exit 1
}

inside() { # builds the sandbox and enters it
    trap - EXIT
    mount --make-rprivate / && mount -t tmpfs tmpfs "$OUTER/tmpfs" && mkdir "$OUTER/tmpfs/up" "$OUTER/tmpfs/work" \
        && mount -t overlay overlay -o "lowerdir=/,upperdir=$OUTER/tmpfs/up,workdir=$OUTER/tmpfs/work" "$OUTER/root" || exit 1
    cd "$OUTER/root" || exit 1
    mount -t proc proc proc && mount --rbind /dev dev && mount --rbind /sys sys && mount -t tmpfs tmpfs run && mount -t tmpfs tmpfs mnt || exit 1
    mkdir -p "$OUTER/real/lib" "$OUTER/real/tmp" && chmod 1777 "$OUTER/real/tmp"
    # The tiers on the machine's own file system: overlays are no place for a storage server.
    mkdir -p var/lib/tierdav && mount --bind "$OUTER/real/lib" var/lib/tierdav || exit 1
    mkdir -p "$REPO_IN/target/debian" && cp "$OUTER/debian/"* "$REPO_IN/target/debian/"
    install -m 755 "$REPO/deploy/dev/unit_run.py" usr/local/bin/systemctl
    printf 'quiet "2";\nDpkg::Use-Pty "0";\n' > etc/apt/apt.conf.d/99walkthrough
    mount --bind "$OUTER/real/tmp" tmp
    # As on any machine with systemd.
    mount --make-rshared "$OUTER/root" || exit 1
    ip link set lo up
    exec env -i DEBIAN_FRONTEND=noninteractive HOME=/root TERM=dumb PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin chroot . \
        /bin/bash "$REPO/deploy/dev/walkthrough.sh" --steps
}

run_block() { # NAME: in this shell, so that what a block defines stays
    local commands; commands=$(block "$1")
    [ -n "$commands" ] || { echo "FAILED: $PAGE has no block $1"; exit 1; }
    printf '%s\n' "$commands" | sed "s/^/    $1> /"
    printf 'set -e\n%s\n' "$commands" > "/tmp/$1.sh"
    check "the page's commands: $1" timeout 300 bash -o pipefail "/tmp/$1.sh"
}

metric() { curl -sf http://127.0.0.1:4919/.tierdav/metrics | awk -v name="$1" '$1 == name { print $2 }'; }
ready() {
    within_a_minute curl -sf -o /dev/null http://127.0.0.1:4919/.tierdav/ready && return
    tail -n 5 /var/log/tierdav.service.log; return 1
}
pid() { cat /run/unit-run/tierdav.service; }
as_pi() { curl -sf --user "pi:$(cat /root/tierdav-password)" "$@"; }

# One request, tried again while nobody listens, while the answer is 503, or when the connection ended before any answer.
tried() {
    local code i status
    for i in $(seq 60); do
        code=$(as_pi --retry 60 --retry-delay 1 --retry-connrefused -w '%{http_code}' "$@") && return 0
        status=$?
        [ "$code" = 000 ] || return $status
        echo "$status" >> /tmp/again-connections
    done
    return 1
}

# Puts and gets until /tmp/stop exists; an answer that is no success, or is cut off, is a failure.
load() {
    local n=0
    head -c 65536 /dev/urandom > "/tmp/payload-$1"
    while [ ! -e /tmp/stop ]; do
        n=$((n + 1))
        tried -T "/tmp/payload-$1" "http://127.0.0.1:4918/during-$1-$n" -o /dev/null \
            && tried "http://127.0.0.1:4918/during-$1-$n" -o "/tmp/got-$1" && cmp "/tmp/got-$1" "/tmp/payload-$1" \
            || echo "request $n of $1 failed" >> /tmp/failures
    done
    echo $n >> /tmp/requests
}

failed() { # what a look at the sandbox would show
    head -n 20 /tmp/failures
    grep -vE 'status.*=.*(200|201|204|207)' /var/log/tierdav.service.log | grep -v 401 | tail -n 20
    tail -n 5 /var/log/*.service.log
    curl -s http://127.0.0.1:4919/.tierdav/metrics | grep -E '^tierdav_(cache|object_bytes|dirty)'
}

# The same through the mount: each file is written, closed (which uploads it) and later compared in the root. While davfs2
# cannot reach the server, open() for a new file answers EAGAIN: the application tries again, and that pause is measured.
load_mount() {
    local n=0 start pause=0 now
    mkdir /mnt/tierdav/during
    while [ ! -e /tmp/stop ]; do
        n=$((n + 1)) start=${EPOCHREALTIME/./}
        until echo "file $n" > "/mnt/tierdav/during/$n"; do
            read -rt 0.1 <> <(:) || true
            [ $((${EPOCHREALTIME/./} - start)) -lt 60000000 ] || { echo "file $n of the mount failed" >> /tmp/failures; break; }
        done 2> /tmp/again
        grep -qv "temporarily unavailable" /tmp/again && { cat /tmp/again >> /tmp/failures; }
        now=$((${EPOCHREALTIME/./} - start))
        [ $now -le $pause ] || pause=$now
    done
    echo $n >> /tmp/requests
    echo "writers on the mount paused for $((pause / 1000)) ms at most"
}

steps() {
    trap 'status=$?; [ $status = 0 ] || failed; exit $status' EXIT
    cd "$REPO" || exit 1
    run_block install
    ready || exit 1
    check "it runs as its own user" test "$(stat -c %U "/proc/$(pid)")" = tierdav
    check "without any capability" grep -q '^CapBnd:[[:space:]]*0*$' "/proc/$(pid)/status"
    check "with a system-call filter" grep -q '^Seccomp:[[:space:]]*2$' "/proc/$(pid)/status"
    check "and a read-only system" bash -c "grep -qE '^[^ ]+ [^ ]+ [^ ]+ / / ro' /proc/$(pid)/mountinfo"

    run_block users
    ready || exit 1
    check "without a login: 401" test "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:4918/)" = 401
    check "with it: 207" test "$(as_pi -X PROPFIND -H 'Depth: 0' -o /dev/null -w '%{http_code}' http://127.0.0.1:4918/)" = 207

    run_block mount
    check "the copy is right" diff -r /usr/share/zoneinfo/Europe /mnt/tierdav/Europe
    run_block prometheus
    run_block alert
    ready || exit 1

    rm -f /tmp/failures /tmp/requests /tmp/stop /tmp/again-connections
    load 1 & load 2 & load_mount &
    before=$(pid)
    run_block upgrade
    ready || exit 1
    check "another process serves" test "$(pid)" != "$before"
    echo "written after the upgrade" > /mnt/tierdav/after
    check "the mount survived" diff -r /usr/share/zoneinfo/Europe /mnt/tierdav/Europe
    touch /tmp/stop
    wait
    check "the new package is installed" bash -c "dpkg-query -W -f '\${Version}' tierdav | grep -q -- '-2$'"
    check "no request failed during the upgrade ($(tr '\n' ' ' < /tmp/requests)writes and reads)" test ! -e /tmp/failures
    echo "$(wc -l < /tmp/again-connections 2> /dev/null || echo 0) connections ended before an answer and were made again"
    check "and there were some" test "$(sort -n /tmp/requests | head -1)" -ge 5

    run_block remove
    check "the root holds plain files" diff -r /usr/share/zoneinfo/Europe /var/lib/tierdav/root/Europe
    during() { for f in /var/lib/tierdav/root/during/*; do [ "$(cat "$f")" = "file ${f##*/}" ] || return 1; done; }
    check "with every file that was written during the upgrade" during
    check "also the last one" grep -q "after the upgrade" /var/lib/tierdav/root/after
    check "the program is gone" test ! -e /usr/bin/tierdav
    check "nothing is mounted" bash -c "! mountpoint -q /mnt/tierdav"
    systemctl stop prometheus
}

case "${1:-}" in
    --inside) rmdir "$WORK"; OUTER=${SANDBOX:?}; REPO_IN=".$REPO"; inside ;;
    --steps) trap - EXIT; rm -rf "$WORK"; steps ;;
    *) outside ;;
esac
