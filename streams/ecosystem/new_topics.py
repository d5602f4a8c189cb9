"""Making the topics of streams where a bus is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import BrokerError
from streams.broker import cluster_now, confluent_config
from streams.settings import Settings

_PATIENCE_S = 30.0


async def create_missing(settings: Settings, topics: Sequence[str], partitions: int) -> None:
    """Make topics with the broker's own replication; one that somebody else makes meanwhile is as good.

    Returns when each partition has a leader. Raises `BrokerError`.
    """
    await asyncio.to_thread(_create, settings, topics, partitions)


def _create(settings: Settings, topics: Sequence[str], partitions: int) -> None:
    admin = AdminClient(confluent_config(settings))
    new = [NewTopic(topic, num_partitions=partitions, replication_factor=-1) for topic in topics]
    for topic, future in admin.create_topics(new, operation_timeout=_PATIENCE_S).items():
        try:
            future.result(_PATIENCE_S)
        except KafkaException as exc:
            error: KafkaError = exc.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerError(
                    f"broker {settings.broker}: {topic} could not be made: {error.str()}",
                    hint="may this user create topics?",
                ) from None
    deadline = time.monotonic() + _PATIENCE_S
    while not _led(settings, topics):
        if time.monotonic() > deadline:
            raise BrokerError(
                f"broker {settings.broker}: {', '.join(topics)}: no leader for {_PATIENCE_S:g} s"
            )
        time.sleep(0.05)


def _led(settings: Settings, topics: Sequence[str]) -> bool:
    there = cluster_now(settings).topics
    return all(
        topic in there and all(partition.leader >= 0 for partition in there[topic].partitions.values())
        for topic in topics
    )
