"""What stores said last, for a worker that takes partitions over: before its first tick, not at their next word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import NamedTuple

import structlog

from schemas.errors import BadRecord, BrokerError
from schemas.feedback import Feedback, decode_feedback
from streams.reading import TopicReader
from streams.settings import Settings

log = structlog.get_logger(__name__)

#: Taking over does not wait longer for it: ticks can do without feedback, and its topic may be away.
PATIENCE_S = 5.0


class Recalled(NamedTuple):
    """Feedback that still counts, and where what comes after it begins, by partition."""

    feedback: list[Feedback]
    ends: dict[int, int]


async def recall(settings: Settings, topic: str, partitions: Collection[int]) -> Recalled:
    """Read what was said on these partitions within the time for which it counts.

    Where the topic cannot be read it says so, and gives nothing.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(_read, settings, topic, partitions)
    except (BrokerError, TimeoutError) as exc:
        log.warning(
            "feedback.unread",
            topic=topic,
            partitions=sorted(partitions),
            error=str(exc) or f"nothing came for {PATIENCE_S:g} s",
            consequence="ticks flow until a store says otherwise",
        )
        return Recalled([], {})


def _read(settings: Settings, topic: str, partitions: Collection[int]) -> Recalled:
    recalled = Recalled([], {})
    since_ms = round((time.time() - settings.feedback_ttl / 1e9) * 1000)
    with TopicReader(settings, topic) as reader:
        for partition in partitions:
            recalled.ends[partition] = reader.bounds(partition)[1]
        for message in reader.read(partitions, since_ms):
            try:
                feedback = decode_feedback(message.value())
            except BadRecord:
                continue  # told by those who read it when it came
            if feedback.partition == message.partition():
                recalled.feedback.append(feedback)
    return recalled
