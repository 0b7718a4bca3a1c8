#!/bin/sh
# Drives a HarborForge Monitor through what a connector does with it, with curl and openssl alone,
# and says of each step whether it is as docs/PROTOCOL.md has it. For authors of a Monitor.
# shellcheck disable=SC2317,SC2329 # functions are also called by their names
set -u

usage() {
    cat <<'END'
Tries a HarborForge Monitor: key, clock, proof, WebSocket, heartbeat.

Usage: tests/try-backend.sh URL

From the environment:

  HARBORFORGE_CHALLENGE_UUID_FILE  a file with a challenge the Monitor has just issued; it is used up
  HARBORFORGE_CHALLENGE_UUID       or the challenge itself
  HARBORFORGE_API_KEY_FILE         in place of a challenge: a file with an API key
  HARBORFORGE_IDENTIFIER           the name of the server it was issued for [try-backend]
  HARBORFORGE_CA_FILE              trust anchors in PEM, in place of the system's
  HARBORFORGE_TRY_PATIENCE         seconds to wait for an answer over the WebSocket [10]

It delivers a few samples with invented figures, so take an identifier of their own for them.

Exit code: 0 every step is ok (warnings included), 1 a step failed, 2 the command line,
5 the Monitor cannot be reached.
END
}

case ${1:-} in
-h | --help) usage && exit 0 ;;
http://* | https://*) [ "$#" = 1 ] || { usage >&2 && exit 2; } ;;
*) usage >&2 && exit 2 ;;
esac

url=${1%/}
identifier=${HARBORFORGE_IDENTIFIER:-try-backend}
ca=${HARBORFORGE_CA_FILE:-}
api_key_file=${HARBORFORGE_API_KEY_FILE:-}
challenge=${HARBORFORGE_CHALLENGE_UUID:-}
if [ -n "${HARBORFORGE_CHALLENGE_UUID_FILE:-}" ]; then
    challenge=$(tr -d ' \t\r\n' <"$HARBORFORGE_CHALLENGE_UUID_FILE") || exit 2
fi
# Not for the programs that are called.
unset HARBORFORGE_CHALLENGE_UUID
case $identifier in
*[!A-Za-z0-9._-]*) echo "HARBORFORGE_IDENTIFIER: letters, digits, dots and dashes, for this script" >&2 && exit 2 ;;
esac
if [ -z "$challenge$api_key_file" ]; then
    echo "a challenge or an API key is needed; --help says where it is taken from" >&2
    exit 2
fi
for tool in curl openssl; do
    command -v $tool >/dev/null || { echo "$tool is not installed" >&2 && exit 2; }
done

