"""The work of the bars role: batches of ticks in, bars and dead letters out, offsets when durable."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog
from faust.types import TP

from schemas.bar import Bar, encode_bar
from schemas.codecs import Codec, get_codec
from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import LaneLost
from streams.bars import intake as columns
from streams.bars.engine import BarEngine
from streams.bars.types import Counts, Record
from streams.batch import Batch
from streams.fetch import unpack
from streams.lane import Lane, Pace
from streams.metrics import CHECKPOINT
from streams.outlet import Outlet
from streams.settings import TickTopic
from streams.tally import Tally
from streams.topics import Topics

#: What reads columns is loaded once there were so many ticks, and so many in a batch: it takes seconds where it was
#: never compiled, and 100 MB. Who has few ticks never needs it.
MANY_TICKS, BUSY = 20_000, 100

#: Records from which on a batch is read in a thread beside the event loop; to hand over fewer takes longer.
LARGE = 1_500

#: Record header that says where in a file a record came from, as ``file:line``.
SOURCE_HEADER = "tidegate-source"

#: A partition that is lost so often in a row, with nothing made durable, will not be better the next time.
_MANY_LOSSES = 5

#: The lanes take turns at their checkpoints: what one of them holds up is its own bars, and for moments only.
TURNS = 8

#: How long a turn waits for its commits. One that hangs holds up its own lane; the others go on.
TURN_S = 1.0

log = structlog.get_logger(__name__)


def plain_codec(spec: TickTopic) -> Codec:
    """What decodes the records of a tick topic that are messages of its feed and nothing else."""
    return get_codec(spec.feed, spec.venue)


def load() -> None:
    """Have records read as columns from now on, from the bytes that were fetched. Raises what numba raises."""
    unpack.load()
    columns.load()


class BarsPipeline:
    """Applies batches to the `Lane` of their partition, one call of `process` at a time.

    It does not decide when to fetch (`Valve`), nor what a bar is (`BarEngine`), nor when what came out
    is durable (`Lane`). Without `keep_state` there is no other worker: nothing is read back or handed on.
    """

    def __init__(
        self,
        tick_topics: Iterable[TickTopic],
        topics: Topics,
        outlet: Callable[[int], Outlet],
        *,
        caught_up: Callable[[TP, int], bool] = lambda tp, offset: True,
        pace: Pace | None = None,
        keep_state: bool = True,
        checkpoint_bytes: int = 16 << 20,
        clock: Callable[[], int] = time.time_ns,
        codec: Callable[[TickTopic], Codec] = plain_codec,
        encode: Callable[[Bar], bytes] = encode_bar,
    ) -> None:
        self.counts = Counts()
        self.published = 0
        self.dead_letters: Counter[Reason] = Counter()
        self.lanes_lost = 0
        self.checkpoint_seconds = Tally(CHECKPOINT.bounds)
        self.on_applied: Callable[[int, int], None] = lambda partition, offset: None
        self.on_dead_letter: Callable[[Record, DeadLetter], None] = lambda record, letter: None
        self.on_lost: Callable[[int], None] = lambda partition: None
        """Called with the number of a partition that another worker has taken over, or whose transaction failed."""
        self._specs: Mapping[str, TickTopic] = {t.topic: t for t in tick_topics}
        self._topics = topics
        self._outlet = outlet
        self._caught_up = caught_up
        self._pace = pace
        self._keep_state = keep_state
        self._checkpoint_bytes = checkpoint_bytes
        self._clock = clock
        self._codec = codec
        self._encode = encode
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._lanes: dict[int, Lane] = {}
        self._homes: dict[str, TP] = {}
        self._losses: defaultdict[int, int] = defaultdict(int)
        self._loading: asyncio.Task[None] | None = None
        self._begun: dict[Lane, asyncio.Task[None]] = {}

    def read_ahead(self, batch: Batch) -> None:
        """Begin to read a large batch of ticks beside the event loop, which would be held up for too long."""
        if self._loading is None and self.counts.ticks >= MANY_TICKS and len(batch) >= BUSY:
            self._loading = asyncio.create_task(self._load())
        lane = self._lanes.get(batch.tp.partition)
        engine = lane and lane.engines.get(batch.tp)
        if engine and len(batch) >= LARGE:
            batch.ahead = self._reader.submit(engine.read, batch.records)

    async def _load(self) -> None:
        began = time.monotonic()
        log.info("columns.loading", ticks=self.counts.ticks)
        try:
            await asyncio.to_thread(load)
            log.info("columns.on", took_s=round(time.monotonic() - began, 2))
        except Exception as exc:  # whatever a compiler can raise: it does without
            log.warning(
                "columns.off",
                error=f"{type(exc).__name__}: {exc}",
                consequence="ticks are read one by one, at half the speed",
                hint="`pip install numba`, if there is one for this Python",
            )

    async def process(self, batch: Batch) -> None:
        """Apply one batch and hand its bars to the producer."""
        intake = await asyncio.wrap_future(batch.ahead) if batch.ahead is not None else None
        lane = self._lane(batch.tp)
        # Void where its partition was given back meanwhile: this worker may own it anew, at an earlier position.
        if batch.void or lane is None or not lane.ready:
            return  # lost: it is never acknowledged, and its next owner reads it again
        output = lane.apply(batch, self._clock(), intake)
        for name in Counts.__slots__:
            setattr(self.counts, name, getattr(self.counts, name) + getattr(output.counts, name))
        self._publish(lane, batch.tp, output.bars)
        for record, letter in output.dead:
            for name, value in record.headers:
                if name == SOURCE_HEADER and value is not None:
                    letter.source = value.decode("utf-8", "replace")
            self.dead_letters[letter.reason] += 1
            self.on_dead_letter(record, letter)
            lane.bury(record, letter)
        self.on_applied(batch.tp.partition, batch.last_offset)
        await self._guarded(lane, lane.drain)

    async def publish_idle(self) -> None:
        """Publish early what quiet instruments hold, where the partition is caught up."""
        for lane in self._ready():
            for tp, engine in lane.engines.items():
                if self._caught_up(tp, engine.position):
                    self._publish(lane, tp, engine.idle(self._clock()))
            await self._guarded(lane, lane.drain)

    async def close(self) -> None:
        """The input has ended: publish every open bar as final."""
        for lane in self._ready():
            for tp, engine in lane.engines.items():
                self._publish(lane, tp, engine.close())
        await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make what was applied so far durable, then acknowledge its batches."""
        await asyncio.gather(*(self._guarded(lane, lane.checkpoint) for lane in self._ready()))

    async def take_turn(self, turn: int) -> None:
        """Make a checkpoint of the lanes whose turn it is, of `TURNS`, without waiting for those that hang."""
        for lane in self._ready():
            if lane.partition % TURNS == turn and lane not in self._begun:
                self._begun[lane] = asyncio.create_task(self._guarded(lane, lane.checkpoint))
        mine = {lane: task for lane, task in self._begun.items() if lane.partition % TURNS == turn}
        if mine:
            await asyncio.wait(mine.values(), timeout=TURN_S)
        ended = [self._begun.pop(lane) for lane, task in mine.items() if task.done()]
        for error in [task.exception() for task in ended]:
            if error is not None:
                raise error

    async def take_over(self, tps: Iterable[TP], log_ids: Mapping[str, str]) -> dict[TP, Lane]:
        """Become the owner of tick partitions, before their state is read. Raises `BrokerError`.

        Gives their lanes, which take nothing before they are restored and made ready. `log_ids` are what
        the broker calls the tick topics: offsets mean nothing in a topic made anew.
        """
        await self.release()
        lanes: dict[TP, Lane] = {}
        for tp in tps:
            lanes[tp] = lane = self._lanes.get(tp.partition) or self._new_lane(tp.partition)
            lane.engines[tp] = self._engine(tp, log_ids.get(tp.topic, ""))
        await asyncio.gather(*(self._guarded(lane, lane.outlet.open) for lane in set(lanes.values())))
        return lanes

    async def release(self) -> None:
        """Give all partitions back: what is not durable is taken back, and made again by the next owner.

        Without state there is no other worker: they come back, and their engines go on.
        """
        if self._keep_state:
            lanes = list(self._lanes.values())
            self._lanes.clear()
            self._homes.clear()
            await asyncio.gather(*(lane.outlet.close() for lane in lanes))

    def is_ready(self, tp: TP) -> bool:
        """Whether batches of this partition can be processed. From any thread."""
        lane = self._lanes.get(tp.partition)
        return lane.ready if lane is not None else not self._keep_state

    def recovering(self) -> list[int]:
        """The partitions whose state is being read."""
        return sorted(lane.partition for lane in self._lanes.values() if not lane.ready)

    def waits_since(self) -> float | None:
        """Since when (`time.monotonic`) the oldest of what was applied waits to be durable."""
        return min((lane.waits_since for lane in self._lanes.values() if lane.waits_since), default=None)

    def position(self, tp: TP) -> int:
        """The offset of the last record applied; -1 before the first."""
        lane = self._lanes.get(tp.partition)
        engine = lane and lane.engines.get(tp)
        return engine.position if engine else -1

    def _ready(self) -> list[Lane]:
        # Into the engines of the others their state is being restored, in another thread.
        return [lane for lane in self._lanes.values() if lane.ready]

    def _lane(self, tp: TP) -> Lane | None:
        lane = self._lanes.get(tp.partition)
        if not self._keep_state:
            lane = lane or self._new_lane(tp.partition)
            if tp not in lane.engines:
                lane.engines[tp] = self._engine(tp, "")
        return lane

    def _new_lane(self, partition: int) -> Lane:
        lane = self._lanes[partition] = Lane(
            partition,
            self._outlet(partition),
            self._topics,
            keep_state=self._keep_state,
            pace=self._pace,
            checkpoint_bytes=self._checkpoint_bytes,
            seconds=self.checkpoint_seconds,
            encode=self._encode,
        )
        lane.ready = not self._keep_state
        return lane

    def _engine(self, tp: TP, log_id: str) -> BarEngine:
        spec = self._specs[tp.topic]
        return BarEngine(
            spec.spec,
            self._codec(spec),
            spec.source or tp.topic,
            tp.partition,
            log_id,
            keep_state=self._keep_state,
        )

    def _publish(self, lane: Lane, tp: TP, bars: list[Bar]) -> None:
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
        self.published += len(bars)
        lane.publish(bars)

    async def _guarded(self, lane: Lane, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step of a lane; a lane that is lost in it is dropped, and the worker goes on."""
        try:
            await step()
            if lane.committed:
                self._losses[lane.partition] = 0
        except LaneLost as lost:
            if self._lanes.get(lane.partition) is not lane:
                return  # told already
            del self._lanes[lane.partition]
            self._losses[lane.partition] += 1
            self.lanes_lost += 1
            log.warning(
                "partition.lost",
                partition=lane.partition,
                error=str(lost),
                hint=lost.hint,
                consequence="its owner goes on from the last checkpoint",
            )
            many = self._losses[lane.partition] >= _MANY_LOSSES
            if not many:
                self.on_lost(lane.partition)  # at once: by the time it is closed there may be another lane
            await lane.outlet.close()
            if many:
                raise
