"""Windows as rows of numbers, which compiled functions work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat
from typing import Any, Final

import numpy as np

from schemas.bar import Bar
from schemas.codecs.layout import UNIT
from schemas.codecs.spans import Ints
from schemas.fixed import TURNOVER_SCALE
from schemas.fixed import render as render_one
from streams.bars import merge as m
from streams.bars.book import Series
from streams.bars.packs import Packed
from streams.bars.render import TEXTS, render
from streams.bars.render import WIDTH as TEXT_WIDTH
from streams.bars.rows import WIDTH
from streams.bars.window import Window, empty

_UNITS: Final = UNIT * UNIT
_LOW: Final = 2**64 - 1
_MOST: Final = 2**63 - 1

#: So many rows there are at first; they double.
ROWS: Final = 64


class Table:
    """Windows of some series, a row each: see `merge` for its columns. Rows that are free are used again."""

    def __init__(self, series: Sequence[Series]) -> None:
        """Series are told by their number among these."""
        self.rows = np.empty((0, m.WINDOW), np.int64)
        self.free = np.empty(0, np.int64)
        self.left = 0
        """So many numbers of rows, the first ones of `free`, are free."""
        self._names = [one.name for one in series]
        self._intervals_ns = np.array([one.interval_ns for one in series], np.int64)
        self._texts: tuple[list[str], list[str]] = ([], [])
        """By row, a first and a last id that is text; as far as there are any."""

    def make_room(self, count: int) -> None:
        """Let so many rows be free."""
        while self.left < count:
            known = len(self.rows)
            # What is behind the rows is not touched, and so takes no memory, before it is used.
            rows, free = (
                np.empty((2 * known + ROWS, m.WINDOW), np.int64),
                np.empty(2 * known + ROWS, np.int64),
            )
            rows[:known] = self.rows
            more = len(rows) - known
            free[:more] = np.arange(len(rows) - 1, known - 1, -1)
            free[more : more + self.left] = self.free[: self.left]
            self.rows, self.free, self.left = rows, free, self.left + more

    def put(self, window: Window, earlier: int) -> int:
        """Enter one that `fits`, and the row of the one before it; gives its own."""
        self.make_room(1)
        self.left -= 1
        at = int(self.free[self.left])
        ids = []
        for texts, trade_id in zip(self._texts, (window.first_id, window.last_id), strict=True):
            if isinstance(trade_id, str):
                _room_for(texts, at)
                texts[at] = trade_id
                trade_id = m.TEXT_ID
            ids.append(m.NO_ID if trade_id is None else trade_id)
        turnover = window.turnover // _UNITS
        low = turnover & _LOW
        self.rows[at] = (
            window.start_ns,
            earlier,
            window.open_ts_ns,
            window.close_ts_ns,
            window.open // UNIT,
            max(window.high // UNIT, 0),
            min(window.low // UNIT, _MOST),
            window.close // UNIT,
            window.volume // UNIT,
            turnover >> 64,
            low - 2**64 if low > _MOST else low,
            window.buy_volume // UNIT,
            window.sell_volume // UNIT,
            window.trade_count,
            *ids,
            min(window.first_offset, _MOST),
            window.last_offset,
            0,
            window.published,
        )
        return at

    def name(self, which: int, rows: Ints, ids: Iterable[str]) -> None:
        """Let the first (0) or the last (1) id of these rows be text."""
        self.rows[rows, (m.FIRST_ID, m.LAST_ID_)[which]] = m.TEXT_ID
        texts = self._texts[which]
        _room_for(texts, int(rows.max(initial=-1)))
        for at, trade_id in zip(rows.tolist(), ids, strict=True):
            texts[at] = trade_id

    def move(self, moved: Ints) -> None:
        """Copy texts, in this order: of first (0) or last (1) ids, to a row, and from which."""
        for which, to, at in moved.tolist():
            texts = self._texts[which]
            _room_for(texts, to)
            texts[to] = texts[at]

    def read(self, numbers: Ints, series: Ints) -> list[Window]:
        """The windows of these rows, each with the number of its series."""
        rows = self.rows[numbers]
        columns = rows.T.tolist()
        turnovers = zip(columns[m.TURNOVER], columns[m.TURNOVER_LOW], strict=True)
        is_closed = (rows[:, m.STATUS] >= m.CLOSED).tolist()
        windows = list(
            map(
                Window,
                [self._names[number] for number in series.tolist()],
                columns[m.START],
                (rows[:, m.START] + self._intervals_ns[series]).tolist(),
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
                *self._ids(columns, numbers),
                columns[m.FIRST],
                columns[m.LAST],
                repeat(0),
                columns[m.PUBLISHED],
                is_closed,
            )
        )
        for n in np.flatnonzero(rows[:, m.TRADES] == 0).tolist():  # published early, with what finer ones had
            w = windows[n]
            windows[n] = empty(w.bar_type, w.start_ns, w.end_ns, w.published)
        return windows

    def bars(
        self, rows: Ints, series: Ints, names: Sequence[list[str]], topic: str, partition: int
    ) -> list[Bar]:
        """Final bars of copies of rows, which have their numbers for `EARLIER`, of these series.

        `names` are the names of their instruments, their symbols, and their venues.
        """
        columns = rows.T.tolist()
        texts, ends = np.empty(len(rows) * TEXT_WIDTH, np.uint8), np.empty(len(rows) * TEXTS, np.int64)
        text = texts[: render(rows, texts, ends)].tobytes().decode("ascii")
        at = [0, *ends.tolist()]
        cells = [text[begin:end] for begin, end in pairwise(at)]
        open_, high, low, close, volume, bought, sold, turnover, quotient = (
            cells[column::TEXTS] for column in range(TEXTS)
        )
        vwap: Sequence[str | None] = quotient
        if "" in turnover or "" in quotient:
            vwap = [one or None for one in quotient]
            for n, one in enumerate(turnover):
                if not one:
                    exact = columns[m.TURNOVER][n] << 64 | columns[m.TURNOVER_LOW][n] & _LOW
                    turnover[n] = render_one(exact * _UNITS, TURNOVER_SCALE)
        first_ids, last_ids = self._ids(columns, rows[:, m.EARLIER])
        return list(
            map(
                Bar,
                *names,
                [self._names[number] for number in series.tolist()],
                columns[m.START],
                (rows[:, m.START] + self._intervals_ns[series]).tolist(),
                open_,
                high,
                low,
                close,
                volume,
                turnover,
                vwap,
                columns[m.TRADES],
                bought,
                sold,
                [None if one is None else str(one) for one in first_ids],
                [None if one is None else str(one) for one in last_ids],
                columns[m.FIRST],
                columns[m.LAST],
                repeat(topic),
                repeat(partition),
                repeat(0),
                repeat(True),
            )
        )

    def packed(self, numbers: Ints, series: Ints, slots: Ints) -> Packed:
        """The windows of these rows for the state, each with the numbers of its series and its instrument."""
        rows = np.empty((len(numbers), WIDTH), np.int64)
        rows[:, 0], rows[:, 1:] = slots, self.rows[numbers]
        rows[:, 1 + m.EARLIER] = series
        np.minimum(rows[:, 1 + m.STATUS], m.CLOSED, out=rows[:, 1 + m.STATUS])
        ids = [
            [texts[at] for at in numbers[rows[:, 1 + column] == m.TEXT_ID].tolist()] if texts else []
            for texts, column in zip(self._texts, (m.FIRST_ID, m.LAST_ID_), strict=True)
        ]
        return Packed(rows, *ids)

    def remove(self, numbers: Ints) -> None:
        """Let these rows be free."""
        self.free[self.left : self.left + len(numbers)] = numbers
        self.left += len(numbers)

    def _ids(self, columns: list[list[int]], numbers: Ints) -> tuple[list[Any], list[Any]]:
        """The first and the last ids of rows, which are of these numbers."""
        ids: tuple[list[Any], list[Any]] = columns[m.FIRST_ID], columns[m.LAST_ID_]
        for texts, column in zip(self._texts, ids, strict=True):
            if min(column, default=0) < 0:
                for n, at in enumerate(numbers.tolist()):
                    if column[n] < 0:
                        column[n] = None if column[n] == m.NO_ID else texts[at]
        return ids


def fits(window: Window) -> bool:
    """Whether a row can hold it: it was not published as final, and its numbers are of some size, not negative."""
    prices = (window.open, window.high, window.low, window.close) if window.trade_count else ()
    ids = window.first_id, window.last_id
    return (
        not (window.final or window.revision)
        and window.end_ns <= _MOST
        and max(window.trade_count, window.published) < m.FITS
        and all(0 <= number // UNIT < m.FITS and not number % UNIT for number in (*prices, window.volume))
        and not (window.turnover % _UNITS or window.buy_volume % UNIT or window.sell_volume % UNIT)
        and all(trade_id is None or isinstance(trade_id, str) or 0 <= trade_id <= _MOST for trade_id in ids)
    )


def _room_for(texts: list[str], at: int) -> None:
    if len(texts) <= at:
        texts += [""] * (at + 1)


def _scaled(column: Iterable[int]) -> list[int]:
    return [value * UNIT for value in column]
