"""A store writer without a broker: batches in, rows in a store, dead letters in a list."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from faust.types import TP

from schemas.bar import Bar, encode_bar
from schemas.dead_letter import HEADER, DeadLetter, decode_dead_letter
from streams.batch import Batch, Ledger
from streams.flow.pressure import Thresholds
from streams.producer import BarrierProducer
from streams.store.base import Store
from streams.store.writer import StoreWriter

BARS = TP("md.bars.v1", 0)


@dataclass(slots=True)
class Letter:
    """A record of the bars topic, or a dead letter."""

    value: bytes | None
    offset: int = 0
    key: bytes | None = None
    topic: str = BARS.topic
    partition: int = BARS.partition
    timestamp: int = -1
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class Producer:
    """Keeps what it is given; all of it is durable at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes | None, DeadLetter]] = []

    async def send(self, topic: str, value: bytes | None, *, headers: Any, **kwargs: Any) -> None:
        self.sent.append((value, decode_dead_letter(dict(headers)[HEADER])))

    async def barrier(self) -> None:
        """Nothing is under way."""


class Desk:
    """A writer at work, and what came of it."""

    def __init__(self, store: Store, **options: Any) -> None:
        self.producer = Producer()
        self.ledger = Ledger()
        self.written: list[Bar] = []
        self.levels: list[str] = []
        defaults = {"capacity": 20_000, "write_batch": 5_000, "linger_s": 0.0, "thresholds": Thresholds()}
        self.writer = StoreWriter(
            store,
            cast("BarrierProducer", self.producer),
            "md.ticks.dlq.v1",
            on_level=lambda: self.levels.append(self.writer.level.value),
            **(defaults | options),
        )
        self.writer.on_written = self.written.extend
        self._offset = 0

    async def put(self, bars: Sequence[Bar]) -> Batch:
        """Hand over one batch."""
        records = [Letter(encode_bar(bar), self._offset + n) for n, bar in enumerate(bars)]
        self._offset += len(bars)
        batch = self.ledger.deliver(BARS, records)
        await self.writer.put(batch)
        return batch

    @property
    def dead(self) -> list[bytes | None]:
        """The values of the dead letters."""
        return [value for value, _ in self.producer.sent]

    @property
    def committable(self) -> int:
        """How many records are acknowledged, from the first on."""
        return self.ledger.committable(BARS) or 0

    async def drained(self, timeout_s: float = 60) -> None:
        """Wait until all that was put is acknowledged; raises what stops the writer."""
        async with asyncio.timeout(timeout_s):
            done = asyncio.create_task(self.writer.drained())
            await asyncio.wait([done, self.task], return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                done.cancel()
                self.task.result()

    async def waiting(self, *words: str, timeout_s: float = 30) -> str:
        """Wait until the writer waits for the database, for a reason with these words."""
        async with asyncio.timeout(timeout_s):
            while True:
                assert not self.task.done(), self.task
                text = str(self.writer.last_error or "")
                if text and all(word in text for word in words):
                    return text
                await asyncio.sleep(0.01)

    def start(self) -> None:
        self.task = asyncio.create_task(self.writer.run())


@contextlib.asynccontextmanager
async def desk(store: Store, *, open_first: bool = True, **options: Any) -> AsyncIterator[Desk]:
    """A writer that runs on this store, which is closed with it."""
    at = Desk(store, **options)
    if open_first:
        await at.writer.open()
    at.start()
    try:
        yield at
    finally:
        at.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await at.task
        await store.close()
