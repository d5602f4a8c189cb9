"""Events that were given to a consumer and are not done yet, in whatever order it gets them done."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

Place = TypeVar("Place", bound=Hashable)
Event = TypeVar("Event")


class _Given(NamedTuple, Generic[Event]):
    event: Event
    at: float


class InHand(Generic[Place, Event]):
    """What may be committed of each partition: all before the first event that is not done. No clock, no Kafka.

    Events of a partition are given in the order of their offsets; some offsets may be missing.
    """

    def __init__(self) -> None:
        self._given: dict[Place, dict[int, _Given[Event]]] = {}
        self._next: dict[Place, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._given.values()))

    def holds(self, place: Place, offset: int) -> bool:
        """Whether this event was given, and is not done."""
        return offset in self._given.get(place, ())

    def event(self, place: Place, offset: int) -> Event:
        """One that it holds."""
        return self._given[place][offset].event

    def give(self, place: Place, offset: int, event: Event, now: float) -> None:
        """Note that the event is with the consumer, now, be it for the first time or again."""
        self._given.setdefault(place, {})[offset] = _Given(event, now)
        self._next[place] = max(offset + 1, self._next.get(place, 0))

    def done(self, place: Place, offset: int) -> int | None:
        """Before which offset all is done now; None if that has not changed, or the event is not in hand."""
        given = self._given.get(place, {})
        if offset not in given:
            return None
        was_first = offset == next(iter(given))
        del given[offset]
        if not was_first:
            return None
        return next(iter(given), self._next[place])

    def overdue(self, given_before: float) -> Iterator[tuple[Place, int, Event]]:
        """Those that were given last before this moment, as they are now: what gets done meanwhile is left out."""
        for place, given in list(self._given.items()):
            for offset in [offset for offset, one in given.items() if one.at < given_before]:
                if offset in given:
                    yield place, offset, given[offset].event

    def clear(self) -> None:
        """Forget all: the partitions were shared anew, and what is not committed comes again."""
        self._given.clear()
        self._next.clear()
