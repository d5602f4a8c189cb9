"""A writer under each policy: every bar that it takes is accounted for, at every moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.bar import Bar, encode_bar
from schemas.dead_letter import Reason
from schemas.errors import BadBar, QueueFull, StoreTooSlow
from streams.batch import Batch
from streams.store.base import Store, WriteResult
from streams.store.overflow import Overflow
from support.store_contract import START_NS, a_bar
from support.writing import BARS, Desk, Letter, desk

CONFLICTING, REFUSED = "CONFLICTING", "REFUSED"
DROPPING = [Overflow.drop_oldest, Overflow.drop_newest]


class Gate:
    """A store in memory that ends a write when it is told, with at most so many bars at a time."""

    name = "gate"

    def __init__(self, most: int = 1_000) -> None:
        self.most = most
        self.asked = asyncio.Event()
        self.go = asyncio.Semaphore(0)
        self.seen: Counter[str] = Counter()
        self.starts: list[int] = []
        self._keys: set[tuple[str, int]] = set()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        self.asked.set()
        await self.go.acquire()
        self.asked.clear()
        if len(bars) > self.most:
            raise StoreTooSlow("it took too long")
        if any(bar.symbol == REFUSED for bar in bars):
            self._saw(bars if len(bars) == 1 else [])
            raise BadBar("it does not fit", bar=bars[0] if len(bars) == 1 else None)
        self._saw(bars)
        conflicts = [bar for bar in bars if bar.symbol == CONFLICTING]
        before = len(self._keys)
        self._keys |= {(bar.symbol, bar.start_ns) for bar in bars if bar.symbol != CONFLICTING}
        written = len(self._keys) - before
        return WriteResult(written, len(bars) - written - len(conflicts), conflicts)

    def _saw(self, bars: Sequence[Bar]) -> None:
        self.seen.update(bar.instrument for bar in bars)
        self.starts += [bar.start_ns for bar in bars]


class Site:
    """A writer at a gate, somebody who puts batches one after the other, and their accounts."""

    def __init__(self, overflow: Overflow, capacity: int, write_batch: int, most: int) -> None:
        self.store = Gate(most)
        self.overflow, self.capacity = overflow, capacity
        self.desk = Desk(
            cast("Store", self.store), capacity=capacity, write_batch=write_batch, overflow=overflow
        )
        self.writer = self.desk.writer
        self.came: Counter[str] = Counter()
        self.taken = 0
        self.full: QueueFull | None = None
        self._forgot = self._given_up = self._orphans = self._since = self._back = 0
        self._todo: asyncio.Queue[list[bytes | None]] = asyncio.Queue()
        self._offset = 0
        self._batches: list[Batch] = []
        self._largest = 1

    @property
    def malformed(self) -> int:
        return sum(letter.reason is Reason.malformed for _, letter in self.desk.producer.sent)

    @property
    def told(self) -> int:
        """Bars of which the store has said what became of them."""
        return self.writer.written + self.writer.stale + self.writer.dead_lettered - self.malformed

    def check(self) -> None:
        queue = self.writer._queue
        given_up = self._given_up - self._back - min(self._orphans, self.told - self._since)
        assert self.taken == self.told + self.writer.dropped.total() + self.writer.size + given_up
        assert self.writer.drops.total == self.writer.dropped.total()
        if self.overflow in DROPPING:
            assert len(queue._waiting) <= self.capacity
        else:
            assert not self.writer.drops.total
            assert self.writer.size < self.capacity + self._largest
        acked = [batch.acked for batch in self._batches]
        assert acked == sorted(acked, reverse=True), "a batch was acknowledged before one that came before it"

    def put(self, values: list[bytes | None]) -> None:
        self._todo.put_nowait(values)

    async def feed(self) -> None:
        while True:
            values = await self._todo.get()
            symbols = Counter(_instrument(value) for value in values if value not in (None, b"no bar"))
            self._largest = max(self._largest, symbols.total())
            records = [Letter(value, self._offset + n) for n, value in enumerate(values)]
            forgot = self._forgot
            batch = self.desk.ledger.deliver(BARS, records)
            self._offset += len(values)
            self._batches.append(batch)
            try:
                await self.writer.put(batch)
            except QueueFull as exc:
                self.full = exc
                return
            if forgot == self._forgot:
                self.taken += symbols.total()
                self.came += symbols
            self.check()

    def forget(self) -> None:
        if in_write := self.writer._queue._in_write:
            self._back += min(self._orphans, self.told - self._since)
            self._orphans, self._since = in_write, self.told
        self._given_up += self.writer.size + self.writer.drops.total
        self._forgot += 1
        self.writer.forget()
        self._given_up -= self.writer.drops.total
        self.desk.ledger.forget()
        self._batches = []


def _instrument(value: bytes | None) -> str:
    assert value is not None
    return value.split(b'"instrument":"')[1].split(b'"')[0].decode()


async def _turn() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


_symbols = st.sampled_from(["A", "A", "B", "B", "C", CONFLICTING, REFUSED])
_values = st.one_of(
    st.builds(
        lambda symbol, n: encode_bar(a_bar(symbol=symbol, start_ns=START_NS + n)),
        _symbols,
        st.integers(0, 30),
    ),
    st.sampled_from([None, b"no bar"]),
)
_steps = st.one_of(
    st.lists(_values, min_size=1, max_size=9),
    st.lists(_values, min_size=1, max_size=9),
    st.sampled_from(["write", "write", "write", "turn", "forget"]),
)


@pytest.mark.parametrize("overflow", list(Overflow))
@given(
    steps=st.lists(_steps, max_size=40),
    capacity=st.integers(1, 12),
    write_batch=st.integers(1, 12),
    most=st.integers(1, 12),
)
@settings(deadline=None)
def test_bars_taken_are_written_stale_dead_lettered_dropped_or_queued_at_every_moment(
    overflow: Overflow, steps: list[Any], capacity: int, write_batch: int, most: int
) -> None:
    async def run() -> None:
        site = Site(overflow, capacity, write_batch, most)
        await site.writer.open()
        site.desk.start()
        feeding = asyncio.create_task(site.feed())
        forgets = 0
        try:
            for step in steps:
                if step == "write":
                    site.store.go.release()
                elif step == "forget":
                    forgets += 1
                    site.forget()
                elif step != "turn":
                    site.put(step)
                for _ in range(12):  # at every turn of the loop, not only when all is quiet
                    await asyncio.sleep(0)
                    if not site.desk.task.done():
                        site.check()
            assert not site.desk.task.done(), site.desk.task
            for _ in range(10_000):
                if site.writer.idle and (feeding.done() or site._todo.empty()):
                    break
                site.store.go.release()
                await _turn()
            site.check()
            assert (site.writer.size, site.writer.idle) == (0, True)
            if overflow is not Overflow.error:
                assert not feeding.done(), feeding
            if site.full is None and not forgets:
                assert site.desk.committable == site._offset
                assert site.came == site.store.seen + site.writer.dropped
        finally:
            for task in (feeding, site.desk.task):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    with structlog.testing.capture_logs():
        asyncio.run(run())


def _bars(number: int, first: int = 0) -> list[Bar]:
    return [a_bar(start_ns=START_NS + first + n) for n in range(number)]


async def _asked(store: Gate) -> None:
    async with asyncio.timeout(5):
        await store.asked.wait()


@pytest.mark.parametrize(
    ("overflow", "stored"),
    [
        (Overflow.drop_oldest, [0, 1, 2, 3, 9, 10, 11, 12, 13, 14]),
        (Overflow.drop_newest, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
async def test_a_put_that_drops_does_not_wait_and_its_offsets_are_acknowledged_in_their_turn(
    overflow: Overflow, stored: list[int]
) -> None:
    store = Gate()
    async with desk(cast("Store", store), capacity=6, write_batch=4, overflow=overflow) as at:
        async with asyncio.timeout(5):
            await at.put(_bars(6))
            await _asked(store)  # four of them are being written
            await at.put(_bars(4, 6))
            await at.put(_bars(5, 10))
        assert (at.writer.size, at.writer.dropped) == (10, {"BINANCE:BTCUSDT": 5})
        assert at.levels == ["hard"]
        assert at.committable == 0
        for _ in range(9):
            store.go.release()
        await at.drained(5)
        assert [start - START_NS for start in store.starts] == stored
        assert (at.committable, at.writer.written, at.writer.drops.total) == (15, 10, 5)
        assert at.levels[-1] == "ok"


async def test_where_the_policy_is_an_error_what_fits_is_stored_and_what_does_not_is_not_acknowledged() -> (
    None
):
    store = Gate()
    async with desk(cast("Store", store), capacity=5, write_batch=4, overflow=Overflow.error) as at:
        await at.put(_bars(6))
        with pytest.raises(QueueFull, match=r"holds 6 bars, its capacity is 5, and md.bars.v1\[0\]@7 "):
            await at.writer.put(
                at.ledger.deliver(BARS, [Letter(b"no bar", 6), Letter(encode_bar(a_bar()), 7)])
            )
        assert at.dead == []  # the batch comes again, and so would its dead letters
        for _ in range(9):
            store.go.release()
        await at.drained(5)
        assert (at.committable, at.writer.written, at.writer.drops.total) == (6, 6, 0)


async def test_what_was_dropped_of_a_batch_that_comes_again_is_not_dropped() -> None:
    store = Gate()
    async with desk(cast("Store", store), capacity=4, write_batch=4, overflow=Overflow.drop_newest) as at:
        await at.put(_bars(6))
        store.go.release()
        await at.drained(5)
        assert at.writer.dropped == {"BINANCE:BTCUSDT": 2}  # for good: its offsets are acknowledged
        store.asked.clear()
        await at.put(_bars(2, 6))
        await _asked(store)
        with structlog.testing.capture_logs() as lines:
            await at.put(_bars(7, 8))
            assert at.writer.drops.total == 5
            at.writer.forget()
        assert (at.writer.drops.total, at.writer.dropped) == (2, {"BINANCE:BTCUSDT": 2})
        dropped, again = (line for line in lines if line["event"].startswith("store.dropped"))
        assert (dropped["dropped"], dropped["total"], again["given_up"], again["total"]) == (5, 5, 3, 2)


@pytest.mark.parametrize("overflow", list(Overflow))
async def test_what_a_rebalance_takes_away_is_not_dropped(overflow: Overflow) -> None:
    store = Gate()
    async with desk(cast("Store", store), capacity=6, write_batch=4, overflow=overflow) as at:
        await at.put(_bars(6))
        await _asked(store)
        at.writer.forget()
        assert (at.writer.size, at.writer.drops.total) == (0, 0)
        await at.put(_bars(5, 6))
        assert at.writer.size == 5
        for _ in range(9):
            store.go.release()
        await at.drained(5)
        assert [start - START_NS for start in store.starts] == [0, 1, 2, 3, 6, 7, 8, 9, 10]
        assert at.writer.drops.total == 0


async def test_a_batch_that_waited_for_room_while_its_partition_went_away_is_not_taken() -> None:
    store = Gate()
    async with desk(cast("Store", store), capacity=2, overflow=Overflow.block) as at:
        await at.put(_bars(2))
        waiting = asyncio.create_task(at.put(_bars(2, 2)))
        await _asked(store)
        assert not waiting.done()
        at.writer.forget()
        await asyncio.wait_for(waiting, 5)
        assert (at.writer.size, at.writer.idle) == (0, True)


async def test_what_is_no_bar_in_such_a_batch_is_left_to_who_reads_it_again() -> None:
    store = Gate()
    async with desk(cast("Store", store), capacity=2, overflow=Overflow.block) as at:
        await at.put(_bars(2))
        waiting = asyncio.create_task(at.writer.put(at.ledger.deliver(BARS, [Letter(b"no bar", 2)])))
        await _asked(store)
        at.writer.forget()
        await asyncio.wait_for(waiting, 5)
        assert (at.dead, at.writer.dead_lettered) == ([], 0)
