"""The SQL of the PostgreSQL store."""

# ruff: noqa: S608 - the names in the statements are our own, and values are parameters

from __future__ import annotations

from streams.store.base import BarQuery
from streams.store.table import (
    COLUMN_LIST,
    COLUMNS,
    IS_NEWER,
    KEY,
    NULLABLE,
    NUMBERS,
    ORDER,
    SAME_SOURCE,
    assignments,
    column_types,
    conditions,
)

TYPES = column_types(
    {
        "text": "text",
        "bigint": "bigint",
        "integer": "integer",
        "boolean": "boolean",
        "price": "numeric",
        "sum": "numeric",
        "instant": "timestamp with time zone",
    }
)


def _definition(name: str, kind: str) -> str:
    collation = 'COLLATE "C"' if kind == "text" else ""  # the order of DuckDB, and faster to compare
    default = "DEFAULT now()" if name == "updated_at" else ""
    return f"{name} {kind} {collation} {'NULL' if name in NULLABLE else 'NOT NULL'} {default}"


CREATE = f"""
CREATE TABLE bars (
    {", ".join(_definition(name, kind) for name, kind in TYPES.items())},
    PRIMARY KEY ({", ".join(KEY)})
) WITH (fillfactor = 50);
CREATE INDEX bars_by_symbol ON bars (symbol, type, start_ns);
CREATE VIEW bars_numeric AS
    SELECT to_timestamp(start_ns / 1000000000) AS start_time, to_timestamp(end_ns / 1000000000) AS end_time,
    * FROM bars;
"""
"""A bar starts and ends at a whole second. The view has the name and the columns that it has in DuckDB.

Pages are filled by half: a bar that was published early or is revised is written again, and where the new version
fits beside the old one no index changes, which takes a third off the time. It costs 290 bytes a bar that is never
written again. `ALTER TABLE bars SET (fillfactor = 100)` is for those who want the space.
"""

LOCK = "SELECT pg_advisory_xact_lock(hashtext('tidegate.bars'))"
"""Workers that start together make the table one after the other: IF NOT EXISTS alone is no protection."""

FIND_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass('bars') AND attnum > 0 AND NOT attisdropped
"""
FIND_KEY = f"""
SELECT EXISTS (
    SELECT FROM pg_index WHERE indrelid = to_regclass('bars')
    AND indisunique AND indimmediate AND indpred IS NULL AND indnatts = {len(KEY)} AND ARRAY{list(KEY)} @> (
        SELECT array_agg(attname::text) FROM pg_attribute
        WHERE attrelid = indrelid AND attnum = ANY (indkey)
    )
)
"""
FIND_RIGHTS = """
SELECT has_table_privilege('bars', 'SELECT') AS "SELECT ON bars",
    has_table_privilege('bars', 'INSERT') AS "INSERT ON bars",
    has_table_privilege('bars', 'UPDATE') AS "UPDATE ON bars",
    has_database_privilege(current_database(), 'TEMPORARY') AS "TEMPORARY ON DATABASE"
"""

STAGE = "tidegate_stage"
_STAGED = ", ".join(f"{name}::text AS {name}" if name in NUMBERS else name for name in COLUMNS)
CREATE_STAGE = (
    f"CREATE TEMPORARY TABLE {STAGE} ON COMMIT DELETE ROWS AS SELECT {_STAGED} FROM bars WITH NO DATA"
)
"""Numbers travel as text: the server reads them faster than Python makes numbers of them."""
SESSION = """
SET enable_hashjoin = off; SET enable_mergejoin = off;
SET idle_in_transaction_session_timeout = '1min'; SET tcp_user_timeout = '30s';
SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3
"""
"""The rows of a batch are looked up by the key; the planner would read all of a table that is not large.

The others are for a connection that was cut without a word: its transaction would hold its rows for hours,
and the worker that writes them again would wait for it.
"""
CLEAR_STAGE = f"TRUNCATE {STAGE}"

_INSERT = f"""
INSERT INTO bars ({COLUMN_LIST})
SELECT {", ".join(f"{name}::numeric" if name in NUMBERS else name for name in COLUMNS)}
FROM {STAGE} ORDER BY {", ".join(KEY)}
"""
"""In the order of the key, so that workers that write the same bars wait for each other without deadlock."""

INSERT_NEW = f"SAVEPOINT before_insert; {_INSERT}"
"""Where no bar is there yet: it takes a fifth less time than the upsert, which looks for each one first."""
TAKE_BACK = "ROLLBACK TO before_insert"

UPSERT = f"""
WITH done AS (
    {_INSERT}
    ON CONFLICT ({", ".join(KEY)}) DO UPDATE SET {assignments("excluded")}, updated_at = clock_timestamp()
    WHERE {SAME_SOURCE.format(new="excluded", old="bars")} AND {IS_NEWER.format(new="excluded", old="bars")}
    RETURNING updated_at = now() AS new
)
SELECT count(*), count(*) FILTER (WHERE new) FROM done
"""
"""How many rows were written, and how many of them were not there.

Those have the default of `updated_at`, which is when the transaction began. A row's system columns would tell it,
too, but cannot be asked for where the table is partitioned.
"""

DROP_STALE = f"""
DELETE FROM {STAGE} AS s USING bars
WHERE {" AND ".join(f"s.{name} = bars.{name}" for name in KEY)}
AND {SAME_SOURCE.format(new="s", old="bars")} AND NOT {IS_NEWER.format(new="s", old="bars")}
"""
"""Before the upsert, where most is there already, as after a restart: the upsert locks each row that it finds,
which costs as much as to write it. Where most is new it would only be another search.
"""

FIND_CONFLICTS = f"""
SELECT {", ".join(KEY)} FROM {STAGE} AS s JOIN bars USING ({", ".join(KEY)})
WHERE NOT ({SAME_SOURCE.format(new="s", old="bars")})
"""
"""After the upsert: a row that another worker has just written is seen, and no row changes its source."""

_READ = ", ".join(f"trim_scale({name})::text AS {name}" if name in NUMBERS else name for name in COLUMNS)


def select(query: BarQuery) -> tuple[str, list[object]]:
    """The rows of a query, in order."""
    where, args = conditions(query, lambda n: f"${n}")
    source = f"SELECT * FROM bars WHERE {where}"
    if query.newest is not None:
        source += f" ORDER BY start_ns DESC, symbol, type, instrument LIMIT {int(query.newest)}"
    return f"SELECT {_READ} FROM ({source}) AS b ORDER BY {ORDER}", args
