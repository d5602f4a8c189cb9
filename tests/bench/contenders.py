"""Who is measured, each in a process of its own: `run(bench, filled)` gives ticks, seconds and CPU seconds.

Workers are watched from outside, by the offsets that they commit, and their bars are checked after each lap.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import KafkaException

from bench.bars import Made, WrongBarsError, check, count_records, read_bars
from bench.feed import BAR_TYPES, PARTITIONS, Key, Prefilled
from support.kafka import TestTopics
from support.workers import OWN_TOPICS, ROOT, Group, Worker, environment

POLL_S = 0.02
STALL_S = 60

#: Of the ticks, how many of a worker's are not counted.
WARM_UP = 0.25


class Lap(NamedTuple):
    """One contender, once over one topic."""

    ticks: int
    seconds: float
    cpu_seconds: float
    bars: dict[Key, Made]

    @property
    def rate(self) -> float:
        """Ticks a second."""
        if not self.ticks:
            raise RuntimeError("too few ticks for a measurement between commits: take more")
        return self.ticks / self.seconds


@dataclass(frozen=True)
class Bench:
    """Where to run."""

    bootstrap: str
    folder: Path

    @contextmanager
    def topics(self, *names: str) -> Iterator[TestTopics]:
        """Topics of one lap, deleted afterwards."""
        topics = TestTopics(self.bootstrap)
        try:
            for name in names:
                topics(name, PARTITIONS)
            yield topics
        finally:
            made = [topics.prefix + name for name in names]
            for future in topics.admin.delete_topics(made).values():
                future.exception(30)


class _StockWorker(Worker):
    """The stock agent, as `faust worker` runs it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.name = "stock"
        self.log = folder / "stock.log"
        agent = Path(__file__).with_name("stock_agent.py")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, agent, "worker", "--without-web", "-l", "warn"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(**variables),
                cwd=folder,
            )


def tidegate(bench: Bench, filled: Prefilled, bar_types: Collection[str] = tuple(BAR_TYPES)) -> Lap:
    """One `tidegate worker --roles bars` with its default settings."""
    with bench.topics(*OWN_TOPICS) as topics:
        group = topics.prefix.rstrip(".")
        config = bench.folder / "tidegate.toml"
        config.write_text(
            f'broker = "{bench.bootstrap}"\ngroup = "{group}"\ntopic_prefix = "{topics.prefix}"\n'
            f'[[ticks]]\ntopic = "{filled.topic}"\nbars = {json.dumps(list(bar_types))}\n'
        )
        with Worker(bench.folder, "tidegate", config, "--roles", "bars") as worker:
            timed = _follow(worker, Group(bench.bootstrap, f"{group}-bars"), filled)
            worker.stop()
        dead = count_records(bench.bootstrap, f"{topics.prefix}ticks.dlq.v1")
        if dead:
            raise WrongBarsError(f"tidegate: {dead:,} dead letters of ticks without a fault")
        return timed._replace(bars=_checked("tidegate", bench, f"{topics.prefix}bars.v1", filled, bar_types))


def stock(bench: Bench, filled: Prefilled) -> Lap:
    """The agent in stock_agent.py."""
    with bench.topics("bars") as topics:
        bars, group = f"{topics.prefix}bars", f"{topics.prefix}stock"
        with _StockWorker(
            bench.folder, BROKER=bench.bootstrap, GROUP=group, TICKS=filled.topic, BARS=bars
        ) as worker:
            timed = _follow(worker, Group(bench.bootstrap, group), filled)
            worker.stop()
        return timed._replace(bars=_checked("stock", bench, bars, filled))


def aiokafka(bench: Bench, filled: Prefilled) -> Lap:
    """Only `getmany`, with Tidegate's fetch settings."""
    return _raw("aiokafka", bench, filled)


def librdkafka(bench: Bench, filled: Prefilled) -> Lap:
    """Only `consume`."""
    return _raw("librdkafka", bench, filled)


def _raw(client: str, bench: Bench, filled: Prefilled) -> Lap:
    done = subprocess.run(
        [sys.executable, "-m", "bench.raw_clients", client, bench.bootstrap, filled.topic, str(PARTITIONS)],
        env=environment(PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests")))),
        stdout=subprocess.PIPE,
        timeout=600,
        check=True,
    )
    return Lap(**json.loads(done.stdout), bars={})


class _Mark(NamedTuple):
    """How far a worker had come, and what it had used."""

    at: float
    ticks: int
    cpu_seconds: float


def _follow(worker: Worker, group: Group, filled: Prefilled) -> Lap:
    """From the first commit that is seen to the last one that a worker made while there was more to do.

    The first quarter is not counted: a worker loads what reads columns only once it has many ticks.
    The time from there to the end is mostly the wait for the next commit, and would be a second in each lap.
    """
    process = psutil.Process(worker.process.pid)
    marks: list[_Mark] = []
    seen, moved = 0, time.monotonic()
    while seen < filled.ticks:
        if worker.process.poll() is not None or time.monotonic() > moved + STALL_S:
            raise RuntimeError(f"{worker.name} is stuck at {seen:,} of {filled.ticks:,} ticks")
        time.sleep(POLL_S)
        committed = _committed(group, filled.topic)
        if committed > seen:
            seen, moved = committed, time.monotonic()
            marks.append(_Mark(moved, seen, cpu_seconds(process)))
    warm = [mark for mark in marks if mark.ticks >= filled.ticks * WARM_UP]
    first, last = (warm or marks)[0], marks[max(0, len(marks) - 2)]
    return Lap(last.ticks - first.ticks, last.at - first.at, last.cpu_seconds - first.cpu_seconds, {})


def _committed(group: Group, topic: str) -> int:
    try:
        return sum(max(0, offset) for offset in group.committed(topic, PARTITIONS))
    except KafkaException:  # a new group's coordinator has yet to load
        return 0


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time so far, of all its threads."""
    times = process.cpu_times()
    return times.user + times.system


def _checked(
    who: str, bench: Bench, topic: str, filled: Prefilled, bar_types: Collection[str] = tuple(BAR_TYPES)
) -> dict[Key, Made]:
    made = {key: bar for key, bar in read_bars(bench.bootstrap, topic).items() if key.type in BAR_TYPES}
    check(who, made, {key: bar for key, bar in filled.bars.items() if key.type in bar_types})
    return made
