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
"${bin}keytool" -importcert -noprompt -alias millrace -file /run/millrace/tls/ca.crt \
    -keystore "$data/ca.jks" -storetype JKS \
    -storepass "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" 2>/dev/null

# Some files are looked for in ./etc only.
ln -sfn /etc/millrace/presto "$data/etc"
cd "$data"
# shellcheck disable=SC3028  # not of the shell: the engine sets it for every container
exec "${bin}java" -Dnode.id="$HOSTNAME" -Dnode.internal-address="$HOSTNAME" @etc/jvm.config
