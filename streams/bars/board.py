"""What most ticks need to know of their instruments, in tables that compiled functions work on.

A `Book` says all of its instrument, and of any number. But of thousands of instruments a batch has few ticks each,
and to look into the objects of a book for each of them costs more than all the rest: no cache holds them. So what
every tick needs, the clock, the open windows that ticks go into and the new trade ids, is taken over from the book
into a row of tables here, where the numbers fit, as long as all ticks of the instrument in a batch count and in
time. Whoever needs to know more has it given back first (`release`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from schemas.codecs.spans import Ints
from schemas.trade import Names
from streams.bars import closing, fold
from streams.bars import merge as m
from streams.bars.book import NEVER, Book, Books, Series
from streams.bars.packs import Packed, no_windows
from streams.bars.rows import written_again
from streams.bars.table import ROWS, Table, fits

if TYPE_CHECKING:
    from streams.bars.judge import Batch
    from streams.bars.sheet import Sheet
    from streams.bars.upkeep import Upkeep

_NONE: Final = np.empty(0, np.int64)
_MOST: Final = 2**63 - 1

#: So many trade ids may wait to be entered in their books.
_IDS: Final = 1 << 16
_FEW_IDS: Final = 16

#: Of an instrument so many closed windows may be kept that are of no use any more.
_ROOM: Final = 32


class Board:
    """The tables of one engine."""

    def __init__(
        self, upkeep: Upkeep, series: Sequence[Series], books: Books, topic: str, partition: int
    ) -> None:
        """`books` are all there are; topic and partition are those that bars say they are of."""
        self._upkeep = upkeep
        self._spec = upkeep.spec
        self._series = series
        self._roots = [one for one in series if one.feeder is None]
        self._all = books
        self._origin = topic, partition
        self._intervals_ns = np.array([one.interval_ns for one in series], np.int64)
        feeders = [-1 if one.feeder is None else one.feeder.number for one in series]
        self._feeders = np.array(feeders, np.int64)
        self._books = books.numbered
        """By slot, which is the number of their row."""
        self._instruments: list[Names] = []
        self._slots = np.empty(0, np.int64)
        """By the number of an instrument among those of the sheets; -1 where it is not known yet."""
        self._new = np.full(m.LATEST + len(series), -1, np.int64)
        """The row of an instrument that is held, and of which nothing is known."""
        self._new[[m.HELD, m.WATERMARK, m.HORIZON, m.NEXT_END]] = True, 0, 0, _MOST
        self._new[[m.ACTIVE, m.ALARMED, m.DIRTY, m.OUTGROWN, m.KEPT, m.ROOM]] = (
            0,
            False,
            False,
            False,
            0,
            _ROOM,
        )
        self._rows = np.empty((0, len(self._new)), np.int64)
        self._names = np.empty((0, 3), object)
        """By slot, name, symbol and venue of an instrument: what bars say of it."""
        self._named = 0
        self._windows = Table(series)
        self._log = np.empty((_IDS, 4), np.int64)
        """Trade ids, each with its mark and the entry before of its instrument."""
        self._logged = self._saved = 0
        """So many entries there are, and so many of them are saved."""
        self._unsaved: list[Ints] = []
        """Of entries that are gone: `Mark`s that are not saved yet."""
        self._remembering: dict[Book, None] = {}
        """Those that are held, and had closed windows themselves."""

    def take(self, batch: Batch, sheet: Sheet) -> list[int]:
        """Let a batch count, of instruments of which all ticks do; gives the numbers of the ticks of others."""
        slots = self._find(sheet)
        verdict = self._judge(batch, sheet, slots)
        self._enter(sheet, slots, verdict)
        self._merge(sheet, slots, verdict)
        self._settle(batch, sheet, slots, verdict)
        doubted = verdict == m.DOUBT
        if not doubted.any():
            return []
        numbers = sheet.numbers[np.repeat(doubted, np.diff(sheet.bounds))]
        return np.sort(numbers).tolist()  # type: ignore[no-any-return]

    def _find(self, sheet: Sheet) -> Ints:
        """The slots of a sheet's instruments, -1 of those that cannot be held."""
        columns = sheet.columns
        if columns.instruments is not self._instruments:
            self._instruments, self._slots = columns.instruments, self._slots[:0]
        if len(self._slots) < len(columns.instruments):
            more = np.full(2 * len(columns.instruments) - len(self._slots), -1, np.int64)
            self._slots = np.concatenate((self._slots, more))
        slots = self._slots[columns.present]
        known = len(self._books)
        if len(slots) and slots.min() < 0:
            for number in columns.present[slots < 0].tolist():
                self._slots[number] = self._all[columns.instruments[number]].slot
            slots = self._slots[columns.present]
        self._make_rows()
        for book in self._books[known:]:
            book.held = True
        self._rows[known : len(self._books), m.HELD] = True
        self._make_names()
        for code in np.flatnonzero(self._rows[slots, m.HELD] < 1).tolist():
            if not self._hold(self._books[slots[code]]):
                slots[code] = -1
        return slots

    def _make_rows(self) -> None:
        known = len(self._rows)
        if known < len(self._books):
            more = np.tile(self._new, (max(ROWS, known, len(self._books) - known), 1))
            more[:, m.HELD] = False
            self._rows = np.concatenate((self._rows, more))

    def _make_names(self) -> None:
        if self._named < len(self._books):
            if len(self._names) < len(self._rows):
                more = np.empty((len(self._rows) - len(self._names), 3), object)
                self._names = np.concatenate((self._names, more))
            new = [(book.name, book.symbol, book.venue) for book in self._books[self._named :]]
            self._names[self._named : len(self._books)] = new
            self._named = len(self._books)

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
            self._upkeep.changed.update(dict.fromkeys(entering))

    def _merge(self, sheet: Sheet, slots: Ints, verdict: Ints) -> None:
        columns, windows = sheet.columns, self._windows
        ids = columns.trade_id if isinstance(columns.trade_id, np.ndarray) else _NONE
        windows.make_room(sum(folded.shape[1] for folded in sheet.folded))
        for series, folded in zip(self._roots, sheet.folded, strict=True):
            ends = np.empty((2, folded.shape[1]), np.int64)
            windows.left = m.merge(
                folded,
                columns.ts_ns,
                columns.price,
                ids,
                sheet.offsets,
                series.interval_ns,
                series.number,
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
        found = np.empty((4, len(slots) + 1), np.int64)
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
        due, alarmed, outgrown = (row[1 : 1 + row[0]] for row in found[:3])
        counted = int(found[3, 0])
        batch.counts.ticks += counted
        batch.counts.accepted += counted
        upkeep, book_of = self._upkeep, self._books.__getitem__
        for book in map(book_of, alarmed.tolist()):
            upkeep.idle.set(book, batch.now_ns)
        if len(due):
            self._close(due, batch)
        for book in map(book_of, outgrown.tolist()):
            if book.held:
                self.release(book)

    def _close(self, due: Ints, batch: Batch) -> None:
        """Close the windows that have ended."""
        windows, large = self._windows, np.empty(len(due), np.int64)
        most = closing.ending(due, self._intervals_ns, self._rows, windows.rows, large) * len(self._series)
        for slot in due[large == 1].tolist():
            book = self._books[slot]
            self.release(book)
            self._upkeep.close(book, batch.due)
        due = due[large == 0]
        windows.make_room(most)
        closed, moved = np.empty((1 + most, 2 + m.WINDOW), np.int64), np.empty((1 + 2 * most, 3), np.int64)
        windows.left = closing.close(
            due,
            self._intervals_ns,
            self._feeders,
            self._upkeep.retaining,
            self._rows,
            windows.rows,
            windows.free,
            windows.left,
            closed,
            moved,
        )
        windows.move(moved[1 : 1 + moved[0, 0]])
        closed = closed[1 : 1 + closed[0, 0]]
        interval_ns = self._intervals_ns[closed[:, 1]]
        closed = closed[np.argsort(closed[:, 2 + m.START] + interval_ns, kind="stable")]
        names = self._names[closed[:, 0]].T.tolist()
        batch.bars += windows.bars(closed[:, 2:].copy(), closed[:, 1], names, *self._origin)
        if self._upkeep.retaining:
            windows.left = closing.forget(
                due,
                self._intervals_ns,
                min(self._spec.revisable_ns, _MOST),
                not self._upkeep.keep_rows,
                _ROOM,
                self._rows,
                windows.rows,
                windows.free,
                windows.left,
            )

    def _hold(self, book: Book) -> bool:
        """Take a book over, where it can be."""
        found = [
            (series, w) for series, w in book.open_windows() if series.feeder is None or w.says_something
        ]
        if not all(fits(window) for _, window in found):
            return False
        row = self._rows[book.slot]
        row[m.WATERMARK] = book.watermark_ns
        row[m.HORIZON] = book.horizon_ns
        row[m.NEXT_END] = min((w.end_ns for _, w in found), default=_MOST)
        row[m.LAST_ID] = book.seen.top
        row[m.ACTIVE] = book.active_ns or 0
        row[m.ALARMED] = book.alarmed
        row[m.DIRTY] = row[m.OUTGROWN] = 0
        row[m.HELD] = book.held = True
        for series, window in found:
            latest = m.LATEST + series.number
            row[latest] = self._windows.put(window, row[latest])
        book.windows.clear()
        book.ends.clear()
        book.next_end_ns = NEVER
        if book.closed.entries:
            self._remembering[book] = None
        return True

    def release(self, book: Book) -> None:
        """Give a book back all that was taken over, but for the closed windows."""
        self.recall([book])
        row = self._rows[book.slot]
        row[m.HELD] = book.held = False
        if row[m.DIRTY]:
            row[m.DIRTY] = False
            self._upkeep.changed[book] = None
        book.active_ns = int(row[m.ACTIVE])
        numbers, series, _ = self._find_windows(np.array([book.slot], np.int64), m.CLOSED)
        closing.drop_open(book.slot, len(self._series), self._rows, self._windows.rows)
        found = [
            (self._series[number], window)
            for number, window in zip(series.tolist(), self._windows.read(numbers, series), strict=True)
        ]
        for one, window in found:
            book.put(one, window)
        for one, window in found:
            for fed in one.feeds:
                book.window(fed, window.start_ns)
        self._windows.remove(numbers)

    def give_back_closed(self, book: Book, ts_ns: int) -> None:
        """Give a book back the closed windows that an instant falls into."""
        self._make_rows()
        for number, series in enumerate(self._series):
            start_ns = ts_ns - ts_ns % series.interval_ns
            at = closing.unlink(book.slot, number, start_ns, self._rows, self._windows.rows)
            if at >= 0:
                numbers = np.array([at], np.int64)
                [window] = self._windows.read(numbers, np.array([number], np.int64))
                if self._upkeep.keep_rows and self._windows.rows[at, m.STATUS] < m.SAVED:
                    book.rows.append(written_again(window))
                book.closed.put(series.key(start_ns), window)
                self._windows.remove(numbers)

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
        self._recall(slots, m.count_ids(slots, self._rows, self._log))

    def _recall(self, slots: Ints, ids: int) -> None:
        """`recall` of these instruments, which have at most so many ids."""
        books = map(self._books.__getitem__, slots.tolist())
        bounds, found = np.empty(len(slots) + 1, np.int64), np.empty(2 * ids, np.int64)
        m.gather_ids(slots, self._rows, self._log, bounds, found)
        known = found.data.cast("B")
        at = (16 * bounds).tolist()
        clocks = self._rows[slots][:, [m.WATERMARK, m.HORIZON]].tolist()
        for n, (book, (watermark_ns, horizon_ns)) in enumerate(zip(books, clocks, strict=True)):
            book.watermark_ns, book.horizon_ns = watermark_ns, horizon_ns
            if book.closed.entries:
                book.forget_old_windows(self._spec)
            if at[n] < at[n + 1]:
                book.seen.append(known[at[n] : at[n + 1]])
            book.forget_ids(self._spec)

    def take_dirty(self) -> Ints:
        """The instruments of which something is to be saved, that are held; they count as saved then."""
        slots = np.flatnonzero(self._rows[: len(self._books), m.DIRTY])
        self._rows[slots, m.DIRTY] = False
        if self._remembering:
            dirty = set(slots.tolist())
            self.recall([book for book in self._remembering if book.slot in dirty])
            self._remembering = {
                book: None for book in self._remembering if book.held and book.closed.entries
            }
        return slots

    def open(self, slots: Ints) -> tuple[NDArray[np.bool_], Ints, Packed]:
        """Which of these instruments are held; of those the slot, watermark and horizon; and their open windows."""
        self._make_rows()
        held = self._rows[slots, m.HELD] == 1
        slots = slots[held]
        numbers, series, bounds = self._find_windows(slots, m.CLOSED)
        owners = np.repeat(slots, np.diff(bounds))
        clocks = np.column_stack((slots, self._rows[slots][:, [m.WATERMARK, m.HORIZON]]))
        return held, clocks, self._windows.packed(numbers, series, owners)

    def past(self, slots: Ints) -> tuple[Packed, Ints]:
        """What is not saved yet: closed windows of these instruments, and all ids, as `Mark`s; they are then."""
        packed = no_windows()
        if self._upkeep.keep_rows:
            packed = self._closed(slots, m.SAVED)
            closing.set_saved(slots, len(self._series), self._rows, self._windows.rows)
        marks = [*self._unsaved, self._log[self._saved : self._logged, : m.BEFORE]]
        self._unsaved, self._saved = [], self._logged
        return packed, np.concatenate(marks)

    def closed(self, slots: Ints) -> Packed:
        """The windows of these instruments that have closed."""
        return self._closed(slots, m.SAVED + 1)

    def _closed(self, slots: Ints, until: int) -> Packed:
        numbers, series, bounds = self._find_windows(slots, until)
        closed = self._windows.rows[numbers, m.STATUS] >= m.CLOSED
        owners = np.repeat(slots, np.diff(bounds))
        return self._windows.packed(numbers[closed], series[closed], owners[closed])

    def _find_windows(self, slots: Ints, until: int) -> tuple[Ints, Ints, Ints]:
        """Windows of instruments with a status below this, their series, and where those of each begin and end."""
        bounds = np.empty(len(slots) + 1, np.int64)
        found = np.empty((2, 0), np.int64)
        for _ in range(2):
            count = closing.gather_windows(
                slots, len(self._series), until, self._rows, self._windows.rows, bounds, found
            )
            if count > found.shape[1]:
                found = np.empty((2, count), np.int64)
        return found[0], found[1], bounds

    def _pairs(self, sheet: Sheet) -> Ints:
        return _NONE if self._spec.dedupe_ns is None else sheet.pairs

    def _make_room(self, ids: int) -> None:
        """Let there be room for so many ids in the log."""
        if self._logged + ids <= len(self._log):
            return
        if self._upkeep.keep_state:
            self._unsaved.append(self._log[self._saved : self._logged, : m.BEFORE].copy())
        # To enter ids in a book takes as long for few as for many: few stay.
        counts = np.bincount(self._log[: self._logged, m.SLOT], minlength=len(self._rows))
        slots = np.flatnonzero((counts >= _FEW_IDS) & (self._rows[:, m.HELD] == 1))
        self._recall(slots, int(counts[slots].sum()))
        dedupe_ns = min(self._spec.dedupe_ns or 0, _MOST)
        self._logged = self._saved = m.compact(self._rows, self._log, self._logged, dedupe_ns)
        needed = 2 * self._logged + ids
        if needed > len(self._log):
            log = np.empty((2 * needed, 4), np.int64)
            log[: self._logged] = self._log[: self._logged]
            self._log = log
