#!/bin/bash
# Creates the cluster, user and database at the first start, then becomes the server.
set -euo pipefail

user="${POSTGRES_USER:-postgres}"

if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
    initdb --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 \
        --username="$user" --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:?is needed}") >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    db="${POSTGRES_DB:-$user}"
    if [[ "$db" != postgres ]]; then
        # Without TCP, so that nobody who waits for the port meets this first, short-lived server.
        pg_ctl --wait --silent --options="-c listen_addresses=''" start
        createdb --username="$user" "$db"
        pg_ctl --wait --silent --mode=fast stop
    fi
    echo "PostgreSQL init process complete; ready for start up."
fi

exec "$@" -c listen_addresses='*'
