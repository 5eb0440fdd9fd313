#!/bin/sh
# Starts whichever server the image holds: Millrace's own, or the reference server (official image).
set -eu
folder=/run/millrace/delta-sharing
tls=/run/millrace/tls

if [ -x /opt/delta-sharing/bin/python ]; then
    # deltalake and obstore, which call the object store alone, take the CAs they trust from here.
    export SSL_CERT_FILE="$STORE_CA"
    exec /opt/delta-sharing/bin/python -m sharing_server --config $folder/server.yaml \
        --keys $folder/keys.json --recipients $folder/recipients.json
fi

JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=60"
# An object store that is a public service is verified with Java's own CAs.
if [ "${TRUST_PUBLIC_CAS:-}" != true ]; then
    # Java reads CAs from a key store only, and its password is no secret: the certificate in it is none.
    store=/tmp/ca.p12
    rm -f $store
    keytool -importcert -noprompt -alias millrace -file $tls/ca.crt -keystore $store -storetype PKCS12 \
        -storepass trusted
    JAVA_TOOL_OPTIONS="$JAVA_TOOL_OPTIONS -Djavax.net.ssl.trustStore=$store -Djavax.net.ssl.trustStorePassword=trusted"
fi
export JAVA_TOOL_OPTIONS
exec /opt/docker/bin/delta-sharing-server -- --config $folder/server.yaml
