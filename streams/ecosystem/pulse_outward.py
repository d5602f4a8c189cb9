"""From Kafka to the bus: its listeners are told when the level of one of Tidegate's stores changes."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from schemas.errors import BusAway
from streams.ecosystem.buses import Bus
from streams.ecosystem.feedback_topic import FeedbackTopic
from streams.ecosystem.links import Link
from streams.ecosystem.pulse_parts import ORIGIN, Counts, log_told, moment, origin
from streams.ecosystem.pulse_words import PULSE, Changes
from streams.flow.subscribe import feedback
from streams.settings import Settings


class Outward:
    """Follows the feedback topic, without a group: stores repeat themselves, so nothing needs to be remembered."""

    def __init__(
        self, bus: Bus, topic: FeedbackTopic, settings: Settings, changes: Changes, counts: Counts
    ) -> None:
        # Not the link by which is read: a Redis without memory answers the one and refuses the other.
        self.link = Link("publishing")
        self._bus = bus
        self._topic = topic
        self._settings = settings
        self._changes = changes
        self._counts = counts

    async def run(self, stopping: asyncio.Event) -> None:
        """Until the end. Raises `BrokerError` where the topic cannot be read."""
        listening = asyncio.create_task(self._listen())
        try:
            while not stopping.is_set() and not listening.done():
                try:
                    await self._publish()
                except BusAway as exc:
                    self.link.lost(exc)
                await moment(stopping)
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        if not listening.cancelled():
            listening.result()

    async def _listen(self) -> None:
        async with aclosing(feedback(self._settings)) as events:
            async for event in events:
                if event.source != PULSE:
                    self._changes.hear(event, time.time())

    async def _publish(self) -> None:
        for event, reason in self._changes.due(time.time()):
            headers = {ORIGIN: origin(self._topic), "utilization": f"{event.queue_size / event.capacity:.6f}"}
            if reason is not None:
                headers["reason"] = reason
            await self._bus.publish(event, headers)
            self.link.answered()
            self._changes.told(event)
            self._counts.published += 1
            log_told(event, headers)
