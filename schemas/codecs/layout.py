"""Many JSON records at once, where all are laid out as the first one is.

A producer writes every tick the same way: the same keys in the same order, the same spaces. Cut at its quotes,
`{"symbol":"BTCUSDT","ts_ns":1723161255342000000,"price":"61837.63"}` is a row of pieces, of which some are the
same in every record and the others are values. Arrow's CSV reader cuts them, with the quote as the delimiter,
and gives columns. What is not constant must have exactly the form of its value, so that a record is read so
only if it is what the JSON decoder would read; if one is not, the batch is left to that.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from schemas.fixed import SCALE
from schemas.trade import instrument

Ints = NDArray[np.int64]

DIGITS: Final = 9
"""Fraction digits of the prices and sizes that are read here."""
UNIT: Final = 10 ** (SCALE - DIGITS)
"""What those are in units of `schemas.fixed`."""

_PIECE = re.compile(rb"(\s*:\s*)([-0-9.eE]+)(\s*[,}]\s*)").fullmatch
_COLON = re.compile(rb"\s*:\s*").fullmatch
_TEXTS = frozenset({"symbol", "venue", "price", "size", "trade_id", "side"})
_NUMBERS = frozenset({"ts_ns", "price", "size", "trade_id", "recv_ns", "count"})
_ZERO, _NINE, _POINT = b"09."


@dataclass(frozen=True, slots=True)
class Columns:
    """Trades in order of arrival. What is not given is None; nothing is checked but that it can be read."""

    instruments: list[tuple[str, str]]
    """Venue and symbol."""
    code: Ints
    """Which of them."""
    ts_ns: Ints
    price: Ints
    """In units of 1e-9, as sizes are."""
    size: Ints
    side: Ints | None
    trade_id: Ints | list[str] | None
    count: Ints | None
    recv_ns: Ints | None


class NotSo(Exception):
    """A record is laid out in another way."""


class _Value(NamedTuple):
    """A piece that holds a value, and what stands around it."""

    field: str
    before: bytes
    after: bytes


class Layout:
    """The pieces of a record: each a constant, or a value."""

    def __init__(self, record: bytes) -> None:
        """Learn it from a record that is a good one. Raises NotSo where it is none for columns."""
        pieces = record.split(b'"')
        unquoted = pieces[::2]
        # What is within another object or a list is not the tick's own.
        nested = unquoted[0].strip() != b"{" or any(b"{" in piece or b"[" in piece for piece in unquoted[1:])
        if nested or b"\\" in record or len(pieces) % 2 == 0:
            raise NotSo
        self._pieces: list[bytes | _Value] = list(pieces)
        keys: set[bytes] = set()
        at = 1
        while at < len(pieces):
            key = pieces[at]
            name = key.decode(errors="replace")
            if key in keys:
                raise NotSo
            keys.add(key)
            if number := _PIECE(pieces[at + 1]):
                if name in _NUMBERS:
                    self._pieces[at + 1] = _Value(name, number[1], number[3])
                at += 2
            elif _COLON(pieces[at + 1]) and at + 3 < len(pieces):
                if name in _TEXTS:
                    self._pieces[at + 2] = _Value(name, b"", b"")
                at += 4
            else:
                at += 2  # null, true, false, or something that must be the same everywhere
        names = [str(number) for number in range(len(pieces))]
        self._read = csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 30)
        self._parse = csv.ParseOptions(delimiter='"', quote_char=False, escape_char=False)
        self._convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._pieces == other._pieces

    __hash__ = None  # type: ignore[assignment]

    def columns(self, records: Sequence[bytes | None], venue: str) -> Columns:
        """Read records, of which there is one at least. Raises NotSo, and nothing else."""
        try:
            return self._columns(b"\n".join(records), len(records), venue)  # type: ignore[arg-type]
        except (pa.ArrowException, TypeError, UnicodeDecodeError):
            raise NotSo from None

    def _columns(self, lines: bytes, count: int, venue: str) -> Columns:
        # A line break within a record would make two of it; JSON has no other control characters either.
        if np.count_nonzero(np.frombuffer(lines, np.uint8) < ord(" ")) != count - 1 or b"\\" in lines:
            raise NotSo
        if lines.startswith(codecs.BOM_UTF8):
            raise NotSo  # the CSV reader would pass it over
        table = csv.read_csv(pa.BufferReader(lines), self._read, self._parse, self._convert)
        if len(table) != count:
            raise NotSo
        found: dict[str, Any] = {}
        for piece, column in zip(self._pieces, table.columns, strict=True):
            cells = _Cells(column.combine_chunks())
            if isinstance(piece, bytes):
                cells.must_be(piece)
            else:
                cells.cut(piece.before, piece.after)
                found[piece.field] = cells
        side = found.get("side")
        instruments, code = _instruments(found["symbol"], found.get("venue"), venue)
        return Columns(
            instruments,
            code,
            found["ts_ns"].integers(),
            found["price"].decimals(),
            found["size"].decimals(),
            None if side is None else _sides(side),
            _ids(found.get("trade_id")),
            found["count"].integers() if "count" in found else None,
            found["recv_ns"].integers() if "recv_ns" in found else None,
        )


class _Cells:
    """One column of bytes."""

    def __init__(self, array: Any) -> None:
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        self.array = array
        self.starts, self.ends = ends[:-1], ends[1:]
        self.data = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        self.first, self.last = int(ends[0]), int(ends[-1])
        self.quoted = True

    def must_be(self, text: bytes) -> None:
        """Raises NotSo unless every cell is this."""
        width = len(text)
        same = bytes(self.data[self.first : self.last]) == text * len(self.starts)
        if not same or not bool((self.ends - self.starts == width).all()):
            raise NotSo

    def cut(self, before: bytes, after: bytes) -> None:
        """Take off what stands around every cell. Raises NotSo where it does not."""
        if not before:
            return
        self.quoted = False
        if int((self.ends - self.starts).min()) <= len(before) + len(after):
            raise NotSo
        for i, byte in enumerate(before):
            if not bool((self.data[self.starts + i] == byte).all()):
                raise NotSo
        for i, byte in enumerate(reversed(after), 1):
            if not bool((self.data[self.ends - i] == byte).all()):
                raise NotSo
        self.array = pc.binary_slice(self.array, len(before), -len(after))
        self.starts, self.ends = self.starts + len(before), self.ends - len(after)

    def integers(self) -> Ints:
        """Digits without a sign, and without a zero in front. Raises NotSo."""
        self._must_be_digits(0)
        numbers: Ints = pc.cast(self.array.cast(pa.string()), pa.int64()).to_numpy()
        return numbers

    def decimals(self) -> Ints:
        """Digits, perhaps with a point among them, in units of 1e-9. Raises NotSo, also for what is too large."""
        points = self.data[self.first : self.last] == _POINT
        self._must_be_digits(int(np.count_nonzero(points)))
        exact = pc.cast(self.array.cast(pa.string()), pa.decimal128(38, DIGITS))
        if exact.offset or exact.null_count:
            raise NotSo
        halves = np.frombuffer(exact.buffers()[1], np.int64)[: 2 * len(exact)].reshape(-1, 2)
        low = np.ascontiguousarray(halves[:, 0])
        if bool(halves[:, 1].any()) or int(low.min()) < 0:
            raise NotSo
        return low

    def _must_be_digits(self, points: int) -> None:
        widths = self.ends - self.starts
        if int(widths.min()) < 1:
            raise NotSo
        lead, tail = self.data[self.starts], self.data[self.ends - 1]
        second = self.data[np.minimum(self.starts + 1, self.ends - 1)]
        digits = np.count_nonzero(self.data[self.first : self.last] - np.uint8(_ZERO) < 10)
        if (
            digits + points != int(widths.sum())
            or bool((lead == _POINT).any())
            or bool((tail == _POINT).any())
            or bool(((lead == _ZERO) & (widths > 1) & (second != _POINT)).any())
        ):
            raise NotSo

    def distinct(self) -> tuple[list[str], Ints]:
        """The different texts, and which of them each cell is. Raises UnicodeDecodeError or an Arrow error."""
        encoded = self.array.dictionary_encode()
        texts: list[str] = encoded.dictionary.cast(pa.string()).to_pylist()
        return texts, encoded.indices.to_numpy().astype(np.int64)

    def texts(self) -> list[str]:
        """Raises UnicodeDecodeError or an Arrow error for what is no text."""
        texts: list[str] = self.array.cast(pa.string()).to_pylist()
        return texts


def _instruments(symbol: _Cells, venue: _Cells | None, own: str) -> tuple[list[tuple[str, str]], Ints]:
    symbols, symbol_codes = symbol.distinct()
    if venue is None:
        return [(own, text) for text in symbols], symbol_codes
    venues, venue_codes = venue.distinct()  # which must be text, though it does not count beside our own
    if own:
        return [(own, text) for text in symbols], symbol_codes
    if len(venues) == 1:
        return [(venues[0], text) for text in symbols], symbol_codes
    pairs, codes = np.unique(venue_codes * len(symbols) + symbol_codes, return_inverse=True)
    found = [(venues[v], symbols[s]) for v, s in (divmod(pair, len(symbols)) for pair in pairs.tolist())]
    if len({instrument(*names) for names in found}) < len(found):
        raise NotSo  # two spellings of one instrument
    return found, codes


def _sides(cells: _Cells) -> Ints:
    buys = pc.equal(cells.array, b"buy").to_numpy(zero_copy_only=False)
    sells = pc.equal(cells.array, b"sell").to_numpy(zero_copy_only=False)
    if not bool((buys | sells).all()):
        raise NotSo
    sides: Ints = np.where(buys, 1, -1)
    return sides


def _ids(cells: _Cells | None) -> Ints | list[str] | None:
    if cells is None:
        return None
    return cells.texts() if cells.quoted else cells.integers()
