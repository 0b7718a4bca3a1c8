#!/bin/sh
# Boots a Debian with a real systemd, in namespaces on this kernel, and does with the package what
# an operator does: install, enrol, outage, hard reset, hang, upgrade, remove, come back. On demand,
# as root, with debootstrap and a cgroup2 hierarchy; takes about three minutes.
#
#   deploy/package.sh && cargo build -p harborforge-monitor
#   tests/boot/boot.sh [ROOT]
#
# ROOT: a Debian with systemd, dbus and systemd-sysv that was made before; it is copied, not
# changed. A hard reset is every process killed at once: what had reached the kernel survives it. What
# a power cut does to the disk is the storage's own test.
set -eu

cd "$(dirname "$0")/../.."
source=$PWD
# shellcheck source=tests/boot/steps.sh
. tests/boot/steps.sh
required
unified=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$unified" ] || { echo "there is no cgroup2 hierarchy here" >&2 && exit 2; }

work=$(mktemp -d)
root=$work/root
cgroup=$unified/harborforge-boot-$$
monitor_pid=
init=
off() {
    # The first process of a namespace takes all others with it.
    [ -z "$init" ] || kill -KILL "$init" 2>/dev/null || true
    [ -z "$init" ] || while [ -e "/proc/$init" ]; do sleep 0.1; done
    init=
    find "$cgroup" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
}
clean() {
    off
    [ -z "$monitor_pid" ] || kill "$monitor_pid" 2>/dev/null || true
    rmdir "$cgroup" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    if [ -n "$init" ]; then
        inside systemctl status --no-pager -l $NAME >&2 || true
        inside journalctl -u $NAME --no-pager -n 30 >&2 || true
    fi
    exit 1
}
inside() {
    nsenter -t "$init" -m -p -C -u -i -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}
on() {
    mkdir -p "$cgroup"
    # A child enters the cgroup, so that this script stays where it is.
    sh -c 'echo $$ >"$1/cgroup.procs" && exec unshare --mount --pid --fork --cgroup --uts --ipc "$2" "$3"' \
        sh "$cgroup" "$source/tests/boot/inside.sh" "$root" >>"$work/console" 2>&1 &
    outer=$!
    tries=0
    until init=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && [ -n "$init" ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || fail "nothing starts: $(tail -n 5 "$work/console")"
        sleep 0.1
    done
    init=${init%% *}
    until_ok "it does not come up: $(tail -n 5 "$work/console")" inside systemctl is-active multi-user.target
}

step "a clean Debian with systemd"
if [ -n "${1:-}" ]; then
    cp -a "$1" "$root"
else
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$root" >"$work/debootstrap.log"
fi
mkdir -p "$root/mnt"
cp "$deb" "$root/root/connector.deb"
next_version "$root/root/next.deb"
step "booted: $(chroot "$root" /lib/systemd/systemd --version | head -n 1)"
on

start_monitor --capabilities ack,resume
url=$(ready backend_url)

step "installed: enabled, and not started before it is enrolled"
installed /root/connector.deb

step "a wrong configuration ends it once, and it is not tried again"
inside systemctl start $NAME >/dev/null 2>&1 || true
until_ok "it does not give up" is ActiveState failed
is ExecMainStatus 3 || fail "exit code $(property ExecMainStatus)"
is NRestarts 0 || fail "restarted $(property NRestarts) times"

step "enrolled by a systemd credential, started, and delivering"
printf 'backend_url = "%s"\nidentifier = "vps.t1"\nreport_interval = "1s"\nhttp_fallback_interval = "1s"\nbackoff_cap = "2s"\n' "$url" >"$root/etc/$NAME/config.toml"
mkdir -p "$root/etc/credstore"
ready challenge_uuid >"$root/etc/credstore/$NAME.challenge_uuid"
chmod 0600 "$root/etc/credstore/$NAME.challenge_uuid"
inside systemctl start $NAME || fail "it does not start"
is ActiveState active || fail "READY was not said: $(property ActiveState)"
until_ok "nothing is delivered" more_than 0
until_ok "no status: $(property StatusText)" status_has "Delivering over the WebSocket"
# Those of the newest sample that was delivered; the first of them has no share of the processors.
figures() { inside $NAME status --json | tr ',' '\n' | grep -e '"cpu_pct":[^[]' -e mem_pct -e disk_pct -e load_avg; }
figures_are_there() { case $(figures) in '' | *null*) return 1 ;; esac }
until_ok "figures are missing inside the sandbox" figures_are_there

step "a reload"
inside systemctl reload $NAME || fail "it does not reload"
until_ok "not active again" is ActiveState active

