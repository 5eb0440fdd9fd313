#!/bin/sh
# Obtains and renews one certificate for $ACME_DOMAINS with lego, and leaves it with its key in
# $ACME_FOLDER/current.pem. A failure is logged and tried again, later each time; it never ends the loop.
set -u
umask 077

data=$ACME_FOLDER/lego
issued=$ACME_FOLDER/current.pem
wanted="$ACME_SERVER $ACME_DOMAINS"
name=${ACME_DOMAINS%% *}
alive=/tmp/alive
day=86400
# The official image has the program at the root, the built one on PATH.
lego=$(command -v lego || echo /lego)

set -- --accept-tos --path "$data" --server "$ACME_SERVER" --email "$ACME_EMAIL" \
    --http --http.port ":$ACME_CHALLENGE_PORT"
for domain in $ACME_DOMAINS; do
    set -- "$@" --domains "$domain"
done

log() {
    echo "acme: $*" >&2
}

# Obtains the certificate, or renews it when its time has come; other names or another server need a new one.
attempt() {
    if [ -s "$data/certificates/$name.crt" ] && [ "$(cat "$data/wanted" 2>/dev/null)" = "$wanted" ]; then
        "$lego" "$@" renew --dynamic --no-random-sleep
    else
        "$lego" "$@" run && printf '%s' "$wanted" >"$data/wanted"
    fi
}

publish() {
    cat "$data/certificates/$name.crt" "$data/certificates/$name.key" >"$issued.new" || return 1
    if cmp -s "$issued.new" "$issued"; then
        rm "$issued.new"
    else
        mv "$issued.new" "$issued"
        log "new certificate for $ACME_DOMAINS"
    fi
}

# In short steps: the probe looks whether this loop is alive, and a signal ends it at once.
rest() {
    left=$1
    while [ "$left" -gt 0 ]; do
        touch "$alive"
        sleep 10 &
        wait $!
        left=$((left - 10))
    done
}

trap 'exit 0' TERM INT
mkdir -p "$data"
pause=60
while :; do
    touch "$alive"
    if attempt "$@" && publish; then
        pause=60
        rest "$day"
    else
        log "failed, next attempt in $pause s"
        rest "$pause"
        # The limits of public ACME servers count failures by the hour.
        pause=$((pause * 2))
        [ "$pause" -le $((day / 4)) ] || pause=$((day / 4))
    fi
done
