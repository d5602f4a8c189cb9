"""Bars that PostgreSQL refuses, tables that people change under a worker, on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from schemas.bar import Bar, encode_bar
from schemas.dead_letter import Reason
from streams.store.base import BarQuery, open_store
from support.bars import schema
from support.store_contract import START_NS, a_bar, rows
from support.writing import desk

pytestmark = pytest.mark.postgres

SECOND_NS = 10**9


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """A DSN whose tables live in a schema of the test's own."""
    with schema(postgres) as own:
        yield own


async def _execute(dsn: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(sql)) if ";" not in sql else [await connection.execute(sql)]
    finally:
        await connection.close()


def _bars(number: int) -> list[Bar]:
    return [a_bar(start_ns=START_NS + n * SECOND_NS) for n in range(number)]


_CHECK = "ALTER TABLE bars ADD CHECK (trade_count < 1000)"
_RAISING = """
CREATE FUNCTION no_odd() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.trade_count = 1000 THEN RAISE EXCEPTION 'no odd ones'; END IF; RETURN NEW; END $$;
"""
_TRIGGER = "CREATE TRIGGER no_odd BEFORE INSERT ON bars FOR EACH ROW EXECUTE FUNCTION no_odd()"
_AT_COMMIT = """
CREATE CONSTRAINT TRIGGER no_odd AFTER INSERT ON bars DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION no_odd()
"""
_FOREIGN_KEY = """
CREATE TABLE known (symbol text COLLATE "C" PRIMARY KEY); INSERT INTO known VALUES ('BTCUSDT');
ALTER TABLE bars ADD FOREIGN KEY (symbol) REFERENCES known
"""
_UNIQUE = "CREATE UNIQUE INDEX ON bars (first_trade_id) WHERE trade_count = 1000"
_ODD = {"trade_count": 1000}


@pytest.mark.parametrize(
    ("prepare", "poison"),
    [
        (_CHECK, _ODD),
        (_RAISING + _TRIGGER, _ODD),
        (_RAISING + _AT_COMMIT, _ODD),
        (_UNIQUE, _ODD),
        (_FOREIGN_KEY, {"symbol": "ODD"}),
        ("ALTER TABLE bars ALTER vwap SET NOT NULL", {"vwap": None}),
        ("SELECT 1", {"last_trade_id": "a\0b"}),
        ("SELECT 1", {"source_partition": 2**31}),
        ("SELECT 1", {"high": "1" + "0" * 20}),
    ],
    ids=["check", "trigger", "at-commit", "unique", "foreign-key", "null", "nul-byte", "integer", "digits"],
)
async def test_only_the_bars_at_fault_become_dead_letters(
    dsn: str, prepare: str, poison: dict[str, object]
) -> None:
    bars = _bars(200)
    good, odd = list(bars), []
    for n in (0, 77, 199):
        bars[n] = a_bar(start_ns=bars[n].start_ns, **poison)
        odd.append(bars[n])
        good.remove(good[n - len(odd) + 1])
    if prepare == _UNIQUE:
        good.insert(0, odd.pop(0))  # the first of them is as good as any
    async with desk(open_store(dsn), write_batch=50) as at:
        await _execute(dsn, prepare)
        await at.put(bars[:120])
        await at.put(bars[120:])
        await at.drained()
        assert at.dead == [encode_bar(bar) for bar in odd]
        assert {letter.reason for _, letter in at.producer.sent} <= {Reason.refused, Reason.malformed}
        assert at.committable == len(bars)
    reader = open_store(dsn, read_only=True)
    assert await rows(reader, BarQuery(symbol="BTCUSDT")) == good


_RENAME = "DROP VIEW bars_numeric; ALTER TABLE bars RENAME TO kept"
_RESTORE = "ALTER TABLE kept RENAME TO bars"


