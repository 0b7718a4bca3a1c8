#!/bin/sh
# Replays deploy/Dockerfile's last stage where there is no container engine: the same layout by the
# same script, the C library the program needs and nothing else beside it, the same user and
# environment, the health check. As root; run by tests/deploy/main.rs; alone:
#
#   tests/deploy/image.sh PROGRAM MONITOR-URL CHALLENGE-FILE
set -eu

program=$1
url=$2
challenge=$3
source=$(cd "$(dirname "$0")/../.." && pwd)
user=65532

work=$(mktemp -d)
root=$work/root
daemon=
clean() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    [ ! -f "$work/log" ] || tail -n 10 "$work/log" >&2
    exit 1
}

# What the Dockerfile says is taken from there, so that the two cannot drift apart.
dockerfile=$source/deploy/Dockerfile
grep -q "^FROM gcr.io/distroless/cc-debian12:nonroot$" "$dockerfile" || fail "another last stage"
grep -q "sh deploy/image-root.sh target/dist/harborforge-connector /out" "$dockerfile" || fail "another layout"
# Each word of a list in JSON as a word of its own.
list() { sed -n "s/^ *$1 \[\(.*\)\]\$/\1/p" "$dockerfile" | tr -d '",' ; }
entry=$(list ENTRYPOINT)
health=$(list CMD | head -n 1)
what=$(list CMD | tail -n 1)
[ "$entry $what" = "/usr/bin/harborforge-connector run" ] || fail "it runs $entry $what"
environment=$(sed -n '/^ENV /,/[^\\]$/p' "$dockerfile" | sed 's/^ENV//; s/\\$//')

sh "$source/deploy/image-root.sh" "$program" "$root"
sed -n 's/^COPY .*--chown=65532:65532 .* \(.*\)$/\1/p' "$dockerfile" >"$work/own"
[ -s "$work/own" ] || fail "nothing is the user's"
while IFS= read -r own; do
    chown -R $user:$user "$root$own"
done <"$work/own"
for library in $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
chmod 0755 "$work" "$root"
mkdir -p "$root/run/secrets" "$root/tmp"
chmod 1777 "$root/tmp"
install -o $user -m 0400 "$challenge" "$root/run/secrets/challenge_uuid"

# shellcheck disable=SC2086 # several words are several arguments
inside() {
    env -i $environment HARBORFORGE_BACKEND_URL="$url" HARBORFORGE_IDENTIFIER=vps.t1 \
        HARBORFORGE_CHALLENGE_UUID_FILE=/run/secrets/challenge_uuid HARBORFORGE_REPORT_INTERVAL=1s \
        /usr/sbin/chroot --userspec=$user:$user "$root" "$@"
}

# shellcheck disable=SC2086 # several words are several arguments
if inside $health >"$work/out" 2>&1; then fail "healthy without a daemon"; fi
# Not through the function: in the background that is a process of its own, beside its child.
# shellcheck disable=SC2086 # several words are several arguments
env -i $environment HARBORFORGE_BACKEND_URL="$url" HARBORFORGE_IDENTIFIER=vps.t1 \
    HARBORFORGE_CHALLENGE_UUID_FILE=/run/secrets/challenge_uuid HARBORFORGE_REPORT_INTERVAL=1s \
    /usr/sbin/chroot --userspec=$user:$user "$root" $entry $what 2>"$work/log" &
daemon=$!
tries=0
# shellcheck disable=SC2086 # several words are several arguments
until inside $health >"$work/out" 2>&1 && grep -q '"last_success":{' "$work/out"; do
    kill -0 "$daemon" 2>/dev/null || fail "it has ended"
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "nothing is delivered: $(cat "$work/out")"
    sleep 0.1
done
kill "$daemon"
wait "$daemon" || fail "it ended with $?"
daemon=
[ "$(stat -c %u "$root/var/lib/harborforge-connector/queue")" = $user ] || fail "the queue belongs to somebody else"
echo "laid out, run as $user, healthy, delivered, stopped"
