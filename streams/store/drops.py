"""Bars that found no room in the store's queue: how many of each instrument, and what people hear of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from streams.store.queue import BarQueue, Item

WORST = 10
"""How many instruments a line of the log names."""

log = structlog.get_logger(__name__)


class Drops:
    """Counts exactly: what a rebalance brings again is not dropped.

    `tell`, called now and then, says what is new since it was called last.
    """

    def __init__(self, queue: BarQueue) -> None:
        self.total = 0
        self.by_instrument: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        """What was taken off again, by instrument."""
        self.policy = queue.overflow
        self._queue = queue
        self._untold: Counter[str] = Counter()
        self._where: dict[tuple[str, int], tuple[int, int]] = {}

    def count(self, items: Sequence[Item]) -> None:
        """Take note of bars that were dropped."""
        self.total += len(items)
        for item in items:
            record, instrument = item.record, item.bar.instrument
            self.by_instrument[instrument] += 1
            self._untold[instrument] += 1
            source, offset = (record.topic, record.partition), record.offset
            first, last = self._where.get(source, (offset, offset))
            self._where[source] = (min(first, offset), max(last, offset))

    def take_back(self, dropped: Counter[str]) -> None:
        """Bars that were dropped, and whose batches are given up: they come again, here or elsewhere."""
        if dropped:
            self.tell()
            self.total -= dropped.total()
            self.by_instrument -= dropped
            self.again += dropped
            log.info(
                "store.dropped.again",
                given_up=dropped.total(),
                total=self.total,
                consequence="their partitions went elsewhere before this was acknowledged: they are read again",
            )

    def tell(self) -> None:
        """Say what was dropped since the last time, if anything was."""
        if not self._untold:
            return
        untold, self._untold = self._untold, Counter()
        where, self._where = self._where, {}
        log.warning(
            "store.dropped",
            dropped=untold.total(),
            total=self.total,
            instruments=dict(untold.most_common(WORST)),
            other_instruments=max(0, len(untold) - WORST),
            policy=self._queue.overflow.value,
            queue=len(self._queue),
            capacity=self._queue.capacity,
            where=[
                f"{topic}[{partition}]@{first}..{last}"
                for (topic, partition), (first, last) in sorted(where.items())
            ],
            hint="the database takes fewer bars than come: make it faster, raise queue_capacity, or lose nothing "
            'with overflow = "block"',
        )
