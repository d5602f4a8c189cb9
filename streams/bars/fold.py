"""Columns of ticks, sorted by instrument and folded into windows in one pass each. Compiled.

Exactly, as `Window.add` does it one by one: prices and sizes are 64-bit integers, and a turnover is added up in
128 bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.codecs.spans import Ints
from schemas.compiled import INT, INTS, TABLE, VOID, compiled

#: Rows of `summary`, a column for each instrument: the earliest and the latest tick, how far at most one is behind
#: one that came before it, the earliest receipt, and of how many the id is above all before it.
OLDEST, NEWEST, LAG, RECEIVED, RISING = range(5)
SUMMARY: Final = 5

#: Rows of `windows`, a column for each window. Open and close are told by the number of their tick, as its id is
#: asked for, too; a turnover by its higher and lower 64 bits.
CODE, START, OPENED, CLOSED, HIGH, LOW, VOLUME, TURNOVER, TURNOVER_LOW, BOUGHT, SOLD, TRADES, FIRST, LAST = (
    range(14)
)
WINDOW: Final = 14

#: Sums stay below this, so that none overflows.
_FITS: Final = 2**62
_MOST: Final = 2**63 - 1

#: Windows that are passed over to find that of a tick, on average: an ordered log has none.
_PATIENCE: Final = 64
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)


@compiled(VOID, INTS, INTS, INTS, INTS, INTS, INTS, INTS, TABLE)
def sort(
    code: Ints,
    ts_ns: Ints,
    ids: Ints,
    recv_ns: Ints,
    bounds: Ints,
    numbers: Ints,
    marks_ns: Ints,
    summary: Ints,
) -> None:
    """Sort ticks by instrument, those of each in order of arrival.

    Those of instrument c are at `bounds[c]` to `bounds[c + 1]` of `numbers`, which says which ticks they are, and
    of `marks_ns`, the latest instant until each of them. Ids and receipts may be empty.
    """
    bounds[:] = 0
    for c in code:
        bounds[c + 1] += 1
    for c in range(len(bounds) - 1):
        bounds[c + 1] += bounds[c]
    at = bounds[:-1].copy()
    tops = np.full(len(at), -1, np.int64)
    for number in range(len(code)):
        c = code[number]
        here = at[c]
        at[c] = here + 1
        numbers[here] = number
        ts = ts_ns[number]
        is_first = here == bounds[c]
        mark = ts if is_first else max(ts, marks_ns[here - 1])
        marks_ns[here] = mark
        if is_first:
            summary[OLDEST, c] = ts
            summary[LAG, c] = 0
            summary[RECEIVED, c] = _MOST
            summary[RISING, c] = 0
        summary[OLDEST, c] = min(summary[OLDEST, c], ts)
        summary[NEWEST, c] = mark
        summary[LAG, c] = max(summary[LAG, c], mark - ts)
        if len(recv_ns):
            summary[RECEIVED, c] = min(summary[RECEIVED, c], recv_ns[number])
        if len(ids) and ids[number] > tops[c]:
            tops[c] = ids[number]
            summary[RISING, c] += 1


@compiled(VOID, INTS, INTS, INTS, INTS, TABLE, INTS)
def sort_ids(ids: Ints, bounds: Ints, numbers: Ints, marks_ns: Ints, summary: Ints, pairs: Ints) -> None:
    """Sort ids, which are at least 0, into pairs with their marks; of each instrument those first that rise."""
    for c in range(len(bounds) - 1):
        top = -1
        up, down = bounds[c], bounds[c] + summary[RISING, c]
        for here in range(bounds[c], bounds[c + 1]):
            found = ids[numbers[here]]
            at = up
            if found > top:
                top = found
                up += 1
            else:
                at = down
                down += 1
            pairs[2 * at] = found
            pairs[2 * at + 1] = marks_ns[here]


@compiled(INT, INTS, INTS, INTS, INTS, INTS, INTS, INT, INTS, TABLE)
def fold(
    code: Ints,
    ts_ns: Ints,
    price: Ints,
    size: Ints,
    side: Ints,
    count: Ints,
    interval_ns: int,
    latest: Ints,
    windows: Ints,
) -> int:
    """Fold ticks into windows of that length; gives how many there are.

    It is -1 where a sum might not fit, or the ticks are in such disorder that to find their windows takes long.
    `latest` has a place for each instrument; sides and counts may be empty.
    """
    latest[:] = -1
    found = 0
    before = np.empty(len(code), np.int64)  # of a window, the next earlier one of its instrument
    patience = _PATIENCE * len(code)
    for number in range(len(code)):
        c, ts = code[number], ts_ns[number]
        start = ts - ts % interval_ns
        at, later = latest[c], -1
        while at >= 0 and windows[START, at] > start:
            at, later = before[at], at
            patience -= 1
        if patience < 0:
            return -1
        if at < 0 or windows[START, at] != start:
            if start > _MOST - interval_ns:
                return -1
            before[found] = at
            at = found
            found += 1
            if later < 0:
                latest[c] = at
            else:
                before[later] = at
            windows[:, at] = 0
            windows[CODE, at] = c
            windows[START, at] = start
            windows[OPENED, at] = windows[CLOSED, at] = windows[FIRST, at] = number
            windows[HIGH, at] = windows[LOW, at] = price[number]
        else:
            # Of equal times the first to come is the earlier one.
            if ts < ts_ns[windows[OPENED, at]]:
                windows[OPENED, at] = number
            if ts >= ts_ns[windows[CLOSED, at]]:
                windows[CLOSED, at] = number
            windows[HIGH, at] = max(windows[HIGH, at], price[number])
            windows[LOW, at] = min(windows[LOW, at], price[number])
        windows[LAST, at] = number
        trades = count[number] if len(count) else 1
        if size[number] > _FITS - windows[VOLUME, at] or trades > _FITS - windows[TRADES, at]:
            return -1
        windows[TRADES, at] += trades
        windows[VOLUME, at] += size[number]
        if len(side):
            if side[number] > 0:
                windows[BOUGHT, at] += size[number]
            elif side[number] < 0:
                windows[SOLD, at] += size[number]
        # Schoolbook multiplication in digits of 32 bits: neither factor has its highest bit set.
        p, s = np.uint64(price[number]), np.uint64(size[number])
        p_high, p_low, s_high, s_low = p >> _HALF, p & _LOW, s >> _HALF, s & _LOW
        middle = p_high * s_low + p_low * s_high
        low = p_low * s_low
        high = p_high * s_high + (middle >> _HALF)
        product = low + (middle << _HALF)
        if product < low:
            high += np.uint64(1)
        total = np.uint64(windows[TURNOVER_LOW, at]) + product
        if total < product:
            high += np.uint64(1)
        windows[TURNOVER_LOW, at] = np.int64(total)
        windows[TURNOVER, at] += np.int64(high)
    return found
