"""The one desired set: what each tick partition may consume, asked at every fetch."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A scale between 0 and 1 opens the valve for that fraction of each period.
PERIOD_S = 0.2


class Valve:
    """Scales per partition number: 1 is open, 0 is closed, between them it opens part of the time.

    Nothing but `set` and `release` changes it, so a rebalance or a full buffer cannot undo a pause.
    Asked from the consumer's thread, set from the event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._clock = clock
        self._scales: dict[int, float] = {}

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
        """Open a partition that is no longer ours to hold back."""
        self.set(partition, 1.0)

    def scale(self, partition: int) -> float:
        """The scale of a partition."""
        return self._scales.get(partition, 1.0)

    def paused(self) -> dict[int, float]:
        """The partitions that are held back, with their scales."""
        return dict(self._scales)

    def is_open(self, partition: int) -> bool:
        """Whether the partition may be fetched at this moment."""
        scale = self._scales.get(partition)
        if scale is None:
            return True
        return scale > 0 and self._clock() % PERIOD_S < scale * PERIOD_S
