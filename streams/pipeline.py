"""The work of the bars role: batches of ticks in, bars and dead letters out, offsets when durable."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from faust.types import TP

from schemas.bar import Bar, bar_key, encode_bar
from schemas.codecs import get_codec
from schemas.dead_letter import HEADER, DeadLetter, encode_dead_letter
from streams.bars.engine import BarEngine
from streams.bars.types import Counts, Record
from streams.batch import Batch
from streams.changelog import Row
from streams.producer import BarrierProducer
from streams.settings import TickTopic
from streams.topics import Topics

#: Record header that says where in a file a record came from, as ``file:line``.
SOURCE_HEADER = "tidegate-source"

log = structlog.get_logger(__name__)


class _Out(NamedTuple):
    """A record to be produced."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


class BarsPipeline:
    """Applies batches to one `BarEngine` per tick partition and publishes what comes out.

    Contract: a batch is acknowledged (so that its offset may be committed) only after all that it
    and its predecessors led to was acknowledged by the broker. `process` is called for one batch at
    a time. Nothing is lost if it is cancelled: what an engine gave is kept until it was produced.

    It does not decide when to fetch (`Valve`), nor what a bar is (`BarEngine`).
    """

    def __init__(
        self,
        tick_topics: Iterable[TickTopic],
        topics: Topics,
        producer: BarrierProducer,
        *,
        caught_up: Callable[[TP, int], bool] = lambda tp, offset: True,
        pace: Callable[[int, int], Any] | None = None,
        keep_state: bool = True,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.counts = Counts()
        self.published = 0
        self.on_applied: Callable[[int, int], None] = lambda partition, offset: None
        self.on_dead_letter: Callable[[Record, DeadLetter], None] = lambda record, letter: None
        self._specs: Mapping[str, TickTopic] = {t.topic: t for t in tick_topics}
        self._topics = topics
        self._producer = producer
        self._caught_up = caught_up
        self._pace = pace
        self._clock = clock
        self._engines: dict[TP, BarEngine] = {}
        self._keep_state = keep_state
        self._rows: list[Row] = []
        self._applied: list[Batch] = []
        self._positions: dict[TP, int] = {}
        self._outbox: deque[_Out] = deque()
        self._homes: dict[str, TP] = {}
        self._checkpoint_lock = asyncio.Lock()

    async def process(self, batch: Batch) -> None:
        """Apply one batch and hand its bars to the producer."""
        engine = self._engine(batch.tp)
        position = self._positions.get(batch.tp, -1)
        records = batch.records
        if batch.first_offset <= position:  # sought back, and the engine still has what it applied
            records = [record for record in records if record.offset > position]
        output = engine.apply(records, self._clock())
        self._positions[batch.tp] = max(position, batch.last_offset)
        for name in Counts.__slots__:
            setattr(self.counts, name, getattr(self.counts, name) + getattr(output.counts, name))
        self._queue(batch.tp, output.bars)
        for record, letter in output.dead:
            self._bury(record, letter)
        self._applied.append(batch)
        self.on_applied(batch.tp.partition, batch.last_offset)
        await self._drain()

    async def publish_idle(self) -> None:
        """Publish early what quiet instruments hold, where the partition is caught up."""
        for tp, engine in list(self._engines.items()):
            if self._caught_up(tp, self._positions.get(tp, -1)):
                self._queue(tp, engine.idle(self._clock()))
        await self._drain()

    async def close(self) -> None:
        """The input has ended: publish every open bar as final."""
        for tp, engine in self._engines.items():
            self._queue(tp, engine.close())
        await self._drain()
        await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make what was applied so far durable, then acknowledge its batches.

        First the bars, then the state: state that is ahead of its bars would skip them after a
        crash. What a cancelled checkpoint leaves, the next one takes up.
        """
        async with self._checkpoint_lock:
            await self._drain()
            # One moment, without an await: the rows hold what these batches led to, and no more.
            applied = list(self._applied)
            if self._keep_state:
                for tp, engine in self._engines.items():
                    self._rows += [Row(tp, name, value) for name, value in engine.changed().items()]
            rows = list(self._rows)
            await self._producer.barrier()
            if rows:
                for row in rows:
                    await self._producer.send(
                        self._topics.state, row.value, key=row.key, partition=row.tp.partition
                    )
                await self._producer.barrier()
                written = set(map(id, rows))
                self._rows = [row for row in self._rows if id(row) not in written]
            for batch in applied:
                batch.ack()
            self._applied = [batch for batch in self._applied if not batch.acked]

    def restore(self, tp: TP, rows: Mapping[str, bytes]) -> None:
        """Take over a partition with the state its last owner left. Raises `StateError`."""
        self._engines.pop(tp, None)
        self._engine(tp).restore(rows)

    def revoke(self, tps: Iterable[TP]) -> None:
        """Forget the partitions that went to another worker.

        Without state there is no other worker: they come back, and their engines go on.
        """
        if not self._keep_state:
            return
        for tp in tps:
            self._engines.pop(tp, None)
            self._positions.pop(tp, None)
        self._applied = [batch for batch in self._applied if batch.tp in self._engines]
        self._rows = [row for row in self._rows if row.tp in self._engines]
        self._homes = {name: tp for name, tp in self._homes.items() if tp in self._engines}

    def position(self, tp: TP) -> int:
        """The offset of the last record applied; -1 before the first."""
        return self._positions.get(tp, -1)

    def _engine(self, tp: TP) -> BarEngine:
        engine = self._engines.get(tp)
        if engine is None:
            spec = self._specs[tp.topic]
            engine = BarEngine(
                spec.spec, get_codec(spec.feed, spec.venue), spec.source or tp.topic, tp.partition
            )
            self._engines[tp] = engine
        return engine

    def _queue(self, tp: TP, bars: Iterable[Bar]) -> None:
        for bar in bars:
            home = self._homes.setdefault(bar.instrument, tp)
            if home != tp:
                self._homes[bar.instrument] = tp
                log.error(
                    "instrument.on_two_partitions",
                    instrument=bar.instrument,
                    here=f"{tp.topic}[{tp.partition}]",
                    before=f"{home.topic}[{home.partition}]",
                    hint="the store keeps the first and dead-letters the other; key ticks by instrument",
                )
            self.published += 1
            self._outbox.append(_Out(self._topics.bars, tp.partition, bar_key(bar), encode_bar(bar), None))

    def _bury(self, record: Record, letter: DeadLetter) -> None:
        for name, value in record.headers:
            if name == SOURCE_HEADER and value is not None:
                letter.source = value.decode("utf-8", "replace")
        self.on_dead_letter(record, letter)
        headers = [*record.headers, (HEADER, encode_dead_letter(letter))]
        self._outbox.append(
            _Out(self._topics.dead_letters, letter.partition, record.key, record.value, headers)
        )

    async def _drain(self) -> None:
        outbox, produce = self._outbox, self._producer.produce
        while outbox:
            out = outbox[0]
            if self._pace is not None and out.topic == self._topics.bars:
                await self._pace(out.partition, len(out.value or b""))
                if not outbox or outbox[0] is not out:
                    continue
            if produce(out.topic, out.value, key=out.key, partition=out.partition, headers=out.headers):
                outbox.popleft()
            else:
                await self._producer.room()
