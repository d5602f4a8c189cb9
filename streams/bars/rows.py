"""The shapes of state rows. A change to them is a new `VERSION`."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from schemas.bar import Bar
from schemas.fixed import TURNOVER_SCALE, parse_rendered
from streams.bars.types import BarType
from streams.bars.window import Window, empty

VERSION = 5
_WIDTH = 8
_PAIR = 2 * _WIDTH
_UNIT = 10**9
_LOW = 2**64 - 1


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


class PackedWindow(NamedTuple):
    """A window that was not published as final, or was once, when it closed, whose numbers fit 64 bits.

    They have 8 bytes each, little-endian. Prices and sizes are in units of 1e-9. That is how a `Table` has it, but
    for the bar type.
    """

    start_ns: int
    bar_type: int
    """Which of the bar types of its `Head` or `Past`."""
    open_ts_ns: int
    close_ts_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    """In units of 1e-18, the higher 64 bits."""
    turnover_low: int
    buy_volume: int
    sell_volume: int
    trade_count: int
    first_id: int
    """-1 for none."""
    last_id: int
    first_offset: int
    last_offset: int
    closed: int
    """1 if it is, else 0."""
    published: int


class Past(msgspec.Struct, array_like=True, gc=False):
    """Closed windows, and trade ids with the watermarks when they counted."""

    bar_types: list[str]
    """From the finest to the coarsest; where no row asks for them, none."""
    closed: list[msgspec.Raw]
    """As the open ones of a `Head`. Of several of one window the last one holds."""
    pairs: bytes
    """Ids that are numbers and ascend, as of most, each with its watermark: 8 bytes a number, little-endian."""
    others: list[int | str]
    others_ns: list[int]
    """One by one the watermarks of `others`."""

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        if len(self.others) != len(self.others_ns):
            raise ValueError(
                f"{len(self.others)} of trade ids, and {len(self.others_ns)} of watermarks of them"
            )
        if len(self.pairs) % _PAIR:
            raise ValueError(
                f"{len(self.pairs)} bytes of trade ids and watermarks are no pairs of 64-bit numbers"
            )

    @property
    def latest_mark_ns(self) -> int:
        """The highest watermark of a trade id."""
        ascending = from_bytes(self.pairs[-_PAIR:])
        return max(ascending[1] if ascending else 0, *self.others_ns, 0)


class Head(msgspec.Struct, array_like=True, gc=False):
    """An instrument, less the parts of its past."""

    symbol: str
    venue: str
    bar_types: list[str]
    watermark_ns: int
    horizon_ns: int
    floor_ns: int
    offset: int
    """All ticks at or before it are contained."""
    open: list[msgspec.Raw]
    """Each a `WindowRow`, or the bytes of a `PackedWindow`."""
    recent: Past
    parts: list[int]
    next_part: int


class Position(msgspec.Struct, array_like=True, gc=False):
    """How far a whole partition has come."""

    offset: int
    log_id: str


_encode = msgspec.msgpack.Encoder().encode
_window_row = msgspec.msgpack.Decoder(WindowRow)

_SIZE = _WIDTH * len(PackedWindow._fields)

#: What comes before a `PackedWindow`: that so many bytes follow. And of how many bytes both are.
PACKED_HEAD = _encode(bytes(_SIZE))[:-_SIZE]
PACKED = len(PACKED_HEAD) + _SIZE


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


def packed_rows(packed: bytes) -> list[msgspec.Raw]:
    """The bytes of `PackedWindow`s, each behind what says how many there are."""
    return [msgspec.Raw(packed[at : at + PACKED]) for at in range(0, len(packed), PACKED)]


def row_of(w: Window) -> msgspec.Raw:
    """Of one that a `Table` has."""
    return written_again(w) if w.final else open_row(w)


def written_again(w: Window) -> msgspec.Raw:
    """As `closed_row`, without its bar."""
    return closed_row(w, w.bar("", "", "", "", 0))


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


def to_open_window(row: msgspec.Raw, bar_types: Sequence[BarType]) -> Window:
    """`bar_types` are those of the head. Raises ValueError, and what msgspec raises, where it is none."""
    return _unpack(row, bar_types) or _window(_window_row.decode(row), int, int)


def to_closed_window(row: msgspec.Raw, bar_types: Sequence[BarType]) -> Window:
    """`bar_types` are those of the past. Raises ValueError, and what msgspec raises, where it is none."""
    turnover = partial(parse_rendered, scale=TURNOVER_SCALE)
    return _unpack(row, bar_types) or _window(_window_row.decode(row), parse_rendered, turnover)


def is_packed(row: msgspec.Raw) -> bool:
    """Whether it is a `PackedWindow`, and asks for the bar types."""
    return memoryview(row)[: len(PACKED_HEAD)] == PACKED_HEAD


def _unpack(row: msgspec.Raw, bar_types: Sequence[BarType]) -> Window | None:
    if not is_packed(row):
        return None
    w = PackedWindow._make(from_bytes(msgspec.msgpack.decode(row, type=bytes)))
    if not 0 <= w.bar_type < len(bar_types):
        raise ValueError(f"a window of bar type {w.bar_type} of {len(bar_types)}")
    bar_type = bar_types[w.bar_type]
    end_ns = w.start_ns + bar_type.interval_ns
    if not w.trade_count:
        return empty(bar_type.name, w.start_ns, end_ns, w.published)
    return Window(
        bar_type=bar_type.name,
        start_ns=w.start_ns,
        end_ns=end_ns,
        open_ts_ns=w.open_ts_ns,
        close_ts_ns=w.close_ts_ns,
        open=w.open * _UNIT,
        high=w.high * _UNIT,
        low=w.low * _UNIT,
        close=w.close * _UNIT,
        volume=w.volume * _UNIT,
        turnover=(w.turnover << 64 | w.turnover_low & _LOW) * _UNIT * _UNIT,
        buy_volume=w.buy_volume * _UNIT,
        sell_volume=w.sell_volume * _UNIT,
        trade_count=w.trade_count,
        first_id=None if w.first_id < 0 else w.first_id,
        last_id=None if w.last_id < 0 else w.last_id,
        first_offset=w.first_offset,
        last_offset=w.last_offset,
        published=w.published,
        final=bool(w.closed),
    )


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
