"""A share of what a partition would consume if nobody held it back."""

from __future__ import annotations

from math import inf

from streams.flow.meter import Meter

#: Who was up to date within this, while nobody held it back, consumes what comes in. Who was not has a backlog to
#: read, and consumes as fast as it can.
LIVE_S = 10.0

#: What may be taken at once is at least what adds up in this time: fewer records cost more each.
GRAIN_S = 0.02

#: What was not taken in time may be taken later, up to what adds up in this time.
BURST_S = 0.5

#: Records a second, at least: what is there must not wait for ever where next to nothing comes in.
SLOWEST = 1.0

#: Where nothing is known yet (a worker took the partition over in the midst of pressure), all is let through for
#: the scale's fraction of each such period.
PERIOD_S = 0.2


class Share:
    """Lets a scale's fraction of a partition's unhindered consumption through, a little at a time.

    Unhindered, a consumer that keeps up consumes what is produced: that rate is known also while the partition is
    held back, by the end of its log. One that does not keep up consumes what it can: that is known from before.
    A scale of 1 is no limit, and 0 lets nothing through. Seconds are those of one clock that only goes forward.
    """

    def __init__(self) -> None:
        self.scale = 1.0
        self._produced = Meter()
        self._consumed = Meter()
        self._total = 0
        self._before: float | None = None
        self._end = -1
        self._live_at = -inf
        self._live = True
        self._room = 0.0
        self._filled_at = 0.0

    def set(self, scale: float, now: float) -> None:
        """Change the scale; 0 to 1."""
        if self.scale == 1 and scale < 1:
            self._before = self._consumed.rate() or self._before
            self._live = now - self._live_at <= LIVE_S or self._before is None
        if scale == 1:
            self._consumed.clear()
        self._fill(now)
        if scale in (0, 1):
            self._room = 0.0
        self.scale = scale

    @property
    def unhindered(self) -> float | None:
        """Records a second that would be consumed; None where that is not known yet."""
        produced = self._produced.rate()
        known = produced if self._live and produced is not None else self._before
        return None if known is None else max(known, SLOWEST)

    def allowance(self, now: float) -> int | None:
        """How many records may be taken now; None is any number."""
        if self.scale in (0, 1):
            return None if self.scale else 0
        if self.unhindered is None:
            return None if now % PERIOD_S < self.scale * PERIOD_S else 0
        rate = self._fill(now)
        return int(self._room) if self._room >= max(1.0, rate * GRAIN_S) else 0

    def took(self, offsets: int, now: float) -> None:
        """Note how many offsets were taken: what is produced is known in offsets, and transactions take some."""
        self._total += offsets
        if self.scale == 1:
            self._consumed.note(self._total, now)
        else:
            self._room = max(-self._most(self._rate), self._room - offsets)

    def saw_end(self, end: int, position: int, now: float) -> None:
        """Note where the log ended when that was last looked at, and up to where it is consumed."""
        # A consumer that has enough to read does not look: the same end again says nothing, unless it has read
        # up to there. Nor does a lower one: what is not committed yet is counted by some, and not by others.
        if end > self._end or position >= end == self._end:
            self._end = end
            self._produced.note(end, now)
        if position >= end:
            self._live_at, self._live = now, True

    def _fill(self, now: float) -> float:
        """Add what came due since the last time; gives the rate at which it does."""
        rate = self._rate
        self._room = min(self._room + rate * (now - self._filled_at), self._most(rate))
        self._filled_at = now
        return rate

    @property
    def _rate(self) -> float:
        return 0.0 if self.scale == 1 else self.scale * (self.unhindered or 0.0)

    @staticmethod
    def _most(rate: float) -> float:
        return max(1.0, rate * BURST_S)
