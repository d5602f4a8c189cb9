"""The PostgreSQL store, on a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import asyncpg
import pytest

from schemas.errors import BadBar, StoreError, StoreUnavailable
from streams.store.base import BarQuery, Store, open_store
from streams.store.postgres_sql import CREATE
from support.bars import execute, schema
from support.postgres import Postgres
from support.store_contract import START_NS, FreshStore, a_bar, opened, rows, store_contract

SECOND_NS = 10**9


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """A DSN whose tables live in a schema of the test's own."""
    with schema(postgres) as own:
        yield own


@pytest.fixture
def fresh(dsn: str) -> FreshStore:
    """Stores on an empty table."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        async with opened(open_store(dsn)) as store:
            await _execute(dsn, "TRUNCATE bars")
            yield store

    return make


class TestPostgresStore(store_contract()):  # type: ignore[misc]
    """The contract, on a server."""


async def _execute(dsn: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


async def _someone_waits_for(dsn: str, kind: str) -> None:
    async with asyncio.timeout(30):
        waiting = f"SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = '{kind}'"
        while not await _execute(dsn, waiting):  # noqa: ASYNC110 - the condition is the server's
            await asyncio.sleep(0.01)


def _with_user(dsn: str, user: str, password: str) -> str:
    return dsn.replace(urlsplit(dsn).netloc.rpartition("@")[0], f"{user}:{password}", 1)


@pytest.fixture
def guest(postgres: str, dsn: str) -> Iterator[str]:
    """The DSN for a user who may do nothing; `guest` is also the role's name, after the scheme."""
    name = f"guest{uuid.uuid4().hex[:8]}"
    execute(postgres, f"CREATE ROLE {name} LOGIN PASSWORD 'guest'")
    yield _with_user(dsn, name, "guest")
    execute(postgres, f"DROP OWNED BY {name}")
    execute(postgres, f"DROP ROLE {name}")


async def test_workers_that_start_together_make_one_table(dsn: str) -> None:
    stores = [open_store(dsn) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    bars = [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(300)]
    results = await asyncio.gather(
        *(store.write(bars[::-1] if n % 2 else bars) for n, store in enumerate(stores))
    )
    assert sum(result.written for result in results) == len(bars)
    assert await rows(stores[0]) == bars
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_conflict_with_a_row_that_another_worker_is_just_writing_is_seen(dsn: str) -> None:
    async with opened(open_store(dsn)) as store:
        other = await asyncpg.connect(dsn)
        await store.write([a_bar(source_partition=1)])
        (columns,) = await other.fetchrow(
            "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'bars'::regclass AND attnum > 0"
        )
        await other.execute("CREATE TEMP TABLE kept AS SELECT * FROM bars; TRUNCATE bars")
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f"INSERT INTO bars ({columns}) SELECT {columns} FROM kept")
        write = asyncio.create_task(store.write([a_bar(source_partition=0)]))
        await _someone_waits_for(dsn, "transactionid")
        await transaction.commit()
        assert (await write).conflicts == [a_bar(source_partition=0)]
        await other.close()


PARTITIONED = CREATE.replace(
    ") WITH (fillfactor = 50);",
    ") PARTITION BY RANGE (start_ns); CREATE TABLE all_bars PARTITION OF bars DEFAULT;",
)


@pytest.mark.parametrize("table", ["", PARTITIONED], ids=["ours", "partitioned"])
async def test_a_batch_that_is_not_what_the_last_one_was_is_written_all_the_same(
    dsn: str, table: str
) -> None:
    if table:
        connection = await asyncpg.connect(dsn)
        await connection.execute(table)
        await connection.close()
    bars = [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(40)]
    newer = [a_bar(start_ns=bar.start_ns, revision=1) for bar in bars]
    async with opened(open_store(dsn)) as store:
        for batch, written in (
            (bars[:10], 10),  # all new, and the next ones are taken to be
            (newer[5:10] + bars[10:20], 15),
            (bars[:10], 0),
            (newer[:10] + bars[20:21], 6),
            (bars[21:30], 9),
            (bars[30:], 10),
            (bars[:20], 0),
        ):
            result = await store.write(batch)
            assert (result.written, result.stale) == (written, len(batch) - written)
        assert await rows(store) == newer[:10] + bars[10:]


async def test_columns_stand_in_the_documented_order(dsn: str) -> None:
    async with opened(open_store(dsn)):
        attributes = "FROM pg_attribute WHERE attrelid = 'bars'::regclass AND attnum > 0"
        found = await _execute(dsn, f"SELECT attname {attributes} ORDER BY attnum")
    assert " ".join(row[0] for row in found) == (
        "symbol venue instrument type start_ns end_ns open high low close volume turnover vwap trade_count "
        "buy_volume sell_volume first_trade_id last_trade_id first_offset last_offset source_topic "
        "source_partition revision final updated_at"
    )


