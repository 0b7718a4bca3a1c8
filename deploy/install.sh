#!/bin/sh
# Installs harborforge-connector from what lies beside this script: a Debian package, or the program
# itself. Downloads nothing. May be run again: what is there stays, what has changed is replaced.
set -eu

NAME=harborforge-connector
ACCOUNT=harborforge
# Everything goes below it; for packagers and tests. Users and services are left alone then.
DESTDIR=${DESTDIR:-}

usage() {
    cat <<'END'
Installs harborforge-connector from the package or the program beside this script.

Usage: install.sh [OPTIONS]

  --file PATH         the .deb or the program to install [what lies beside this script]
  --sums PATH         SHA-256 sums that name it [SHA256SUMS beside it]
  --unverified        install without sums: for what was built on this machine
  --signature PATH    signature of the sums, by minisign or openssl (needs --public-key)
  --public-key PATH   the key it was made with
  --init NAME         systemd, openrc or none [what runs here]
  --no-start          install, and start nothing
  --uninstall         remove what was installed; configuration and queue stay
  --purge             with --uninstall: these as well, and the user
  --dry-run           say what would be done, and do nothing
  -h, --help          this text

Asked on a terminal, or taken from the environment where that is set:

  HARBORFORGE_BACKEND_URL           the Monitor
  HARBORFORGE_IDENTIFIER            this server's name there [the host name]
  HARBORFORGE_CHALLENGE_UUID_FILE   a file with the challenge the Monitor issued
  HARBORFORGE_CHALLENGE_UUID        the challenge itself

A secret is never an argument: everybody on a machine can read those.
END
}

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# Runs a command, or says that it would be run.
run() {
    if [ "$dry_run" = yes ]; then
        say "would run: $*"
    else
        "$@"
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

# --- arguments ----------------------------------------------------------------------------------

dry_run=no
uninstall=no
purge=no
start=yes
verified=yes
file=
sums=
signature=
public_key=
init=

value() {
    [ "$#" -ge 2 ] || die "$1 needs a value; --help lists the options"
    printf '%s' "$2"
}

while [ "$#" -gt 0 ]; do
    case $1 in
    --file) file=$(value "$@"); shift ;;
    --sums) sums=$(value "$@"); shift ;;
    --signature) signature=$(value "$@"); shift ;;
    --public-key) public_key=$(value "$@"); shift ;;
    --init) init=$(value "$@"); shift ;;
    --unverified) verified=no ;;
    --no-start) start=no ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage && exit 0 ;;
    *) die "$1 is not known; --help lists the options" ;;
    esac
    shift
done

[ "$purge" = no ] || [ "$uninstall" = yes ] || die "--purge goes with --uninstall"
if [ -n "$signature" ] && [ -z "$public_key" ]; then
    die "--signature needs --public-key: without the key it proves nothing"
fi

here=$(cd "$(dirname "$0")" && pwd)
bin=$DESTDIR/usr/local/bin
etc=$DESTDIR/etc/$NAME
share=$DESTDIR/usr/local/share/$NAME
data=$DESTDIR/var/lib/$NAME
# One line for each file that was put somewhere; what --uninstall goes by.
manifest=$share/installed
unit=$DESTDIR/etc/systemd/system/$NAME.service
openrc=$DESTDIR/etc/init.d/$NAME
config=$etc/config.toml
# Whether the configuration sets a key.
set_key() { grep -Eq "^[[:space:]]*$1[[:space:]]*=" "$config" 2>/dev/null; }

if [ -z "$init" ]; then
    if [ -d /run/systemd/system ]; then
        init=systemd
    elif have rc-service && have openrc-run; then
        init=openrc
    else
        init=none
    fi
fi
case $init in
systemd | openrc | none) ;;
*) die "--init $init: it is one of systemd, openrc, none" ;;
esac

if [ "$dry_run" = no ] && [ -z "$DESTDIR" ] && [ "$(id -u)" != 0 ]; then
    die "installing takes root: run it with sudo (--dry-run shows what would be done)"
fi

# --- removing -----------------------------------------------------------------------------------

# The last word of a removal.
removed() {
    if [ "$dry_run" = yes ]; then say "Nothing was changed."; else say "$1"; fi
}

