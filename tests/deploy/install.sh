#!/bin/sh
# Installs twice into a root of its own, enrols, and removes again; fails where anything is not as
# deploy/install.sh says. Run by tests/deploy/main.rs; alone:
#
#   tests/deploy/install.sh PROGRAM MONITOR-URL CHALLENGE-FILE
set -eu

program=$1
url=$2
challenge=$3
source=$(cd "$(dirname "$0")/../.." && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
from=$work/archive
mkdir "$root" "$from"
cp "$program" "$from/harborforge-connector"
cp "$source"/deploy/install.sh "$source"/deploy/config.toml "$source"/deploy/harborforge-connector.* "$from/"
(cd "$from" && sha256sum -- * >SHA256SUMS)

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
expect() { # WHAT TEXT FILE
    grep -qF -- "$2" "$3" || { cat "$3" >&2; fail "$1: no \"$2\""; }
}
files() { (cd "$root" && find . -mindepth 1 | sort); }

install() { # OPTIONS
    env DESTDIR="$root" HARBORFORGE_BACKEND_URL="$url" HARBORFORGE_IDENTIFIER=vps.t1 \
        HARBORFORGE_CHALLENGE_UUID_FILE="$challenge" \
        "$from/install.sh" "$@" </dev/null >"$work/out" 2>"$work/err"
}

# Wrong arguments are named, and nothing is done.
for wrong in "--fly" "--file" "--purge" "--signature x" "--init upstart"; do
    # shellcheck disable=SC2086 # several words are several arguments
    if install $wrong; then fail "$wrong was taken"; fi
    expect "$wrong" "install.sh: " "$work/err"
done
[ -z "$(files)" ] || fail "wrong arguments left something behind"

# What would be done is said and not done.
install --dry-run --init systemd
expect "--dry-run" "would install: $root/usr/local/bin/harborforge-connector" "$work/out"
expect "--dry-run" "Nothing was changed." "$work/out"
[ -z "$(files)" ] || fail "--dry-run changed something"

# What is not what the sums say is not installed.
cp "$from/harborforge-connector" "$work/good"
printf 'x' >>"$from/harborforge-connector"
if install --init systemd; then fail "a damaged program was installed"; fi
expect "damage" "it is damaged or not what was published" "$work/err"
[ -z "$(files)" ] || fail "a damaged program left something behind"
cp "$work/good" "$from/harborforge-connector"

# Nor where what goes with it is not: the unit is run by root.
cp "$from/harborforge-connector.service" "$work/unit"
echo "ExecStartPre=+/bin/evil" >>"$from/harborforge-connector.service"
if install --init systemd; then fail "a damaged unit was installed"; fi
expect "damaged unit" "harborforge-connector.service has the SHA-256" "$work/err"
[ -z "$(files)" ] || fail "a damaged unit left something behind"
cp "$work/unit" "$from/harborforge-connector.service"

# Nor what a wrong key has signed.
openssl genpkey -quiet -algorithm ed25519 -out "$work/key" 2>/dev/null || openssl genpkey -algorithm ed25519 -out "$work/key"
openssl pkey -in "$work/key" -pubout -out "$work/key.pub"
openssl pkeyutl -sign -inkey "$work/key" -rawin -in "$from/SHA256SUMS" -out "$work/signature"
openssl genpkey -algorithm ed25519 -out "$work/other" 2>/dev/null
openssl pkey -in "$work/other" -pubout -out "$work/other.pub"
if install --init systemd --signature "$work/signature" --public-key "$work/other.pub"; then
    fail "a wrong signature was taken"
fi
expect "signature" "do not install this" "$work/err"
[ -z "$(files)" ] || fail "a wrong signature left something behind"

# The first time.
install --init systemd --signature "$work/signature" --public-key "$work/key.pub"
expect "sums" "SHA-256 good" "$work/out"
expect "signature" "Signature good" "$work/out"
expect "check is run" "ok   key document" "$work/out"
expect "next" "harborforge-connector status" "$work/out"
config=$root/etc/harborforge-connector/config.toml
expect "enrolled" "identifier = \"vps.t1\"" "$config"
[ "$(stat -c %a "$config")" = 640 ] || fail "mode of $config"
# Nothing is handed to the account's group below a directory; with it, debian.sh looks where it goes.
expect "enrolled" "challenge_uuid = \"$(cat "$challenge")\"" "$config"
[ "$(stat -c %a "$root/var/lib/harborforge-connector")" = 700 ] || fail "mode of the data directory"
if grep -qF "$(cat "$challenge")" "$work/out" "$work/err"; then fail "the challenge was shown"; fi
files >"$work/first"
echo "# mine" >>"$config"
echo queue >"$root/var/lib/harborforge-connector/queue"

# The second time: nothing is lost or doubled, and the daemon can read what root had to itself.
before=$(cat "$config")
chmod 0600 "$config"
install --init systemd
[ "$(stat -c %a "$config")" = 640 ] || fail "mode of a kept $config"
files | grep -v /queue >"$work/second"
cmp "$work/first" "$work/second" || fail "the second time left other files"
[ "$(cat "$config")" = "$before" ] || fail "the second time changed the configuration"

# A new challenge is taken up where it is enrolled already, also without the Monitor's URL.
env DESTDIR="$root" HARBORFORGE_CHALLENGE_UUID=22222222-2222-4222-8222-222222222222 \
    "$from/install.sh" --init systemd </dev/null >"$work/out" 2>"$work/err"
expect "a new challenge" 'challenge_uuid = "22222222-2222-4222-8222-222222222222"' "$config"
[ "$(grep -v '^challenge_uuid' "$config")" = "$(printf '%s\n' "$before" | grep -v '^challenge_uuid')" ] ||
    fail "a new challenge changed more of the configuration"

# What would be removed is said and not done.
files >"$work/all"
install --uninstall --purge --dry-run --init systemd
expect "--uninstall --dry-run" "Nothing was changed." "$work/out"
if grep -q "^Removed" "$work/out"; then fail "--dry-run says that it has removed"; fi
files | cmp - "$work/all" || fail "--uninstall --dry-run changed something"

# Removed: what stays is what it says.
install --uninstall --init systemd
expect "uninstall" "$root/etc/harborforge-connector" "$work/out"
expect "uninstall" "$root/var/lib/harborforge-connector" "$work/out"
left=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
[ "$left" = "./etc/harborforge-connector/config.toml ./var/lib/harborforge-connector/queue " ] ||
    fail "uninstalling left $left"

# With OpenRC, what was there for systemd goes; and removed with everything, whatever runs here then.
install --init systemd
install --init openrc
unit=$root/etc/systemd/system/harborforge-connector.service
[ ! -e "$unit" ] || fail "the unit stayed"
if grep -q systemd "$root/usr/local/share/harborforge-connector/installed"; then fail "the unit is still listed"; fi
[ -x "$root/etc/init.d/harborforge-connector" ] || fail "no script for OpenRC"
[ "$(cat "$config")" = "$before" ] || fail "coming back changed the configuration"
install --uninstall --purge --init none
left=$(cd "$root" && find . -type f)
[ -z "$left" ] || fail "--purge left $left"

echo "installed twice, removed, installed for OpenRC, purged: as it says"
