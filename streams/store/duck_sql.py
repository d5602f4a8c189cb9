"""The SQL of the DuckDB store, and the Arrow table that a batch of bars becomes."""

# ruff: noqa: S608 - the names in the statements are our own, and values are parameters

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import pyarrow as pa

from schemas.bar import Bar
from streams.store.base import BarQuery
from streams.store.table import (
    COLUMN_LIST,
    COLUMNS,
    IS_NEWER,
    NULLABLE,
    ORDER,
    PRICES,
    SAME_SOURCE,
    SUMS,
    assignments,
    column_types,
    conditions,
)

DECIMAL = "DECIMAL(38,18)"
TYPES = column_types(
    {
        "text": "VARCHAR",
        "bigint": "BIGINT",
        "integer": "INTEGER",
        "boolean": "BOOLEAN",
        "price": DECIMAL,
        "sum": "VARCHAR",
        "instant": "TIMESTAMP WITH TIME ZONE",
    }
)

_DEFINITIONS = ", ".join(
    f"{name} {kind} {'NULL' if name in NULLABLE else 'NOT NULL'} {'DEFAULT now()' * (name == 'updated_at')}"
    for name, kind in TYPES.items()
)
_DECIMAL_SUMS = ", ".join(f"CAST({name} AS {DECIMAL}) AS {name}" for name in SUMS)

CREATE = rf"""
CREATE TABLE bars ({_DEFINITIONS});
CREATE VIEW IF NOT EXISTS bars_numeric AS
    SELECT to_timestamp(start_ns // 1000000000) AS start_time, to_timestamp(end_ns // 1000000000) AS end_time,
    * REPLACE ({_DECIMAL_SUMS}) FROM bars;
CREATE MACRO IF NOT EXISTS exact_units(number) AS
    CAST(split_part(number, '.', 1) || rpad(split_part(number, '.', 2), 36, '0') AS BIGNUM);
CREATE MACRO IF NOT EXISTS exact_text(units) AS
    regexp_replace(regexp_replace(regexp_replace(units, '^(-?)([0-9]{{1,36}})$', '\1{"0" * 36}\2'),
        '^(-?)0*([0-9]+)([0-9]{{36}})$', '\1\2.\3'), '\.?0*$', '');
CREATE MACRO IF NOT EXISTS exact_sum(number) AS exact_text(CAST(sum(exact_units(number)) AS VARCHAR));
"""
"""`exact_units` are integers of 1e-36, of any size; `exact_text` is the way back."""

FIND_COLUMNS = """
SELECT column_name, data_type FROM duckdb_columns
WHERE database_name = current_database() AND schema_name = current_schema() AND table_name = 'bars'
"""

_STAGED = ", ".join(f"CAST({name} AS {DECIMAL}) AS {name}" if name in PRICES else name for name in COLUMNS)
_SAME_BAR = """
bars.type = $type AND bars.start_ns BETWEEN {first} AND {last}
AND bars.start_ns = s.start_ns AND bars.instrument = s.instrument
"""

FIND = f"""
SELECT s.n, bars.rowid AS row, {SAME_SOURCE.format(new="s", old="bars")} AS same,
    {IS_NEWER.format(new="s", old="bars")} AS newer
FROM staged AS s JOIN bars ON s.type = $type AND {_SAME_BAR}
"""
"""The rows that are there. For one type: bars of one type in one batch lie close together in time, and all types
together do not.

MERGE would do all in one statement, for half as much time again: it is planned as long as it runs.
"""

INSERT = f"INSERT INTO bars ({COLUMN_LIST}) SELECT {_STAGED} FROM staged"
INSERT_SOME = f"{INSERT} SEMI JOIN fresh USING (n)"

UPDATE = f"""
UPDATE bars SET {assignments("s")}, updated_at = now()
FROM (SELECT {_STAGED}, row FROM staged JOIN changed USING (n)) AS s
WHERE bars.start_ns BETWEEN {{first}} AND {{last}} AND bars.rowid = s.row
"""

_READ = ", ".join(
    f"rtrim(rtrim(CAST({name} AS VARCHAR), '0'), '.')" if name in PRICES else name for name in COLUMNS
)
_ARROW = {
    "VARCHAR": pa.string(),
    DECIMAL: pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "BOOLEAN": pa.bool_(),
}


def staged(bars: Sequence[Bar]) -> pa.Table:
    """The bars by column; raises ValueError, TypeError or OverflowError."""
    # Column by column: a tuple for each bar would wake the garbage collector.
    return pa.table(
        {name: pa.array(list(map(attrgetter(name), bars)), _ARROW[TYPES[name]]) for name in COLUMNS}
    )


def select(query: BarQuery) -> tuple[str, list[object]]:
    """The rows of a query, in order."""
    where, args = conditions(query, lambda n: f"${n}")
    source = f"SELECT * FROM bars WHERE {where}"
    if query.newest is not None:
        source += f" ORDER BY start_ns DESC, symbol, type, instrument LIMIT {int(query.newest)}"
    return f"SELECT {_READ} FROM ({source}) ORDER BY {ORDER}", args
