"""The shapes of state rows. A change to them is a new `VERSION`."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import partial

import msgspec

from schemas.bar import Bar
from schemas.fixed import TURNOVER_SCALE, parse_rendered
from streams.bars.window import Window

VERSION = 3
_WIDTH = 8


class WindowRow(msgspec.Struct, array_like=True, gc=False):
    """A window. Numbers are text, for they outgrow 64 bits: see `open_row` and `closed_row`."""

    bar_type: str
    start_ns: int
    end_ns: int
    open: str
    high: str
    low: str
    close: str
    open_ts_ns: int
    close_ts_ns: int
    volume: str
    turnover: str
    buy_volume: str
    sell_volume: str
    trade_count: int
    first_id: int | str | None
    last_id: int | str | None
    first_offset: int
    last_offset: int
    revision: int
    published: int
    final: bool


class Past(msgspec.Struct, array_like=True, gc=False):
    """Closed windows, and trade ids with, one by one, the watermark when they counted."""

    closed: list[msgspec.Raw]
    """Of `WindowRow`. Of several of one window the last one holds."""
    ids: bytes
    """Those that are numbers and ascend, and so do their watermarks: most. 8 bytes each, little-endian."""
    marks_ns: bytes
    others: list[int | str]
    others_ns: list[int]

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        for ids, marks_ns in ((self.ids, self.marks_ns), (self.others, self.others_ns)):
            if len(ids) != len(marks_ns):
                raise ValueError(f"{len(ids)} of trade ids, and {len(marks_ns)} of watermarks of them")
        if len(self.ids) % _WIDTH:
            raise ValueError(f"{len(self.ids)} bytes of trade ids are no 64-bit numbers")

    @property
    def latest_mark_ns(self) -> int:
        """The highest watermark of a trade id."""
        ascending = from_bytes(self.marks_ns[-_WIDTH:])
        return max(ascending[0] if ascending else 0, *self.others_ns, 0)


class Head(msgspec.Struct, array_like=True, gc=False):
    """An instrument, less the parts of its past."""

    symbol: str
    venue: str
    bar_types: list[str]
    watermark_ns: int
    horizon_ns: int
    floor_ns: int
    offset: int
    index: int
    open: list[msgspec.Raw]
    """Of `WindowRow`."""
    recent: Past
    parts: list[int]
    next_part: int


class Position(msgspec.Struct, array_like=True, gc=False):
    """How far a whole partition has come."""

    offset: int
    log_id: str


_encode = msgspec.msgpack.Encoder().encode
_window_row = msgspec.msgpack.Decoder(WindowRow)


def to_bytes(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def from_bytes(data: bytes) -> array[int]:
    numbers = array("q", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def open_row(w: Window) -> msgspec.Raw:
    """Its numbers are integers: it is written again and again, and read once at most."""
    open_ = str(w.open)
    high = low = close = open_
    if w.high != w.low:
        high, low, close = str(w.high), str(w.low), str(w.close)
    volume = str(w.volume)
    bought = volume if w.buy_volume == w.volume else str(w.buy_volume)
    sold = volume if w.sell_volume == w.volume else str(w.sell_volume)
    return _row(w, open_, high, low, close, volume, str(w.turnover), bought, sold)


def closed_row(w: Window, bar: Bar) -> msgspec.Raw:
    """Its numbers are those of its bar, which are text already."""
    sums = bar.volume, bar.turnover, bar.buy_volume, bar.sell_volume
    return _row(w, bar.open, bar.high, bar.low, bar.close, *sums)


def _row(
    w: Window,
    open_: str,
    high: str,
    low: str,
    close: str,
    volume: str,
    turnover: str,
    buy_volume: str,
    sell_volume: str,
) -> msgspec.Raw:
    """A `WindowRow`, which nobody needs but as bytes."""
    return msgspec.Raw(
        _encode(
            (
                w.bar_type,
                w.start_ns,
                w.end_ns,
                open_,
                high,
                low,
                close,
                w.open_ts_ns,
                w.close_ts_ns,
                volume,
                turnover,
                buy_volume,
                sell_volume,
                w.trade_count,
                w.first_id,
                w.last_id,
                w.first_offset,
                w.last_offset,
                w.revision,
                w.published,
                w.final,
            )
        )
    )


def to_open_window(row: msgspec.Raw) -> Window:
    return _window(_window_row.decode(row), int, int)


def to_closed_window(row: msgspec.Raw) -> Window:
    return _window(_window_row.decode(row), parse_rendered, partial(parse_rendered, scale=TURNOVER_SCALE))


def _window(row: WindowRow, number: Callable[[str], int], turnover: Callable[[str], int]) -> Window:
    return Window(
        bar_type=row.bar_type,
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        open_ts_ns=row.open_ts_ns,
        close_ts_ns=row.close_ts_ns,
        open=number(row.open),
        high=number(row.high),
        low=number(row.low),
        close=number(row.close),
        volume=number(row.volume),
        turnover=turnover(row.turnover),
        buy_volume=number(row.buy_volume),
        sell_volume=number(row.sell_volume),
        trade_count=row.trade_count,
        first_id=row.first_id,
        last_id=row.last_id,
        first_offset=row.first_offset,
        last_offset=row.last_offset,
        revision=row.revision,
        published=row.published,
        final=row.final,
    )
