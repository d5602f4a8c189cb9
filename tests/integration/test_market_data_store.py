"""The table bars_ohlcv of market-data-store, by its own client, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bar import Bar, encode_bar
from schemas.dead_letter import Reason
from schemas.errors import BadBar, StoreError, StoreTooSlow, StoreUnavailable
from streams.store.base import BarQuery, Store, open_store
from streams.store.ecosystem_url import parse_ecosystem
from streams.store.market_data_store import OhlcvPeer
from streams.store.overflow import Overflow
from streams.store.peers import load
from streams.store.psycopg_session import conninfo
from streams.store.survey import needed
from support.bars import schema
from support.cutting import CuttingProxy
from support.ecosystem import OHLCV, ecosystem, empty, make_tables, ohlcv, ohlcv_of, run
from support.postgres import Postgres
from support.proxy import Proxy
from support.store_contract import (
    MINUTE_NS,
    START_NS,
    FreshStore,
    a_bar,
    decimals,
    model_settings,
    opened,
    rows,
    store_contract,
)
from support.writing import desk

pytestmark = pytest.mark.postgres

SECOND_NS = 10**9


def _bars(number: int, **fields: object) -> list[Bar]:
    return [a_bar(start_ns=START_NS + n * SECOND_NS, **fields) for n in range(number)]


@pytest.fixture(scope="module")
def _url(postgres: str) -> Iterator[str]:
    with ecosystem(postgres) as url:
        yield url


@pytest.fixture
def url(_url: str) -> str:
    """The URL of a store whose tables are there, in a schema of this module, and empty."""
    asyncio.run(run(_url, "TRUNCATE tidegate_bars, bars_ohlcv"))
    return _url


@pytest.fixture
def bare(postgres: str) -> Iterator[str]:
    """The URL of a store in a schema of the test's own that holds nothing."""
    with schema(postgres) as dsn:
        yield OHLCV.format(dsn=dsn)


@pytest.fixture
def fresh(url: str) -> FreshStore:
    """Stores on empty tables."""

    def make() -> AbstractAsyncContextManager[Store]:
        return empty(url, "bars_ohlcv")

    return make


@pytest.mark.covers("batch writes")
class TestMarketDataStore(store_contract()):  # type: ignore[misc]
    """The contract of every store, but for symbols: the ecosystem's are in upper case, and what that is beyond
    ASCII depends on the server."""

    async def test_text_is_kept_as_it_is(self, fresh: FreshStore) -> None:
        odd = a_bar(
            symbol="BTC/USD 'X' \"Y\" \\N\t💥", first_trade_id="", last_trade_id=None, source_topic="ü"
        )
        async with fresh() as store:
            await store.write([odd])
            assert await rows(store) == [odd]
            assert (await store.write([odd])).stale == 1

    @model_settings
    @given(
        symbol=st.sampled_from(["NONE", "\\N", "\\.", "A\tB", "A\nB", "a'\"b"])
        | st.text("A1/%\\ \r", min_size=1),
        text=st.sampled_from(["None", "\\N", "a\tb", ""])
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        none=st.booleans(),
    )
    async def test_any_text_is_kept_and_is_not_taken_for_none(
        self, fresh: FreshStore, symbol: str, text: str, none: bool
    ) -> None:
        bar = a_bar(
            symbol=symbol,
            source_topic=text,
            first_trade_id=text,
            last_trade_id=None if none else text,
            vwap=None if none else "1",
        )
        async with fresh() as store:
            await store.write([bar, a_bar(start_ns=START_NS - MINUTE_NS, symbol="ZZ")])
            assert bar in await rows(store)

    async def test_bars_are_read_by_symbol_type_and_start(self, fresh: FreshStore) -> None:
        bars = [
            a_bar(symbol=symbol, venue=venue, type=kind, start_ns=START_NS + n * MINUTE_NS, final=n < 2)
            for symbol, kind, n, venue in itertools.product(
                ("BTC", "ETH"), ("1m", "5m"), range(3), ("", "KRAKEN")
            )
        ]
        bars.sort(key=lambda bar: (bar.symbol, bar.type, bar.start_ns, bar.instrument))
        async with fresh() as store:
            await store.write(bars[::-1])
            assert await rows(store) == bars
            newest = await rows(store, BarQuery(symbol="BTC", type="1m", venue="", newest=2))
            assert [bar.start_ns - START_NS for bar in newest] == [MINUTE_NS, 2 * MINUTE_NS]


