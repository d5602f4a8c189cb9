"""However ticks stand in the log, compressed, in transactions, with headers: who reads bytes finds each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer

from schemas.dead_letter import HEADER, decode_dead_letter
from support import oracle
from support.bars import schema, stored
from support.kafka import TestTopics, records
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

START = time.time_ns() // 10**9 * 10**9 - 86_400 * 10**9
#: At a time, until columns are read, and then in each way.
MANY, FEW = 12_000, 1_000
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gzip": {"compression.type": "gzip"},
    "snappy": {"compression.type": "snappy"},
    "lz4": {"compression.type": "lz4"},
    "zstd": {"compression.type": "zstd"},
    "headers": {},
    "dated by the broker": {},
    "transactions": {"compression.type": "lz4", "transactional.id": "feed"},
}
BAD: list[bytes | None] = [b"", None, b"\xff\xfe", b'{"symbol":"A"}']


class Feed:
    """Writes ticks in one way, and knows what must come of them."""

    def __init__(self, bootstrap: str, topic: str, way: str) -> None:
        self.topic = topic
        self.ticks: list[oracle.Tick] = []
        self.bad: list[tuple[str, int, bytes | None]] = []
        self.end = 0
        """The offset after its last record. The log's end says less: a marker comes after its commit's answer."""
        self._symbol = way.partition(" ")[0].upper()
        self._headers = [("trace", b"1")] if way == "headers" else None
        config = {**WAYS[way], "bootstrap.servers": bootstrap, "linger.ms": 20}
        self._transactional = "transactional.id" in config
        if self._transactional:
            config["transactional.id"] = f"{topic}-feed"
        self._producer = Producer(config)
        if self._transactional:
            self._producer.init_transactions(30)

    def send(self, count: int) -> None:
        """Ticks, a bad record after every 200th, and where there are transactions some that are taken back."""
        step = 100 if self._transactional else count
        for begin in range(0, count, step):
            if self._transactional:
                self._producer.begin_transaction()
                self._put(self._tick(len(self.ticks), price="999999"))
                assert (
                    self._producer.flush(30) == 0
                )  # else it might never be sent, or cross the end of its transaction
                self._producer.abort_transaction(30)
                self._producer.begin_transaction()
            for n in range(begin, begin + step):
                self.ticks.append(self._tick(len(self.ticks)))
                self._put(self.ticks[-1])
                if n % 200 == 199:
                    self._put_bad(BAD[n // 200 % len(BAD)])
            if self._transactional:
                self._producer.commit_transaction(30)
        assert self._producer.flush(30) == 0

    def _tick(self, number: int, price: str = "") -> oracle.Tick:
        return oracle.Tick(
            self._symbol, START + number * 10**8, price or f"{100 + number % 7}.5", f"0.{number % 9 + 1}"
        )

    def _put(self, tick: oracle.Tick) -> None:
        value = f'{{"symbol":"{tick.instrument}","ts_ns":{tick.ts_ns},"price":"{tick.price}","size":"{tick.size}"}}'
        self._produce(value.encode())

    def _put_bad(self, value: bytes | None) -> None:
        self._produce(value, lambda offset: self.bad.append((self.topic, offset, value)))

    def _produce(self, value: bytes | None, at: Callable[[int], None] = lambda offset: None) -> None:
        def landed(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            assert error is None
            assert offset is not None
            self.end = offset + 1
            at(offset)

        while True:
            try:
                self._producer.produce(self.topic, value, self._symbol, 0, landed, headers=self._headers)
                break
            except BufferError:
                self._producer.poll(0.1)


def test_every_tick_is_found_in_the_bytes_that_were_fetched(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    for name in OWN_TOPICS:
        topics(name)
    feeds = []
    for number, way in enumerate(WAYS):
        dated = "LogAppendTime" if way.startswith("dated") else "CreateTime"
        feeds.append(Feed(kafka, topics(f"ticks-{number}.v1", message_timestamp_type=dated), way))
    plain, *_ = feeds
    with schema(postgres) as dsn:
        config = tmp_path / "tidegate.toml"
        config.write_text(
            f'broker = "{kafka}"\ntopic_prefix = "{topics.prefix}"\ngroup = "{topics.prefix}tidegate"\n'
            f'store = "{dsn}"\n'
            + "".join(f'[[ticks]]\ntopic = "{feed.topic}"\nbars = ["1s"]\nidle = "1s"\n' for feed in feeds)
        )
        with Worker(tmp_path, "worker", config) as worker:
            group = Group(kafka, f"{topics.prefix}tidegate-bars")
            wait_assigned(group, 1, plain.topic, [worker])

            def send(feed: Feed, count: int) -> None:
                feed.send(count)
                until(
                    lambda: group.committed(feed.topic)[0] == feed.end,
                    60,
                    f"{feed.topic} is committed to {feed.end}",
                )

            # They are loaded with a batch that comes when there were many before.
            until(lambda: send(plain, MANY) or worker.events("columns.on"), 60, "columns are read")
            for feed in feeds:
                send(feed, FEW)
            expected = oracle.bars_of([tick for feed in feeds for tick in feed.ticks], ["1s"])
            until(lambda: stored(dsn) == expected, 60, "each bar is stored as it should be")
            assert worker.stop() == 0
    letters = set()
    for message in records(kafka, f"{topics.prefix}ticks.dlq.v1"):
        letter = decode_dead_letter(dict(message.headers())[HEADER])
        letters.add((letter.topic, letter.offset, message.value()))
    assert letters == {bad for feed in feeds for bad in feed.bad}
    assert len(letters) == sum(len(feed.ticks) // 200 for feed in feeds)
