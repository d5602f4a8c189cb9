"""Publishing to an existing topic from the command line, with an account of every record."""

from __future__ import annotations

import functools
import time
from collections import deque

from confluent_kafka import KafkaError

from schemas.errors import BrokerError, ProduceError
from streams.admin import TopicAdmin
from streams.broker import check_topics, confluent_config
from streams.cli.account import tell
from streams.producer import BarrierProducer
from streams.settings import Settings

#: Longer than a broker takes to come back.
_GIVE_UP_MS = 60_000
_BATCH_BYTES = 1 << 20

# What says that this record is not taken, where others are.
_OF_THE_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)


class Publisher:
    """Publishes records to one topic. A refused one is told and counted; what stops all of them is raised."""

    def __init__(self, settings: Settings, topic: str, batch_bytes: int) -> None:
        self.topic = topic
        self.sent = 0
        self.refused = 0
        self._lost = 0
        self._started = time.monotonic()
        self._errors: deque[tuple[KafkaError, str]] = deque()
        self._failed: ProduceError | None = None
        self._producer = BarrierProducer(
            {
                **confluent_config(settings),
                "message.timeout.ms": _GIVE_UP_MS,
                # The broker refuses whole batches: only a record that is too long by itself may exceed this.
                "batch.size": batch_bytes,
            }
        )

    @property
    def seconds(self) -> float:
        """Since the publisher began."""
        return time.monotonic() - self._started

    @property
    def published(self) -> int:
        """Records that the broker has acknowledged so far."""
        return self.sent - len(self._producer) - self._lost - len(self._errors)

    async def publish(
        self,
        value: bytes | None,
        key: bytes | None,
        origin: str,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int = -1,
    ) -> None:
        """Publish one record; `origin` says where it is from. Raises ProduceError once publishing fails."""
        self._look()
        note = functools.partial(self._note, origin)
        await self._producer.send(
            self.topic, value, key=key, headers=headers, partition=partition, on_error=note
        )
        self.sent += 1

    def refuse(self, reason: str) -> None:
        """Tell and count a record that is not even sent."""
        self.refused += 1
        tell(f"refused {reason}", self.refused)

    async def settle(self) -> None:
        """Wait until every record has its answer. Raises ProduceError where publishing failed."""
        await self._producer.barrier()
        self._look()

    async def close(self) -> None:
        """Stop; without `settle` before, what is under way may be lost."""
        await self._producer.close(0.0 if self._failed else 5.0)

    def _note(self, origin: str, error: KafkaError) -> None:
        self._errors.append((error, origin))

    def _look(self) -> None:
        while self._errors:
            error, origin = self._errors.popleft()
            self._lost += 1
            if error.code() in _OF_THE_RECORD:
                self.refuse(f"{origin}: by the broker: {error.str()}")
            elif self._failed is None:
                self._failed = ProduceError(
                    f"{self.topic}: not delivered, from {origin} on: {error.str()}",
                    hint="is the broker reachable and in health? may the user write to this topic?",
                )
        if self._failed is not None:
            raise self._failed


async def open_publisher(settings: Settings, topic: str) -> Publisher:
    """A publisher to a topic that exists. Raises BrokerError where it does not, or no broker answers."""
    await check_topics(settings, [topic], [topic])
    return Publisher(settings, topic, min(_BATCH_BYTES, _max_message_bytes(settings, topic)))


def _max_message_bytes(settings: Settings, topic: str) -> int:
    try:
        config = TopicAdmin(settings).read([topic])[topic].config
    except BrokerError:  # who may write is not always allowed to look
        return _BATCH_BYTES
    return int(config.get("max.message.bytes") or _BATCH_BYTES)
