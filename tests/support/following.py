"""Topics of feedback and rates that a test speaks on, and subscribers that write down what they get."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from confluent_kafka import Producer

from schemas.feedback import Feedback, Level, encode_feedback
from streams.flow.subscribe import Subscription, feedback
from streams.settings import Settings
from support.events import DEADLINE_S
from support.kafka import TestTopics
from support.workers import Group


@dataclass
class Bench:
    """Topics of a test's own, and who speaks on them. What is said is numbered by the queue's size."""

    topics: TestTopics
    settings: Settings
    producer: Producer
    feedback: str
    rate: str
    said: int = 0

    def say(self, count: int = 1, partition: int = 0) -> None:
        for _ in range(count):
            event = Feedback(
                coordinator_id="store-1",
                queue_size=self.said,
                capacity=10,
                level=Level.soft,
                ts=time.time(),
                partition=partition,
                epoch=1,
            )
            self.send(self.feedback, encode_feedback(event), partition)
            self.said += 1
        assert self.producer.flush(10) == 0

    def send(self, topic: str, value: bytes | None, partition: int = 0) -> None:
        self.producer.produce(topic, value, partition=partition)
        assert self.producer.flush(10) == 0

    def group(self, name: str) -> Group:
        return Group(self.topics.bootstrap, self.topics.prefix + name)

    def members(self, name: str) -> int:
        return len(self.group(name).assignment(self.feedback))

    def follow(self, group: str | None = None, **options: bool) -> Subscription[Feedback]:
        name = None if group is None else self.topics.prefix + group
        return feedback(self.settings, group=name, **options)


class Seen:
    """A subscriber that writes down what it gets, in a task."""

    def __init__(self, events: Subscription[Feedback]) -> None:
        self.events = events
        self.numbers: list[int] = []
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self.events as events:
            self.begun.set()
            async for event in events:
                self.numbers.append(event.queue_size)

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@contextlib.asynccontextmanager
async def seen(events: Subscription[Feedback]) -> AsyncIterator[Seen]:
    subscriber = Seen(events)
    try:
        waiting = asyncio.create_task(subscriber.begun.wait())
        await asyncio.wait([waiting, subscriber.task], return_when="FIRST_COMPLETED", timeout=DEADLINE_S)
        waiting.cancel()
        if subscriber.task.done():
            subscriber.task.result()
        assert subscriber.begun.is_set()
        yield subscriber
    finally:
        await subscriber.end()
