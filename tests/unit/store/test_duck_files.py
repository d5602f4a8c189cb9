"""What can be wrong with a DuckDB file, and what a crash leaves in it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from schemas.errors import StoreError, StoreInUse, StoreRefused
from streams.store.base import BarQuery, open_store
from support.store_contract import a_bar, opened, rows

TESTS = Path(__file__).parents[2]
BATCH = 200

HOLD = """
import asyncio, sys
from streams.store.base import open_store

async def main():
    await open_store(sys.argv[1]).open()
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

WRITE = """
import asyncio, itertools, sys
from streams.store.base import open_store
from support.store_contract import MINUTE_NS, START_NS, a_bar

async def main():
    store, batch = open_store(sys.argv[1]), int(sys.argv[2])
    await store.open()
    for n in itertools.count():
        new = [a_bar(symbol=f"NEW{n}", start_ns=START_NS + k * MINUTE_NS) for k in range(batch)]
        same = [a_bar(start_ns=START_NS + k * MINUTE_NS, revision=n) for k in range(batch)]
        await store.write(new + same)
        print(n, flush=True)

asyncio.run(main())
"""

FILL = """
import asyncio, resource, signal, sys
from schemas.errors import StoreError
from streams.store.base import open_store
from support.store_contract import MINUTE_NS, START_NS, a_bar, rows

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = open_store(sys.argv[1])
    await store.open()
    await store.write([a_bar()])
    limit(200_000)
    bars = [a_bar(symbol=f"S{n}", volume=str(n**9), start_ns=START_NS + n * MINUTE_NS) for n in range(9999)]
    try:
        await store.write(bars)
    except StoreError as error:
        print(type(error).__name__, error.retriable, error, "|", error.hint)
    limit(resource.RLIM_INFINITY)
    print(await store.write(bars))
    print(len(await rows(store)))
    await store.close()

asyncio.run(main())
"""


@contextmanager
def _python(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_another_process_has_open_is_refused_by_name_and_pid(
    tmp_path: Path, read_only: bool
) -> None:
    url = f"duckdb:{tmp_path}/b.duckdb"
    with _python(HOLD, url) as holder:
        assert _line(holder) == "open"
        with pytest.raises(StoreInUse, match=re.escape(f"{url}: process {holder.pid} (")) as caught:
            await open_store(url, read_only=read_only).open()
    assert not caught.value.retriable
    assert "PostgreSQL" in caught.value.hint
    async with opened(open_store(url, read_only=read_only)) as store:
        assert await rows(store) == []


async def test_a_killed_writer_leaves_whole_batches_and_all_that_it_confirmed(tmp_path: Path) -> None:
    url = f"duckdb:{tmp_path}/b.duckdb"
    confirmed = -1
    for lines in (1, 7, 20):
        with _python(WRITE, url, str(BATCH)) as writer:
            for _ in range(lines):
                confirmed = max(confirmed, int(_line(writer)))
            writer.kill()
        async with opened(open_store(url)) as store:
            found = await rows(store)
        new = {bar.symbol for bar in found} - {"BTCUSDT"}
        same = [bar for bar in found if bar.symbol == "BTCUSDT"]
        assert len(found) == (len(new) + 1) * BATCH
        assert new >= {f"NEW{n}" for n in range(confirmed + 1)}
        assert {bar.revision for bar in same} == {len(new) - 1}


async def test_what_a_killed_writer_left_can_be_read_without_writing(tmp_path: Path) -> None:
    url = f"duckdb:{tmp_path}/b.duckdb"
    with _python(WRITE, url, str(BATCH)) as writer:
        assert _line(writer) == "0"
        writer.kill()
    async with opened(open_store(url, read_only=True)) as store:
        assert len(await rows(store, BarQuery(symbol="NEW0"))) == BATCH


def test_a_full_disk_is_retriable_and_the_next_write_goes_on(tmp_path: Path) -> None:
    with _python(FILL, f"duckdb:{tmp_path}/b.duckdb") as process:
        output, _ = process.communicate(timeout=60)
    first, *rest = output.splitlines()
    assert first.startswith("StoreUnavailable True")
    assert "the disk is full" in first
    assert rest == ["WriteResult(written=9999, stale=0, conflicts=[])", "10000"]


async def test_nothing_is_written_into_a_file_that_somebody_has_deleted(tmp_path: Path) -> None:
    url = f"duckdb:{tmp_path}/b.duckdb"
    async with opened(open_store(url)) as store:
        await store.write([a_bar()])
        (tmp_path / "b.duckdb").unlink()
        with pytest.raises(StoreRefused, match="deleted or replaced"):
            await store.write([a_bar(revision=1)])
        await store.write([a_bar(revision=1)])
    async with opened(open_store(url, read_only=True)) as store:
        assert await rows(store) == [a_bar(revision=1)]


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        asyncio.run(open_store(f"duckdb:{tmp_path}/b.duckdb", read_only=True).open())
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"there is no directory {tmp_path}/data"):
        await open_store(f"duckdb:{tmp_path}/data/b.duckdb").open()


async def test_a_directory_is_no_store(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(StoreError, match="is a directory"):
            await open_store(f"duckdb:{tmp_path}", read_only=read_only).open()


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" * 1000])
def test_another_kind_of_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not a DuckDB file"):
        asyncio.run(open_store(f"duckdb:{path}").open())
    assert path.read_bytes() == content


@contextmanager
def _not_writable(path: Path) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(before & ~0o222)
    try:
        yield
    finally:
        path.chmod(before)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "b.duckdb"
    async with opened(open_store(f"duckdb:{path}")):
        pass
    for what in (path, tmp_path):
        with _not_writable(what):
            with pytest.raises(StoreError, match="cannot be written"):
                await open_store(f"duckdb:{path}").open()
            async with opened(open_store(f"duckdb:{path}", read_only=True)) as store:
                assert await rows(store) == []


async def test_a_table_of_another_making_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "b.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE bars (symbol VARCHAR, open DOUBLE, ts TIMESTAMP)")
    with pytest.raises(StoreError, match=r"no venue, .*updated_at; open is DOUBLE where DECIMAL") as caught:
        await open_store(f"duckdb:{path}").open()
    assert not caught.value.retriable
    assert "another file" in caught.value.hint
    with duckdb.connect(path) as connection:
        assert len(connection.execute("DESCRIBE bars").fetchall()) == 3


async def test_a_database_without_bars_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "b.duckdb"
    duckdb.connect(path).close()
    with pytest.raises(StoreError, match="holds no bars"):
        await open_store(f"duckdb:{path}", read_only=True).open()


def _cut(path: Path) -> None:
    os.truncate(path, 100_000)


def _blank(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:12_288] + bytes(100_000))


@pytest.mark.parametrize("damage", [_cut, _blank])
async def test_a_damaged_file_is_an_error_that_names_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "b.duckdb"
    async with opened(open_store(f"duckdb:{path}")) as store:
        await store.write([a_bar(start_ns=n * 10**9) for n in range(10_000)])
    damage(path)
    with pytest.raises(StoreError, match=re.escape(str(path))) as caught:
        await open_store(f"duckdb:{path}").open()
    assert not caught.value.retriable
    assert "damaged" in f"{caught.value} {caught.value.hint}"
