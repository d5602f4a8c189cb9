"""What reading only committed bars costs: milliseconds from the tick that closes a bar to the bar.

    python -m tests.bench.delivery

Ticks flow at a steady rate through one bars worker. The clock starts when the tick that closes a bar is in the
broker's log (its append time), and stops when a reader has the bar: one that reads what is not committed yet, as
the store does with `delivery = "at_least_once"`, and one that reads committed bars only, as with `"exactly_once"`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.broker import bench_broker
from bench.contenders import Bench
from bench.feed import PARTITIONS
from schemas.bar import decode_bar
from schemas.codecs import get_codec
from streams.simulate import SimulatedFeed
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

SECOND = 10**9
GRACE_NS = SECOND
ISOLATIONS = ("read_uncommitted", "read_committed")

BarId = tuple[str, int]


class Figure(NamedTuple):
    """How long bars took, ms."""

    checkpoint: str
    isolation: str
    bars: int
    p50: float
    p99: float
    max: float


class Reader:
    """Notes when it gets each closed bar."""

    def __init__(self, bootstrap: str, topic: str, isolation: str) -> None:
        self.seen: dict[BarId, float] = {}
        self._stop = threading.Event()
        self._consumer = _consumer(bootstrap, topic, isolation)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1000, 0.01):
                if message.error() is None:
                    now = time.time()
                    bar = decode_bar(message.value())
                    if bar.final:
                        self.seen.setdefault((bar.instrument, bar.end_ns), now)
        self._consumer.close()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


def main() -> None:
    """Measure, and print a line for each checkpoint interval and kind of reader."""
    options = _options()
    figures: list[Figure] = []
    with bench_broker() as broker, tempfile.TemporaryDirectory() as folder:
        for checkpoint in options.checkpoint:
            figures += _measure(
                Bench(broker.address, Path(folder)), checkpoint, options.rate, options.seconds
            )
    if options.json:
        print(json.dumps([figure._asdict() for figure in figures], indent=2))
        return
    print(f"{'checkpoint':>10}  {'reader':<16}  {'bars':>7}  {'p50 ms':>7}  {'p99 ms':>7}  {'max ms':>7}")
    for f in figures:
        print(
            f"{f.checkpoint:>10}  {f.isolation:<16}  {f.bars:>7,}  {f.p50:>7.0f}  {f.p99:>7.0f}  {f.max:>7.0f}"
        )


def _measure(bench: Bench, checkpoint: str, rate: int, seconds: int) -> list[Figure]:
    with bench.topics(*OWN_TOPICS) as topics:
        ticks = topics("ticks", PARTITIONS, message_timestamp_type="LogAppendTime")
        group = topics.prefix.rstrip(".")
        config = bench.folder / "delivery.toml"
        config.write_text(
            f'broker = "{bench.bootstrap}"\ngroup = "{group}"\ntopic_prefix = "{topics.prefix}"\n'
            f'checkpoint = "{checkpoint}"\n[[ticks]]\ntopic = "{ticks}"\nbars = ["1s"]\n'
            f'grace = "{GRACE_NS // SECOND}s"\nidle = "60s"\n'
        )
        with Worker(bench.folder, "delivery", config, "--roles", "bars") as worker:
            wait_assigned(Group(bench.bootstrap, f"{group}-bars"), 1, ticks, [worker])
            until(lambda: worker.events("worker.started"), 30, "the worker runs")
            readers = {name: Reader(bench.bootstrap, f"{topics.prefix}bars.v1", name) for name in ISOLATIONS}
            try:
                _feed(bench.bootstrap, ticks, rate, seconds)
                closed = _closings(bench.bootstrap, ticks)
                for reader in readers.values():
                    until(lambda r=reader: closed.keys() <= r.seen.keys(), 60, "all bars are read")
            finally:
                for reader in readers.values():
                    reader.stop()
            worker.stop()
        _delete(topics, ticks)
    return [_figure(checkpoint, name, closed, reader.seen) for name, reader in readers.items()]


def _figure(checkpoint: str, isolation: str, closed: dict[BarId, float], seen: dict[BarId, float]) -> Figure:
    took = sorted((seen[bar] - at) * 1000 for bar, at in closed.items())
    return Figure(
        checkpoint, isolation, len(took), took[len(took) // 2], took[int(len(took) * 0.99)], took[-1]
    )


def _feed(bootstrap: str, topic: str, rate: int, seconds: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 2})
    feed = SimulatedFeed(seed=3, instruments=100)
    started, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < seconds:
        due = int(elapsed * rate) - sent
        for tick in feed.ticks(due, time.time_ns()):
            producer.produce(topic, tick.encode(), key=tick.key())
        sent += due
        producer.poll(0)
        time.sleep(0.005)
    if producer.flush(30):
        raise RuntimeError("the broker did not take all ticks within 30 s")


def _closings(bootstrap: str, topic: str) -> dict[BarId, float]:
    """When the tick that closed each bar was appended, seconds since the epoch."""
    consumer, codec = _consumer(bootstrap, topic, "read_uncommitted"), get_codec("tidegate")
    pending: dict[str, set[int]] = {}
    watermarks: dict[str, int] = {}
    closed: dict[BarId, float] = {}
    ends = 0
    while ends < PARTITIONS:
        for message in consumer.consume(10_000, 1):
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise RuntimeError(error.str())
                ends += 1
                continue
            (trade,) = codec.decode(message.value())
            name = f"{trade.venue}:{trade.symbol}" if trade.venue else trade.symbol
            open_ends = pending.setdefault(name, set())
            open_ends.add(trade.ts_ns - trade.ts_ns % SECOND + SECOND)
            watermarks[name] = max(watermarks.get(name, 0), trade.ts_ns)
            for end_ns in [end for end in open_ends if end <= watermarks[name] - GRACE_NS]:
                open_ends.discard(end_ns)
                closed.setdefault((name, end_ns), message.timestamp()[1] / 1000)
    consumer.close()
    return closed


def _consumer(bootstrap: str, topic: str, isolation: str) -> Any:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
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
    parser.add_argument("--rate", type=int, default=5_000, help="ticks a second (%(default)s)")
    parser.add_argument("--seconds", type=int, default=20, help="how long they flow (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
