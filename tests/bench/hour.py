"""Memory over an hour of load: what a bars worker has resident after each ten minutes of the market.

    python -m tests.bench.hour

What is remembered is bounded by event time (trade ids for six minutes, closed bars for five), so an hour of the
market can pass as fast as one process writes its ticks. The worker runs on Apache Kafka with its default settings.
After each ten minutes the feed waits until the worker has committed all of it, and its memory is read. What reads
columns, about 110 MB, is loaded within the first of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import Producer

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.broker import bench_broker
from bench.contenders import Bench
from bench.feed import DISORDER_NS, INSTRUMENTS, PARTITIONS, SECOND, STEPS
from streams.simulate import SimTick, SimulatedFeed
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

TEN_MINUTES = 10


class Figure(NamedTuple):
    """A moment."""

    minutes: int
    ticks: int
    mb: float


def market(minutes: int, per_second: int) -> Iterator[list[SimTick]]:
    """Ten minutes at a time; all of it lies in the past, for a tick dated ahead of its receipt is a bad one."""
    feed = SimulatedFeed(seed=1, instruments=INSTRUMENTS, disorder_ns=DISORDER_NS, venue="BENCH")
    now_ns = time.time_ns() - (minutes + 1) * 60 * SECOND
    feed.ticks(0, now_ns)
    for _ in range(minutes // TEN_MINUTES):
        ticks: list[SimTick] = []
        for _ in range(TEN_MINUTES * 60 * STEPS):
            now_ns += SECOND // STEPS
            ticks += feed.ticks(per_second // STEPS, now_ns)
        yield ticks


def measure(minutes: int, per_second: int) -> Iterator[Figure]:
    """One worker, and its memory after each ten minutes."""
    with (
        bench_broker() as broker,
        tempfile.TemporaryDirectory() as name,
        Bench(broker.address, Path(name)).topics("ticks", *OWN_TOPICS) as topics,
    ):
        folder, ticks = Path(name), f"{topics.prefix}ticks"
        config = folder / "tidegate.toml"
        config.write_text(
            f'broker = "{broker.address}"\ngroup = "{topics.prefix}hour"\ntopic_prefix = "{topics.prefix}"\n'
            f'[[ticks]]\ntopic = "{ticks}"\nbars = ["1s", "1m"]\n'
        )
        group = Group(broker.address, f"{topics.prefix}hour-bars")
        producer = Producer({"bootstrap.servers": broker.address, "acks": "all", "linger.ms": 20})
        with Worker(folder, "hour", config, "--roles", "bars") as worker:
            wait_assigned(group, 1, ticks, [worker])
            process = psutil.Process(worker.process.pid)
            sent = 0
            for number, part in enumerate(market(minutes, per_second), 1):
                for tick in part:
                    while True:
                        try:
                            producer.produce(ticks, tick.encode(), key=tick.key())
                            break
                        except BufferError:
                            producer.poll(0.1)
                if producer.flush(60):
                    raise RuntimeError("the broker did not take all ticks within 60 s")
                sent += len(part)
                until(
                    group.reaches_the_ends(ticks, range(PARTITIONS)),
                    120,
                    "the worker has committed all of it",
                )
                yield Figure(number * TEN_MINUTES, sent, round(process.memory_info().rss / 1e6, 1))
            worker.stop()


def main() -> None:
    """Measure, and print a line for every ten minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=1_000, help="ticks a second of event time (%(default)s)")
    parser.add_argument("--minutes", type=int, default=60, help="of event time (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    began = time.monotonic()
    figures = []
    if not options.json:
        print("minutes       ticks  resident MB")
    for figure in measure(options.minutes, options.rate):
        figures.append(figure._asdict())
        if not options.json:
            print(f"{figure.minutes:>7}{figure.ticks:>12,}{figure.mb:>13,.1f}", flush=True)
    print(json.dumps(figures) if options.json else f"in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
