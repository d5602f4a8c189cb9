"""What goes into the bar engine and what comes out of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

from schemas.bar import Bar
from schemas.dead_letter import DeadLetter

SECOND = 10**9
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_MAX_INTERVAL_NS = 366 * _UNITS["d"]
_BAR_TYPE = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII).fullmatch


class Late(StrEnum):
    """What becomes of a tick that comes later than the grace allows."""

    REVISE = "revise"
    """It counts: its closed bars are published again, revision + 1, while they are retained."""
    DEAD_LETTER = "dead-letter"
    """It is refused. Replayed, it counts as under `revise`, while its closed bars are retained."""
    DROP = "drop"
    """It is counted as dropped, and nothing else."""


@dataclass(frozen=True, slots=True)
class BarType:
    """A length of bars, such as "90s", "1m", "4h" or "1d". Windows are aligned to the epoch."""

    name: str
    interval_ns: int

    @classmethod
    def parse(cls, text: str) -> BarType:
        """Raises ValueError for anything but Ns, Nm, Nh or Nd, or more than 366 days."""
        match = _BAR_TYPE(text)
        if match is None:
            raise ValueError(f"{text!r} is not a bar type: write 90s, 1m, 4h or 1d")
        interval_ns = int(match[1]) * _UNITS[match[2]]
        if interval_ns > _MAX_INTERVAL_NS:
            raise ValueError(f"{text!r} is not a bar type: a bar is at most 366 days long")
        return cls(text, interval_ns)


@lru_cache
def feeders(bar_types: tuple[BarType, ...]) -> tuple[tuple[BarType, int | None], ...]:
    """The bar types from the finest to the coarsest, each with the number of the one that it can be made of.

    That is the coarsest finer one that divides it: of 1s, 1m, 90s and 1h, 90s feeds 1h, and 1s the others.
    """
    ascending = sorted(bar_types, key=lambda bar_type: bar_type.interval_ns)
    fed: list[tuple[BarType, int | None]] = []
    for number, bar_type in enumerate(ascending):
        divisors = [i for i in range(number) if bar_type.interval_ns % ascending[i].interval_ns == 0]
        fed.append((bar_type, divisors[-1] if divisors else None))
    return tuple(fed)


@dataclass(frozen=True, slots=True)
class BarSpec:
    """Which bars to make of a feed, and how much disorder to expect of it.

    A copy of a trade that comes after `dedupe_ns`, but before grace and retention have passed, counts again
    under `revise`; a memory of at least `grace_ns + retain_ns` rules that out.
    """

    bar_types: tuple[BarType, ...]
    grace_ns: int = 2 * SECOND
    """A tick is late when its event time is further than this behind its instrument's newest."""
    late: Late = Late.REVISE
    retain_ns: int = 300 * SECOND
    """How long, in event time, a closed bar can be revised."""
    dedupe_ns: int | None = 360 * SECOND
    """How long, in event time, a trade id is remembered after it counted; None: every tick is a new one."""
    max_future_ns: int = 10 * SECOND
    """How far the event time of a tick may be ahead of its receipt."""
    idle_ns: int = 5 * SECOND
    """How long an instrument is without a tick before its bars are published early."""

    @property
    def revisable_ns(self) -> int:
        """How long, in event time, a closed bar is really retained: for late ticks, or for replayed ones."""
        return 0 if self.late is Late.DROP else self.retain_ns

    @property
    def replayable_ns(self) -> int:
        """How long, in event time, a replayed tick that counted is remembered: as long as it could count again."""
        return max(self.dedupe_ns or 0, self.grace_ns + self.revisable_ns)

    def __post_init__(self) -> None:
        object.__setattr__(self, "late", Late(self.late))  # where it is a plain string
        names = [bar_type.name for bar_type in self.bar_types]
        if not names:
            raise ValueError("name at least one bar type")
        if len(set(names)) < len(names):
            raise ValueError(f"a bar type is named twice: {', '.join(names)}")
        for name in ("grace_ns", "retain_ns", "dedupe_ns", "max_future_ns", "idle_ns"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is negative")


class Record(Protocol):
    """A consumed record; aiokafka's `ConsumerRecord` fits."""

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int | None:
        """Milliseconds since the epoch; -1 or None for none."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(slots=True)
class Counts:
    """What became of the ticks: `ticks == accepted + duplicates + dropped + dead_lettered`."""

    ticks: int = 0
    """Trades read; a record that cannot be decoded is one."""
    accepted: int = 0
    duplicates: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    late: int = 0
    """Late ticks, whatever became of them; part of the four above."""
    skipped: int = 0
    """Trades beside a replayed one in its record, which were applied already; not part of `ticks`."""
    ignored: int = 0
    """Records without a trade: heartbeats, acknowledgements."""


@dataclass(slots=True)
class Output:
    """What a sequence of records led to."""

    bars: list[Bar] = field(default_factory=list)
    """One a window that closed or was revised, in order of their ends."""
    dead: list[tuple[Record, DeadLetter]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
