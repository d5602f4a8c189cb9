"""The table bars of market-data-store's tenants, by its own batch processor, on a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import psycopg
import pytest

from schemas.bar import Bar, encode_bar
from schemas.dead_letter import Reason
from schemas.errors import BadBar, StoreError
from schemas.idempotency import idempotency_key
from streams.store.base import Store, open_store
from streams.store.ecosystem_url import parse_ecosystem
from streams.store.overflow import Overflow
from streams.store.peers import load
from streams.store.psycopg_session import conninfo
from streams.store.tenant_bars import TenantPeer
from support.bars import schema
from support.ecosystem import TENANTS, ecosystem, empty, make_tables, run
from support.store_contract import START_NS, FreshStore, a_bar, opened, rows, store_contract
from support.writing import desk

pytestmark = pytest.mark.postgres

SECOND_NS = 10**9
TENANT = "3f2c6d0e-9d5d-4d8e-8f3e-0c7c2f6a1b11"
OTHER = "00000000-0000-4000-8000-000000000000"
_ROWS = """
SELECT tenant_id::text, vendor, symbol, timeframe, (extract(epoch FROM ts) * 1000000000)::bigint,
    open_price, high_price, low_price, close_price, volume FROM bars ORDER BY 1, 2, 3, 4, 5
"""


def _bars(number: int, **fields: Any) -> list[Bar]:
    whole = {"volume": "3", "buy_volume": "2", "sell_volume": "1"}
    return [a_bar(start_ns=START_NS + n * SECOND_NS, **(whole | fields)) for n in range(number)]


async def _held(url: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {tuple(row)[:5]: tuple(row)[5:] for row in await run(url, _ROWS.strip())}


def _of(bar: Bar, tenant: str = TENANT, volume: int = 3) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    prices = tuple(float(text) for text in (bar.open, bar.high, bar.low, bar.close))
    return (tenant, bar.venue or "tidegate", bar.symbol, bar.type, bar.start_ns), (*prices, volume)


@pytest.fixture(scope="module")
def _url(postgres: str) -> Iterator[str]:
    with ecosystem(postgres, TENANTS, TENANT) as url:
        yield url


@pytest.fixture
def url(_url: str) -> str:
    """The URL of a tenant's store whose tables are there, in a schema of this module, and empty."""
    asyncio.run(run(_url, "TRUNCATE tidegate_bars, bars"))
    return _url


@pytest.fixture
def bare(postgres: str) -> Iterator[str]:
    """The URL of a tenant's store in a schema of the test's own that holds nothing."""
    with schema(postgres) as dsn:
        yield TENANTS.format(dsn=dsn, tenant=TENANT)


@pytest.fixture
def fresh(url: str) -> FreshStore:
    """Stores on empty tables, for the contract's bars, whose volume is 1.5."""

    def make() -> AbstractAsyncContextManager[Store]:
        return empty(f"{url}&volume_unit=0.5", "bars")

    return make


_Contract: Any = store_contract()


@pytest.mark.covers("batch writes")
class TestTenantStore:
    """What of the contract says nothing of fractional volumes or of symbols in lower case."""

    test_model = _Contract.test_it_holds_what_writing_bar_by_bar_into_a_dict_holds
    test_empty = _Contract.test_an_empty_batch_is_written
    test_second = _Contract.test_an_instrument_on_a_second_partition_is_a_conflict_and_its_row_stays
    test_inside = _Contract.test_a_conflict_inside_a_batch_is_decided_by_what_is_stored
    test_bad = _Contract.test_nothing_is_written_of_a_batch_with_a_bad_bar_and_alone_it_is_named
    test_again = _Contract.test_opening_and_closing_again_keeps_what_is_there


@pytest.mark.covers("batch writes")
@pytest.mark.parametrize("number", [1, 1_500, 5_200], ids=["one", "many", "where-AMDS-would-copy"])
async def test_what_is_written_stands_in_the_tenants_table(url: str, number: int) -> None:
    bars = _bars(number)
    async with opened(open_store(url)) as store:
        assert (await store.write(bars)).written == number
    assert await _held(url) == dict(map(_of, bars))


