"""The bounded queue between the bars topic and the database."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from schemas.bar import Bar, decode_bar
from schemas.dead_letter import Reason
from schemas.errors import BadBar, BadRecord, StoreError, StoreTooSlow, StoreUnavailable
from schemas.feedback import Level
from streams.batch import Batch, Record
from streams.flow.pressure import Thresholds, next_level
from streams.producer import BarrierProducer
from streams.store.base import Store
from streams.store.patience import Patience
from streams.store.refusals import Refusals

log = structlog.get_logger(__name__)


class _Entry:
    """A batch in the queue: its bars, how many of them are written, and whether it may be acknowledged."""

    __slots__ = ("bars", "batch", "done", "records", "written")

    def __init__(self, batch: Batch, bars: list[Bar], records: list[Record]) -> None:
        self.batch = batch
        self.bars = bars
        self.records = records
        self.written = 0
        self.done = False


class StoreWriter:
    """Takes batches of bars, writes them in transactions, and acknowledges them when committed.

    Contract: `put` waits while the queue is full, so nothing is dropped; a batch is acknowledged
    only after the database has committed all its bars, and its dead letters are durable. A database
    that cannot take a write right now is tried again with jittered backoff (see `Patience`), for as
    long as it takes, or for `patience_s`; with fewer bars where these took too long. A bar that the
    database refuses, a record that is no bar and a bar of an instrument that lives on another partition
    are dead-lettered and hold nothing up.
    """

    def __init__(
        self,
        store: Store,
        producer: BarrierProducer,
        dead_letter_topic: str,
        *,
        capacity: int,
        write_batch: int,
        linger_s: float,
        thresholds: Thresholds,
        patience_s: float | None = None,
        on_level: Callable[[], None] = lambda: None,
    ) -> None:
        self.capacity = capacity
        self.level = Level.ok
        self.stale = 0
        self.drain_rate: float | None = None
        self.on_stored: Callable[[int, int], None] = lambda partition, offset: None
        self.on_written: Callable[[list[Bar]], None] = lambda bars: None
        self._store = store
        self._producer = producer
        self._refusals = Refusals(producer, dead_letter_topic)
        self._write_batch = write_batch
        self._at_once = write_batch  # fewer for a while after a write that took too long
        self._patience = Patience(patience_s, lambda: self._size)
        self._absent = False
        self._writing = False
        self._holding = False
        self.linger_s = linger_s
        self._hurried = False
        self._thresholds = thresholds
        self._on_level = on_level
        self._entries: deque[_Entry] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether every batch taken has been committed by the database."""
        return not self._entries

    @property
    def size(self) -> int:
        """Bars taken and not yet committed by the database."""
        return self._size

    @property
    def dead_lettered(self) -> int:
        """Bars that the store does not have because it cannot."""
        return self._refusals.dead_lettered

    @property
    def last_error(self) -> StoreError | None:
        """Why the database takes nothing now; None when it does."""
        return self._patience.error

    async def open(self) -> None:
        """Connect for the first time, and raise what people must mend.

        A database that is not there now is an error only where patience has a limit: otherwise the
        level is hard from here until `run` has reached it.
        """
        try:
            await self._store.open()
        except StoreUnavailable as exc:
            if self._patience.limit_s is not None:
                raise
            self._absent = True
            self._patience.failed(exc)
            self._resize(0)
        else:
            self._patience.reached = True

    async def put(self, batch: Batch) -> None:
        """Queue the bars of one batch; waits while the queue is full."""
        while self._size >= self.capacity:
            await self._wait()
        bars: list[Bar] = []
        records: list[Record] = []
        for record in batch.records:
            if record.value is None:
                continue  # a tombstone: somebody deleted the bar from the topic, the store keeps it
            try:
                bars.append(decode_bar(record.value))
                records.append(record)
            except BadRecord as exc:
                await self._refusals.bury(record, Reason.malformed, str(exc))
        self._entries.append(_Entry(batch, bars, records))
        self._resize(len(bars))

    async def run(self) -> None:
        """Write until cancelled. Raises `StoreError` when the database refuses for good."""
        if self._absent:
            await self._patience(self._store.open)
            self._absent = False
            self._resize(0)
        while True:
            while not self._entries:
                await self._wait()
            self._writing = True
            await self._linger()
            await self._write_some()
            self._writing = self._holding = False
            self._resize(0)

    def hurry(self) -> None:
        """Write what is queued, or else comes next, without waiting for more."""
        self._hurried = True
        self._resize(0)

    async def drained(self) -> None:
        """Wait until the queue is empty and everything taken is committed."""
        while self._entries:
            await self._wait()

    def forget(self) -> None:
        """Drop what is queued: its partitions went elsewhere, and its offsets are not committed.

        The level stays until the write that is under way is done: a queue that a rebalance has emptied
        says nothing of the database, and partitions that come back would run meanwhile.
        """
        self._holding = self._writing
        self._entries.clear()
        self._resize(-self._size)

    async def _linger(self) -> None:
        """Wait for more bars, unless there are enough for a transaction or somebody waits for these."""
        if self.linger_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.linger_s):
                    while self._size < self._at_once and self.level is Level.ok and not self._hurried:
                        await self._wait()
        self._hurried = False

    async def _write_some(self) -> None:
        taken: list[tuple[_Entry, int]] = []
        bars: list[Bar] = []
        records: list[Record] = []
        for entry in self._entries:
            upto = min(len(entry.bars), entry.written + self._at_once - len(bars))
            bars += entry.bars[entry.written : upto]
            records += entry.records[entry.written : upto]
            taken.append((entry, upto))
            if len(bars) >= self._at_once:
                break
        started = time.monotonic()
        await self._write(bars, records)
        if bars:
            self.drain_rate = len(bars) / max(time.monotonic() - started, 1e-6)
        await self._producer.barrier()  # the dead letters among them
        for entry, upto in taken:
            entry.written = upto
            # Of what came since, not even a batch without bars: its dead letters may be on their way.
            entry.done = upto == len(entry.bars)
        while self._entries and self._entries[0].done:
            entry = self._entries.popleft()
            entry.batch.ack()
            self.on_stored(entry.batch.tp.partition, entry.batch.last_offset)
            self._resize(-len(entry.bars))

    async def _write(self, bars: Sequence[Bar], records: Sequence[Record]) -> None:
        if not bars:
            return
        smaller: tuple[type[StoreError], ...] = (StoreTooSlow,) if len(bars) > 1 else ()
        try:
            result = await self._patience(lambda: self._store.write(bars), unless=smaller)
        except (BadBar, StoreTooSlow) as exc:
            half = len(bars) // 2
            if isinstance(exc, StoreTooSlow):
                if not half:
                    raise
                log.warning("store.too_slow", error=str(exc), bars=len(bars), next=half, queue=self._size)
                self._at_once = half
            elif not half:
                await self._refusals.refused(records[0], exc)
                return
            await self._write(bars[:half], records[:half])
            await self._write(bars[half:], records[half:])
            return
        if len(bars) >= self._at_once:
            self._at_once = min(self._at_once + self._write_batch // 50 + 1, self._write_batch)
        self.stale += result.stale
        conflicts = set(map(id, result.conflicts))
        for bar, record in zip(bars, records, strict=True):
            if id(bar) in conflicts:
                await self._refusals.conflict(record, bar)
        self.on_written([bar for bar in bars if id(bar) not in conflicts])

    def _resize(self, by: int) -> None:
        self._size += by
        level = next_level(self.level, self._size / self.capacity, self._thresholds)
        if self._absent or (self._holding and self.level is Level.hard):
            level = Level.hard
        changed, self.level = level is not self.level, level
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
        if changed:
            self._on_level()

    async def _wait(self) -> None:
        await self._changed.wait()
