"""The shapes of state rows. A change to them is a new `VERSION`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from schemas.bar import Bar
from schemas.codecs.spans import Ints
from schemas.fixed import SCALE, TURNOVER_SCALE
from streams.bars.types import BarType
from streams.bars.window import Window, empty

VERSION: Final = 6
_BYTES: Final = 8
_UNIT: Final = 10**9
_LOW: Final = 2**64 - 1


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
    for instrument and bar type.
    """

    instrument: int
    start_ns: int
    bar_type: int
    """Which of the bar types of its `Windows`."""
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
    """-1 for none, -2 for the next of `first_ids` of its `Windows`."""
    last_id: int
    """-1 for none, -2 for the next of `last_ids`."""
    first_offset: int
    last_offset: int
    closed: int
    """1 if it is, else 0."""
    published: int


class Windows(msgspec.Struct, array_like=True, gc=False):
    """Windows of instruments, each instrument by its number. Of several of one window the last one holds."""

    bar_types: list[str]
    """From the finest to the coarsest."""
    packed: bytes
    """`PackedWindow`s, one after the other."""
    first_ids: list[str]
    """Of those that are packed: the first ids that are text, in their order."""
    last_ids: list[str]
    others_of: list[int]
    """One by one the instruments of `others`."""
    others: list[msgspec.Raw]
    """`WindowRow`s: those that cannot be packed."""

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        _check_table(self.packed, WIDTH, "windows")
        rows = from_bytes(self.packed, WIDTH)
        for column, ids in ((FIRST_ID, self.first_ids), (LAST_ID, self.last_ids)):
            windows = np.count_nonzero(rows[:, column] == TEXT_ID)
            if windows != len(ids):
                raise ValueError(f"{len(ids)} ids that are text, and {windows} windows that have one")
        if len(self.others_of) != len(self.others):
            raise ValueError(f"{len(self.others_of)} instruments of {len(self.others)} windows")

    def each(
        self, wanted: Callable[[int], bool], number: Callable[[str, int], int]
    ) -> Iterator[tuple[int, Window]]:
        """Those of wanted instruments, each with the instrument. Raises ValueError, and what msgspec raises.

        `number` reads the numbers of those that are not packed: see `open_row` and `closed_row`.
        """
        bar_types = list(map(BarType.parse, self.bar_types))
        first_ids, last_ids = iter(self.first_ids), iter(self.last_ids)
        for row in from_bytes(self.packed, WIDTH).tolist():
            w = PackedWindow._make(row)
            first_id, last_id = _id(w.first_id, first_ids), _id(w.last_id, last_ids)
            if wanted(w.instrument):
                yield w.instrument, _unpack(w, first_id, last_id, bar_types)
        for instrument, raw in zip(self.others_of, self.others, strict=True):
            if wanted(instrument):
                yield instrument, _window(_window_row.decode(raw), number)


class Names(msgspec.Struct, array_like=True, gc=False):
    """Some of the instruments, in the order of their numbers."""

    symbols: list[str]
    venues: list[str]
    """One by one the venues of `symbols`; the empty string for none."""

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        if len(self.symbols) != len(self.venues):
            raise ValueError(f"{len(self.symbols)} symbols, and {len(self.venues)} venues")


class Clock(NamedTuple):
    """An instrument's clock, in nanoseconds since the epoch: see `Book`. 8 bytes each, little-endian."""

    instrument: int
    watermark_ns: int
    horizon_ns: int
    floor_ns: int
    """Windows that ended by then are forgotten, whatever the settings are now."""
    remembered_ns: int
    """Trade ids that counted before that watermark are forgotten, too, but for replays after `floor_ns`."""


class Open(msgspec.Struct, array_like=True, gc=False):
    """Instruments as they are: their clocks, and all of their open windows."""

    clocks: bytes
    """`Clock`s, one after the other."""
    windows: Windows

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        _check_table(self.clocks, len(Clock._fields), "clocks")
        self.windows.check()


class Mark(NamedTuple):
    """A trade id that is a 64-bit number, and the watermark when it counted. 8 bytes each, little-endian."""

    instrument: int
    trade_id: int
    watermark_ns: int


