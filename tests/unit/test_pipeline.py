"""What the bars role does with batches, without a broker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

import pytest
import structlog
from faust.types import TP

from schemas.bar import Bar, decode_bar
from schemas.dead_letter import HEADER, decode_dead_letter
from schemas.errors import LaneLost, ProduceError
from streams import pipeline as pipeline_module
from streams.bars.rows import Position
from streams.bars.state import encoded
from streams.batch import Batch, Ledger
from streams.outlet import Out, Outlet
from streams.pipeline import BUSY, SOURCE_HEADER, TURNS, BarsPipeline
from streams.settings import TickTopic
from streams.topics import Topics

TICKS, OTHER = TP("ticks", 0), TP("ticks", 1)
BASE = 1_723_161_240 * 10**9


class Record(NamedTuple):
    offset: int
    value: bytes
    headers: Any = ()
    key: bytes | None = None
    timestamp: int = BASE // 10**6


class Transactions:
    """Keeps what was produced, in order, and at each commit what was sealed; a commit ends when it is let."""

    def __init__(self) -> None:
        self.out: list[tuple[str, bytes | None, Any]] = []
        self.committed: list[tuple[str, bytes | None, Any]] = []
        self.fault: ProduceError | None = None
        self.closed = False
        self.may_pass_on = asyncio.Event()
        self.may_pass_on.set()
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.committing = asyncio.Event()
        self.passing_on = asyncio.Event()
        self._sealed = 0

    async def open(self) -> None:
        """It is."""

    def produce(self, topic: str, value: bytes | None, *, headers: Any = None, **where: Any) -> bool:
        if self.passing_on.is_set():
            return False
        self.out.append((topic, value, headers))
        return True

    async def room(self) -> None:
        await self.may_pass_on.wait()
        self.passing_on.clear()

    async def seal(self, last: Iterable[Out]) -> None:
        assert self._sealed == len(self.committed), "what was sealed before is to be committed first"
        self.out += [(out.topic, out.value, out.headers) for out in last]
        self._sealed = len(self.out)
        self.passing_on.set()
        await self.room()

    async def commit(self) -> None:
        await self.room()
        self.committing.set()
        await self.may_commit.wait()
        self.committing.clear()
        if self.fault is not None:
            raise self.fault
        self.committed = self.out[: self._sealed]

    async def close(self) -> None:
        self.closed = True

    def bars(self) -> list[Bar]:
        return [decode_bar(value or b"") for topic, value, _ in self.out if topic == "md.bars.v1"]

    def topics(self) -> list[str]:
        return [topic for topic, _, _ in self.committed]


def pipeline_of(outlet: Transactions | Callable[[int], Outlet], **options: Any) -> BarsPipeline:
    topic = TickTopic(topic="ticks", feed="csv", bars=("1m",))
    outlets = (lambda partition: outlet) if isinstance(outlet, Transactions) else outlet
    return BarsPipeline([topic], Topics(), outlets, **{"clock": lambda: BASE, **options})


def batch(first: int, last: int, ledger: Ledger | None = None, step_ns: int = 1, tp: TP = TICKS) -> Batch:
    def record(n: int) -> Record:
        ts_ns = BASE + n * step_ns
        line = f"A,{ts_ns},{ts_ns},{10 + n},1,{n},buy,".encode()
        return Record(n, b"rubbish" if n == 3 else line, timestamp=ts_ns // 10**6)

    records = [record(n) for n in range(first, last + 1)]
    return (ledger or Ledger()).deliver(tp, records)


async def test_without_state_what_comes_again_after_a_rebalance_counts_once() -> None:
    pipeline = pipeline_of(outlet := Transactions(), keep_state=False)
    await pipeline.process(batch(0, 5))
    await pipeline.release()
    await pipeline.process(batch(2, 3))
    assert pipeline.position(TICKS) == 5
    await pipeline.process(batch(4, 9))
    await pipeline.close()
    assert (pipeline.counts.ticks, pipeline.counts.accepted, pipeline.counts.dead_lettered) == (10, 9, 1)
    (bar,) = outlet.bars()
    assert (bar.trade_count, bar.volume, bar.open, bar.close) == (9, "9", "10", "19")


async def test_a_header_without_a_value_is_no_obstacle_to_a_dead_letter() -> None:
    pipeline = pipeline_of(outlet := Transactions(), keep_state=False)
    record = Record(0, b"rubbish", headers=[(SOURCE_HEADER, None), ("other", None)])
    await pipeline.process(Ledger().deliver(TICKS, [record]))
    ((topic, value, headers),) = outlet.out
    assert (topic, value, len(headers)) == ("md.ticks.dlq.v1", b"rubbish", 3)
    assert decode_dead_letter(dict(headers)[HEADER]).source is None


async def taken_over(outlet: Transactions, **options: Any) -> BarsPipeline:
    pipeline = pipeline_of(outlet, **options)
    await restore(pipeline, {})
    return pipeline


async def restore(pipeline: BarsPipeline, rows: dict[str, bytes]) -> None:
    lanes = await pipeline.take_over([TICKS], {"ticks": "id"})
    assert not pipeline.is_ready(TICKS)
    lanes[TICKS].restore(TICKS, rows)
    lanes[TICKS].ready = True


def position(offset: int) -> bytes:
    """The row of the state of a partition without instruments."""
    return encoded(Position(offset, "", 0, (0, 0), (0, 0)))


async def test_bars_and_then_the_state_that_holds_them_are_committed_before_offsets() -> None:
    pipeline, ledger = await taken_over(outlet := Transactions()), Ledger()
    minutes = batch(0, 2, ledger, step_ns=60 * 10**9)
    await pipeline.process(minutes)
    outlet.may_commit.clear()
    checkpoint = asyncio.create_task(pipeline.checkpoint())
    await outlet.committing.wait()
    await pipeline.process(later := batch(4, 4, ledger, step_ns=60 * 10**9))
    assert ledger.committable(TICKS) is None
    outlet.may_commit.set()
    await checkpoint
    state = "md.bars.state.v1"
    assert outlet.topics() == ["md.bars.v1", *[state] * 4]
    assert (minutes.acked, later.acked, ledger.committable(TICKS)) == (True, False, 3)
    # What came meanwhile is in the next transaction, and its offset with it.
    await pipeline.checkpoint()
    assert outlet.topics()[5:] == ["md.bars.v1", "md.bars.v1", *[state] * 4]
    assert ledger.committable(TICKS) == 5


async def test_bars_do_not_wait_for_a_commit() -> None:
    pipeline = await taken_over(outlet := Transactions())
    await pipeline.process(batch(0, 1, step_ns=60 * 10**9))
    outlet.may_commit.clear()
    checkpoint = asyncio.create_task(pipeline.checkpoint())
    await outlet.committing.wait()
    before = len(outlet.bars())
    await pipeline.process(batch(2, 2, step_ns=60 * 10**9))
    assert len(outlet.bars()) == before + 1
    outlet.may_commit.set()
    await checkpoint
    assert len(outlet.committed) == len(outlet.out) - 1


async def test_who_passes_on_to_the_next_transaction_holds_up_no_batch() -> None:
    pipeline = await taken_over(outlet := Transactions())
    await pipeline.process(batch(0, 1, step_ns=60 * 10**9))
    outlet.may_pass_on.clear()
    checkpoint = asyncio.create_task(pipeline.checkpoint())
    await outlet.passing_on.wait()
    before = len(outlet.bars())
    await asyncio.wait_for(pipeline.process(batch(2, 2, step_ns=60 * 10**9)), 5)
    assert len(outlet.bars()) == before
    outlet.may_pass_on.set()
    await checkpoint
    assert len(outlet.bars()) == before + 1
    assert len(outlet.committed) == len(outlet.out) - 1


async def test_a_checkpoint_that_is_cancelled_before_its_commit_is_taken_up_by_the_next() -> None:
    pipeline, ledger = await taken_over(outlet := Transactions()), Ledger()
    await pipeline.process(batch(0, 2, ledger))
    outlet.may_pass_on.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pipeline.checkpoint(), 0.01)
    outlet.may_pass_on.set()
    await pipeline.process(batch(4, 5, ledger))
    await pipeline.checkpoint()
    assert outlet.topics() == ["md.bars.state.v1"] * 8
    assert ledger.committable(TICKS) == 6


async def test_a_cancelled_checkpoint_is_taken_up_by_the_next() -> None:
    pipeline, ledger = await taken_over(outlet := Transactions()), Ledger()
    await pipeline.process(batch(0, 2, ledger))
    outlet.may_commit.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pipeline.checkpoint(), 0.01)
    assert ledger.committable(TICKS) is None
    outlet.committing.clear()
    outlet.may_commit.set()
    await pipeline.checkpoint()
    assert outlet.topics() == ["md.bars.state.v1"] * 4
    assert ledger.committable(TICKS) == 3


async def test_what_a_state_contains_is_not_applied_again_nor_dead_lettered_again() -> None:
    pipeline = await taken_over(outlet := Transactions())
    await pipeline.process(batch(0, 4))
    await pipeline.checkpoint()
    prefix = "md.bars.state.v1"
    rows = [value or b"" for topic, value, _ in outlet.out if topic == prefix]
    successor = pipeline_of(again := Transactions())
    await restore(successor, dict(zip(["names|0", "open|0", "past|0", ""], rows, strict=True)))
    assert successor.position(TICKS) == 4
    await successor.process(batch(2, 5))
    await successor.close()
    (bar,) = again.bars()
    assert (bar.trade_count, successor.counts.ticks, successor.counts.dead_lettered) == (5, 1, 0)


@pytest.mark.parametrize("during", ["commit", "produce"])
async def test_a_lost_lane_vouches_for_nothing_and_the_worker_goes_on(during: str) -> None:
    lost: list[int] = []
    pipeline, ledger = await taken_over(outlet := Transactions()), Ledger()
    pipeline.on_lost = lost.append
    await pipeline.process(batch(0, 2, ledger))
    if during == "commit":
        outlet.fault = LaneLost("fenced")
        await pipeline.checkpoint()
    else:

        def fenced(*args: Any, **kwargs: Any) -> bool:
            raise LaneLost("fenced")

        outlet.produce = fenced  # type: ignore[method-assign]
        await pipeline.process(batch(3, 3, ledger))
    assert (lost, outlet.closed, ledger.committable(TICKS)) == ([0], True, None)
    await pipeline.process(another := batch(4, 5, ledger))  # what was on its way to the agent
    await pipeline.checkpoint()
    assert (another.acked, pipeline.position(TICKS), lost) == (False, -1, [0])


async def test_a_take_over_that_the_next_one_overtook_changes_nothing() -> None:
    pipeline = pipeline_of(Transactions())
    old = await pipeline.take_over([TICKS], {})
    await pipeline.release()  # while the first still reads the state
    new = await pipeline.take_over([TICKS], {})
    old[TICKS].restore(TICKS, {"": position(7)})
    old[TICKS].ready = True
    assert (pipeline.is_ready(TICKS), pipeline.position(TICKS)) == (False, -1)
    new[TICKS].restore(TICKS, {"": position(9)})
    new[TICKS].ready = True
    assert (pipeline.is_ready(TICKS), pipeline.position(TICKS)) == (True, 9)


async def test_a_lane_that_cannot_be_kept_stops_the_worker_at_last() -> None:
    outlets: defaultdict[int, Transactions] = defaultdict(Transactions)
    outlets[0].fault = LaneLost("fenced")
    pipeline = pipeline_of(lambda partition: outlets[partition])

    async def lose() -> None:
        for lane in (await pipeline.take_over([TICKS, OTHER], {})).values():
            lane.ready = True
        await pipeline.checkpoint()  # of nothing
        await pipeline.process(batch(0, 2))
        await pipeline.process(batch(0, 2, tp=OTHER))
        await pipeline.checkpoint()

    for _ in range(4):
        await lose()
    assert outlets[1].committed, "that others do well changes nothing"
    with pytest.raises(LaneLost):
        await lose()


async def test_lanes_that_are_all_lost_at_once_do_not_stop_the_worker() -> None:
    tps = [TP("ticks", partition) for partition in range(8)]
    outlets: defaultdict[int, Transactions] = defaultdict(Transactions)
    pipeline = pipeline_of(lambda partition: outlets[partition])
    lost: list[int] = []
    pipeline.on_lost = lost.append
    for lane in (await pipeline.take_over(tps, {})).values():
        lane.ready = True
    for tp in tps:
        await pipeline.process(batch(0, 2, tp=tp))
        outlets[tp.partition].fault = LaneLost("the process was stopped for an hour")
    await pipeline.checkpoint()
    assert sorted(lost) == list(range(8))


async def test_a_loss_voids_nothing_of_the_lane_that_comes_next() -> None:
    pipeline = await taken_over(outlet := Transactions())
    lost: list[int] = []
    pipeline.on_lost = lost.append
    await pipeline.process(batch(0, 2))
    outlet.fault = LaneLost("fenced")
    closing, may_close = asyncio.Event(), asyncio.Event()

    async def close() -> None:
        closing.set()
        await may_close.wait()

    outlet.close = close  # type: ignore[method-assign]
    checkpoint = asyncio.create_task(pipeline.checkpoint())
    await closing.wait()
    assert lost == [0], "before another can be there"
    await restore(pipeline, {})
    may_close.set()
    await checkpoint
    assert lost == [0]


async def test_a_lane_without_its_state_publishes_nothing() -> None:
    pipeline = pipeline_of(outlet := Transactions(), clock=lambda: BASE + 10**12)
    (lane,) = (await pipeline.take_over([TICKS], {})).values()
    lane.apply(batch(0, 2), BASE)  # as if that were restored in its thread just now
    await pipeline.publish_idle()
    await pipeline.checkpoint()
    assert outlet.out == []
    lane.ready = True
    await pipeline.publish_idle()
    assert len(outlet.bars()) == 1


async def test_a_take_over_that_is_taken_back_while_it_fences_is_no_error() -> None:
    pipeline = pipeline_of(outlet := Transactions())
    lost: list[int] = []
    pipeline.on_lost = lost.append

    async def given_back() -> None:
        await pipeline.release()
        raise LaneLost("given back before it was open")

    outlet.open = given_back  # type: ignore[method-assign]
    await pipeline.take_over([TICKS], {})
    assert (lost, pipeline.is_ready(TICKS)) == ([], False)


async def test_what_was_being_decoded_when_its_partition_went_and_came_back_is_not_applied() -> None:
    pipeline, ledger = await taken_over(Transactions()), Ledger()
    await pipeline.process(batch(0, 2, ledger))
    behind = batch(4, 6, ledger)
    decoding: Future[Any] = Future()
    behind.ahead = decoding
    waiting = asyncio.create_task(pipeline.process(behind))
    await asyncio.sleep(0)
    await pipeline.release()
    ledger.forget()
    await restore(pipeline, {})
    decoding.set_result(None)
    await waiting
    assert pipeline.position(TICKS) == -1, "what is before the batch is in no state"


async def test_a_commit_that_hangs_holds_up_its_own_lane_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "TURN_S", 0.01)
    tps = [TP("ticks", 0), TP("ticks", TURNS)]
    outlets: defaultdict[int, Transactions] = defaultdict(Transactions)
    pipeline, ledger = pipeline_of(lambda partition: outlets[partition]), Ledger()
    lost: list[int] = []
    pipeline.on_lost = lost.append
    for lane in (await pipeline.take_over(tps, {})).values():
        lane.ready = True
    outlets[0].may_commit.clear()
    for first in (0, 4):
        for tp in tps:
            await pipeline.process(batch(first, first + 2, ledger, tp=tp))
        await pipeline.take_turn(0)
        await pipeline.take_turn(1)
    assert [ledger.committable(tp) for tp in tps] == [None, 7]
    outlets[0].fault = LaneLost("fenced")
    outlets[0].may_commit.set()
    await pipeline.take_turn(0)
    assert lost == [0]


async def test_a_turn_tells_what_stops_the_worker() -> None:
    pipeline = await taken_over(outlet := Transactions())
    await pipeline.process(batch(0, 2))
    outlet.fault = ProduceError("too large")
    with pytest.raises(ProduceError, match="too large"):
        await pipeline.take_turn(0)


async def test_what_waits_for_a_commit_is_bounded_by_its_bytes() -> None:
    pipeline = await taken_over(outlet := Transactions(), checkpoint_bytes=1 << 20)
    await pipeline.process(batch(0, 0))
    outlet.may_commit.clear()
    checkpoint = asyncio.create_task(pipeline.checkpoint())
    await outlet.committing.wait()
    taken = 0

    async def rubbish() -> None:
        nonlocal taken
        for n in range(1, 17):
            await pipeline.process(Ledger().deliver(TICKS, [Record(n, bytes(1 << 18))]))
            taken = n

    feeding = asyncio.create_task(rubbish())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(feeding), 0.05)
    assert taken == 3
    outlet.may_commit.set()
    await asyncio.gather(checkpoint, feeding)
    await pipeline.checkpoint()
    assert outlet.topics().count("md.ticks.dlq.v1") == 16


async def test_much_output_is_committed_before_its_time() -> None:
    pipeline, ledger = await taken_over(outlet := Transactions(), checkpoint_bytes=1000), Ledger()
    await pipeline.process(batch(0, 0, ledger, step_ns=60 * 10**9))
    assert outlet.committed == []
    await pipeline.process(batch(1, 9, ledger, step_ns=60 * 10**9))
    assert ledger.committable(TICKS) == 10


@pytest.mark.parametrize("there", [True, False])
async def test_what_reads_columns_is_loaded_once_there_are_many_ticks(there, monkeypatch) -> None:
    loads: list[int] = []

    def load() -> None:
        loads.append(1)
        if not there:
            raise ImportError("no numba")

    monkeypatch.setattr("streams.pipeline.load", load)
    monkeypatch.setattr("streams.pipeline.MANY_TICKS", 100)
    pipeline = pipeline_of(Transactions(), keep_state=False)
    with structlog.testing.capture_logs() as logged:
        for number, size in enumerate([BUSY, BUSY - 1, BUSY, BUSY]):
            a_batch = batch(200 * number, 200 * number + size - 1)
            pipeline.read_ahead(a_batch)
            assert (pipeline._loading is None) == (number < 2), "few ticks so far, then few in a batch"
            await pipeline.process(a_batch)
        assert pipeline._loading is not None
        await pipeline._loading
    assert loads == [1]
    told = [(entry["event"], entry.get("error")) for entry in logged]
    came = ("columns.on", None) if there else ("columns.off", "ImportError: no numba")
    assert told == [("columns.loading", None), came]
