"""1s and 1m bars with Quix Streams: windows in RocksDB with a changelog, sums are floats, late ticks are left out.

BROKER=127.0.0.1:9092 GROUP=g TICKS=ticks BARS=bars python quix_bars.py
"""

from __future__ import annotations

import os
from typing import Any

from quixstreams import Application

GRACE_MS = 2_000
INTERVALS_MS = {"1s": 1_000, "1m": 60_000}

app = Application(
    broker_address=os.environ["BROKER"],
    consumer_group=os.environ["GROUP"],
    auto_offset_reset="earliest",
    commit_interval=1.0,
    state_dir="quix-state",
    loglevel="WARNING",
)
ticks = app.topic(
    os.environ["TICKS"],
    value_deserializer="json",
    timestamp_extractor=lambda value, *_: value["ts_ns"] // 1_000_000,
)
bars = app.topic(os.environ["BARS"], value_serializer="json")


def first(tick: dict[str, Any]) -> dict[str, Any]:
    price, size, ts_ns = float(tick["price"]), float(tick["size"]), tick["ts_ns"]
    bought = size if tick["side"] == "buy" else 0.0
    return {
        "open": price,
        "high": price,
        "low": price,
        "close": price,
        "open_ts_ns": ts_ns,
        "close_ts_ns": ts_ns,
        "volume": size,
        "turnover": price * size,
        "buy_volume": bought,
        "trade_count": 1,
    }


def add(bar: dict[str, Any], tick: dict[str, Any]) -> dict[str, Any]:
    price, size, ts_ns = float(tick["price"]), float(tick["size"]), tick["ts_ns"]
    if price > bar["high"]:
        bar["high"] = price
    elif price < bar["low"]:
        bar["low"] = price
    if ts_ns >= bar["close_ts_ns"]:
        bar["close"], bar["close_ts_ns"] = price, ts_ns
    if ts_ns < bar["open_ts_ns"]:
        bar["open"], bar["open_ts_ns"] = price, ts_ns
    bar["volume"] += size
    bar["turnover"] += price * size
    if tick["side"] == "buy":
        bar["buy_volume"] += size
    bar["trade_count"] += 1
    return bar


def publish(name: str, interval_ms: int) -> None:
    def row(window: dict[str, Any], key: bytes, *_: object) -> dict[str, Any]:
        return {
            "instrument": key.decode(),
            "type": name,
            "start_ns": window["start"] * 1_000_000,
            **window["value"],
        }

    windows = source.tumbling_window(interval_ms, grace_ms=GRACE_MS).reduce(add, first).final()
    windows.apply(row, metadata=True).to_topic(bars)


source = app.dataframe(ticks)
for bar_type, interval in INTERVALS_MS.items():
    publish(bar_type, interval)

if __name__ == "__main__":
    app.run()
