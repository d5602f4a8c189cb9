"""When new bars came into the store."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise
from typing import Self

import asyncpg

_EVERY_S = 0.1
_ALL = -1


class Arrivals:
    """Looks at the store ten times a second, in a thread, and notes when it had more bars than before."""

    def __init__(self, dsn: str, partitions: int) -> None:
        self._dsn = dsn
        #: By partition of the ticks, and of them all.
        self.at: dict[int, list[float]] = {n: [] for n in (_ALL, *range(partitions))}
        self._counts = dict.fromkeys(range(partitions), 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def bars(self) -> int:
        """Stored so far."""
        return sum(self._counts.values())

    async def _run(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            while not self._stop.is_set():
                await self._look(connection)
                await asyncio.sleep(_EVERY_S)
        finally:
            await connection.close()

    async def _look(self, connection: asyncpg.Connection) -> None:
        try:
            rows = await connection.fetch("SELECT source_partition, count(*) FROM bars GROUP BY 1")
        except asyncpg.UndefinedTableError:
            return
        now = time.time()
        grown = [partition for partition, count in rows if count > self._counts[partition]]
        self._counts.update(dict(rows))
        for partition in [*grown, *([_ALL] if grown else [])]:
            self.at[partition].append(now)

    def all_flow_since(self, when: float) -> bool:
        """Whether every partition's bars came since."""
        return all(times and times[-1] > when for times in self.at.values())

    def new_between(self, since: float, until: float) -> list[int]:
        """How often, in this time, new bars of each partition came."""
        return [sum(since < at < until for at in times) for n, times in self.at.items() if n != _ALL]

    def longest_gap_s(self, since: float, until: float) -> float:
        """The longest time between new bars of any partition, of the gaps that touch this time."""
        return _longest(self.at[_ALL], since, until)

    def longest_gaps_s(self, since: float, until: float) -> list[float]:
        """The same, of each partition."""
        return [_longest(times, since, until) for n, times in self.at.items() if n != _ALL]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def _longest(times: list[float], since: float, until: float) -> float:
    gaps = [b - a for a, b in pairwise([*times, time.time()]) if b > since and a < until]
    return round(max(gaps, default=0.0), 1)