async def test_sql_users_get_exact_sums_and_times(dsn: str) -> None:
    huge = "9" * 60 + "." + "9" * 36
    async with opened(open_store(dsn)) as store:
        await store.write(
            [a_bar(turnover=huge), a_bar(start_ns=START_NS + SECOND_NS, turnover="0." + "0" * 35 + "1")]
        )
    (row,) = await _execute(dsn, "SELECT sum(turnover), min(start_time) FROM bars_numeric")
    assert (row[0], row[1].timestamp()) == (10**60, START_NS // SECOND_NS)


@pytest.mark.parametrize(
    ("change", "match", "retriable"),
    [
        (lambda url: _with_user(url, "tidegate", "s3cret"), "password authentication failed", False),
        (
            lambda url: _with_user(url, "nobody", "s3cret"),
            "authentication failed|does not exist|no pg_hba",
            False,
        ),
        (lambda url: urlsplit(url)._replace(path="/absent").geturl(), '"absent" does not exist', False),
        (lambda url: url.replace(f":{urlsplit(url).port}/", ":1/", 1), "connection refused", True),
        (
            lambda url: url.replace(f"{urlsplit(url).hostname}:", "absent.invalid:", 1),
            "host is not found",
            True,
        ),
    ],
)
async def test_a_wrong_url_is_one_line_with_a_hint_and_without_the_password(
    postgres: str, change: object, match: str, retriable: bool
) -> None:
    assert callable(change)
    for read_only in (False, True):
        with pytest.raises(StoreError, match=match) as caught:
            await open_store(change(postgres), read_only=read_only).open()
        assert caught.value.retriable is retriable
        assert caught.value.hint
        assert len(str(caught.value).splitlines()) == 1
        assert "s3cret" not in str(caught.value)


async def test_a_missing_right_is_named(dsn: str, guest: str) -> None:
    name = urlsplit(guest).username
    own = dsn.rpartition("search_path=")[2]
    with pytest.raises(StoreError, match=r"permission denied for schema|no schema") as caught:
        await open_store(guest).open()
    assert not caught.value.retriable
    async with opened(open_store(dsn)) as store:
        await store.write([a_bar()])
    await _execute(dsn, f"GRANT USAGE ON SCHEMA {own} TO {name}")
    await _execute(dsn, f"GRANT SELECT, INSERT ON bars TO {name}")
    with pytest.raises(StoreError, match="its user has no UPDATE ON bars"):
        await open_store(guest).open()
    async with opened(open_store(guest, read_only=True)) as reader:
        assert await rows(reader) == [a_bar()]
    await _execute(dsn, f"GRANT UPDATE ON bars TO {name}")
    async with opened(open_store(guest)) as store:
        assert (await store.write([a_bar(revision=1)])).written == 1


@pytest.mark.parametrize(
    ("create", "complaint"),
    [
        (
            "CREATE TABLE bars (symbol text, open double precision)",
            "it has no venue, .*open is double precision",
        ),
        ("CREATE VIEW bars AS SELECT 1 AS symbol", "it has no venue"),
    ],
)
async def test_a_table_of_another_making_is_refused_with_what_is_wrong(
    dsn: str, create: str, complaint: str
) -> None:
    await _execute(dsn, create)
    with pytest.raises(StoreError, match=complaint) as caught:
        await open_store(dsn).open()
    assert not caught.value.retriable
    assert "search_path" in caught.value.hint


async def test_a_table_without_its_key_is_refused(dsn: str) -> None:
    async with opened(open_store(dsn)):
        await _execute(dsn, "ALTER TABLE bars DROP CONSTRAINT bars_pkey")
    with pytest.raises(StoreError, match=r"no primary key \(instrument, type, start_ns\)"):
        await open_store(dsn).open()


async def test_reading_makes_no_table(dsn: str) -> None:
    with pytest.raises(StoreError, match="holds no table bars"):
        await open_store(dsn, read_only=True).open()
    assert (await _execute(dsn, "SELECT to_regclass('bars')"))[0][0] is None


async def test_a_bar_that_only_the_database_refuses_is_named_when_it_is_alone(dsn: str) -> None:
    async with opened(open_store(dsn)) as store:
        await _execute(dsn, "ALTER TABLE bars ADD CHECK (trade_count < 1000)")
        bars = [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(50)]
        bad = a_bar(symbol="ODD", trade_count=1000)
        with pytest.raises(BadBar, match="check constraint"):
            await store.write([*bars[:31], bad, *bars[31:]])
        with pytest.raises(BadBar, match=r"ODD.*check constraint") as caught:
            await store.write([bad])
        assert caught.value.bar is bad
        assert await rows(store) == []
        assert (await store.write(bars)).written == 50


async def test_the_next_write_connects_again_after_the_server_has_hung_up(dsn: str) -> None:
    async with opened(open_store(f"{dsn}&application_name=victim")) as store:
        await store.write([a_bar()])
        await _execute(
            dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'"
        )
        with suppress(StoreUnavailable):  # unless it has noticed already
            await store.write([a_bar(revision=1)])
        await store.write([a_bar(revision=1)])
        assert await rows(store) == [a_bar(revision=1)]


async def test_a_cancelled_write_leaves_nothing_and_the_next_one_works(dsn: str) -> None:
    bars = [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(500)]
    async with opened(open_store(dsn)) as store:
        blocker = await asyncpg.connect(dsn)
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE bars")
        write = asyncio.create_task(store.write(bars))
        await _someone_waits_for(dsn, "relation")
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        await transaction.rollback()
        await blocker.close()
        assert await rows(store) == []
        assert (await store.write(bars)).written == len(bars)


async def test_a_read_only_server_is_retriable(dsn: str) -> None:
    async with opened(open_store(dsn)):
        pass
    with pytest.raises(StoreUnavailable, match="read-only"):
        await open_store(f"{dsn}&default_transaction_read_only=on").open()


async def test_bars_go_on_after_the_server_was_killed_between_writes(own_postgres: Postgres) -> None:
    bars = [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(1_000)]
    async with opened(open_store(own_postgres.dsn)) as store:
        await store.write(bars)
        own_postgres.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.write(bars)
        own_postgres.resume()
        later = [a_bar(start_ns=START_NS + n * SECOND_NS, revision=1) for n in range(1_000)]
        assert (await store.write(bars + later)).written == len(bars)
        assert await rows(store, BarQuery(newest=1)) == later[-1:]
