"""When a recorded tick is due again: by its event time, at a multiple of the recorded pace."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Pace:
    """Tells how long to wait for each tick; the first one is due at once.

    A tick that was recorded out of order, behind a later one, is due as soon as that one was.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first_ns: int | None = None
        self._latest_ns = 0
        self._started_s = 0.0

    def wait_s(self, ts_ns: int, now_s: float) -> float:
        """Seconds from `now_s`, of any clock that is always the same one, until the tick is due."""
        if self._first_ns is None:
            self._first_ns = self._latest_ns = ts_ns
            self._started_s = now_s
        self._latest_ns = max(self._latest_ns, ts_ns)
        due_s = self._started_s + (self._latest_ns - self._first_ns) / 1e9 / self._speed
        return max(0.0, due_s - now_s)


class _Timed(NamedTuple):
    """An item, with the highest event time among it and those before it in its recording."""

    ts_ns: int
    recording: int


def by_event_time(recordings: Iterable[Iterable[T]], time_of: Callable[[T], int | None]) -> Iterator[T]:
    """Play recordings beside each other, each in its own order.

    An item without a time goes where its predecessor goes.
    """

    def timed(items: Iterable[T], recording: int) -> Iterator[tuple[_Timed, T]]:
        latest_ns = 0
        for item in items:
            ts_ns = time_of(item)
            latest_ns = latest_ns if ts_ns is None else max(latest_ns, ts_ns)
            yield _Timed(latest_ns, recording), item

    streams = [timed(items, i) for i, items in enumerate(recordings)]
    return (item for _, item in heapq.merge(*streams, key=lambda pair: pair[0]))
