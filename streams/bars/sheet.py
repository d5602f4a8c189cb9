"""A dense batch as columns: the ticks of all instruments are folded into their windows at once, in numpy.

Exactly: prices and sizes are 64-bit integers, turnovers are added up in limbs of 21 bits, and a batch whose sums
might not fit is refused. The questions at the head of `judge` are asked in order of arrival, as always; only
where all ticks of an instrument count, and in time, are its windows taken from here, for then nobody can tell
in which order they were folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import add, lshift, mul
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.codecs.layout import UNIT, Columns
from schemas.codecs.words import Ints
from schemas.trade import Trades
from streams.bars.book import Book
from streams.bars.seen import Seen
from streams.bars.ticks import Ticks
from streams.bars.types import Record
from streams.bars.window import Window

_LIMB: Final = 21
_MOST: Final = 1 << 18  # ticks, so that sums of products of limbs fit
_FITS: Final = 2**62
_MOST_NS: Final = 2**63 - 1


class Sheet:
    """A batch, sorted by instrument. To iterate is to get it by instrument."""

    def __init__(self, columns: Columns, records: Sequence[Record], intervals_ns: Sequence[int]) -> None:
        """Fold into windows of these lengths. Raises OverflowError where a number might not fit."""
        self.columns = columns
        self._count = count = len(columns.code)
        first_ns = int(columns.ts_ns.min())
        span_ns = int(columns.ts_ns.max()) - first_ns + 1
        sums = [columns.size] if columns.count is None else [columns.size, columns.count]
        if (
            count > _MOST
            or span_ns * len(columns.instruments) > _FITS
            or first_ns + span_ns + max(intervals_ns) > _MOST_NS
            or any(float(column.sum(dtype=np.float64)) > _FITS for column in sums)
        ):
            raise OverflowError
        # Numpy sorts short integers many times as fast; and what is nearly in order, too.
        short = columns.code.astype(np.uint16) if len(columns.instruments) <= 1 << 16 else columns.code
        self._arrived = np.argsort(short, kind="stable")
        instants = (columns.code * span_ns + (columns.ts_ns - first_ns))[self._arrived]
        self._ordered = self._arrived[np.argsort(instants, kind="stable")]
        self._ticks = self._by_instrument(first_ns, span_ns)
        self._windows = {interval_ns: self._fold(interval_ns, records) for interval_ns in intervals_ns}

    def __iter__(self) -> Iterator[SheetTicks]:
        return iter(self._ticks)

    def windows(self, interval_ns: int, code: int) -> list[Window]:
        """What an instrument has in each window of that length; their bar type is left open."""
        bounds, windows = self._windows[interval_ns]
        return windows[bounds[code] : bounds[code + 1]]

    def _by_instrument(self, first_ns: int, span_ns: int) -> list[SheetTicks]:
        columns, arrived = self.columns, self._arrived
        instruments = len(columns.instruments)
        ends = np.cumsum(np.bincount(columns.code, minlength=instruments))
        starts = np.append(0, ends[:-1])
        times = columns.ts_ns[arrived]
        # Of one instrument after the other, so that one running maximum serves them all.
        offset = columns.code[arrived] * span_ns - first_ns
        marks = np.maximum.accumulate(times + offset) - offset
        oldest = np.minimum.reduceat(times, starts).tolist()
        lags = np.maximum.reduceat(marks - times, starts).tolist()
        received: list[Any] = [None] * instruments
        if columns.recv_ns is not None:
            received = np.minimum.reduceat(columns.recv_ns[arrived], starts).tolist()
        ascending = [False] * instruments
        ids = columns.trade_id[arrived] if isinstance(columns.trade_id, np.ndarray) else None
        if ids is not None:
            rises = np.append(True, ids[1:] > ids[:-1])
            rises[starts] = True
            ascending = np.logical_and.reduceat(rises, starts).tolist()
        numbers: list[int] = arrived.tolist()
        newest = marks[ends - 1].tolist()
        return [
            SheetTicks(
                self,
                code,
                numbers[own],
                None if ids is None else ids[own],
                ascending[code],
                marks[own],
                Summary(oldest[code], newest[code], lags[code], received[code]),
            )
            for code, own in enumerate(map(slice, starts.tolist(), ends.tolist()))
        ]

    def _fold(self, interval_ns: int, records: Sequence[Record]) -> tuple[list[int], list[Window]]:
        columns, order = self.columns, self._ordered
        code, times = columns.code[order], columns.ts_ns[order]
        prices, sizes = columns.price[order], columns.size[order]
        starts_ns = times - times % interval_ns
        changes = (code[1:] != code[:-1]) | (starts_ns[1:] != starts_ns[:-1])
        first = np.concatenate(([0], np.flatnonzero(changes) + 1))
        last = np.append(first[1:], self._count) - 1
        bought = sold = [0] * len(first)
        if columns.side is not None:
            sides = columns.side[order]
            bought = _scaled(np.add.reduceat(np.where(sides > 0, sizes, 0), first))
            sold = _scaled(np.add.reduceat(np.where(sides < 0, sizes, 0), first))
        counts = last - first + 1 if columns.count is None else np.add.reduceat(columns.count[order], first)
        windows = map(
            Window,
            repeat(""),
            starts_ns[first].tolist(),
            (starts_ns[first] + interval_ns).tolist(),
            times[first].tolist(),
            times[last].tolist(),
            _scaled(prices[first]),
            _scaled(np.maximum.reduceat(prices, first)),
            _scaled(np.minimum.reduceat(prices, first)),
            _scaled(prices[last]),
            _scaled(np.add.reduceat(sizes, first)),
            _turnovers(prices, sizes, first),
            bought,
            sold,
            counts.tolist(),
            _ids(columns, order[first]),
            _ids(columns, order[last]),
            [records[number].offset for number in np.minimum.reduceat(order, first).tolist()],
            [records[number].offset for number in np.maximum.reduceat(order, first).tolist()],
        )
        bounds = np.searchsorted(code[first], np.arange(len(columns.instruments) + 1)).tolist()
        return bounds, list(windows)


class Summary(NamedTuple):
    """What is asked of ticks as a whole."""

    oldest_ns: int
    newest_ns: int
    lag_ns: int
    """How far at most a tick is behind one that came before it."""
    received_ns: int | None
    """The earliest receipt, as far as they tell."""


class SheetTicks:
    """The ticks of one instrument of a sheet."""

    __slots__ = ("_ascending", "_code", "_ids", "_marks_ns", "_sheet", "names", "numbers", "summary")

    def __init__(
        self,
        sheet: Sheet,
        code: int,
        numbers: list[int],
        ids: Ints | None,
        ascending: bool,
        marks_ns: Ints,
        summary: Summary,
    ) -> None:
        self._sheet, self._code = sheet, code
        self.names = sheet.columns.instruments[code]
        self.numbers = numbers
        """Of their records, which have no other trade."""
        self.summary = summary
        self._ids, self._ascending, self._marks_ns = ids, ascending, marks_ns

    def __len__(self) -> int:
        return len(self.numbers)

    def ticks(self) -> Ticks:
        """One by one."""
        return ticks_of(self._sheet.columns, self.numbers)

    def are_stamped(self, records: Sequence[Record], max_future_ns: int) -> bool:
        """Whether each is dated at most so far ahead of the timestamp of its record, and that has one."""
        times = self._sheet.columns.ts_ns[self.numbers].tolist()
        return all(
            ts_ns <= (records[number].timestamp or 0) * 1_000_000 + max_future_ns
            for ts_ns, number in zip(times, self.numbers, strict=True)
        )

    def enter(self, seen: Seen, watermark_ns: int) -> bool:
        """Remember their ids, if all of them are new, or none has one; if not, nothing.

        Each with the watermark after its tick; `watermark_ns` is the one before the first.
        """
        columns = self._sheet.columns
        if columns.trade_id is None:
            return True
        marks_ns = np.maximum(self._marks_ns, watermark_ns)
        ids = self._ids
        if ids is None:
            return seen.extend(_ids(columns, np.array(self.numbers)), marks_ns.tolist())
        if self._ascending:
            return seen.extend_numbers(ids, marks_ns)
        tops = np.maximum.accumulate(ids)
        return seen.extend_numbers(ids, marks_ns, np.append(True, ids[1:] > tops[:-1]))

    def fold(self, book: Book) -> None:
        """Let all of them count in the finest windows."""
        for series in book.roots:
            for part in self._sheet.windows(series.interval_ns, self._code):
                book.take(series, part)


def ticks_of(columns: Columns, numbers: list[int] | None = None) -> Ticks:
    """Columns one by one: all of them, or those of these records."""
    if numbers is None:
        numbers = list(range(len(columns.code)))
        chosen = np.arange(len(columns.code))
    else:
        chosen = np.array(numbers)
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


def _turnovers(prices: Ints, sizes: Ints, first: Ints) -> list[int]:
    """The exact sum of price times size in each run, in units of 1e-36."""
    sums: dict[int, Ints] = {}
    for i, price in enumerate(_limbs(prices)):
        for j, size in enumerate(_limbs(sizes)):
            sums[i + j] = sums.get(i + j, 0) + np.add.reduceat(price * size, first)
    total = [0] * len(first)
    for limb, of_limb in sums.items():
        shifted = map(lshift, of_limb.tolist(), repeat(limb * _LIMB))
        total = list(map(add, total, shifted))
    return list(map(mul, total, repeat(UNIT * UNIT)))


def _limbs(column: Ints) -> list[Ints]:
    mask = (1 << _LIMB) - 1
    count = max(1, -(-int(column.max()).bit_length() // _LIMB))
    return [(column >> (_LIMB * i)) & mask for i in range(count)]
