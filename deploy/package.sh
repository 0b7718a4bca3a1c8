#!/bin/sh
# Makes what is published: an archive for any Linux of this architecture, a Debian package where
# `cargo deb` is (cargo install cargo-deb --locked), the installer for it, and SHA256SUMS over all.
#
#   deploy/package.sh [--target TRIPLE] [--program PATH]
#
# Without a program it builds one as it is shipped: without the demo's Monitor. For another target
# cargo has to know the linker (CARGO_TARGET_<TRIPLE>_LINKER) and, since the program itself makes
# its manual pages, what runs it here (CARGO_TARGET_<TRIPLE>_RUNNER).
set -eu

cd "$(dirname "$0")/.."
NAME=harborforge-connector
program=
target=
while [ $# -gt 0 ]; do
    case $1 in
    --program) program=${2:?--program needs a path} ;;
    --target) target=${2:?--target needs a triple} ;;
    *) echo "usage: deploy/package.sh [--target TRIPLE] [--program PATH]" >&2 && exit 2 ;;
    esac
    shift 2
done

if [ -z "$program" ]; then
    # Messages of a panic name files of crates: where those lie here is nobody's business.
    cargo build --profile dist ${target:+--target "$target"} --locked --no-default-features --features openclaw-sqlite \
        --config "target.'cfg(all())'.rustflags = ['--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=crates']"
    program=${CARGO_TARGET_DIR:-target}/${target:+$target/}dist/$NAME
fi
machine=$(uname -m)-linux
runner=
if [ -n "$target" ]; then
    case $target in
    *-musl*) machine=${target%%-*}-linux-musl ;;
    *) machine=${target%%-*}-linux ;;
    esac
    runner=$(printenv "CARGO_TARGET_$(printf '%s' "$target" | tr 'a-z-' 'A-Z_')_RUNNER" || true)
fi

# Not target/package: cargo has a use for that name.
stage=target/packages
rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/man" "$stage/completions"
cp "$program" "$stage/bin/$NAME"
chmod 0755 "$stage/bin/$NAME"
# The profile strips; a program from elsewhere may not be.
if [ -z "$target" ] && command -v strip >/dev/null; then strip "$stage/bin/$NAME"; fi

# Made by the program itself, and so of its version.
program=$stage/bin/$NAME
tell() { # WORDS
    # shellcheck disable=SC2086 # a runner may have arguments
    $runner "$program" "$@"
}
version=$(tell --version | awk '{ print $2 }')
commands=$(tell --help | awk '/^Commands:/ { inside = 1; next } inside && NF == 0 { exit } inside && /^  [a-z]/ && $1 != "help" { print $1 }')
[ -n "$commands" ]
tell man >"$stage/man/$NAME.1"
for command in $commands; do
    tell man "$command" >"$stage/man/$NAME-$command.1"
done
tell completions bash >"$stage/completions/$NAME.bash"
tell completions zsh >"$stage/completions/_$NAME"
tell completions fish >"$stage/completions/$NAME.fish"
# Without time and name, so that the same files make the same package.
mkdir "$stage/man.gz"
for page in "$stage"/man/*.1; do
    cp "$page" "$stage/man.gz/"
done
gzip -9 -n "$stage"/man.gz/*.1

# --- the archive --------------------------------------------------------------------------------

title=$NAME-$version-$machine
mkdir "$stage/$title"
cp "$program" deploy/install.sh deploy/config.toml deploy/$NAME.service deploy/$NAME.openrc \
    deploy/openclaw.conf docs/CHANGELOG.md docs/OPERATIONS.md LICENSE "$stage/$title/"
cp -r "$stage/man" "$stage/completions" "$stage/$title/"
(cd "$stage/$title" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum >../sums && mv ../sums SHA256SUMS)
epoch=$(git log -1 --format=%ct 2>/dev/null || date +%s)
tar --create --file "$stage/$title.tar" --directory "$stage" --sort=name --mtime="@$epoch" \
    --owner=0 --group=0 --numeric-owner "$title"
gzip -9 -n "$stage/$title.tar"
rm -r "${stage:?}/$title"

# --- the Debian package -------------------------------------------------------------------------

case $target in *-musl*) static=yes ;; *) static=no ;; esac
if [ $static = yes ]; then
    echo "a program without a C library is for any distribution: no Debian package" >&2
elif cargo deb --version >/dev/null 2>&1; then
    SOURCE_DATE_EPOCH=$epoch cargo deb ${target:+--target "$target"} --no-build --no-strip --quiet --output "$stage/"
else
    echo "cargo-deb is not installed: no Debian package" >&2
fi

# The archive has its own; this one is for the package.
cp deploy/install.sh "$stage/"
(cd "$stage" && for made in install.sh *.tar.gz *.deb; do [ ! -f "$made" ] || sha256sum "$made"; done >SHA256SUMS)
echo "In $stage:"
for made in "$stage"/*.tar.gz "$stage"/*.deb "$program"; do
    [ ! -f "$made" ] || printf '  %9d bytes  %s\n' "$(wc -c <"$made")" "$made"
done
