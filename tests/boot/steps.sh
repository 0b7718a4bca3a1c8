#!/bin/sh
# Sourced by boot.sh, qemu.sh and ../deploy/debian.sh, at the root of the source: what they do with the
# package and the Monitor, and then what the two with a systemd do with the service. They define
# `inside`, which runs a command in the system under test, `fail`, and `work`, a directory of their own.
# shellcheck disable=SC2154 # `work` is theirs

NAME=harborforge-connector

# Ends the script where something is not there that all need, or one of these tools.
required() { # TOOL...
    monitor=${HARBORFORGE_MONITOR:-target/debug/harborforge-monitor}
    [ "$(id -u)" = 0 ] || { echo "this takes root" >&2 && exit 2; }
    [ -x "$monitor" ] || { echo "$monitor is not there: cargo build -p harborforge-monitor" >&2 && exit 2; }
    deb=$(find target/packages -name '*.deb')
    [ -f "$deb" ] || { echo "there is no package: deploy/package.sh" >&2 && exit 2; }
    for tool; do
        command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2 && exit 2; }
    done
}

step() { printf '== %s\n' "$*"; }
# Waits until a command succeeds: 600 tries, if `patience` says nothing else.
until_ok() { # WHAT COMMAND...
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt "${patience:-600}" ] || fail "$what"
        sleep 0.2
    done
}

# The program, and what it says at its start, which is one line.
start_monitor() { # OPTION...
    : >"$work/monitor"
    "$monitor" "$@" >"$work/monitor" 2>"$work/monitor.err" &
    monitor_pid=$!
    until grep -q '"ready"' "$work/monitor"; do
        kill -0 "$monitor_pid" 2>/dev/null || fail "no Monitor: $(cat "$work/monitor.err")"
        sleep 0.1
    done
}
ready() { sed -n "1s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" "$work/monitor"; }
delivered() { grep -c '"event":"accepted"' "$work/monitor" || true; }
more_than() { [ "$(delivered)" -gt "$1" ]; }
numbers() { sed -n '/"event":"accepted"/s/.*"seq":\([0-9]*\).*/\1/p' "$work/monitor" | sort -n | uniq; }
# From 1 on, and none left out.
gapless() { numbers | awk '$1 != NR { wrong = 1 } END { exit wrong || !NR }'; }

# The same files under the next number, for an upgrade.
next_version() { # NEXT
    dpkg-deb --raw-extract "$deb" "$work/next"
    sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$work/next" "$1" >/dev/null
}
purged() {
    inside dpkg --purge $NAME >"$work/out" 2>&1 || fail "$(cat "$work/out")"
    inside test ! -e /var/lib/$NAME || fail "the queue is still there"
    inside test ! -e /etc/$NAME || fail "the configuration is still there"
}

property() { inside systemctl show --property "$1" --value $NAME; }
is() { [ "$(property "$1")" = "$2" ]; }
status_has() { property StatusText | grep -q "$1"; }
pending() { inside $NAME status --json | sed 's/.*"pending":\([0-9]*\).*/\1/'; }
waits_more_than() { [ "$(pending)" -gt "$1" ]; }

# Installed, enabled, not started without a Monitor, and as shut in as it says.
installed() { # PACKAGE
    inside dpkg --install "$1" >"$work/out" 2>&1 || fail "$(cat "$work/out")"
    inside systemctl is-enabled --quiet $NAME || fail "not enabled"
    if inside systemctl is-active --quiet $NAME; then fail "started without a Monitor"; fi
    exposure=$(inside systemd-analyze security --no-pager $NAME | sed -n 's/.*Overall exposure level.*: \([0-9.]*\).*/\1/p')
    echo "   exposure $exposure of 10"
    awk "BEGIN { exit !($exposure <= 1.5) }" || fail "exposure $exposure"
    inside systemd-analyze verify --man=no "$NAME.service" 2>"$work/out" || fail "verify: $(cat "$work/out")"
}

upgraded() { # PACKAGE
    before=$(property MainPID)
    inside dpkg --install "$1" >"$work/out" 2>&1 || fail "$(cat "$work/out")"
    inside systemctl is-active --quiet $NAME || fail "not running after the upgrade"
    [ "$(property MainPID)" != "$before" ] || fail "the old one runs on after the upgrade"
    inside dpkg --status $NAME | grep -q '^Version: .*+next$' || fail "it was not upgraded"
}

# Ends where a removed one has begun: running, and delivering.
removed_and_back() { # PACKAGE
    inside dpkg --remove $NAME >"$work/out" 2>&1 || fail "$(cat "$work/out")"
    inside test -e /var/lib/$NAME/queue/FORMAT || fail "removing lost the queue"
    inside dpkg --install "$1" >"$work/out" 2>&1 || fail "$(cat "$work/out")"
    until_ok "it is not started" is ActiveState active
    had=$(delivered)
    until_ok "nothing is delivered" more_than "$had"
}
