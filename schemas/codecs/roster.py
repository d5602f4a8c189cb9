"""The instruments that a feed has named so far, each with a number, found by the bytes of their names. Compiled.

Names repeat in every batch: to make texts of them again, and to look those up, would cost more than to read all
the rest of a tick.
"""

from __future__ import annotations

from threading import Lock
from typing import Final, NamedTuple

import numpy as np

from schemas.checks import check_names
from schemas.codecs.scan import equal
from schemas.codecs.spans import PAD, Ints, Words, bytes_and_words
from schemas.compiled import INT, INTS, TABLE, VOID, WORDS, compiled
from schemas.trade import Names, instrument

#: Columns of `table`: the number of the instrument, -1 where the row is free; the hash of both names; and where the
#: texts of venue and symbol are. The others are never used: a row is a cache line.
_NUMBER, _KEY, _VENUE, _VENUE_WIDTH, _SYMBOL, _SYMBOL_WIDTH = range(6)
_ENTRY: Final = 8
_BATCHES: Final = 2**31 - 1
_AHEAD: Final = 12
_PRIME, _HALF, _LOW = np.uint64(1099511628211), np.uint64(32), np.int64(2**32 - 1)


class Texts(NamedTuple):
    """A column of names in one text: of each its hash, where it starts, and its width in bytes."""

    keys: Ints
    starts: Ints
    widths: Ints


@compiled(VOID, TABLE, TABLE)
def _insert(entries: Ints, table: Ints) -> None:
    """Enter rows into a table, which has a power of two of them, and free ones."""
    for entry in range(len(entries)):
        if entries[entry, _NUMBER] >= 0:
            key = np.uint64(entries[entry, _KEY])
            row = np.int64((key ^ (key >> _HALF)) & np.uint64(len(table) - 1))
            while table[row, _NUMBER] >= 0:
                row = (row + 1) & (len(table) - 1)
            table[row] = entries[entry]


@compiled(INT, WORDS, INTS, INTS, INTS, INTS, INTS, INTS, TABLE, WORDS, INT, INTS, INTS, INTS, INTS)
def _find(
    words: Words,
    venue_keys: Ints,
    venues: Ints,
    venue_widths: Ints,
    symbol_keys: Ints,
    symbols: Ints,
    symbol_widths: Ints,
    table: Ints,
    known: Words,
    batch: int,
    seen: Ints,
    present: Ints,
    code: Ints,
    unknown: Ints,
) -> int:
    """Number the instruments of a batch in the order in which they come; how many there are.

    `present` becomes their numbers among all, `code` of each record that among these. `unknown` begins with how
    many records are of instruments that are not in the table, and these follow; it has room for one number more.
    `seen` has by number the last batch, below 2**31, and in the lower half the number in it.
    """
    found = touched = 0
    unknown[0] = 0
    for record in range(len(symbols)):
        key = np.uint64(symbol_keys[record]) * _PRIME ^ np.uint64(venue_keys[record])
        code[record] = np.int64((key ^ (key >> _HALF)) & np.uint64(len(table) - 1))
    for record in range(len(symbols)):
        # Of many instruments no cache holds the table: its rows are fetched while those before are worked on.
        if record + _AHEAD < len(symbols):
            touched ^= table[code[record + _AHEAD], _NUMBER]
        key = np.uint64(symbol_keys[record]) * _PRIME ^ np.uint64(venue_keys[record])
        row = code[record]
        while table[row, _NUMBER] >= 0 and not (
            table[row, _KEY] == np.int64(key)
            and table[row, _SYMBOL_WIDTH] == symbol_widths[record]
            and table[row, _VENUE_WIDTH] == venue_widths[record]
            and equal(words, symbols[record], known, table[row, _SYMBOL], symbol_widths[record])
            and equal(words, venues[record], known, table[row, _VENUE], venue_widths[record])
        ):
            row = (row + 1) & (len(table) - 1)
        number = table[row, _NUMBER]
        if number < 0:
            unknown[0] += 1
            unknown[unknown[0]] = record
            continue
        if seen[number] >> 32 != batch:
            seen[number] = batch << 32 | found
            present[found] = number
            found += 1
        code[record] = seen[number] & _LOW
    unknown[-1] = touched  # or else nobody would ask for it, and the compiler leave it out
    return found


class Roster:
    """The instruments of one feed. From any thread."""

    def __init__(self, venue: str) -> None:
        """The venue is that of all of them; where it is empty, records name theirs."""
        self.instruments: list[Names] = []
        """By number; it only grows."""
        self._venue = venue
        self._numbers: dict[str, int] = {}
        self._texts = bytearray()
        self._known = bytes_and_words(PAD)[1]
        self._table = np.full((1, _ENTRY), -1, np.int64)
        self._count = 0
        self._seen = np.zeros(0, np.int64)
        self._batch = 0
        self._lock = Lock()

    def find(self, data: bytes, venues: Texts, symbols: Texts) -> tuple[Ints, Ints]:
        """The instruments of records, as they come, and which of these each record has.

        Raises UnicodeDecodeError where a name is no text, and BadTick where it is none that can be used.
        """
        words, count = bytes_and_words(data)[1], len(symbols.keys)
        present, code = np.empty((2, count), np.int64)
        unknown = np.empty(2 + count, np.int64)
        with self._lock:
            while True:
                self._batch += 1
                if self._batch > _BATCHES:
                    self._batch = 1
                    self._seen[:] = 0
                found = _find(
                    words,
                    *venues,
                    *symbols,
                    self._table,
                    self._known,
                    self._batch,
                    self._seen,
                    present,
                    code,
                    unknown,
                )
                if not unknown[0]:
                    return present[:found], code
                self._enter(data, venues, symbols, unknown[1 : 1 + unknown[0]])

    def _enter(self, data: bytes, venues: Texts, symbols: Texts, records: Ints) -> None:
        new: dict[tuple[bytes, bytes], int] = {}
        for record, *places in zip(
            records.tolist(),
            venues.starts[records].tolist(),
            venues.widths[records].tolist(),
            symbols.starts[records].tolist(),
            symbols.widths[records].tolist(),
            strict=True,
        ):
            venue, venue_width, symbol, symbol_width = places
            new.setdefault((data[venue : venue + venue_width], data[symbol : symbol + symbol_width]), record)
        texts = [(venue.decode(), symbol.decode()) for venue, symbol in new]
        names = [(self._venue or venue, symbol) for venue, symbol in texts]
        check_names(names)
        firsts = np.array(list(new.values()), np.int64)
        keys = symbols.keys[firsts].view(np.uint64) * _PRIME ^ venues.keys[firsts].view(np.uint64)
        found = []
        for (venue, symbol), key, its in zip(new, keys.view(np.int64).tolist(), names, strict=True):
            # Two spellings of one instrument have one number.
            number = self._numbers.setdefault(instrument(*its), len(self.instruments))
            if number == len(self.instruments):
                self.instruments.append(its)
            at = len(self._texts)
            self._texts += venue + symbol
            found.append((number, key, at, len(venue), at + len(venue), len(symbol), 0, 0))
        entries = np.array(found, np.int64)
        self._known = bytes_and_words(bytes(self._texts) + PAD)[1]
        self._count += len(entries)
        if len(self._table) < 2 * self._count:
            before = self._table
            self._table = np.full((4 << self._count.bit_length(), _ENTRY), -1, np.int64)
            _insert(before, self._table)
        _insert(entries, self._table)
        if len(self._seen) < len(self.instruments):
            self._seen = np.concatenate((self._seen, np.zeros(len(self._table), np.int64)))
