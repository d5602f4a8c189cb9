"""Trades, as every codec gives them to the bar engine."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Trade(msgspec.Struct, gc=False):
    """One trade of a feed, or several that the feed reports as one. Price and size are in units of 1e-18."""

    symbol: str
    venue: str
    """Empty when the feed names none."""
    ts_ns: int
    """When the venue says it happened."""
    price: int
    size: int
    trade_id: str | int | None = None
    side: int = 0
    """Of the aggressor: +1 buys, -1 sells, 0 unknown."""
    count: int = 1
    """Trades it stands for; above 1 in feeds that aggregate."""
    recv_ns: int | None = None
    """When the recorder got it, if it says so."""


class Trades(msgspec.Struct):
    """Trades in order of arrival: a list a field of `Trade`, all of one length."""

    ts_ns: list[int]
    price: list[int]
    size: list[int]
    trade_id: list[str | int | None]
    side: list[int]
    count: list[int]
    recv_ns: list[int | None]

    @classmethod
    def of(cls, trades: Sequence[Trade]) -> Trades:
        """These, less the names of their instruments."""
        return cls(
            [trade.ts_ns for trade in trades],
            [trade.price for trade in trades],
            [trade.size for trade in trades],
            [trade.trade_id for trade in trades],
            [trade.side for trade in trades],
            [trade.count for trade in trades],
            [trade.recv_ns for trade in trades],
        )


def instrument(venue: str, symbol: str) -> str:
    """`VENUE:SYMBOL`, or the bare symbol without a venue: the key of ticks, and the name of bars."""
    return f"{venue}:{symbol}" if venue else symbol
