"""Bars as a table for people, printed some at a time."""

from __future__ import annotations

import io
import shutil
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.bar import Bar
from schemas.fixed import SCALE, parse, render
from schemas.trade import instrument
from streams.cli.times import iso

_LEFT = ("instrument", "type", "start")
_COLUMNS = (*_LEFT, "open", "high", "low", "close", "volume", "vwap", "trades", "rev", "state")
#: Where the terminal is too narrow these go, the first one first.
_LESS_NEEDED = ("rev", "vwap", "trades", "volume", "state")
_GAP = 2
_WIDEST = 100_000


class BarTable:
    """Gives the text of one batch of bars after the other; the first one begins with the header.

    Columns keep the width that the widest value so far needed. No number is ever cut; vwap is
    rounded to two digits more than the prices have.
    """

    def __init__(self, width: int | None = None) -> None:
        if width is None:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST
        self._width = width
        self._widths = {name: len(name) for name in _COLUMNS}
        self._columns: list[str] = []
        self._color = sys.stdout.isatty()

    def __call__(self, bars: list[Bar]) -> str:
        """The lines of these bars."""
        if not bars:
            return ""
        rows = [dict(zip(_COLUMNS, _cells(bar), strict=True)) for bar in bars]
        for name in _COLUMNS:
            self._widths[name] = max(self._widths[name], *(len(row[name]) for row in rows))
        is_first = not self._columns
        if is_first:
            self._columns = self._fitting()
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=is_first)
        for name in self._columns:
            right = name not in _LEFT and name != "state"
            table.add_column(
                name, justify="right" if right else "left", min_width=self._widths[name], no_wrap=True
            )
        for row in rows:
            table.add_row(
                *(Text(row[name]) for name in self._columns), style="" if row["state"] == "final" else "dim"
            )
        out = io.StringIO()
        console = Console(file=out, width=_WIDEST, force_terminal=self._color, color_system="standard")
        console.print(table)
        return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())

    def _fitting(self) -> list[str]:
        columns = list(_COLUMNS)
        for name in _LESS_NEEDED:
            if sum(self._widths[name] + _GAP for name in columns) - _GAP <= self._width:
                break
            columns.remove(name)
        return columns


def _cells(bar: Bar) -> tuple[str, ...]:
    prices = (bar.open, bar.high, bar.low, bar.close)
    digits = max(len(price.partition(".")[2]) for price in prices)
    return (
        instrument(bar.venue, bar.symbol),
        bar.type,
        iso(bar.start_ns),
        *(_padded(price, digits) for price in prices),
        bar.volume,
        _rounded(bar.vwap, digits + 2) if bar.vwap is not None else "-",
        f"{bar.trade_count:,}",
        str(bar.revision),
        "final" if bar.final else "open",
    )


def _padded(price: str, digits: int) -> str:
    """With the zeros that align the prices of a bar."""
    whole, point, fraction = price.partition(".")
    return f"{whole}.{fraction:0<{digits}}" if digits else whole + point + fraction


def _rounded(number: str, digits: int) -> str:
    """Half to even."""
    if digits >= SCALE:
        return number
    unit = 10 ** (SCALE - digits)
    units, rest = divmod(parse(number), unit)
    units += rest * 2 > unit or (rest * 2 == unit and units % 2)
    return render(units, digits)
