"""A market that is not there: seeded trades that look like a venue's, flaws included.

    feed = SimulatedFeed(seed=1, instruments=8, disorder_ns=500_000_000, duplicates=0.001)
    for tick in feed.ticks(100, now_ns=time.time_ns()):
        publish(tick.key(), tick.encode())

The same seed gives the same market.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate, count
from typing import Literal

import msgspec

from schemas.fixed import render
from schemas.trade import instrument

VENUE = "SIM"

#: Venues report milliseconds, so trades share them.
RESOLUTION_NS = 1_000_000

# Symbol, price and its decimals, a usual size and its decimals.
_KNOWN = (
    ("BTCUSDT", 61_837.63, 2, 0.02, 5),
    ("ETHUSDT", 2_641.15, 2, 0.3, 4),
    ("SOLUSDT", 154.27, 2, 4, 3),
    ("XRPUSDT", 0.6071, 4, 800, 1),
    ("BNBUSDT", 512.3, 1, 0.5, 3),
    ("ADAUSDT", 0.3412, 4, 600, 1),
    ("AVAXUSDT", 22.18, 2, 12, 2),
    ("LTCUSDT", 60.92, 2, 3, 3),
    ("DOTUSDT", 4.563, 3, 90, 2),
    ("LINKUSDT", 10.51, 2, 25, 2),
    ("SHIBUSDT", 0.00001389, 8, 900_000, 0),
    ("ETHBTC", 0.04271, 5, 0.2, 4),
)

_STEP = 5e-5  # of the price, from one order to the next
_PULL = 1e-5  # back to where it began, so that a feed of weeks stays about 1 % around it
_SWEEPS = 0.2  # of the orders trade at several prices, all at one instant
_LATE = 0.2  # of the orders arrive behind later ones, where disorder is asked for
_RECENT = 64


class SimTick(msgspec.Struct, frozen=True, gc=False):
    """One simulated trade; the fields are those of Tidegate's own tick JSON."""

    symbol: str
    venue: str
    ts_ns: int
    price: str
    size: str
    trade_id: int
    side: Literal["buy", "sell"]

    def encode(self) -> bytes:
        """The tick as a record's value."""
        return _encode(self)

    def key(self) -> bytes:
        """The record's key: the instrument."""
        return instrument(self.venue, self.symbol).encode()


_encode = msgspec.json.Encoder().encode


class _Trade(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    price: str
    size: str
    trade_id: int
    side: Literal["buy", "sell"]
    begins_order: bool


class SimulatedFeed:
    """Trades of `instruments` symbols, some busier than others, in an order that `seed` decides.

    `disorder_ns` is how far behind its successors a tick may arrive; `duplicates` is the share of
    ticks that repeat a recent one, trade id and all. Each symbol's ids count up from `first_id`.
    Symbols, prices, sizes and ids depend on nothing else, however many ticks are asked for at a
    time; only event times depend on the clock.
    """

    def __init__(
        self,
        seed: int,
        instruments: int,
        *,
        disorder_ns: int = 0,
        duplicates: float = 0.0,
        venue: str = VENUE,
        first_id: int = 1,
    ) -> None:
        if instruments < 1:
            raise ValueError(f"a feed of {instruments} instruments has no ticks")
        if not 0 <= duplicates < 1:
            raise ValueError(f"duplicates is a share from 0 to below 1, not {duplicates}")
        if disorder_ns < 0:
            raise ValueError(f"disorder_ns is {disorder_ns}; ticks of the future are not simulated")
        self.duplicated = 0
        self._venue = venue
        self._disorder_ns = disorder_ns
        self._duplicates = duplicates
        self._trades = _market(random.Random(seed), instruments, first_id)
        # The flaws have dice of their own, so that they change nothing but what they are.
        self._flaws = random.Random(seed + 1)
        self._recent: deque[SimTick] = deque(maxlen=_RECENT)
        self._order_ns = 0
        self._clock_ns: int | None = None

    def ticks(self, n: int, now_ns: int) -> list[SimTick]:
        """The next `n` ticks, their event times spread from the last call's `now_ns` to this one's.

        None is later than `now_ns`; a gap of more than a second is not made up for.
        """
        last_ns = now_ns if self._clock_ns is None else min(self._clock_ns, now_ns)
        span_ns = min(now_ns - last_ns, 10**9)
        self._clock_ns = now_ns
        start_ns = now_ns - span_ns
        return [self._tick(start_ns + span_ns * (i + 1) // n) for i in range(n)]

    def _tick(self, ts_ns: int) -> SimTick:
        if self._duplicates and self._recent and self._flaws.random() < self._duplicates:
            self.duplicated += 1
            return self._flaws.choice(self._recent)
        trade = next(self._trades)
        if trade.begins_order:
            if self._disorder_ns and self._flaws.random() < _LATE:
                ts_ns -= self._flaws.randrange(self._disorder_ns)
            self._order_ns = ts_ns // RESOLUTION_NS * RESOLUTION_NS
        tick = SimTick(
            trade.symbol, self._venue, self._order_ns, trade.price, trade.size, trade.trade_id, trade.side
        )
        if self._duplicates:
            self._recent.append(tick)
        return tick


class _Book:
    """The price of one symbol, in its smallest steps."""

    def __init__(
        self, first_id: int, symbol: str, price: float, price_digits: int, size: float, size_digits: int
    ) -> None:
        self.symbol = symbol
        self.price_digits = price_digits
        self.size_digits = size_digits
        self.start = round(price * 10.0**price_digits)
        self.size = size * 10.0**size_digits
        self.offset: float = 0.0
        self.ids = count(first_id)

    def move(self, rng: random.Random) -> int:
        self.offset += rng.gauss(0.0, _STEP) - _PULL * self.offset
        return max(2, round(self.start * (1 + self.offset)))

    def trade(self, price: int, size: int, side: int, begins_order: bool) -> _Trade:
        return _Trade(
            self.symbol,
            render(max(1, price), self.price_digits),
            render(size, self.size_digits),
            next(self.ids),
            "buy" if side > 0 else "sell",
            begins_order,
        )


def _market(rng: random.Random, instruments: int, first_id: int) -> Iterator[_Trade]:
    books = [_Book(first_id, *_listing(i)) for i in range(instruments)]
    # The busiest symbol trades k times as often as the k-th.
    bounds = list(accumulate(1 / (i + 1) for i in range(instruments)))
    while True:
        book = books[min(bisect_right(bounds, rng.random() * bounds[-1]), instruments - 1)]
        side = 1 if rng.random() < 0.5 else -1
        price = book.move(rng)
        levels = rng.randint(2, 5) if rng.random() < _SWEEPS else 1
        for level in range(levels):
            size = max(1, round(book.size * rng.lognormvariate(-0.5, 1.0)))
            yield book.trade(price + side * level, size, side, level == 0)


def symbols(instruments: int) -> list[str]:
    """Those of a feed of so many instruments, the busiest first."""
    return [_listing(i)[0] for i in range(instruments)]


def _listing(i: int) -> tuple[str, float, int, float, int]:
    if i < len(_KNOWN):
        return _KNOWN[i]
    return (f"SIM{i + 1:03d}USDT", round(1.17 ** (i % 50) / 10, 4), 4, 20, 2)