@pytest.mark.covers("batch writes")
@pytest.mark.parametrize("number", [1, 999, 1_000, 3_500], ids=["one", "upserts", "one-copy", "more"])
async def test_what_is_written_stands_in_the_table_of_the_ecosystem(url: str, number: int) -> None:
    bars = _bars(number)
    async with opened(open_store(url)) as store:
        assert (await store.write(bars)).written == number  # copies follow each other on one connection
        bars = [msgspec.structs.replace(bar, revision=1, close="61836.3") for bar in bars]
        assert (await store.write(bars)).written == number
    assert await ohlcv(url) == dict(map(ohlcv_of, bars))


async def test_the_client_writes_no_lines_of_its_own_into_the_log(url: str) -> None:
    from loguru import logger

    said: list[str] = []
    sink = logger.add(said.append)  # what it has by itself is stderr
    try:
        async with opened(open_store(url)) as store:
            await store.write(_bars(1_500))
    finally:
        logger.remove(sink)
    assert said == []


@pytest.mark.covers("batch writes")
async def test_a_replay_touches_no_row_and_an_older_version_overwrites_none(url: str) -> None:
    old, new = _bars(50), _bars(50, revision=1, last_offset=99, close="61000.5")
    state = "SELECT xmin::text, created_at, updated_at FROM bars_ohlcv ORDER BY ts"
    async with opened(open_store(url)) as store:
        await store.write(old)
        before = await run(url, state)
        assert (await store.write(new)).written == 50
        after = await run(url, state)
        assert all(a["updated_at"] > b["updated_at"] for a, b in zip(after, before, strict=True))
        assert all(a["created_at"] == b["created_at"] for a, b in zip(after, before, strict=True))
        for replay in (new, old, old + new, new[::-1]):
            assert (await store.write(replay)).written == 0
    async with opened(open_store(url)) as store:  # what was written by another worker is known as well
        assert (await store.write(old)).stale == 50
    assert await run(url, state) == after
    assert await ohlcv(url) == dict(map(ohlcv_of, new))


@pytest.mark.covers("batch writes")
async def test_a_large_replay_into_a_table_without_statistics_looks_rows_up_by_their_key(url: str) -> None:
    bars = _bars(5_000)
    took = []
    async with opened(open_store(url)) as store:
        for stale in (0, 5_000):
            started = time.monotonic()
            assert (await store.write(bars)).stale == stale
            took.append(time.monotonic() - started)
    assert took[1] < 10 * took[0]  # 80 times as long where all of the table is read for each bar


@pytest.mark.covers("batch writes")
async def test_a_key_twice_in_a_batch_is_written_once_as_its_newest_version(url: str) -> None:
    versions = [_bars(1_200, revision=n, last_offset=n, close=str(n)) for n in (1, 2, 0)]
    async with opened(open_store(url)) as store:
        result = await store.write([bar for some in zip(*versions, strict=True) for bar in some])
    assert (result.written, result.stale) == (1_200, 2_400)
    assert {numbers[3] for numbers in (await ohlcv(url)).values()} == {2.0}


