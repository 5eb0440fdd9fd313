#!/bin/sh
# Makes the trust store that JVMs are given: Java's own CAs and the platform's.
set -eu
store=${1:-/tmp/truststore.p12}
cacerts=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")/lib/security/cacerts

rm -f "$store"
if [ -r "$cacerts" ]; then
    cp -L "$cacerts" "$store"
    chmod u+w "$store"
fi
keytool -importcert -noprompt -alias millrace -file /run/millrace/tls/ca.crt \
    -keystore "$store" -storetype PKCS12 -storepass changeit 2>/dev/null
