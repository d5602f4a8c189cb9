"""Open windows as rows of numbers, which compiled functions work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from msgspec import Raw

from schemas.codecs.layout import UNIT
from schemas.codecs.spans import Ints
from streams.bars import merge as m
from streams.bars.rows import PACKED, PACKED_HEAD, packed_rows
from streams.bars.window import Window

_UNITS: Final = UNIT * UNIT
_LOW: Final = 2**64 - 1
_MOST: Final = 2**63 - 1

#: So many rows there are at first; they double.
ROWS: Final = 64

#: An id that is no number: there is none, or it is text.
_NO_ID, _TEXT_ID = -1, -2


class Table:
    """Windows of some lengths, a row each: see `merge` for its columns. Rows that are free are used again."""

    def __init__(self, names: Sequence[str], intervals_ns: Sequence[int]) -> None:
        """Lengths are told by their number among these, which are their bar types."""
        self.rows = np.empty((0, m.WINDOW), np.int64)
        self.free = np.empty(0, np.int64)
        self.left = 0
        """So many numbers of rows, the first ones of `free`, are free."""
        self._names = names
        self._intervals_ns = np.array(intervals_ns, np.int64)
        self._texts: tuple[list[str], list[str]] = ([], [])
        """By row, a first and a last id that is text."""

    def __len__(self) -> int:
        return len(self.rows) - self.left

    def make_room(self, count: int) -> None:
        """Let so many rows be free."""
        while self.left < count:
            more = np.arange(len(self.rows), 2 * len(self.rows) + ROWS, dtype=np.int64)
            self.rows = np.concatenate((self.rows, np.empty((len(more), m.WINDOW), np.int64)))
            for texts in self._texts:
                texts += [""] * len(more)
            free = np.empty(len(self.rows), np.int64)
            free[: len(more)] = more
            free[len(more) : len(more) + self.left] = self.free[: self.left]
            self.free, self.left = free, self.left + len(more)

    def put(self, window: Window, earlier: int) -> int:
        """Enter one that `fits`, and the row of the one before it; gives its own."""
        self.make_room(1)
        self.left -= 1
        at = int(self.free[self.left])
        ids = []
        for texts, trade_id in zip(self._texts, (window.first_id, window.last_id), strict=True):
            if isinstance(trade_id, str):
                texts[at] = trade_id
                trade_id = _TEXT_ID
            ids.append(_NO_ID if trade_id is None else trade_id)
        turnover = window.turnover // _UNITS
        low = turnover & _LOW
        self.rows[at] = (
            window.start_ns,
            earlier,
            window.open_ts_ns,
            window.close_ts_ns,
            window.open // UNIT,
            window.high // UNIT,
            window.low // UNIT,
            window.close // UNIT,
            window.volume // UNIT,
            turnover >> 64,
            low - 2**64 if low > _MOST else low,
            window.buy_volume // UNIT,
            window.sell_volume // UNIT,
            window.trade_count,
            *ids,
            window.first_offset,
            window.last_offset,
        )
        return at

    def name(self, which: int, rows: Ints, ids: Iterable[str]) -> None:
        """Let the first (0) or the last (1) id of these rows be text."""
        self.rows[rows, (m.FIRST_ID, m.LAST_ID_)[which]] = _TEXT_ID
        texts = self._texts[which]
        for at, trade_id in zip(rows.tolist(), ids, strict=True):
            texts[at] = trade_id

    def read(self, numbers: Ints, lengths: Ints) -> list[Window]:
        """The windows of these rows, each with the number of its length."""
        return self.windows(self.rows[numbers], numbers, lengths)

    def state_rows(self, numbers: Ints, bar_types: Ints) -> list[Raw] | None:
        """The windows of these rows for the state, of the bar types of those numbers; None where an id is text."""
        rows = self.rows[numbers]
        if (rows[:, [m.FIRST_ID, m.LAST_ID_]] == _TEXT_ID).any():
            return None
        rows[:, m.EARLIER] = bar_types
        packed = np.empty((len(rows), PACKED), np.uint8)
        packed[:, : len(PACKED_HEAD)] = np.frombuffer(PACKED_HEAD, np.uint8)
        packed[:, len(PACKED_HEAD) :] = rows.astype("<i8").view(np.uint8)
        return packed_rows(packed.tobytes())

    def remove(self, numbers: Ints) -> None:
        """Let these rows be free."""
        self.free[self.left : self.left + len(numbers)] = numbers
        self.left += len(numbers)

    def windows(self, rows: Ints, numbers: Ints, lengths: Ints) -> list[Window]:
        """What copies of rows say, which were of these numbers, and are of these lengths."""
        columns = rows.T.tolist()
        ids = columns[m.FIRST_ID], columns[m.LAST_ID_]
        for texts, column in zip(self._texts, ids, strict=True):
            if min(column, default=0) < 0:
                for n, at in enumerate(numbers.tolist()):
                    if column[n] < 0:
                        column[n] = None if column[n] == _NO_ID else texts[at]
        turnovers = zip(columns[m.TURNOVER], columns[m.TURNOVER_LOW], strict=True)
        return list(
            map(
                Window,
                [self._names[length] for length in lengths.tolist()],
                columns[m.START],
                (rows[:, m.START] + self._intervals_ns[lengths]).tolist(),
                columns[m.OPENED_NS],
                columns[m.CLOSED_NS],
                _scaled(columns[m.OPEN]),
                _scaled(columns[m.HIGH]),
                _scaled(columns[m.LOW]),
                _scaled(columns[m.CLOSE]),
                _scaled(columns[m.VOLUME]),
                [(high << 64 | low & _LOW) * _UNITS for high, low in turnovers],
                _scaled(columns[m.BOUGHT]),
                _scaled(columns[m.SOLD]),
                columns[m.TRADES],
                *ids,
                columns[m.FIRST],
                columns[m.LAST],
            )
        )


def fits(window: Window) -> bool:
    """Whether a row can hold it: it was never published, and its numbers are of some size."""
    numbers = window.open, window.high, window.low, window.close, window.volume
    ids = window.first_id, window.last_id
    return (
        window.revision == window.published == 0
        and window.end_ns <= _MOST
        and window.trade_count < m.FITS
        and all(-m.FITS < number // UNIT < m.FITS and not number % UNIT for number in numbers)
        and not (window.turnover % _UNITS or window.buy_volume % UNIT or window.sell_volume % UNIT)
        and all(trade_id is None or isinstance(trade_id, str) or 0 <= trade_id <= _MOST for trade_id in ids)
    )


def _scaled(column: Iterable[int]) -> list[int]:
    return [value * UNIT for value in column]
