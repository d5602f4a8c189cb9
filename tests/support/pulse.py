"""A bus on Redis and a feedback topic that only this test has, and what is on them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import redis
from confluent_kafka import Consumer, Message, TopicPartition
from market_data_core.telemetry import BackpressureLevel
from market_data_store.pulse import FeedbackPublisherService, PulseConfig

from schemas.feedback import Feedback, decode_feedback
from streams.ecosystem.buses import Bus
from streams.ecosystem.envelopes import decode_envelope
from streams.ecosystem.pulse import PulseBridge
from streams.ecosystem.pulse_settings import PulseSettings, load
from streams.ecosystem.redis_bus import RedisBus
from streams.settings import load_settings
from support.kafka import TestTopics
from support.wait import eventually

PARTITIONS = 2
#: As short as it can be, so that what ends by it ends soon.
TTL_S = 2.0


class Ends:
    """The two ends of a bridge: what is said on one, and what is heard on the other."""

    def __init__(self, redis_url: str, topics: TestTopics, partitions: int = PARTITIONS) -> None:
        self.redis_url = redis_url
        self.client: Any = redis.Redis.from_url(redis_url)
        self.namespace = f"t{uuid.uuid4().hex[:10]}"
        self.key = f"mdp:{self.namespace}.telemetry.feedback"
        self.dead_letters = f"{self.key}.dlq"
        self.bootstrap, self.prefix = topics.bootstrap, topics.prefix
        self.topic = topics("feedback.v1", partitions)
        self.settings = load_settings(
            None, broker=topics.bootstrap, topic_prefix=topics.prefix, feedback_ttl="2s", heartbeat="200ms"
        )
        self._records: dict[int, list[Message]] = {partition: [] for partition in range(partitions)}
        # One that goes on: each new one would cost more than what it reads.
        self._consumer = Consumer(
            {
                "bootstrap.servers": topics.bootstrap,
                "group.id": self.namespace,
                "log_level": 0,
                "fetch.wait.max.ms": 10,
            }
        )
        self._consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(partitions)])
        # In a process of its own the store's publisher hands its namespace on by MD_NAMESPACE only.
        config = PulseConfig(backend="redis", redis_url=redis_url, ns=self.namespace)
        self.store = FeedbackPublisherService(config)

    def pulse(self, **options: Any) -> PulseSettings:
        """Settings of a bridge between them."""
        stream = f"{self.namespace}.telemetry.feedback"
        return load({}, redis_url=self.redis_url, stream=stream, **options)

    @asynccontextmanager
    async def bridge(self, bus: Bus | None = None, **options: Any) -> AsyncIterator[PulseBridge]:
        """A bridge in this process."""
        pulse = self.pulse(**options)
        bridge = PulseBridge(self.settings, bus or RedisBus(pulse), pulse)
        running = asyncio.create_task(bridge.run())
        try:
            await eventually(
                lambda: running.done() or bridge.health().state == "healthy", 30, "the bridge runs"
            )
            yield bridge
            bridge.stop()
        except BaseException:
            running.cancel()
            raise
        finally:
            async with asyncio.timeout(15):
                await asyncio.wait([running])
        running.result()

    async def say(
        self, level: str, coordinator: str = "bars-coord", size: int = 0, reason: str | None = None
    ) -> str:
        """Have market-data-store's publisher say something; gives the id of its entry."""
        return await self.store.publish_feedback(
            coordinator, size, 20, BackpressureLevel(level), reason=reason
        )

    async def close(self) -> None:
        """Close the connections, also those of the publisher, which has no way to do it."""
        self.close_readers()
        await self.forget_connections()

    def close_readers(self) -> None:
        """Close the connections, where the publisher was not used."""
        self.client.close()
        self._consumer.close()

    async def forget_connections(self) -> None:
        """Have the store's publisher connect anew: it does not try again on a connection that died."""
        bus: Any = self.store._bus
        self.store._bus = None
        if bus is not None and bus._redis is not None:
            await bus._redis.aclose()

    def heard(self, partition: int = 0) -> list[Feedback]:
        """What is on the feedback topic."""
        return [decode_feedback(record.value()) for record in self.records(partition)]

    def records(self, partition: int = 0) -> list[Message]:
        """The same as records."""
        while messages := self._consumer.consume(1000, 0.05):
            for message in messages:
                if message.error() is None:
                    self._records[message.partition()].append(message)
        return self._records[partition]

    def last(
        self, coordinator: str = "bars-coord", partitions: Collection[int] = range(PARTITIONS)
    ) -> set[str]:
        """The last level of a coordinator, on each of the partitions."""
        said = [[f.level.value for f in self.heard(p) if f.coordinator_id == coordinator] for p in partitions]
        return {levels[-1] if levels else "nothing" for levels in said}

    def pending(self, group: str = "pipeline") -> int:
        """Entries that the group has given to somebody, and that nobody has acknowledged."""
        return int(self.client.xpending(self.key, group)["pending"])

    def undone(self, group: str = "pipeline") -> int:
        """Entries that the group has not acknowledged, whether they were given to somebody or not."""
        (about,) = [about for about in self.client.xinfo_groups(self.key) if about["name"] == group.encode()]
        return int(about["pending"] + about["lag"])

    def on_bus(self, source: str) -> list[tuple[str, str, dict[str, str]]]:
        """Coordinator, level and headers of what is on the bus from this source."""
        envelopes = [decode_envelope(fields[b"data"]) for _, fields in self.client.xrange(self.key)]
        return [
            (e.payload.coordinator_id, e.payload.level.value, e.meta.headers)
            for e in envelopes
            if e.payload.source == source
        ]