step "a disk that the sandbox hides is null, and not empty"
echo 'disk_path = "/home"' >>"$root/etc/$NAME/config.toml"
inside systemctl reload $NAME || fail "it does not reload"
disk_is() { inside $NAME status --json | grep -q "\"disk_pct\":$1"; }
until_ok "an invented figure" disk_is null
dropins=$root/etc/systemd/system/$NAME.service.d
mkdir -p "$dropins"
printf '[Service]\nProtectHome=read-only\n' >"$dropins/home.conf"
inside systemctl daemon-reload
inside systemctl restart $NAME
until_ok "no figure though it sees the directory" disk_is '[0-9]'
rm -r "$dropins"
sed -i '/^disk_path/d' "$root/etc/$NAME/config.toml"
inside systemctl daemon-reload
inside systemctl restart $NAME

step "OpenClaw's state is read by the drop-in alone"
inside useradd --create-home claw
inside sh -c 'umask 077; mkdir /home/claw/.openclaw; echo "{}" >/home/claw/.openclaw/openclaw.json; echo x >/home/claw/other; chown -R claw: /home/claw'
mkdir -p "$dropins"
# Before the daemon, in its sandbox and as its user.
probe() {
    printf '[Service]\nExecStartPre=/bin/sh -c "%s"\n' "$1" >"$dropins/zz-probe.conf"
    inside systemctl daemon-reload
    inside systemctl restart $NAME
}
probe "! grep -q . /home/claw/.openclaw/openclaw.json && ! ls /home/claw && ! ls /root" || fail "homes are seen without the drop-in"
cp "$source/deploy/openclaw.conf" "$dropins/"
probe "grep -q . /home/claw/.openclaw/openclaw.json && ! touch /home/claw/.openclaw/new && ! ls /home/claw/other && ! grep -q . /etc/shadow && ! ls -A /root | grep -q ." ||
    fail "the drop-in shows too little or too much"
had=$(delivered)
until_ok "nothing is delivered with the drop-in" more_than "$had"
rm -r "$dropins"
inside systemctl daemon-reload
inside systemctl restart $NAME

step "hangs, and the watchdog ends it"
mkdir -p "$dropins"
printf '[Service]\nWatchdogSec=4s\n' >"$dropins/watchdog.conf"
inside systemctl daemon-reload
inside systemctl restart $NAME
sleep 10
is NRestarts 0 || fail "the watchdog ended one that lives: $(property NRestarts)"
inside systemctl kill --kill-whom=main --signal=STOP $NAME
until_ok "the watchdog does not bite" is NRestarts 1
until_ok "it does not come back" is ActiveState active
rm -r "$dropins"
inside systemctl daemon-reload
inside systemctl restart $NAME

step "an outage, and a hard reset in the middle of it"
kill -STOP "$monitor_pid"
until_ok "nothing waits" waits_more_than 5
off
on
until_ok "it is not started at boot" inside systemctl is-active --quiet $NAME
until_ok "nothing is taken" waits_more_than 6
kill -CONT "$monitor_pid"
until_ok "the backlog is not delivered" status_has "Delivering"
until_ok "numbers are missing" gapless

step "upgraded with a backlog: it runs on until the new one is started, also where its unit alone sees the challenge"
mkdir -p "$dropins"
printf '[Service]\nLoadCredential=\nLoadCredential=challenge_uuid:/etc/elsewhere\n' >"$dropins/challenge.conf"
mv "$root/etc/credstore/$NAME.challenge_uuid" "$root/etc/elsewhere"
inside systemctl daemon-reload
inside systemctl restart $NAME
had=$(delivered)
until_ok "nothing is delivered with the drop-in" more_than "$had"
kill -STOP "$monitor_pid"
until_ok "nothing waits" waits_more_than 3
upgraded /root/next.deb
kill -CONT "$monitor_pid"
had=$(delivered)
until_ok "the backlog is not delivered" more_than $((had + 3))
gapless || fail "numbers are missing after the upgrade"
rm -r "$dropins"
mv "$root/etc/elsewhere" "$root/etc/credstore/$NAME.challenge_uuid"
inside systemctl daemon-reload
inside systemctl restart $NAME

step "kill -9: it comes back"
inside systemctl kill --kill-whom=main --signal=KILL $NAME
until_ok "it does not come back" is ActiveState active
had=$(delivered)
until_ok "nothing is delivered" more_than "$had"

step "removed and installed again: the queue stays, and the numbers go on"
removed_and_back /root/next.deb
gapless || fail "numbers are missing after it came back"

step "purged"
purged

echo "$(delivered) samples: booted, enrolled, reset, upgraded, removed and come back, none lost"
