"""One bar in the making."""

from __future__ import annotations

from typing import Final

from schemas.bar import Bar
from schemas.fixed import TURNOVER_SCALE, render
from schemas.trade import Trade

CHANGED: Final = 0
"""The content has not been published."""
EARLY: Final = 1
"""It has, before the window closed."""
FINAL: Final = 2
"""It has, as final."""


class Window:
    """The trades of one instrument in `[start_ns, end_ns)`, folded. Numbers are those of `schemas.fixed`.

    It is made for its first trade, which must then be added like every other.
    """

    __slots__ = (
        "bar_type",
        "buy_volume",
        "close",
        "close_ts_ns",
        "end_ns",
        "first_id",
        "first_offset",
        "high",
        "last_id",
        "last_offset",
        "low",
        "mark",
        "open",
        "open_ts_ns",
        "revision",
        "sell_volume",
        "start_ns",
        "trade_count",
        "turnover",
        "volume",
    )

    def __init__(self, bar_type: str, start_ns: int, end_ns: int, price: int, offset: int) -> None:
        self.bar_type = bar_type
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.open = self.high = self.low = self.close = price
        # Whatever comes first is before the end and not before the start: it becomes both open and close.
        self.open_ts_ns = end_ns
        self.close_ts_ns = start_ns
        self.volume = self.turnover = self.buy_volume = self.sell_volume = 0
        self.trade_count = 0
        self.first_id: str | int | None = None
        self.last_id: str | int | None = None
        self.first_offset = self.last_offset = offset
        self.revision = 0
        self.mark = CHANGED

    def add(self, trade: Trade, turnover: int, offset: int) -> None:
        """Fold one trade in. Offsets ascend, so among equal times the first to come is the earlier one."""
        ts_ns = trade.ts_ns
        price = trade.price
        size = trade.size
        side = trade.side
        if ts_ns >= self.close_ts_ns:
            self.close_ts_ns = ts_ns
            self.close = price
            self.last_id = trade.trade_id
        if ts_ns < self.open_ts_ns:
            self.open_ts_ns = ts_ns
            self.open = price
            self.first_id = trade.trade_id
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.volume += size
        self.turnover += turnover
        if side > 0:
            self.buy_volume += size
        elif side < 0:
            self.sell_volume += size
        self.trade_count += trade.count
        self.last_offset = offset
        self.mark = CHANGED

    def bar(self, instrument: str, symbol: str, venue: str, topic: str, partition: int) -> Bar:
        """The bar as it stands."""
        return Bar(
            instrument=instrument,
            symbol=symbol,
            venue=venue,
            type=self.bar_type,
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            open=render(self.open),
            high=render(self.high),
            low=render(self.low),
            close=render(self.close),
            volume=render(self.volume),
            turnover=render(self.turnover, TURNOVER_SCALE),
            vwap=render(divide(self.turnover, self.volume)) if self.volume else None,
            trade_count=self.trade_count,
            buy_volume=render(self.buy_volume),
            sell_volume=render(self.sell_volume),
            first_trade_id=None if self.first_id is None else str(self.first_id),
            last_trade_id=None if self.last_id is None else str(self.last_id),
            first_offset=self.first_offset,
            last_offset=self.last_offset,
            source_topic=topic,
            source_partition=partition,
            revision=self.revision,
            final=self.mark == FINAL,
        )


def divide(dividend: int, divisor: int) -> int:
    """The quotient by a positive divisor, rounded to the nearest integer and half to even."""
    quotient, rest = divmod(dividend, divisor)
    if 2 * rest > divisor or (2 * rest == divisor and quotient & 1):
        quotient += 1
    return quotient
