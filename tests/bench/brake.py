"""How long a bars worker goes on taking ticks of a partition whose store says `hard`: milliseconds.

    python -m tests.bench.brake

Ticks flow through one worker, every other one garbage, and each piece of garbage that the worker takes turns up
among the dead letters with its offset: that is how far it got, seen from outside. When the worker has caught up,
one partition after another is told `hard`, and after a while `ok`, as a store would.

Both ends are the broker's append times, one clock. It starts when `hard` is in the log of the feedback topic, and
stops when the first garbage that was not taken came into the log of the ticks. What was taken last lies before
that, so this is an upper bound; at the default rate there is garbage in a partition every millisecond.

A worker loads what reads columns once, after some seconds of this, and has little time for anything else then. What
it takes until that is done is printed, and not counted.
"""

from __future__ import annotations

import argparse
import bisect
import json
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, Message, Producer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.broker import bench_broker
from bench.contenders import Bench
from bench.feed import PARTITIONS
from schemas.dead_letter import HEADER, decode_dead_letter
from schemas.feedback import Feedback, Level, encode_feedback
from streams.simulate import SimulatedFeed
from support.kafka import TestTopics
from support.wait import until
from support.workers import Group, Worker, wait_assigned

TARGET_MS = 100
GARBAGE = b"garbage"

#: How long a partition is held: long enough that all that was taken before is among the dead letters.
HOLD_S = 0.5

#: How often it may be told until columns are loaded.
MOST_BEFORE = 30

#: The worker counts as caught up with a partition when garbage this young is among the dead letters.
CAUGHT_UP_S = 0.1


class Stamped(NamedTuple):
    """A record, and when the broker appended it, in milliseconds."""

    offset: int
    at_ms: int


class Log:
    """Follows one topic: what `keep` makes of its records, by partition."""

    def __init__(self, bootstrap: str, topic: str, keep: Callable[[Message], Stamped | None]) -> None:
        self.kept: list[list[Stamped]] = [[] for _ in range(PARTITIONS)]
        self._keep = keep
        self._stop = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_uncommitted",
                "enable.auto.commit": False,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1000, 0.02):
                if message.error() is None and (kept := self._keep(message)) is not None:
                    self.kept[message.partition()].append(kept)
        self._consumer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


