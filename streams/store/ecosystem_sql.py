"""The SQL by which Tidegate's own table beside those of market-data-store is written and read."""

# ruff: noqa: S608 - the names in the statements are our own, and values are parameters

from __future__ import annotations

from streams.store.base import BarQuery
from streams.store.ecosystem_tables import EXACT, EXACT_KEY
from streams.store.table import (
    COLUMN_LIST,
    COLUMNS,
    IS_NEWER,
    KEY,
    NUMBERS,
    ORDER,
    SAME_SOURCE,
    assignments,
    conditions,
)

STAGE = "tidegate_stage"
_STAGED = ", ".join(f"{name}::text AS {name}" if name in NUMBERS else name for name in COLUMNS)
CREATE_STAGE = f"""
CREATE TEMPORARY TABLE {STAGE} ON COMMIT DELETE ROWS AS SELECT tenant, {_STAGED} FROM {EXACT} WITH NO DATA
"""
CLEAR_STAGE = f"TRUNCATE {STAGE}"
COPY = f"COPY {STAGE} (tenant, {COLUMN_LIST}) FROM STDIN"

_KEY = ", ".join(EXACT_KEY)
_INSERT = f"""
INSERT INTO {EXACT} (tenant, {COLUMN_LIST})
SELECT tenant, {", ".join(f"{name}::numeric" if name in NUMBERS else name for name in COLUMNS)}
FROM {STAGE}
"""
_IS_THERE = f"EXISTS (SELECT FROM {EXACT} AS b WHERE {' AND '.join(f'b.{n} = s.{n}' for n in EXACT_KEY)})"
INSERT_NEW = f"""{_INSERT} ORDER BY {_KEY} ON CONFLICT DO NOTHING RETURNING {", ".join(KEY)}"""
"""In the order of the key, so that workers that write the same bars wait for each other without deadlock.

No key is named for the conflict, so that both unique indexes are asked: where only one is, and another worker
inserts the same row at the same time, PostgreSQL may find it in the other one, and calls the row a duplicate.
"""

REPLACE_OLDER = f"""
{_INSERT} AS s WHERE {_IS_THERE}
ORDER BY {_KEY}
ON CONFLICT ({_KEY}) DO UPDATE SET {assignments("excluded")}, updated_at = now()
WHERE {SAME_SOURCE.format(new="excluded", old=EXACT)} AND {IS_NEWER.format(new="excluded", old=EXACT)}
RETURNING {", ".join(KEY)}
"""
"""Of rows that are there. A row that was not inserted and is not there has its place taken: see `FIND_TAKEN`."""

FIND_TAKEN = f"""
SELECT {", ".join(KEY)} FROM {STAGE} AS s
WHERE NOT {_IS_THERE}
ORDER BY {_KEY} LIMIT 1
"""
"""A bar whose symbol is that of another instrument in upper case."""

FIND_CONFLICTS = f"""
SELECT {", ".join(KEY)} FROM {STAGE} AS s JOIN {EXACT} AS b USING ({_KEY})
WHERE NOT ({SAME_SOURCE.format(new="s", old="b")})
"""
"""The tenant is a column of both, not a parameter: of a table without statistics the planner takes a condition to
leave so little that it reads all of it for each bar.
"""

FIND_COLUMNS = """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE a.attrelid IN (to_regclass(%s), to_regclass(%s)) AND a.attnum > 0 AND NOT a.attisdropped
"""

_READ = ", ".join(f"trim_scale({name})::text AS {name}" if name in NUMBERS else name for name in COLUMNS)


def select(query: BarQuery, tenant: str) -> tuple[str, list[object]]:
    """The rows of a query, in order, as asyncpg takes it."""
    where, args = conditions(query, lambda n: f"${n}")
    args.append(tenant)
    source = f"SELECT * FROM {EXACT} WHERE {where} AND tenant = ${len(args)}"
    if query.newest is not None:
        source += f" ORDER BY start_ns DESC, symbol, type, instrument LIMIT {int(query.newest)}"
    return f"SELECT {_READ} FROM ({source}) AS b ORDER BY {ORDER}", args
