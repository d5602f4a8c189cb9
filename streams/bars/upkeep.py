"""What a tick brings with it, whatever it counts: alarms, what is forgotten, and windows that close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.bars.book import Book
from streams.bars.idle import IdleClock
from streams.bars.rows import written_again
from streams.bars.types import BarSpec, Late
from streams.bars.window import Window

if TYPE_CHECKING:
    from streams.bars.board import Board


class Upkeep:
    """Sees to instruments while they are at hand: of many of them no cache holds what is known of each."""

    def __init__(self, spec: BarSpec, *, keep_state: bool) -> None:
        """Without `keep_state` rows are not gathered, and ids are forgotten when they are looked at."""
        self.keep_state = keep_state
        self.keep_rows = keep_state and spec.late is not Late.DROP
        """Whether rows of what closes are gathered."""
        self.idle = IdleClock(spec.idle_ns, spec.grace_ns)
        self.changed: dict[Book, None] = {}
        """The instruments of which something is to be saved."""
        self.spec = spec
        self.board: Board | None = None
        self.retaining = spec.late is not Late.DROP
        """Whether what has closed can be revised."""

    def begin(self, book: Book, batch: int, now_ns: int) -> None:
        """Before the first tick of an instrument in a batch, which has this number."""
        if book.held and self.board is not None:
            self.board.release(book)
        book.batch = batch
        book.active_ns = now_ns
        self.changed[book] = None
        if not book.alarmed:
            self.idle.set(book, now_ns)
        if not self.keep_state:
            book.forget_ids(self.spec)

    def close(self, book: Book, due: dict[Window, Book]) -> None:
        """Close the windows that have ended; those that are to be published become `due`."""
        for key, window in book.close():
            self.keep(book, key, window, due)
        self.forget(book)

    def keep(self, book: Book, key: int, window: Window, due: dict[Window, Book]) -> None:
        """See to a window that has closed."""
        if not window.is_published(window.trade_count):
            due[window] = book
        elif self.keep_rows:
            book.rows.append(written_again(window))
        if self.retaining:
            book.closed.put(key, window)

    def forget(self, book: Book) -> None:
        """Drop the closed windows that are of no use any more, where there are many."""
        if len(book.closed.entries) > book.closed.room:
            book.forget_windows(self.spec)