work=$(mktemp -d) || exit 1
link_pid=
clean() {
    [ -z "$link_pid" ] || kill "$link_pid" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM
# Writing to a connection that is gone is told in the words of the step that needs it.
trap '' PIPE

patience=${HARBORFORGE_TRY_PATIENCE:-10}
failed=0
ok() { printf 'ok    %s: %s\n' "$1" "$2"; }
warn() { printf 'warn  %s: %s\n' "$1" "$2"; }
skip() { printf 'skip  %s: %s\n' "$1" "$2"; }
fail() {
    printf 'FAIL  %s: %s\n' "$1" "$2"
    failed=1
}
finish() {
    if [ "$failed" = 0 ]; then
        echo "A connector can deliver to this Monitor."
    else
        echo "A connector would not be served as docs/PROTOCOL.md says: see FAIL above."
    fi
    exit "$failed"
}

# What a stranger said, fit for a terminal and short.
words() { tr -d '\000' <"$1" | tr -c '[:print:]' ' ' | cut -c 1-160; }

request() { # ARGUMENTS OF CURL: sets $status, $work/head, $work/body
    rm -f "$work/head" "$work/body"
    : >"$work/head"
    : >"$work/body"
    status=$(curl --silent --show-error --http1.1 --max-time 15 --max-filesize 65536 \
        ${ca:+--cacert "$ca"} --dump-header "$work/head" --output "$work/body" \
        --user-agent "harborforge-connector/try-backend" --write-out '%{http_code}' "$@" 2>"$work/error")
    code=$?
    [ -n "$status" ] || status=000
}

# The value of a JSON member that is a string; enough for flat documents.
string() { # NAME FILE
    tr -d '\r\n' <"$2" | awk -v name="$1" '{
        at = match($0, "\"" name "\"[ \t]*:[ \t]*\"")
        if (!at) exit
        rest = substr($0, RSTART + RLENGTH)
        sub(/".*/, "", rest)
        gsub(/\\n/, "\n", rest)
        gsub(/\\r/, "", rest)
        gsub(/\\\//, "/", rest)
        print rest
    }'
}

# --- 1. the public key (section 2) ----------------------------------------------------------------

capabilities=
if [ -z "$api_key_file" ]; then
    request "$url/monitor/public/server-public-key"
    if [ "$status" = 000 ]; then
        fail "public key" "not reached (curl $code): $(words "$work/error")"
        exit 5
    elif [ "$code" != 0 ]; then
        fail "public key" "not read whole (curl $code): $(words "$work/error")"
        finish
    elif [ "$status" != 200 ]; then
        fail "public key" "HTTP $status: $(words "$work/body")"
        finish
    fi
    pem=
    if head -c 5 "$work/body" | grep -q -e '-----'; then
        pem=$(tr -d '\r' <"$work/body")
    else
        for member in public_key_pem public_key key; do
            [ -n "$pem" ] || pem=$(string $member "$work/body")
        done
        capabilities=$(tr -d '\r\n' <"$work/body" | sed -n 's/.*"capabilities"[[:space:]]*:[[:space:]]*\[\([^]]*\)\].*/\1/p' | tr -d '" ')
    fi
    printf '%s\n' "$pem" >"$work/given.pem"
    case $pem in
    *"BEGIN PUBLIC KEY"*) openssl pkey -pubin -in "$work/given.pem" -out "$work/key.pem" 2>"$work/error" ;;
    *"BEGIN RSA PUBLIC KEY"*) openssl rsa -RSAPublicKey_in -in "$work/given.pem" -pubout -out "$work/key.pem" 2>"$work/error" ;;
    *) false ;;
    esac || {
        fail "public key" "neither a PEM nor a JSON object with one in public_key_pem, public_key or key: $(words "$work/body")"
        finish
    }
    bits=$(openssl pkey -pubin -in "$work/key.pem" -noout -text 2>/dev/null | sed -n 's/.*(\([0-9]*\) bit).*/\1/p' | head -n 1)
    if ! openssl rsa -pubin -in "$work/key.pem" -noout 2>/dev/null; then
        fail "public key" "it is no RSA key"
        finish
    elif [ "${bits:-0}" -lt 2048 ] || [ "$bits" -gt 4096 ]; then
        fail "public key" "$bits bits, a connector takes 2048 to 4096"
        finish
    fi
    fingerprint=$(openssl pkey -pubin -in "$work/key.pem" -outform DER | openssl dgst -sha256 -r | cut -d ' ' -f 1)
    ok "public key" "RSA, $bits bits, SHA-256 $fingerprint"
    ok "capabilities" "${capabilities:-none}"

    # --- 2. the clock (sections 2 and 3) ------------------------------------------------------------
    # Refused proofs are as a rule a clock's fault, so it is looked at first.
    date_header=$(tr -d '\r' <"$work/head" | sed -n 's/^[Dd][Aa][Tt][Ee]:[[:space:]]*//p' | tail -n 1)
    if [ -z "$date_header" ]; then
        warn "clock" "no Date header: a connector whose clock is wrong cannot correct it"
    elif there=$(date -u -d "$date_header" +%s 2>/dev/null); then
        skew=$((there - $(date -u +%s)))
        if [ "$skew" -gt 120 ] || [ "$skew" -lt -120 ]; then
            fail "clock" "$skew s from this machine's: one of the two is wrong, and proofs will be refused"
        elif [ "$skew" -gt 5 ] || [ "$skew" -lt -5 ]; then
            warn "clock" "$skew s from this machine's"
        else
            ok "clock" "agrees with this machine's"
        fi
    else
        skip "clock" "the date here does not read \"$date_header\""
    fi
