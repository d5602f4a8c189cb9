"""``tidegate store init`` and ``check``, and workers without tables, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.store.base import open_store
from support.bars import execute, schema
from support.cli import assert_one_clear_line, tidegate
from support.inprocess import Done, in_process
from support.postgres import Postgres
from support.store_contract import a_bar, opened

pytestmark = pytest.mark.postgres

TENANT = "3f2c6d0e-9d5d-4d8e-8f3e-0c7c2f6a1b11"
STORES = {
    "market-data-store": ("market-data-store+{dsn}", ["tidegate_bars", "bars_ohlcv"]),
    "tenants": (f"market-data-store+{{dsn}}&tenant={TENANT}", ["tidegate_bars", "bars"]),
    "own": ("{dsn}", ["bars"]),
}


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """A DSN whose tables live in a schema of the test's own."""
    with schema(postgres) as own:
        yield own


Store = Callable[..., Done]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Store:
    """Runs ``tidegate store COMMAND --store URL``."""
    monkeypatch.chdir(tmp_path)
    run = in_process(monkeypatch, capsys)
    return lambda command, url, *flags: run("store", command, "--store", url, *flags)


@pytest.mark.parametrize("kind", STORES)
def test_init_makes_what_is_missing_and_says_so_and_again_does_nothing(
    dsn: str, kind: str, store: Store
) -> None:
    form, tables = STORES[kind]
    url = form.format(dsn=dsn)
    before = store("check", url)
    assert before.status == 1
    assert before.out.count("there is no such table") == len(tables)
    assert "tidegate store init" in before.err
    made, again, after = store("init", url), store("init", url), store("check", url)
    assert [done.status for done in (made, again, after)] == [0, 0, 0], made.err
    assert made.out.splitlines() == [f"{table}: made" for table in tables]
    assert again.out.splitlines() == [f"{table}: as it must be" for table in tables]
    assert after.out.count("as it must be") == len(tables)

    async def write() -> None:
        async with opened(open_store(url)) as opened_store:
            assert (await opened_store.write([a_bar(volume="3")])).written == 1

    asyncio.run(write())


@pytest.mark.parametrize("kind", STORES)
def test_a_dry_run_changes_nothing_and_its_sql_makes_the_tables(dsn: str, kind: str, store: Store) -> None:
    url = STORES[kind][0].format(dsn=dsn)
    printed = store("init", url, "--dry-run")
    assert printed.status == 0, printed.err
    assert store("check", url).status == 1
    _execute_all(dsn, printed.out)
    assert store("check", url).status == 0
    assert store("init", url, "--dry-run").out == ""


def _execute_all(dsn: str, sql: str) -> None:
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())


_EXTENSION = """
CREATE TABLE calls (relation regclass, column_name name, chunk interval);
CREATE FUNCTION create_hypertable(
    relation regclass, column_name name, chunk_time_interval interval, if_not_exists boolean
) RETURNS void LANGUAGE sql AS 'INSERT INTO @extschema@.calls VALUES ($1, $2, $3)';
"""
_CONTROL = "default_version = '1.0'\nrelocatable = false\n"


def test_where_an_extension_timescaledb_is_installed_its_function_is_called(
    own_postgres: Postgres, store: Store
) -> None:
    # No TimescaleDB can be had here: this is an extension of its name with a function of the same call. What the
    # real one makes of the call is not tested.
    (row,) = execute(own_postgres.dsn, "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'")
    files = {"timescaledb.control": _CONTROL, "timescaledb--1.0.sql": _EXTENSION}
    for name, text in files.items():
        script = f"cat > {row[0]}/extension/{name} <<'END'\n{text}\nEND"
        container = own_postgres.get_wrapped_container()
        assert container.exec_run(["sh", "-c", script], user="root").exit_code == 0
    _execute_all(own_postgres.dsn, "CREATE SCHEMA ts; CREATE EXTENSION timescaledb SCHEMA ts")
    for form, tables in (STORES["market-data-store"], STORES["tenants"]):
        done = store("init", form.format(dsn=f"{own_postgres.dsn}?application_name=t"))
        assert done.status == 0, done.err
        assert f"{tables[1]}: made" in done.out
    calls = execute(own_postgres.dsn, "SELECT relation::text, column_name, chunk FROM ts.calls ORDER BY 1")
    assert [(call[0], call[1], call[2].days) for call in calls] == [
        ("bars", "ts", 7),
        ("bars_ohlcv", "ts", 7),
    ]


def test_two_tables_called_bars_are_told_apart(dsn: str, store: Store) -> None:
    tenants, own = f"market-data-store+{dsn}&tenant={TENANT}", dsn
    assert store("init", own).status == 0
    clash = store("init", tenants)
    assert clash.status == 1
    assert "it is the table of Tidegate's own PostgreSQL store" in clash.out
    assert "search_path" in clash.err
    execute(dsn, "DROP TABLE bars CASCADE")
    assert store("init", tenants).status == 0
    for done in (store("check", own), store("init", own)):
        assert done.status == 1
        assert "it is market-data-store's table of tenants" in done.out


def test_check_names_what_is_different(dsn: str, store: Store) -> None:
    url = f"market-data-store+{dsn}"
    store("init", url)
    execute(dsn, "ALTER TABLE bars_ohlcv ALTER volume TYPE numeric(12, 2)")
    execute(dsn, "ALTER TABLE tidegate_bars DROP CONSTRAINT tidegate_bars_pkey")
    done = store("check", url)
    assert done.status == 1
    assert "volume is numeric(12,2) where double precision or numeric is needed" in done.out
    assert "it has no unique key (instrument, type, start_ns, tenant)" in done.out


def test_a_database_that_is_away_or_makes_its_own_table_is_one_clear_line(tmp_path: Path) -> None:
    gone = "market-data-store+postgresql://u:s3cret@127.0.0.1:1/db"
    done = tidegate("store", "check", "--store", gone, cwd=tmp_path)
    assert_one_clear_line(done, "connection refused")
    assert b"s3cret" not in done.stderr
    own = tidegate("store", "init", "--store", "duckdb:x.duckdb", cwd=tmp_path)
    assert_one_clear_line(own, "makes its table by itself")


def test_bars_are_shown_exactly_from_beside_the_ecosystems_table(
    dsn: str, store: Store, tmp_path: Path
) -> None:
    url = f"market-data-store+{dsn}"
    store("init", url)

    async def write() -> None:
        async with opened(open_store(url)) as opened_store:
            await opened_store.write([a_bar(open="61837.123456789012345678")])

    asyncio.run(write())
    shown = tidegate("bars", "--store", url, "--format", "csv", cwd=tmp_path)
    assert b"61837.123456789012345678" in shown.stdout, shown.stderr
