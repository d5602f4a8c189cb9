"""Where a lane's records go: two transactional producers in turn (`streams.pair`), or one plain producer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from streams.producer import BarrierProducer


class Out(NamedTuple):
    """A record to be produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int
    headers: list[tuple[str, bytes]] | None = None


class Takes(Protocol):
    """Takes records, as far as there is room."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> bool:
        """Take a record; False when there is no room (await `room` and try again)."""

    async def room(self) -> None:
        """Wait a moment for room."""


class Outlet(Takes, Protocol):
    """Takes records, and says when they are durable."""

    async def open(self) -> None:
        """Become the only one that publishes for this partition. Raises `BrokerError`."""

    async def seal(self, last: Iterable[Out]) -> None:
        """Draw a line under what was produced, with these records at its end, before anything else can run.

        Returns when there is room for what comes after it.
        """

    async def commit(self) -> None:
        """Return when all before the line is durable. Raises `ProduceError`. To be repeated if it was cancelled."""

    async def close(self) -> None:
        """Give up what is not committed."""


class Unfenced:
    """Publishes through a producer that others use, too: for a process that is the only worker there is."""

    def __init__(self, producer: BarrierProducer) -> None:
        self._producer = producer
        self._last: deque[Out] = deque()
        self.produce = producer.produce
        self.room = producer.room

    async def open(self) -> None:
        """Nobody is fenced."""

    async def seal(self, last: Iterable[Out]) -> None:
        """There always is room."""
        self._last.extend(last)

    async def commit(self) -> None:
        """Wait for what was produced, whether before or after the line."""
        await send(self._producer, self._last)
        await self._producer.barrier()

    async def close(self) -> None:
        """The producer goes on."""


async def send(into: Takes, records: deque[Out]) -> None:
    """Produce records from the left, each of which is taken off when it has been taken."""
    while records:
        out = records[0]
        if into.produce(out.topic, out.value, key=out.key, partition=out.partition, headers=out.headers):
            records.popleft()
        else:
            await into.room()
