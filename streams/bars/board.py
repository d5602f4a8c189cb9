"""What most ticks need to know of their instruments, in tables that compiled functions work on.

A `Book` says all of its instrument, and of any number. But of thousands of instruments a batch has few ticks each,
and to look into the objects of a book for each of them costs more than all the rest: no cache holds them. So what
every tick needs, the clock, the open windows that ticks go into and the new trade ids, is taken over from the book
into a row of tables here, where the numbers fit, as long as all ticks of the instrument in a batch count and in
time. Whoever needs to know more has it given back first (`release`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Raw

from schemas.codecs.spans import Ints
from streams.bars import fold
from streams.bars import merge as m
from schemas.trade import Names
from streams.bars.book import NEVER, Book, Books, Series
from streams.bars.rows import open_row
from streams.bars.table import ROWS, Table, fits
from streams.bars.types import SECOND

if TYPE_CHECKING:
    from streams.bars.judge import Batch
    from streams.bars.sheet import Sheet
    from streams.bars.upkeep import Upkeep

_NONE: Final = np.empty(0, np.int64)
_MOST: Final = 2**63 - 1

#: So many trade ids may wait to be entered in their books.
_IDS: Final = 1 << 16


class Board:
    """The tables of one engine."""

    def __init__(self, upkeep: Upkeep, series: Sequence[Series], books: Books) -> None:
        """`books` are all there are."""
        self._all = books
        self._upkeep = upkeep
        self._spec = upkeep.spec
        self._series = series
        self._roots = [one for one in series if one.feeder is None]
        intervals_ns = [root.interval_ns for root in self._roots]
        self._intervals_ns = np.array(intervals_ns, np.int64)
        self._numbers = np.array([root.number for root in self._roots], np.int64)
        self._books: list[Book] = []
        """By slot, which is the number of their row."""
        self._instruments: list[Names] = []
        self._slots = np.empty(0, np.int64)
        """By the number of an instrument among those of the sheets; -1 where it is not known yet."""
        self._rows = np.empty((0, m.LATEST + len(self._roots)), np.int64)
        self._open = Table([root.name for root in self._roots], intervals_ns)
        self._log, self._recalled = np.empty((_IDS, 3), np.int64), np.empty(2 * _IDS, np.int64)
        """Trade ids, each with its mark and the entry before of its instrument; and room for `recall`."""
        self._logged = 0

    def take(self, batch: Batch, sheet: Sheet) -> list[int]:
        """Let a batch count, of instruments of which all ticks do; gives the numbers of the ticks of others."""
        slots = self._find(sheet, batch.intake.records.offsets[0])
        verdict = self._judge(batch, sheet, slots)
        self._enter(sheet, slots, verdict)
        self._merge(sheet, slots, verdict)
        self._settle(batch, sheet, slots, verdict)
        doubted = verdict == m.DOUBT
        if not doubted.any():
            return []
        numbers = sheet.numbers[np.repeat(doubted, np.diff(sheet.bounds))]
        return np.sort(numbers).tolist()  # type: ignore[no-any-return]

    def _find(self, sheet: Sheet, first: int) -> Ints:
        """The slots of a sheet's instruments, -1 of those that cannot be held; its first offset is `first`."""
        columns = sheet.columns
        if columns.instruments is not self._instruments:
            self._instruments, self._slots = columns.instruments, self._slots[:0]
        if len(self._slots) < len(columns.instruments):
            more = np.full(2 * len(columns.instruments) - len(self._slots), -1, np.int64)
            self._slots = np.concatenate((self._slots, more))
        slots = self._slots[columns.present]
        if len(slots) and slots.min() < 0:
            for number in columns.present[slots < 0].tolist():
                self._slots[number] = self._slot(self._all[columns.instruments[number]])
            slots = self._slots[columns.present]
        for code in np.flatnonzero(self._rows[slots, m.HELD] < 1).tolist():
            if not self._hold(self._books[slots[code]], first):
                slots[code] = -1
        return slots

    def _slot(self, book: Book) -> int:
        if book.slot < 0:
            book.slot = len(self._books)
            self._books.append(book)
            if book.slot == len(self._rows):
                more = np.full((len(self._rows) + ROWS, self._rows.shape[1]), -1, np.int64)
                self._rows = np.concatenate((self._rows, more))
        return book.slot

    def _judge(self, batch: Batch, sheet: Sheet, slots: Ints) -> Ints:
        verdict = np.empty(len(slots), np.int64)
        pairs, grace_ns = self._pairs(sheet), self._spec.grace_ns
        max_future_ns = min(self._spec.max_future_ns, m.FITS)
        m.judge(sheet.bounds, sheet.summary, pairs, slots, self._rows, grace_ns, max_future_ns, verdict)
        if sheet.newest_ns > batch.latest_ns:
            stamps_ms = np.array([stamp or 0 for stamp in batch.intake.records.timestamps], np.int64)
            m.doubt_ahead(sheet.columns.code, sheet.columns.ts_ns, stamps_ms, max_future_ns, verdict)
        return verdict

    def _enter(self, sheet: Sheet, slots: Ints, verdict: Ints) -> None:
        """Enter ids that cannot be told to be new by comparing them with one; who has an old one is doubted."""
        if self._spec.dedupe_ns is None:
            return
        codes = np.flatnonzero(verdict == m.ENTER if sheet.texts is None else verdict != m.DOUBT)
        if len(codes):
            entering = [self._books[slot] for slot in slots[codes].tolist()]
            self.recall(entering)
            verdict[codes] = np.where(sheet.enter(codes, entering), m.ENTER, m.DOUBT)
            self._rows[slots[codes], m.LAST_ID] = [book.seen.top for book in entering]

    def _merge(self, sheet: Sheet, slots: Ints, verdict: Ints) -> None:
        columns, windows = sheet.columns, self._open
        ids = columns.trade_id if isinstance(columns.trade_id, np.ndarray) else _NONE
        windows.make_room(sum(folded.shape[1] for folded in sheet.folded))
        for root, (series, folded) in enumerate(zip(self._roots, sheet.folded, strict=True)):
            ends = np.empty((2, folded.shape[1]), np.int64)
            windows.left = m.merge(
                folded,
                columns.ts_ns,
                columns.price,
                ids,
                sheet.offsets,
                series.interval_ns,
                root,
                slots,
                verdict,
                self._rows,
                windows.rows,
                windows.free,
                windows.left,
                ends,
            )
            if sheet.texts is not None:
                for which, ticks in enumerate((folded[fold.OPENED], folded[fold.CLOSED])):
                    changed = np.flatnonzero(ends[which] >= 0)
                    texts = [sheet.texts[tick] for tick in ticks[changed].tolist()]
                    windows.name(which, ends[which, changed], texts)

    def _settle(self, batch: Batch, sheet: Sheet, slots: Ints, verdict: Ints) -> None:
        self._make_room(len(sheet.numbers))
        found = np.empty((5, len(slots) + 1), np.int64)
        self._logged = m.settle(
            sheet.bounds,
            sheet.summary,
            self._pairs(sheet),
            slots,
            verdict,
            self._rows,
            self._log,
            self._logged,
            self._spec.grace_ns,
            batch.now_ns,
            found,
        )
        due, dirty, alarmed, outgrown = (row[1 : 1 + row[0]] for row in found[:4])
        counted = int(found[4, 0])
        batch.counts.ticks += counted
        batch.counts.accepted += counted
        upkeep, book_of = self._upkeep, self._books.__getitem__
        upkeep.changed.update(dict.fromkeys(map(book_of, dirty.tolist())))
        for book in map(book_of, alarmed.tolist()):
            upkeep.idle.set(book, batch.now_ns)
        if len(due):
            self._close(due, batch)
        for book in map(book_of, outgrown.tolist()):
            self.release(book)

    def _close(self, due: Ints, batch: Batch) -> None:
        """Take out the windows that have ended, into the books and what they feed."""
        windows = self._open
        closed = np.empty((1 + len(windows), 2 + m.WINDOW), np.int64)
        windows.left = m.close(
            due, self._intervals_ns, self._rows, windows.rows, windows.free, windows.left, closed
        )
        closed = closed[1 : 1 + closed[0, 0]]
        rows, lengths = closed[:, 2:], closed[:, 1]
        upkeep, roots, books = self._upkeep, self._roots, self._books
        made = windows.windows(rows, rows[:, m.EARLIER], lengths)
        for slot, root, window in zip(closed[:, 0].tolist(), lengths.tolist(), made, strict=True):
            book, series = books[slot], roots[root]
            for fed in series.feeds:
                book.window(fed, window.start_ns).merge(window)
            upkeep.keep(book, window.start_ns + series.number, window, batch.due)
        next_ends = []
        for slot, horizon_ns, next_end_ns in zip(
            due.tolist(), *self._rows[due][:, [m.HORIZON, m.NEXT_END]].T.tolist(), strict=True
        ):
            book = books[slot]
            book.horizon_ns = horizon_ns
            if horizon_ns >= book.next_end_ns:
                upkeep.close(book, batch.due)
            upkeep.forget(book)
            next_ends.append(min(next_end_ns, book.next_end_ns, _MOST))
        self._rows[due, m.NEXT_END] = next_ends

    def _hold(self, book: Book, first: int) -> bool:
        """Take a book over, where it can be. `first` is the first offset of the batch."""
        series = self._series
        roots = [(key, w) for key, w in book.windows.items() if series[key % SECOND].feeder is None]
        if first <= book.restored_offset or not all(fits(window) for _, window in roots):
            return False
        row = self._rows[book.slot]
        row[:] = -1
        row[m.WATERMARK] = book.watermark_ns
        row[m.HORIZON] = book.horizon_ns
        row[m.NEXT_END] = min(book.next_end_ns, _MOST)
        row[m.LAST_ID] = book.seen.top
        row[m.ACTIVE] = book.active_ns or 0
        row[m.ALARMED] = book.alarmed
        row[m.DIRTY] = row[m.OUTGROWN] = 0
        row[m.HELD] = book.held = True
        if roots:
            for key, window in sorted(roots):
                del book.windows[key]
                latest = m.LATEST + self._roots.index(series[key % SECOND])
                row[latest] = self._open.put(window, row[latest])
            book.ends = [key + series[key % SECOND].interval_ns for key in book.windows]
            heapify(book.ends)
            book.next_end_ns = book.ends[0] - book.ends[0] % SECOND if book.ends else NEVER
        return True

    def release(self, book: Book) -> None:
        """Give a book back all that was taken over."""
        self.recall([book])
        row = self._rows[book.slot]
        row[m.HELD] = book.held = False
        book.active_ns = int(row[m.ACTIVE])
        numbers, lengths, _ = self._windows_of([book])
        for root, window in zip(lengths.tolist(), self._open.read(numbers, lengths), strict=True):
            book.put(self._roots[root], window)
            for fed in self._roots[root].feeds:
                book.window(fed, window.start_ns)
        self._open.remove(numbers)
        row[m.LATEST :] = -1

    def release_all(self) -> None:
        """Give all books back."""
        for book in self._books:
            if book.held:
                self.release(book)

    def active_ns(self, book: Book) -> int:
        """When the last tick of a book that is held came."""
        return int(self._rows[book.slot, m.ACTIVE])

    def recall(self, books: Sequence[Book]) -> None:
        """Let books that are held know their clocks, and the ids of all that counted."""
        slots = np.array([book.slot for book in books], np.int64)
        bounds = np.empty(len(slots) + 1, np.int64)
        m.gather_ids(slots, self._rows, self._log, bounds, self._recalled)
        known = self._recalled.data.cast("B")
        at = (16 * bounds).tolist()
        clocks = self._rows[slots][:, [m.WATERMARK, m.HORIZON]].tolist()
        for n, (book, (watermark_ns, horizon_ns)) in enumerate(zip(books, clocks, strict=True)):
            book.watermark_ns, book.horizon_ns = watermark_ns, horizon_ns
            if at[n] < at[n + 1]:
                book.seen.append(known[at[n] : at[n + 1]])
            if not self._upkeep.keep_state:
                book.forget_ids(self._spec)

    def save(self, changed: Iterable[Book]) -> dict[Book, list[Raw]]:
        """Let those of these books that are held know all but their open windows; gives those as state rows."""
        books = [book for book in changed if book.held]
        self.recall(books)
        self._rows[:, m.DIRTY] = 0
        numbers, lengths, bounds = self._windows_of(books)
        rows = self._open.state_rows(numbers, self._numbers[lengths])
        if rows is None:
            rows = list(map(open_row, self._open.read(numbers, lengths)))
        return {book: rows[begin:end] for book, begin, end in zip(books, bounds, bounds[1:], strict=False)}

    def _windows_of(self, books: Sequence[Book]) -> tuple[Ints, Ints, list[int]]:
        """The rows of the open windows of books, their lengths, and where those of each book begin and end."""
        slots = np.array([book.slot for book in books], np.int64)
        bounds = np.empty(len(slots) + 1, np.int64)
        found = np.empty((2, 0), np.int64)
        for _ in range(2):
            count = m.gather_windows(slots, len(self._roots), self._rows, self._open.rows, bounds, found)
            if count > found.shape[1]:
                found = np.empty((2, count), np.int64)
        return found[0], found[1], bounds.tolist()

    def _pairs(self, sheet: Sheet) -> Ints:
        return _NONE if self._spec.dedupe_ns is None else sheet.pairs

    def _make_room(self, ids: int) -> None:
        if self._logged + ids > len(self._log):
            logged = np.flatnonzero(self._rows[: len(self._books), m.LOGGED] >= 0).tolist()
            self.recall([self._books[slot] for slot in logged])
            self._logged = 0
            if ids > len(self._log):
                self._log, self._recalled = np.empty((2 * ids, 3), np.int64), np.empty(4 * ids, np.int64)
