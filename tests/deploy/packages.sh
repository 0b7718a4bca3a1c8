#!/bin/sh
# Looks at what deploy/package.sh has made: sums that fit, all parts there, an archive that installs
# itself, a Debian package that holds what it should where it should. Run by .ci/run; alone:
#
#   deploy/package.sh && tests/deploy/packages.sh
set -eu

cd "$(dirname "$0")/../.."
NAME=harborforge-connector
made=$PWD/target/packages
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

[ -f "$made/SHA256SUMS" ] || fail "there is nothing in $made: deploy/package.sh"
(cd "$made" && sha256sum --check --quiet SHA256SUMS) || fail "the sums in $made"
grep -q ' install.sh$' "$made/SHA256SUMS" || fail "the sums do not name the installer"
cmp deploy/install.sh "$made/install.sh" || fail "another installer"

tar -xzf "$made/$NAME"-*-linux.tar.gz -C "$work" || fail "the archive"
set -- "$work/$NAME"-*-linux
[ $# = 1 ] || fail "the archive is not one directory: $*"
archive=$1
(cd "$archive" && sha256sum --check --quiet SHA256SUMS) || fail "the sums in the archive"
for part in $NAME install.sh config.toml $NAME.service $NAME.openrc openclaw.conf LICENSE \
    OPERATIONS.md CHANGELOG.md man/$NAME.1 man/$NAME-status.1 completions/$NAME.bash \
    completions/_$NAME completions/$NAME.fish; do
    [ -s "$archive/$part" ] || fail "the archive has no $part"
    grep -q "  $part\$" "$archive/SHA256SUMS" || fail "the archive's sums do not name $part"
done
mkdir "$work/root"
DESTDIR=$work/root "$archive/install.sh" --init systemd </dev/null >"$work/out" 2>&1 || fail "$(cat "$work/out")"
if grep -q "not checked" "$work/out"; then fail "something was not checked: $(cat "$work/out")"; fi
"$work/root/usr/local/bin/$NAME" --version
[ -s "$work/root/usr/local/share/man/man1/$NAME.1" ] || fail "no manual page was installed"

deb=$(find "$made" -maxdepth 1 -name '*.deb')
if [ -z "$deb" ]; then
    echo "SKIPPED: there is no Debian package, since cargo-deb is not installed" >&2
    exit 0
fi
if ! command -v dpkg-deb >/dev/null; then
    echo "SKIPPED: there is no dpkg-deb to look into the Debian package with" >&2
    exit 0
fi
dpkg-deb --raw-extract "$deb" "$work/deb"
for script in preinst postinst prerm postrm; do
    [ -x "$work/deb/DEBIAN/$script" ] || fail "the package has no $script"
done
grep -qx "/etc/$NAME/config.toml" "$work/deb/DEBIAN/conffiles" || fail "the configuration is no conffile"
for file in "755 usr/bin/$NAME" "640 etc/$NAME/config.toml" "644 lib/systemd/system/$NAME.service" \
    "644 usr/lib/sysusers.d/$NAME.conf" "644 usr/share/man/man1/$NAME.1.gz" \
    "644 usr/share/man/man1/$NAME-status.1.gz" "644 usr/share/bash-completion/completions/$NAME" \
    "644 usr/share/zsh/vendor-completions/_$NAME" "644 usr/share/fish/vendor_completions.d/$NAME.fish" \
    "644 usr/share/doc/$NAME/examples/openclaw.conf" "644 usr/share/doc/$NAME/OPERATIONS.md"; do
    path=${file#* }
    [ -s "$work/deb/$path" ] || fail "the package has no $path"
    [ "$(stat -c %a "$work/deb/$path")" = "${file%% *}" ] || fail "mode of $path in the package"
done
cmp "$archive/$NAME" "$work/deb/usr/bin/$NAME" || fail "archive and package hold different programs"
echo "archive, package and installer hold what they should, and their sums fit"
