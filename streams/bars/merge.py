"""What is open of many instruments, in tables: folded batches are merged into it. Compiled.

Exactly, as `Window.merge` does it one by one: no sum of a number below 2**62 and one up to there overflows, and a
turnover is added up in 128 bits. numba keeps what it has compiled by the file it is in: whoever changes the rows of
`fold` touches this file, too.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.codecs.spans import Ints
from schemas.compiled import INT, INTS, TABLE, VOID, compiled, part
from streams.bars import fold

#: Columns of `rows`, a row for each instrument; -1 is none. `HELD` is whether its clock and its open windows are
#: here. Instants are nanoseconds since the epoch. `LOGGED` is the entry of its last trade id in `log`, `OUTGROWN`
#: whether a number has become too large, `KEPT` how many closed windows there are, `ROOM` for how many there is
#: room. At `LATEST` and behind it, one for each series, is the number of its latest window in `windows`.
(
    HELD,
    WATERMARK,
    HORIZON,
    NEXT_END,
    LAST_ID,
    LOGGED,
    ACTIVE,
    ALARMED,
    DIRTY,
    OUTGROWN,
    KEPT,
    ROOM,
    LATEST,
) = range(13)

#: Columns of `windows`, a row for each window. `EARLIER` is the next earlier one of its instrument and series: open
#: ones come first, then those that have closed, then those that are, besides, in rows of the state; that is its
#: `STATUS`. `PUBLISHED` is `Window.published`. Of one without a trade the lowest price and the
#: first offset are above all others.
(
    START,
    EARLIER,
    OPENED_NS,
    CLOSED_NS,
    OPEN,
    HIGH,
    LOW,
    CLOSE,
    VOLUME,
    TURNOVER,
    TURNOVER_LOW,
    BOUGHT,
    SOLD,
    TRADES,
    FIRST_ID,
    LAST_ID_,
    FIRST,
    LAST,
    STATUS,
    PUBLISHED,
) = range(20)
WINDOW: Final = 20

#: Columns of `log`, a row for each trade id: as a `Mark` of the state has them, and the entry before of its
#: instrument.
SLOT, ID, MARK, BEFORE = range(4)

#: Of an entry that was taken out of the log, instead of the one before.
TAKEN: Final = -2

#: Of a window that is open, the status is 0.
CLOSED, SAVED = 1, 2

#: An id that is no number: there is none, or it is text.
NO_ID, TEXT_ID = -1, -2

#: What becomes of the ticks of an instrument: they count; they do where their ids are entered elsewhere; they are
#: judged one by one.
COUNT, ENTER, DOUBT = range(3)

#: Numbers below it are kept.
FITS: Final = 2**62


@compiled(VOID, INTS, TABLE, INTS, INTS, TABLE, INT, INT, INTS)
def judge(
    bounds: Ints,
    summary: Ints,
    pairs: Ints,
    slots: Ints,
    rows: Ints,
    grace_ns: int,
    max_future_ns: int,
    verdict: Ints,
) -> None:
    """Ask of all ticks of an instrument at once what `Judge.take` asks one by one; `pairs` may be empty."""
    for c in range(len(slots)):
        s = slots[c]
        if (
            s < 0
            or summary[fold.LAG, c] > grace_ns
            or summary[fold.OLDEST, c] < max(rows[s, HORIZON], rows[s, WATERMARK] - grace_ns)
            or summary[fold.NEWEST, c] - max_future_ns > summary[fold.RECEIVED, c]
        ):
            verdict[c] = DOUBT
        elif len(pairs) and (
            summary[fold.RISING, c] < bounds[c + 1] - bounds[c] or pairs[2 * bounds[c]] <= rows[s, LAST_ID]
        ):
            verdict[c] = ENTER
        else:
            verdict[c] = COUNT


@compiled(VOID, INTS, INTS, INTS, INT, INTS)
def doubt_ahead(code: Ints, ts_ns: Ints, stamps_ms: Ints, max_future_ns: int, verdict: Ints) -> None:
    """Doubt instruments with a tick that is dated so far ahead of the timestamp of its record."""
    for number in range(len(code)):
        # What is the same as to compare with `stamp * 1_000_000 + max_future_ns`, which may not fit.
        if stamps_ms[number] <= (ts_ns[number] - max_future_ns - 1) // 1_000_000:
            verdict[code[number]] = DOUBT


@part
def search(s: int, q: int, start: int, rows: Ints, windows: Ints) -> tuple[int, int]:
    """The latest window of a series that begins at `start` or before, and the one after it; -1 for none."""
    at, later = rows[s, LATEST + q], -1
    while at >= 0 and windows[at, START] > start:
        at, later = windows[at, EARLIER], at
    return at, later


@part
def link(s: int, q: int, later: int, at: int, rows: Ints, windows: Ints) -> None:
    """Let a window, or -1 for none, come before the one `later`, or be the latest where that is -1."""
    if later < 0:
        rows[s, LATEST + q] = at
    else:
        windows[later, EARLIER] = at


@part
def add_turnover(windows: Ints, at: int, high: int, low: int) -> None:
    """Add a number of 128 bits to that of a window."""
    total = np.uint64(windows[at, TURNOVER_LOW]) + np.uint64(low)
    windows[at, TURNOVER] += high + (1 if total < np.uint64(low) else 0)
    windows[at, TURNOVER_LOW] = np.int64(total)


@compiled(INT, TABLE, INTS, INTS, INTS, INTS, INT, INT, INTS, INTS, TABLE, TABLE, INTS, INT, TABLE)
def merge(
    folded: Ints,
    ts_ns: Ints,
    price: Ints,
    ids: Ints,
    offsets: Ints,
    interval_ns: int,
    series: int,
    slots: Ints,
    verdict: Ints,
    rows: Ints,
    windows: Ints,
    free: Ints,
    left: int,
    ends: Ints,
) -> int:
    """Merge what a batch has in windows of one series; gives how many rows of `windows` are still free.

    `ends` becomes, for each that was merged, where its open and its close are now those of the row: -1 elsewhere.
    """
    for j in range(folded.shape[1]):
        ends[0, j] = ends[1, j] = -1
        c = folded[fold.CODE, j]
        if verdict[c] == DOUBT:
            continue
        s = slots[c]
        start = folded[fold.START, j]
        at, later = search(s, series, start, rows, windows)
        opened, closed = folded[fold.OPENED, j], folded[fold.CLOSED, j]
        if at < 0 or windows[at, START] != start:
            left -= 1
            new = free[left]
            windows[new, :] = 0
            windows[new, START] = start
            windows[new, EARLIER] = at
            windows[new, OPENED_NS] = start + interval_ns
            windows[new, CLOSED_NS] = start
            windows[new, HIGH] = folded[fold.HIGH, j]
            windows[new, LOW] = folded[fold.LOW, j]
            windows[new, FIRST] = offsets[folded[fold.FIRST, j]]
            link(s, series, later, new, rows, windows)
            rows[s, NEXT_END] = min(rows[s, NEXT_END], start + interval_ns)
            at = new
        if ts_ns[closed] >= windows[at, CLOSED_NS]:
            windows[at, CLOSED_NS] = ts_ns[closed]
            windows[at, CLOSE] = price[closed]
            windows[at, LAST_ID_] = ids[closed] if len(ids) else -1
            ends[1, j] = at
        if ts_ns[opened] < windows[at, OPENED_NS]:
            windows[at, OPENED_NS] = ts_ns[opened]
            windows[at, OPEN] = price[opened]
            windows[at, FIRST_ID] = ids[opened] if len(ids) else -1
            ends[0, j] = at
        windows[at, HIGH] = max(windows[at, HIGH], folded[fold.HIGH, j])
        windows[at, LOW] = min(windows[at, LOW], folded[fold.LOW, j])
        windows[at, VOLUME] += folded[fold.VOLUME, j]
        windows[at, BOUGHT] += folded[fold.BOUGHT, j]
        windows[at, SOLD] += folded[fold.SOLD, j]
        windows[at, TRADES] += folded[fold.TRADES, j]
        add_turnover(windows, at, folded[fold.TURNOVER, j], folded[fold.TURNOVER_LOW, j])
        windows[at, LAST] = offsets[folded[fold.LAST, j]]
        if windows[at, VOLUME] >= FITS or windows[at, TRADES] >= FITS:
            rows[s, OUTGROWN] = 1
    return left


@compiled(INT, INTS, TABLE, INTS, INTS, INTS, TABLE, TABLE, INT, INT, INT, TABLE)
def settle(
    bounds: Ints,
    summary: Ints,
    pairs: Ints,
    slots: Ints,
    verdict: Ints,
    rows: Ints,
    log: Ints,
    logged: int,
    grace_ns: int,
    now_ns: int,
    found: Ints,
) -> int:
    """Move clocks on and enter ids, after `merge`; gives how many entries `log` has.

    `found` has in its rows the slots of instruments with windows that have ended, of those that became alarmed and
    that have outgrown the tables, each behind the number of them; and how many ticks count.
    """
    found[:, 0] = 0
    for c in range(len(slots)):
        if verdict[c] == DOUBT:
            continue
        s = slots[c]
        before = rows[s, WATERMARK]
        newest = summary[fold.NEWEST, c]
        if newest > before:
            rows[s, WATERMARK] = newest
            rows[s, HORIZON] = max(rows[s, HORIZON], newest - grace_ns)
        rows[s, ACTIVE] = now_ns
        found[3, 0] += bounds[c + 1] - bounds[c]
        if rows[s, HORIZON] >= rows[s, NEXT_END]:
            found[0, 0] += 1
            found[0, found[0, 0]] = s
        rows[s, DIRTY] = 1
        if not rows[s, ALARMED]:
            rows[s, ALARMED] = 1
            found[1, 0] += 1
            found[1, found[1, 0]] = s
        if rows[s, OUTGROWN]:
            rows[s, OUTGROWN] = 0
            found[2, 0] += 1
            found[2, found[2, 0]] = s
        if len(pairs) and verdict[c] == COUNT:
            for n in range(bounds[c], bounds[c + 1]):
                log[logged, SLOT] = s
                log[logged, ID] = pairs[2 * n]
                log[logged, MARK] = max(before, pairs[2 * n + 1])
                log[logged, BEFORE] = rows[s, LOGGED]
                rows[s, LOGGED] = logged
                logged += 1
            rows[s, LAST_ID] = pairs[2 * bounds[c + 1] - 2]
    return logged


@compiled(INT, INTS, TABLE, TABLE)
def count_ids(slots: Ints, rows: Ints, log: Ints) -> int:
    """How many ids were logged of these instruments."""
    count = 0
    for s in slots:
        at = rows[s, LOGGED]
        while at >= 0:
            count += 1
            at = log[at, BEFORE]
    return count


@compiled(VOID, INTS, TABLE, TABLE, INTS, INTS)
def gather_ids(slots: Ints, rows: Ints, log: Ints, bounds: Ints, pairs: Ints) -> None:
    """Take the ids of these instruments out of the log, with their marks: those of slot i from `bounds[i]` on."""
    count = 0
    for i in range(len(slots)):
        bounds[i] = count
        at = rows[slots[i], LOGGED]
        while at >= 0:
            count += 1
            at = log[at, BEFORE]
        here = count
        at = rows[slots[i], LOGGED]
        while at >= 0:
            here -= 1
            pairs[2 * here] = log[at, ID]
            pairs[2 * here + 1] = log[at, MARK]
            before = log[at, BEFORE]
            log[at, BEFORE] = TAKEN
            at = before
        rows[slots[i], LOGGED] = -1
    bounds[len(slots)] = count


@compiled(INT, TABLE, TABLE, INT, INT)
def compact(rows: Ints, log: Ints, logged: int, dedupe_ns: int) -> int:
    """Drop the entries of `log` that were taken out, or are of no use any more; gives how many are left."""
    rows[:, LOGGED] = -1
    left = 0
    for at in range(logged):
        s = log[at, SLOT]
        if log[at, BEFORE] == TAKEN or log[at, MARK] < rows[s, WATERMARK] - dedupe_ns:
            continue
        log[left, SLOT] = s
        log[left, ID] = log[at, ID]
        log[left, MARK] = log[at, MARK]
        log[left, BEFORE] = rows[s, LOGGED]
        rows[s, LOGGED] = left
        left += 1
    return left
