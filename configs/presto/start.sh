#!/bin/sh
# Starts the server with the Java that the image brings, from a folder of its own.
set -eu
umask 077

data=/var/lib/millrace/presto
bin=${JAVA_HOME:+$JAVA_HOME/bin/}
mkdir -p "$data/tmp"

# Java reads no PEM files as its list of trusted CAs. Certificates in a JKS file are readable without its
# password, so the password is forgotten at once.
rm -f "$data/ca.jks"
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
if [ "${TRUST_PUBLIC_CAS:-}" = true ]; then
    # The object store is a public service.
    java_home=$(dirname "$(dirname "$(readlink -f "$(command -v "${bin}java")")")")
    "${bin}keytool" -importkeystore -noprompt -srckeystore "$java_home/lib/security/cacerts" -srcstorepass changeit \
        -destkeystore "$data/ca.jks" -deststoretype JKS -deststorepass "$password" >/dev/null 2>&1 || {
        echo "the CAs of $java_home cannot be read" >&2
        exit 1
    }
fi
number=0
while IFS= read -r line; do
    # keytool takes the first certificate of a file only.
    case $line in *BEGIN\ CERTIFICATE*) : >"$data/tmp/ca.pem" ;; esac
    printf '%s\n' "$line" >>"$data/tmp/ca.pem"
    case $line in
    *END\ CERTIFICATE*)
        number=$((number + 1))
        "${bin}keytool" -importcert -noprompt -alias "millrace-$number" -file "$data/tmp/ca.pem" \
            -keystore "$data/ca.jks" -storetype JKS -storepass "$password" 2>/dev/null
        ;;
    esac
done </run/millrace/tls/ca.crt

# Some files are looked for in ./etc only.
ln -sfn /etc/millrace/presto "$data/etc"
cd "$data"
# shellcheck disable=SC3028  # not of the shell: the engine sets it for every container
exec "${bin}java" -Dnode.id="$HOSTNAME" -Dnode.internal-address="$HOSTNAME" @etc/jvm.config
