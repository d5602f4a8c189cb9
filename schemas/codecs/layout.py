"""Many JSON records at once, where all are laid out as the first one is.

A producer writes every tick the same way: the same keys in the same order, the same spaces. Cut at its quotes,
`{"symbol":"BTCUSDT","ts_ns":1723161255342000000,"price":"61837.63"}` is a row of pieces, of which some are the
same in every record and the others are values: `scan` reads them, all records in one call. A record is read here
only if it is what the JSON decoder would read, and if one is not, the batch is left to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.codecs.scan import DECIMAL, DIGITS, INTEGER, NAME, SIDE, TEXT, Bytes, Words, scan
from schemas.codecs.spans import PAD, Ints, Spans
from schemas.fixed import SCALE
from schemas.trade import Names, instrument

UNIT: Final = 10 ** (SCALE - DIGITS)
"""What those are in units of `schemas.fixed`."""

_PIECE = re.compile(rb"(\s*:\s*)([-0-9.eE]+)(\s*[,}]\s*)").fullmatch
_COLON = re.compile(rb"\s*:\s*").fullmatch
_TEXTS = frozenset({"symbol", "venue", "price", "size", "trade_id", "side"})
_NUMBERS = frozenset({"ts_ns", "price", "size", "trade_id", "recv_ns", "count"})
_KINDS = {"symbol": NAME, "venue": NAME, "price": DECIMAL, "size": DECIMAL, "side": SIDE}
"""Those of the other fields are integers, and that of an id in quotes is text."""


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
        self._kinds = {
            field: _KINDS.get(field, TEXT if after[:1] == b'"' else INTEGER)
            for field, after in zip(self._fields, self._constants[1:], strict=True)
        }
        self._form: tuple[Any, ...] = (  # of `scan`, as far as it is always the same
            *_bytes_and_words(b"".join((*self._constants, PAD))),
            np.cumsum([len(constant) for constant in self._constants]),
            np.array(list(self._kinds.values()), np.int64),
        )

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
        spans = Spans.of(records)
        cells = Cells(spans.data, self._kinds, len(records))
        fitting = scan(*_bytes_and_words(spans.data), spans.begins, spans.ends, *self._form, *cells.arrays)
        if fitting < len(records):
            raise NotSo
        try:
            instruments, code = _instruments(cells, venue)
            return Columns(
                instruments,
                code,
                cells["ts_ns"],
                cells["price"],
                cells["size"],
                cells.get("side"),
                cells.ids("trade_id"),
                cells.get("count"),
                cells.get("recv_ns"),
            )
        except UnicodeDecodeError:
            raise NotSo from None


class Cells(Mapping[str, Ints]):
    """What `scan` makes of records: by field, the column of its values."""

    def __init__(self, data: bytes, kinds: dict[str, int], records: int) -> None:
        self._data = data
        self._kinds = kinds
        self._row = {field: row for row, field in enumerate(kinds)}
        self._values, self._starts, self._widths, self._firsts = np.empty((4, len(kinds), records), np.int64)
        self._names = np.zeros(len(kinds), np.int64)

    @property
    def arrays(self) -> tuple[Ints, ...]:
        """What `scan` fills."""
        return self._values, self._starts, self._widths, self._firsts, self._names

    def __getitem__(self, field: str) -> Ints:
        column: Ints = self._values[self._row[field]]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def names(self, field: str) -> list[str]:
        """The names that the values of such a field stand for."""
        row = self._row[field]
        return self._texts(row, self._firsts[row, : self._names[row]])

    def ids(self, field: str) -> Ints | list[str] | None:
        """Ids, numbers or texts."""
        if self._kinds.get(field) == TEXT:
            return self._texts(self._row[field], slice(None))
        return self.get(field)

    def _texts(self, row: int, chosen: Ints | slice) -> list[str]:
        starts = self._starts[row, chosen]
        ends = starts + self._widths[row, chosen]
        return [self._data[at:end].decode() for at, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _instruments(cells: Cells, own: str) -> tuple[list[Names], Ints]:
    symbols, symbol_codes = cells.names("symbol"), cells["symbol"]
    if "venue" not in cells:
        return [(own, text) for text in symbols], symbol_codes
    venues = cells.names("venue")  # which must be text, though it does not count beside our own
    if own or len(venues) == 1:
        return [(own or venues[0], text) for text in symbols], symbol_codes
    pairs, codes = np.unique(cells["venue"] * len(symbols) + symbol_codes, return_inverse=True)
    found = [(venues[v], symbols[s]) for v, s in (divmod(pair, len(symbols)) for pair in pairs.tolist())]
    if len({instrument(*names) for names in found}) < len(found):
        raise NotSo  # two spellings of one instrument
    return found, codes


def _bytes_and_words(data: bytes) -> tuple[Bytes, Words]:
    """Of a text with `PAD` at its end: its bytes, and the eight from each of them on as one integer."""
    return np.frombuffer(data, np.uint8), np.ndarray((len(data) - len(PAD) + 1,), "<u8", data, 0, (1,))
