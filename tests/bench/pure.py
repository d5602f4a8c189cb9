"""The path of a tick without Kafka: codec, engine, and the bytes of the bars and of the state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.structs import TopicPartition

from schemas.bar import bar_key, encode_bar
from schemas.codecs import get_codec
from streams.bars.engine import BarEngine
from streams.bars.types import BarSpec, BarType
from streams.fetch.unpack import Kept, Unpacked
from streams.pipeline import load
from streams.simulate import SimTick, SimulatedFeed
from support.fetched import record_batches

TP = TopicPartition("md.ticks.v1", 0)

SECOND = 10**9

#: Every feed begins here, so that the same ticks are the same bytes on any day.
EPOCH_NS = 1_750_000_020 * SECOND

#: Ticks in a row of one market second have this many steps of event time.
STEPS = 10


class PureRecord(msgspec.Struct, gc=False):
    """What the engine wants of a consumed record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


def market(ticks: int, per_second: int, instruments: int, disorder_ns: int = 0) -> Iterator[SimTick]:
    """A fixed market, busy with so many ticks a second of event time."""
    feed = SimulatedFeed(seed=1, instruments=instruments, disorder_ns=disorder_ns, venue="BENCH")
    now_ns = EPOCH_NS
    feed.ticks(0, now_ns)
    while ticks > 0:
        now_ns += SECOND // STEPS
        step = feed.ticks(min(ticks, max(1, per_second // STEPS)), now_ns)
        ticks -= len(step)
        yield from step


def records(ticks: Iterable[SimTick]) -> list[PureRecord]:
    """Ticks as they come from a topic, received when the market has gone on for a second."""
    return [
        PureRecord(offset, tick.ts_ns // 10**6 + 1000, tick.key(), tick.encode())
        for offset, tick in enumerate(ticks)
    ]


def packed(records: Sequence[PureRecord], size: int) -> list[bytes]:
    """They as a broker sends them, so many in a batch."""
    return [b"".join(record_batches(records[n : n + size])) for n in range(0, len(records), size)]


def unpacked(data: bytes) -> Sequence[Any]:
    """What a worker makes of a fetch."""
    fetched = Unpacked(PartitionRecords(TP, Kept(data), None, 0, None, None, True, READ_COMMITTED))
    return next(fetched)


def batches(records: Sequence[PureRecord], size: int) -> list[Sequence[Any]]:
    """What `apply` gets at a time."""
    load()
    return [unpacked(data) for data in packed(records, size)]


def engine(spec: BarSpec) -> BarEngine:
    """An engine as a worker has it."""
    load()
    return BarEngine(spec, get_codec("tidegate"), "md.ticks.v1", 0)


def spec(*bar_types: str, **settings: Any) -> BarSpec:
    """`BarSpec` with bar types by name."""
    return BarSpec(tuple(map(BarType.parse, bar_types)), **settings)


def take(engine: BarEngine, batch: Sequence[Any]) -> int:
    """Apply a batch and encode its bars as a lane does; the number of bars."""
    bars = engine.apply(batch, EPOCH_NS).bars
    for bar in bars:
        bar_key(bar)
        encode_bar(bar)
    return len(bars)
