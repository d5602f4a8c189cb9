"""What a lane publishes through: in fenced transactions, or plainly where there is only one worker."""

from __future__ import annotations

from typing import Protocol

from streams.producer import BarrierProducer


class Outlet(Protocol):
    """Takes records, and says when they are durable. `streams.fenced.FencedProducer` is one."""

    async def open(self) -> None:
        """Become the only one that publishes for this partition. Raises `BrokerError`."""

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

    async def commit(self) -> None:
        """Return when all that was produced is durable. Raises `ProduceError`."""

    async def close(self) -> None:
        """Give up what is not committed."""


class Unfenced:
    """Publishes through a producer that others use, too: for a process that is the only worker there is."""

    def __init__(self, producer: BarrierProducer) -> None:
        self.produce = producer.produce
        self.room = producer.room
        self.commit = producer.barrier

    async def open(self) -> None:
        """Nobody is fenced."""

    async def close(self) -> None:
        """The producer goes on."""
