"""A feed that goes as fast as the rate topic lets it: each partition at the scale that was told last of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from aiokafka.partitioner import murmur2

from schemas.errors import BadRecord
from schemas.rate import RateAdjustment, decode_rate
from streams.broker import check_topics
from streams.flow.subscribe import Subscription, rates
from streams.reading import TopicReader
from streams.settings import Settings
from streams.topics import Topics

#: Records at the end of a partition of the rate topic of which one can surely be read.
_LAST = 20


class Scales:
    """What share of its ticks each partition gets: of a half, every other one. Nothing told is all of them.

    What `tell` gets is a line for people, at each change.
    """

    def __init__(
        self, partitions: int, provider: str, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.held_back = 0
        self.following: asyncio.Task[None] | None = None
        self._provider = provider
        self._tell = tell
        self._scales = [1.0] * partitions
        self._due = [0.0] * partitions
        self._partitions: dict[bytes, int] = {}

    def note(self, adjustment: RateAdjustment) -> None:
        """Take a decision; those of other groups of workers are not for us."""
        if adjustment.provider != self._provider:
            return
        everywhere = range(len(self._scales))
        for partition in everywhere if adjustment.partition is None else (adjustment.partition,):
            if partition in everywhere and adjustment.scale != self._scales[partition]:
                self._scales[partition] = adjustment.scale
                self._tell(f"partition {partition}: {_text(adjustment.scale)} ({adjustment.reason.value})")

    def look(self) -> None:
        """Raise what following the rate topic failed with, if it did."""
        if self.following is not None and self.following.done():
            self.following.result()

    def admit(self, key: bytes) -> int | None:
        """The partition of a tick; None, and it is counted, if it is not to be sent."""
        partition = self._partitions.get(key)
        if partition is None:
            # As the producer would choose it, and Java's and aiokafka's.
            partition = self._partitions[key] = (murmur2(key) & 0x7FFFFFFF) % len(self._scales)
        self._due[partition] += self._scales[partition]
        if self._due[partition] < 1:
            self.held_back += 1
            return None
        self._due[partition] -= 1
        return partition


def _text(scale: float) -> str:
    return "paused" if scale == 0 else "all" if scale == 1 else f"{scale:.4g} of the rate"


@contextlib.asynccontextmanager
async def obeying(settings: Settings, topic: str, tell: Callable[[str], None]) -> AsyncIterator[Scales]:
    """Scales for a topic of ticks, kept as the rate topic says. Raises `BrokerError` where that cannot be."""
    rate = Topics(settings.topic_prefix).rate
    scales = Scales(await check_topics(settings, [topic, rate], [topic, rate]), settings.group, tell)
    async with rates(settings) as events:
        # Only changes are told, so what holds now may have been told long ago.
        for adjustment in await asyncio.to_thread(lambda: list(_last(settings, rate))):
            scales.note(adjustment)
        scales.following = asyncio.create_task(_follow(events, scales))
        try:
            yield scales
        finally:
            scales.following.cancel()
            await asyncio.wait([scales.following])


async def _follow(events: Subscription[RateAdjustment], scales: Scales) -> None:
    async for adjustment in events:
        scales.note(adjustment)


def _last(settings: Settings, topic: str) -> Iterator[RateAdjustment]:
    """What was told last of each partition, after some of what was told before."""
    with TopicReader(settings, topic) as reader:
        for message in reader.read(reader.partitions, last=_LAST):
            with contextlib.suppress(BadRecord):  # the subscription, and `tidegate tail`, tell of these
                yield decode_rate(message.value())