@pytest.mark.covers("batch writes")
@pytest.mark.parametrize("number", [100, 2_000], ids=["upserts", "copy"])
async def test_both_tables_are_one_transaction(url: str, number: int) -> None:
    bars = _bars(number)
    bars[number // 2] = msgspec.structs.replace(bars[number // 2], volume="1000", buy_volume="1000")
    async with opened(open_store(url)) as store:
        await run(url, "ALTER TABLE bars_ohlcv ADD CONSTRAINT low CHECK (volume < 1000)")
        try:
            with pytest.raises(BadBar, match="check constraint"):
                await store.write(bars)
            with pytest.raises(BadBar, match=r"BTCUSDT.*check constraint"):
                await store.write([bars[number // 2]])
            assert (await rows(store), await ohlcv(url)) == ([], {})
            del bars[number // 2]
            assert (await store.write(bars)).written == number - 1
        finally:
            await run(url, "ALTER TABLE bars_ohlcv DROP CONSTRAINT low")


async def test_rows_that_somebody_else_has_written_are_overwritten_by_the_first_version(url: str) -> None:
    (bar,) = _bars(1)
    (key, numbers) = ohlcv_of(bar)
    await run(
        url,
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume) "
        f"VALUES ('BINANCE', 'BTCUSDT', '1m', to_timestamp({START_NS // SECOND_NS}), 1, 1, 1, 1, 1)",
    )
    async with opened(open_store(url)) as store:
        await store.write([bar])
    assert await ohlcv(url) == {key: numbers}


@pytest.mark.covers("optional fields")
async def test_bars_without_vwap_ids_or_venue_are_written(url: str) -> None:
    bare = a_bar(venue="", vwap=None, first_trade_id=None, last_trade_id=None, volume="0", turnover="0",
                 buy_volume="0", sell_volume="0")  # fmt: skip
    async with opened(open_store(url)) as store:
        await store.write([bare])
        assert await rows(store) == [bare]
    assert await ohlcv(url) == dict([ohlcv_of(bare)])
    named = url + "&provider=ibkr"
    await run(url, "TRUNCATE tidegate_bars, bars_ohlcv")
    async with opened(open_store(named)) as store:
        await store.write([bare])
        with pytest.raises(BadBar, match="venue 'ibkr' is what bars without a venue"):
            await store.write([a_bar(venue="ibkr")])
    assert [key[0] for key in await ohlcv(url)] == ["ibkr"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"close": "NaN"}, "close .NaN. is not a decimal number"),
        ({"high": "Infinity"}, "high .Infinity. is not a decimal number"),
        ({"volume": "9" * 61}, "volume .* does not fit"),
        ({"low": "1" + "0" * 20}, "low .* does not fit"),
        ({"symbol": "straße"}, "symbol 'straße' is not in upper case"),
        ({"symbol": "A\0B"}, "NUL"),
    ],
)
async def test_what_the_table_cannot_hold_is_refused_by_name(
    url: str, fields: dict[str, str], words: str
) -> None:
    async with opened(open_store(url)) as store:
        with pytest.raises(BadBar, match=words) as caught:
            await store.write([a_bar(**fields)])
        assert caught.value.bar is not None
        assert (await rows(store), await ohlcv(url)) == ([], {})


@model_settings
@given(prices=st.lists(decimals(20, 18), min_size=4, max_size=4), volume=decimals(60, 36, signed=False))
async def test_numbers_are_the_nearest_that_a_double_can_be(url: str, prices: list[str], volume: str) -> None:
    await run(url, "TRUNCATE tidegate_bars, bars_ohlcv")
    bar = a_bar(**dict(zip(("open", "high", "low", "close"), prices, strict=True)), volume=volume)
    async with opened(open_store(url)) as store:
        await store.write([bar])
        assert await rows(store) == [bar]
    assert await ohlcv(url) == dict([ohlcv_of(bar)])


async def test_a_symbol_in_lower_case_is_stored_in_upper_case_and_never_over_another(url: str) -> None:
    lower, upper = a_bar(symbol="ethusdt", open="1"), a_bar(symbol="ETHUSDT", open="2", last_offset=99)
    async with desk(open_store(url)) as at:
        await at.put([lower])
        await at.drained()
        await at.put([upper, *_bars(3)])
        await at.drained()
        assert at.dead == [encode_bar(upper)]
        assert [letter.reason for _, letter in at.producer.sent] == [Reason.refused]
    held = await ohlcv(url)
    assert held.pop(ohlcv_of(lower)[0]) == ohlcv_of(lower)[1]
    assert len(held) == 3


async def test_an_instrument_on_a_second_partition_is_a_conflict_there_too(url: str) -> None:
    first, other = a_bar(), a_bar(source_partition=1, last_offset=99, open="1")
    async with desk(open_store(url)) as at:
        await at.put([first, other])
        await at.drained()
        assert [letter.reason for _, letter in at.producer.sent] == [Reason.conflict]
    assert await ohlcv(url) == dict([ohlcv_of(first)])


@pytest.mark.covers("overflow")
async def test_under_block_bars_wait_for_a_locked_table_and_none_is_lost(url: str) -> None:
    bars = _bars(300)
    async with desk(open_store(url), capacity=60, write_batch=20) as at:
        async with _locked(url):
            await at.put(bars[:60])
            blocked = asyncio.create_task(at.put(bars[60:]))
            await _someone_waits(url)
            assert not blocked.done()
            assert at.levels[-1] == "hard"
        await blocked
        await at.drained()
        assert (at.committable, at.writer.dropped.total()) == (300, 0)
    assert await ohlcv(url) == dict(map(ohlcv_of, bars))


@pytest.mark.covers("overflow")
async def test_under_drop_oldest_the_newest_are_stored_and_the_others_are_counted(url: str) -> None:
    bars = _bars(300)
    options = {"capacity": 60, "write_batch": 20, "overflow": Overflow.drop_oldest}
    async with desk(open_store(url), **options) as at:
        async with _locked(url):
            await at.put(bars[:20])
            await _someone_waits(url)
            for n in range(20, 300, 20):
                await at.put(bars[n : n + 20])
        await at.drained()
        assert at.committable == 300
        assert at.writer.drops.total == at.writer.dropped.total() == 220
        assert at.writer.dropped_batches == 11
    assert await ohlcv(url) == dict(map(ohlcv_of, bars[:20] + bars[240:]))


@asynccontextmanager
async def _locked(url: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(needed(url)[0])
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE bars_ohlcv")
            yield
    finally:
        await connection.close()


async def _someone_waits(url: str) -> None:
    async with asyncio.timeout(20):
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'bars_ohlcv'::regclass"
        while not await run(url, waiting):  # noqa: ASYNC110 - the condition is the server's
            await asyncio.sleep(0.01)


@pytest.mark.covers("retries")
async def test_a_connection_that_the_server_ends_in_the_midst_of_a_write_is_made_anew(url: str) -> None:
    bars = _bars(200)
    async with desk(open_store(f"{url}&application_name=ohlcv_victim"), write_batch=50) as at:
        async with _locked(url):
            await at.put(bars)
            await _someone_waits(url)
            await run(
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ohlcv_victim'",
            )
            await at.waiting(":")
        await at.drained()
        assert (at.committable, at.dead, at.writer.stale) == (200, [], 0)
        assert at.writer.retries > 0
        assert at.writer.counters.items_committed == 200
        health = at.writer.sink_health()
        assert health.connected
        assert health.retry_count == at.writer.retries
        assert health.last_error_at is not None
    assert await ohlcv(url) == dict(map(ohlcv_of, bars))


@pytest.mark.covers("retries")
async def test_a_server_that_is_killed_and_comes_back_has_everything_once(own_postgres: Postgres) -> None:
    url = OHLCV.format(dsn=own_postgres.dsn)
    await make_tables(url)
    bars = _bars(3_000)
    async with desk(open_store(url), write_batch=200) as at:
        await at.put(bars[:1_000])
        await at.drained()
        await asyncio.to_thread(own_postgres.kill)
        await at.put(bars[1_000:])
        text = await at.waiting(":")
        assert "tidegate:tidegate" not in text
        await asyncio.to_thread(own_postgres.resume)
        await at.drained()
        assert (at.committable, at.dead) == (3_000, [])
    assert await ohlcv(url) == dict(map(ohlcv_of, bars))


@pytest.mark.covers("retries")
async def test_a_write_that_never_returns_is_given_up_and_leaves_nothing(url: str, postgres: str) -> None:
    where = urlsplit(postgres)
    with Proxy(where.hostname or "", where.port or 5432) as proxy:
        through = url.replace(f":{where.port}/", f":{proxy.port}/")
        async with opened(open_store(through, timeout_s=1.0)) as store:
            await store.write(_bars(10))
            async with _locked(url):
                with pytest.raises(StoreTooSlow, match="longer than 1 s"):
                    await store.write(_bars(20))
            assert (await store.write(_bars(20))).written == 10
            proxy.cut()
            with pytest.raises(StoreUnavailable):
                await store.write(_bars(1))
            proxy.resume()
            assert (await store.write(_bars(1))).stale == 1


@pytest.mark.covers("retries")
@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_outcome_nobody_knows_is_written_again_and_changes_nothing(
    url: str, committed: bool
) -> None:
    bars = _bars(500)  # fewer than are copied: that statement has the word in it
    where = urlsplit(needed(url)[0])
    with CuttingProxy(where.hostname or "", where.port or 5432) as proxy:
        async with desk(open_store(url.replace(f":{where.port}/", f":{proxy.port}/"))) as at:
            proxy.forward = committed
            proxy.words = b"COMMIT"
            await at.put(bars)
            await at.drained()
            assert proxy.words is None, "it was cut"
            assert (at.committable, at.dead) == (500, [])
            assert at.writer.stale == (500 if committed else 0)
    assert await ohlcv(url) == dict(map(ohlcv_of, bars))


@pytest.mark.covers("concurrent stores")
async def test_three_workers_write_the_same_and_different_bars_at_once(url: str) -> None:
    same = [_bars(400, revision=n, last_offset=n, close=str(n)) for n in range(3)]
    others = [_bars(400, symbol=f"S{n}") for n in range(3)]
    stores = [open_store(url) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))

    async def work(n: int) -> int:
        written = 0
        batch = same[n] + others[n]
        for at in range(0, len(batch), 100):
            part = batch[at : at + 100]
            written += (await stores[n].write(part[::-1] if n % 2 else part)).written
        return written

    written = await asyncio.gather(*(work(n) for n in range(3)))
    assert sum(written) >= 4 * 400
    again = await asyncio.gather(*(store.write(same[0] + same[1]) for store in stores))
    assert [result.written for result in again] == [0, 0, 0]
    await asyncio.gather(*(store.close() for store in stores))
    expected = same[2] + [bar for some in others for bar in some]
    assert await ohlcv(url) == dict(map(ohlcv_of, expected))


@pytest.mark.covers("concurrent stores")
def test_new_bars_that_several_workers_write_at_once_are_nobodys_duplicates(url: str) -> None:
    """Two unique indexes: a row that another worker inserts meanwhile must not be found in the second one."""
    workers, batches = 4, [_bars(200, symbol=f"S{n}") for n in range(60)]
    together = threading.Barrier(workers)

    async def write_all() -> list[int]:
        written = []
        async with opened(open_store(url)) as store:
            for bars in batches:
                together.wait(timeout=20)
                written.append((await store.write(bars)).written)
        return written

    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(asyncio.run, write_all()) for _ in range(workers)]
    written = [job.result() for job in jobs]
    assert [sum(some) for some in zip(*written, strict=True)] == [200] * len(batches)


