#!/bin/sh
# Lays out what the image adds to its base: image-root.sh PROGRAM DIRECTORY. In a script of its own,
# so that it is tested where there is no container engine.
set -eu

program=$1
root=$2

mkdir -p "$root/usr/bin" "$root/etc/harborforge-connector" \
    "$root/var/lib/harborforge-connector" "$root/run/harborforge-connector"
cp "$program" "$root/usr/bin/harborforge-connector"
chmod 0755 "$root/usr/bin/harborforge-connector"
cp "$(dirname "$0")/config.toml" "$root/etc/harborforge-connector/config.toml"
# It may come to hold a secret.
chmod 0640 "$root/etc/harborforge-connector/config.toml"
chmod 0750 "$root/etc/harborforge-connector"
chmod 0700 "$root/var/lib/harborforge-connector"
chmod 0755 "$root/run/harborforge-connector"
