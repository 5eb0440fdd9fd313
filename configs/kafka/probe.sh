#!/bin/bash
# Succeeds when this broker answers a metadata request by naming itself among the brokers that are alive: it is
# registered, its controller hears it, and it serves requests. Starting Java for that would take seconds.
set -eu
coproc openssl s_client -quiet -connect "localhost:$PROBE_PORT" -verify_return_error -CAfile "$CA_FILE" \
    -cert "$FOLDER/broker.pem" -key "$FOLDER/broker.pem" 2>/dev/null
client=${COPROC_PID-} in=${COPROC[0]-} out=${COPROC[1]-}
fail() {
    echo "$1" >&2
    exit 1
}
[ -n "$client" ] && [ -n "$in" ] && [ -n "$out" ] || fail "nothing listens on port $PROBE_PORT"
trap 'kill "$client" 2>/dev/null' EXIT
exec 3<&"$in" 4>&"$out"

# 19 bytes follow; key 3 (metadata), version 1, correlation 1, client "probe", no topics.
printf '\0\0\0\023\0\003\0\001\0\0\0\001\0\005probe\0\0\0\0' >&4
size=$(head -c 4 <&3 | od -An -tu1 | { read -r _ _ high low && echo $((high * 256 + low)); }) ||
    fail "no answer on port $PROBE_PORT"
# Host names in the answer end in the zeros of a port number.
head -c "$size" <&3 | tr '\0' '\n' | grep -qa "$HOST_NAME\$" || fail "not yet one of the cluster's brokers"