fi

# --- 3. the proof (section 3) ---------------------------------------------------------------------

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# On standard output; in a pipe and by the shell itself, so that no list of processes shows it.
prove() { # TIME
    nonce=$(openssl rand -base64 16 | tr '+/' '-_' | tr -d '=\n')
    printf '{"identifier":"%s","challenge_uuid":"%s","nonce":"%s","ts":"%s"}' \
        "$identifier" "$challenge" "$nonce" "$1" |
        openssl pkeyutl -encrypt -pubin -inkey "$work/key.pem" -pkeyopt rsa_padding_mode:oaep \
            -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256 2>"$work/error" |
        openssl base64 -A
}

if [ -z "$api_key_file" ]; then
    proof=$(prove "$(now)")
    if [ -z "$proof" ]; then
        fail "proof" "does not fit the key, or openssl refuses it: $(words "$work/error")"
        finish
    fi
    ok "proof" "${#proof} characters of base64"
fi

# --- samples (section 6) --------------------------------------------------------------------------

epoch=$(openssl rand -hex 16 | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\)$/\1-\2-4\3-8\4-\5/' | cut -c 1-36)
seq=0
sample() { # sets $telemetry
    seq=$((seq + 1))
    telemetry=$(printf '{"identifier":"%s","openclaw_version":null,"cpu_pct":12.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.12,0.09,0.03],"agents":[],"last_seen_at":"%s","connector_version":"try-backend","sample_id":"%s-%s","seq":%s' \
        "$identifier" "$(now)" "$epoch" "$seq" "$seq")
}

# --- 4. the WebSocket (section 4) -----------------------------------------------------------------

