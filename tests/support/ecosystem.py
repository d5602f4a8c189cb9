"""Tables of market-data-store for tests, and what they hold."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from schemas.bar import Bar
from streams.store.base import Store, open_store
from streams.store.survey import make, needed
from support.bars import execute, schema
from support.store_contract import opened

OHLCV = "market-data-store+{dsn}"
TENANTS = "market-data-store+{dsn}&tenant={tenant}"

OhlcvKey = tuple[str, str, str, int]
"""provider, symbol, interval, start_ns"""


@contextmanager
def ecosystem(postgres: str, form: str = OHLCV, tenant: str | None = None) -> Iterator[str]:
    """The URL of a store in a schema of the test's own, its tables made."""
    with schema(postgres) as dsn:
        url = form.format(dsn=dsn, tenant=tenant or uuid.uuid4())
        asyncio.run(make_tables(url))
        yield url


async def make_tables(url: str) -> None:
    """What `tidegate store init` does."""
    dsn, shapes = needed(url)
    connection = await asyncpg.connect(dsn)
    try:
        await make(connection, shapes)
    finally:
        await connection.close()


@asynccontextmanager
async def empty(url: str, table: str) -> AsyncIterator[Store]:
    """An open store that holds nothing."""
    await run(url, f"TRUNCATE tidegate_bars, {table}")
    async with opened(open_store(url)) as store:
        yield store


async def run(url: str, sql: str) -> list[Any]:
    """Run statements on the database of a store's URL."""
    connection = await asyncpg.connect(needed(url)[0])
    try:
        if ";" in sql:
            await connection.execute(sql)
            return []
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


OHLCV_ROWS = """
SELECT provider, symbol, interval, (extract(epoch FROM ts) * 1000000000)::bigint,
    open, high, low, close, volume FROM bars_ohlcv ORDER BY 1, 2, 3, 4
"""


async def ohlcv(url: str) -> dict[OhlcvKey, tuple[float, ...]]:
    """What bars_ohlcv holds."""
    return {tuple(row)[:4]: tuple(row)[4:] for row in await run(url, OHLCV_ROWS.strip())}


def ohlcv_now(url: str) -> dict[OhlcvKey, tuple[float, ...]]:
    """The same, for tests without an event loop."""
    return {tuple(row)[:4]: tuple(row)[4:] for row in execute(needed(url)[0], OHLCV_ROWS.strip())}


def ohlcv_of(bar: Bar) -> tuple[OhlcvKey, tuple[float, ...]]:
    """What must be there of a bar: the nearest numbers of 53 bits, at the window's start."""
    numbers = tuple(float(text) for text in (bar.open, bar.high, bar.low, bar.close, bar.volume))
    return (bar.venue or "tidegate", bar.symbol.upper(), bar.type, bar.start_ns), numbers
