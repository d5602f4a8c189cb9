"""DuckDB on a disk that fills up: a worker waits until there is room, a run ends with the error."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.bar import Bar
from streams.store.base import open_store
from support.cli import tidegate
from support.store_contract import MINUTE_NS, START_NS, a_bar, rows
from support.writing import desk

DISK = "4m"
TICKS = 15_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tidegate-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _bars(number: int) -> list[Bar]:
    return [a_bar(symbol=f"S{n}", volume=str(n**9), start_ns=START_NS + n * MINUTE_NS) for n in range(number)]


async def test_a_worker_waits_for_room_and_loses_nothing(disk: Path) -> None:
    ballast, bars = disk / "ballast", _bars(8_000)
    async with desk(open_store(f"duckdb:{disk}/b.duckdb"), write_batch=2_000) as at:
        await at.put(bars[:1_000])
        await at.drained()
        ballast.write_bytes(bytes(3 << 20))
        await at.put(bars[1_000:])
        text = await at.waiting("the disk is full")
        assert str(disk) in text
        assert at.committable == 1_000
        ballast.unlink()
        await at.drained()
        assert (at.committable, at.dead, at.writer.last_error) == (len(bars), [], None)
    found = await rows(open_store(f"duckdb:{disk}/b.duckdb", read_only=True))
    assert len(found) == len(bars)


async def test_a_worker_that_starts_on_a_full_disk_waits_for_room(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((4 << 20) - 4096))
    async with desk(open_store(f"duckdb:{disk}/b.duckdb")) as at:
        await at.waiting("the disk is full")
        ballast.unlink()
        await at.put(_bars(10))
        await at.drained()
    assert len(await rows(open_store(f"duckdb:{disk}/b.duckdb", read_only=True))) == 10


@pytest.mark.embedded
def test_a_run_ends_with_the_error(disk: Path, tmp_path: Path) -> None:
    (disk / "ballast").write_bytes(bytes(3 << 20))
    lines = (f"S{n},{(START_NS + n * 10**9)},,{n + 1}.5,1,{n},buy," for n in range(TICKS))
    (tmp_path / "ticks.csv").write_text(
        "\n".join(("symbol,ts_ns,recv_ns,price,size,trade_id,side,cond", *lines)) + "\n"
    )
    started = time.monotonic()
    done = tidegate("run", "ticks.csv", "--store", f"duckdb:{disk}/b.duckdb", cwd=tmp_path, timeout_s=90)
    assert done.returncode == 1
    errors = done.stderr.decode()
    (told,) = [line for line in errors.splitlines() if line.startswith("tidegate: ")]
    assert "the disk is full" in told
    assert "hint: free some space" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - started < 60
