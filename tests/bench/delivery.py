"""From a tick to its bar: milliseconds from the tick that closes a bar to the bar, at a steady rate of ticks.

    python -m tests.bench.delivery
    python -m tests.bench.delivery --readers

A bar closes with the first tick of its instrument whose event time is past the end of the bar and the grace, so the
grace is no part of the delay: it has passed when the clock starts. It starts when that tick is in the broker's log,
and stops when the bar is: from then on each can be read. Both moments are those that the broker notes with the
records (their append times), so nothing has to be read while ticks flow. Bars are of 1s, so all instruments close
theirs in the same moment.

With `--readers` the clock stops when a reader in this process has the bar, one fetch later. One takes what is not
committed yet, as the store does with `delivery = "at_least_once"`, and one takes committed bars only, as with
`"exactly_once"`. They need a share of the cores themselves.

The worker owns its partitions before the first tick is sent, and the first seconds are not counted. There is no
figure if the rate was not reached, by the append times of the ticks; the exit status is 1 then. Each interval takes
about two minutes and a half.

Bars wait the longer, the nearer a core is to its limit, so beside each figure stands how many cores were busy while
ticks flowed: with the worker, whose threads share one interpreter, and with all there is, the broker and the feeder
included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
from confluent_kafka import Consumer, KafkaError, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.broker import bench_broker
from bench.contenders import Bench, cpu_seconds
from bench.feed import INSTRUMENTS, PARTITIONS
from schemas.bar import decode_bar
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, ROOT, Group, Worker, environment, wait_assigned

SECOND = 10**9
GRACE_NS = SECOND
IN_LOG = "in the log"
ISOLATIONS = ("read_uncommitted", "read_committed")
TARGET = f"target: p99 below 50 ms at 50,000 ticks/s, {IN_LOG}"

#: Seconds at the beginning that are not counted: a broker that was just started compiles itself until then.
WARM_UP_S = 40

#: Of the rate that was asked for: less is no measurement of it.
REACHED = 0.98

BarId = tuple[str, int]


class Cores(NamedTuple):
    """How many were busy on average."""

    worker: float
    machine: float


class Figure(NamedTuple):
    """How long bars took, ms, and how many cores were busy."""

    checkpoint: str
    bars_are: str
    """In the log, or read: by whom."""
    ticks_per_second: int
    bars: int
    p50: float
    p99: float
    max: float
    worker_cores: float
    machine_cores: float


class TooSlow(Exception):
    """The ticks did not come at the rate that was asked for."""


class Tick(msgspec.Struct, gc=False):
    """What decides when a bar closes."""

    symbol: str
    venue: str
    ts_ns: int


@dataclass
class Fed:
    """What the log of ticks says."""

    closed: dict[BarId, float] = field(default_factory=dict)
    """When the tick that closed each bar was appended, seconds since the epoch; without those of the warm-up."""
    per_second: Counter[int] = field(default_factory=Counter)
    """Ticks appended in each second of the clock."""

    def rate(self) -> int:
        """Ticks a second; the first and the last second were not full."""
        full = sorted(self.per_second)[1:-1]
        return round(sum(self.per_second[second] for second in full) / len(full))


class Reader:
    """Notes when it gets each closed bar."""

    def __init__(self, bootstrap: str, topic: str, isolation: str) -> None:
        self._seen: dict[BarId, float] = {}
        self._taken: deque[tuple[float, bytes]] = deque()
        self._stop = threading.Event()
        self._consumer = _consumer(bootstrap, topic, isolation)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.1)  # one at a time: `consume` waits for more
            if message is not None and message.error() is None:
                self._taken.append((time.time(), message.value()))
        self._consumer.close()

    def seen(self) -> dict[BarId, float]:
        """When each bar came first, seconds since the epoch. Decodes, and so is for when all is over."""
        while self._taken:
            at, value = self._taken.popleft()
            bar = decode_bar(value)
            if bar.final:
                self._seen.setdefault((bar.instrument, bar.end_ns), at)
        return self._seen

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


def main() -> None:
    """Measure, and print a line for each checkpoint interval and kind of reader."""
    options = _options()
    figures: list[Figure] = []
    missed = False
    if not options.json:
        print(
            f"{'checkpoint':>10}  {'bars are':<16}  {'ticks/s':>7}  {'bars':>7}  "
            f"{'p50 ms':>7}  {'p99 ms':>7}  {'max ms':>7}  {'cores: worker':>13}  {'all':>4} of {os.cpu_count()}",
            flush=True,
        )
    with bench_broker() as broker, tempfile.TemporaryDirectory() as folder:
        for checkpoint in options.checkpoint:
            try:
                found = _measure(Bench(broker.address, Path(folder)), checkpoint, options)
            except TooSlow as exc:
                missed = True
                print(f"{checkpoint:>10}  no figure: {exc}", file=sys.stderr, flush=True)
                continue
            figures += found
            if not options.json:
                _show(found)
    if options.json:
        print(json.dumps([figure._asdict() for figure in figures], indent=2))
    else:
        print(TARGET)
    if missed:
        raise SystemExit(1)


def _show(figures: list[Figure]) -> None:
    for f in figures:
        print(
            f"{f.checkpoint:>10}  {f.bars_are:<16}  {f.ticks_per_second:>7,}  {f.bars:>7,}  "
            f"{f.p50:>7.0f}  {f.p99:>7.0f}  {f.max:>7.0f}  {f.worker_cores:>13.2f}  {f.machine_cores:>4.2f}",
            flush=True,
        )


def _measure(bench: Bench, checkpoint: str, options: argparse.Namespace) -> list[Figure]:
    with bench.topics(*(name for name in OWN_TOPICS if name != "bars.v1")) as topics:
        ticks = topics("ticks", PARTITIONS, message_timestamp_type="LogAppendTime")
        bars = topics("bars.v1", PARTITIONS, message_timestamp_type="LogAppendTime")
        group = topics.prefix.rstrip(".")
        config = bench.folder / "delivery.toml"
        config.write_text(
            f'broker = "{bench.bootstrap}"\ngroup = "{group}"\ntopic_prefix = "{topics.prefix}"\n'
            f'checkpoint = "{checkpoint}"\n[[ticks]]\ntopic = "{ticks}"\nbars = ["1s"]\n'
            f'grace = "{GRACE_NS // SECOND}s"\nidle = "60s"\n'
        )
        try:
            with (
                _feeder(bench.bootstrap, ticks, options) as feeder,
                Worker(bench.folder, "delivery", config, "--roles", "bars") as worker,
            ):
                wait_assigned(Group(bench.bootstrap, f"{group}-bars"), 1, ticks, [worker])
                until(lambda: worker.events("worker.started"), 30, "the worker runs")
                isolations = ISOLATIONS if options.readers else ()
                readers = {name: Reader(bench.bootstrap, bars, name) for name in isolations}
                try:
                    with _busy(worker) as cores:
                        _feed(feeder, options.seconds)
                    fed = _read_back(bench.bootstrap, ticks)
                    for reader in readers.values():
                        until(partial(_has_all, reader, fed), 60, "all bars are read")
                finally:
                    for reader in readers.values():
                        reader.stop()
                worker.stop()
            seen = {name: reader.seen() for name, reader in readers.items()}
            seen[IN_LOG] = _appended(bench.bootstrap, bars)
            if lacking := fed.closed.keys() - seen[IN_LOG].keys():
                raise RuntimeError(f"{len(lacking)} bars are missing: {sorted(lacking)[:3]} ...")
        finally:
            _delete(topics, ticks, bars)
    if fed.rate() < options.rate * REACHED:
        raise TooSlow(f"{fed.rate():,} ticks/s came, not {options.rate:,}")
    return [_figure(checkpoint, name, fed, seen[name], cores[0]) for name in (IN_LOG, *readers)]


def _has_all(reader: Reader, fed: Fed) -> bool:
    return fed.closed.keys() <= reader.seen().keys()


@contextmanager
def _busy(worker: Worker) -> Iterator[list[Cores]]:
    """Measures until it is left; what it gives holds the figure then."""
    process = psutil.Process(worker.process.pid)
    began, of_worker, idle = time.monotonic(), cpu_seconds(process), psutil.cpu_times().idle
    cores: list[Cores] = []
    yield cores
    seconds = time.monotonic() - began
    idle_cores = (psutil.cpu_times().idle - idle) / seconds
    cores.append(Cores((cpu_seconds(process) - of_worker) / seconds, (os.cpu_count() or 1) - idle_cores))


def _figure(checkpoint: str, bars_are: str, fed: Fed, seen: dict[BarId, float], cores: Cores) -> Figure:
    took = sorted((seen[bar] - at) * 1000 for bar, at in fed.closed.items())
    middle, high = took[len(took) // 2], took[int(len(took) * 0.99)]
    return Figure(checkpoint, bars_are, fed.rate(), len(took), middle, high, took[-1], *cores)


@contextmanager
def _feeder(bootstrap: str, topic: str, options: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """A feeder that is ready."""
    arguments = (bootstrap, topic, str(options.rate), str(options.seconds), str(INSTRUMENTS))
    with subprocess.Popen(
        [sys.executable, "-m", "bench.feeder", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests")))),
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != b"ready":
                raise RuntimeError(f"the feeder ended with {process.wait(10)}")
            yield process
        finally:
            process.kill()


def _feed(feeder: subprocess.Popen[bytes], seconds: int) -> None:
    feeder.communicate(b"go\n", timeout=3 * seconds + 60)
    if feeder.returncode:
        raise RuntimeError(f"the feeder ended with {feeder.returncode}")


def _messages(bootstrap: str, topic: str) -> Iterator[tuple[bytes, float]]:
    """The value of each record, and when it was appended, seconds since the epoch."""
    consumer = _consumer(bootstrap, topic, "read_uncommitted")
    ends = 0
    while ends < PARTITIONS:
        for message in consumer.consume(10_000, 1):
            if (error := message.error()) is None:
                yield message.value(), message.timestamp()[1] / 1000
            elif error.code() == KafkaError._PARTITION_EOF:
                ends += 1
            else:
                raise RuntimeError(error.str())
    consumer.close()


def _appended(bootstrap: str, topic: str) -> dict[BarId, float]:
    """When each bar came into the log first."""
    found: dict[BarId, float] = {}
    for value, appended in _messages(bootstrap, topic):
        bar = decode_bar(value)
        if bar.final:
            found.setdefault((bar.instrument, bar.end_ns), appended)
    return found


def _read_back(bootstrap: str, topic: str) -> Fed:
    decode = msgspec.json.Decoder(Tick).decode
    pending: dict[str, set[int]] = {}
    watermarks: dict[str, int] = {}
    fed = Fed()
    for value, appended in _messages(bootstrap, topic):
        tick = decode(value)
        fed.per_second[int(appended)] += 1
        name = f"{tick.venue}:{tick.symbol}"
        open_ends = pending.setdefault(name, set())
        open_ends.add(tick.ts_ns - tick.ts_ns % SECOND + SECOND)
        watermarks[name] = max(watermarks.get(name, 0), tick.ts_ns)
        for end_ns in [end for end in open_ends if end <= watermarks[name] - GRACE_NS]:
            open_ends.discard(end_ns)
            fed.closed.setdefault((name, end_ns), appended)
    counted_from = min(fed.per_second) + WARM_UP_S
    fed.closed = {bar: at for bar, at in fed.closed.items() if at >= counted_from}
    return fed


def _consumer(bootstrap: str, topic: str, isolation: str) -> Any:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


def _delete(topics: TestTopics, *names: str) -> None:
    for future in topics.admin.delete_topics(list(names)).values():
        future.exception(30)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.delivery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", nargs="+", default=["1s", "100ms"], help="intervals to measure (%(default)s)"
    )
    parser.add_argument("--rate", type=int, default=50_000, help="ticks a second (%(default)s)")
    parser.add_argument("--seconds", type=int, default=80, help="how long they flow (%(default)s)")
    parser.add_argument("--readers", action="store_true", help="measure until bars are read, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