class Past(msgspec.Struct, array_like=True, gc=False):
    """What became the past since the row before: closed windows, and ids of trades that counted."""

    latest_ns: int
    """The highest watermark of the partition by then."""
    windows: Windows
    ids: bytes
    """`Mark`s, one after the other."""
    others_of: list[int]
    others: list[int | str]
    """One by one all other ids, and their watermarks."""
    others_ns: list[int]

    @property
    def items(self) -> int:
        """How many windows and ids there are in it."""
        windows = len(self.windows.packed) // (_BYTES * WIDTH) + len(self.windows.others)
        return windows + len(self.ids) // (_BYTES * len(Mark._fields)) + len(self.others)

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        _check_table(self.ids, len(Mark._fields), "trade ids")
        if not len(self.others_of) == len(self.others) == len(self.others_ns):
            raise ValueError(
                f"{len(self.others)} trade ids, {len(self.others_of)} instruments and {len(self.others_ns)} "
                "watermarks of them"
            )
        self.windows.check()


class Position(msgspec.Struct, array_like=True, gc=False):
    """How far a whole partition has come, and which rows are its state."""

    offset: int
    log_id: str
    instruments: int
    """How many there are: their names are in the rows `names|0` and so on."""
    open: tuple[int, int]
    """The first of the rows `open|N` that count, and the one after the last."""
    past: tuple[int, int]
    """The first of the rows `past|N` that count, and the one after the last."""

    def check(self) -> None:
        """Raises ValueError where it is not what was written."""
        for first, end in ((0, self.instruments), self.open, self.past):
            if not 0 <= first <= end:
                raise ValueError(f"rows or instruments from {first} to {end}")


_encode = msgspec.msgpack.Encoder().encode
_window_row = msgspec.msgpack.Decoder(WindowRow)


#: What a `PackedWindow` has.
WIDTH: Final = len(PackedWindow._fields)
FIRST_ID, LAST_ID = PackedWindow._fields.index("first_id"), PackedWindow._fields.index("last_id")

#: An id that is no number.
NO_ID, TEXT_ID = -1, -2


def to_bytes(rows: Ints) -> bytes:
    """Numbers of 64 bits, little-endian."""
    return rows.astype("<i8", copy=False).tobytes()


def from_bytes(data: bytes, width: int) -> Ints:
    """Rows of so many of them."""
    return np.frombuffer(data, "<i8").astype(np.int64, copy=False).reshape(-1, width)


def _check_table(data: bytes, width: int, what: str) -> None:
    if len(data) % (_BYTES * width):
        raise ValueError(f"{len(data)} bytes of {what} are no rows of {width} 64-bit numbers")


def as_integer(text: str, scale: int) -> int:
    """A number as `open_row` writes it."""
    return int(text)


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


def _id(number: int, texts: Iterator[str]) -> int | str | None:
    if number >= 0:
        return number
    return next(texts) if number == TEXT_ID else None


def _unpack(
    w: PackedWindow, first_id: int | str | None, last_id: int | str | None, bar_types: Sequence[BarType]
) -> Window:
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
        first_id=first_id,
        last_id=last_id,
        first_offset=w.first_offset,
        last_offset=w.last_offset,
        published=w.published,
        final=bool(w.closed),
    )


def _window(row: WindowRow, number: Callable[[str, int], int]) -> Window:
    return Window(
        bar_type=row.bar_type,
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        open_ts_ns=row.open_ts_ns,
        close_ts_ns=row.close_ts_ns,
        open=number(row.open, SCALE),
        high=number(row.high, SCALE),
        low=number(row.low, SCALE),
        close=number(row.close, SCALE),
        volume=number(row.volume, SCALE),
        turnover=number(row.turnover, TURNOVER_SCALE),
        buy_volume=number(row.buy_volume, SCALE),
        sell_volume=number(row.sell_volume, SCALE),
        trade_count=row.trade_count,
        first_id=row.first_id,
        last_id=row.last_id,
        first_offset=row.first_offset,
        last_offset=row.last_offset,
        revision=row.revision,
        published=row.published,
        final=row.final,
    )
