"""Bars of recorded markets against what the venues and other programs published."""

import csv
import gzip
import json
from collections import defaultdict
from decimal import ROUND_DOWN, Decimal

import pytest
from barlog import Reader, Rec, spec

from recorded import TICKS, needs_ticks
from schemas.codecs import get_codec
from streams.bars.engine import BarEngine

pytestmark = [pytest.mark.recorded, needs_ticks]

MINUTE = 60 * 10**9
LENGTHS = {"1s": 10**9, "1m": MINUTE, "5m": 5 * MINUTE}


def rows(name):
    """The rows of a CSV file."""
    path = TICKS / name
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        yield from csv.DictReader(file)


def bars_of(feed, records, *types):
    """{type: {(symbol, start_ns): bar}} of records that come in batches of 500."""
    engine, reader = BarEngine(spec(*types), get_codec(feed), "ticks", 3), Reader()
    for at in range(0, len(records), 500):
        reader.take(engine.apply(records[at : at + 500], 0))
    reader.read(engine.close())
    assert reader.counts.accepted == reader.counts.ticks == len(records)
    bars = defaultdict(dict)
    for bar in reader.held.values():
        assert bar.final
        assert bar.revision == 0
        bars[bar.type][bar.symbol, bar.start_ns] = bar
    return bars


def csv_records(name):
    return [
        Rec(offset, ",".join(row.values()).encode(), int(row["ts_ns"]) // 10**6)
        for offset, row in enumerate(rows(name))
    ]


def prices_and_volume(bar):
    return tuple(Decimal(number) for number in (bar.open, bar.high, bar.low, bar.close, bar.volume))


def published(name):
    """{start_ns: (open, high, low, close, volume)}."""
    columns = ("open", "high", "low", "close", "volume")
    return {int(row["start_ns"]): tuple(Decimal(row[column]) for column in columns) for row in rows(name)}


def test_kraken_publishes_the_same_273_minutes() -> None:
    name = "kraken_xbtusdt/ohlc_1m_published.csv"
    ours = {
        start: bar
        for (_, start), bar in bars_of("csv", csv_records("kraken_xbtusdt/trades.csv"), "1m")["1m"].items()
    }
    first, last = min(ours), max(ours)
    theirs = {
        int(row["start_ns"]): row
        for row in rows(name)
        if row["count"] != "0" and first < int(row["start_ns"]) <= last  # the first is cut by the page
    }
    del ours[first]
    assert ours.keys() == theirs.keys()
    assert len(ours) == 273
    numbers = published(name)
    for start, bar in ours.items():
        assert prices_and_volume(bar) == numbers[start]
        assert bar.trade_count == int(theirs[start]["count"])
        assert Decimal(bar.vwap).quantize(Decimal("0.1"), ROUND_DOWN) == Decimal(theirs[start]["vwap"])


@pytest.mark.parametrize(("bar_type", "many"), [("1m", 2469), ("5m", 706)])
def test_an_independent_program_makes_the_same_bars_of_xrpeth(bar_type, many) -> None:
    theirs = published(f"binance_xrpeth/bars_{bar_type}_freqtrade.csv.gz")
    ours = bars_of("csv", csv_records("binance_xrpeth/trades.csv.gz"), bar_type)[bar_type]
    assert len(ours) == many
    assert {start: prices_and_volume(bar) for (_, start), bar in ours.items()} == theirs


def exact_bars(trades, interval_ns):
    """{(symbol, start_ns): (open, high, low, close, volume, count)}, in Decimal, of trades in order."""
    bars = {}
    for symbol, ts_ns, price, size in trades:
        bar = bars.setdefault(
            (symbol, ts_ns // interval_ns * interval_ns), [price, price, price, price, Decimal(0), 0]
        )
        bar[1:4] = max(bar[1], price), min(bar[2], price), price
        bar[4] += size
        bar[5] += 1
    return {key: tuple(bar) for key, bar in bars.items()}


@pytest.mark.parametrize("market", ["spot", "cm", "usdm"])
def test_binance_websocket_trades_make_the_exact_bars(market) -> None:
    lines = []
    for path in sorted((TICKS / "binance_ws_20240808").glob(f"{market}_*.trades.jsonl.gz")):
        lines += gzip.decompress(path.read_bytes()).splitlines()
    lines.sort(key=lambda line: int(line.split(b" ", 1)[0]))
    records = [Rec(offset, line, None) for offset, line in enumerate(lines)]
    events = [json.loads(line.split(b" ", 1)[1])["data"] for line in lines]
    trades = [(e["s"], e["T"] * 10**6, Decimal(e["p"]), Decimal(e["q"])) for e in events]
    bars = bars_of("binance", records, "1s", "1m")
    for bar_type in ("1s", "1m"):
        ours = {key: (*prices_and_volume(bar), bar.trade_count) for key, bar in bars[bar_type].items()}
        assert ours == exact_bars(trades, LENGTHS[bar_type])
