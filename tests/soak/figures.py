"""What a soak measures, and how that is computed from what the loop said of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from schemas.rate import RateAdjustment

MIB = 1 << 20


class Write(NamedTuple):
    """A write of the store: seconds of the monotonic clock, and bars."""

    began: float
    ended: float
    bars: int


def writes_of(speed: Path) -> list[Write]:
    """What the paced store told."""
    lines = speed.with_name(f"{speed.name}.writes").read_text().splitlines()
    return [Write(float(began), float(ended), int(bars)) for began, ended, bars in map(str.split, lines)]


def largest_batch(speed: Path) -> int:
    """The most bars that the paced store was given at once."""
    return max(map(int, speed.with_name(f"{speed.name}.batches").read_text().split()))


def fastest(writes: Sequence[Write], batch: int) -> float:
    """Bars a second that the store takes while it writes whole batches: its own maximum at this speed."""
    full = [write for write in writes if write.bars == batch]
    return sum(write.bars for write in full) / sum(write.ended - write.began for write in full)


def reached(writes: Sequence[Write], began: float, ended: float) -> float:
    """Bars a second that it took between two moments; of a write that was under way at one, its share."""
    bars = 0.0
    for write in writes:
        within = min(write.ended, ended) - max(write.began, began)
        bars += max(0.0, write.bars * within / (write.ended - write.began))
    return bars / (ended - began)


def pauses(told: Iterable[RateAdjustment]) -> list[tuple[float, float]]:
    """From when to when a partition was paused, by what was told of it; the last one may not have ended."""
    found: list[tuple[float, float]] = []
    began: float | None = None
    for adjustment in told:
        if adjustment.scale == 0 and began is None:
            began = adjustment.ts
        elif adjustment.scale > 0 and began is not None:
            found.append((began, adjustment.ts))
            began = None
    return found


class Memory:
    """The resident memory of each worker, over time."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[float, int]]] = {}

    def note(self, at: float, rss: Mapping[str, int]) -> None:
        """What each has now."""
        for worker, size in rss.items():
            self._seen.setdefault(worker, []).append((at, size))

    def halves(self) -> dict[str, tuple[float, float]]:
        """The most that each had in the first half of the time and in the second, MiB."""
        found = {}
        for worker, seen in self._seen.items():
            middle = (seen[0][0] + seen[-1][0]) / 2
            first = max(size for at, size in seen if at <= middle)
            second = max(size for at, size in seen if at > middle)
            found[worker] = first / MIB, second / MIB
        return found


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A row of the table."""

    policy: str
    seconds: float
    max_bars_per_s: float
    reached: float
    ratio: float
    slower_by: float
    queue: str
    pauses: str
    period_s: float
    shortest_pause_s: float
    bars: int
    rss_MiB_first_and_second_half: str  # noqa: N815  the unit

    def row(self) -> list[str]:
        """Its cells."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
