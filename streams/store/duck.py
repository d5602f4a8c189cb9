"""Bars in a DuckDB file, which one process has open.

The table has no index. DuckDB's primary key costs 85 bytes a bar on disk and in memory and slows inserts by a
third, and MERGE finds rows as fast without: it looks only where the file's min-max statistics allow the starts
of the batch. That one thread writes, of the one process that has the file, keeps the key unique.

DECIMAL ends at 38 digits and a turnover needs up to 96, so sums are text, exact. DuckDB refuses to compare or
add up text; `bars_numeric` has the sums as DECIMAL(38, 18) for SQL, and `exact_sum(turnover)` adds up anything.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import duckdb
import pyarrow as pa

from schemas.bar import Bar
from schemas.errors import BadBar, StoreError, StoreInUse
from streams.store.base import BarQuery, WriteResult
from streams.store.duck_errors import explain, explain_open
from streams.store.fit import bad_bar, first_refused, fitted
from streams.store.table import (
    COLUMN_LIST,
    COLUMNS,
    IS_NEWER,
    NULLABLE,
    NUMBERS,
    ORDER,
    PRICES,
    SAME_SOURCE,
    SUMS,
    assignments,
    column_types,
    complaints,
    conditions,
    to_row,
)
from streams.store.versions import conflicting, rounds

P = ParamSpec("P")
T = TypeVar("T")

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
READ_ROWS = 5_000

_DEFINITIONS = ", ".join(
    f"{name} {kind}{'' if name in NULLABLE else ' NOT NULL'}{' DEFAULT now()' if name == 'updated_at' else ''}"
    for name, kind in TYPES.items()
)
_CREATE = f"""
CREATE TABLE bars ({_DEFINITIONS});
CREATE VIEW IF NOT EXISTS bars_numeric AS
    SELECT to_timestamp(start_ns // 1000000000) AS start_time, to_timestamp(end_ns // 1000000000) AS end_time,
    * REPLACE ({", ".join(f"CAST({name} AS {DECIMAL}) AS {name}" for name in SUMS)}) FROM bars;
CREATE MACRO IF NOT EXISTS exact_units(number) AS
    CAST(split_part(number, '.', 1) || rpad(split_part(number, '.', 2), 36, '0') AS BIGNUM);
CREATE MACRO IF NOT EXISTS exact_text(units) AS
    CASE WHEN starts_with(units, '-') THEN '-' ELSE '' END || rtrim(rtrim(regexp_replace(
        lpad(ltrim(units, '-'), greatest(37, CAST(length(ltrim(units, '-')) AS INTEGER)), '0'),
        '(.{{36}})$', '.\\1'), '0'), '.');
CREATE MACRO IF NOT EXISTS exact_sum(number) AS exact_text(CAST(sum(exact_units(number)) AS VARCHAR));
"""

_STAGED = ", ".join(f"CAST({name} AS {DECIMAL}) AS {name}" if name in PRICES else name for name in COLUMNS)
_MERGE = f"""
MERGE INTO bars USING (SELECT {_STAGED} FROM staged WHERE type = $type) AS s
ON bars.type = $type AND bars.start_ns BETWEEN $first AND $last
   AND bars.start_ns = s.start_ns AND bars.instrument = s.instrument
WHEN MATCHED AND {SAME_SOURCE.format(new="s", old="bars")} AND {IS_NEWER.format(new="s", old="bars")}
    THEN UPDATE SET {assignments("s")}, updated_at = now()
WHEN NOT MATCHED THEN INSERT ({COLUMN_LIST}) VALUES ({", ".join(f"s.{name}" for name in COLUMNS)})
"""
_FIND_CONFLICTS = f"""
SELECT s.position FROM staged AS s JOIN bars
ON bars.type = $type AND s.type = $type AND bars.start_ns BETWEEN $first AND $last
   AND bars.start_ns = s.start_ns AND bars.instrument = s.instrument
WHERE NOT ({SAME_SOURCE.format(new="s", old="bars")})
"""
_READ_COLUMNS = ", ".join(
    f"rtrim(rtrim(CAST({name} AS VARCHAR), '0'), '.') AS {name}" if name in PRICES else name for name in COLUMNS
)
_ARROW = {
    "VARCHAR": pa.string(),
    DECIMAL: pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int64(),
    "BOOLEAN": pa.bool_(),
}

_open_here: set[str] = set()
_open_here_lock = threading.Lock()


class DuckStore:
    """A `Store` in a DuckDB file, or in memory. One thread of its own does all the work."""