package_is() { # STATUS
    have dpkg-query && [ "$(dpkg-query -W -f '${db:Status-Status}' $NAME 2>/dev/null)" = "$1" ]
}
packaged() { package_is installed; }

# Whichever it was installed for: that may have been another than what runs here now.
stop_systemd() {
    [ -z "$DESTDIR" ] && [ -e "$unit" ] && have systemctl || return 0
    run systemctl disable --now $NAME || warn "the service could not be stopped"
}

stop_openrc() {
    [ -z "$DESTDIR" ] && [ -e "$openrc" ] && have rc-service || return 0
    run rc-service --ifstarted $NAME stop || warn "the service could not be stopped"
    run rc-update --quiet delete $NAME default || true
}

# Removes a file by its line in the manifest. A line that leads elsewhere is none of ours.
remove_listed() { # PATH
    case $1 in
    *..*) ;;
    /usr/local/* | "/etc/systemd/system/$NAME.service" | "/etc/init.d/$NAME") run rm -f "$DESTDIR$1" ;;
    esac
}

remove_all() {
    if [ -z "$DESTDIR" ] && packaged; then
        if [ "$purge" = yes ]; then run dpkg --purge $NAME; else run dpkg --remove $NAME; fi
    elif [ -f "$manifest" ]; then
        stop_systemd
        stop_openrc
        while IFS= read -r path; do
            remove_listed "$path"
        done <"$manifest"
        run rm -f "$manifest"
        [ ! -d "$share" ] || run rmdir "$share" || true
        if [ -z "$DESTDIR" ] && [ "$init" = systemd ]; then run systemctl daemon-reload; fi
    else
        say "$NAME was not installed by this script: no $manifest"
    fi
    if [ "$purge" = yes ]; then
        run rm -rf "$data" "$etc"
        if [ -z "$DESTDIR" ] && id $ACCOUNT >/dev/null 2>&1; then
            if have userdel; then run userdel $ACCOUNT; else run deluser $ACCOUNT; fi || true
            if have groupdel && getent group $ACCOUNT >/dev/null 2>&1; then run groupdel $ACCOUNT || true; fi
        fi
        removed "Removed, with configuration and queue."
    else
        removed "Removed."
        say "These stay; --uninstall --purge removes them:"
        for path in "$etc" "$data"; do
            [ ! -e "$path" ] || say "  $path"
        done
        if [ -z "$DESTDIR" ] && id $ACCOUNT >/dev/null 2>&1; then say "  the user and group $ACCOUNT"; fi
    fi
}

if [ "$uninstall" = yes ]; then
    remove_all
    exit 0
fi

# --- what to install, and whether it is what was published --------------------------------------

architecture() {
    if have dpkg; then dpkg --print-architecture; else uname -m; fi
}

if [ -z "$file" ] && have dpkg && [ -z "$DESTDIR" ]; then
    for candidate in "$here/${NAME}"_*_"$(architecture)".deb; do
        [ -f "$candidate" ] || continue
        [ -z "$file" ] || die "several packages lie here: choose one with --file"
        file=$candidate
    done
fi
[ -n "$file" ] || file=$here/$NAME
[ -f "$file" ] || die "$file is not there: build it (cargo build --profile dist), or name it with --file"
file=$(cd "$(dirname "$file")" && pwd)/$(basename "$file")
[ -n "$sums" ] || sums=$(dirname "$file")/SHA256SUMS

sha256() {
    if have sha256sum; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif have shasum; then
        shasum -a 256 "$1" | cut -d ' ' -f 1
    elif have openssl; then
        openssl dgst -sha256 -r "$1" | cut -d ' ' -f 1
    else
        die "none of sha256sum, shasum and openssl is here to check $1 with"
    fi
}

check_signature() {
    if have minisign && head -n 1 "$public_key" | grep -q '^untrusted comment:'; then
        minisign -V -q -p "$public_key" -x "$signature" -m "$sums" >/dev/null
    elif have openssl; then
        # RSA and EC keys sign a digest, Ed25519 keys the whole.
        openssl dgst -sha256 -verify "$public_key" -signature "$signature" "$sums" >/dev/null 2>&1 ||
            openssl pkeyutl -verify -pubin -inkey "$public_key" -rawin -in "$sums" \
                -sigfile "$signature" >/dev/null 2>&1
    else
        die "neither minisign nor openssl is here to check the signature with"
    fi
}

# What the sums say of a name; nothing where they do not have it. `sha256sum` puts a blank or a star
# before the name.
expected() { # NAME
    awk -v name="$1" '{ at = $2; sub(/^\*/, "", at); sub(/^\.\//, "", at); if (at == name) print $1 }' "$sums"
}

