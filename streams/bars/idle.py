"""Which instruments have gone quiet with something unpublished."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from streams.bars.book import Book
from streams.bars.window import Window

if TYPE_CHECKING:
    from streams.bars.board import Board


class IdleClock:
    """One alarm for each instrument that has something to publish.

    A tick does not move its instrument's alarm: when it rings too early, it is set again. So a tick costs
    nothing here, and a look costs only what has rung.
    """

    def __init__(self, idle_ns: int, grace_ns: int) -> None:
        self._idle_ns = idle_ns
        self._grace_ns = grace_ns
        self._alarms: list[tuple[int, str, Book]] = []

    def set(self, book: Book, now_ns: int) -> None:
        """Watch an instrument that has got a tick, unless it is watched already."""
        if not book.alarmed:
            book.alarmed = True
            heappush(self._alarms, (now_ns + self._idle_ns, book.name, book))

    def due(self, now_ns: int, board: Board | None = None) -> Iterator[tuple[Book, Window, Window]]:
        """The unpublished windows whose end and grace have passed, of instruments that have been quiet.

        Each with what it holds as a whole.
        """
        alarms = self._alarms
        while alarms and alarms[0][0] <= now_ns:
            _, _, book = heappop(alarms)
            if book.held and board is not None:
                book.active_ns = board.active_ns(book)
            if book.active_ns is None:
                book.active_ns = now_ns
            rings_ns: int | None = book.active_ns + self._idle_ns
            if book.active_ns + self._idle_ns <= now_ns:
                rings_ns = None
                if book.held and board is not None:
                    board.release(book)
                for series, window in book.open_windows():
                    whole = book.whole(series, window)
                    if whole.trade_count != window.published:
                        over_ns = window.end_ns + self._grace_ns
                        if over_ns <= now_ns:
                            yield book, window, whole
                        elif rings_ns is None or over_ns < rings_ns:
                            rings_ns = over_ns
            if rings_ns is None:
                book.alarmed = False
            else:
                heappush(alarms, (rings_ns, book.name, book))
