"""Windows of a `Table` that have ended: into what they feed, and into what can still be revised. Compiled.

Exactly, as `Book.close` does it one by one. Columns and parts are those of `merge`; who changes them touches this
file, too, as said there.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.codecs.spans import Ints
from schemas.compiled import INT, INTS, TABLE, VOID, compiled, part
from streams.bars.merge import (
    BOUGHT,
    CLOSE,
    CLOSED,
    CLOSED_NS,
    EARLIER,
    FIRST,
    FIRST_ID,
    HIGH,
    HORIZON,
    KEPT,
    LAST,
    LAST_ID_,
    LATEST,
    LOW,
    NEXT_END,
    OPEN,
    OPENED_NS,
    PUBLISHED,
    ROOM,
    SAVED,
    SOLD,
    START,
    STATUS,
    TEXT_ID,
    TRADES,
    TURNOVER,
    TURNOVER_LOW,
    VOLUME,
    add_turnover,
    link,
    search,
)

_MOST: Final = 2**63 - 1

#: What all open windows of an instrument may have together, to be merged into any others. With room for rounding.
_LARGE: Final = 2.0**61


@compiled(INT, INTS, INTS, TABLE, TABLE, INTS)
def ending(due: Ints, intervals_ns: Ints, rows: Ints, windows: Ints, large: Ints) -> int:
    """Count the open windows that have ended, of these instruments.

    `large` becomes 1 for each of which a number might not fit, if its windows were merged.
    """
    count = 0
    for i in range(len(due)):
        s = due[i]
        volume = trades = 0.0
        large[i] = 0
        for q in range(len(intervals_ns)):
            at = rows[s, LATEST + q]
            while at >= 0 and windows[at, STATUS] < CLOSED:
                volume += windows[at, VOLUME]
                trades += windows[at, TRADES]
                if windows[at, START] > _MOST - intervals_ns[-1]:
                    large[i] = 1
                if windows[at, START] <= rows[s, HORIZON] - intervals_ns[q]:
                    count += 1
                at = windows[at, EARLIER]
        if volume > _LARGE or trades > _LARGE:
            large[i] = 1
    return count


@part
def _feed(
    s: int,
    q: int,
    interval_ns: int,
    fed: int,
    rows: Ints,
    windows: Ints,
    free: Ints,
    left: int,
    moved: Ints,
) -> int:
    """Merge a window into the one of series `q` that it lies in; gives how many rows are free."""
    start = windows[fed, START] - windows[fed, START] % interval_ns
    at, later = search(s, q, start, rows, windows)
    if at < 0 or windows[at, START] != start:
        left -= 1
        new = free[left]
        windows[new] = windows[fed]
        windows[new, START] = start
        windows[new, EARLIER] = at
        windows[new, PUBLISHED] = 0
        link(s, q, later, new, rows, windows)
        first = last = True
        at = new
    else:
        first = windows[fed, OPENED_NS] < windows[at, OPENED_NS]
        last = windows[fed, CLOSED_NS] >= windows[at, CLOSED_NS]
        if last:
            windows[at, CLOSED_NS] = windows[fed, CLOSED_NS]
            windows[at, CLOSE] = windows[fed, CLOSE]
            windows[at, LAST_ID_] = windows[fed, LAST_ID_]
        if first:
            windows[at, OPENED_NS] = windows[fed, OPENED_NS]
            windows[at, OPEN] = windows[fed, OPEN]
            windows[at, FIRST_ID] = windows[fed, FIRST_ID]
        windows[at, HIGH] = max(windows[at, HIGH], windows[fed, HIGH])
        windows[at, LOW] = min(windows[at, LOW], windows[fed, LOW])
        windows[at, VOLUME] += windows[fed, VOLUME]
        windows[at, BOUGHT] += windows[fed, BOUGHT]
        windows[at, SOLD] += windows[fed, SOLD]
        windows[at, TRADES] += windows[fed, TRADES]
        add_turnover(windows, at, windows[fed, TURNOVER], windows[fed, TURNOVER_LOW])
        windows[at, FIRST] = min(windows[at, FIRST], windows[fed, FIRST])
        windows[at, LAST] = max(windows[at, LAST], windows[fed, LAST])
    for which, changed, trade_id in (0, first, windows[fed, FIRST_ID]), (1, last, windows[fed, LAST_ID_]):
        if changed and trade_id == TEXT_ID:
            moved[0, 0] += 1
            moved[moved[0, 0], 0] = which
            moved[moved[0, 0], 1] = at
            moved[moved[0, 0], 2] = fed
    return left


@compiled(INT, INTS, INTS, INTS, INT, TABLE, TABLE, INTS, INT, TABLE, TABLE)
def close(
    due: Ints,
    intervals_ns: Ints,
    feeders: Ints,
    keep: int,
    rows: Ints,
    windows: Ints,
    free: Ints,
    left: int,
    closed: Ints,
    moved: Ints,
) -> int:
    """Close the windows that have ended, of these instruments; gives how many rows of `windows` are free.

    `feeders` has, of each series, the one that it is made of, or -1. With `keep` they can be revised, and stay
    where they are; if not, their rows become free. `closed` begins with how many there are; then come, row by row,
    the slot, the series, and the window, with its number for `EARLIER`: the finer ones of an instrument first.
    `moved` begins with how many ids that are text became those of other windows; then come, in their order, whether
    it is the first (0) or the last (1) one, to which and from which.
    """
    count = 0
    moved[0, 0] = 0
    for s in due:
        horizon = rows[s, HORIZON]
        next_end = np.int64(_MOST)
        for q in range(len(intervals_ns)):
            at, later = rows[s, LATEST + q], -1
            while at >= 0 and windows[at, STATUS] < CLOSED and windows[at, START] + intervals_ns[q] > horizon:
                next_end = min(next_end, windows[at, START] + intervals_ns[q])
                at, later = windows[at, EARLIER], at
            if not keep:
                link(s, q, later, -1, rows, windows)
            while at >= 0 and windows[at, STATUS] < CLOSED:
                for f in range(q + 1, len(intervals_ns)):
                    if feeders[f] == q:
                        left = _feed(s, f, intervals_ns[f], at, rows, windows, free, left, moved)
                windows[at, STATUS] = CLOSED
                windows[at, PUBLISHED] = windows[at, TRADES]
                count += 1
                closed[count, 0] = s
                closed[count, 1] = q
                closed[count, 2:] = windows[at]
                closed[count, 2 + EARLIER] = at
                rows[s, KEPT] += keep
                at = windows[at, EARLIER]
        rows[s, NEXT_END] = next_end
    if not keep:
        for n in range(1, count + 1):
            free[left] = closed[n, 2 + EARLIER]
            left += 1
    closed[0, 0] = count
    return left


@compiled(INT, INTS, INTS, INT, INT, INT, TABLE, TABLE, INTS, INT)
def forget(
    due: Ints,
    intervals_ns: Ints,
    revisable_ns: int,
    unsaved: int,
    room: int,
    rows: Ints,
    windows: Ints,
    free: Ints,
    left: int,
) -> int:
    """Free closed windows that cannot be revised any more, of instruments that have many; how many rows are free.

    With `unsaved` also those that were not saved. An instrument has many again when what it keeps has doubled, and
    `room` come.
    """
    for s in due:
        if rows[s, KEPT] <= rows[s, ROOM]:
            continue
        earliest = rows[s, HORIZON] - revisable_ns
        for q in range(len(intervals_ns)):
            at, later = rows[s, LATEST + q], -1
            while at >= 0 and (
                windows[at, STATUS] < (CLOSED if unsaved else SAVED)
                or windows[at, START] + intervals_ns[q] > earliest
            ):
                at, later = windows[at, EARLIER], at
            link(s, q, later, -1, rows, windows)
            while at >= 0:
                rows[s, KEPT] -= 1
                free[left] = at
                left += 1
                at = windows[at, EARLIER]
        rows[s, ROOM] = 2 * rows[s, KEPT] + room
    return left


@compiled(INT, INT, INT, INT, TABLE, TABLE)
def unlink(s: int, q: int, start: int, rows: Ints, windows: Ints) -> int:
    """Take the closed window that begins there out of those of an instrument; its number, or -1."""
    at, later = search(s, q, start, rows, windows)
    if at < 0 or windows[at, START] != start or windows[at, STATUS] < CLOSED:
        return -1
    link(s, q, later, windows[at, EARLIER], rows, windows)
    rows[s, KEPT] -= 1
    return int(at)


@compiled(INT, INTS, INT, INT, TABLE, TABLE, INTS, TABLE)
def gather_windows(
    slots: Ints, series: int, until: int, rows: Ints, windows: Ints, bounds: Ints, found: Ints
) -> int:
    """Find the windows of these instruments whose status is below `until`; how many there are.

    Those of slot i are at `bounds[i]` to `bounds[i + 1]` of `found`: their numbers, and their series. Where it has
    no room they are counted, no more.
    """
    count = 0
    for i in range(len(slots)):
        bounds[i] = count
        for q in range(series):
            at = rows[slots[i], LATEST + q]
            while at >= 0 and windows[at, STATUS] < until:
                if count < found.shape[1]:
                    found[0, count] = at
                    found[1, count] = q
                count += 1
                at = windows[at, EARLIER]
    bounds[len(slots)] = count
    return count


@compiled(VOID, INTS, INT, TABLE, TABLE)
def set_saved(slots: Ints, series: int, rows: Ints, windows: Ints) -> None:
    """Note that all closed windows of these instruments are in rows of the state."""
    for s in slots:
        for q in range(series):
            at = rows[s, LATEST + q]
            while at >= 0 and windows[at, STATUS] < SAVED:
                if windows[at, STATUS] == CLOSED:
                    windows[at, STATUS] = SAVED
                at = windows[at, EARLIER]


@compiled(VOID, INT, INT, TABLE, TABLE)
def drop_open(s: int, series: int, rows: Ints, windows: Ints) -> None:
    """Let an instrument have no open windows."""
    for q in range(series):
        at = rows[s, LATEST + q]
        while at >= 0 and windows[at, STATUS] < CLOSED:
            at = windows[at, EARLIER]
        rows[s, LATEST + q] = at
