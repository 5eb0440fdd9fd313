#!/bin/sh
# Runs nginx (the arguments from the third on) with the certificate an ACME client leaves at $1, copied to
# $2 with its key in one file. Until there is one, and if it ever turns out unusable, with the platform's own.
set -eu
umask 077
issued=$1
live=$2
shift 2

mkdir -p "${live%/*}"

use_own() {
    cat /run/millrace/tls/tls.crt /run/millrace/tls/tls.key >"$live.new"
    mv "$live.new" "$live"
}

# Leaves $live as it is when nginx could not start with the issued certificate.
use_issued() {
    cp "$live" "$live.old"
    cp "$issued" "$live.new"
    mv "$live.new" "$live"
    if ! "$@" -t -q; then
        mv "$live.old" "$live"
        return 1
    fi
}

use_own
seen=
look() {
    [ -s "$issued" ] || return 1
    now=$(stat -L -c '%Y %i' "$issued")
    [ "$now" != "$seen" ] || return 1
    seen=$now
    use_issued "$@" && echo "certificate: using the one from ACME" >&2
}

look "$@" || echo "certificate: none from ACME yet, using the platform's own" >&2
(
    while sleep 5; do
        if look "$@"; then
            "$@" -s reload
        fi
    done
) &
exec "$@"
