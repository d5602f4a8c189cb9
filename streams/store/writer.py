"""From the bars topic through a bounded queue to the database."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from schemas.bar import Bar, decode_bar
from schemas.dead_letter import Reason
from schemas.errors import BadBar, BadRecord, StoreError, StoreTooSlow, StoreUnavailable
from schemas.feedback import Level
from schemas.health import HealthComponent
from streams.batch import Batch, Record
from streams.flow.pressure import Thresholds, next_level
from streams.producer import BarrierProducer
from streams.store.base import Store
from streams.store.drops import Drops
from streams.store.health import SinkCounters, SinkHealth, component
from streams.store.overflow import Overflow
from streams.store.patience import Patience
from streams.store.queue import BarQueue, Item
from streams.store.refusals import Refusals

log = structlog.get_logger(__name__)


class StoreWriter:
    """Takes batches of bars, writes them in transactions, and acknowledges them when committed.

    Contract: where the queue is full, `put` does what `overflow` says, which is to wait unless somebody
    wants something else; a batch is acknowledged only after the database has committed all its bars that
    were not dropped, and its dead letters are durable. Every bar that was taken is one of those `written`,
    `stale`, `dead_lettered` or dropped (`drops`), or is in the queue, or was given up by `forget`. A database
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
        overflow: Overflow = Overflow.block,
        on_level: Callable[[], None] = lambda: None,
        decode: Callable[[bytes], Bar] = decode_bar,
    ) -> None:
        self.capacity = capacity
        self.level = Level.ok
        self.written = 0
        self.taken = 0
        """Bars that came, whatever became of them."""
        self.stale = 0
        self.counters = SinkCounters()
        self.drain_rate: float | None = None
        self.on_stored: Callable[[int, int], None] = lambda partition, offset: None
        self.on_written: Callable[[list[Bar]], None] = lambda bars: None
        self._store = store
        self._producer = producer
        self._refusals = Refusals(producer, dead_letter_topic)
        self._write_batch = write_batch
        self._at_once = write_batch  # fewer for a while after a write that took too long
        self._patience = Patience(patience_s, lambda: self.size)
        self._absent = False
        self._writing = False
        self._holding = False
        self.linger_s = linger_s
        self._hurried = False
        self.thresholds = thresholds
        self._on_level = on_level
        self._decode = decode
        self._queue = BarQueue(capacity, overflow)
        self.drops = Drops(self._queue)
        self._given_up = 0
        self._in_flight: Sequence[Item] = ()
        self._last_commit_at: datetime | None = None
        self._changed = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether every batch taken has been acknowledged, or given up."""
        return self._queue.idle

    @property
    def size(self) -> int:
        """Bars taken and not yet committed by the database."""
        return len(self._queue)

    @property
    def dropped(self) -> Counter[str]:
        """Bars that found no room in the queue, by instrument."""
        return self.drops.by_instrument

    @property
    def dead_lettered(self) -> int:
        """Bars that the store does not have because it cannot."""
        return self._refusals.dead_lettered

    @property
    def refused(self) -> Counter[Reason]:
        """The same, by reason."""
        return self._refusals.by_reason

    @property
    def retries(self) -> int:
        """Attempts to reach or to write the database that failed and are made again."""
        return self._patience.retries

    @property
    def dropped_batches(self) -> int:
        """Batches that lost bars as the queue was full."""
        return self._queue.dropped_batches

    def sink_health(self) -> SinkHealth:
        """How it is, in the words of market-data-pipeline."""
        error = self._patience.error
        return SinkHealth(
            connected=self._patience.reached and error is None,
            queue_depth=self.size,
            in_flight_batches=len({item.entry.number for item in self._in_flight}),
            last_commit_at=self._last_commit_at,
            last_error_at=self._patience.last_error_at,
            retry_count=self.retries,
            detail=f"{self._store.name}, {self._queue.overflow.value} at {self.capacity:,} bars"
            + (f": {error}" if error is not None else ""),
        )

    def health(self) -> HealthComponent:
        """The same as the component "store" of a worker."""
        return component(self.sink_health(), self._patience.error, self.level)

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
            self._resized()
        else:
            self._patience.reached = True

    async def put(self, batch: Batch) -> None:
        """Queue the bars of one batch. Where the queue is full it waits, drops, or raises QueueFull."""
        given_up = self._given_up
        bars: list[Bar] = []
        records: list[Record] = []
        malformed: list[tuple[Record, str]] = []
        for record in batch.records:
            if record.value is None:
                continue  # a tombstone: somebody deleted the bar from the topic, the store keeps it
            try:
                bars.append(self._decode(record.value))
                records.append(record)
            except BadRecord as exc:
                malformed.append((record, str(exc)))
        while not self._queue.admits(records):
            await self._wait()
            if self._given_up != given_up:
                return
        for record, why in malformed:
            await self._refusals.bury(record, Reason.malformed, why)
        if self._given_up != given_up:
            return  # a rebalance came in between: whoever owns its partition now reads it again
        self.counters.batches_in += 1
        self.taken += len(bars)
        self.drops.count(self._queue.put(batch, bars, records))
        self._resized()

    async def run(self) -> None:
        """Write until cancelled. Raises `StoreError` when the database refuses for good."""
        if self._absent:
            await self._patience(self._store.open)
            self._absent = False
            self._resized()
        while True:
            while self._queue.idle:
                await self._wait()
            self._writing = True
            await self._linger()
            await self._write_some()
            self._writing = self._holding = False
            self._resized()

    def hurry(self) -> None:
        """Write what is queued, or else comes next, without waiting for more."""
        self._hurried = True
        self._resized()

    async def drained(self) -> None:
        """Wait until the queue is empty and everything taken is acknowledged."""
        while not self._queue.idle:
            await self._wait()

    def forget(self) -> None:
        """Give up what is queued: its partitions went elsewhere, and its offsets are not committed.

        The level stays until the write that is under way is done: a queue that a rebalance has emptied
        says nothing of the database, and partitions that come back would run meanwhile.
        """
        self._holding = self._writing
        self._given_up += 1
        self.drops.take_back(self._queue.forget())
        self._resized()

    async def _linger(self) -> None:
        """Wait for more bars, unless there are enough for a transaction or somebody waits for these."""
        if self.linger_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.linger_s):
                    while self.size < self._at_once and self.level is Level.ok and not self._hurried:
                        await self._wait()
        self._hurried = False

    async def _write_some(self) -> None:
        items = self._in_flight = self._queue.take(self._at_once)
        started = time.monotonic()
        try:
            await self._write(items)
        except StoreError:
            for item in items:
                self._failed(item)
            raise
        finally:
            self._in_flight = ()
        if items:
            self.drain_rate = len(items) / max(time.monotonic() - started, 1e-6)
        # Of what comes meanwhile, not even a batch without bars: its dead letters may be on their way.
        mark = self._queue.mark()
        await self._producer.barrier()  # the dead letters among them
        for batch in self._queue.finished(mark):
            batch.ack()
            self.counters.batches_committed += 1
            self.on_stored(batch.tp.partition, batch.last_offset)

    async def _write(self, items: Sequence[Item]) -> None:
        if not items:
            return
        bars = [item.bar for item in items]
        started = time.monotonic()
        smaller: tuple[type[StoreError], ...] = (StoreTooSlow,) if len(bars) > 1 else ()
        try:
            result = await self._patience(lambda: self._store.write(bars), unless=smaller)
        except (BadBar, StoreTooSlow) as exc:
            half = len(bars) // 2
            if isinstance(exc, StoreTooSlow):
                if not half:
                    raise
                log.warning("store.too_slow", error=str(exc), bars=len(bars), next=half, queue=self.size)
                self._at_once = half
            elif not half:
                self._queue.settle(items[0])
                self._failed(items[0])
                await self._refusals.refused(items[0].record, exc)
                return
            await self._write(items[:half])
            await self._write(items[half:])
            return
        if len(bars) >= self._at_once:
            self._at_once = min(self._at_once + self._write_batch // 50 + 1, self._write_batch)
        self.written += result.written
        self.stale += result.stale
        conflicts = set(map(id, result.conflicts))
        self._last_commit_at = datetime.now(UTC)
        self.counters.committed(len(bars) - len(conflicts), time.monotonic() - started)
        conflicting = [item for item in items if id(item.bar) in conflicts]
        for item in items:
            if id(item.bar) not in conflicts:
                self._queue.settle(item)
        self._resized()
        for item in conflicting:
            self._queue.settle(item)  # each in the moment in which it is counted as a dead letter
            self._failed(item)
            await self._refusals.conflict(item.record, item.bar)
        self.on_written([bar for bar in bars if id(bar) not in conflicts])

    def _failed(self, item: Item) -> None:
        self.counters.batches_failed += not item.entry.failed
        item.entry.failed = True

    def _resized(self) -> None:
        level = next_level(self.level, self.size / self.capacity, self.thresholds)
        if self._absent or (self._holding and self.level is Level.hard):
            level = Level.hard
        changed, self.level = level is not self.level, level
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
        if changed:
            self._on_level()

    async def _wait(self) -> None:
        await self._changed.wait()
