"""Publishing the pressure of a store's queue to the partitions that feed it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable

import structlog

from schemas.feedback import Feedback, Level, encode_feedback
from streams.flow.meter import Meter
from streams.producer import BarrierProducer
from streams.store.writer import StoreWriter

log = structlog.get_logger(__name__)


class FeedbackPublisher:
    """Says how full the queue is: on every change of level, and as a heartbeat.

    Feedback about partition p of the bars topic goes to partition p of the feedback topic, where
    the worker that consumes tick partition p reads it. The last word about a partition that goes to
    another worker is `ok`: it takes back what this one asked for, and nothing that another one asks.
    """

    def __init__(
        self,
        writer: StoreWriter,
        producer: BarrierProducer,
        topic: str,
        coordinator_id: str,
        *,
        heartbeat_s: float,
    ) -> None:
        self._writer = writer
        self._producer = producer
        self._topic = topic
        self._coordinator_id = coordinator_id
        self.heartbeat_s = heartbeat_s
        self._owned: frozenset[int] = frozenset()
        self._left = False
        self._epoch = time.time_ns() // 10**6
        self._ts = 0.0
        self._level_changed = asyncio.Event()
        self._arrivals = Meter()
        self.said: Counter[Level] = Counter()
        """Events published, by level."""

    def level_changed(self) -> None:
        """Publish soon rather than at the next heartbeat."""
        self._level_changed.set()

    async def own(self, partitions: Iterable[int]) -> None:
        """Take note of the partitions this worker owns now, and say good-bye to those that it has lost.

        Called after a rebalance, not before: a stalled store must not let go of what it gets back.
        """
        owned = frozenset(() if self._left else partitions)
        gone, self._owned = self._owned - owned, owned
        for partition in sorted(gone):
            await self._publish(partition, gone=True)
        self._level_changed.set()

    async def leave(self) -> None:
        """Say good-bye to all partitions; what is assigned from now on is not ours."""
        self._left = True
        await self.own(())

    async def run(self) -> None:
        """Publish until cancelled."""
        said: Level | None = None
        while True:
            if self._writer.level is not said:
                said = self._writer.level
                log.info(
                    "store.pressure",
                    pressure=said.value,
                    queue=self._writer.size,
                    capacity=self._writer.capacity,
                )
            self._arrivals.note(self._writer.taken, time.monotonic())
            for partition in sorted(self._owned):
                await self._publish(partition)
            try:
                async with asyncio.timeout(self.heartbeat_s):
                    await self._level_changed.wait()
            except TimeoutError:
                continue
            self._level_changed.clear()

    async def _publish(self, partition: int, *, gone: bool = False) -> None:
        writer = self._writer
        # The later word counts, also where the clock was set back.
        self._ts = max(time.time(), math.nextafter(self._ts, math.inf))
        feedback = Feedback(
            coordinator_id=self._coordinator_id,
            queue_size=0 if gone else writer.size,
            capacity=writer.capacity,
            level=Level.ok if gone else writer.level,
            ts=self._ts,
            partition=partition,
            epoch=self._epoch,
            drain_rate=None if gone else writer.drain_rate,
            arrival_rate=None if gone else self._arrivals.rate(),
            dropped=writer.drops.total,
        )
        self.said[feedback.level] += 1
        await self._producer.send(
            self._topic, encode_feedback(feedback), key=self._coordinator_id.encode(), partition=partition
        )
