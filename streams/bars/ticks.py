"""What a batch holds of one instrument."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, groupby
from operator import sub
from typing import NamedTuple, cast

from schemas.trade import Trades
from streams.bars.book import Book
from streams.bars.seen import Seen
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
        "_marks_ns",
        "_trades",
        "indexes",
        "lag_ns",
        "newest_ns",
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
        times = trades.ts_ns
        self._marks_ns = list(accumulate(times, max))
        self.oldest_ns, self.newest_ns = min(times), self._marks_ns[-1]
        self.lag_ns = max(map(sub, self._marks_ns, times))
        """How far at most a tick is behind one that came before it."""
        self.received_ns = min((ns for ns in trades.recv_ns if ns is not None), default=None)
        """The earliest receipt, as far as they tell."""

    def enter(self, seen: Seen, watermark_ns: int) -> bool:
        """Remember their ids, if all of them are new, or none has one; if not, nothing.

        Each with the watermark after its tick; `watermark_ns` is the one before the first.
        """
        ids = self.trades.trade_id
        if unknown := ids.count(None):
            return unknown == len(ids)
        marks_ns = self._marks_ns
        if marks_ns[0] < watermark_ns:
            behind = bisect_left(marks_ns, watermark_ns)
            marks_ns = [watermark_ns] * behind + marks_ns[behind:]
        return seen.extend(cast("Sequence[str | int]", ids), marks_ns)

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
