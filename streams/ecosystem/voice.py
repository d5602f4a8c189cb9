"""Speaking on Tidegate's feedback topic without being a store worker, so that real partitions slow down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Collection

import msgspec

from schemas.errors import BrokerError
from schemas.feedback import Feedback
from schemas.health import HealthComponent, HealthState
from streams.ecosystem.feedback_topic import FeedbackTopic, Said
from streams.settings import Settings

log = logging.getLogger(__name__)

#: A moment that is not further away from now counts as now.
_NOW_S = 1.0


class Voice:
    """Tells feedback to the partitions, and repeats the last word of each coordinator until it is closed.

    Core's feedback and adjustments are said once, when something changes; what a worker hears counts for
    `feedback_ttl` only, so that no pause outlives who asked for it. Repeating joins the two: what was said
    holds for as long as this object is open, and `feedback_ttl` longer if its process dies.

    Of two words of a coordinator the one that was said later counts, whatever their `ts`. One coordinator must have
    one voice: of two processes that speak under one id, that which was started later is heard.
    """

    def __init__(
        self, settings: Settings, partitions: Collection[int] | None, repeat_s: float | None
    ) -> None:
        self._topic = FeedbackTopic(settings, partitions)
        self._repeat_s = settings.heartbeat / 1e9 if repeat_s is None else repeat_s
        self._epoch = time.time_ns() // 10**6
        self._ts = 0.0
        self._said: dict[str, Feedback] = {}
        self._speaking = asyncio.Lock()
        self._repeating: asyncio.Task[None] | None = None
        self._failed = ""

    async def say(self, feedback: Feedback) -> None:
        """Return when the broker has it, for each partition. Raises `BrokerError`; it is repeated all the same."""
        self._said[feedback.coordinator_id] = feedback
        if self._repeating is None:
            self._repeating = asyncio.create_task(self._repeat())
        await self._tell(feedback, feedback.ts)

    async def _tell(self, feedback: Feedback, ts: float) -> None:
        async with self._speaking:
            if self._said.get(feedback.coordinator_id) is not feedback:
                return  # something else was said while this one waited
            try:
                if not self._topic.partitions:
                    await self._topic.open()
                told = msgspec.structs.replace(feedback, ts=self._stamp(ts), epoch=self._epoch)
                await self._topic.say(
                    Said(msgspec.structs.replace(told, partition=partition), {})
                    for partition in self._topic.partitions
                )
            except BrokerError as exc:
                self._failed = str(exc)
                raise
            self._failed = ""

    def _stamp(self, ts: float) -> float:
        """The event's own, if it is of now and later than what was said before; else a ts that is."""
        now = time.time()
        if not (self._ts < ts and abs(now - ts) < _NOW_S):
            ts = max(now, math.nextafter(self._ts, math.inf))
        self._ts = ts
        return ts

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._repeat_s)
            for feedback in list(self._said.values()):
                try:
                    await self._tell(feedback, time.time())
                except BrokerError as exc:
                    log.warning("feedback of %s could not be repeated: %s", feedback.coordinator_id, exc)

    def health(self) -> HealthComponent:
        """Whether what was said last has reached the broker."""
        state = HealthState.unhealthy if self._failed else HealthState.healthy
        details = {"coordinators": str(len(self._said)), **({"error": self._failed} if self._failed else {})}
        return HealthComponent("feedback topic", state, details)

    async def close(self) -> None:
        """Fall silent: what was said holds for `feedback_ttl` more. May be repeated."""
        if self._repeating is not None:
            self._repeating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._repeating
            self._repeating = None
        self._said.clear()
        await self._topic.close()
