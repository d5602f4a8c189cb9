"""1s and 1m bars with Pathway: sums are floats, each change of a bar is published, and no bar is ever closed.

Its watermark is that of the whole table: with a cutoff it would leave out the ticks of every partition that is
read later than another. It keeps no state on disk here.

    BROKER=127.0.0.1:9092 GROUP=g TICKS=ticks BARS=bars python pathway_bars.py
"""

from __future__ import annotations

import os

import pathway as pw

INTERVALS_NS = {"1s": 10**9, "1m": 60 * 10**9}

kafka = {
    "bootstrap.servers": os.environ["BROKER"],
    "group.id": os.environ["GROUP"],
    "auto.offset.reset": "earliest",
}


class Tick(pw.Schema):
    symbol: str
    venue: str
    ts_ns: int
    price: str
    size: str
    trade_id: int
    side: str


raw = pw.io.kafka.read(
    kafka, topic=os.environ["TICKS"], schema=Tick, format="json", autocommit_duration_ms=1_000
)
ticks = raw.select(
    pw.this.ts_ns,
    instrument=pw.this.venue + ":" + pw.this.symbol,
    price=pw.cast(float, pw.this.price),
    size=pw.cast(float, pw.this.size),
    bought=pw.cast(float, pw.this.side == "buy") * pw.cast(float, pw.this.size),
)
for name, interval_ns in INTERVALS_NS.items():
    windows = ticks.windowby(
        pw.this.ts_ns, window=pw.temporal.tumbling(duration=interval_ns), instance=pw.this.instrument
    )
    bars = windows.reduce(
        instrument=pw.this._pw_instance,
        type=name,
        start_ns=pw.this._pw_window_start,
        open=pw.reducers.earliest(pw.this.price),
        high=pw.reducers.max(pw.this.price),
        low=pw.reducers.min(pw.this.price),
        close=pw.reducers.latest(pw.this.price),
        volume=pw.reducers.sum(pw.this.size),
        turnover=pw.reducers.sum(pw.this.price * pw.this.size),
        buy_volume=pw.reducers.sum(pw.this.bought),
        trade_count=pw.reducers.count(),
    )
    pw.io.kafka.write(bars, kafka, topic_name=os.environ["BARS"], format="json", key=bars.instrument)

if __name__ == "__main__":
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
