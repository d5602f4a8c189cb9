"""The DuckDB store, on real files."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from schemas.errors import StoreError, StoreInUse
from schemas.fixed import TURNOVER_SCALE, render
from streams.store.base import BarQuery, Store, open_store
from support.store_contract import FreshStore, a_bar, opened, rows, store_contract


@pytest.fixture
def fresh(tmp_path: Path) -> FreshStore:
    """Stores in files of their own."""
    numbers = itertools.count()

    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        async with opened(open_store(f"duckdb:{tmp_path}/{next(numbers)}.duckdb")) as store:
            yield store

    return make


class TestDuckStore(store_contract()):  # type: ignore[misc]
    """The contract, on files."""


async def _write(path: Path, *bars: object) -> None:
    async with opened(open_store(f"duckdb:{path}")) as store:
        await store.write(list(bars))  # type: ignore[arg-type]


async def test_a_store_in_memory_forgets_when_it_is_closed() -> None:
    store = open_store("duckdb::memory:")
    await store.open()
    await store.write([a_bar()])
    assert await rows(store) == [a_bar()]
    await store.close()
    await store.open()
    assert await rows(store) == []
    await store.close()


async def test_columns_stand_in_the_documented_order(tmp_path: Path) -> None:
    await _write(tmp_path / "b.duckdb")
    with duckdb.connect(tmp_path / "b.duckdb") as connection:
        names = [row[0] for row in connection.execute("DESCRIBE bars").fetchall()]
    assert " ".join(names) == (
        "symbol venue instrument type start_ns end_ns open high low close volume turnover vwap trade_count "
        "buy_volume sell_volume first_trade_id last_trade_id first_offset last_offset source_topic "
        "source_partition revision final updated_at"
    )


async def test_sql_users_get_numbers_and_times_from_the_view(tmp_path: Path) -> None:
    await _write(tmp_path / "b.duckdb", a_bar(), a_bar(start_ns=a_bar().end_ns))
    with duckdb.connect(tmp_path / "b.duckdb") as connection:
        query = "SELECT sum(volume), sum(turnover), max(high), min(epoch(start_time)) FROM bars_numeric"
        row = connection.execute(query).fetchone()
    assert row == (Decimal(3), Decimal(185511), Decimal(61840), a_bar().start_ns // 10**9)


async def test_the_view_refuses_a_sum_that_it_cannot_hold(tmp_path: Path) -> None:
    await _write(tmp_path / "b.duckdb", a_bar(volume="1" + "0" * 20))
    with (
        duckdb.connect(tmp_path / "b.duckdb") as connection,
        pytest.raises(duckdb.ConversionException, match="DECIMAL"),
    ):
        connection.execute("SELECT sum(volume) FROM bars_numeric").fetchall()


@pytest.mark.parametrize(
    "units",
    [
        [0],
        [1],
        [-1],
        [10**35],
        [10**36],
        [-(10**36), 10**36 - 1],
        [5 * 10**35] * 3,
        [10**95 - 1] * 7,
        [-(10**95), 1],
    ],
)
async def test_sql_users_add_up_exactly_what_no_decimal_holds(tmp_path: Path, units: list[int]) -> None:
    bars = [
        a_bar(start_ns=a_bar().start_ns + n * 60 * 10**9, turnover=render(value, TURNOVER_SCALE))
        for n, value in enumerate(units)
    ]
    await _write(tmp_path / "b.duckdb", *bars)
    with duckdb.connect(tmp_path / "b.duckdb") as connection:
        row = connection.execute("SELECT exact_sum(turnover) FROM bars").fetchone()
    assert row == (render(sum(units), TURNOVER_SCALE),)


async def test_updated_at_moves_only_with_the_row(tmp_path: Path) -> None:
    async def updated_at() -> object:
        with duckdb.connect(tmp_path / "b.duckdb") as connection:
            return connection.execute("SELECT epoch_us(updated_at) FROM bars").fetchone()

    await _write(tmp_path / "b.duckdb", a_bar())
    first = await updated_at()
    await _write(tmp_path / "b.duckdb", a_bar())
    assert await updated_at() == first
    await _write(tmp_path / "b.duckdb", a_bar(revision=1))
    assert await updated_at() != first


async def test_a_cancelled_write_is_waited_for_by_the_next_one(tmp_path: Path) -> None:
    bars = [a_bar(start_ns=a_bar().start_ns + n * 60 * 10**9) for n in range(5_000)]
    async with opened(open_store(f"duckdb:{tmp_path}/b.duckdb")) as store:
        write = asyncio.create_task(store.write(bars))
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        result = await store.write(bars)
        assert (result.written, result.stale) in ((len(bars), 0), (0, len(bars)))
        assert await rows(store) == bars


async def test_bars_are_read_beside_nothing_else(tmp_path: Path) -> None:
    await _write(tmp_path / "b.duckdb", a_bar())
    async with opened(open_store(f"duckdb:{tmp_path}/b.duckdb", read_only=True)) as store:
        assert await rows(store, BarQuery(symbol="BTCUSDT")) == [a_bar()]
        with pytest.raises(StoreError):
            await store.write([a_bar(revision=1)])


async def test_one_process_opens_a_file_once(tmp_path: Path) -> None:
    url = f"duckdb:{tmp_path}/b.duckdb"
    async with opened(open_store(url)):
        for read_only in (False, True):
            with pytest.raises(StoreInUse, match="this process"):
                await open_store(url, read_only=read_only).open()
    async with opened(open_store(url)) as store:
        assert await rows(store) == []
