"""Other stream processors over the same ticks, each in a virtual environment of its own.

A peer that cannot be installed or run here, or whose bars are wrong, gets a line that says so, never a figure.
Peers are timed by their bars, for not all of them commit offsets: from the first that is appended to the last, on
the broker's clock, and the ticks of the first are not counted. That is generous by what stands in open windows when
the first bar is closed. Pathway publishes next to nothing before it has read nearly everything, so it is timed from
its start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
from confluent_kafka import Consumer, TopicPartition

from bench.contenders import Bench, Lap
from bench.feed import PARTITIONS, Key, Prefilled
from support.kafka import TestTopics
from support.workers import environment

HERE = Path(__file__).parent
STALL_S = 120

#: Of a bar's volume, where it is a sum of floats.
TOLERANCE = Decimal("1e-9")


class PeerError(Exception):
    """Why there is no figure of a peer."""


class PeerBar(msgspec.Struct):
    """What peers must agree on. `diff` is -1 where Pathway takes a row back."""

    instrument: str
    type: str
    start_ns: int
    trade_count: int
    volume: Decimal
    diff: int = 1


class _Mark(NamedTuple):
    """When the broker appended a bar, in seconds, and what the peer had used."""

    at: float
    cpu_seconds: float


@dataclass(frozen=True)
class Peer:
    """What is installed, what is run, and how its bars are not Tidegate's."""

    name: str
    requirements: tuple[str, ...]
    arguments: tuple[str, ...]
    differs: str
    from_start: bool = False

    @property
    def folder(self) -> Path:
        """Where its virtual environment is."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        python = f"py{sys.version_info.major}.{sys.version_info.minor}"
        return cache / "tidegate-bench" / f"{'-'.join(self.requirements)}-{python}".replace("==", "-")


PEERS = (
    Peer(
        "Quix Streams",
        ("quixstreams==3.28.1",),
        (str(HERE / "quix_bars.py"),),
        "float sums; state in RocksDB and a changelog; late ticks are left out; no search for duplicates",
    ),
    Peer(
        "Bytewax",
        ("bytewax==0.21.1", "confluent-kafka==2.16.1", "msgspec==0.22.0"),
        ("-m", "bytewax.run", "bytewax_bars:flow"),
        "exact sums; no state that survives; late ticks are left out; the clock moves the watermark, too",
    ),
    Peer(
        "Pathway",
        ("pathway==0.33.0",),
        (str(HERE / "pathway_bars.py"),),
        "float sums; no state that survives; bars never close: each change is published, once a second; "
        "open and close by arrival; timed with its start, some seconds",
        from_start=True,
    ),
)


def run_peer(peer: Peer, bench: Bench, filled: Prefilled) -> Lap:
    """One lap. Raises PeerError."""
    python = _install(peer)
    topics = TestTopics(bench.bootstrap)
    bars = topics("bars", PARTITIONS, message_timestamp_type="LogAppendTime")
    group = f"{topics.prefix}peer"
    folder = bench.folder / uuid.uuid4().hex
    folder.mkdir()
    variables = {"BROKER": bench.bootstrap, "GROUP": group, "TICKS": filled.topic, "BARS": bars}
    try:
        with _started(peer, python, folder, variables) as process:
            start = _Mark(time.time(), 0.0) if peer.from_start else None
            return _follow(process, bench.bootstrap, bars, filled, start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _delete(topics, bars, group)


def _install(peer: Peer) -> Path:
    python, ready = peer.folder / "bin" / "python", peer.folder / "ready"
    if ready.exists():
        return python
    shutil.rmtree(peer.folder, ignore_errors=True)
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", peer.folder],
        [python, "-m", "pip", "install", "--quiet", *peer.requirements],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise PeerError(f"cannot be installed here: {_last_line(done.stderr)}")
    ready.touch()
    return python


@contextmanager
def _started(
    peer: Peer, python: Path, folder: Path, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "log"
    variables |= {"PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *peer.arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**variables),
            cwd=folder,
        )
    try:
        yield process
    except PeerError as error:
        raise PeerError(f"{error}: {_last_line(log.read_text(errors='replace'))}".rstrip(": ")) from None
    finally:
        process.kill()
        process.wait()


def _follow(
    process: subprocess.Popen[bytes], bootstrap: str, topic: str, filled: Prefilled, first: _Mark | None
) -> Lap:
    """From `first`, or else the first bar, until all ticks are in bars of each type. Raises PeerError."""
    usage = psutil.Process(process.pid)
    decode = msgspec.json.Decoder(PeerBar).decode
    made: dict[Key, PeerBar] = {}
    due = sum(sums.trade_count for sums in filled.bars.values())
    counted = uncounted = 0
    last = _Mark(0.0, 0.0)
    moved = time.monotonic()
    consumer = _consumer(bootstrap, topic)
    try:
        while counted < due:
            messages = consumer.consume(10_000, 0.1)
            if process.poll() is not None:
                raise PeerError(f"ended with exit {process.returncode}")
            if time.monotonic() > moved + STALL_S:
                raise PeerError(f"nothing came for {STALL_S} s, at {counted:,} of {due:,} ticks in bars")
            if not messages:
                continue
            moved = time.monotonic()
            used = _cpu(usage)
            for message in messages:
                if message.error() is not None:
                    continue
                bar = decode(message.value())
                key = Key(bar.instrument, bar.type, bar.start_ns)
                if bar.diff < 0 or key not in filled.bars:
                    continue
                last = _Mark(message.timestamp()[1] / 1000, used)
                first = first or last
                before = made.get(key)
                change = bar.trade_count - (before.trade_count if before else 0)
                made[key] = bar
                counted += change
                if last.at == first.at and key.type == "1s":
                    uncounted += change
    finally:
        consumer.close()
    assert first is not None
    _check(made, filled)
    ticks = sum(sums.trade_count for key, sums in filled.bars.items() if key.type == "1s") - uncounted
    return Lap(ticks, last.at - first.at, last.cpu_seconds - first.cpu_seconds, {})


def _check(made: dict[Key, PeerBar], filled: Prefilled) -> None:
    wrong = [
        key
        for key, sums in filled.bars.items()
        if (bar := made.get(key)) is None
        or bar.trade_count != sums.trade_count
        or abs(bar.volume - sums.volume) > TOLERANCE * sums.volume
    ]
    if wrong:
        key = wrong[0]
        raise PeerError(
            f"{len(wrong):,} of its bars are wrong, such as {made.get(key)}, not {filled.bars[key]}"
        )


def _consumer(bootstrap: str, topic: str) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


def _delete(topics: TestTopics, bars: str, group: str) -> None:
    """Its bars, and the changelogs that it made."""
    made = [name for name in topics.admin.list_topics(timeout=10).topics if name == bars or group in name]
    for future in topics.admin.delete_topics(made).values():
        future.exception(30)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
