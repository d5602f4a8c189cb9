"""What is done to a run and to a worker on purpose, or by a laptop that is closed."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run import BASE, csv_file

from support.cli import tidegate
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, environment

SUSPENDED_S = 8.0
"""Longer than the session timeout of a run on the embedded broker."""


def _row(number: int) -> str:
    return f"S{number % 20},{BASE + number * 10**7},,{100 + number % 9},0.5,{number},buy,"


HALVES = f"""
import asyncio, json, sys
from agents import app
from streams import logs
from streams.cli.run import summarise
from streams.loop import whole_loop
from streams.settings import TickTopic

async def main():
    tick = TickTopic(feed="csv", bars=("10m",), idle="366d")
    async with whole_loop(app, tick, broker=None, store_url="duckdb:tidegate.duckdb") as loop:
        for half in range(2):
            for n in range(half * 10_000, (half + 1) * 10_000):
                row = f"S{{n % 20}},{{{BASE} + n * 10**7}},,{{100 + n % 9}},0.5,{{n}},buy,"
                await loop.publish(row.encode(), f"S{{n % 20}}".encode())
            while loop.applied < loop.published:
                await asyncio.sleep(0.01)
            if half == 0:
                print("half", flush=True)
                await asyncio.to_thread(sys.stdin.readline)
        await loop.finish()
        print(json.dumps(summarise(loop, 0, 1.0)))

logs.configure("ERROR")
asyncio.run(main())
"""


@pytest.mark.embedded
def test_a_run_that_was_suspended_for_longer_than_its_session_counts_every_tick_once(tmp_path: Path) -> None:
    pipe, command = subprocess.PIPE, [sys.executable, "-c", HALVES]
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, env=environment()) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"half\n"
        run.send_signal(signal.SIGSTOP)
        time.sleep(SUSPENDED_S)
        run.send_signal(signal.SIGCONT)
        out, _ = run.communicate(b"\n", timeout=60)
    assert run.returncode == 0
    rows = tidegate("bars", "--store", "duckdb:tidegate.duckdb", "--format", "csv", cwd=tmp_path).stdout
    counts = [int(row["trade_count"]) for row in csv.DictReader(io.StringIO(rows.decode()))]
    assert counts == [1000] * 20
    found = json.loads(out)
    assert (found["ticks_read"], found["ticks_accepted"], found["bars"]) == (20_000, 20_000, {"10m": 20})


@pytest.mark.embedded
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "rows", [["rubbish", _row(1)], [_row(1), "rubbish"]]
)  # the last one: all is done by then
def test_a_full_disk_under_the_dead_letters_is_told(rows: list[str], tmp_path: Path) -> None:
    path = csv_file(tmp_path / "t.csv", rows)
    done = tidegate("run", path, "--dead-letters", "/dev/full", cwd=tmp_path)
    assert done.returncode == 1
    assert "tidegate: --dead-letters /dev/full: No space left on device" in done.stderr.decode().splitlines()


@pytest.mark.embedded
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("options", [["--json"], []])
def test_a_full_disk_under_the_report_is_told(options: list[str], tmp_path: Path) -> None:
    path = csv_file(tmp_path / "t.csv", [_row(1)])
    command = [sys.executable, "-m", "agents", "run", str(path), *options]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment(), cwd=tmp_path, timeout=60
        )
    assert done.returncode == 1
    told = done.stderr.decode()
    assert "tidegate: standard output: No space left on device" in told.splitlines()
    assert "Traceback" not in told
    assert "Exception ignored" not in told


@pytest.mark.kafka
def test_sigterm_ends_a_run_and_deletes_its_topics(kafka: str, topics: TestTopics, tmp_path: Path) -> None:
    def of_runs() -> set[str]:
        return {name for name in topics.admin.list_topics(timeout=10).topics if name.startswith("tidegate-")}

    before = of_runs()
    path = csv_file(tmp_path / "t.csv", [_row(number) for number in range(200_000)])
    command = [sys.executable, "-m", "agents", "run", str(path), "--broker", kafka, "--bars", "10m"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env=environment()) as run:
        until(lambda: len(of_runs() - before) >= 6, 30, "the topics of the run are there")
        time.sleep(1)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err.decode()
    until(lambda: not of_runs() - before, 20, "the topics of the run are gone")


@pytest.mark.kafka
@pytest.mark.parametrize("short", ["ticks.dlq.v1", "rate.v1"])
def test_a_worker_refuses_to_start_with_too_few_partitions_to_write_to(
    short: str, kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name, partitions=1 if name == short else 4)
    (tmp_path / "tidegate.toml").write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{topics.prefix}"\n'
        f'[[ticks]]\ntopic = "{topics.prefix}ticks.v1"\n'
    )
    done = tidegate("worker", cwd=tmp_path, timeout_s=30)
    assert done.returncode == 1
    assert f"{topics.prefix}{short} has 1" in done.stderr.decode()