@pytest.mark.covers("sink health")
async def test_health_follows_the_database(own_postgres: Postgres) -> None:
    url = OHLCV.format(dsn=own_postgres.dsn)
    await make_tables(url)
    async with desk(open_store(url)) as at:
        await at.put(_bars(5))
        await at.drained()
        well = at.writer.sink_health()
        assert (well.connected, well.queue_depth, well.retry_count) == (True, 0, 0)
        assert well.last_commit_at is not None
        await asyncio.to_thread(own_postgres.kill)
        await at.put(_bars(10))
        await at.waiting("refused")
        ill = at.writer.sink_health()
        assert (ill.connected, ill.queue_depth) == (False, 10)
        assert ill.last_error_at is not None
        assert "refused" in ill.detail
        assert at.writer.health().state == "degraded"
        await asyncio.to_thread(own_postgres.resume)
        await at.drained()
        assert at.writer.health().state == "healthy"
        assert at.writer.sink_health().retry_count > 0


@pytest.mark.parametrize(
    ("change", "match", "retriable"),
    [
        (lambda url: url.replace("tidegate:tidegate@", "tidegate:s3cret@"), "password authentication", False),
        (lambda url: url.replace("/tidegate?", "/absent?"), '"absent" does not exist', False),
        (lambda url: url + "&sslmode=require", "speaks no TLS", False),
        (lambda url: url.replace(f":{urlsplit(url).port}/", ":1/"), "connection refused", True),
    ],
    ids=["password", "database", "tls", "port"],
)
async def test_a_wrong_url_is_one_line_with_a_hint_and_without_the_password(
    url: str, change: object, match: str, retriable: bool
) -> None:
    assert callable(change)
    for read_only in (False, True):
        with pytest.raises(StoreError, match=match) as caught:
            await open_store(change(url), read_only=read_only).open()
        assert caught.value.retriable is retriable
        assert caught.value.hint
        assert len(str(caught.value).splitlines()) == 1
        assert "s3cret" not in str(caught.value)
    with pytest.raises(StoreError, match=match):  # a connection that is made anew says it as well
        await open_store(change(url)).write(_bars(1))


