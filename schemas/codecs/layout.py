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

from schemas.codecs.roster import Roster, Texts
from schemas.codecs.scan import DECIMAL, DIGITS, INTEGER, SIDE, TEXT, scan
from schemas.codecs.spans import PAD, Ints, Spans, bytes_and_words
from schemas.errors import BadTick
from schemas.fixed import SCALE
from schemas.trade import Names

UNIT: Final = 10 ** (SCALE - DIGITS)
"""What those are in units of `schemas.fixed`."""

_PIECE = re.compile(rb"(\s*:\s*)([-0-9.eE]+)(\s*[,}]\s*)").fullmatch
_COLON = re.compile(rb"\s*:\s*").fullmatch
_TEXTS = frozenset({"symbol", "venue", "price", "size", "trade_id", "side"})
_NUMBERS = frozenset({"ts_ns", "price", "size", "trade_id", "recv_ns", "count"})
_KINDS = {"price": DECIMAL, "size": DECIMAL, "side": SIDE}
"""Those of the others are text where they are in quotes, and integers where not."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Trades in order of arrival. What is not given is None; nothing is checked but that it can be read."""

    instruments: list[Names]
    """Venue and symbol of all that the feed has named so far."""
    present: Ints
    """Which of them have trades here, in the order in which they come."""
    code: Ints
    """Which of these."""
    ts_ns: Ints
    price: Ints
    """In units of 1e-9, as sizes are."""
    size: Ints
    side: Ints | None
    trade_id: Ints | list[str] | None
    count: Ints | None
    recv_ns: Ints | None

    def names(self, chosen: Ints) -> list[Names]:
        """Venue and symbol of these trades."""
        return list(map(self.instruments.__getitem__, self.present[self.code[chosen]].tolist()))


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
            *bytes_and_words(b"".join((*self._constants, PAD))),
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

    def columns(self, records: Sequence[bytes | None], roster: Roster) -> Columns:
        """Read records, of which there is one at least. Raises NotSo, and nothing else."""
        spans = Spans.of(records)
        cells = Cells(spans.data, self._kinds, len(records))
        fitting = scan(*bytes_and_words(spans.data), spans.begins, spans.ends, *self._form, *cells.arrays)
        if fitting < len(records):
            raise NotSo
        try:
            present, code = roster.find(spans.data, cells.texts("venue"), cells.texts("symbol"))
            return Columns(
                roster.instruments,
                present,
                code,
                cells["ts_ns"],
                cells["price"],
                cells["size"],
                cells.get("side"),
                cells.ids("trade_id"),
                cells.get("count"),
                cells.get("recv_ns"),
            )
        except (UnicodeDecodeError, BadTick):
            raise NotSo from None


class Cells(Mapping[str, Ints]):
    """What `scan` makes of records: by field, the column of its values."""

    def __init__(self, data: bytes, kinds: dict[str, int], records: int) -> None:
        self._data = data
        self._kinds = kinds
        self._row = {field: row for row, field in enumerate(kinds)}
        self._values, self._starts, self._widths = np.empty((3, len(kinds), records), np.int64)

    @property
    def arrays(self) -> tuple[Ints, ...]:
        """What `scan` fills."""
        return self._values, self._starts, self._widths

    def __getitem__(self, field: str) -> Ints:
        column: Ints = self._values[self._row[field]]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def texts(self, field: str) -> Texts:
        """The texts of a field; where there is no such field, empty ones."""
        if field not in self:
            return Texts(*np.zeros((3, self._values.shape[1]), np.int64))
        row = self._row[field]
        return Texts(self._values[row], self._starts[row], self._widths[row])

    def ids(self, field: str) -> Ints | list[str] | None:
        """Ids, numbers or texts."""
        if self._kinds.get(field) != TEXT:
            return self.get(field)
        _, starts, widths = self.texts(field)
        places = zip(starts.tolist(), (starts + widths).tolist(), strict=True)
        return [self._data[at:end].decode() for at, end in places]