rest=${url#*://}
case $rest in
*/*) prefix=/${rest#*/} ;;
*) prefix= ;;
esac
authority=${rest%%/*}
host=${authority%:*}
port=${authority##*:}
case $authority in
\[*\]) host=$authority port= ;;
*:*) ;;
*) host=$authority port= ;;
esac
case $url in
https://*) secure=yes port=${port:-443} ;;
*) secure=no port=${port:-80} ;;
esac
bare=$(printf '%s' "$host" | tr -d '[]')

# A byte by its number.
# shellcheck disable=SC2059 # the format is the byte
byte() { printf "\\$(printf '%03o' "$1")"; }

# A frame of the client's, with the mask 0: allowed, since what matters is that there is one.
frame() { # OPCODE PAYLOAD
    byte $((128 + $1))
    length=$(printf '%s' "$2" | wc -c)
    if [ "$length" -lt 126 ]; then
        byte $((128 + length))
    else
        byte 254
        byte $((length / 256))
        byte $((length % 256))
    fi
    printf '\000\000\000\000%s' "$2"
}

text() { # PAYLOAD: no byte of the length may be 255, which the plain transport doubles
    payload=$1
    [ $(($(printf '%s' "$payload" | wc -c) % 256)) != 255 ] || payload="$payload "
    frame 1 "$payload"
}

# What has come since the upgrade, its frames' heads made dots.
heard() { sed '1,/^.\{0,1\}$/d' "$work/link" 2>/dev/null | LC_ALL=C tr -c '[:print:]' '.'; }

# Waits until what has come matches, for as long as a connector does.
wait_for() { # COMMAND
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt $((10 * patience)) ] || return 1
        kill -0 "$link_pid" 2>/dev/null || { "$@" && return 0 || return 1; }
        sleep 0.1
    done
}

upgraded() { tr -d '\r' <"$work/link" 2>/dev/null | grep -q '^$'; }
answered() { heard | grep -q '[{}]' || closed; }
# A close frame begins with 0x88: as octal 210.
closed() { sed '1,/^.\{0,1\}$/d' "$work/link" | od -An -v -to1 -N1 | grep -q 210; }
acknowledged() { heard | grep -Eq '"event"[ ]*:[ ]*"ack"' && heard | grep -Eq '"seq"[ ]*:[ ]*1[^0-9]'; }
ponged() { heard | grep -q 'tryping1'; }

websocket() {
    mkfifo "$work/to"
    if [ $secure = yes ]; then
        case $bare in
        *[!0-9.:]*) names="-servername $bare -verify_hostname $bare" ;;
        *) names="-verify_ip $bare" ;;
        esac
        # shellcheck disable=SC2086 # several words are several arguments
        openssl s_client -quiet -no_ign_eof -nocommands -connect "$bare:$port" $names -verify_return_error \
            ${ca:+-CAfile "$ca"} <"$work/to" >"$work/link" 2>"$work/error" &
    else
        # Its plain way through: bytes as they are, but for the number 255.
        curl --silent --show-error --no-buffer --max-time $((4 * patience)) "telnet://$host:$port" \
            <"$work/to" >"$work/link" 2>"$work/error" &
    fi
    link_pid=$!
    exec 3>"$work/to"
    key=$(openssl rand -base64 16)
    printf 'GET %s/monitor/server/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nUser-Agent: harborforge-connector/try-backend\r\n\r\n' \
        "$prefix" "$authority" "$key" 2>/dev/null >&3
    if ! wait_for upgraded; then
        fail "websocket" "no answer to the upgrade: $(words "$work/error")"
        return
    fi
    first=$(tr -d '\r' <"$work/link" | head -n 1 | tr -cd '[:print:]')
    case $first in
    "HTTP/1.1 101"*) ;;
    *)
        fail "websocket" "the upgrade was answered \"$first\""
        return
        ;;
    esac
    expected=$(printf '%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11' "$key" | openssl dgst -sha1 -binary | openssl base64)
    accept=$(tr -d '\r' <"$work/link" | sed -n 's/^[Ss]ec-[Ww]eb[Ss]ocket-[Aa]ccept:[[:space:]]*//p' | head -n 1)
    if [ "$accept" != "$expected" ]; then
        fail "websocket" "Sec-WebSocket-Accept is \"$accept\", not \"$expected\""
        return
    fi
    ok "websocket" "upgraded"

    text "{\"encrypted_payload\":\"$proof\"}" 2>/dev/null >&3
    if ! wait_for answered; then
        fail "handshake" "no answer within $patience s"
        return
    fi
    answer=$(heard | tr -d '\n' | cut -c 1-160)
    if printf '%s' "$answer" | grep -Eq '"ok"[ ]*:[ ]*true|"status"[ ]*:[ ]*"(ok|accepted|connected|success)"'; then
        ok "handshake" "accepted"
    else
        fail "handshake" "not accepted: $answer"
        return
    fi
    case ,$capabilities, in
    *,resume,*)
        if printf '%s' "$answer" | grep -q '"resume_token"'; then
            ok "resume" "a token was handed out"
        else
            fail "resume" "offered, and the acceptance carries no resume_token"
        fi
        ;;
    esac

    text "{\"event\":\"server.hello\",\"payload\":{\"identifier\":\"$identifier\",\"openclaw_version\":null,\"agents\":[],\"connector_version\":\"try-backend\"}}" 2>/dev/null >&3
    sample
    text "{\"event\":\"server.metrics\",\"seq\":$seq,\"payload\":$telemetry}}" 2>/dev/null >&3
    case ,$capabilities, in
    *,ack,*)
        if wait_for acknowledged; then
            ok "delivery" "sample 1 over the WebSocket, acknowledged"
        else
            fail "delivery" "offers ack, and sample 1 was not acknowledged within $patience s: $(heard | tail -c 160 | tr -d '\n')"
        fi
        ;;
    *)
        frame 9 tryping1 2>/dev/null >&3
        if wait_for ponged; then
            ok "delivery" "sample 1 over the WebSocket, and the Ping after it came back"
        else
            fail "delivery" "the Ping after sample 1 was not answered within $patience s"
        fi
        ;;
    esac
    frame 8 "" 2>/dev/null >&3
}

if [ -n "$api_key_file" ]; then
    skip "websocket" "an API key allows the heartbeat alone"
elif [ $secure = no ] && ! curl --version | grep -q telnet; then
    skip "websocket" "this curl has no plain way through (telnet); try it over https"
