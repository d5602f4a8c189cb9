"""Ticks one by one, and where each of them is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from schemas.trade import Names, Trade, Trades

#: What is known of one: the number of its record in the batch, and its own in the record; then as in `Trades`.
Tick = tuple[int, int, Names, int, int, int, str | int | None, int, int, int | None]


class Place(NamedTuple):
    """Where a trade is: the number of its record in the batch, and its own in the record."""

    record: int
    trade: int


class Ticks:
    """Ticks in order of arrival. To iterate is to get them one by one."""

    __slots__ = ("_indexes", "numbers", "trades")

    def __init__(self, trades: Trades, numbers: list[int]) -> None:
        """Number i was in the record of number `numbers[i]`, and its first trade."""
        self.trades = trades
        self.numbers = numbers
        self._indexes: list[int] | None = None
        """Which trade of its record each is, where one is not the first."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Tick]:
        trades = self.trades
        return zip(
            self.numbers,
            repeat(0) if self._indexes is None else self._indexes,
            trades.names,
            trades.ts_ns,
            trades.price,
            trades.size,
            trades.trade_id,
            trades.side,
            trades.count,
            trades.recv_ns,
            strict=False,
        )

    def append(self, trade: Trade, place: Place) -> None:
        """Add one."""
        if place.trade and self._indexes is None:
            self._indexes = [0] * len(self)
        if self._indexes is not None:
            self._indexes.append(place.trade)
        self.numbers.append(place.record)
        self.trades.append(trade)

    def extend(self, trades: Trades, numbers: Sequence[int]) -> None:
        """Add those that are the first of their records."""
        if self._indexes is not None:
            self._indexes += [0] * len(numbers)
        self.numbers += numbers
        self.trades.extend(trades)
