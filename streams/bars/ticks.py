"""What a batch holds of one instrument."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from schemas.trade import Trades
from streams.bars.book import Book
from streams.bars.seen import Seen
from streams.bars.types import Record


class Place(NamedTuple):
    """Where a trade is: the number of its record in the batch, and its own in the record."""

    record: int
    trade: int


class Summary(NamedTuple):
    """What is asked of ticks as a whole."""

    oldest_ns: int
    newest_ns: int
    lag_ns: int
    """How far at most a tick is behind one that came before it."""
    received_ns: int | None
    """The earliest receipt, as far as they tell."""


class Ticks:
    """Ticks of one instrument in order of arrival, and where each of them is.

    They are `rows` of `trades`. Row i was in the record of number `numbers[i]`, and was trade number `indexes[i]`
    of it; the first, where it is not among these.
    """

    __slots__ = ("indexes", "numbers", "rows", "symbol", "trades", "venue")

    def __init__(
        self,
        venue: str,
        symbol: str,
        trades: Trades,
        rows: Sequence[int],
        numbers: Sequence[int],
        indexes: Mapping[int, int],
    ) -> None:
        self.venue, self.symbol = venue, symbol
        self.trades = trades
        self.rows = rows
        self.numbers = numbers
        self.indexes = indexes

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> Place:
        """Of a row."""
        return Place(self.numbers[row], self.indexes.get(row, 0))

    def only(self, rows: Sequence[int]) -> Ticks:
        """These rows of it."""
        return Ticks(self.venue, self.symbol, self.trades, rows, self.numbers, self.indexes)

    def fold(self, book: Book, records: Sequence[Record]) -> None:
        """Let all of them count in the finest windows, run by run of those that fall into the same one."""
        trades, numbers, times = self.trades, self.numbers, self.trades.ts_ns
        for series in book.roots:
            interval_ns = series.interval_ns
            for _, run in groupby(self.rows, lambda row: times[row] // interval_ns):  # noqa: B023
                rows = list(run)
                offsets = records[numbers[rows[0]]].offset, records[numbers[rows[-1]]].offset
                book.window(series, times[rows[0]]).fold(trades, rows, *offsets)


class SummedTicks(Ticks):
    """Ticks of which a summary is at hand, so that all can be judged at once."""

    __slots__ = ("summary",)

    summary: Summary

    @abstractmethod
    def enter(self, seen: Seen, watermark_ns: int) -> bool:
        """Remember their ids, if all of them are new, or none has one; if not, nothing.

        Each with the watermark after its tick; `watermark_ns` is the one before the first.
        """
