"""What PostgreSQL has of the tables that a store needs, and making those that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streams.store.ecosystem_tables import (
    BARS_OHLCV,
    OWN_BARS,
    TENANT_BARS,
    TIDEGATE_BARS,
    TableShape,
)
from streams.store.ecosystem_url import is_ecosystem, parse_ecosystem
from streams.store.postgres_sql import LOCK

_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
_KEY = """
SELECT EXISTS (
    SELECT FROM pg_index WHERE indrelid = to_regclass($1)
    AND indisunique AND indimmediate AND indpred IS NULL AND indexprs IS NULL
    AND indnkeyatts = cardinality($2::text[]) AND $2::text[] @> (
        SELECT array_agg(attname::text) FROM pg_attribute
        WHERE attrelid = indrelid AND attnum = ANY (indkey)
    )
)
"""
_RIGHTS = "SELECT p, has_table_privilege($1, p) FROM unnest($2::text[]) AS p"
_TEMPORARY = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"


@dataclass(frozen=True, slots=True)
class Finding:
    """A table that a store needs, as it is."""

    table: str
    exists: bool
    problem: str
    """What is wrong with it; empty where it will do."""


def needed(url: str) -> tuple[str, tuple[TableShape, ...]]:
    """The DSN of a store in PostgreSQL and the tables that it needs; none for a store that is not there."""
    if is_ecosystem(url):
        parsed = parse_ecosystem(url)
        return parsed.dsn, (TIDEGATE_BARS, TENANT_BARS if parsed.tenant else BARS_OHLCV)
    return url, () if url.startswith("duckdb:") else (OWN_BARS,)


async def survey(connection: Any, shapes: Sequence[TableShape], *, writing: bool = True) -> list[Finding]:
    """Look at each of the tables; `connection` is of asyncpg."""
    return [await _look(connection, shape, writing) for shape in shapes]


async def make(connection: Any, shapes: Sequence[TableShape]) -> list[str]:
    """Make the tables that are not there, in one transaction; gives their names. Others stay as they are."""
    async with connection.transaction():
        await connection.execute(LOCK)
        absent = [shape for shape in shapes if not await _exists(connection, shape.name)]
        for shape in absent:
            await connection.execute(shape.ddl)
    return [shape.name for shape in absent]


async def missing(connection: Any, shapes: Sequence[TableShape]) -> list[TableShape]:
    """The tables that `make` would make."""
    return [shape for shape in shapes if not await _exists(connection, shape.name)]


async def _look(connection: Any, shape: TableShape, writing: bool) -> Finding:
    found = dict(map(tuple, await connection.fetch(_COLUMNS, shape.name)))
    if not found:
        return Finding(shape.name, False, "there is no such table")
    if wrong := shape.complaints(found):
        return Finding(shape.name, True, wrong)
    if writing and not await connection.fetchval(_KEY, shape.name, list(shape.key)):
        return Finding(shape.name, True, f"it has no unique key ({', '.join(shape.key)})")
    needed = ["SELECT", "INSERT", "UPDATE"] if writing else ["SELECT"]
    rights = dict(map(tuple, await connection.fetch(_RIGHTS, shape.name, needed)))
    lacking = [f"{right} ON {shape.name}" for right in needed if not rights[right]]
    if writing and not await connection.fetchval(_TEMPORARY):
        lacking.append("TEMPORARY ON DATABASE")
    if lacking:
        return Finding(shape.name, True, f"the user has no {', no '.join(lacking)}")
    return Finding(shape.name, True, "")


async def _exists(connection: Any, name: str) -> bool:
    return await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name) is True
