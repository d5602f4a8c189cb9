"""How a writer says that it is, and what it counts, whatever store it writes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

import pytest

from schemas.bar import Bar
from schemas.errors import BadBar, StoreError, StoreRefused, StoreUnavailable
from schemas.health import HealthState
from streams.store.base import BarQuery, WriteResult
from streams.store.overflow import Overflow
from support.store_contract import START_NS, a_bar
from support.writing import Desk, desk

pytestmark = pytest.mark.covers("sink health")


class Told:
    """A store that does what it is told, bar by bar."""

    name = "told"

    def __init__(self) -> None:
        self.error: StoreError | None = None
        self.refused: set[int] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.began = asyncio.Event()

    async def open(self) -> None:
        if self.error is not None:
            raise self.error

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        self.began.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if self.refused & {bar.revision for bar in bars}:
            raise BadBar("it does not fit")
        return WriteResult(len(bars), 0, [bar for bar in bars if bar.symbol == "ELSEWHERE"])

    async def read(self, query: BarQuery) -> AsyncIterator[list[Bar]]:
        for none in ():
            yield none

    async def close(self) -> None: ...


def _bars(number: int, first: int = 0, **fields: object) -> list[Bar]:
    return [a_bar(start_ns=START_NS + n * 10**9, revision=n, **fields) for n in range(first, first + number)]


async def _until(at: Desk, condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            assert not at.task.done()
            await asyncio.sleep(0.005)


async def test_it_is_connected_while_the_database_takes_what_it_is_given() -> None:
    store = Told()
    before = Desk(store)  # type: ignore[arg-type]
    assert (before.writer.sink_health().connected, before.writer.health().state) == (
        False,
        HealthState.degraded,
    )
    async with desk(store) as at:  # type: ignore[arg-type]
        health = at.writer.sink_health()
        assert asdict(health) == {
            "connected": True,
            "queue_depth": 0,
            "in_flight_batches": 0,
            "last_commit_at": None,
            "last_error_at": None,
            "retry_count": 0,
            "detail": "told, block at 20,000 bars",
        }
        assert at.writer.health().state is HealthState.healthy
        store.go.clear()
        await at.put(_bars(3))
        await store.began.wait()
        await at.put(_bars(2, 3))
        health = at.writer.sink_health()
        assert (health.queue_depth, health.in_flight_batches) == (5, 1)
        store.go.set()
        await at.drained()
        health = at.writer.sink_health()
        assert (health.queue_depth, health.in_flight_batches) == (0, 0)
        assert health.last_commit_at is not None
        assert health.last_commit_at.tzinfo is not None


@pytest.mark.parametrize(
    ("error", "state"),
    [(StoreUnavailable("away"), HealthState.degraded), (StoreRefused("no right"), HealthState.unhealthy)],
)
async def test_while_it_waits_it_says_why_and_is_well_again_afterwards(
    error: StoreError, state: HealthState
) -> None:
    store = Told()
    async with desk(store) as at:  # type: ignore[arg-type]
        await at.put(_bars(1))
        await at.drained()
        store.error = error
        await at.put(_bars(1, 1))
        await _until(at, lambda: at.writer.retries > 1)
        health, part = at.writer.sink_health(), at.writer.health()
        assert not health.connected
        assert health.last_error_at is not None
        assert health.retry_count == at.writer.retries
        assert (part.name, part.state, part.details["error"]) == ("store", state, str(error))
        assert all(isinstance(value, str) for value in part.details.values())
        store.error = None
        await at.drained()
        assert at.writer.sink_health().connected
        assert at.writer.health().state is HealthState.healthy
        assert at.writer.sink_health().last_error_at == health.last_error_at or at.writer.retries > 2


async def test_a_database_that_is_away_at_the_start_is_degraded() -> None:
    store = Told()
    store.error = StoreUnavailable("away")
    async with desk(store) as at:  # type: ignore[arg-type]
        assert at.writer.health().state is HealthState.degraded
        assert not at.writer.sink_health().connected


async def test_what_became_of_batches_is_counted_to_the_batch() -> None:
    store = Told()
    seconds: list[float] = []
    async with desk(store) as at:  # type: ignore[arg-type]
        counters = at.writer.counters
        counters.on_commit = seconds.append
        store.refused = {4, 5}
        await at.put(_bars(3))
        await at.put(_bars(3, 3))  # two of it are refused
        await at.put([a_bar(symbol="ELSEWHERE", start_ns=START_NS)])
        await at.drained()
        assert (counters.batches_in, counters.batches_committed, counters.batches_failed) == (3, 3, 2)
        assert counters.items_committed == 4
        assert len(at.dead) == 3
        assert counters.commits == len(seconds) > 1
        assert counters.commit_seconds == pytest.approx(sum(seconds))
        assert at.writer.dropped_batches == 0


async def test_batches_that_lost_bars_are_counted_once_and_not_when_they_come_again() -> None:
    store = Told()
    async with desk(store, capacity=4, write_batch=2, overflow=Overflow.drop_oldest) as at:  # type: ignore[arg-type]
        store.go.clear()
        await at.put(_bars(2))
        await store.began.wait()
        for n in range(4):
            await at.put(_bars(3, 10 + 3 * n))
        assert at.writer.drops.total == 8
        assert at.writer.dropped_batches == 3
        at.writer.forget()
        assert (at.writer.drops.total, at.writer.dropped_batches) == (0, 0)
        store.go.set()


async def test_a_write_that_stops_the_worker_fails_its_batches() -> None:
    store = Told()
    async with desk(store) as at:  # type: ignore[arg-type]
        store.error = StoreError("nobody knows why")
        await at.put(_bars(2))
        with pytest.raises(StoreError, match="nobody knows"):
            await at.drained()
        assert at.writer.counters.batches_failed == 1
        assert at.writer.counters.batches_committed == 0
        assert at.writer.sink_health().last_error_at is not None
