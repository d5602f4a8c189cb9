"""The bars that a contender wrote, and whether they are right."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from confluent_kafka import Consumer, TopicPartition

from bench.feed import BAR_TYPES, PARTITIONS, Key, Sums


class WrongBarsError(Exception):
    """A benchmark of wrong results is void."""


class Made(msgspec.Struct):
    """What two programs must agree on. A vwap is rounded, by each in its own way."""

    instrument: str
    type: str
    start_ns: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    turnover: Decimal
    buy_volume: Decimal
    sell_volume: Decimal
    trade_count: int
    final: bool


def read_bars(bootstrap: str, topic: str) -> dict[Key, Made]:
    """The final bars on a topic."""
    decode = msgspec.json.Decoder(Made).decode
    made: dict[Key, Made] = {}
    for value in _values(bootstrap, topic):
        bar = decode(value)
        if bar.final:
            made[Key(bar.instrument, bar.type, bar.start_ns)] = bar
    return made


def count_records(bootstrap: str, topic: str) -> int:
    """How many records a topic has."""
    consumer = _consumer(bootstrap)
    try:
        return sum(_ends(consumer, topic))
    finally:
        consumer.close()


def _values(bootstrap: str, topic: str) -> list[bytes]:
    consumer = _consumer(bootstrap)
    try:
        total = sum(_ends(consumer, topic))
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        values: list[bytes] = []
        while len(values) < total:
            messages = consumer.consume(10_000, 10)
            if not messages:
                raise RuntimeError(f"{topic}: {total - len(values)} of {total} records do not come")
            values += [message.value() for message in messages]
        return values
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})


def _ends(consumer: Consumer, topic: str) -> list[int]:
    return [
        consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        for partition in range(PARTITIONS)
    ]


def check(who: str, made: Mapping[Key, Made], expected: Mapping[Key, Sums]) -> None:
    """Raise `WrongBarsError` unless all bars are there, with trades and exact volume, and no other."""
    for name in BAR_TYPES:
        got = [bar.volume for key, bar in made.items() if key.type == name]
        due = [sums.volume for key, sums in expected.items() if key.type == name]
        if (len(got), sum(got)) != (len(due), sum(due)):
            raise WrongBarsError(
                f"{who}: {len(got):,} {name} bars of volume {sum(got)}, not {len(due):,} of {sum(due)}"
            )
    for key, sums in expected.items():
        bar = made.get(key)
        if bar is None or (bar.trade_count, bar.volume) != (sums.trade_count, sums.volume):
            raise WrongBarsError(f"{who}: {key} is {bar}, its sums are {sums}")


def check_equal(a: Mapping[Key, Made], b: Mapping[Key, Made]) -> None:
    """Raise `WrongBarsError` unless both made the same bars of the same ticks, field by field."""
    if a != b:
        different = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
        key = different[0]
        raise WrongBarsError(f"{len(different):,} bars differ, such as {a.get(key)} and {b.get(key)}")
