"""What the Pulse bridge asks of an event bus, and core's buses that live in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from market_data_core.events.envelope import EventEnvelope
from market_data_core.events.protocols import EventBus
from market_data_core.telemetry import FeedbackEvent

from schemas.errors import BusAway
from streams.ecosystem.envelopes import FEEDBACK
from streams.ecosystem.pulse_words import Order


@dataclass(frozen=True, slots=True)
class Entry:
    """Something on the stream, whatever it is."""

    id: str
    order: Order
    value: bytes | EventEnvelope[Any]
    age_s: float
    """How long ago it was put there."""
    mine: bool
    """Whether the group gave it to this consumer, who must acknowledge it."""


class Bus(Protocol):
    """A stream of feedback. Everything but `close` may raise `BusAway`, and may then be tried again."""

    name: str
    """For people, without passwords."""

    async def open(self) -> None:
        """Raises `BusAway`, with a hint, where it cannot be used as it is."""

    async def recall(self) -> list[Entry]:
        """The end of what is on the stream already, oldest first; nothing is taken from the group."""

    async def read(self, wait_s: float) -> list[Entry]:
        """What is new, oldest first; nothing if nothing comes for so long."""

    async def ack(self, ids: Collection[str]) -> None:
        """They are done with."""

    async def refuse(self, entry: Entry, reason: str) -> None:
        """Put it among the bus's dead letters, and acknowledge it."""

    async def publish(self, event: FeedbackEvent, headers: Mapping[str, str]) -> None:
        """Put feedback on the stream."""

    async def close(self) -> None:
        """Let go of connections."""


class _Feedback(FeedbackEvent):
    #: Without it core calls the event by a name that its own subscribers do not know.
    __schema_id__ = FEEDBACK


class CoreBus:
    """A stream of any of core's buses, by its methods alone: `InMemoryBus`, or one of your own.

    What a bus in memory lacks, this lacks: it keeps nothing, so nothing can be recalled, it carries no headers, and
    all groups of a stream share one queue. Who listens to the same stream takes events away from the bridge.
    To publish there, it needs a stream of its own, `out_stream`.
    """

    def __init__(
        self, bus: EventBus[Any], stream: str, *, group: str = "pipeline", out_stream: str | None = None
    ) -> None:
        self.name = f"{type(bus).__name__}, stream {stream}"
        self._bus = bus
        self._stream = stream
        self._out_stream = out_stream
        self._group = group
        self._count = 0
        self._events: AsyncIterator[EventEnvelope[Any]] | None = None
        self._next: asyncio.Future[EventEnvelope[Any]] | None = None

    async def open(self) -> None:
        """Nothing to open."""

    async def recall(self) -> list[Entry]:
        """Nothing is kept."""
        return []

    async def read(self, wait_s: float) -> list[Entry]:
        """One at a time."""
        if self._events is None:
            # The protocol has a coroutine here, the buses have generators.
            subscribed: Any = self._bus.subscribe(self._stream, group=self._group, consumer="tidegate")
            self._events = subscribed
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        # Not cancelled where it takes longer, for that would end the subscription.
        await asyncio.wait([self._next], timeout=wait_s)
        if not self._next.done():
            return []
        done, self._next = self._next, None
        try:
            envelope = done.result()
        except Exception as exc:
            self._events = None
            raise BusAway(f"the subscription ended: {exc!r}") from exc
        self._count += 1
        return [Entry(envelope.id, (self._count,), envelope, max(0.0, time.time() - envelope.ts), mine=True)]

    async def ack(self, ids: Collection[str]) -> None:
        """One by one."""
        for id_ in ids:
            await self._bus.ack(self._stream, id_)

    async def refuse(self, entry: Entry, reason: str) -> None:
        """By the bus's own `fail`."""
        await self._bus.fail(self._stream, entry.id, reason)

    async def publish(self, event: FeedbackEvent, headers: Mapping[str, str]) -> None:
        """On `out_stream`; headers have no place."""
        if self._out_stream is not None:
            own = _Feedback.model_validate(event.model_dump())
            await self._bus.publish(self._out_stream, own, key=event.coordinator_id)

    async def close(self) -> None:
        """End the subscription."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])
            self._next = None
        self._events = None
