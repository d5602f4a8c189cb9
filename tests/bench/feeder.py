"""Ticks at a steady rate, in a process of its own: `python -m bench.feeder BROKER TOPIC RATE SECONDS INSTRUMENTS`.

Everything but the event time is made before the first tick is sent, for a simulated market alone would take most of
a core at 50,000 ticks a second. Prints "ready" then, waits for a line, and feeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import islice

from aiokafka.partitioner import murmur2
from confluent_kafka import Producer

from bench.feed import PARTITIONS
from streams.simulate import SimulatedFeed

STEP_S = 0.002

#: Ticks that may wait for the broker, in seconds: a pause of its own shows in the rate and the delays.
PATIENCE_S = 10


def prepared(count: int, instruments: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Partition, key, and the value up to the event time."""
    partitions: dict[bytes, int] = {}
    for tick in SimulatedFeed(seed=3, instruments=instruments).ticks(count, time.time_ns()):
        key = tick.key()
        if key not in partitions:
            partitions[key] = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        head = (
            f'{{"symbol":"{tick.symbol}","venue":"{tick.venue}","price":"{tick.price}","size":"{tick.size}",'
            f'"trade_id":{tick.trade_id},"side":"{tick.side}","ts_ns":'
        )
        yield partitions[key], key, head.encode()


def feed(producer: Producer, topic: str, rate: int, ticks: list[tuple[int, bytes, bytes]]) -> None:
    """As many ticks as are due, again and again; what it is late with it makes up for."""
    remaining = iter(ticks)
    started, sent = time.monotonic(), 0
    while sent < len(ticks):
        due = int((time.monotonic() - started) * rate) - sent
        tail = b"%d}" % time.time_ns()
        for partition, key, head in islice(remaining, due):
            producer.produce(topic, head + tail, key, partition)
            sent += 1
        producer.poll(0)
        time.sleep(STEP_S)


def main() -> None:
    """Prepare, wait, feed."""
    broker, topic, rate, seconds, instruments = sys.argv[1:]
    ticks = list(prepared(int(rate) * int(seconds), int(instruments)))
    producer = Producer(
        {"bootstrap.servers": broker, "linger.ms": 2, "queue.buffering.max.messages": PATIENCE_S * int(rate)}
    )
    producer.list_topics(topic, timeout=10)  # connected before the first tick
    print("ready", flush=True)
    sys.stdin.readline()
    feed(producer, topic, int(rate), ticks)
    if producer.flush(30):
        raise SystemExit("the broker did not take all ticks within 30 s")


if __name__ == "__main__":
    main()
