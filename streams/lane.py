"""One partition number on its way from ticks to bars: its engines, what they gave, and when it is durable."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from faust.types import TP

from schemas.bar import Bar, bar_key, encode_bar
from schemas.dead_letter import DeadLetter, encode_dead_letter
from schemas.replay import headers_of_dead_letter
from streams.bars.engine import BarEngine
from streams.bars.intake import Intake
from streams.bars.types import Output, Record
from streams.batch import Batch
from streams.changelog import row_key
from streams.outlet import Out, Outlet
from streams.tally import Tally
from streams.topics import Topics

#: Waits until a partition of the bars topic has room for so many bytes.
Pace = Callable[[int, int], Awaitable[None]]


class _Sealed(NamedTuple):
    """What a checkpoint makes durable, and when (`time.monotonic`) that was decided."""

    batches: list[Batch]
    at: float


class Lane:
    """Partition number p of every tick topic, and of every topic that is written.

    Contract: a batch is acknowledged (so that its offset may be committed) only after all that it and
    its predecessors led to is durable: bars and dead letters, and with `keep_state` the state that
    contains it. Nothing is lost if a call is cancelled: the next one takes up what it left.
    """

    def __init__(
        self,
        partition: int,
        outlet: Outlet,
        topics: Topics,
        *,
        keep_state: bool,
        pace: Pace | None = None,
        checkpoint_bytes: int,
        seconds: Tally | None = None,
        encode: Callable[[Bar], bytes] = encode_bar,
    ) -> None:
        self.partition = partition
        self.outlet = outlet
        self.engines: dict[TP, BarEngine] = {}
        self.ready = False
        """Whether it has the state that its last owner left."""
        self.committed = False
        """Whether any batch was made durable since this lane was opened."""
        self._topics = topics
        self._keep_state = keep_state
        self._pace = pace
        self._checkpoint_bytes = checkpoint_bytes
        self.waits_since: float | None = None
        """Since when (`time.monotonic`) something that was applied waits to be durable."""
        self._seconds = seconds or Tally(())
        self._encode = encode
        self._outbox: deque[Out] = deque()
        self._applied: list[Batch] = []
        self._sealed: _Sealed | None = None
        self._bytes = 0
        self._producing = asyncio.Lock()
        self._committing = asyncio.Lock()

    def restore(self, tp: TP, rows: Mapping[str, bytes]) -> None:
        """Start an engine from the state its last owner left. Raises `StateError`. From any thread."""
        self.engines[tp].restore(rows)

    def apply(self, batch: Batch, now_ns: int, intake: Intake | None = None) -> Output:
        """Apply a batch to its engine; what came out is for `publish` and `bury`, before any await."""
        output = self.engines[batch.tp].apply(batch.records, now_ns, intake)
        if not self._applied:
            self.waits_since = time.monotonic()
        self._applied.append(batch)
        return output

    def publish(self, bars: Iterable[Bar]) -> None:
        """Take bars to be produced."""
        for bar in bars:
            self._put(Out(self._topics.bars, bar_key(bar), self._encode(bar), self.partition))

    def bury(self, record: Record, letter: DeadLetter) -> None:
        """Take a dead letter to be produced."""
        headers = headers_of_dead_letter(record.headers, encode_dead_letter(letter))
        self._put(Out(self._topics.dead_letters, record.key, record.value, self.partition, headers))

    def _put(self, out: Out) -> None:
        self._outbox.append(out)
        self._bytes += len(out.value or b"")

    async def drain(self) -> None:
        """Produce what was taken, and make a checkpoint where that has become much."""
        # For the moment that it takes to pass from one transaction to the next nothing can be produced: who is
        # there does it, and only where it has become much the next batch waits for that.
        if self._producing.locked() and self._bytes < self._checkpoint_bytes:
            return
        async with self._producing:
            await self._produce()
        if self._bytes >= self._checkpoint_bytes:
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make what was applied so far durable, then acknowledge its batches."""
        async with self._committing:
            if self._sealed is not None:
                await self._commit(self._sealed)  # of a call that was given up
            async with self._producing:
                await self._produce()
                # One moment, without an await: the rows hold what these batches led to, and no more. They are in
                # one transaction with its bars, for state that is ahead of its bars would skip them after a crash.
                self._sealed = sealed = _Sealed(list(self._applied), time.monotonic())
                self._bytes = 0
                await self.outlet.seal(self._rows())
                await self._produce()
            await self._commit(sealed)

    def _rows(self) -> list[Out]:
        if not self._keep_state:
            return []
        return [
            Out(self._topics.state, row_key(tp, name), value, self.partition)
            for tp, engine in self.engines.items()
            for name, value in engine.changed().items()
        ]

    async def _commit(self, sealed: _Sealed) -> None:
        await self.outlet.commit()
        for batch in sealed.batches:
            batch.ack()
        self._applied = [batch for batch in self._applied if not batch.acked]
        self.waits_since = sealed.at if self._applied else None
        if sealed.batches:
            self.committed = True
            self._seconds.note(time.monotonic() - sealed.at)
        self._sealed = None

    async def _produce(self) -> None:
        outbox, produce = self._outbox, self.outlet.produce
        while outbox:
            out = outbox[0]
            if self._pace is not None and out.topic == self._topics.bars:
                await self._pace(self.partition, len(out.value or b""))
            while not produce(
                out.topic, out.value, key=out.key, partition=out.partition, headers=out.headers
            ):
                await self.outlet.room()
            outbox.popleft()
