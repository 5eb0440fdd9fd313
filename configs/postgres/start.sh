#!/bin/sh
# Creates the cluster on an empty volume, then becomes the server.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -d "$PGDATA" ] && ! rmdir "$PGDATA" 2>/dev/null; then
        echo "start: $PGDATA holds files but no cluster; not touching it" >&2
        exit 1
    fi
    # An interrupted initdb leaves a half-made cluster: made elsewhere, it never stands in the server's place.
    rm -rf "$PGDATA.new"
    initdb --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
        --auth-local=peer --auth-host=scram-sha-256 --no-instructions
    mv "$PGDATA.new" "$PGDATA"
    sync "$(dirname "$PGDATA")"
fi

exec postgres \
    -c config_file=/etc/millrace/postgres/postgresql.conf \
    -c hba_file=/etc/millrace/postgres/pg_hba.conf \
    -c ident_file=/etc/millrace/postgres/pg_ident.conf \
    -c data_directory="$PGDATA"
