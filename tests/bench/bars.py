"""The bars that a contender wrote, and whether they are right."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

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
    return len(_values(bootstrap, topic))


def _values(bootstrap: str, topic: str) -> list[bytes]:
    """All there are; counting offsets would not do, for a transaction's end takes one."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    values: list[bytes] = []
    ended = 0
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        while ended < PARTITIONS:
            messages = consumer.consume(10_000, 10)
            if not messages:
                raise RuntimeError(f"{topic}: no record came for 10 s, after {len(values)}")
            for message in messages:
                if (error := message.error()) is None:
                    values.append(message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    raise RuntimeError(f"{topic}: {error.str()}")
        return values
    finally:
        consumer.close()


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
