"""The one desired set: what each tick partition may consume, asked at every fetch."""

from __future__ import annotations

import time
from collections.abc import Callable

from streams.flow.share import Share


class Valve:
    """Scales per partition number: 1 is open, 0 is closed, between them it lets that share of the flow through.

    Nothing but `set` and `release` changes it, so a rebalance or a full buffer cannot undo a pause.
    `allowance` and `took` are for the consumer's thread, and are about a partition of a topic; all else is for the
    event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._clock = clock
        self._scales: dict[int, float] = {}
        self._shares: dict[tuple[str, int], Share] = {}

    def set(self, partition: int, scale: float) -> bool:
        """Set the scale of a partition; True if that changed it. Beyond 0 and 1 is 0 and 1."""
        scale = min(1.0, max(0.0, scale))
        if scale == self.scale(partition):
            return False
        if scale == 1:
            self._scales.pop(partition, None)
        else:
            self._scales[partition] = scale
        self.on_change()
        return True

    def release(self, partition: int) -> None:
        """Open a partition that is no longer ours to hold back, and forget how it flowed."""
        self.set(partition, 1.0)
        for tp in list(self._shares):
            if tp[1] == partition:
                self._shares.pop(tp, None)

    def scale(self, partition: int) -> float:
        """The scale of a partition."""
        return self._scales.get(partition, 1.0)

    def paused(self) -> dict[int, float]:
        """The partitions that are held back, with their scales."""
        return dict(self._scales)

    def allowance(self, tp: tuple[str, int]) -> int | None:
        """How many records may be taken now; None is any number."""
        return self._share(tp).allowance(self._clock())

    def took(self, tp: tuple[str, int], offsets: int, end: int, position: int) -> None:
        """Note how far it went, where the log ended when the broker was last asked, and the position in it."""
        share, now = self._share(tp), self._clock()
        share.saw_end(end, position, now)
        if offsets:
            share.took(offsets, now)

    def _share(self, tp: tuple[str, int]) -> Share:
        share = self._shares.get(tp)
        if share is None:
            share = self._shares[tp] = Share()
        # The scale is applied here: a share belongs to the consumer's thread.
        if (scale := self.scale(tp[1])) != share.scale:
            share.set(scale, self._clock())
        return share
