"""Many JSON records at once, where all are laid out as the first one is.

A producer writes every tick the same way: the same keys in the same order, the same spaces. Cut at its quotes,
`{"symbol":"BTCUSDT","ts_ns":1723161255342000000,"price":"61837.63"}` is a row of pieces, of which some are the
same in every record and the others are values. So a value begins where the constant before it ends, in all
records at once, and ends at the byte that follows it; `words` finds and reads them. What is constant must be so,
and a value must have exactly the form of its kind: a record is read here only if it is what the JSON decoder
would read, and if one is not, the batch is left to that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.codecs.words import PAD, Ints, Text, Unfit
from schemas.fixed import SCALE
from schemas.trade import Names, instrument

DIGITS: Final = 9
"""Fraction digits of the prices and sizes that are read here."""
UNIT: Final = 10 ** (SCALE - DIGITS)
"""What those are in units of `schemas.fixed`."""

_PIECE = re.compile(rb"(\s*:\s*)([-0-9.eE]+)(\s*[,}]\s*)").fullmatch
_COLON = re.compile(rb"\s*:\s*").fullmatch
_TEXTS = frozenset({"symbol", "venue", "price", "size", "trade_id", "side"})
_NUMBERS = frozenset({"ts_ns", "price", "size", "trade_id", "recv_ns", "count"})
_SIDES = {b"buy": 1, b"sell": -1}
_SPACE = b" " * PAD
_POINT = ord(".")
_AT_LEAST = {"ts_ns": 16, "recv_ns": 16}
"""Digits of a good one, and a few less: what has no more is none, whatever follows it."""
_POWERS = 10 ** np.arange(DIGITS + 1)
_MOST_WHOLE = (2**63 - 1) // 10**DIGITS


@dataclass(frozen=True, slots=True)
class Columns:
    """Trades in order of arrival. What is not given is None; nothing is checked but that it can be read."""

    instruments: list[Names]
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

    def windows(self, interval_ns: int) -> int:
        """How many windows of that length they fall into, those of each instrument counted by themselves."""
        at = self.ts_ns // interval_ns
        first = int(at.min())
        return len(np.unique(self.code * (int(at.max()) - first + 1) + (at - first)))


class NotSo(Exception):
    """A record is laid out in another way."""


class Layout:
    """The pieces of a record: constants, and a value after each of them but the last."""

    def __init__(self, record: bytes) -> None:
        """Learn it from a record that is a good one. Raises NotSo where it is none for columns."""
        pieces = record.split(b'"')
        unquoted = pieces[::2]
        # What is within another object or a list is not the tick's own.
        nested = unquoted[0].strip() != b"{" or any(b"{" in piece or b"[" in piece for piece in unquoted[1:])
        if nested or b"\\" in record or len(pieces) % 2 == 0:
            raise NotSo
        self._constants = [pieces[0]]
        self._fields: list[str] = []
        keys: set[bytes] = set()
        at = 1
        while at < len(pieces):
            key = pieces[at]
            name = key.decode(errors="replace")
            if key in keys:
                raise NotSo
            keys.add(key)
            self._constants[-1] += b'"' + key + b'"'
            if (number := _PIECE(pieces[at + 1])) and name in _NUMBERS:
                self._value(name, number[1], number[3])
                at += 2
            elif number is None and _COLON(pieces[at + 1]) and at + 3 < len(pieces):
                before, after = pieces[at + 1] + b'"', b'"' + pieces[at + 3]
                if name in _TEXTS:
                    self._value(name, before, after)
                else:
                    self._constants[-1] += before + pieces[at + 2] + after
                at += 4
            else:
                self._constants[-1] += pieces[at + 1]
                at += 2  # a number that is not read, null, true, false: must be the same everywhere

    def _value(self, name: str, before: bytes, after: bytes) -> None:
        self._constants[-1] += before
        self._fields.append(name)
        self._constants.append(after)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Layout)
            and self._constants == other._constants
            and self._fields == other._fields
        )

    __hash__ = None  # type: ignore[assignment]

    def columns(self, records: Sequence[bytes | None], venue: str) -> Columns:
        """Read records, of which there is one at least. Raises NotSo, and nothing else."""
        try:
            joined = b"".join((_SPACE, *records, _SPACE))  # type: ignore[arg-type]
        except TypeError:  # a record without a value
            raise NotSo from None
        try:
            return self._columns(Text(joined), list(map(len, records)), venue)  # type: ignore[arg-type]
        except (Unfit, UnicodeDecodeError):
            raise NotSo from None

    def _columns(self, text: Text, lengths: list[int], venue: str) -> Columns:
        # JSON has no control characters but those between its pieces, and a backslash stands for something else.
        if text.lowest < ord(" ") or b"\\" in text.data:
            raise NotSo
        length = np.array(lengths, np.int64)
        end = PAD + np.cumsum(length)
        at = end - length
        found: dict[str, Cells] = {}
        for number, constant in enumerate(self._constants):
            if number:
                field = self._fields[number - 1]
                width = text.find(at, constant[0], end - at, _AT_LEAST.get(field, 0))
                found[field] = Cells(text, at, width, quoted=constant[:1] == b'"')
                at = at + width
            if bool((end - at < len(constant)).any()):
                raise NotSo
            text.must_be(at, constant)
            at = at + len(constant)
        if not bool((at == end).all()):
            raise NotSo
        side = found.get("side")
        instruments, code = _instruments(found["symbol"], found.get("venue"), venue)
        return Columns(
            instruments,
            code,
            found["ts_ns"].integers(),
            found["price"].decimals(),
            found["size"].decimals(),
            None if side is None else side.text.choose(side.start, side.width, _SIDES),
            _ids(found.get("trade_id")),
            found["count"].integers() if "count" in found else None,
            found["recv_ns"].integers() if "recv_ns" in found else None,
        )


@dataclass(frozen=True, slots=True)
class Cells:
    """One field of all records, as it is written."""

    text: Text
    start: Ints
    width: Ints
    quoted: bool

    def integers(self) -> Ints:
        """Digits without a sign."""
        return self.text.whole(self.start, self.width)

    def decimals(self) -> Ints:
        """Digits, perhaps with a point among them, in units of 1e-9."""
        text, start, width = self.text, self.start, self.width
        point = text.find(start, _POINT, width)
        fraction = width - point - 1  # -1 where there is no point
        if not bool(fraction.all()) or int(fraction.max()) > DIGITS:
            raise NotSo
        whole = text.whole(start, point)
        if int(whole.max()) > _MOST_WHOLE:
            raise NotSo
        fraction = np.maximum(fraction, 0)
        units: Ints = whole * 10**DIGITS + text.digits(start + width, fraction) * _POWERS[DIGITS - fraction]
        if int(units.min()) < 0:  # beyond 64 bits
            raise NotSo
        return units

    def distinct(self) -> tuple[list[str], Ints]:
        """The different texts, and which of them each cell is."""
        code, first = self.text.codes(self.start, self.width)
        return self._texts(self.start[first], self.width[first]), code

    def texts(self) -> list[str]:
        """Each of them."""
        return self._texts(self.start, self.width)

    def _texts(self, start: Ints, width: Ints) -> list[str]:
        data = self.text.data
        return [
            data[at:end].decode() for at, end in zip(start.tolist(), (start + width).tolist(), strict=True)
        ]


def _instruments(symbol: Cells, venue: Cells | None, own: str) -> tuple[list[Names], Ints]:
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


def _ids(cells: Cells | None) -> Ints | list[str] | None:
    if cells is None:
        return None
    return cells.texts() if cells.quoted else cells.integers()
