#!/bin/sh
# Boots a Debian with its own kernel in a virtual machine and cuts its power, which boot.sh cannot:
# there what has reached the kernel survives. The disk has a volatile write cache (nbdkit's), and a
# cut kills machine and cache at once: what the guest has not flushed is gone. Whatever the daemon
# had reported as appended has to be at the Monitor afterwards. Then an upgrade with a backlog,
# removal, return and purge. On demand, as root, with qemu-system-x86, nbdkit, mmdebstrap and
# e2fsprogs; without KVM about ten minutes.
#
#   deploy/package.sh && cargo build -p harborforge-monitor
#   [ACCEL=kvm] tests/boot/qemu.sh [ROOT]
#
# ROOT: a Debian with linux-image-cloud-amd64, systemd-sysv and dbus that was made before; it is
# copied, not changed.
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=tests/boot/steps.sh
. tests/boot/steps.sh
required qemu-system-x86_64 nbdkit mmdebstrap mkfs.ext4 curl

work=$(mktemp -d)
monitor_pid=
machine=
guard=
disk=
boots=0
# The disk first: what the machine still says then has not been kept.
cut_power() {
    [ -z "$disk" ] || kill -KILL "$disk" 2>/dev/null || true
    [ -z "$machine" ] || kill -KILL "$machine" 2>/dev/null || true
    [ -z "$disk" ] || wait "$disk" 2>/dev/null || true
    [ -z "$guard" ] || wait "$guard" 2>/dev/null || true
    disk=
    machine=
    guard=
}
clean() {
    cut_power
    [ -z "$monitor_pid" ] || kill -KILL "$monitor_pid" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 1' TERM

# Also out of a subshell it ends the script, and is heard where the output of a command is not.
exec 7>&2
fail() {
    if [ ! -e "$work/failed" ]; then
        : >"$work/failed"
        printf 'FAILED: %s\n' "$*" >&7
        tail -n 20 "$work/console" >&7 || true
        inside systemctl status --no-pager -l $NAME >&7 || true
        inside journalctl -u $NAME --no-pager -n 30 >&7 || true
    fi
    kill -TERM $$
    exit 1
}

# One line there, one line back: words as a shell reads them; exit code and output.
inside() { # COMMAND WORD...
    kill -0 "$machine" 2>/dev/null || fail "the machine has ended: $(cat "$work/qemu.err")"
    for word; do
        printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")"
    done | base64 -w 0 | sed 's/$/\n/' >&8
    answer=$(timeout 1800 head -n 1 <&9) || fail "the guest does not answer"
    printf %s "${answer#* }" | base64 -d
    return "${answer%% *}"
}
write() { # PATH MODE, the content on the standard input
    # shellcheck disable=SC2016 # the guest's shell expands it
    inside sh -c 'umask 077; printf "%s\n" "$1" >"$2" && chmod "$3" "$2"' sh "$(cat)" "$1" "$2"
}

on() {
    boots=$((boots + 1))
    rm -f "$work/disk.socket" "$work/commands.in" "$work/commands.out"
    mkfifo "$work/commands.in" "$work/commands.out"
    exec 8<>"$work/commands.in" 9<>"$work/commands.out"
    TMPDIR=$work nbdkit --foreground --unix "$work/disk.socket" --filter=cache \
        file "$work/disk" cache=writeback 8<&- 9<&- 2>"$work/nbdkit.err" &
    disk=$!
    until [ -S "$work/disk.socket" ]; do
        kill -0 "$disk" 2>/dev/null || fail "no disk: $(cat "$work/nbdkit.err")"
        sleep 0.1
    done
    rm -f "$work/machine"
    # Its end is an answer too, so that nobody waits for one that cannot come.
    (
        qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max -smp 2 -m 1024 -nodefaults -display none -no-reboot \
            -kernel "$work/vmlinuz" -initrd "$work/initrd" \
            -append "root=/dev/vda rw console=ttyS0 panic=-1 systemd.unit=multi-user.target" \
            -drive "file=nbd+unix:///?socket=$work/disk.socket,format=raw,if=virtio,cache=writeback" \
            -nic user,model=virtio-net-pci -device virtio-rng-pci -device virtio-serial-pci \
            -chardev "file,id=console,path=$work/console,append=on" -serial chardev:console \
            -chardev "pipe,id=commands,path=$work/commands" \
            -device virtserialport,chardev=commands,name=commands \
            -chardev "file,id=appended,path=$work/appended.$boots" \
            -device virtserialport,chardev=appended,name=appended &
        echo $! >"$work/machine"
        wait $! || true
        printf '255 %s\n' "$(echo "the machine has ended" | base64 -w 0)" >"$work/commands.out"
    ) 8<&- 9<&- >"$work/qemu.err" 2>&1 &
    guard=$!
    until [ -s "$work/machine" ]; do sleep 0.1; done
    machine=$(cat "$work/machine")
    until_ok "it does not come up" inside systemctl is-active multi-user.target
    # Nothing gets to the disk by the kernel's own leave, only because somebody asked for it.
    inside sh -c 'echo 0 >/proc/sys/vm/dirty_writeback_centisecs'
}

# The samples that were shown as appended, and those that came: id and time, so that a number used
# twice is seen too. The last line of a boot may be cut off; it was not reported then.
reported() {
    cat "$work"/appended.* |
        sed -n 's/.*"state":"pending".*"sample_id":"\([^"]*\)".*"last_seen_at":"\([^"]*\)".*}$/\1 \2/p' |
        LC_ALL=C sort -u
}
accepted() {
    sed -n '/"event":"accepted"/s/.*"last_seen_at":"\([^"]*\)".*"sample_id":"\([^"]*\)".*/\2 \1/p' "$work/monitor" |
        LC_ALL=C sort -u
}
missing() {
    reported >"$work/reported"
    accepted >"$work/accepted"
    LC_ALL=C comm -23 "$work/reported" "$work/accepted"
}
none_is_missing() { [ -z "$(missing)" ]; }
reported_more_than() { [ "$(reported | wc -l)" -gt "$1" ]; }
all_arrived() { # WHEN
    tries=0
    until none_is_missing; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "reported as appended and not arrived after $1: $(missing)"
        sleep 0.2
    done
    echo "   $(wc -l <"$work/reported") samples were reported as appended, $(wc -l <"$work/accepted") have arrived, none is missing"
}
monitor_is() { curl --silent --show-error --fail --request POST "$control/_monitor/$1" >/dev/null; }
monitor_fault() { curl --silent --show-error --fail --data "$1" "$control/_monitor/fault" >/dev/null; }

# Both markers, so that the test tells whether it cuts: one flushed, one not.
cut_and_boot() {
    inside sh -c 'echo kept >/root/flushed && sync /root/flushed && echo lost >/root/not-flushed'
    cut_power
    echo "   $(reported | wc -l) samples were reported as appended, $(accepted | wc -l) have arrived"
    on
    inside grep -qs kept /root/flushed || fail "the disk lost what was flushed"
    if inside grep -qs lost /root/not-flushed; then fail "the cut lost nothing: it was none"; fi
    inside rm -f /root/flushed /root/not-flushed
    until_ok "it is not started at boot" inside systemctl is-active --quiet $NAME
    inside $NAME verify >"$work/out" 2>&1 || fail "the queue is not sound: $(cat "$work/out")"
}

step "a clean Debian with its own kernel"
root=$work/root
if [ -n "${1:-}" ]; then
    cp -a "$1" "$root"
else
    mmdebstrap --variant=minbase --include=systemd-sysv,dbus,linux-image-cloud-amd64 bookworm "$root" \
        >"$work/mmdebstrap.log" 2>&1 || fail "mmdebstrap: $(tail -n 5 "$work/mmdebstrap.log")"
fi
cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/initrd"
cp "$deb" "$root/root/connector.deb"
next_version "$root/root/next.deb"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
units=$root/etc/systemd/system
# Their time is not that of the test.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$units/$unit"
done
printf '[Match]\nName=e*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/all.network"
mkdir -p "$units/multi-user.target.wants" "$root/usr/local/sbin"
ln -sf /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/"
cat >"$root/usr/local/sbin/commands" <<'GUEST'
#!/bin/sh
# What `inside` talks to.
until [ -e /dev/virtio-ports/commands ]; do sleep 1; done
exec 3<>/dev/virtio-ports/commands
while read -r line <&3; do
    script=$(printf %s "$line" | base64 -d)
    code=0
    output=$(sh -c "$script" 2>&1 </dev/null 3>&-) || code=$?
    printf '%s %s\n' "$code" "$(printf %s "$output" | base64 -w 0)" >&3
done
GUEST
cat >"$root/usr/local/sbin/appended" <<GUEST
#!/bin/sh
# Tells, sample by sample, what the daemon has appended, as long as there is one.
until [ -e /dev/virtio-ports/appended ]; do sleep 1; done
exec 3>/dev/virtio-ports/appended
while sleep 0.2; do
    $NAME dump --follow --format jsonl >&3 2>/dev/null
done
GUEST
for unit in commands appended; do
    chmod 0755 "$root/usr/local/sbin/$unit"
    printf '[Service]\nExecStart=/usr/local/sbin/%s\nRestart=always\nRestartSec=1s\nEnvironment=DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8\n' $unit >"$units/test-$unit.service"
    ln -s "../test-$unit.service" "$units/multi-user.target.wants/"
done
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$work/disk" 2G >"$work/out" 2>&1 ||
    fail "no disk: $(cat "$work/out")"
rm -rf --one-file-system "$root"

on
# shellcheck disable=SC2016 # the guest's shell expands it
step "booted: $(inside sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(uname -r)"'), in $(inside systemd-detect-virt || true)"

start_monitor --capabilities ack,resume --control 127.0.0.1:0
control=$(ready control)

step "installed: enabled, and not started before it is enrolled"
installed /root/connector.deb

step "enrolled, started, and delivering"
# Plain http is refused without the permission and the key's fingerprint.
write /etc/$NAME/config.toml 0640 <<TOML
allow_insecure = true
public_key_sha256 = "$(ready public_key_sha256)"
report_interval = "1s"
http_fallback_interval = "1s"
backoff_cap = "2s"
TOML
inside chgrp harborforge /etc/$NAME/config.toml
ready challenge_uuid | write /root/challenge 0600
# The guest's way to the loopback of this machine.
url=$(ready backend_url | sed 's/127\.0\.0\.1/10.0.2.2/')
inside $NAME enroll --backend-url "$url" --identifier vps.t1 --challenge-file /root/challenge >"$work/out" 2>&1 ||
    fail "it is not enrolled: $(cat "$work/out")"
inside systemctl start $NAME || fail "it does not start"
is ActiveState active || fail "READY was not said: $(property ActiveState)"
until_ok "nothing is delivered" more_than 0
until_ok "no status: $(property StatusText)" status_has "Delivering over the WebSocket"
until_ok "nothing is reported as appended" reported_more_than 0

step "the Monitor is down, and the power is cut"
monitor_is pause
until_ok "nothing waits" waits_more_than 5
cut_and_boot
step "the power is cut again, before anything could be delivered"
had=$(reported | wc -l)
until_ok "nothing is taken" reported_more_than $((had + 3))
cut_and_boot
step "the Monitor is back, and the power is cut while it takes the backlog"
# Ten samples over one WebSocket, some of them confirmed, and then nothing more until it is healed.
monitor_fault '{"fault":{"kind":"half_open","messages":12},"times":1}'
monitor_fault '{"fault":{"kind":"hang"},"at":"websocket","after":1}'
monitor_fault '{"fault":{"kind":"status","status":503},"at":"heartbeat"}'
had=$(delivered)
monitor_is resume
until_ok "the backlog is not delivered" more_than "$had"
cut_and_boot
if none_is_missing; then fail "the whole backlog was taken before the cut"; fi
monitor_is heal
until_ok "it does not deliver" status_has "Delivering"
all_arrived "the cuts"

step "upgraded with a backlog"
monitor_is pause
until_ok "nothing waits" waits_more_than 3
upgraded /root/next.deb
waits_more_than 3 || fail "the backlog is gone: $(pending) wait"
had=$(delivered)
monitor_is resume
until_ok "the backlog is not delivered" more_than $((had + 3))
all_arrived "the upgrade"

step "removed and installed again: the queue stays"
removed_and_back /root/next.deb
all_arrived "the return"

step "purged"
purged

echo "$(delivered) samples, $boots boots: three cuts of power, an upgrade, removed and come back, none lost"
