"""Trades, as every codec gives them to the bar engine."""

from __future__ import annotations

import msgspec

#: Venue and symbol of an instrument; the venue is empty where the feed names none.
Names = tuple[str, str]


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

    names: list[Names]
    ts_ns: list[int]
    price: list[int]
    size: list[int]
    trade_id: list[str | int | None]
    side: list[int]
    count: list[int]
    recv_ns: list[int | None]

    @classmethod
    def none(cls) -> Trades:
        """To begin with."""
        return cls([], [], [], [], [], [], [], [])

    def append(self, trade: Trade) -> None:
        """Add one."""
        self.names.append((trade.venue, trade.symbol))
        self.ts_ns.append(trade.ts_ns)
        self.price.append(trade.price)
        self.size.append(trade.size)
        self.trade_id.append(trade.trade_id)
        self.side.append(trade.side)
        self.count.append(trade.count)
        self.recv_ns.append(trade.recv_ns)

    def extend(self, more: Trades) -> None:
        """Add those that came after these."""
        self.names += more.names
        self.ts_ns += more.ts_ns
        self.price += more.price
        self.size += more.size
        self.trade_id += more.trade_id
        self.side += more.side
        self.count += more.count
        self.recv_ns += more.recv_ns


def instrument(venue: str, symbol: str) -> str:
    """`VENUE:SYMBOL`, or the bare symbol without a venue: the key of ticks, and the name of bars."""
    return f"{venue}:{symbol}" if venue else symbol
