"""The bounded queue between the bars topic and the database."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import stamina
import structlog

from schemas.bar import Bar, decode_bar
from schemas.dead_letter import HEADER, DeadLetter, Reason, encode_dead_letter
from schemas.errors import BadBar, BadRecord, StoreError
from schemas.feedback import Level
from streams.batch import Batch, Record
from streams.flow.pressure import Thresholds, next_level
from streams.producer import BarrierProducer
from streams.store.base import Store, WriteResult

log = structlog.get_logger(__name__)


def _retriable(exc: Exception) -> bool:
    return isinstance(exc, StoreError) and exc.retriable


class _Entry:
    """A batch in the queue: its bars, and how many of them are written."""

    __slots__ = ("bars", "batch", "records", "written")

    def __init__(self, batch: Batch, bars: list[Bar], records: list[Record]) -> None:
        self.batch = batch
        self.bars = bars
        self.records = records
        self.written = 0


class StoreWriter:
    """Takes batches of bars, writes them in transactions, and acknowledges them when committed.

    Contract: `put` waits while the queue is full, so nothing is dropped; a batch is acknowledged
    only after the database has committed all its bars, and its dead letters are durable. A database
    that cannot take a write right now is tried again with jittered backoff, for as long as it
    takes. A bar that the database refuses, a record that is no bar and a bar of an instrument that
    lives on another partition are dead-lettered and hold nothing up.
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
        on_level: Callable[[], None] = lambda: None,
    ) -> None:
        self.capacity = capacity
        self.level = Level.ok
        self.stale = 0
        self.dead_lettered = 0
        self.last_error: StoreError | None = None
        self.drain_rate: float | None = None
        self.on_stored: Callable[[int, int], None] = lambda partition, offset: None
        self.on_written: Callable[[list[Bar]], None] = lambda bars: None
        self._store = store
        self._producer = producer
        self._dead_letter_topic = dead_letter_topic
        self._write_batch = write_batch
        self._linger_s = linger_s
        self._thresholds = thresholds
        self._on_level = on_level
        self._entries: deque[_Entry] = deque()
        self._size = 0
        self._conflicting: set[str] = set()
        self._changed = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether every batch taken has been committed by the database."""
        return not self._entries

    @property
    def size(self) -> int:
        """Bars taken and not yet committed by the database."""
        return self._size

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
                await self._bury(record, Reason.malformed, str(exc))
        self._entries.append(_Entry(batch, bars, records))
        self._resize(len(bars))

    async def run(self) -> None:
        """Write until cancelled. Raises `StoreError` when the database refuses for good."""
        while True:
            while not self._entries:
                await self._wait()
            if self._size < self._write_batch and self._linger_s:
                await asyncio.sleep(self._linger_s)
            await self._write_some()

    async def drained(self) -> None:
        """Wait until the queue is empty and everything taken is committed."""
        while self._entries:
            await self._wait()

    def forget(self) -> None:
        """Drop what is queued: its partitions went elsewhere, and its offsets are not committed."""
        self._entries.clear()
        self._resize(-self._size)

    async def _write_some(self) -> None:
        taken: list[tuple[_Entry, int]] = []
        bars: list[Bar] = []
        records: list[Record] = []
        for entry in self._entries:
            upto = min(len(entry.bars), entry.written + self._write_batch - len(bars))
            bars += entry.bars[entry.written : upto]
            records += entry.records[entry.written : upto]
            taken.append((entry, upto))
            if len(bars) >= self._write_batch:
                break
        started = time.monotonic()
        await self._write(bars, records)
        if bars:
            self.drain_rate = len(bars) / max(time.monotonic() - started, 1e-6)
        await self._producer.barrier()  # the dead letters among them
        for entry, upto in taken:
            entry.written = upto
        while self._entries and self._entries[0].written == len(self._entries[0].bars):
            entry = self._entries.popleft()
            entry.batch.ack()
            self.on_stored(entry.batch.tp.partition, entry.batch.last_offset)
            self._resize(-len(entry.bars))

    async def _write(self, bars: Sequence[Bar], records: Sequence[Record]) -> None:
        if not bars:
            return
        try:
            result = await self._write_patiently(bars)
        except BadBar as exc:
            if len(bars) == 1:
                await self._bury(records[0], Reason.refused, str(exc))
                return
            half = len(bars) // 2
            await self._write(bars[:half], records[:half])
            await self._write(bars[half:], records[half:])
            return
        self.stale += result.stale
        conflicts = set(map(id, result.conflicts))
        for bar, record in zip(bars, records, strict=True):
            if id(bar) in conflicts:
                await self._refuse_conflict(bar, record)
        self.on_written([bar for bar in bars if id(bar) not in conflicts])

    async def _refuse_conflict(self, bar: Bar, record: Record) -> None:
        source = f"{bar.source_topic}[{bar.source_partition}]"
        if bar.instrument not in self._conflicting:  # told once; the dead letters tell of each bar
            self._conflicting.add(bar.instrument)
            log.error(
                "bar.conflict",
                instrument=bar.instrument,
                type=bar.type,
                start_ns=bar.start_ns,
                source=source,
                hint="its bars are stored from another partition: key ticks by instrument",
            )
        detail = (
            f"{bar.instrument} {bar.type} start_ns={bar.start_ns}: stored from another source than {source}"
        )
        await self._bury(record, Reason.conflict, detail)

    async def _write_patiently(self, bars: Sequence[Bar]) -> WriteResult:
        async for attempt in stamina.retry_context(on=_retriable, attempts=None, timeout=None, wait_max=10.0):
            with attempt:
                try:
                    result = await self._store.write(bars)
                except StoreError as exc:
                    self.last_error = exc
                    if exc.retriable:
                        log.warning("store.retry", error=str(exc), attempt=attempt.num, queue=self._size)
                    raise
        if self.last_error is not None:
            log.info("store.back", after_attempts=attempt.num, queue=self._size)
            self.last_error = None
        return result

    async def _bury(self, record: Record, reason: Reason, detail: str) -> None:
        self.dead_lettered += 1
        letter = DeadLetter(
            reason=reason,
            detail=detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            ts=time.time(),
        )
        await self._producer.send(
            self._dead_letter_topic,
            record.value,
            key=record.key,
            partition=record.partition,
            headers=[*record.headers, (HEADER, encode_dead_letter(letter))],
        )

    def _resize(self, by: int) -> None:
        self._size += by
        level = next_level(self.level, self._size / self.capacity, self._thresholds)
        changed, self.level = level is not self.level, level
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
        if changed:
            self._on_level()

    async def _wait(self) -> None:
        await self._changed.wait()
