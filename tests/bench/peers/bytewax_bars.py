"""1s and 1m bars with Bytewax: no recovery store, late ticks are left out, and quiet bars close by the clock.

BROKER=127.0.0.1:9092 TICKS=ticks BARS=bars python -m bytewax.run bytewax_bars:flow
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import bytewax.operators as op
import bytewax.operators.windowing as win
import msgspec
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow

GRACE = timedelta(seconds=2)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INTERVALS = {"1s": timedelta(seconds=1), "1m": timedelta(minutes=1)}


class Tick(msgspec.Struct, gc=False):
    symbol: str
    venue: str
    ts_ns: int
    price: Decimal
    size: Decimal
    side: str


class Sums(msgspec.Struct, gc=False):
    open: Decimal = Decimal(0)
    high: Decimal = Decimal(0)
    low: Decimal = Decimal(0)
    close: Decimal = Decimal(0)
    open_ts_ns: int = 2**63
    close_ts_ns: int = 0
    volume: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    buy_volume: Decimal = Decimal(0)
    trade_count: int = 0


decode_tick = msgspec.json.Decoder(Tick).decode
encode = msgspec.json.Encoder().encode


def decode(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, Tick]:
    tick = decode_tick(message.value)
    return f"{tick.venue}:{tick.symbol}", tick


def instant(tick: Tick) -> datetime:
    return EPOCH + timedelta(microseconds=tick.ts_ns // 1000)


def add(bar: Sums, tick: Tick) -> Sums:
    ts_ns, price, size = tick.ts_ns, tick.price, tick.size
    if not bar.trade_count or price > bar.high:
        bar.high = price
    if not bar.trade_count or price < bar.low:
        bar.low = price
    if ts_ns >= bar.close_ts_ns:
        bar.close, bar.close_ts_ns = price, ts_ns
    if ts_ns < bar.open_ts_ns:
        bar.open, bar.open_ts_ns = price, ts_ns
    bar.volume += size
    bar.turnover += price * size
    if tick.side == "buy":
        bar.buy_volume += size
    bar.trade_count += 1
    return bar


def never(a: Sums, b: Sums) -> Sums:
    raise AssertionError("tumbling windows do not merge")


def publish(name: str, interval: timedelta) -> None:
    def row(item: tuple[str, tuple[int, Sums]]) -> KafkaSinkMessage[bytes, bytes]:
        instrument, (window, sums) = item
        start_ns = window * int(interval.total_seconds()) * 10**9
        bar = {
            "instrument": instrument,
            "type": name,
            "start_ns": start_ns,
            **msgspec.structs.asdict(sums),
        }
        return KafkaSinkMessage(f"{instrument}|{name}|{start_ns}".encode(), encode(bar))

    windower = win.TumblingWindower(length=interval, align_to=EPOCH)
    folded = win.fold_window(name, ticks, clock, windower, Sums, add, never)
    kop.output(
        f"{name}-out",
        op.map(f"{name}-rows", folded.down, row),
        brokers=[os.environ["BROKER"]],
        topic=os.environ["BARS"],
    )


flow = Dataflow("bars")
source = kop.input("in", flow, brokers=[os.environ["BROKER"]], topics=[os.environ["TICKS"]])
ticks = op.map("decode", source.oks, decode)
clock = win.EventClock(instant, wait_for_system_duration=GRACE)
for bar_type, length in INTERVALS.items():
    publish(bar_type, length)
