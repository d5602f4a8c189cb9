"""A store of the ecosystem, made of market-data-store alone: its queue, its writer, and its Pulse publisher.

usage: python ecosystem_store.py COORDINATOR FILE

FILE says how many items are to wait in the queue, of 20: its sink takes none while that is more than 0. The
publisher takes its bus from EVENT_BUS_BACKEND, REDIS_URL and MD_NAMESPACE.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from market_data_store.coordinator import WriteCoordinator
from market_data_store.pulse import FeedbackPublisherService


class StallingSink:
    """Takes what it is given when it may."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def waiting(self) -> int:
        return int(self._file.read_text())

    async def write(self, batch: Sequence[int]) -> None:
        while self.waiting:  # noqa: ASYNC110  a file wakes nobody
            await asyncio.sleep(0.02)


async def main(coordinator: str, file: Path) -> None:
    publisher = FeedbackPublisherService()
    await publisher.start()
    sink = StallingSink(file)
    # Its workers take nothing any more once they have been idle for longer than the flush interval (0.6.73, on
    # Python 3.11).
    store: WriteCoordinator[int] = WriteCoordinator(
        sink=sink, capacity=20, workers=1, batch_size=1, flush_interval=3600, coord_id=coordinator
    )
    async with store:
        while True:
            if store.health().queue_size < sink.waiting:
                await store.submit(0)
            await asyncio.sleep(0.01)  # meanwhile its worker takes one, if it may


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
