"""What a batch holds of one instrument."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby
from operator import sub
from typing import NamedTuple, cast

from schemas.trade import Trades
from streams.bars.book import Book
from streams.bars.types import Record


class Place(NamedTuple):
    """Where a trade is: the number of its record in the batch, and its own in the record."""

    record: int
    trade: int


class Ticks:
    """Ticks of one instrument in order of arrival, and where each of them is.

    `numbers` are those of their records, ascending; `indexes` say which trade of its record each is, and are
    None where each is the only one.
    """

    __slots__ = (
        "_trades",
        "ids",
        "indexes",
        "lag_ns",
        "marks_ns",
        "numbers",
        "oldest_ns",
        "received_ns",
        "symbol",
        "venue",
    )

    def __init__(self, trades: Trades, numbers: Sequence[int], indexes: Sequence[int] | None = None) -> None:
        self._trades: Trades | None = trades
        self.venue, self.symbol = trades.venue, trades.symbol
        self.numbers = numbers
        self.indexes = indexes
        self.ids = trades.trade_id
        times = trades.ts_ns
        self.oldest_ns = min(times)
        self.marks_ns = list(accumulate(times, max))
        """The newest time so far, after each tick."""
        self.lag_ns = max(map(sub, self.marks_ns, times))
        """How far at most a tick is behind one that came before it."""
        self.received_ns = min((ns for ns in trades.recv_ns if ns is not None), default=None)
        """The earliest receipt, as far as they tell."""

    @property
    def has_ids(self) -> bool:
        """Whether any of them has one."""
        return self.ids.count(None) < len(self.ids)

    @property
    def trades(self) -> Trades:
        """All that is known of them."""
        return cast("Trades", self._trades)

    def place(self, i: int) -> Place:
        """Of the `i`-th."""
        return Place(self.numbers[i], 0 if self.indexes is None else self.indexes[i])

    def take(self, chosen: Sequence[int]) -> Ticks:
        """Those with these indices."""
        indexes = None if self.indexes is None else [self.indexes[i] for i in chosen]
        return Ticks(self.trades.take(chosen), [self.numbers[i] for i in chosen], indexes)

    def fold(self, book: Book, records: Sequence[Record]) -> None:
        """Let all of them count in the finest windows, run by run of those that fall into the same one."""
        trades, numbers = self.trades, self.numbers
        for series in book.roots:
            interval_ns = series.interval_ns
            start = 0
            for _, run in groupby([ts_ns // interval_ns for ts_ns in trades.ts_ns]):
                end = start + len(list(run))
                offsets = records[numbers[start]].offset, records[numbers[end - 1]].offset
                book.window(series, trades.ts_ns[start]).fold(trades, start, end, *offsets)
                start = end