@pytest.mark.covers("batch writes")
async def test_a_replay_touches_no_row_and_an_older_version_overwrites_none(url: str) -> None:
    old, new = _bars(50), _bars(50, revision=1, last_offset=99, close="61000.5")
    async with opened(open_store(url)) as store:
        await store.write(old)
        assert (await store.write(new)).written == 50
        before = await run(url, "SELECT xmin::text FROM bars ORDER BY ts")
        for replay in (new, old, old + new):
            assert (await store.write(replay)).written == 0
    assert await run(url, "SELECT xmin::text FROM bars ORDER BY ts") == before
    assert await _held(url) == dict(map(_of, new))


async def test_both_tables_are_one_transaction(url: str) -> None:
    bars = _bars(100)
    bars[50] = msgspec.structs.replace(bars[50], volume="1000", buy_volume="1000")
    async with opened(open_store(url)) as store:
        await run(url, "ALTER TABLE bars ADD CONSTRAINT low CHECK (volume < 1000)")
        try:
            with pytest.raises(BadBar, match="check constraint"):
                await store.write(bars)
            assert (await rows(store), await _held(url)) == ([], {})
            assert (await store.write(bars[:50])).written == 50
        finally:
            await run(url, "ALTER TABLE bars DROP CONSTRAINT low")
    assert len(await _held(url)) == 50  # and nothing of what was refused came with it


async def test_tenants_share_the_tables_and_nothing_else(url: str) -> None:
    other = url.replace(TENANT, OTHER)
    mine, theirs = _bars(10), _bars(20, source_topic="theirs", close="7")
    async with opened(open_store(url)) as a, opened(open_store(other)) as b:
        assert [(await a.write(mine)).written, (await b.write(theirs)).written] == [10, 20]
        assert await rows(a) == mine
        assert await rows(b) == theirs
    assert await _held(url) == dict(map(_of, mine)) | dict(_of(bar, OTHER) for bar in theirs)


async def test_a_policy_of_row_level_security_sees_the_tenant(url: str) -> None:
    role = f"guest{uuid.uuid4().hex[:8]}"
    name = url.rpartition("search_path=")[2].partition("&")[0]
    await run(
        url,
        f"""
        CREATE ROLE {role} LOGIN PASSWORD 'guest';
        GRANT USAGE ON SCHEMA {name} TO {role}; GRANT SELECT, INSERT, UPDATE ON tidegate_bars, bars TO {role};
        ALTER TABLE bars ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON bars USING (tenant_id = current_setting('app.tenant_id')::uuid);
        """,
    )
    try:
        guest = url.replace("tidegate:tidegate@", f"{role}:guest@")
        async with opened(open_store(guest)) as store:
            assert (await store.write(_bars(3))).written == 3
    finally:
        await run(
            url,
            f"DROP POLICY own ON bars; ALTER TABLE bars DISABLE ROW LEVEL SECURITY; DROP OWNED BY {role}; "
            f"DROP ROLE {role};",
        )
    assert await _held(url) == dict(map(_of, _bars(3)))


@pytest.mark.covers("optional fields")
async def test_a_fractional_volume_is_refused_by_name_and_never_rounded(url: str) -> None:
    odd = [a_bar(symbol="ODD", volume=volume) for volume in ("1.5", "0.00000001", "3." + "0" * 30 + "1")]
    for bar in odd:
        bar.start_ns = START_NS + odd.index(bar) * SECOND_NS
    async with desk(open_store(url)) as at:
        await at.put([*_bars(20), *odd])
        await at.drained()
        assert at.dead == [encode_bar(bar) for bar in odd]
        assert {letter.reason for _, letter in at.producer.sent} == {Reason.refused}
        detail = at.producer.sent[0][1].detail
        assert detail is not None
        assert 'volume "1.5" is no multiple of 1' in detail
        assert "volume_unit" in detail
    assert await _held(url) == dict(map(_of, _bars(20)))


@pytest.mark.covers("optional fields")
async def test_a_volume_unit_makes_whole_numbers_of_fractions(url: str) -> None:
    bare = a_bar(volume="1.50000001", vwap=None, first_trade_id=None, last_trade_id=None, venue="")
    async with opened(open_store(f"{url}&volume_unit=0.00000001")) as store:
        await store.write([bare])
        assert await rows(store) == [bare]
        with pytest.raises(BadBar, match="no multiple of 1E-8"):
            await store.write([a_bar(volume="0.000000001", revision=1)])
        with pytest.raises(BadBar, match="does not fit 64 bits"):
            await store.write([a_bar(volume=str(2**63), revision=1)])
        largest = a_bar(volume="92233720368.54775807")
        await store.write([largest])
    held = await _held(url)
    assert held == dict([_of(bare, volume=150000001), _of(largest, volume=2**63 - 1)])