else
    websocket
    exec 3>&-
    kill "$link_pid" 2>/dev/null
    wait "$link_pid" 2>/dev/null
    link_pid=
fi

# --- 5. the heartbeat (section 5) -----------------------------------------------------------------

heartbeat() { # FILE
    if [ -n "$api_key_file" ]; then
        # The header in a file: an argument could be read by everybody.
        printf 'X-API-Key: %s\n' "$(tr -d ' \t\r\n' <"$api_key_file")" >"$work/key"
        request --header "Content-Type: application/json" --header "@$work/key" --data-binary "@$1" "$url/monitor/server/heartbeat"
    else
        request --header "Content-Type: application/json" --data-binary "@$1" "$url/monitor/server/heartbeat"
    fi
}

# As section 5 has it: an empty body, or an object that says nothing against it.
delivered() {
    case $status in 2??) ;; *) return 1 ;; esac
    body=$(tr -d ' \t\r\n' <"$work/body")
    case $body in
    "") return 0 ;;
    *'"ok":false'* | *'"error":'* | *'"detail":'*) return 1 ;;
    "{"*"}") return 0 ;;
    *) return 1 ;;
    esac
}

one() { # PROOF: sets $telemetry, writes $work/request
    if [ -n "$1" ]; then
        printf '%s,"encrypted_payload":"%s"}' "$telemetry" "$1" >"$work/request"
    else
        printf '%s}' "$telemetry" >"$work/request"
    fi
}

sample
proof=
[ -n "$api_key_file" ] || proof=$(prove "$(now)")
one "$proof"
heartbeat "$work/request"
if [ "$status" = 000 ]; then
    fail "heartbeat" "not reached (curl $code): $(words "$work/error")"
    [ "$failed" = 0 ] || [ -z "$api_key_file" ] || exit 5
    finish
elif delivered; then
    ok "heartbeat" "HTTP $status, sample $seq delivered"
else
    fail "heartbeat" "HTTP $status: $(words "$work/body")"
    finish
fi

# The same again, as after an answer that was lost: delivered, and not taken for another sample.
[ -n "$api_key_file" ] || proof=$(prove "$(now)")
one "$proof"
heartbeat "$work/request"
if delivered || { [ "$status" = 409 ] && grep -Eq '"duplicate"[[:space:]]*:[[:space:]]*true' "$work/body"; }; then
    ok "duplicate" "HTTP $status, sample $seq again"
else
    fail "duplicate" "sample $seq again was answered HTTP $status: $(words "$work/body")"
fi

# What a Monitor should refuse. One that does not is served all the same.
refuses() { # WHAT
    heartbeat "$work/request"
    if delivered; then
        warn "$1" "accepted, and should be refused"
    else
        ok "$1" "refused (HTTP $status)"
    fi
}

sample
if [ -n "$api_key_file" ]; then
    one ""
    printf 'wrong' >"$work/wrong"
    right=$api_key_file
    api_key_file=$work/wrong
    refuses "wrong API key"
    api_key_file=$right
else
    refuses_again=$telemetry
    one "$proof"
    refuses "proof used twice"
    telemetry=$refuses_again
    one ""
    refuses "no proof"
    if old=$(date -u -d '10 minutes ago' +%Y-%m-%dT%H:%M:%SZ 2>/dev/null); then
        telemetry=$refuses_again
        one "$(prove "$old")"
        refuses "proof of 10 minutes ago"
    fi
fi

# --- 6. a batch (section 7) -----------------------------------------------------------------------

case ,$capabilities, in
*,batch,*)
    sample
    first="$telemetry}"
    sample
    printf '{"identifier":"%s","encrypted_payload":"%s","samples":[%s,%s}]}' \
        "$identifier" "$(prove "$(now)")" "$first" "$telemetry" >"$work/request"
    heartbeat "$work/request"
    if delivered && grep -Eq "\"acked_seq\"[[:space:]]*:[[:space:]]*${seq}[^0-9]" "$work/body"; then
        ok "batch" "HTTP $status, 2 samples, acked_seq $seq"
    else
        fail "batch" "HTTP $status: $(words "$work/body"); expected \"acked_seq\":$seq"
    fi
    ;;
esac

finish
