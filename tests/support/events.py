"""Streams of a test's own on Apache Kafka, and who publishes to them and takes from them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from confluent_kafka import Producer
from market_data_core.events.envelope import EventEnvelope
from market_data_core.telemetry import BackpressureLevel, FeedbackEvent

from streams.ecosystem.event_bus import KafkaEventBus
from streams.settings import load_settings
from support.kafka import TestTopics
from support.workers import Group

DEADLINE_S = 30.0


async def eventually(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Return when it is so; AssertionError saying `what` was awaited after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout_s} s still not: {what}"
        await asyncio.sleep(0.02)


def event(n: int, level: str = "soft", by: str = "bars") -> FeedbackEvent:
    """Feedback that is numbered by the queue's size."""
    return FeedbackEvent(
        coordinator_id=by, queue_size=n, capacity=1000, level=BackpressureLevel(level), ts=time.time()
    )


class Streams:
    """A stream with its dead letters, and buses on it."""

    def __init__(self, topics: TestTopics, partitions: int = 1) -> None:
        self.topics = topics
        self.partitions = partitions
        self.name = topics("events", partitions)
        self.dead_letters = topics("events.dlq", partitions)
        self.settings = load_settings(None, broker=topics.bootstrap, topic_prefix=topics.prefix)

    def bus(self, **options: Any) -> KafkaEventBus:
        return KafkaEventBus(self.settings, **{"session_timeout_s": 6.0, **options})

    def group(self, name: str) -> Group:
        return Group(self.topics.bootstrap, self.topics.prefix + name)

    def committed(self, group: str) -> list[int]:
        return self.group(group).committed(self.name, self.partitions)

    def take(
        self, bus: KafkaEventBus, group: str = "g", consumer: str = "c"
    ) -> contextlib.AbstractAsyncContextManager[AsyncGenerator[EventEnvelope[Any], None]]:
        return contextlib.aclosing(
            bus.subscribe(self.name, group=self.topics.prefix + group, consumer=consumer)
        )

    def produce(self, value: bytes | None, key: bytes | None = None, partition: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.topics.bootstrap, "log_level": 0})
        producer.produce(self.name, value, key, partition=partition)
        assert producer.flush(10) == 0


async def first(
    envelopes: AsyncIterator[EventEnvelope[Any]], count: int, timeout_s: float = DEADLINE_S
) -> list[EventEnvelope[Any]]:
    """So many of them."""
    async with asyncio.timeout(timeout_s):
        return [await anext(envelopes) for _ in range(count)]


def numbers(envelopes: list[EventEnvelope[Any]]) -> list[int]:
    """What they were numbered."""
    return [envelope.payload.queue_size for envelope in envelopes]
