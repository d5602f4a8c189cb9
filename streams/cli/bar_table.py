"""Bars as a table for people, some at a time."""

from __future__ import annotations

import os
import shutil
import sys

import click
from rich.cells import cell_len

from schemas.bar import Bar
from schemas.fixed import SCALE, parse, render
from schemas.trade import instrument
from streams.cli.times import iso

_COLUMNS = (
    "instrument",
    "type",
    "start",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "vwap",
    "trades",
    "rev",
    "state",
)
_LEFT = frozenset({"instrument", "type", "start", "state"})
#: Where the terminal is too narrow these go, the first one first.
_LESS_NEEDED = ("rev", "vwap", "trades", "volume", "state")
_GAP = "  "


class BarTable:
    """Gives the text of one batch of bars after the other; the first one begins with the header.

    Columns keep the width that the widest value so far needed; no number is ever cut. In the table
    vwap is rounded to two digits more than the prices of its bar have.
    """

    def __init__(self, width: int | None = None, *, color: bool | None = None) -> None:
        is_terminal = sys.stdout.isatty()
        if width is None and is_terminal:
            width = shutil.get_terminal_size().columns
        self._width = width
        self._color = is_terminal and not os.environ.get("NO_COLOR") if color is None else color
        self._widths = {name: len(name) for name in _COLUMNS}
        self._columns: list[str] = []

    def __call__(self, bars: list[Bar]) -> str:
        """The lines of these bars."""
        rows = [_cells(bar) for bar in bars]
        for row in rows:
            for name, cell in row.items():
                self._widths[name] = max(self._widths[name], cell_len(cell))
        lines = []
        if rows and not self._columns:
            self._columns = self._fitting()
            lines.append(self._line({name: name for name in _COLUMNS}, bold=True))
        lines += [self._line(row, dim=row["state"] != "final") for row in rows]
        return "".join(f"{line}\n" for line in lines)

    def _fitting(self) -> list[str]:
        columns = list(_COLUMNS)
        for name in _LESS_NEEDED:
            needed = sum(self._widths[column] + len(_GAP) for column in columns) - len(_GAP)
            if self._width is None or needed <= self._width:
                break
            columns.remove(name)
        return columns

    def _line(self, row: dict[str, str], *, bold: bool = False, dim: bool = False) -> str:
        cells = []
        for name in self._columns:
            space = " " * (self._widths[name] - cell_len(row[name]))
            cells.append(row[name] + space if name in _LEFT else space + row[name])
        line = _GAP.join(cells).rstrip()
        return click.style(line, bold=bold, dim=dim) if self._color and (bold or dim) else line


def _cells(bar: Bar) -> dict[str, str]:
    prices = {name: getattr(bar, name) for name in ("open", "high", "low", "close")}
    digits = max(len(price.partition(".")[2]) for price in prices.values())
    return {
        "instrument": instrument(bar.venue, bar.symbol),
        "type": bar.type,
        "start": iso(bar.start_ns),
        **{name: _padded(price, digits) for name, price in prices.items()},
        "volume": bar.volume,
        "vwap": "-" if bar.vwap is None else _padded(_rounded(bar.vwap, digits + 2), digits + 2),
        "trades": f"{bar.trade_count:,}",
        "rev": str(bar.revision),
        "state": "final" if bar.final else "open",
    }


def _padded(number: str, digits: int) -> str:
    """With the zeros that align the numbers of a column."""
    whole, _, fraction = number.partition(".")
    return f"{whole}.{fraction:0<{digits}}" if digits else whole


def _rounded(number: str, digits: int) -> str:
    """Half to even."""
    if digits >= SCALE:
        return number
    unit = 10 ** (SCALE - digits)
    units, rest = divmod(parse(number), unit)
    units += rest * 2 > unit or (rest * 2 == unit and units % 2)
    return render(units, digits)
