"""What a store does when its connection breaks, stalls or crawls, on a real server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from schemas.bar import Bar
from schemas.errors import StoreTooSlow, StoreUnavailable
from streams.store.base import open_store
from streams.store.postgres_session import KEEPALIVE, connect
from support.bars import execute, schema
from support.cutting import CuttingProxy
from support.postgres import Postgres
from support.proxy import Proxy
from support.store_contract import START_NS, a_bar, opened, rows
from support.writing import Desk, desk

pytestmark = pytest.mark.postgres

SECOND_NS = 10**9
TIMEOUT_S = 1.5


def _bars(number: int) -> list[Bar]:
    return [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(number)]


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """A DSN whose tables live in a schema of the test's own."""
    with schema(postgres) as own:
        yield own


@pytest.fixture
def proxy(dsn: str) -> Iterator[CuttingProxy]:
    """A way to the server that can be cut."""
    url = urlsplit(dsn)
    with CuttingProxy(url.hostname or "", url.port or 5432) as proxy:
        yield proxy


def _through(dsn: str, proxy: Proxy) -> str:
    return dsn.replace(f":{urlsplit(dsn).port}/", f":{proxy.port}/")


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_outcome_nobody_knows_is_written_again_and_changes_nothing(
    dsn: str, proxy: CuttingProxy, committed: bool
) -> None:
    bars = _bars(100)
    async with desk(open_store(_through(dsn, proxy))) as at:
        proxy.forward = committed
        proxy.words = b"COMMIT;"
        await at.put(bars)
        await at.drained()
        assert proxy.words is None, "it was cut"
        assert (at.committable, at.dead) == (100, [])
        assert at.writer.stale == (100 if committed else 0)
    assert await rows(open_store(dsn, read_only=True)) == bars


async def test_a_server_that_is_killed_in_the_midst_of_writing_loses_nothing(own_postgres: Postgres) -> None:
    bars = _bars(6_000)
    async with desk(open_store(own_postgres.dsn), write_batch=500) as at:
        feeding = asyncio.create_task(_feed(at, bars))
        async with asyncio.timeout(30):
            while at.committable < 1_000:  # noqa: ASYNC110 - the condition is the database's
                await asyncio.sleep(0.005)
        await asyncio.to_thread(own_postgres.kill)
        await at.waiting(":")
        acknowledged = at.committable
        await asyncio.to_thread(own_postgres.resume)
        await feeding
        await at.drained()
        assert acknowledged < len(bars)
        assert (at.committable, at.dead) == (len(bars), [])
    assert await rows(open_store(own_postgres.dsn, read_only=True)) == bars


async def _feed(at: Desk, bars: list[Bar]) -> None:
    for n in range(0, len(bars), 200):
        await at.put(bars[n : n + 200])
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [10, 50_000], ids=["few", "more-than-sockets-hold"])
async def test_a_write_that_never_returns_is_given_up(dsn: str, proxy: CuttingProxy, number: int) -> None:
    store = open_store(_through(dsn, proxy), timeout_s=TIMEOUT_S)
    async with opened(store):
        bars = [a_bar(start_ns=START_NS + n * SECOND_NS, last_trade_id="x" * 120) for n in range(number)]
        proxy.stall()
        started = time.monotonic()
        with pytest.raises(StoreTooSlow, match=r"longer than 1\.5 s"):
            await store.write(bars)
        assert time.monotonic() - started < TIMEOUT_S + 5
        with pytest.raises(StoreUnavailable):
            await store.write(bars[:1])
        proxy.resume()
        assert (await store.write(bars[:10])).written == 10


async def test_a_connection_notices_a_peer_that_is_gone(dsn: str) -> None:
    connection = await connect(dsn, dsn, read_only=False, timeout_s=10)
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = {
        name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in KEEPALIVE
        if hasattr(socket, name)
    }
    await connection.close()
    assert options == {name: value for name, value in KEEPALIVE.items() if name in options}


async def test_the_server_lets_go_of_a_transaction_whose_client_is_gone(dsn: str) -> None:
    async with opened(open_store(f"{dsn}&application_name=watched")) as store:
        await store.write(_bars(1))
        shown = await store._connection.fetch(  # type: ignore[attr-defined]
            "SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_%' OR name LIKE 'idle_in%'"
        )
    assert dict(map(tuple, shown)) | {"tcp_keepalives_count": "3"} == {
        "idle_in_transaction_session_timeout": "60000",
        "tcp_keepalives_count": "3",
        "tcp_keepalives_idle": "15",
        "tcp_keepalives_interval": "5",
        "tcp_user_timeout": "30000",
    }


_CRAWL = """
CREATE FUNCTION crawl() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$
"""
_TRIGGER = "CREATE TRIGGER crawl BEFORE INSERT ON bars FOR EACH ROW EXECUTE FUNCTION crawl()"


async def test_a_database_that_is_too_slow_for_a_whole_batch_gets_smaller_ones(dsn: str) -> None:
    store = open_store(f"{dsn}&options=-cstatement_timeout%3D600")
    async with desk(store, write_batch=400) as at:
        for statement in (_CRAWL, _TRIGGER):
            await asyncio.to_thread(execute, dsn, statement)
        await at.put(_bars(500))
        await at.drained()
        assert (at.committable, at.dead) == (500, [])
    assert len(await rows(open_store(dsn, read_only=True))) == 500


async def test_a_slow_link_costs_time_only(dsn: str, proxy: CuttingProxy) -> None:
    async with desk(open_store(_through(dsn, proxy), timeout_s=60), write_batch=1_000) as at:
        proxy.slow(0.05)
        await at.put(_bars(3_000))
        await at.drained()
        assert (at.committable, at.dead, at.writer.stale) == (3_000, [], 0)


async def test_a_writer_without_patience_ends_with_the_error(dsn: str, proxy: CuttingProxy) -> None:
    async with desk(open_store(_through(dsn, proxy)), patience_s=2.0) as at:
        proxy.cut()
        await at.put(_bars(1))
        with pytest.raises(StoreUnavailable):
            await at.drained(20)
        assert at.committable == 0


async def test_a_database_that_is_away_at_the_start_is_waited_for_at_the_hardest_level(
    dsn: str, proxy: CuttingProxy
) -> None:
    proxy.cut()
    async with desk(open_store(_through(dsn, proxy)), capacity=100) as at:
        assert (at.levels, at.writer.size) == (["hard"], 0)
        await at.put(_bars(10))
        assert at.writer.level.value == "hard"
        proxy.resume()
        await at.drained()
        assert (at.levels, at.committable) == (["hard", "ok"], 10)
    proxy.cut()
    with pytest.raises(StoreUnavailable):
        await Desk(open_store(_through(dsn, proxy)), patience_s=60.0).writer.open()