async def test_without_its_tables_a_worker_is_told_how_to_make_them(bare: str) -> None:
    with pytest.raises(StoreError, match="tidegate_bars: there is no such table") as caught:
        await open_store(bare).open()
    assert "tidegate store init" in caught.value.hint
    assert not caught.value.retriable
    await make_tables(bare)
    await run(bare, "DROP TABLE bars_ohlcv")
    with pytest.raises(StoreError, match="bars_ohlcv: there is no such table"):
        await open_store(bare).open()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("ALTER TABLE bars_ohlcv ALTER volume TYPE numeric(12, 2)", r"volume is numeric\(12,2\) where"),
        ("ALTER TABLE bars_ohlcv ALTER close TYPE real", "close is real where"),
        ("ALTER TABLE bars_ohlcv ALTER ts TYPE timestamp", "ts is timestamp without time zone where"),
        ("ALTER TABLE bars_ohlcv DROP COLUMN interval", "it has no interval"),
        ("ALTER TABLE bars_ohlcv DROP CONSTRAINT bars_ohlcv_pkey", r"no unique key \(provider, symbol, "),
    ],
)
async def test_a_table_that_would_alter_bars_is_refused_at_the_start_and_later(
    bare: str, spoil: str, words: str
) -> None:
    await make_tables(bare)
    async with desk(open_store(bare)) as at:
        await at.put(_bars(5))
        await at.drained()
        await run(bare, f"{spoil};")
        await at.put(_bars(6))
        await at.waiting("no unique or exclusion constraint" if "pkey" in spoil else words.partition("\\")[0])
        assert at.dead == []
    with pytest.raises(StoreError, match=words):
        await open_store(bare).open()


class TestTheClientByItself:
    """What is worked around; where one of these fails, the work-around may go."""

    async def test_it_cannot_copy_twice_in_a_transaction(self, bare: str) -> None:
        await make_tables(bare)
        rows = [OhlcvPeer(parse_ecosystem(bare)).row(bar) for bar in _bars(40)]
        async with _client(bare, batch_threshold=10) as client:
            with pytest.raises(psycopg.errors.DuplicateTable):
                await client.write_bars(rows, batch_size=20)

    async def test_it_cannot_copy_a_key_twice_and_is_of_no_use_afterwards(self, bare: str) -> None:
        await make_tables(bare)
        rows = [OhlcvPeer(parse_ecosystem(bare)).row(bar) for bar in (*_bars(10), *_bars(1))]
        async with _client(bare, batch_threshold=10) as client:
            with pytest.raises(psycopg.errors.CardinalityViolation):
                await client.write_bars(rows)
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                await client.write_bars(rows[:1])


def _client(url: str, *, batch_threshold: int) -> Any:
    info = conninfo(parse_ecosystem(url).dsn, {})
    return load("datastore").AsyncStoreClient(info, batch_threshold=batch_threshold)
