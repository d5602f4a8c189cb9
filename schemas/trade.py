"""One trade, as every codec gives it to the bar engine."""

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


def instrument(venue: str, symbol: str) -> str:
    """`VENUE:SYMBOL`, or the bare symbol without a venue: the key of ticks, and the name of bars."""
    return f"{venue}:{symbol}" if venue else symbol
