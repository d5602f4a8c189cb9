"""Publishing the pressure of a store's queue to the partitions that feed it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from schemas.feedback import Feedback, Level, encode_feedback
from streams.producer import BarrierProducer
from streams.store.writer import StoreWriter

log = structlog.get_logger(__name__)


class FeedbackPublisher:
    """Says how full the queue is: on every change of level, and as a heartbeat.

    Feedback about partition p of the bars topic goes to partition p of the feedback topic, where
    the worker that consumes tick partition p reads it.
    """

    def __init__(
        self,
        writer: StoreWriter,
        producer: BarrierProducer,
        topic: str,
        coordinator_id: str,
        *,
        partitions: Callable[[], Iterable[int]],
        heartbeat_s: float,
    ) -> None:
        self._writer = writer
        self._producer = producer
        self._topic = topic
        self._coordinator_id = coordinator_id
        self._partitions = partitions
        self._heartbeat_s = heartbeat_s
        self._epoch = time.time_ns() // 10**6
        self._level_changed = asyncio.Event()

    def level_changed(self) -> None:
        """Publish soon rather than at the next heartbeat."""
        self._level_changed.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        said: Level | None = None
        while True:
            if self._writer.level is not said:
                said = self._writer.level
                log.info(
                    "store.pressure",
                    level=said.value,
                    queue=self._writer.size,
                    capacity=self._writer.capacity,
                )
            for partition in self._partitions():
                await self._publish(partition)
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._level_changed.wait()
            except TimeoutError:
                continue
            self._level_changed.clear()

    async def _publish(self, partition: int) -> None:
        writer = self._writer
        feedback = Feedback(
            coordinator_id=self._coordinator_id,
            queue_size=writer.size,
            capacity=writer.capacity,
            level=writer.level,
            ts=time.time(),
            partition=partition,
            epoch=self._epoch,
            drain_rate=writer.drain_rate,
        )
        await self._producer.send(
            self._topic, encode_feedback(feedback), key=self._coordinator_id.encode(), partition=partition
        )
