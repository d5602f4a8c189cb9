"""When the writer acknowledges, and how it gets smaller and greater again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas.bar import Bar
from schemas.errors import StoreTooSlow, StoreUnavailable
from streams.store.base import WriteResult
from support.store_contract import START_NS, a_bar
from support.writing import BARS, Desk, Letter, Producer, desk


class Slow:
    """A store that takes at most so many bars at a time."""

    name = "slow"

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        self.sizes.append(len(bars))
        if len(bars) > self.most:
            raise StoreTooSlow("it took too long")
        return WriteResult(len(bars), 0, [])


class Stuck(Slow):
    """A store whose write ends when it is told."""

    def __init__(self) -> None:
        super().__init__(100)
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        self.asked.set()
        await self.answer.wait()
        return await super().write(bars)


class Away(Slow):
    """A store that is not there at first."""

    def __init__(self) -> None:
        super().__init__(100)
        self.asked = 0

    async def open(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("it is away")


class SlowProducer(Producer):
    """Its barriers wait for `durable`."""

    def __init__(self) -> None:
        super().__init__()
        self.durable = asyncio.Event()
        self.barriers = 0

    async def barrier(self) -> None:
        self.barriers += 1
        await self.durable.wait()


def _bars(number: int) -> list[Bar]:
    return [a_bar(start_ns=START_NS + n * 10**9) for n in range(number)]


async def _barriers(producer: SlowProducer, number: int) -> None:
    async with asyncio.timeout(5):
        while producer.barriers < number:  # noqa: ASYNC110 - a counter is enough
            await asyncio.sleep(0)


async def test_a_batch_is_acknowledged_after_a_barrier_that_began_after_its_dead_letters() -> None:
    at = Desk(Slow(100))  # type: ignore[arg-type]
    at.writer._producer = at.writer._refusals._producer = producer = SlowProducer()  # type: ignore[assignment]
    await at.put(_bars(3))
    at.start()
    await _barriers(producer, 1)
    late = at.ledger.deliver(BARS, [Letter(b"no bar", 3)])
    await at.writer.put(late)  # its dead letter is produced while the barrier is under way
    first, producer.durable = producer.durable, asyncio.Event()
    first.set()
    await _barriers(producer, 2)
    assert at.committable == 3
    producer.durable.set()
    await at.drained(5)
    assert at.committable == 4
    at.task.cancel()


async def test_a_queue_that_a_rebalance_has_emptied_does_not_say_that_the_database_takes_bars_again() -> None:
    store = Stuck()
    async with desk(store, capacity=10) as at:  # type: ignore[arg-type]
        await at.put(_bars(10))
        await store.asked.wait()
        at.writer.forget()
        assert (at.writer.size, at.levels) == (0, ["hard"])
        store.answer.set()
        async with asyncio.timeout(5):
            while at.levels != ["hard", "ok"]:  # noqa: ASYNC110 - a list is enough
                await asyncio.sleep(0)


async def test_batches_that_take_too_long_get_smaller_and_grow_again() -> None:
    store = Slow(300)
    async with desk(store, write_batch=1_000) as at:  # type: ignore[arg-type]
        await at.put(_bars(2_000))
        await at.drained(10)
        assert at.committable == 2_000
        assert store.sizes[:3] == [1_000, 500, 250]
        assert sum(size for size in store.sizes if size <= 300) == 2_000
        store.most = 10_000
        store.sizes.clear()
        for _ in range(60):
            await at.put(_bars(1_000))
        await at.drained(10)
        assert store.sizes[-1] == 1_000


async def test_a_rebalance_while_nothing_is_written_holds_nothing_back() -> None:
    at = Desk(Away(), capacity=10)  # type: ignore[arg-type]
    await at.writer.open()
    assert at.levels == ["hard"]
    at.writer.forget()
    at.start()
    async with asyncio.timeout(5):
        while at.levels != ["hard", "ok"]:  # noqa: ASYNC110 - a list is enough
            await asyncio.sleep(0.01)
    at.task.cancel()


async def test_a_whole_transaction_is_not_waited_with() -> None:
    store = Slow(1_000)
    async with desk(store, write_batch=10, linger_s=60.0) as at:  # type: ignore[arg-type]
        for some in (4, 5, 6):
            await at.put(_bars(some))
        async with asyncio.timeout(5):
            while not store.sizes:  # noqa: ASYNC110 - a list is enough
                await asyncio.sleep(0)
        assert store.sizes == [10]
        assert at.committable == 9


async def test_bars_wait_for_more_until_the_queue_is_half_full_where_that_is_less_than_a_transaction() -> (
    None
):
    store = Slow(1_000)
    async with desk(store, capacity=20, write_batch=100, linger_s=60.0) as at:  # type: ignore[arg-type]
        await at.put(_bars(9))
        await at.put(_bars(3))
        await at.drained(5)
        assert store.sizes == [12]


async def test_a_small_transaction_waits_for_its_linger_and_no_longer() -> None:
    store = Slow(1_000)
    async with desk(store, linger_s=0.5) as at:  # type: ignore[arg-type]
        await at.put(_bars(3))
        await at.put(_bars(4))
        assert store.sizes == []
        await at.drained(5)
        assert store.sizes == [7]


async def test_what_is_queued_is_written_at_once_when_told_to_hurry_and_the_next_bars_wait_again() -> None:
    store = Slow(1_000)
    async with desk(store, linger_s=60.0) as at:  # type: ignore[arg-type]
        await at.put(_bars(3))
        at.writer.hurry()
        await at.drained(5)
        await at.put(_bars(2))
        for _ in range(20):
            await asyncio.sleep(0)
        assert store.sizes == [3]
        at.writer.hurry()
        await at.drained(5)
        assert store.sizes == [3, 2]


async def test_bars_that_come_after_the_word_to_hurry_are_written_at_once() -> None:
    store = Slow(1_000)
    async with desk(store, linger_s=60.0) as at:  # type: ignore[arg-type]
        at.writer.hurry()
        await at.put(_bars(3))
        await at.drained(5)
        assert store.sizes == [3]
