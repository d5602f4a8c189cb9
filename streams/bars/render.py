"""The numbers of many bars as text, as `schemas.fixed.render` writes them one by one. Compiled.

Columns of windows are those of `merge`; who changes them touches this file, too. None of the numbers is negative.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.codecs.scan import DIGITS
from schemas.codecs.spans import Bytes, Ints
from schemas.compiled import BUFFER, INT, INTS, TABLE, compiled, part
from streams.bars.merge import (
    BOUGHT,
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    SOLD,
    TURNOVER,
    TURNOVER_LOW,
    VOLUME,
)

#: The texts of a bar, in this order, and the bytes that they have at most.
PRICES: Final = (OPEN, HIGH, LOW, CLOSE)
SUMS: Final = (VOLUME, BOUGHT, SOLD)
TEXTS: Final = len(PRICES) + len(SUMS) + 2
WIDTH: Final = 21 * (TEXTS - 2) + 2 * 41

_ZERO, _POINT = ord("0"), ord(".")
_ONE: Final = 10**DIGITS
_SQUARE: Final = np.uint64(10 ** (2 * DIGITS))
_UNIT: Final = np.uint64(10**DIGITS)


@part
def _divide(high: np.uint64, low: np.uint64, divisor: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A number of 128 bits by one below 2**63, where the quotient fits 64: it, and the remainder."""
    quotient = np.uint64(0)
    if high == 0:
        quotient = low // divisor
        return quotient, low - quotient * divisor
    rest = high
    for _ in range(64):  # bit by bit, as on paper
        rest = (rest << np.uint64(1)) | (low >> np.uint64(63))
        low <<= np.uint64(1)
        quotient <<= np.uint64(1)
        if rest >= divisor:
            rest -= divisor
            quotient |= np.uint64(1)
    return quotient, rest


@part
def _write(whole: np.uint64, fraction: np.uint64, digits: int, texts: Bytes, at: int) -> int:
    """Write a number, of which the fraction has so many digits, at a place; where it ends."""
    start = at
    while True:
        tenth = whole // np.uint64(10)
        texts[at] = np.uint8(_ZERO + np.int64(whole - tenth * np.uint64(10)))
        at += 1
        whole = tenth
        if whole == 0:
            break
    for n in range((at - start) // 2):
        texts[start + n], texts[at - 1 - n] = texts[at - 1 - n], texts[start + n]
    if fraction == 0:
        return at
    texts[at] = np.uint8(_POINT)
    at += 1
    end = at
    for n in range(digits - 1, -1, -1):
        tenth = fraction // np.uint64(10)
        digit = np.int64(fraction - tenth * np.uint64(10))
        texts[at + n] = np.uint8(_ZERO + digit)
        if digit and end == at:
            end = at + n + 1
        fraction = tenth
    return end


@compiled(INT, TABLE, BUFFER, INTS)
def render(windows: Ints, texts: Bytes, ends: Ints) -> int:
    """Write the texts of windows, side by side; gives how many bytes they have.

    Of each come `PRICES` and `SUMS`, then the turnover and the quotient of it and the volume, rounded to 18 digits,
    half to even: that is empty where the volume is 0, and the turnover where it is 10**36 or more. `ends` becomes
    where each ends.
    """
    at = n = 0
    for w in range(len(windows)):
        for column in PRICES + SUMS:
            value = np.uint64(windows[w, column])
            whole = value // _UNIT
            at = _write(whole, value - whole * _UNIT, DIGITS, texts, at)
            ends[n] = at
            n += 1
        high, low = np.uint64(windows[w, TURNOVER]), np.uint64(windows[w, TURNOVER_LOW])
        if high < _SQUARE:
            whole, fraction = _divide(high, low, _SQUARE)
            at = _write(whole, fraction, 2 * DIGITS, texts, at)
        ends[n] = at
        n += 1
        volume = np.uint64(windows[w, VOLUME])
        if volume > 0:
            units, rest = _divide(high, low, volume)
            # The rest, times 10**9: in 128 bits, as it is below 2**62.
            upper, lower = rest >> np.uint64(32), rest & np.uint64(2**32 - 1)
            upper, lower = upper * _UNIT, lower * _UNIT
            low = (upper << np.uint64(32)) + lower
            high = (upper >> np.uint64(32)) + np.uint64(1 if low < lower else 0)
            fine, rest = _divide(high, low, volume)
            # Not `2 * rest`: numba makes floats of an int and an unsigned one.
            if rest > volume - rest or (rest == volume - rest and fine & np.uint64(1)):
                fine += np.uint64(1)
            if fine == _UNIT:
                fine = np.uint64(0)
                units += np.uint64(1)
            whole = units // _UNIT
            at = _write(whole, (units - whole * _UNIT) * _UNIT + fine, 2 * DIGITS, texts, at)
        ends[n] = at
        n += 1
    return at
