"""Reads many records of one layout in one pass over their bytes; see `layout` for what that is. Compiled.

A record is constants and values in turns. A constant must stand where it should, byte for byte, and a value ends
at the first byte of the constant after it, and must have exactly the form of its kind.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.codecs.spans import Bytes, Ints, Words
from schemas.compiled import BYTES, INT, INTS, TABLE, WORDS, compiled, part

#: Fraction digits of decimals, and so their unit.
DIGITS: Final = 9

#: Kinds of values. Of each record they become, in the row of their field in `values`:
INTEGER: Final = 0  # digits without a sign and without zeros in front: the number
DECIMAL: Final = 1  # the same, perhaps with a point and up to `DIGITS` digits after it: in units of 1e-9
SIDE: Final = 2  # buy or sell: 1 or -1
TEXT: Final = 3  # any text: a hash of it
#: Of texts `starts` and `widths` tell where they stand: a row for each field, a column for each record.

_MOST: Final = 2**63 - 1
_TENTH: Final = _MOST // 10
_ZERO, _POINT, _SPACE, _BACKSLASH = ord("0"), ord("."), ord(" "), ord("\\")
_SEED, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)  # of FNV-1a
_BUY, _SELL = (np.uint64(int.from_bytes(side, "little")) for side in (b"buy", b"sell"))
_THREE, _FOUR = np.uint64(2**24 - 1), np.uint64(2**32 - 1)


@part
def _number(data: Bytes, at: int, end: int, stop: int, digits: int) -> tuple[int, int]:
    """The number at a place, in units of 10**-digits, and where it ends; -1 where there is none that fits."""
    start, point, value = at, -1, 0
    while at < end and data[at] != stop:
        digit = int(data[at]) - _ZERO
        if 0 <= digit <= 9:
            if value >= _TENTH and (value > _TENTH or digit > _MOST % 10):
                return -1, at
            value = value * 10 + digit
        elif data[at] == _POINT and point < 0:
            point = at
        else:
            return -1, at
        at += 1
    whole_end, fraction = at, 0
    if point >= 0:
        whole_end, fraction = point, at - point - 1
        if fraction == 0 or fraction > digits:
            return -1, at
    if whole_end == start or (data[start] == _ZERO and whole_end - start > 1):
        return -1, at
    for _ in range(digits - fraction):
        if value > _TENTH:
            return -1, at
        value *= 10
    return value, at


@part
def equal(words: Words, at: int, others: Words, other_at: int, width: int) -> bool:
    """Whether so many bytes are the same in two texts."""
    for i in range(0, width, 8):
        different = words[at + i] ^ others[other_at + i]
        if width - i < 8:
            different <<= np.uint64(64 - 8 * (width - i))
        if different != 0:
            return False
    return True


@compiled(INT, BYTES, WORDS, INTS, INTS, BYTES, WORDS, INTS, INTS, TABLE, TABLE, TABLE)
def scan(
    data: Bytes,
    words: Words,
    begins: Ints,
    ends: Ints,
    constants: Bytes,
    constant_words: Words,
    constant_ends: Ints,
    kinds: Ints,
    values: Ints,
    starts: Ints,
    widths: Ints,
) -> int:
    """Read records that stand at these places; gives how many fit, up to the first that does not.

    There is a constant before each value and one after the last, each but the first with a byte at least. Words
    are the eight bytes from each byte on.
    """
    fields = len(kinds)
    for record in range(len(ends)):
        at, end = int(begins[record]), int(ends[record])
        if at < 0:  # without a value
            return record
        c = 0
        for field in range(fields + 1):
            until = int(constant_ends[field])
            width = until - c
            if end - at < width or not equal(words, at, constant_words, c, width):
                return record
            at += width
            c = until
            if field == fields:
                break
            kind, stop, start = kinds[field], constants[until], at
            if kind in (INTEGER, DECIMAL):
                value, at = _number(data, at, end, stop, DIGITS if kind == DECIMAL else 0)
                if value < 0:
                    return record
                values[field, record] = value
                continue
            key = _SEED
            while at < end and data[at] != stop:
                byte = data[at]
                if byte < _SPACE or byte == _BACKSLASH:  # is no text, or stands for something else
                    return record
                key = (key ^ np.uint64(byte)) * _PRIME
                at += 1
            width = at - start
            starts[field, record] = start
            widths[field, record] = width
            if kind == SIDE:
                if width == 3 and words[start] & _THREE == _BUY:
                    values[field, record] = 1
                elif width == 4 and words[start] & _FOUR == _SELL:
                    values[field, record] = -1
                else:
                    return record
            else:
                values[field, record] = np.int64(key)
        if at != end:
            return record
    return len(ends)
