"""The changelog of open windows: rows of a compacted topic, keyed by tick topic and row name."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition
from faust.types import TP

from schemas.errors import BrokerError
from streams.broker import confluent_config
from streams.settings import Settings

log = structlog.get_logger(__name__)

#: How often a long recovery says how far it is.
PROGRESS_S = 5.0


class Row(NamedTuple):
    """A row to be written: None deletes it."""

    tp: TP
    name: str
    value: bytes | None

    @property
    def key(self) -> bytes:
        """The record key: a topic's name cannot hold the separator."""
        return f"{self.tp.topic}|{self.name}".encode()


async def read_rows(settings: Settings, topic: str, tick: TP, timeout_s: float = 60.0) -> dict[str, bytes]:
    """The latest rows of one tick partition, read from the same partition number of the changelog.

    Raises `BrokerError` when the broker gives nothing for `timeout_s`.
    """
    return await asyncio.to_thread(_read, settings, topic, tick, timeout_s)


def _read(settings: Settings, topic: str, tick: TP, timeout_s: float) -> dict[str, bytes]:
    consumer = Consumer(
        {
            **confluent_config(settings),
            # No group is joined and nothing committed: librdkafka only wants the name.
            "group.id": "tidegate-recovery",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    prefix = f"{tick.topic}|".encode()
    rows: dict[str, bytes] = {}
    read = 0
    heard = said = time.monotonic()
    try:
        consumer.assign([TopicPartition(topic, tick.partition, 0)])
        while True:
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    return rows
                if error is not None:
                    raise BrokerError(f"{topic}[{tick.partition}]: state cannot be read: {error.str()}")
                heard = time.monotonic()
                read += 1
                key, value = message.key() or b"", message.value()
                if key.startswith(prefix):
                    name = key[len(prefix) :].decode()
                    if value is None:
                        rows.pop(name, None)
                    else:
                        rows[name] = value
            now = time.monotonic()
            if now - said > PROGRESS_S:
                said = now
                log.info("state.recovering", partition=f"{topic}[{tick.partition}]", rows=read, instruments=len(rows))
            if now - heard > timeout_s:
                raise BrokerError(f"{topic}[{tick.partition}]: no state came for {timeout_s:.0f} s")
    finally:
        consumer.close()