class Flow:
    """Ticks at a steady rate into all partitions, every other one garbage."""

    def __init__(self, bootstrap: str, topic: str, rate: int) -> None:
        self._topic, self._rate = topic, rate
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self._feed = SimulatedFeed(seed=3, instruments=100)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        started, sent = time.monotonic(), 0
        partition_of: dict[str, int] = {}
        while not self._stop.is_set():
            due = int((time.monotonic() - started) * self._rate) - sent
            for n, tick in enumerate(self._feed.ticks((due + 1) // 2, time.time_ns())):
                partition = partition_of.setdefault(tick.symbol, len(partition_of) % PARTITIONS)
                self._producer.produce(self._topic, tick.encode(), key=tick.key(), partition=partition)
                self._producer.produce(self._topic, GARBAGE, partition=n % PARTITIONS)
                sent += 2
            self._producer.poll(0)
            time.sleep(0.001)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(10)


class Store:
    """Says what a store would say."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
        self._epoch = time.time_ns() // 10**6

    def say(self, partition: int, level: Level) -> int:
        """When it was appended, in milliseconds."""
        appended: list[int] = []
        feedback = Feedback(
            coordinator_id="bench",
            queue_size=100 if level is Level.hard else 0,
            capacity=100,
            level=level,
            ts=time.time(),
            partition=partition,
            epoch=self._epoch,
        )
        self._producer.produce(
            self._topic,
            encode_feedback(feedback),
            partition=partition,
            on_delivery=lambda error, message: appended.append(message.timestamp()[1]),
        )
        if self._producer.flush(10) or not appended:
            raise RuntimeError("the broker did not take the feedback")
        return appended[0]


def main() -> None:
    """Measure, and print one line."""
    options = _options()
    with bench_broker() as broker, tempfile.TemporaryDirectory() as folder:
        took = sorted(_measure(Bench(broker.address, Path(folder)), options.rate, options.times))
    figure = {
        "times": len(took),
        "rate": options.rate,
        "p50_ms": median(took),
        "p99_ms": took[int(len(took) * 0.99)],
        "max_ms": took[-1],
    }
    if options.json:
        print(json.dumps({**figure, "took_ms": took}))
        return
    print(f"{'times':>5}  {'p50 ms':>7}  {'p99 ms':>7}  {'max ms':>7}   target: p99 below {TARGET_MS} ms")
    print(
        f"{len(took):>5}  {figure['p50_ms']:>7.0f}  {figure['p99_ms']:>7.0f}  {figure['max_ms']:>7.0f}   "
        f"at {options.rate:,} ticks/s"
    )


def _measure(bench: Bench, rate: int, times: int) -> list[int]:
    with bench.topics("bars.v1", "bars.state.v1", "rate.v1") as topics:
        stamped = {
            name: topics(name, PARTITIONS, message_timestamp_type="LogAppendTime")
            for name in ("ticks", "ticks.dlq.v1", "feedback.v1")
        }
        group = topics.prefix.rstrip(".")
        config = bench.folder / "brake.toml"
        config.write_text(
            f'broker = "{bench.bootstrap}"\ngroup = "{group}"\ntopic_prefix = "{topics.prefix}"\n'
            f'[[ticks]]\ntopic = "{stamped["ticks"]}"\nbars = ["1s"]\n'
        )
        try:
            with Worker(bench.folder, "brake", config, "--roles", "bars") as worker:
                wait_assigned(Group(bench.bootstrap, f"{group}-bars"), 1, stamped["ticks"], [worker])
                until(lambda: worker.events("worker.started"), 30, "the worker runs")
                with (
                    Log(bench.bootstrap, stamped["ticks"], _garbage) as ticks,
                    Log(bench.bootstrap, stamped["ticks.dlq.v1"], _dead) as dead,
                    Flow(bench.bootstrap, stamped["ticks"], rate),
                ):
                    store = Store(bench.bootstrap, stamped["feedback.v1"])
                    partitions = cycle(range(PARTITIONS))
                    for _ in range(MOST_BEFORE):
                        if worker.events("columns.on"):
                            break
                        before = _brake(store, ticks, dead, next(partitions))
                        print(f"{before} ms, not counted: columns are yet to be loaded", file=sys.stderr)
                    took = [_brake(store, ticks, dead, next(partitions)) for _ in range(times)]
                worker.stop()
        finally:
            _delete(topics, *stamped.values())
    return took


def _brake(store: Store, ticks: Log, dead: Log, partition: int) -> int:
    """One `hard`, and how long ticks were taken after it."""
    until(lambda: _caught_up(ticks, dead, partition), 60, "the worker has caught up", 0.005)
    hard_ms = store.say(partition, Level.hard)
    time.sleep(HOLD_S)
    ok_ms = store.say(partition, Level.ok)
    until(lambda: dead.kept[partition][-1].at_ms > ok_ms + 50, 60, "the partition goes on", 0.005)
    last = max(letter.offset for letter in dead.kept[partition] if letter.at_ms < ok_ms)
    garbage = ticks.kept[partition]
    return max(0, garbage[bisect.bisect_right(garbage, (last, 2**62))].at_ms - hard_ms)


def _caught_up(ticks: Log, dead: Log, partition: int) -> bool:
    letters, garbage = dead.kept[partition], ticks.kept[partition]
    if not letters:
        return False
    taken = bisect.bisect_left(garbage, (letters[-1].offset, 0))
    return taken < len(garbage) and garbage[taken].at_ms > (time.time() - CAUGHT_UP_S) * 1000


def _garbage(message: Message) -> Stamped | None:
    return _stamped(message, message.offset()) if message.value() == GARBAGE else None


def _dead(message: Message) -> Stamped:
    headers: Any = dict(message.headers() or ())
    return _stamped(message, decode_dead_letter(headers[HEADER]).offset)


def _stamped(message: Message, offset: int) -> Stamped:
    return Stamped(offset, message.timestamp()[1])


def _delete(topics: TestTopics, *names: str) -> None:
    for future in topics.admin.delete_topics(list(names)).values():
        future.exception(30)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.brake",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=100, help="how often it is told hard (%(default)s)")
    parser.add_argument("--rate", type=int, default=8_000, help="ticks a second (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