check_sum() { # FILE EXPECTED
    actual=$(sha256 "$1")
    [ "$actual" = "$2" ] || die "$1 has the SHA-256 $actual, and $sums says $2: it is damaged or not what was published"
}

if [ "$verified" = yes ]; then
    [ -f "$sums" ] || die "$sums is not there, so $file cannot be checked: get it from where the file came from; for what you built yourself there is --unverified"
    if [ -n "$signature" ]; then
        check_signature || die "$signature is not a signature of $sums by $public_key: do not install this"
        say "Signature good: $sums"
    fi
    base=$(basename "$file")
    wanted=$(expected "$base")
    [ -n "$wanted" ] || die "$sums does not name $base"
    check_sum "$file" "$wanted"
    say "SHA-256 good: $file"
elif [ -n "$signature" ]; then
    die "--signature and --unverified contradict each other"
else
    warn "Not verified, as asked: $file"
fi

# --- installing ---------------------------------------------------------------------------------

# A file put in place as a whole: a program that runs keeps its own.
put() { # SOURCE TARGET MODE
    if [ "$dry_run" = yes ]; then
        say "would install: $2 (mode $3)"
        return
    fi
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
    installed="$installed${2#"$DESTDIR"}
"
    # At once, so that one that ends half-way can be removed. What an earlier one has put there stays
    # listed until it is gone.
    mkdir -p "$share"
    printf '%s' "$installed" | cat - "$manifest" 2>/dev/null | LC_ALL=C sort -u >"$manifest.new"
    mv -f "$manifest.new" "$manifest"
}

# Removes what an earlier run has put there and this one has not.
remove_stale() {
    [ -f "$manifest" ] || return 0
    while IFS= read -r path; do
        case "
$installed" in *"
$path
"*) continue ;; esac
        case $path in
        "/etc/systemd/system/$NAME.service") stop_systemd ;;
        "/etc/init.d/$NAME") stop_openrc ;;
        esac
        remove_listed "$path"
    done <"$manifest"
    printf '%s' "$installed" | LC_ALL=C sort -u >"$manifest.new"
    mv -f "$manifest.new" "$manifest"
}

# What goes with the program is checked like it, as far as the sums name it.
check_part() { # FILE NAME
    [ "$verified" = yes ] || return 0
    wanted=$(expected "$2")
    if [ -n "$wanted" ]; then check_sum "$1" "$wanted"; else warn "$sums does not name $2: not checked"; fi
}

# What goes with the program: beside this script, or where the source has it.
part() {
    for candidate in "$here/$1" "$here/deploy/$1"; do
        if [ -f "$candidate" ]; then
            check_part "$candidate" "$1"
            printf '%s' "$candidate"
            return
        fi
    done
    die "$1 is missing beside this script"
}

make_account() {
    [ -z "$DESTDIR" ] || return 0
    if ! getent group $ACCOUNT >/dev/null 2>&1; then
        if have groupadd; then run groupadd --system $ACCOUNT; else run addgroup -S $ACCOUNT; fi
    fi
    id $ACCOUNT >/dev/null 2>&1 && return 0
    if have useradd; then
        run useradd --system --gid $ACCOUNT --home-dir /var/lib/$NAME --no-create-home \
            --shell /usr/sbin/nologin --comment "HarborForge connector" $ACCOUNT
    else
        run adduser -S -D -H -h /var/lib/$NAME -s /sbin/nologin -G $ACCOUNT -g "HarborForge connector" $ACCOUNT
    fi
}

