#!/bin/sh
# Installs the package into a clean Debian, enrols, delivers, upgrades, removes, comes back and is
# purged; then the same machine by install.sh, twice, and removed. On demand, as root, with
# debootstrap; takes a minute or two. There is no systemd in it: the daemon is started by hand, as
# the user and with the directories that the unit gives it.
#
#   deploy/package.sh && cargo build -p harborforge-monitor
#   tests/deploy/debian.sh [CLEAN-ROOT]
#
# With a root that debootstrap has made before, nothing is downloaded; it is copied, not changed.
set -eu

cd "$(dirname "$0")/../.."
source=$PWD
# shellcheck source=tests/boot/steps.sh
. tests/boot/steps.sh
required

work=$(mktemp -d)
root=$work/root
monitor_pid=
daemon_pid=
clean() {
    [ -z "$daemon_pid" ] || kill "$daemon_pid" 2>/dev/null || true
    [ -z "$monitor_pid" ] || kill "$monitor_pid" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
inside() { chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

step "a clean Debian"
if [ -n "${1:-}" ]; then
    cp -a "$1" "$root"
else
    debootstrap --variant=minbase bookworm "$root" >"$work/debootstrap.log" || fail "debootstrap: $(tail -n 3 "$work/debootstrap.log")"
fi
# The daemon reads the host's figures there.
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc" 2>/dev/null || mount --bind /proc "$root/proc" ||
    echo "no /proc in it: figures will be null" >&2
before=$(cd "$root" && find etc usr var/lib/harborforge-connector -type f 2>/dev/null | grep -v -e ^var/lib/dpkg -e 'etc/.*-$' | LC_ALL=C sort)

step "a Monitor"
start_monitor --capabilities ack,resume
url=$(ready backend_url)
ready challenge_uuid >"$root/root/challenge"
chmod 0600 "$root/root/challenge"

start() { # PROGRAM
    # As the unit does it: user, directories, no root.
    mkdir -p "$root/run/harborforge-connector"
    chroot "$root" chown harborforge:harborforge /run/harborforge-connector
    chroot --userspec=harborforge:harborforge "$root" env -i PATH=/usr/bin HOME=/var/lib/harborforge-connector \
        STATE_DIRECTORY=/var/lib/harborforge-connector RUNTIME_DIRECTORY=/run/harborforge-connector \
        HARBORFORGE_REPORT_INTERVAL=1s "$1" run 2>>"$work/log" &
    daemon_pid=$!
}
stop() {
    kill "$daemon_pid"
    wait "$daemon_pid" || fail "the daemon ended with $?: $(tail -n 5 "$work/log")"
    daemon_pid=
}
wait_for_more() { # THAN
    tries=0
    until more_than "$1"; do
        kill -0 "$daemon_pid" 2>/dev/null || fail "the daemon ended: $(tail -n 5 "$work/log")"
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "nothing is delivered: $(tail -n 5 "$work/log")"
        sleep 0.1
    done
}

begun=$(date +%s)
step "installed from the package"
cp "$deb" "$root/root/connector.deb"
inside dpkg --install /root/connector.deb >"$work/out" 2>&1 || fail "$(cat "$work/out")"
grep -q "sudo harborforge-connector enroll" "$work/out" || fail "it does not say what is next: $(cat "$work/out")"
[ "$(inside stat -c '%U:%G %a' /etc/harborforge-connector/config.toml)" = "root:harborforge 640" ] || fail "the configuration's owner or mode"
[ "$(inside stat -c '%U:%G %a' /var/lib/harborforge-connector)" = "harborforge:harborforge 700" ] || fail "the data directory's owner or mode"
inside test -e /etc/systemd/system/multi-user.target.wants/harborforge-connector.service || fail "the unit is not enabled"

step "enrolled, and delivering"
inside harborforge-connector enroll --backend-url "$url" --identifier vps.t1 --challenge-file /root/challenge >"$work/out" 2>&1 || fail "$(cat "$work/out")"
[ "$(inside stat -c '%U:%G %a' /etc/harborforge-connector/config.toml)" = "root:harborforge 640" ] || fail "enroll changed owner or mode"
# Who is in the group may look, and need not know the challenge.
[ "$(inside stat -c '%U:%G %a' /etc/harborforge-connector/challenge_uuid)" = "harborforge:harborforge 600" ] || fail "the challenge's owner or mode"
if grep -qF "$(cat "$root/root/challenge")" "$root/etc/harborforge-connector/config.toml"; then fail "the challenge is in the configuration"; fi
inside harborforge-connector check >"$work/out" 2>&1 || fail "check: $(cat "$work/out")"
start /usr/bin/harborforge-connector
wait_for_more 0
took=$(($(date +%s) - begun))
echo "   from the package to the first sample delivered: $took s"
[ "$took" -lt 120 ] || fail "a newcomer waits for more than two minutes"
inside useradd looker
inside usermod --append --groups harborforge looker
inside su looker -c "harborforge-connector status" >"$work/out" 2>&1 || fail "one of the group may not look: $(cat "$work/out")"
if inside su looker -c "cat /etc/harborforge-connector/challenge_uuid" >"$work/out" 2>&1; then fail "one of the group reads the challenge"; fi
inside useradd other
if inside su other -c "harborforge-connector status" >"$work/out" 2>&1; then fail "one outside the group may look"; fi
grep -q "join the group harborforge " "$work/out" || fail "it does not say which group: $(cat "$work/out")"
inside userdel looker
inside userdel other
inside harborforge-connector status >"$work/out" 2>&1 || fail "status: $(cat "$work/out")"

step "upgraded with a backlog"
kill -STOP "$monitor_pid"
sleep 3
next_version "$root/root/next.deb"
inside dpkg --install /root/next.deb >"$work/out" 2>&1 || fail "$(cat "$work/out")"
inside dpkg --status harborforge-connector | grep -q '^Version: .*+next$' || fail "it was not upgraded"
if grep -q "sudo harborforge-connector enroll" "$work/out"; then fail "it forgot that it is enrolled"; fi
grep -q '^backend_url' "$root/etc/harborforge-connector/config.toml" || fail "the upgrade lost the configuration"
stop
kill -CONT "$monitor_pid"
inside harborforge-connector verify >"$work/out" 2>&1 || fail "verify: $(cat "$work/out")"
had=$(delivered)
start /usr/bin/harborforge-connector
wait_for_more "$had"
stop

step "removed: the queue stays"
inside dpkg --remove harborforge-connector >"$work/out" 2>&1 || fail "$(cat "$work/out")"
[ -e "$root/var/lib/harborforge-connector/queue/FORMAT" ] || fail "removing lost the queue"
[ -e "$root/etc/harborforge-connector/config.toml" ] || fail "removing lost the configuration"
[ ! -e "$root/usr/bin/harborforge-connector" ] || fail "the program is still there"

step "back, with an account of another number"
inside userdel harborforge
inside groupadd --system between
inside useradd --system --gid between between
inside dpkg --install /root/next.deb >"$work/out" 2>&1 || fail "$(cat "$work/out")"
[ "$(inside stat -c '%U' /var/lib/harborforge-connector/queue/FORMAT)" = harborforge ] || fail "the queue belongs to somebody else"
had=$(delivered)
start /usr/bin/harborforge-connector
wait_for_more "$had"
stop
gapless || fail "numbers are missing: $(numbers)"

step "purged"
purged

step "by install.sh, twice"
mkdir "$root/root/archive"
tar -xzf "$source"/target/packages/*-linux.tar.gz -C "$root/root/archive" --strip-components=1
install_it() {
    inside HARBORFORGE_BACKEND_URL="$url" HARBORFORGE_IDENTIFIER=vps.t2 "$@" </dev/null >"$work/out" 2>&1 || fail "$(cat "$work/out")"
}
if inside /root/archive/install.sh --sums /root/none </dev/null >"$work/out" 2>&1; then fail "installed without sums"; fi
install_it HARBORFORGE_CHALLENGE_UUID_FILE=/root/challenge /root/archive/install.sh
grep -q "neither systemd nor OpenRC" "$work/out" || fail "$(cat "$work/out")"
install_it /root/archive/install.sh
grep -q "Already enrolled" "$work/out" || fail "the second time: $(cat "$work/out")"
inside harborforge-connector --version >/dev/null
inside /root/archive/install.sh --uninstall >"$work/out" 2>&1 || fail "$(cat "$work/out")"
grep -q "/var/lib/harborforge-connector" "$work/out" || fail "it does not say what stays: $(cat "$work/out")"
install_it /root/archive/install.sh
inside /root/archive/install.sh --uninstall >"$work/out" 2>&1 || fail "$(cat "$work/out")"

step "install.sh takes a removed package's configuration and queue over"
inside dpkg --force-confold --install /root/connector.deb >"$work/out" 2>&1 || fail "$(cat "$work/out")"
inside dpkg --remove harborforge-connector >"$work/out" 2>&1 || fail "$(cat "$work/out")"
echo queue >"$root/var/lib/harborforge-connector/mark"
cp "$root/etc/harborforge-connector/config.toml" "$work/config"
install_it /root/archive/install.sh
grep -q "kept /var/lib/harborforge-connector" "$work/out" || fail "it does not say what it keeps: $(cat "$work/out")"
inside dpkg --purge harborforge-connector >"$work/out" 2>&1 || true
[ -e "$root/var/lib/harborforge-connector/mark" ] || fail "purging the removed package took the queue"
cmp "$work/config" "$root/etc/harborforge-connector/config.toml" || fail "purging the removed package took the configuration"
[ "$(inside stat -c '%U:%G %a' /etc/harborforge-connector/config.toml)" = "root:harborforge 640" ] || fail "the configuration's owner or mode"
inside /root/archive/install.sh --uninstall --purge >"$work/out" 2>&1 || fail "$(cat "$work/out")"
after=$(cd "$root" && find etc usr var/lib/harborforge-connector -type f 2>/dev/null | grep -v -e ^var/lib/dpkg -e 'etc/.*-$' | LC_ALL=C sort)
printf '%s\n' "$before" >"$work/before"
printf '%s\n' "$after" >"$work/after"
diff "$work/before" "$work/after" || fail "something is left"

echo "installed, upgraded, removed, come back and purged: as the documentation says"
