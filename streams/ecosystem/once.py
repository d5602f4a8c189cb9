"""Applying each event once, although a bus may deliver it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar


class Identified(Protocol):
    """What an `EventEnvelope` is, as far as this matters."""

    id: str


Envelope = TypeVar("Envelope", bound=Identified)


class Once:
    """Remembers the ids of the last events that were applied, and passes over those that come again.

        once = Once()
        async for envelope in bus.subscribe(stream, group="pipeline", consumer="w1"):
            await once.apply(envelope, handle)
            await bus.ack(stream, envelope.id)

    That is enough while the process lives: after a rebalance, or where an acknowledgement was late. It is forgotten
    with the process. Where an effect must not be repeated even if the process dies between the effect and its
    acknowledgement, make the id part of the effect: it is the same at each delivery, to whatever consumer of the
    group (``topic[partition]@offset#group``), so it can be the key of a row, ``ON CONFLICT DO NOTHING``.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._applied: OrderedDict[str, None] = OrderedDict()

    async def apply(self, envelope: Envelope, effect: Callable[[Envelope], Awaitable[object]]) -> bool:
        """False if it has been applied before. Raises what `effect` raises, and then it counts as not applied."""
        if envelope.id in self._applied:
            self._applied.move_to_end(envelope.id)
            return False
        await effect(envelope)
        self._applied[envelope.id] = None
        if len(self._applied) > self._limit:
            self._applied.popitem(last=False)
        return True
