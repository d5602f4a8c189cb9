"""What the stores hold, read for tests by plain SQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from support.oracle import Content, Key


@contextmanager
def schema(dsn: str) -> Iterator[str]:
    """A DSN whose tables live in a schema of their own, dropped afterwards."""
    name = f"t{uuid.uuid4().hex[:10]}"
    execute(dsn, f"CREATE SCHEMA {name}")
    try:
        yield f"{dsn}{'&' if '?' in dsn else '?'}search_path={name}"
    finally:
        execute(dsn, f"DROP SCHEMA {name} CASCADE")


def execute(dsn: str, sql: str) -> list[Any]:
    """Run one statement; gives its rows."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(dsn)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    return asyncio.run(run())


def stored(dsn: str) -> dict[Key, Content]:
    """All bars in PostgreSQL; empty while there is no table."""
    try:
        rows = execute(
            dsn, "SELECT instrument, type, start_ns, open, high, low, close, volume, trade_count FROM bars"
        )
    except asyncpg.UndefinedTableError:
        return {}
    return {(row[0], row[1], row[2]): Content(*row[3:9]) for row in rows}
