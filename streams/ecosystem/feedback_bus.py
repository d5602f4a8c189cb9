"""A bus of feedback events, as market-data-pipeline and market-data-store have one in a process, on Kafka.

    async with FeedbackBus("kafka-1:9092") as bus:
        bus.subscribe(handler.handle)       # hears every store of the cluster
        await bus.publish(event)            # real tick partitions slow down and stop

Needs the extra ``core``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Self

from schemas.errors import TidegateError
from schemas.feedback import Feedback
from schemas.health import HealthComponent
from streams.ecosystem.contracts import core_feedback
from streams.ecosystem.core import FeedbackEvent
from streams.ecosystem.envelopes import to_feedback
from streams.ecosystem.voice import Voice
from streams.flow.subscribe import Subscription
from streams.flow.subscribe import feedback as follow
from streams.settings import Settings, load_settings

log = logging.getLogger(__name__)

Subscriber = Callable[[FeedbackEvent], Awaitable[None]]

_RETRY_S = 1.0


class FeedbackBus:
    """Core's `FeedbackPublisher` and its counterpart, on Tidegate's feedback topic.

    An event is about all partitions, or about those that are given: core's have no partition. What was published
    holds, and is repeated each `heartbeat`, until the coordinator says something else or the bus is closed, and
    `feedback_ttl` longer: see `Voice`.

    Subscribers get what any coordinator says from when the bus began, Tidegate's own store workers included, and
    repetitions, too; each event once, however many partitions it was said to. They are called one after the other;
    one that fails is logged, and keeps nothing from the others. Every bus hears everything.

    Where several processes publish under one coordinator id, as stores do that leave it at its default, each needs
    a `name`: its events are those of ``id@name`` then. Otherwise only the process that was started last is heard.

    `broker` is HOST:PORT, or whole settings.
    """

    def __init__(
        self,
        broker: str | Settings,
        *,
        name: str = "",
        partitions: Collection[int] | None = None,
        repeat_s: float | None = None,
    ) -> None:
        self._settings = load_settings(broker=broker) if isinstance(broker, str) else broker
        self._voice = Voice(self._settings, partitions, repeat_s)
        self._name = name
        self._partitions = partitions
        self._subscribers: list[Subscriber] = []
        self._heard: dict[str, tuple[int, float]] = {}
        self._following: asyncio.Task[None] | None = None

    async def publish(self, event: FeedbackEvent) -> None:
        """Return when the broker has it, for each partition. Raises BadRecord, BrokerError."""
        feedback = to_feedback(event, 0)
        if self._name:
            feedback.coordinator_id += f"@{self._name}"
        await self._voice.say(feedback)

    def subscribe(self, fn: Subscriber) -> None:
        """Call `fn` with each event from now on; more than once is once."""
        if fn not in self._subscribers:
            self._subscribers.append(fn)

    def unsubscribe(self, fn: Subscriber) -> None:
        """Call it no more."""
        if fn in self._subscribers:
            self._subscribers.remove(fn)

    @property
    def subscriber_count(self) -> int:
        """How many there are."""
        return len(self._subscribers)

    def health(self) -> HealthComponent:
        """Whether the broker has what was published last."""
        return self._voice.health()

    async def __aenter__(self) -> Self:
        """Begin to listen. Raises `BrokerError` where the broker or the topic is not there."""
        # Without a group: a bus that shared the partitions with another one would hear half of what is said.
        events = follow(self._settings, partitions=self._partitions)
        await events.__aenter__()
        self._following = asyncio.create_task(self._follow(events))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Fall silent and listen no more. May be repeated."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
            self._following = None
        await self._voice.close()

    async def _follow(self, events: Subscription[Feedback]) -> None:
        while True:
            try:
                async with contextlib.aclosing(events):
                    async for feedback in events:
                        await self._hear(feedback)
            except TidegateError as exc:
                log.warning("feedback cannot be followed: %s; trying again", exc)
            await asyncio.sleep(_RETRY_S)
            events = follow(self._settings, partitions=self._partitions)

    async def _hear(self, feedback: Feedback) -> None:
        said = feedback.epoch, feedback.ts
        if said <= self._heard.get(feedback.coordinator_id, (-1, 0.0)):
            return  # the same, said to another partition, or overtaken
        self._heard[feedback.coordinator_id] = said
        event = core_feedback(feedback)
        for fn in list(self._subscribers):
            try:
                await fn(event)
            except Exception:  # the subscriber's own; others must not suffer for it
                log.exception("a subscriber failed on feedback of %s", feedback.coordinator_id)
