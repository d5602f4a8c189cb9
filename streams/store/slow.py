"""A store that takes its time, to see what backpressure does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from schemas.bar import Bar
from streams.store.base import BarQuery, Store, WriteResult


class SlowStore:
    """Another store behind a limit of `bars_per_second`; None is no limit. It can be changed at any time."""

    def __init__(self, store: Store, bars_per_second: float | None) -> None:
        self.name = store.name
        self.bars_per_second = bars_per_second
        self._store = store

    async def open(self) -> None:
        await self._store.open()

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        for _ in bars:
            if self.bars_per_second is not None:
                await asyncio.sleep(1 / self.bars_per_second)
        return await self._store.write(bars)

    def read(self, query: BarQuery) -> AsyncIterator[list[Bar]]:
        return self._store.read(query)

    async def close(self) -> None:
        await self._store.close()
