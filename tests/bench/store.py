"""How many bars a second the stores take.

    python -m tests.bench.store

DuckDB in a fresh file; PostgreSQL and the tables of market-data-store, in a schema of its own that is dropped
again, where TIDEGATE_TEST_POSTGRES names one. Bars are those of 500 instruments, 1s and 1m mixed. "new" writes
them for the first time, "newer" writes later versions of all, "again" repeats these, as after a restart. What each
pass wrote is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.report import _cpu_model
from schemas.bar import Bar
from schemas.fixed import TURNOVER_SCALE, render
from streams.settings import Settings
from streams.store.base import Store, open_store
from streams.store.survey import make, needed

INSTRUMENTS = 500
FIRST_NS = 1_700_000_000 * 10**9
SCHEMA = "tidegate_bench"
DSN = os.environ.get("TIDEGATE_TEST_POSTGRES")
FORMS = {
    "postgresql": "{dsn}",
    "market-data-store": "market-data-store+{dsn}",
    "tenants": "market-data-store+{dsn}&volume_unit=0.00000001&tenant=00000000-0000-4000-8000-000000000000",
}


def main() -> None:
    """Measure, and print the table."""
    options = _options()
    facts = asyncio.run(_facts(options))
    rates: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)
    for run in range(options.runs):
        for batch in options.batch:
            for store in options.store:
                for name, rate in asyncio.run(_measure(store, options.bars, batch)).items():
                    rates[store, batch, name].append(rate)
                print(f"{run + 1}/{options.runs} {store}, {batch:,} a batch", file=sys.stderr, flush=True)
    figures = [
        {"store": store, "batch": batch, "pass": name, "bars_per_second": sorted(map(round, of_runs))}
        for (store, batch, name), of_runs in rates.items()
    ]
    if options.json:
        print(json.dumps({**facts, "results": figures}, indent=2, ensure_ascii=False))
    else:
        _show(facts, figures)


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


async def _measure(name: str, count: int, batch: int) -> dict[str, float]:
    """Bars a second of each pass."""
    rates = {}
    async with _fresh(name) as store:
        for step, revision, expected in (("new", 0, count), ("newer", 1, count), ("again", 1, 0)):
            rows = bars(count, revision)
            started = time.perf_counter()
            results = [await store.write(rows[n : n + batch]) for n in range(0, count, batch)]
            rates[step] = count / (time.perf_counter() - started)
            written = sum(result.written for result in results)
            if written != expected:
                raise RuntimeError(f"{name} wrote {written:,} bars where {expected:,} were {step}")
    return rates


@asynccontextmanager
async def _fresh(name: str) -> AsyncIterator[Store]:
    """A store that holds nothing, open."""
    if name == "duckdb":
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"duckdb:{Path(folder) / 'bars.duckdb'}")
            await store.open()
            yield store
            await store.close()
        return
    assert DSN
    connection = await asyncpg.connect(DSN)
    await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
    try:
        await connection.execute(f"SET search_path = {SCHEMA}")
        url = FORMS[name].format(dsn=f"{DSN}{'&' if '?' in DSN else '?'}search_path={SCHEMA}")
        await make(connection, needed(url)[1])
        store = open_store(url)
        await store.open()
        yield store
        await store.close()
    finally:
        await connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
        await connection.close()


async def _facts(options: argparse.Namespace) -> dict[str, str]:
    """The machine, the versions and the data."""
    busy = psutil.cpu_percent(1.0) / 100
    facts = {
        "machine": f"{os.cpu_count()} cores, {_cpu_model()}, {psutil.virtual_memory().total >> 30} GiB, for the "
        f"database, too; {busy:.0%} busy with other things before the first run",
        "python": f"{platform.python_version()}, {platform.system()} {platform.release()}",
        "stores": f"DuckDB {version('duckdb')}, pyarrow {version('pyarrow')}",
        "bars": f"{options.bars:,}, of {INSTRUMENTS} instruments, 1s and 1m",
    }
    if FORMS.keys() & set(options.store):
        connection = await asyncpg.connect(DSN)
        server = await connection.fetchval("SHOW server_version")
        await connection.close()
        facts["stores"] += f", PostgreSQL {server.split()[0]}, asyncpg {version('asyncpg')}"
    if FORMS.keys() & set(options.store) - {"postgresql"}:
        facts["stores"] += f", market-data-store {version('market-data-store')}, psycopg {version('psycopg')}"
    return facts


def _show(facts: dict[str, str], figures: list[dict[str, Any]]) -> None:
    for name, fact in facts.items():
        print(f"{name:<9}{fact}")
    print(f"\n{'store':<17}  {'batch':>6}  {'pass':<5}  {'min':>8}  {'median':>8}  {'max':>8}")
    for figure in figures:
        rates = figure["bars_per_second"]
        print(
            f"{figure['store']:<17}  {figure['batch']:>6,}  {figure['pass']:<5}  "
            f"{rates[0]:>8,}  {median(rates):>8,.0f}  {rates[-1]:>8,}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings.model_fields["write_batch"].default
    stores = ["duckdb", *FORMS] if DSN else ["duckdb"]
    parser.add_argument("--bars", type=int, default=100_000, help="of each pass (%(default)s)")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[default],
        help="bars in a transaction; several give rows each (%(default)s, as in the settings)",
    )
    parser.add_argument("--store", choices=stores, nargs="+", default=stores, help="(%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="times that all is measured (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
