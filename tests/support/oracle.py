"""Bars by the plainest computation there is: group, sort, Decimal; nothing of the engine in it."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

SECOND = 10**9
STEPS = {"1s": SECOND, "5s": 5 * SECOND, "1m": 60 * SECOND, "5m": 300 * SECOND}

#: (instrument, type, start_ns)
Key = tuple[str, str, int]


class Content(NamedTuple):
    """What is compared of a bar."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trade_count: int | None


class Tick(NamedTuple):
    """A trade, in arrival order."""

    instrument: str
    ts_ns: int
    price: str
    size: str


def bars_of(ticks: Iterable[Tick], types: Iterable[str]) -> dict[Key, Content]:
    """The bars of ticks without duplicates; inside one timestamp their order is kept."""
    windows: defaultdict[Key, list[tuple[Decimal, Decimal]]] = defaultdict(list)
    names = list(types)
    for tick in sorted(ticks, key=lambda t: t.ts_ns):
        for name in names:
            key = (tick.instrument, name, tick.ts_ns // STEPS[name] * STEPS[name])
            windows[key].append((Decimal(tick.price), Decimal(tick.size)))
    return {key: _content(trades) for key, trades in windows.items()}


def _content(trades: list[tuple[Decimal, Decimal]]) -> Content:
    prices = [price for price, _ in trades]
    return Content(
        prices[0], max(prices), min(prices), prices[-1], sum((s for _, s in trades), Decimal(0)), len(trades)
    )


def _rows(path: Path) -> Iterable[dict[str, str]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def published_kraken(folder: Path) -> dict[int, Content]:
    """Kraken's own 1m bars by start, its empty minutes left out."""
    return {
        int(row["start_ns"]): Content(
            *(Decimal(row[k]) for k in ("open", "high", "low", "close", "volume")), int(row["count"])
        )
        for row in _rows(folder / "kraken_xbtusdt" / "ohlc_1m_published.csv")
        if int(row["count"])
    }


def published_xrpeth(folder: Path, bar_type: str) -> dict[int, Content]:
    """The bars that an independent program made of the XRPETH trades, by start; they have no count."""
    return {
        int(row["start_ns"]): Content(
            *(Decimal(row[k]) for k in ("open", "high", "low", "close", "volume")), None
        )
        for row in _rows(folder / "binance_xrpeth" / f"bars_{bar_type}_freqtrade.csv.gz")
    }


def binance_lines(path: Path) -> list[bytes]:
    """The lines of a recording, as they are."""
    with gzip.open(path) as file:
        return [line.rstrip(b"\n") for line in file]


def binance_tick(line: bytes, venue: str) -> Tick:
    """A line of a Binance recording."""
    data = json.loads(line.split(b" ", 1)[1])["data"]
    return Tick(f"{venue}:{data['s']}", data["T"] * 10**6, data["p"], data["q"])
