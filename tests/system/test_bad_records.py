"""Bad records are dead-lettered with bytes, position and reason, and harm no neighbour."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.dead_letter import HEADER, decode_dead_letter
from support import oracle
from support.bars import stored_at
from support.kafka import TestTopics
from support.wait import until
from support.workers import Group, Worker, wait_assigned

pytestmark = pytest.mark.kafka

MAX_BYTES = 200_000
NOW = time.time_ns() // 10**9 * 10**9 - 600 * 10**9


def _tick(ts_ns: int, number: int, **changes: object) -> bytes:
    fields = {
        "symbol": "GOOD",
        "ts_ns": ts_ns,
        "price": f"{100 + number % 7}.5",
        "size": "0.1",
        "trade_id": number,
    }
    return json.dumps({**fields, **changes}).encode()


def _nonsense(size: int) -> bytes:
    return random.Random(5).randbytes(size)


BAD: dict[str, tuple[bytes | None, str]] = {
    "garbage bytes": (b"\x00\xff\xfe garbage", "malformed"),
    "truncated JSON": (_tick(NOW, 1)[:40], "malformed"),
    "NaN": (_tick(NOW, 2, price="NaN"), "not-a-number"),
    "NaN literal": (_tick(NOW, 3).replace(b'"size": "0.1"', b'"size": NaN'), "malformed"),
    "Infinity": (_tick(NOW, 4, size="Infinity"), "not-a-number"),
    "negative size": (_tick(NOW, 5, size="-1"), "negative-size"),
    "huge exponent": (_tick(NOW, 6, price="1e400"), "out-of-range"),
    "empty value": (b"", "empty"),
    "tombstone": (None, "empty"),
    "dated next year": (_tick(time.time_ns() + 366 * 86400 * 10**9, 7), "future"),
    "wrong unit": (_tick(NOW // 10**6, 8), "out-of-range"),
    "wrong type": (_tick(NOW, 9, symbol=5), "malformed"),
    "array": (b"[1,2,3]", "malformed"),
    "maximum size": (_nonsense(MAX_BYTES - 200), "malformed"),
}  # fmt: skip


def test_each_bad_record_is_dead_lettered_and_its_neighbours_bars_are_untouched(
    kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    for name in ("bars.v1", "bars.state.v1", "feedback.v1", "rate.v1"):
        topics(name)
    topics("ticks.v1", max_message_bytes=MAX_BYTES)
    topics("ticks.dlq.v1", max_message_bytes=MAX_BYTES + 65536)
    ticks_topic, store = f"{topics.prefix}ticks.v1", f"duckdb:{tmp_path / 'bars.duckdb'}"
    config = tmp_path / "tidegate.toml"
    config.write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{topics.prefix}"\ngroup = "{topics.prefix}tidegate"\n'
        f'store = "{store}"\n[[ticks]]\ntopic = "{ticks_topic}"\nbars = ["1s"]\nidle = "1s"\n'
    )
    good = []
    sent: dict[tuple[int, int], tuple[str, bytes | None]] = {}
    producer = Producer({"bootstrap.servers": kafka, "message.max.bytes": 2 * MAX_BYTES, "batch.size": 1000})
    number = 1000
    with Worker(tmp_path, "worker", config) as worker:
        group = Group(kafka, f"{topics.prefix}tidegate-bars")
        wait_assigned(group, 1, ticks_topic, [worker])
        for name, (value, _) in BAD.items():
            for _ in range(3):
                number += 1
                ts_ns = NOW + (number - 1000) * 3 * 10**8
                good.append(oracle.Tick("GOOD", ts_ns, f"{100 + number % 7}.5", "0.1"))
                producer.produce(ticks_topic, _tick(ts_ns, number), key="GOOD", partition=1)

            def landed(error: object, message: object, name: str = name, value: bytes | None = value) -> None:
                assert error is None, f"{name}: {error}"
                sent[message.partition(), message.offset()] = (name, value)  # type: ignore[attr-defined]

            producer.produce(ticks_topic, value, key="GOOD", partition=1, on_delivery=landed)
        assert producer.flush(30) == 0
        letters = _read(kafka, f"{topics.prefix}ticks.dlq.v1", len(BAD))
        end = len(good) + len(BAD)
        until(lambda: group.committed(ticks_topic)[1] == end, 20, "the ticks are committed to their end")
        store_group = Group(kafka, f"{topics.prefix}tidegate-store")
        expected = oracle.bars_of(good, ["1s"])
        until(
            lambda: sum(max(0, c) for c in store_group.committed(f"{topics.prefix}bars.v1")) >= len(expected),
            20,
            "the store has committed all bars",
        )
        assert worker.stop() == 0

    found = {}
    for value, header in letters:
        letter = decode_dead_letter(header)
        assert letter.topic == ticks_topic
        name, original = sent[letter.partition, letter.offset]
        assert value == original, name
        found[name] = letter.reason.value
    assert found == {name: reason for name, (_, reason) in BAD.items()}
    assert stored_at(store) == expected


def _read(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, bytes]]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest",
         "fetch.message.max.bytes": 4 * MAX_BYTES}
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(4)])
        letters: list[tuple[bytes | None, bytes]] = []

        def enough() -> bool:
            for message in consumer.consume(100, 0.2):
                assert message.error() is None
                letters.append((message.value(), dict(message.headers())[HEADER]))
            return len(letters) >= count

        until(enough, 30, f"{count} dead letters")
        return letters
    finally:
        consumer.close()
