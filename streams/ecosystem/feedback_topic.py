"""Tidegate's feedback topic, for those who speak in the name of stores elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from schemas.errors import BrokerError, ProduceError
from schemas.feedback import Feedback, encode_feedback
from streams.broker import cluster, confluent_config
from streams.producer import BarrierProducer
from streams.settings import Settings
from streams.topics import Topics

#: What Kafka has not taken by then is out of date. It is said again.
_DELIVERY_MS = 5000
_CLOSE_S = 1.0


class Said(NamedTuple):
    """Feedback about one partition, and what goes into the headers of its record."""

    feedback: Feedback
    headers: Mapping[str, str]


class FeedbackTopic:
    """Says things on the feedback topic, each about the partition on which it is said."""

    def __init__(self, settings: Settings, partitions: Collection[int] | None = None) -> None:
        self.topic = Topics(settings.topic_prefix).feedback
        self.partitions: tuple[int, ...] = ()
        self.cluster_id = ""
        self._settings = settings
        self._wanted = partitions
        self._producer: BarrierProducer | None = None

    async def open(self) -> None:
        """Raises `BrokerError` where the broker, the topic or a partition is not there."""
        seen = await cluster(self._settings)
        if self.topic not in seen.topics:
            raise BrokerError(
                f"broker {self._settings.broker} lacks topic {self.topic}",
                hint="is topic_prefix right? `tidegate topics apply` creates Tidegate's own topics",
            )
        there = sorted(seen.topics[self.topic].partitions)
        if missing := sorted(set(self._wanted or ()) - set(there)):
            raise BrokerError(
                f"{self.topic} has no partition {', '.join(map(str, missing))}",
                hint=f"it has {len(there)}, beginning with 0",
            )
        self.partitions = tuple(there if self._wanted is None else sorted(set(self._wanted)))
        self.cluster_id = str(seen.cluster_id)

    async def say(self, all_said: Iterable[Said]) -> None:
        """Return when Kafka has acknowledged all of it. Raises `ProduceError`; it may then be said again."""
        if self._producer is None:
            self._producer = BarrierProducer(
                {**confluent_config(self._settings), "message.timeout.ms": _DELIVERY_MS}
            )
        try:
            for feedback, headers in all_said:
                await self._producer.send(
                    self.topic,
                    encode_feedback(feedback),
                    key=feedback.coordinator_id.encode(),
                    partition=feedback.partition,
                    headers=[(name, value.encode()) for name, value in headers.items()],
                )
            await self._producer.barrier()
        except (ProduceError, asyncio.CancelledError):
            # A producer that failed once fails for ever; what it still holds would come late.
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close(_CLOSE_S)
