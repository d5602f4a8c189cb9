"""What both directions of a bridge share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from market_data_core.telemetry import FeedbackEvent

from streams.ecosystem.feedback_topic import FeedbackTopic

log = structlog.get_logger(__name__)

#: The header that says on which cluster and topic a store of Tidegate speaks: another bridge on the same bus may be
#: another one's.
ORIGIN = "tidegate-origin"
RETRY_S = 0.5


@dataclass(slots=True)
class Counts:
    """What a bridge did since it was made. What was on the bus before it began does not count."""

    heard: int = 0
    """Entries of the bus, without the garbage that another consumer of the group refuses."""
    passed_over: int = 0
    """Of these, those that said nothing new: they were out of date, or of Tidegate itself."""
    refused: int = 0
    """Of these, those that could not be read."""
    told: int = 0
    """Words of coordinators that Kafka has, each about all partitions."""
    repeated: int = 0
    """The same words again, as heartbeats."""
    published: int = 0
    """Words of Tidegate's stores that the bus has."""


def origin(topic: FeedbackTopic) -> str:
    """Who speaks on this topic, among all clusters."""
    return f"{topic.cluster_id}/{topic.topic}"


def log_told(event: FeedbackEvent, headers: Mapping[str, str]) -> None:
    """Say what one side was told of the other."""
    log.info(
        "bridge.told",
        coordinator=event.coordinator_id,
        pressure=event.level.value,
        queue=event.queue_size,
        capacity=event.capacity,
        source=event.source,
        reason=headers.get("reason"),
    )


async def moment(stopping: asyncio.Event) -> None:
    """Wait before the next attempt, but not beyond the end."""
    try:
        async with asyncio.timeout(RETRY_S):
            await stopping.wait()
    except TimeoutError:
        pass
