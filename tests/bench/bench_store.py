"""How many bars a second the stores take: `python tests/bench/bench_store.py [BARS] [BATCH...]`.

DuckDB in a fresh file; PostgreSQL, in a schema of its own that is dropped again, where TIDEGATE_TEST_POSTGRES
names one. Bars are those of 500 instruments, 1s and 1m mixed. "new" writes them for the first time, "newer"
writes later versions of all, "again" repeats these, as after a restart.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from schemas.bar import Bar
from schemas.fixed import TURNOVER_SCALE, render
from streams.store.base import Store, open_store

BATCHES = (5_000, 10_000, 20_000)
INSTRUMENTS = 500
FIRST_NS = 1_700_000_000 * 10**9
SCHEMA = "tidegate_bench"


def bars(count: int, revision: int) -> list[Bar]:
    """Bars as the engine publishes them: closed windows of all instruments, second by second."""
    rng = random.Random(7)
    return [_bar(rng, n, *window, revision) for n, window in zip(range(count), _windows(), strict=False)]


def _windows() -> Iterator[tuple[int, str, int, int]]:
    second = 0
    while True:
        for instrument in range(INSTRUMENTS):
            yield instrument, "1s", second, 1
        second += 1
        if second % 60 == 0:
            for instrument in range(INSTRUMENTS):
                yield instrument, "1m", second - 60, 60


def _bar(
    rng: random.Random, offset: int, number: int, bar_type: str, second: int, length: int, revision: int
) -> Bar:
    price, size = rng.randrange(10**12, 10**13), rng.randrange(1, 10**9)
    low, high = (render(price + change, 8) for change in (-150_000, 170_000))
    volume = render(size, 8)
    start_ns = FIRST_NS + second * 10**9
    return Bar(
        instrument=f"BINANCE:SYM{number}USDT",
        symbol=f"SYM{number}USDT",
        venue="BINANCE",
        type=bar_type,
        start_ns=start_ns,
        end_ns=start_ns + length * 10**9,
        open=render(price, 8),
        high=high,
        low=low,
        close=render(price + 10_000, 8),
        volume=volume,
        turnover=render(price * size * 10**20, TURNOVER_SCALE),
        vwap=render(price * 10**10 + rng.randrange(10**10)),
        trade_count=17,
        buy_volume=volume,
        sell_volume="0",
        first_trade_id=str(3_735_683_259 + offset),
        last_trade_id=str(3_735_683_275 + offset),
        first_offset=offset,
        last_offset=offset + 16,
        source_topic="md.ticks.v1",
        source_partition=number % 4,
        revision=revision,
        final=True,
    )


async def measure(store: Store, count: int, batch: int) -> dict[str, float]:
    """Bars a second of each pass."""
    await store.open()
    rates = {}
    for name, revision, expected in (("new", 0, count), ("newer", 1, count), ("again", 1, 0)):
        rows = bars(count, revision)
        started = time.perf_counter()
        results = [await store.write(rows[n : n + batch]) for n in range(0, count, batch)]
        rates[name] = count / (time.perf_counter() - started)
        assert sum(result.written for result in results) == expected
    await store.close()
    return rates


async def main(count: int, batches: list[int]) -> None:
    dsn = os.environ.get("TIDEGATE_TEST_POSTGRES")
    print(f"{count:,} bars, bars/s{'' if dsn else '; set TIDEGATE_TEST_POSTGRES to measure PostgreSQL'}")
    print(f"{'store':<12}{'batch':>8}{'new':>12}{'newer':>12}{'again':>12}")
    for batch in batches:
        with tempfile.TemporaryDirectory() as folder:
            _row(
                "DuckDB",
                batch,
                await measure(open_store(f"duckdb:{Path(folder) / 'b.duckdb'}"), count, batch),
            )
        if dsn:
            _row("PostgreSQL", batch, await _measure_postgres(dsn, count, batch))


async def _measure_postgres(dsn: str, count: int, batch: int) -> dict[str, float]:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
    try:
        store = open_store(f"{dsn}{'&' if '?' in dsn else '?'}search_path={SCHEMA}")
        return await measure(store, count, batch)
    finally:
        await connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
        await connection.close()


def _row(name: str, batch: int, rates: dict[str, float]) -> None:
    print(f"{name:<12}{batch:>8,}" + "".join(f"{rate:>12,.0f}" for rate in rates.values()))


if __name__ == "__main__":
    given = [int(arg.replace("_", "")) for arg in sys.argv[1:]]
    asyncio.run(main(given[0] if given else 200_000, given[1:] or list(BATCHES)))
