"""Instruments as rows of a compacted changelog.

A checkpoint writes what is new of all instruments together, in few rows, so that many instruments cost no more
than few. Instruments have numbers, and there are four kinds of rows:

    names|K   the names of instruments, 1,024 in a row
    open|N    instruments as they are: clocks and open windows; the last such row of an instrument holds
    past|N    what has become the past: closed windows and trade ids, written once
    (none)    the position of the partition, and which of the rows above count

Rows of the last two kinds are numbered upwards. New ones are written before the row without a name that counts
them, and old ones deleted after the one that counts them no more: wherever the writing is cut off, the last row
without a name and what it counts are a whole state, and all else is rubbish.

What is of use in the oldest rows is written again, a little at each checkpoint, before they are deleted: so the
state stays about as large as what is in it.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from schemas.codecs.spans import Ints
from streams.bars.book import Book
from streams.bars.packs import (
    Others,
    Texts,
    joined,
    no_marks,
    no_slots,
    no_windows,
    open_packs,
    past_packs,
    table,
)
from streams.bars.rows import VERSION, Mark, Names, Position, open_row, written_again
from streams.bars.types import BarSpec, feeders

if TYPE_CHECKING:
    from streams.bars.board import Board

#: The name of the row that holds the position of the partition.
POSITION: Final = ""
NAMES, OPEN, PAST = "names", "open", "past"

#: So many instruments have their names in a row.
BLOCK: Final = 1024

#: An instrument may be in so many rows of what is open, on average, before old ones are written again.
_COPIES: Final = 4
_FEW: Final = 64

#: Rows of what is open that there may be: each is written again once in so many checkpoints, also where few change.
_PACKS: Final = 1024

#: What is written again at a checkpoint: so many instruments at least, and as many as changed; and of the past of
#: those that have gone quiet so many windows and ids, and what one of them has.
_REWRITTEN: Final = 1024
_CARRIED: Final = 1 << 16

#: Windows and ids that may be in rows of the past, however few of them are of use.
_ROOM: Final = 1 << 19

_MOST: Final = 2**63 - 1
_LEAST: Final = -(2**63)

#: Columns of what is known of an instrument's rows: the last row of what is open that has it, the first of the
#: past that may, its watermark there, and the `floor_ns` with which it was restored.
OPEN_IN, PAST_FROM, WATERMARK, FLOOR, REMEMBERED = range(5)
_NEW: Final = (-1, _MOST, 0, 0, 0)

_encode = msgspec.msgpack.Encoder().encode


class PastRow(NamedTuple):
    """A row of the past."""

    number: int
    latest_ns: int
    """The highest watermark of the partition by then."""
    items: int
    """How many windows and ids are in it."""


class StateLog:
    """Which rows there are of a partition, and what a checkpoint adds to them."""

    def __init__(self, spec: BarSpec, books: Sequence[Book], log_id: str) -> None:
        """`books` are all instruments, by number; a live view."""
        self._spec = spec
        self._bar_types = [bar_type.name for bar_type, _ in feeders(spec.bar_types)]
        self._books = books
        self.log_id = log_id
        """Of the ticks."""
        # Of what closed, or counted, so long before an instrument's watermark nobody asks any more.
        self._useful_ns = max(spec.grace_ns + spec.revisable_ns, spec.replayable_ns)
        self.position = -1
        """The offset of the last record in the state."""
        self.latest_ns = 0
        """The highest watermark."""
        self.named = 0
        """So many instruments have their names in rows."""
        self.open: deque[tuple[int, int]] = deque()
        """The rows of what is open, each with how many instruments are in it."""
        self.past: deque[PastRow] = deque()
        """The rows of the past."""
        self._items = 0
        """How many windows and ids are in them."""
        self._leaving: tuple[int, int] | None = None
        """See `_to_leave`: until it is done, which takes several checkpoints where there is much to carry on."""
        self._room = _ROOM
        """So many windows and ids may be in rows of the past before all of them are written again."""
        self._row_of: float = 0
        """The part of a row of what is open that an instrument takes where many are written."""
        self.next = {OPEN: 0, PAST: 0}
        """The numbers of the next rows."""
        self.garbage: list[str] = []
        """Rows that do not count, and are to be deleted."""
        self._old: list[str] = []
        self.rows = np.empty((0, len(_NEW)), np.int64)
        """By instrument."""

    def save(self, changed: Iterable[Book], board: Board | None, position: int) -> dict[str, bytes | None]:
        """The rows to write, in this order; None deletes one. They contain all ticks up to this offset.

        `changed` are books that have something to be saved themselves, besides what the board has.
        """
        books = list(changed)
        touched = np.array([book.slot for book in books], np.int64)
        if board is not None:
            touched = np.union1d(touched, board.take_dirty())
        if not len(touched) and position == self.position and not self.garbage:
            return {}
        self.make_room(len(self._books))
        rows: dict[str, bytes | None] = {}
        self._save_names(rows)
        slots = np.union1d(touched, self._to_rewrite(touched))
        self._save_open(rows, slots, board)
        self._save_past(rows, books, slots, board)
        self.position = position
        old = self.garbage + self._useless()
        self.garbage = []
        rows[POSITION] = encoded(
            Position(position, self.log_id, self.named, self._counting(OPEN), self._counting(PAST))
        )
        return rows | dict.fromkeys(name for name in old if name not in rows)

    def remembered_ns(self, watermarks_ns: Ints) -> Ints:
        """The watermarks from which on ids are remembered; without `dedupe_ns`, from which on they could be."""
        if self._spec.dedupe_ns is None:
            return watermarks_ns
        return watermarks_ns - min(self._spec.dedupe_ns, _MOST)

    def make_room(self, instruments: int) -> None:
        """Know so many instruments."""
        more = instruments - len(self.rows)
        if more > 0:
            self.rows = np.concatenate((self.rows, np.tile(np.array(_NEW, np.int64), (max(more, BLOCK), 1))))

    def add_past(self, row: PastRow) -> None:
        """Enter the latest row of the past."""
        self.past.append(row)
        self._items += row.items

    def _save_names(self, rows: dict[str, bytes | None]) -> None:
        count = len(self._books)
        for first in range(self.named - self.named % BLOCK, count, BLOCK):
            some = self._books[first : first + BLOCK]
            if first + len(some) > self.named:
                names = Names([book.symbol for book in some], [book.venue for book in some])
                rows[f"{NAMES}|{first // BLOCK}"] = encoded(names)
        self.named = count

    def _save_open(self, rows: dict[str, bytes | None], slots: Ints, board: Board | None) -> None:
        """These instruments as they are, those that a board does not hold one by one."""
        if board is None:
            held, clocks, packed = np.zeros(len(slots), bool), table([], 3), no_windows()
        else:
            held, clocks, packed = board.open(slots)
        own, others = [], Others([], [])
        for slot in slots[~held].tolist():
            book = self._books[slot]
            own.append((slot, book.watermark_ns, book.horizon_ns))
            others.add(slot, [open_row(w) for w in book.windows.values() if w.says_something])
        clocks = np.concatenate((clocks, table(own, 3)))
        clocks = clocks[np.argsort(clocks[:, 0])]
        # What is forgotten remains so, whatever the next settings are.
        since_ns = clocks[:, 2] - min(self._spec.revisable_ns, _MOST), self.remembered_ns(clocks[:, 1])
        floors = np.maximum(self.rows[slots][:, [FLOOR, REMEMBERED]], np.column_stack(since_ns))
        self.rows[slots, WATERMARK] = clocks[:, 1]
        self.latest_ns = max(self.latest_ns, int(clocks[:, 1].max(initial=0)))
        whole, first = np.column_stack((clocks, floors)), self.next[OPEN]
        for some, pack in open_packs(self._bar_types, whole, packed, others):
            number = self.next[OPEN]
            self.next[OPEN] += 1
            self.rows[some, OPEN_IN] = number
            self.open.append((number, len(some)))
            rows[f"{OPEN}|{number}"] = encoded(pack)
        if len(slots) >= _REWRITTEN:
            self._row_of = (self.next[OPEN] - first) / len(slots)

    def _save_past(
        self, rows: dict[str, bytes | None], books: Sequence[Book], slots: Ints, board: Board | None
    ) -> None:
        """What is new of the past of these instruments, `books` among them; and what is carried on."""
        packed, marks = (no_windows(), no_marks()) if board is None else board.past(slots)
        own = _Own()
        for book in books:
            own.add(book)
            book.forget_ids(self._spec)
        carried = self._to_carry()
        own.carry(carried, self._spec, board)
        if board is not None and carried:
            packed = joined(packed, board.closed(np.array([book.slot for book in carried], np.int64)))
        marks = np.concatenate((marks, own.marks()))
        first = self.next[PAST]
        for pack in past_packs(self._bar_types, self.latest_ns, packed, own.windows, marks, own.texts):
            number = self.next[PAST]
            self.next[PAST] += 1
            self.add_past(PastRow(number, self.latest_ns, pack.items))
            rows[f"{PAST}|{number}"] = encoded(pack)
        if not self._room:
            self._room = max(_ROOM, _COPIES * self._items)
        self.rows[[book.slot for book in carried], PAST_FROM] = _MOST
        for some in (packed.rows[:, 0], marks[:, 0], own.windows.of, own.texts.of):
            self.rows[some, PAST_FROM] = np.minimum(self.rows[some, PAST_FROM], first)

    def _to_rewrite(self, touched: Ints) -> Ints:
        """Instruments in the oldest rows of what is open, where there are many rows, other than these."""
        kept, packs = sum(count for _, count in self.open), len(self.open)
        most = max(_PACKS, round(_COPIES * self._row_of * len(self._books)))
        chosen: list[Ints] = []
        left = max(_REWRITTEN, len(touched))
        for number, count in self.open:
            if left <= 0 or (kept <= _COPIES * len(self._books) + _FEW and packs <= most):
                break
            live = np.setdiff1d(np.flatnonzero(self.rows[:, OPEN_IN] == number), touched)[:left]
            chosen.append(live)
            left -= len(live)
            kept -= count
            packs -= 1
        return np.concatenate(chosen) if chosen else no_slots()

    def _to_carry(self) -> list[Book]:
        """Instruments to write all of the past of, so that the oldest rows of it need not be kept."""
        if self._leaving is None:
            self._leaving = self._to_leave()
        if self._leaving is None:
            return []
        last, until_ns = self._leaving
        staying = (self.rows[:, PAST_FROM] <= last) & (self.rows[:, WATERMARK] <= until_ns)
        chosen: list[Book] = []
        count = 0
        for slot in np.flatnonzero(staying).tolist():
            if count >= _CARRIED:
                return chosen  # the others at the next checkpoint
            book = self._books[slot]
            chosen.append(book)
            count += len(book.seen) + len(book.closed.entries) + 1
        while self.past and self.past[0].number <= last:
            row = self.past.popleft()
            self._items -= row.items
            self._old.append(f"{PAST}|{row.number}")
        self._leaving = None
        if until_ns == _MOST:
            self._room = 0  # until what is carried now is in rows, and counted
        return chosen

    def _to_leave(self) -> tuple[int, int] | None:
        """The last row of the past that is not to be kept, and the highest watermark of whom it is of use to."""
        old = list(takewhile(lambda row: row.latest_ns + 2 * self._useful_ns < self.latest_ns, self.past))
        if old:  # who is ahead needs nothing of them; who is not has gone quiet
            return old[-1].number, min(old[-1].latest_ns + self._useful_ns, _MOST - 1)
        if self._items > self._room:  # of instruments far behind others, for one
            return self.past[-1].number, _MOST
        return None

    def _useless(self) -> list[str]:
        """Rows that hold nothing of use any more."""
        old, self._old = self._old, []
        while self.open and not (self.rows[:, OPEN_IN] == self.open[0][0]).any():
            old.append(f"{OPEN}|{self.open.popleft()[0]}")
        return old

    def _counting(self, kind: str) -> tuple[int, int]:
        numbers = [number for number, *_ in islice(self.open if kind == OPEN else self.past, 1)]
        return (numbers or [self.next[kind]])[0], self.next[kind]


class _Own:
    """The past of books, from the books themselves."""

    def __init__(self) -> None:
        self.windows = Others([], [])
        self.texts = Texts([], [], [])
        self._pairs = array("q")
        self._slots: list[int] = []
        self._counts: list[int] = []
        self._more: list[tuple[int, int, int]] = []

    def add(self, book: Book) -> None:
        """What is new of this one: it counts as saved then."""
        if book.rows:
            self.windows.add(book.slot, book.rows)
            book.rows = []
        new = book.seen.unsaved()
        self._pairs += new.pairs
        self._slots.append(book.slot)
        self._counts.append(len(new.pairs) // 2)
        for trade_id, mark_ns in zip(new.others, new.others_ns, strict=True):
            if isinstance(trade_id, int) and _LEAST <= trade_id <= _MOST:
                self._more.append((book.slot, trade_id, mark_ns))
            else:
                self.texts.add(book.slot, trade_id, mark_ns)
        book.seen.save()

    def carry(self, books: Sequence[Book], spec: BarSpec, board: Board | None) -> None:
        """All of these that is still of use, and that a board does not have."""
        if board is not None:
            board.recall([book for book in books if book.held])
        for book in books:
            book.seen.unsave()
            book.forget_ids(spec)
            if book.closed.entries:
                book.forget_windows(spec)
            book.rows = list(map(written_again, book.closed.entries.values()))
            self.add(book)

    def marks(self) -> Ints:
        """The ids that are numbers, as `Mark`s."""
        slots = np.repeat(np.array(self._slots, np.int64), self._counts)
        pairs = np.array(self._pairs, np.int64).reshape(-1, 2)
        return np.concatenate((np.column_stack((slots, pairs)), table(self._more, len(Mark._fields))))


def encoded(row: msgspec.Struct) -> bytes:
    """A row with its version."""
    return _encode((VERSION, row))