@pytest.mark.covers("idempotency keys")
def test_what_is_handed_to_the_client_carries_the_idempotency_key() -> None:
    peer = TenantPeer(parse_ecosystem(f"market-data-store+postgresql://h/db?tenant={TENANT}&pipeline=eu"))
    (bar,) = _bars(1)
    assert peer.row(bar).id == idempotency_key(bar, tenant=TENANT, pipeline="eu")


@pytest.mark.covers("overflow")
@pytest.mark.parametrize("overflow", [Overflow.block, Overflow.drop_oldest])
async def test_a_full_queue_waits_or_drops_as_it_is_told(url: str, overflow: Overflow) -> None:
    bars = _bars(200)
    async with desk(open_store(url), capacity=50, write_batch=10, overflow=overflow) as at:
        for n in range(0, 200, 25):
            await at.put(bars[n : n + 25])
        await at.drained()
        lost = at.writer.drops.total
        assert at.committable == 200
    held = await _held(url)
    assert len(held) == 200 - lost
    assert lost == 0 or overflow is Overflow.drop_oldest
    assert dict([_of(bars[-1])]).items() <= held.items()


@pytest.mark.covers("retries")
async def test_a_connection_that_the_server_ends_is_made_anew_and_nothing_is_written_twice(url: str) -> None:
    bars = _bars(100)
    async with desk(open_store(f"{url}&application_name=tenant_victim")) as at:
        await at.put(bars[:50])
        await at.drained()
        await run(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenant_victim'",
        )
        await at.put(bars[50:])
        await at.drained()
        assert (at.committable, at.dead, at.writer.stale) == (100, [], 0)
    assert await _held(url) == dict(map(_of, bars))


@pytest.mark.covers("concurrent stores")
async def test_three_workers_write_the_same_and_different_bars_at_once(url: str) -> None:
    same = [_bars(200, revision=n, last_offset=n, close=str(n)) for n in range(3)]
    others = [_bars(200, symbol=f"S{n}") for n in range(3)]
    stores = [open_store(url) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))

    async def work(n: int) -> None:
        batch = same[n] + others[n]
        for at in range(0, len(batch), 50):
            await stores[n].write(batch[at : at + 50][:: -1 if n % 2 else 1])

    await asyncio.gather(*(work(n) for n in range(3)))
    await asyncio.gather(*(store.close() for store in stores))
    assert await _held(url) == dict(map(_of, same[2] + [bar for some in others for bar in some]))


async def test_the_table_of_tidegates_own_store_is_told_from_the_tenants(bare: str) -> None:
    dsn = bare.removeprefix("market-data-store+").partition("&tenant")[0]
    async with opened(open_store(dsn)):
        pass
    await make_tables(bare)
    with pytest.raises(StoreError, match="it is the table of Tidegate's own PostgreSQL store") as caught:
        await open_store(bare).open()
    assert caught.value.hint


def test_wrong_credentials_are_an_error_with_a_hint(url: str) -> None:
    wrong = url.replace("tidegate:tidegate@", "tidegate:s3cret@")
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        asyncio.run(open_store(wrong).open())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("setting", [{"app_name": "x"}, {"statement_timeout_ms": 1000}])
async def test_the_client_by_itself_fails_with_settings_that_we_do_not_use(
    bare: str, setting: dict[str, Any]
) -> None:
    await make_tables(bare)
    mds, url = load("mds_client"), parse_ecosystem(bare)
    row = TenantPeer(url).row(_bars(1)[0])
    async with mds.AMDS({"dsn": conninfo(url.dsn, {}), **setting}) as amds:
        with pytest.raises(psycopg.errors.SyntaxError):
            await amds.upsert_bars([row])


async def test_the_client_by_itself_fails_for_a_field_that_is_none(bare: str) -> None:
    await make_tables(bare)
    mds, url = load("mds_client"), parse_ecosystem(bare)
    row = TenantPeer(url).row(_bars(1)[0])
    async with mds.AMDS({"dsn": conninfo(url.dsn, {})}) as amds:
        with pytest.raises(psycopg.ProgrammingError, match="volume"):
            await amds.upsert_bars([row.model_copy(update={"volume": None})])