@pytest.mark.parametrize(
    ("spoil", "words", "mend"),
    [
        (_RENAME, "table bars is gone", _RESTORE),
        (
            f"{_RENAME}; CREATE VIEW bars AS SELECT DISTINCT * FROM kept",
            "cannot insert into view",
            f"DROP VIEW bars; {_RESTORE}",
        ),
        (
            "ALTER TABLE bars RENAME trade_count TO n",
            "it has no trade_count",
            "ALTER TABLE bars RENAME n TO trade_count",
        ),
        (
            "DROP VIEW bars_numeric; ALTER TABLE bars ALTER open TYPE numeric(12, 2)",
            "open is numeric(12,2) where numeric",
            "ALTER TABLE bars ALTER open TYPE numeric",
        ),
        (
            "ALTER TABLE bars ADD who text NOT NULL DEFAULT 'x'; ALTER TABLE bars ALTER who DROP DEFAULT",
            '"who"',
            "ALTER TABLE bars ALTER who SET DEFAULT 'x'",
        ),
        (
            "ALTER TABLE bars DROP CONSTRAINT bars_pkey",
            "no unique or exclusion constraint",
            "ALTER TABLE bars ADD PRIMARY KEY (instrument, type, start_ns)",
        ),
    ],
    ids=["gone", "a-view", "renamed-column", "narrowed", "another-column", "no-key"],
)
async def test_a_table_that_is_changed_under_a_worker_is_waited_for_and_nothing_is_lost(
    dsn: str, spoil: str, words: str, mend: str
) -> None:
    bars = _bars(100)
    async with desk(open_store(dsn)) as at:
        await at.put(bars[:50])
        await at.drained()
        await _execute(dsn, f"{spoil};")
        await at.put(bars[50:])
        text = await at.waiting(words)
        assert len(text.splitlines()) == 1
        assert at.committable == 50
        assert at.dead == []
        await _execute(dsn, f"{mend};")
        await at.drained()
        assert at.committable == 100
        assert at.writer.last_error is None
        assert [bar.start_ns for bar in at.written] == [bar.start_ns for bar in bars]


async def test_a_dropped_table_is_not_made_again_until_a_worker_starts(dsn: str) -> None:
    store = open_store(dsn)
    async with desk(store) as at:
        await at.put(_bars(5))
        await at.drained()
        await _execute(dsn, "DROP TABLE bars CASCADE")
        await at.put(_bars(5))
        await at.waiting("table bars is gone")
        assert (await _execute(dsn, "SELECT to_regclass('bars')"))[0][0] is None
        async with desk(open_store(dsn)):  # somebody starts
            await at.drained()
    assert at.dead == []


async def test_rights_and_credentials_that_are_taken_away_are_waited_for(postgres: str, dsn: str) -> None:
    name, bars = f"g{time.time_ns()}", _bars(40)
    own = dsn.rpartition("search_path=")[2]
    guest = dsn.replace(urlsplit(dsn).netloc.rpartition("@")[0], f"{name}:first", 1)
    await _execute(
        postgres, f"CREATE ROLE {name} LOGIN PASSWORD 'first'; GRANT ALL ON SCHEMA {own} TO {name};"
    )
    try:
        async with desk(open_store(guest)) as at:
            await at.put(bars[:10])
            await at.drained()
            await _execute(dsn, f"ALTER TABLE bars OWNER TO CURRENT_USER; REVOKE ALL ON bars FROM {name};")
            await at.put(bars[10:20])
            await at.waiting("no SELECT ON bars, no INSERT ON bars, no UPDATE ON bars")
            await _execute(dsn, f"GRANT ALL ON bars TO {name};")
            await at.drained()
            await _execute(
                postgres,
                f"ALTER ROLE {name} PASSWORD 'second'; "
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}';",
            )
            await at.put(bars[20:])
            await at.waiting("password authentication failed")
            assert at.committable == 20
            await _execute(postgres, f"ALTER ROLE {name} PASSWORD 'first';")
            await at.drained()
            assert (at.committable, at.dead) == (40, [])
    finally:
        await _execute(postgres, f"DROP OWNED BY {name}; DROP ROLE {name};")


@pytest.mark.parametrize("poisonous", [1, 50, 500])
async def test_isolating_bad_bars_takes_a_bounded_time(
    dsn: str, poisonous: int, measured: Callable[[str, float], None]
) -> None:
    bars = _bars(5_000)
    for n in range(0, 5_000, 5_000 // poisonous):
        bars[n] = a_bar(start_ns=bars[n].start_ns, trade_count=1000)
    async with desk(open_store(dsn)) as at:
        await at.put(_bars(5_000))
        await at.drained()
        await _execute(dsn, "TRUNCATE bars")
        started = time.monotonic()
        await at.put(_bars(5_000))
        await at.drained()
        measured("5,000 good bars, s", time.monotonic() - started)
        await _execute(dsn, "TRUNCATE bars; ALTER TABLE bars ADD CHECK (trade_count < 1000);")
        started = time.monotonic()
        await at.put(bars)
        await at.drained(120)
        taken_s = time.monotonic() - started
        measured(f"5,000 bars of which {poisonous} are refused, s", taken_s)
        assert len(at.dead) == poisonous
        (row,) = await _execute(dsn, "SELECT count(*) FROM bars")
        assert row[0] == 5_000 - poisonous
        assert taken_s < {1: 10, 50: 30, 500: 90}[poisonous]
