#!/usr/bin/env bash
# The device's installer in a real davfs2 mount: install, use, install again, change, uninstall. What it touches outside its
# own directory (/etc/fstab, /etc/tierdav) must be as before in the end.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || { echo "davfs2 mounts need root"; exit 1; }
[ -e /dev/fuse ] || { echo "/dev/fuse is missing"; exit 1; }
build
INSTALL="$REPO/deploy/device/install.sh"
SHARE=/mnt/tierdav-test-$$
MOUNTS+=("$SHARE")
touch /etc/fstab
cp -p /etc/fstab "$WORK/fstab"
# Whatever happens, this machine's fstab is put back.
trap 'status=$?; "$INSTALL" --mount "$SHARE" --uninstall > /dev/null 2>&1; cp -p "$WORK/fstab" /etc/fstab; (exit $status); cleanup' EXIT
check "sh -n" sh -n "$INSTALL"

echo secret > "$WORK/password"
"$TIERDAV" hash-password pi < "$WORK/password" > "$WORK/users"
gateway_start --users-file "$WORK/users" || exit 1

refuses() { ! "$INSTALL" --mount "$SHARE" "$@" > "$WORK/said" 2>&1; }
check "an address that is none is refused" refuses --url ftp://x/
check "a mount point with blanks is refused" refuses --url "$URL" --mount "/mnt/a b"
check "a login without its password is refused" refuses --url "$URL" --user pi
check "a private CA that cannot be read is refused" refuses --url "$URL" --ca /nowhere/ca.pem
check "an unknown owner is refused" refuses --url "$URL" --owner nobody-here
check "nothing was set up" test ! -e "/etc/tierdav/mnt-tierdav-test-$$"

login=(--user pi --password-file "$WORK/password")
install() { "$INSTALL" --url "$URL" --mount "$SHARE" --owner root "$@" > "$WORK/said" 2>&1 || { cat "$WORK/said"; return 1; }; }
check "install" install "${login[@]}"
check "it is mounted" mountpoint -q "$SHARE"
check "the secrets file is root's alone" test "$(stat -c %a:%u "/etc/tierdav/mnt-tierdav-test-$$/secrets")" = 600:0
check "the line in fstab is right" findmnt --verify --tab-file /etc/fstab
mkdir "$SHARE/dir" && head -c 3000000 /dev/urandom > "$WORK/photo" && cp "$WORK/photo" "$SHARE/dir/photo 1.jpg"
check "a listing works (buf_size)" test "$(ls "$SHARE/dir")" = "photo 1.jpg"
check "installed again, nothing changes" install "${login[@]}"
check "and it says so" grep -q "nothing to change" "$WORK/said"
check "there is one line in fstab" test "$(grep -c " $SHARE davfs " /etc/fstab)" = 1
check "a directory whose settings would be those is refused" refuses --url "$URL" --mount "${SHARE%-*}/${SHARE##*-}"
check "and so is uninstalling it" refuses --mount "${SHARE%-*}/${SHARE##*-}" --uninstall
check "a setting is changed" install "${login[@]}" --cache-mib 300
check "and it says what" grep -q "wrote /etc/tierdav/.*davfs2.conf" "$WORK/said"
check "the file has been uploaded" cmp "$WORK/photo" <(curl -sf -u pi:secret "${URL}dir/photo%201.jpg")
check "the file is there after the new mount" cmp "$WORK/photo" "$SHARE/dir/photo 1.jpg"
echo other > "$WORK/wrong"
check "a wrong password is an error" refuses --url "$URL" --user pi --password-file "$WORK/wrong" --owner root
check "with what to do" grep -q -- --uninstall "$WORK/said"
check "uninstall" "$INSTALL" --mount "$SHARE" --uninstall
check "nothing is mounted" test ! -e "$SHARE"
check "fstab is as before" cmp "$WORK/fstab" /etc/fstab
check "the configuration is gone" test ! -e "/etc/tierdav/mnt-tierdav-test-$$"
check "uninstalling twice is no error" "$INSTALL" --mount "$SHARE" --uninstall

# The systemd units, as the installer writes them: systemd's own check, and a mount with their very options.
unit=$(systemd-escape --path --suffix=mount "$SHARE")
mkdir "$SHARE" "$WORK/units"
sed -e 's|@LOCK_OWNER@|test|' -e 's|@CACHE_MIB@|300|' "$REPO/deploy/device/davfs2.conf" > "$WORK/davfs2.conf"
printf '"%s" "pi" "secret"\n' "$SHARE" > "$WORK/secrets" && chmod 600 "$WORK/secrets"
echo "secrets $WORK/secrets" >> "$WORK/davfs2.conf"
for kind in mount automount; do
    sed -e "s|@URL@|$URL|" -e "s|@DIR@|$SHARE|" -e "s|@OPTIONS@|conf=$WORK/davfs2.conf,uid=0|" \
        "$REPO/deploy/device/systemd/tierdav.$kind" > "$WORK/units/${unit%.mount}.$kind"
done
check "systemd finds no fault with the units" bash -c "! systemd-analyze verify --man=no '$WORK/units/'* 2>&1 | grep -i tierdav"
field() { sed -n "s/^$1=//p" "$WORK/units/$unit"; }
check "the unit's mount works" mount -t "$(field Type)" -o "$(field Options)" "$(field What)" "$(field Where)"
check "and is the share" cmp "$WORK/photo" "$SHARE/dir/photo 1.jpg"
umount "$SHARE"; rmdir "$SHARE"

# The app pod's sidecar, as process 1 would run it.
mkdir "$WORK/login" && printf pi > "$WORK/login/user" && printf secret > "$WORK/login/password"
URL="$URL" DIR="$SHARE" LOGIN="$WORK/login" CONF="$WORK/sidecar.conf" TEMPLATE="$REPO/deploy/device/davfs2.conf" \
    sh "$REPO/deploy/kubernetes/app-pod/davfs2/mount.sh" > "$WORK/said" 2>&1 &
sidecar=$!
check "the sidecar is there" within_a_minute mountpoint -q "$SHARE"
check "with the devices' settings" grep -q '^max_upload_attempts ' "$WORK/sidecar.conf"
check "the sidecar mounts the share" cmp "$WORK/photo" "$SHARE/dir/photo 1.jpg"
echo written > "$SHARE/by-the-pod"
kill -TERM $sidecar
check "on SIGTERM it uploads, unmounts and ends well" wait $sidecar
check "the pod's file arrived" test "$(curl -sf -u pi:secret "${URL}by-the-pod")" = written
check "nothing is mounted" bash -c "! mountpoint -q $SHARE"
rmdir "$SHARE"
gateway_stop || exit 1