install_program() {
    if packaged && [ -z "$DESTDIR" ]; then
        die "the package $NAME is installed, and a program in /usr/local would hide its own: remove it first, or install the package"
    fi
    # Before anything is changed: what is missing ends it here.
    service=$(part $NAME.service)
    script=$(part $NAME.openrc)
    template=$(part config.toml)
    for page in "$here"/man/*.1 "$here"/completions/*; do
        [ ! -f "$page" ] || check_part "$page" "${page#"$here/"}"
    done
    make_account
    installed=
    put "$file" "$bin/$NAME" 0755
    case $init in
    systemd) put "$service" "$unit" 0644 ;;
    openrc) put "$script" "$openrc" 0755 ;;
    none) ;;
    esac
    # Made when the archive was packed; a bare build has none.
    for page in "$here"/man/*.1; do
        [ ! -f "$page" ] || put "$page" "$DESTDIR/usr/local/share/man/man1/$(basename "$page")" 0644
    done
    if [ -f "$here/completions/$NAME.bash" ]; then
        put "$here/completions/$NAME.bash" "$DESTDIR/usr/local/share/bash-completion/completions/$NAME" 0644
        put "$here/completions/_$NAME" "$DESTDIR/usr/local/share/zsh/site-functions/_$NAME" 0644
        put "$here/completions/$NAME.fish" "$DESTDIR/usr/local/share/fish/vendor_completions.d/$NAME.fish" 0644
    fi
    if [ -e "$config" ]; then
        say "Kept: $config"
        # The daemon has to read it, and so has who may ask it.
        [ -n "$DESTDIR" ] || run chown root:$ACCOUNT "$config"
        run chmod g+r,o-rwx "$config"
        if set_key "(challenge_uuid|api_key)"; then
            warn "The group $ACCOUNT can read the secret in $config; take it out there, and 'sudo $NAME enroll' puts a new one where it cannot."
        fi
    elif [ "$dry_run" = yes ]; then
        say "would install: $config (mode 0640)"
    else
        mkdir -p "$etc"
        cp "$template" "$config"
        chmod 0640 "$config"
        [ -n "$DESTDIR" ] || chown root:$ACCOUNT "$config"
    fi
    run mkdir -p "$data"
    run chmod 0700 "$data"
    [ -n "$DESTDIR" ] || run chown $ACCOUNT:$ACCOUNT "$data"
    # A secret in a file of its own is the daemon's alone; the account may have another number now.
    for secret in challenge_uuid api_key; do
        if [ -f "$etc/$secret" ]; then
            [ -n "$DESTDIR" ] || run chown $ACCOUNT:$ACCOUNT "$etc/$secret"
            run chmod go-rwx "$etc/$secret"
        fi
    done
    [ "$dry_run" = yes ] || remove_stale
    take_over
    program=$bin/$NAME
    if [ -z "$DESTDIR" ] && [ "$init" = systemd ]; then run systemctl daemon-reload; fi
}

# A package that was removed and not purged still owns the configuration: purging it would delete that,
# and with it the queue. So it is purged now, while its script sees that both have another owner; the
# file that dpkg deletes by itself is out of the way meanwhile.
take_over() {
    [ -z "$DESTDIR" ] && package_is config-files || return 0
    trap 'mv "$config.taken" "$config"; exit 130' INT TERM
    run mv "$config" "$config.taken"
    purged=yes
    run dpkg --purge $NAME || purged=no
    run mv "$config.taken" "$config"
    trap - INT TERM
    [ $purged = yes ] || die "the package $NAME was removed and not purged, and dpkg cannot do that now: run this again, since purging it later would delete configuration and queue"
}

install_package() {
    [ ! -f "$manifest" ] || die "a program from this script is installed in /usr/local, which would hide the package's: run --uninstall first"
    run dpkg --install "$file"
    program=/usr/bin/$NAME
}

case $file in
*.deb)
    [ -z "$DESTDIR" ] || die "a package is not installed below DESTDIR: dpkg --root does that"
    have dpkg || die "$file is a Debian package, and there is no dpkg here"
    install_package
    ;;
*) install_program ;;
esac

# --- enrolling ----------------------------------------------------------------------------------

ask() { # PROMPT
    printf '%s: ' "$1" >&2
    IFS= read -r answer || answer=
    printf '%s' "$answer"
}

ask_secret() { # PROMPT
    printf '%s (not shown): ' "$1" >&2
    trap 'stty echo' EXIT INT TERM
    stty -echo
    IFS= read -r answer || answer=
    stty echo
    trap - EXIT INT TERM
    printf '\n' >&2
    printf '%s' "$answer"
}

# Settings are taken out of the environment, so that what follows reads the file alone.
backend_url=${HARBORFORGE_BACKEND_URL:-}
identifier=${HARBORFORGE_IDENTIFIER:-}
challenge_file=${HARBORFORGE_CHALLENGE_UUID_FILE:-}
challenge=${HARBORFORGE_CHALLENGE_UUID:-}
unset HARBORFORGE_BACKEND_URL HARBORFORGE_IDENTIFIER HARBORFORGE_CHALLENGE_UUID_FILE HARBORFORGE_CHALLENGE_UUID

enrolled=no
if set_key backend_url; then
    enrolled=yes
    say "Already enrolled: $config names a Monitor"
fi
if [ "$enrolled" = no ] && [ "$dry_run" = no ] && [ -t 0 ]; then
    [ -n "$backend_url" ] || backend_url=$(ask "URL of the Monitor (empty to enrol later)")
    if [ -n "$backend_url" ]; then
        [ -n "$identifier" ] || identifier=$(ask "This server's name there (empty: $(uname -n))")
        if [ -z "$challenge_file$challenge" ]; then challenge=$(ask_secret "The challenge the Monitor issued"); fi
    fi
fi
if [ -n "$challenge_file" ]; then
    [ -r "$challenge_file" ] || die "$challenge_file cannot be read"
    challenge=$(tr -d ' \t\r\n' <"$challenge_file")
fi

# The challenge goes through a pipe; `printf` is part of the shell and so shows it to nobody.
enroll() {
    set -- --config "$config" enroll --stdin ${backend_url:+--backend-url "$backend_url"} \
        ${identifier:+--identifier "$identifier"} "$@"
    printf '%s\n' "$challenge" | "$program" "$@"
}

if [ -n "$challenge" ] && { [ -n "$backend_url" ] || [ "$enrolled" = yes ]; }; then
    if [ "$dry_run" = yes ]; then
        say "would enrol: with the Monitor at ${backend_url:-"backend_url of $config"}"
    elif enroll; then
        enrolled=yes
    else
        code=$?
        # 5: the Monitor is not reached, which may be mended later. Anything else is wrong.
        [ "$code" = 5 ] || die "enrolling failed (exit code $code); it is installed: mend what is said above and run it again"
        warn "The Monitor is not reached now; what was given is written down all the same."
        enroll --no-verify
        enrolled=yes
    fi
fi

# --- starting, and what is next -----------------------------------------------------------------

if [ "$enrolled" = yes ] && [ "$dry_run" = no ]; then
    say
    say "\$ $NAME check"
    # A Monitor that is away is no reason not to start: samples wait on disk.
    "$program" --config "$config" check || true
    say
fi

if [ "$start" = yes ] && [ "$enrolled" = yes ] && [ -z "$DESTDIR" ]; then
    case $init in
    systemd)
        run systemctl enable $NAME
        run systemctl restart $NAME
        ;;
    openrc)
        run rc-update --quiet add $NAME default
        run rc-service $NAME restart
        ;;
    none) ;;
    esac
fi

if [ "$dry_run" = yes ]; then
    say "Nothing was changed."
    exit 0
fi

say "Installed: $("$program" --version) in $program"
if [ "$enrolled" = no ]; then
    say "Next:  sudo $NAME enroll --backend-url https://YOUR-MONITOR"
    case $init in
    systemd) say "then:  sudo systemctl enable --now $NAME" ;;
    openrc) say "then:  sudo rc-update add $NAME default && sudo rc-service $NAME start" ;;
    none) ;;
    esac
fi
if [ "$init" = none ]; then
    say "There is neither systemd nor OpenRC here. Have your supervisor run, as the user $ACCOUNT:"
    say "  HARBORFORGE_DATA_DIR=/var/lib/$NAME $program run"
fi
if [ "$enrolled" = yes ]; then
    say "Is it delivering?      $NAME status"
    say "What does it say?      journalctl -u $NAME"
fi
say "To remove it again:    $0 --uninstall"
