"""A batch as columns: the ticks of instruments that have many of them are folded into their windows at once.

The questions at the head of `judge` are asked in order of arrival, as always; only where all ticks of an instrument
count, and in time, are its windows taken from here, for then nobody can tell in which order they were folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np

from schemas.codecs.layout import UNIT, Columns
from schemas.codecs.spans import Ints
from schemas.trade import Trades
from streams.bars import fold
from streams.bars.book import Book, Series
from streams.bars.seen import Seen
from streams.bars.ticks import Ticks
from streams.bars.window import Window

_NONE: Final = np.empty(0, np.int64)
_UNITS: Final = UNIT * UNIT


class Sheet:
    """A batch by instrument. To iterate is to get the ticks of those that have many in a window."""

    def __init__(
        self, columns: Columns, offsets: Sequence[int], intervals_ns: Sequence[int], dense: int
    ) -> None:
        """Fold into windows of these lengths, of instruments with so many ticks in each on average.

        Raises OverflowError where a number might not fit, or ticks are in too great disorder.
        """
        self.columns = columns
        self._offsets = offsets
        count, instruments = len(columns.code), len(columns.instruments)
        ids = columns.trade_id
        bounds = np.empty(instruments + 1, np.int64)
        numbers, marks_ns = np.empty((2, count), np.int64)
        summary = np.empty((fold.SUMMARY, instruments), np.int64)
        fold.sort(
            columns.code,
            columns.ts_ns,
            ids if isinstance(ids, np.ndarray) else _NONE,
            _or_none(columns.recv_ns),
            bounds,
            numbers,
            marks_ns,
            summary,
        )
        folded = {interval_ns: self._fold(interval_ns) for interval_ns in intervals_ns}
        windows = np.bincount(folded[min(intervals_ns)][fold.CODE], minlength=instruments)
        ticks = np.diff(bounds)
        is_dense = ticks >= dense * windows
        self._windows = {
            interval_ns: self._by_instrument(interval_ns, windows[:, is_dense[windows[fold.CODE]]])
            for interval_ns, windows in folded.items()
        }
        self._dense = np.flatnonzero(is_dense).tolist()
        self._others = numbers[np.repeat(~is_dense, ticks)].tolist()
        self._bounds: list[int] = bounds.tolist()
        self._summary: list[tuple[int, ...]] = list(zip(*summary.tolist(), strict=True))
        self.numbers: list[int] = numbers.tolist()
        """Of records, by instrument and in order of arrival; so are the marks and ids that are text."""
        self.marks_ns: list[int] = []
        """The latest instant until then."""
        self.ids: list[str] | None = None
        self.pairs: memoryview | None = None
        """Ids that are numbers, each with its mark, by instrument and those first that rise."""
        if isinstance(ids, list):
            self.marks_ns, self.ids = marks_ns.tolist(), _ids(columns, numbers)
        elif ids is not None:
            pairs = np.empty(2 * count, np.int64)
            fold.sort_ids(ids, bounds, numbers, marks_ns, summary, pairs)
            self.pairs = pairs.data

    def __iter__(self) -> Iterator[SheetTicks]:
        bounds, summary = self._bounds, self._summary
        for code in self._dense:
            yield SheetTicks(self, code, slice(bounds[code], bounds[code + 1]), summary[code])

    def others(self) -> Ticks:
        """The ticks of the other instruments."""
        return self.ticks(self._others)

    def ticks(self, numbers: list[int]) -> Ticks:
        """The ticks of these records, one by one."""
        return ticks_of(self.columns, numbers)

    def windows(self, interval_ns: int, code: int) -> list[Window]:
        """What an instrument has in each window of that length; their bar type is left open."""
        return self._windows[interval_ns][code]

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
            np.empty(len(columns.instruments), np.int64),
            windows,
        )
        if found < 0:
            raise OverflowError
        return windows[:, :found]

    def _by_instrument(self, interval_ns: int, windows: Ints) -> dict[int, list[Window]]:
        columns, offsets = self.columns, self._offsets
        opened, closed = windows[fold.OPENED], windows[fold.CLOSED]
        lows = windows[fold.TURNOVER_LOW].astype(np.uint64).tolist()
        turnovers = zip(windows[fold.TURNOVER].tolist(), lows, strict=True)
        made = map(
            Window,
            repeat(""),
            windows[fold.START].tolist(),
            (windows[fold.START] + interval_ns).tolist(),
            columns.ts_ns[opened].tolist(),
            columns.ts_ns[closed].tolist(),
            _scaled(columns.price[opened]),
            _scaled(windows[fold.HIGH]),
            _scaled(windows[fold.LOW]),
            _scaled(columns.price[closed]),
            _scaled(windows[fold.VOLUME]),
            [(high << 64 | low) * _UNITS for high, low in turnovers],
            _scaled(windows[fold.BOUGHT]),
            _scaled(windows[fold.SOLD]),
            windows[fold.TRADES].tolist(),
            _ids(columns, opened),
            _ids(columns, closed),
            [offsets[number] for number in windows[fold.FIRST].tolist()],
            [offsets[number] for number in windows[fold.LAST].tolist()],
        )
        found: dict[int, list[Window]] = {}
        for code, window in zip(windows[fold.CODE].tolist(), made, strict=True):
            found.setdefault(code, []).append(window)
        return found


class SheetTicks:
    """The ticks of one instrument of a sheet."""

    __slots__ = (
        "_code",
        "_own",
        "_rising",
        "_sheet",
        "lag_ns",
        "names",
        "newest_ns",
        "oldest_ns",
        "received_ns",
    )

    def __init__(self, sheet: Sheet, code: int, own: slice, summary: Sequence[int]) -> None:
        self._sheet = sheet
        self._code = code
        self._own = own
        self.names = sheet.columns.instruments[code]
        self.oldest_ns, self.newest_ns, self.lag_ns, self.received_ns, self._rising = summary
        """`lag_ns` is how far at most a tick is behind one that came before it, `received_ns` the earliest receipt,
        as far as they tell."""

    def __len__(self) -> int:
        return self._own.stop - self._own.start  # type: ignore[no-any-return]

    @property
    def first(self) -> int:
        """The number of the first one's record."""
        return self._sheet.numbers[self._own.start]  # type: ignore[no-any-return]

    @property
    def last(self) -> int:
        """The number of the last one's record."""
        return self._sheet.numbers[self._own.stop - 1]  # type: ignore[no-any-return]

    @property
    def numbers(self) -> list[int]:
        """Of their records, which have no other trade."""
        return self._sheet.numbers[self._own]

    def are_stamped(self, timestamps: Sequence[int | None], max_future_ns: int) -> bool:
        """Whether each is dated at most so far ahead of the timestamp of its record, and that has one."""
        numbers = self.numbers
        times = self._sheet.columns.ts_ns[numbers].tolist()
        return all(
            ts_ns <= (timestamps[number] or 0) * 1_000_000 + max_future_ns
            for ts_ns, number in zip(times, numbers, strict=True)
        )

    def enter(self, seen: Seen, watermark_ns: int) -> bool:
        """Remember their ids, if all of them are new, or none has one; if not, nothing.

        Each with the watermark after its tick; `watermark_ns` is the one before the first.
        """
        sheet, own = self._sheet, self._own
        if sheet.pairs is not None:
            return seen.extend(sheet.pairs[2 * own.start : 2 * own.stop], self._rising, watermark_ns)
        if sheet.ids is not None:
            return seen.extend_any(sheet.ids[own], [max(mark, watermark_ns) for mark in sheet.marks_ns[own]])
        return True

    def fold(self, book: Book, roots: Sequence[Series]) -> None:
        """Let all of them count in the finest windows."""
        for series in roots:
            for part in self._sheet.windows(series.interval_ns, self._code):
                book.take(series, part)


def ticks_of(columns: Columns, numbers: list[int] | None = None) -> Ticks:
    """Columns one by one: all of them, or those of these records."""
    if numbers is None:
        numbers = list(range(len(columns.code)))
        chosen = np.arange(len(columns.code))
    else:
        chosen = np.array(numbers, np.int64)
    count = len(numbers)
    trades = Trades(
        [columns.instruments[code] for code in columns.code[chosen].tolist()],
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
