"""One bar in the making."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.bar import Bar
from schemas.fixed import TURNOVER_SCALE, render, render_again

_ABOVE_ALL: Final = 10**40
_NEVER: Final = 2**63


@dataclass(slots=True, eq=False)  # a msgspec.Struct is made faster, but takes twice as long to set a field of
class Window:
    """The trades of one instrument in `[start_ns, end_ns)`, folded. Numbers are those of `schemas.fixed`.

    An empty one has neither prices nor offsets: its extremes are those that any trade exceeds.
    """

    bar_type: str
    start_ns: int
    end_ns: int
    open_ts_ns: int
    close_ts_ns: int
    open: int = 0
    high: int = -_ABOVE_ALL
    low: int = _ABOVE_ALL
    close: int = 0
    volume: int = 0
    turnover: int = 0
    buy_volume: int = 0
    sell_volume: int = 0
    trade_count: int = 0
    first_id: str | int | None = None
    last_id: str | int | None = None
    first_offset: int = _NEVER
    last_offset: int = -1
    revision: int = 0
    published: int = 0
    """How many trades it had when it was published last: every change adds some."""
    final: bool = False
    """Whether that was as final."""

    @property
    def says_something(self) -> bool:
        """Whether it is not as it would be made anew."""
        return bool(self.trade_count or self.published)

    def is_published(self, trade_count: int) -> bool:
        """Whether it was published as final, when it had so many trades."""
        return self.final and self.published == trade_count

    def add(
        self,
        ts_ns: int,
        price: int,
        size: int,
        trade_id: str | int | None,
        side: int,
        count: int,
        offset: int,
    ) -> None:
        """Fold in one trade, which came after all that are in."""
        # Of equal times the first to come is the earlier one.
        if ts_ns >= self.close_ts_ns:
            self.close_ts_ns = ts_ns
            self.close = price
            self.last_id = trade_id
        if ts_ns < self.open_ts_ns:
            self.open_ts_ns = ts_ns
            self.open = price
            self.first_id = trade_id
        if price > self.high:
            self.high = price
        if price < self.low:
            self.low = price
        self.volume += size
        self.turnover += price * size
        if side > 0:
            self.buy_volume += size
        elif side < 0:
            self.sell_volume += size
        self.trade_count += count
        if offset < self.first_offset:
            self.first_offset = offset
        if offset > self.last_offset:
            self.last_offset = offset

    def merge(self, part: Window) -> None:
        """Fold in all of a window that lies within this one, and apart from all others that were."""
        if part.close_ts_ns >= self.close_ts_ns:
            self.close_ts_ns = part.close_ts_ns
            self.close = part.close
            self.last_id = part.last_id
        if part.open_ts_ns < self.open_ts_ns:
            self.open_ts_ns = part.open_ts_ns
            self.open = part.open
            self.first_id = part.first_id
        if part.high > self.high:
            self.high = part.high
        if part.low < self.low:
            self.low = part.low
        self.volume += part.volume
        self.turnover += part.turnover
        self.buy_volume += part.buy_volume
        self.sell_volume += part.sell_volume
        self.trade_count += part.trade_count
        if part.first_offset < self.first_offset:
            self.first_offset = part.first_offset
        if part.last_offset > self.last_offset:
            self.last_offset = part.last_offset

    def bar(self, instrument: str, symbol: str, venue: str, topic: str, partition: int) -> Bar:
        """The bar as it stands."""
        # Many have one trade, or all at one price and by one side: what is the same is the same text.
        open_ = high = low = close = vwap = render_again(self.open)
        volume = render(self.volume)
        if self.high != self.low:
            high, low, close = render_again(self.high), render_again(self.low), render_again(self.close)
            if self.volume:
                vwap = render(divide(self.turnover, self.volume))
        # In the order of its fields: two dozen names would cost as much as all the rest.
        return Bar(
            instrument,
            symbol,
            venue,
            self.bar_type,
            self.start_ns,
            self.end_ns,
            open_,
            high,
            low,
            close,
            volume,
            render(self.turnover, TURNOVER_SCALE),
            vwap if self.volume else None,
            self.trade_count,
            volume if self.buy_volume == self.volume else render(self.buy_volume),
            volume if self.sell_volume == self.volume else render(self.sell_volume),
            None if self.first_id is None else str(self.first_id),
            None if self.last_id is None else str(self.last_id),
            self.first_offset,
            self.last_offset,
            topic,
            partition,
            self.revision,
            self.final,
        )


def empty(bar_type: str, start_ns: int, end_ns: int, published: int = 0) -> Window:
    """A window without a trade."""
    # It opens at its end and closes at its start: whatever comes first is between, and becomes both open and close.
    return Window(bar_type, start_ns, end_ns, end_ns, start_ns, published=published)


def divide(dividend: int, divisor: int) -> int:
    """The quotient by a positive divisor, rounded to the nearest integer and half to even."""
    quotient, rest = divmod(dividend, divisor)
    if 2 * rest > divisor or (2 * rest == divisor and quotient & 1):
        quotient += 1
    return quotient
