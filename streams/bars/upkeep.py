"""What a tick brings with it, whatever it counts: alarms, what is forgotten, and windows that close."""

from __future__ import annotations

from streams.bars.book import Book
from streams.bars.idle import IdleClock
from streams.bars.rows import closed_row
from streams.bars.types import BarSpec, Late
from streams.bars.window import Window


class Upkeep:
    """Sees to instruments while they are at hand: of many of them no cache holds what is known of each."""

    def __init__(self, spec: BarSpec, *, keep_rows: bool) -> None:
        """With `keep_rows`, what closes is gathered for the state."""
        self.keep_rows = keep_rows
        self.idle = IdleClock(spec.idle_ns, spec.grace_ns)
        self.changed: dict[Book, None] = {}
        """The instruments of which something is to be saved."""
        self._spec = spec
        self._retaining = spec.late is not Late.DROP

    def begin(self, book: Book, batch: int, now_ns: int) -> None:
        """Before the first tick of an instrument in a batch, which has this number."""
        book.batch = batch
        book.active_ns = now_ns
        self.changed[book] = None
        if not book.alarmed:
            self.idle.set(book, now_ns)
        if book.seen.is_full:
            book.forget_ids(self._spec)

    def close(self, book: Book, due: dict[Window, Book]) -> None:
        """Close the windows that have ended; those that are to be published become `due`."""
        for key, window in book.close():
            if not window.is_published(window.trade_count):
                due[window] = book
            elif self.keep_rows:
                book.rows.append(closed_row(window, window.bar("", "", "", "", 0)))
            if self._retaining:
                book.closed.put(key, window)
        if len(book.closed.entries) > book.closed.room:
            book.forget_windows(self._spec)
