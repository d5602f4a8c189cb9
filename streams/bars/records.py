"""Records as the engine takes them: one by one where it must, and as columns where it can."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import overload

from schemas.replay import REPLAY_HEADER
from streams.bars.types import Record

_headers = attrgetter("headers")


class Records(Sequence[Record]):
    """Records of one partition, in offset order. What it gives as a whole is made once."""

    @property
    @abstractmethod
    def offsets(self) -> list[int]:
        """Of each."""

    @property
    @abstractmethod
    def timestamps(self) -> list[int | None]:
        """Of each, milliseconds since the epoch; -1 or None for none."""

    @property
    @abstractmethod
    def values(self) -> Sequence[bytes | None]:
        """Of each."""

    @property
    @abstractmethod
    def may_be_replays(self) -> bool:
        """Whether one of them may have the header of a replay."""

    def replays(self) -> frozenset[int]:
        """The numbers of those that have it."""
        if not self.may_be_replays:
            return frozenset()
        return frozenset(number for number, record in enumerate(self) if _is_replay(record))

    def heads(self, width: int) -> Iterable[bytes | None]:
        """So many bytes of each value at least, where it has them."""
        return self.values

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    @abstractmethod
    def __getitem__(self, at: int | slice) -> Record | Records: ...

    def after(self, offset: int) -> Records:
        """Those behind it."""
        return self[bisect_right(self.offsets, offset) :]

    def earliest_ns(self) -> int | None:
        """The earliest timestamp, nanoseconds since the epoch; None where any has none."""
        try:
            earliest_ms = min(self.timestamps, default=None)  # type: ignore[type-var]
        except TypeError:
            return None
        return None if earliest_ms is None or earliest_ms < 0 else earliest_ms * 1_000_000


class Listed(Records):
    """Records that are objects."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        found = self._records[at]
        return Listed(found) if isinstance(at, slice) else found  # type: ignore[arg-type, return-value]

    @cached_property
    def offsets(self) -> list[int]:
        """See `Records`."""
        return [record.offset for record in self._records]

    @cached_property
    def timestamps(self) -> list[int | None]:
        """See `Records`."""
        return [record.timestamp for record in self._records]

    @cached_property
    def values(self) -> Sequence[bytes | None]:
        """See `Records`."""
        return [record.value for record in self._records]

    @cached_property
    def may_be_replays(self) -> bool:
        """See `Records`."""
        return any(map(_headers, self._records)) and any(map(_is_replay, self._records))


def _is_replay(record: Record) -> bool:
    return any(name == REPLAY_HEADER for name, _ in record.headers)


def records_of(records: Sequence[Record]) -> Records:
    """The same, as the engine takes them."""
    return records if isinstance(records, Records) else Listed(records)
