"""Where the events of a topic come from, for who follows it with aiokafka: alone, or as one of a group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError
from streams.broker import aiokafka_config, cluster
from streams.flow.member import Member
from streams.settings import Settings

log = logging.getLogger(__name__)

#: What leaving may take where the broker is away: aiokafka would try for as long.
_LEAVE_S = 5.0


class Source:
    """Where the events come from, also after a failure that aiokafka does not mend by itself."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str | None,
        from_beginning: bool,
        partitions: Collection[int] | None,
        **options: Any,
    ) -> None:
        """`options` are aiokafka's, for its consumer."""
        self.settings = settings
        self.topic = topic
        self._group = group
        self._from_beginning = from_beginning
        self._partitions = partitions
        self._options = options
        self._done: dict[aiokafka.TopicPartition, int] = {}

    async def check(self) -> None:
        """Raise `BrokerError` where the broker, the topic or a partition is not there."""
        topics = (await cluster(self.settings)).topics
        if self.topic not in topics:
            raise BrokerError(
                f"broker {self.settings.broker} lacks topic {self.topic}",
                hint="is topic_prefix right? `tidegate topics apply` creates Tidegate's own topics",
            )
        count = len(topics[self.topic].partitions)
        for partition in self._partitions or ():
            if not 0 <= partition < count:
                raise BrokerError(
                    f"{self.topic} has no partition {partition}", hint=f"it has {count}, beginning with 0"
                )
        if self._partitions is None:
            self._partitions = range(count)

    def consumer(self) -> tuple[aiokafka.AIOKafkaConsumer, Member]:
        """A consumer to be started, and its membership."""
        config = {
            **aiokafka_config(self.settings),
            "group_id": self._group,
            "enable_auto_commit": False,
            # For offsets that are gone; where to begin is decided by the member.
            "auto_offset_reset": "earliest",
            "retry_backoff_ms": 500,
            # By this a member learns that another one has come or gone.
            "heartbeat_interval_ms": 1000,
            **self._options,
        }
        consumer = aiokafka.AIOKafkaConsumer(**config)
        grouped = self._group is not None
        member = Member(consumer, self._done, grouped=grouped, from_beginning=self._from_beginning)
        if grouped:
            consumer.subscribe([self.topic], listener=member)
        else:
            tps = [aiokafka.TopicPartition(self.topic, partition) for partition in self._partitions or ()]
            consumer.assign(tps)
        return consumer, member


async def close(consumer: aiokafka.AIOKafkaConsumer, member: Member) -> None:
    """Commit what is done and leave, in order where the broker is there, and soon in any case."""
    try:
        async with asyncio.timeout(_LEAVE_S):
            await member.commit()
            await consumer.stop()
    except (TimeoutError, KafkaError, OSError) as exc:
        log.warning("the group could not be left in order: %r", exc)
        # What aiokafka's stop() does after leaving, which it has not come to.
        consumer._closed = True
        for part in (consumer._fetcher, consumer._client):
            if part is not None:
                with contextlib.suppress(TimeoutError, KafkaError, OSError):
                    async with asyncio.timeout(_LEAVE_S):
                        await part.close()
    finally:
        member.close()
