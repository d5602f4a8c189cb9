"""What the stores hold, read for tests by plain SQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import asyncpg

from streams.store.base import BarQuery, open_store
from support.oracle import Content, Key
from support.wait import until


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


def stored_at(url: str) -> dict[Key, Content]:
    """All bars of any store, through its own reader."""

    async def read() -> dict[Key, Content]:
        store = open_store(url, read_only=True)
        await store.open()
        try:
            return {
                (b.instrument, b.type, b.start_ns): Content(
                    *map(Decimal, (b.open, b.high, b.low, b.close, b.volume)), b.trade_count
                )
                async for some in store.read(BarQuery())
                for b in some
            }
        finally:
            await store.close()

    return asyncio.run(read())


def wait_stored(dsn: str, expected: dict[Key, Content], timeout_s: float) -> None:
    """Wait until exactly these bars are stored; the failure says how they differ."""
    try:
        until(lambda: stored(dsn) == expected, timeout_s, "the stored bars equal the oracle's", every_s=0.5)
    except AssertionError:
        found = stored(dsn)
        missing = sorted(expected.keys() - found.keys())
        extra = sorted(found.keys() - expected.keys())
        unequal = sorted(k for k in expected.keys() & found.keys() if expected[k] != found[k])
        example = [(found[k], expected[k]) for k in unequal[:2]]
        raise AssertionError(
            f"{len(missing)} bars are missing {missing[:5]}, {len(extra)} too many {extra[:5]}, "
            f"{len(unequal)} unequal {unequal[:5]} {example}"
        ) from None
