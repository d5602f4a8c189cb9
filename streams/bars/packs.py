"""Windows, clocks and trade ids of many instruments on their way into rows of the state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from msgspec import Raw

from schemas.codecs.spans import Ints
from streams.bars.rows import FIRST_ID, LAST_ID, TEXT_ID, WIDTH, Clock, Mark, Open, Past, Windows, to_bytes

#: What a row has at most, well below Kafka's 1 MB also where ids are as long as they may be: bytes of what is
#: open, but for the windows of one instrument, which stay together; and of the past so many of each kind, fewer
#: where any id is text.
_OPEN_BYTES: Final = 1 << 18
_PAST_ITEMS: Final = 512
_PAST_TEXTS: Final = 128
_PAST_IDS: Final = 1 << 12

_WINDOW_BYTES: Final = 8 * WIDTH
_IDS_BYTES: Final = 1100


class Packed(NamedTuple):
    """Windows as `Windows` has them."""

    rows: Ints
    """Of `WIDTH` numbers each."""
    first_ids: list[str]
    last_ids: list[str]


class Others(NamedTuple):
    """Windows that cannot be packed, and one by one their instruments."""

    of: list[int]
    rows: list[Raw]

    def add(self, slot: int, rows: Sequence[Raw]) -> None:
        """Of one instrument."""
        self.of.extend([slot] * len(rows))
        self.rows.extend(rows)


class Texts(NamedTuple):
    """Trade ids that are no 64-bit numbers; one by one their instruments, and the watermarks when they counted."""

    of: list[int]
    ids: list[str | int]
    marks_ns: list[int]

    def add(self, slot: int, trade_id: str | int, mark_ns: int) -> None:
        """One of an instrument."""
        self.of.append(slot)
        self.ids.append(trade_id)
        self.marks_ns.append(mark_ns)


def table(rows: Sequence[Sequence[int]], width: int) -> Ints:
    """Rows of so many numbers; there may be none."""
    return np.array(rows, np.int64).reshape(-1, width)


def joined(first: Packed, second: Packed) -> Packed:
    """The ones behind the others."""
    rows = np.concatenate((first.rows, second.rows))
    return Packed(rows, first.first_ids + second.first_ids, first.last_ids + second.last_ids)


def no_slots() -> Ints:
    """None."""
    return np.empty(0, np.int64)


def no_windows() -> Packed:
    """None."""
    return Packed(np.empty((0, WIDTH), np.int64), [], [])


def no_marks() -> Ints:
    """None."""
    return np.empty((0, len(Mark._fields)), np.int64)


def open_packs(
    bar_types: list[str], clocks: Ints, packed: Packed, others: Others
) -> Iterator[tuple[Ints, Open]]:
    """Rows of instruments as they are, each with the instruments in it; all are given in order of instruments.

    `clocks` has `Clock`s.
    """
    instruments = clocks[:, 0]
    sizes = np.full(len(clocks), 8 * len(Clock._fields))
    window_bytes = _WINDOW_BYTES + (_IDS_BYTES if packed.first_ids or packed.last_ids else 0)
    np.add.at(sizes, np.searchsorted(instruments, packed.rows[:, 0]), window_bytes)
    np.add.at(
        sizes,
        np.searchsorted(instruments, np.array(others.of, np.int64)),
        np.array([len(memoryview(row)) for row in others.rows], np.int64),
    )
    pack_of = (np.cumsum(sizes) - sizes) // _OPEN_BYTES
    bounds = [*np.flatnonzero(np.diff(pack_of, prepend=-1)).tolist(), len(clocks)]
    cut = _Cut(bar_types, packed, others)
    for begin, end in pairwise(bounds):
        its = clocks[begin:end]
        until = int(its[-1, 0]) + 1
        windows = cut.windows(
            int(np.searchsorted(packed.rows[:, 0], until)), int(np.searchsorted(others.of, until))
        )
        yield its[:, 0], Open(to_bytes(its), windows)


def past_packs(
    bar_types: list[str], latest_ns: int, packed: Packed, others: Others, marks: Ints, texts: Texts
) -> Iterator[Past]:
    """Rows of what is past, in this order; `latest_ns` is the highest watermark."""
    cut = _Cut(bar_types, packed, others)
    most = max(len(packed.rows), len(others.rows), len(texts.ids))
    items = _PAST_TEXTS if packed.first_ids or packed.last_ids or others.rows or texts.ids else _PAST_ITEMS
    for number in range(max(-(-most // items), -(-len(marks) // _PAST_IDS))):
        some = slice(number * items, (number + 1) * items)
        ids = marks[number * _PAST_IDS : (number + 1) * _PAST_IDS]
        windows = cut.windows(some.stop, some.stop)
        yield Past(latest_ns, windows, to_bytes(ids), texts.of[some], texts.ids[some], texts.marks_ns[some])


class _Cut:
    """Windows, from the first on."""

    def __init__(self, bar_types: list[str], packed: Packed, others: Others) -> None:
        self._bar_types = bar_types
        self._packed = packed
        self._others = others
        self._at = self._others_at = 0
        self._ids_at = [0, 0]

    def windows(self, until: int, others_until: int) -> Windows:
        """Those that come next, until these."""
        rows = self._packed.rows[self._at : until]
        others = slice(self._others_at, others_until)
        self._at, self._others_at = until, others_until
        return Windows(
            self._bar_types,
            to_bytes(rows),
            self._ids(0, rows[:, FIRST_ID], self._packed.first_ids),
            self._ids(1, rows[:, LAST_ID], self._packed.last_ids),
            self._others.of[others],
            self._others.rows[others],
        )

    def _ids(self, which: int, column: Ints, texts: list[str]) -> list[str]:
        at = self._ids_at[which]
        if texts:
            self._ids_at[which] += int(np.count_nonzero(column == TEXT_ID))
        return texts[at : self._ids_at[which]]
