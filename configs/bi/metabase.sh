#!/bin/sh
# Starts Metabase. It takes two secrets from its environment alone: they get there here, from files, and are in
# no setting of the container.
set -eu

MB_DB_PASS=$(cat /run/millrace/bi/database-password)
MB_ENCRYPTION_SECRET_KEY=$(cat /run/millrace/bi/encryption-key)
export MB_DB_PASS MB_ENCRYPTION_SECRET_KEY

# Drivers unpack here what /tmp, being noexec, could not run.
mkdir -p "$MB_PLUGINS_DIR" "$MILLRACE_STATE/tmp"

# shellcheck disable=SC2086  # several options
exec java $MILLRACE_JAVA_OPTIONS -Djava.io.tmpdir="$MILLRACE_STATE/tmp" -Dlogfile.path="$MILLRACE_STATE/log" \
    --add-opens java.base/java.nio=ALL-UNNAMED -jar /app/metabase.jar
