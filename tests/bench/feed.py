"""The ticks that every contender reads, and the bars that must come of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

import msgspec
from aiokafka.partitioner import murmur2
from confluent_kafka import Producer

from streams.simulate import SimTick, SimulatedFeed

INSTRUMENTS = 500
PARTITIONS = 4
SECOND = 10**9
BAR_TYPES = {"1s": SECOND, "1m": 60 * SECOND}

#: How far behind its successors a tick may arrive: well within every contender's grace.
DISORDER_NS = 100_000_000

#: Ticks in a row of one market second have this many steps of event time.
STEPS = 10

#: From the last tick to those that close all bars: a 1m bar, the grace, and some.
CLOSING_NS = 70 * SECOND


class Key(NamedTuple):
    """Which bar."""

    instrument: str
    type: str
    start_ns: int


class Sums(msgspec.Struct):
    """What is added up in a bar."""

    trade_count: int = 0
    volume: Decimal = Decimal(0)


@dataclass
class Prefilled:
    """A topic full of ticks, and what must come of them."""

    topic: str
    per_second: int
    instruments: int
    ticks: int = 0
    bytes: int = 0
    bars: dict[Key, Sums] = field(default_factory=dict)

    @property
    def message_bytes(self) -> float:
        """The mean size of a value."""
        return self.bytes / self.ticks

    @property
    def ticks_per_bar(self) -> float:
        """The mean of the 1s bars."""
        return self.ticks / sum(key.type == "1s" for key in self.bars)


def prefill(
    bootstrap: str, topic: str, count: int, per_second: int, instruments: int = INSTRUMENTS
) -> Prefilled:
    """Write `count` simulated ticks and one more per instrument that closes its bars.

    `per_second` is how busy the market is, in event time: it decides how many bars there are.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "linger.ms": 50,
            "queue.buffering.max.messages": 500_000,
        }
    )
    filled = Prefilled(topic, per_second, instruments)
    partitions: dict[bytes, int] = {}
    for tick in _ticks(count, per_second, instruments):
        key, value = tick.key(), tick.encode()
        if key not in partitions:
            partitions[key] = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        while True:
            try:
                producer.produce(topic, value, key=key, partition=partitions[key])
                break
            except BufferError:
                producer.poll(0.1)
        filled.ticks += 1
        filled.bytes += len(value)
        if filled.ticks <= count:
            _expect(filled.bars, tick)
    if producer.flush(60):
        raise RuntimeError(f"{topic}: the broker did not take all ticks within 60 s")
    return filled


def _ticks(count: int, per_second: int, instruments: int) -> Iterator[SimTick]:
    feed = SimulatedFeed(seed=1, instruments=instruments, disorder_ns=DISORDER_NS, venue="BENCH")
    # All of it lies in the past: a tick dated ahead of its receipt is a bad one.
    last_ns = time.time_ns() - 2 * CLOSING_NS
    now_ns = last_ns - count * SECOND // per_second
    feed.ticks(0, now_ns)
    names: dict[str, SimTick] = {}
    left = count
    while left:
        now_ns += SECOND // STEPS
        ticks = feed.ticks(min(left, per_second // STEPS), now_ns)
        left -= len(ticks)
        for tick in ticks:
            names[tick.symbol] = tick
        yield from ticks
    for tick in names.values():
        yield msgspec.structs.replace(tick, ts_ns=now_ns + CLOSING_NS, trade_id=tick.trade_id + 10**9)


def _expect(bars: dict[Key, Sums], tick: SimTick) -> None:
    size = Decimal(tick.size)
    for name, interval_ns in BAR_TYPES.items():
        key = Key(f"{tick.venue}:{tick.symbol}", name, tick.ts_ns - tick.ts_ns % interval_ns)
        sums = bars.get(key)
        if sums is None:
            sums = bars[key] = Sums()
        sums.trade_count += 1
        sums.volume += size
