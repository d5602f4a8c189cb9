"""The stock agent: exact 1s and 1m bars as one writes them with Faust, one event at a time.

It is what Tidegate is measured against, so it is no straw man: msgspec decodes straight into Decimals, bars
are slotted objects in dicts, and transport, stream and producer are Faust's own with their defaults; only the
settings below differ. It keeps no state beyond its memory, does not wait for its bars before it commits,
looks for no duplicates and survives no bad record: all of that would cost it more.

    BROKER=127.0.0.1:9092 GROUP=g TICKS=ticks BARS=bars python stock_agent.py worker --without-web -l warn
"""

from __future__ import annotations

import os
from decimal import Decimal

import faust
import msgspec

GRACE_NS = 2 * 10**9
INTERVALS_NS = {"1s": 10**9, "1m": 60 * 10**9}

app = faust.App(
    os.environ["GROUP"],
    broker=f"kafka://{os.environ['BROKER']}",
    producer_acks=-1,
    # Tidegate's: what is committed is the clock by which both are measured.
    broker_commit_interval=1.0,
    # As fast as Faust gets from start to work; none of it matters afterwards.
    stream_recovery_delay=0.0,
    topic_allow_declare=False,
    topic_disable_leader=True,
)
ticks = app.topic(os.environ["TICKS"], value_serializer="raw")
bars = app.topic(os.environ["BARS"], key_serializer="raw", value_serializer="raw")


class Tick(msgspec.Struct, gc=False):
    symbol: str
    venue: str
    ts_ns: int
    price: Decimal
    size: Decimal
    trade_id: int
    side: str


class Bar(msgspec.Struct, gc=False):
    instrument: str
    type: str
    start_ns: int
    end_ns: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    open_ts_ns: int
    close_ts_ns: int
    first_trade_id: int
    last_trade_id: int
    volume: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    buy_volume: Decimal = Decimal(0)
    sell_volume: Decimal = Decimal(0)
    trade_count: int = 0
    vwap: Decimal | None = None
    final: bool = True


class Book:
    """The open bars of one instrument."""

    __slots__ = ("bars", "instrument", "next_end_ns", "watermark_ns")

    def __init__(self, instrument: str) -> None:
        self.instrument = instrument
        self.bars: dict[tuple[str, int], Bar] = {}
        self.watermark_ns = 0
        self.next_end_ns = 2**63

    def add(self, tick: Tick) -> None:
        ts_ns, price, size = tick.ts_ns, tick.price, tick.size
        turnover = price * size
        for name, interval_ns in INTERVALS_NS.items():
            start_ns = ts_ns - ts_ns % interval_ns
            bar = self.bars.get((name, start_ns))
            if bar is None:
                bar = self.open(name, start_ns, start_ns + interval_ns, tick)
            if price > bar.high:
                bar.high = price
            elif price < bar.low:
                bar.low = price
            if ts_ns >= bar.close_ts_ns:
                bar.close_ts_ns = ts_ns
                bar.close = price
                bar.last_trade_id = tick.trade_id
            if ts_ns < bar.open_ts_ns:
                bar.open_ts_ns = ts_ns
                bar.open = price
                bar.first_trade_id = tick.trade_id
            bar.volume += size
            bar.turnover += turnover
            if tick.side == "buy":
                bar.buy_volume += size
            else:
                bar.sell_volume += size
            bar.trade_count += 1
        if ts_ns > self.watermark_ns:
            self.watermark_ns = ts_ns

    def open(self, name: str, start_ns: int, end_ns: int, tick: Tick) -> Bar:
        bar = Bar(
            instrument=self.instrument,
            type=name,
            start_ns=start_ns,
            end_ns=end_ns,
            open=tick.price,
            high=tick.price,
            low=tick.price,
            close=tick.price,
            open_ts_ns=tick.ts_ns,
            close_ts_ns=tick.ts_ns,
            first_trade_id=tick.trade_id,
            last_trade_id=tick.trade_id,
        )
        self.bars[name, start_ns] = bar
        self.next_end_ns = min(self.next_end_ns, end_ns)
        return bar

    def closed(self) -> list[Bar]:
        """Take out the bars whose end and grace have passed."""
        horizon_ns = self.watermark_ns - GRACE_NS
        if horizon_ns < self.next_end_ns:
            return []
        over = [key for key, bar in self.bars.items() if bar.end_ns <= horizon_ns]
        closed = [self.bars.pop(key) for key in over]
        self.next_end_ns = min((bar.end_ns for bar in self.bars.values()), default=2**63)
        return closed


decode = msgspec.json.Decoder(Tick).decode
encode = msgspec.json.Encoder().encode
books: dict[str, Book] = {}


@app.agent(ticks)
async def make_bars(stream: faust.StreamT[bytes]) -> None:
    async for value in stream:
        tick = decode(value)
        instrument = f"{tick.venue}:{tick.symbol}"
        book = books.get(instrument)
        if book is None:
            book = books[instrument] = Book(instrument)
        book.add(tick)
        for bar in book.closed():
            if bar.volume:
                bar.vwap = bar.turnover / bar.volume
            await bars.send(key=f"{instrument}|{bar.type}|{bar.start_ns}".encode(), value=encode(bar))


if __name__ == "__main__":
    app.main()
