#!/bin/sh
# Makes the trust store that JVMs are given: Java's own CAs, the platform's and those of managed servers.
set -eu
store=${1:-/tmp/truststore.p12}
cacerts=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")/lib/security/cacerts

rm -f "$store"
if [ -r "$cacerts" ]; then
    cp -L "$cacerts" "$store"
    chmod u+w "$store"
fi
number=0
while IFS= read -r line; do
    # keytool takes the first certificate of a file only.
    case $line in *BEGIN\ CERTIFICATE*) : >"$store.pem" ;; esac
    printf '%s\n' "$line" >>"$store.pem"
    case $line in
    *END\ CERTIFICATE*)
        number=$((number + 1))
        keytool -importcert -noprompt -alias "millrace-$number" -file "$store.pem" \
            -keystore "$store" -storetype PKCS12 -storepass changeit 2>/dev/null
        ;;
    esac
done </run/millrace/tls/ca.crt
rm -f "$store.pem"
