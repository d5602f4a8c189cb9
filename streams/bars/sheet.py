"""A batch as columns, with the ticks of each instrument folded into windows at once.

The questions at the head of `judge` are asked in order of arrival, as always; only where all ticks of an instrument
count, and in time, are its windows taken from here, for then nobody can tell in which order they were folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from schemas.codecs.layout import UNIT, Columns
from schemas.codecs.spans import Ints
from schemas.trade import Trades
from streams.bars import fold
from streams.bars.book import Book
from streams.bars.ticks import Ticks

_NONE: Final = np.empty(0, np.int64)


class Sheet:
    """A batch by instrument, and folded into windows of each length that ticks go into."""

    def __init__(self, columns: Columns, offsets: Sequence[int], intervals_ns: Sequence[int]) -> None:
        """Raises OverflowError where a number might not fit, or ticks are in too great disorder."""
        self.columns = columns
        self.offsets = np.array(offsets, np.int64)
        count, instruments = len(columns.code), len(columns.present)
        ids = columns.trade_id
        self.bounds = np.empty(instruments + 1, np.int64)
        """Those of instrument c are at `bounds[c]` to `bounds[c + 1]` of `numbers` and `marks_ns`, in order of
        arrival."""
        self.numbers, self.marks_ns = np.empty((2, count), np.int64)
        """The number of the record, and the latest instant until then."""
        self.summary = np.empty((fold.SUMMARY, instruments), np.int64)
        """A row each: see `fold`."""
        fold.sort(
            columns.code,
            columns.ts_ns,
            ids if isinstance(ids, np.ndarray) else _NONE,
            _or_none(columns.recv_ns),
            self.bounds,
            self.numbers,
            self.marks_ns,
            self.summary,
        )
        self.newest_ns = int(self.summary[fold.NEWEST].max())
        self.folded = [self._fold(interval_ns) for interval_ns in intervals_ns]
        """A table for each length, with a column for each window: see `fold`."""
        self.texts = ids if isinstance(ids, list) else None
        """Ids that are text, by the number of the record."""
        self.pairs = _NONE
        """Ids that are numbers, each with its mark, by instrument and those first that rise."""
        if isinstance(ids, np.ndarray):
            self.pairs = np.empty(2 * count, np.int64)
            fold.sort_ids(ids, self.bounds, self.numbers, self.marks_ns, self.summary, self.pairs)

    def ticks(self, numbers: list[int]) -> Ticks:
        """The ticks of these records, one by one."""
        return ticks_of(self.columns, numbers)

    def enter(self, codes: Ints, books: Iterable[Book]) -> list[bool]:
        """Remember the ids of instruments, where all of one are new; where not, nothing. Gives which these are.

        Each with the watermark after its tick.
        """
        pairs, texts, marks_ns = self.pairs.data, [], []
        if self.texts is not None:
            texts, marks_ns = [self.texts[number] for number in self.numbers.tolist()], self.marks_ns.tolist()
        entered = []
        for book, begin, end, rising in zip(
            books,
            self.bounds[codes].tolist(),
            self.bounds[codes + 1].tolist(),
            self.summary[fold.RISING, codes].tolist(),
            strict=True,
        ):
            floor_ns = book.watermark_ns
            if texts:
                own_ns = [max(mark_ns, floor_ns) for mark_ns in marks_ns[begin:end]]
                entered.append(book.seen.extend_any(texts[begin:end], own_ns))
            else:
                entered.append(book.seen.extend(pairs[2 * begin : 2 * end], rising, floor_ns))
        return entered

    def _fold(self, interval_ns: int) -> Ints:
        columns = self.columns
        windows = np.empty((fold.WINDOW, len(columns.code)), np.int64)
        found = fold.fold(
            columns.code,
            columns.ts_ns,
            columns.price,
            columns.size,
            _or_none(columns.side),
            _or_none(columns.count),
            interval_ns,
            np.empty(len(columns.present), np.int64),
            windows,
        )
        if found < 0:
            raise OverflowError
        return np.ascontiguousarray(windows[:, :found])


def ticks_of(columns: Columns, numbers: list[int] | None = None) -> Ticks:
    """Columns one by one: all of them, or those of these records."""
    if numbers is None:
        numbers = list(range(len(columns.code)))
        chosen = np.arange(len(columns.code))
    else:
        chosen = np.array(numbers, np.int64)
    count = len(numbers)
    trades = Trades(
        columns.names(chosen),
        columns.ts_ns[chosen].tolist(),
        _scaled(columns.price[chosen]),
        _scaled(columns.size[chosen]),
        _ids(columns, chosen),
        [0] * count if columns.side is None else columns.side[chosen].tolist(),
        [1] * count if columns.count is None else columns.count[chosen].tolist(),
        [None] * count if columns.recv_ns is None else columns.recv_ns[chosen].tolist(),
    )
    return Ticks(trades, numbers)


def _ids(columns: Columns, chosen: Ints) -> list[Any]:
    ids = columns.trade_id
    if ids is None:
        return [None] * len(chosen)
    return [ids[i] for i in chosen.tolist()] if isinstance(ids, list) else ids[chosen].tolist()


def _scaled(column: Ints) -> list[int]:
    return [value * UNIT for value in column.tolist()]


def _or_none(column: Ints | None) -> Ints:
    """What the compiled functions take for a column that is not there."""
    return _NONE if column is None else column
