"""The codecs on what venues really sent."""

import csv
import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from recorded import TICKS, needs_ticks
from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import SCALE, parse, render
from schemas.trade import Trade

pytestmark = [pytest.mark.recorded, needs_ticks]

SIDES = {"buy": 1, "sell": -1, "": 0}


def received(name: str) -> Iterator[bytes]:
    """The messages of a cryptofeed recording: lines `<recv seconds>: <json>`."""
    with gzip.open(TICKS / "cryptofeed_raw" / name, "rb") as lines:
        for line in lines:
            stamp, _, value = line.partition(b": ")
            if stamp.replace(b".", b"").isdigit():
                yield value.rstrip(b"\n")


@pytest.mark.parametrize(
    ("name", "feed", "marks"),
    [
        ("BINANCE.ws.1.0.gz", "binance", (b'"aggTrade"', b'"trade"')),
        ("BINANCE_FUTURES.ws.1.0.gz", "binance", (b'"aggTrade"', b'"trade"')),
        ("BINANCE_US.ws.1.0.gz", "binance", (b'"aggTrade"', b'"trade"')),
        ("COINBASE.ws.28.0.gz", "coinbase", (b'"match"', b'"last_match"')),
        ("KRAKEN.ws.50.0.gz", "kraken", (b'"trade"',)),
    ],
)
def test_every_message_of_a_recording_is_read_and_exactly_the_trades_are_trades(
    name: str, feed: str, marks: tuple[bytes, ...]
) -> None:
    codec = get_codec(feed)
    messages = list(received(name))
    trades = [trade for value in messages for trade in codec.decode(value)]
    assert len(messages) > 30
    assert len(trades) == sum(any(mark in value for mark in marks) for value in messages)


def test_the_coinbase_recording_is_read_field_by_field() -> None:
    decode = get_codec("coinbase").decode
    matches = [value for value in received("COINBASE.ws.28.0.gz") if b'match"' in value]
    assert len(matches) == 107
    for value in matches:
        (trade,) = decode(value)
        message = json.loads(value)
        assert (trade.symbol, trade.trade_id) == (message["product_id"], message["trade_id"])
        assert render(trade.price) == format(Decimal(message["price"]).normalize(), "f")
        assert trade.side == {"sell": 1, "buy": -1}[message["side"]]


@pytest.mark.parametrize(
    "path", sorted(TICKS.glob("binance_ws_20240808/*.gz")), ids=lambda path: path.name[:20]
)
def test_binance_recordings_are_read_field_by_field(path: Path) -> None:
    decode = get_codec("binance").decode
    with gzip.open(path, "rb") as lines:
        for line in lines:
            recv_ns, message = line.split(b" ", 1)
            data = json.loads(message)["data"]
            expected = Trade(
                symbol=data["s"],
                venue="",
                ts_ns=data["T"] * 10**6,
                price=int(Decimal(data["p"]).scaleb(SCALE)),
                size=int(Decimal(data["q"]).scaleb(SCALE)),
                trade_id=data["t"],
                side=-1 if data["m"] else 1,
                recv_ns=int(recv_ns),
            )
            assert decode(line) == (expected,)


@pytest.mark.parametrize("name", ["kraken_xbtusdt/trades.csv", "binance_xrpeth/trades.csv.gz"])
def test_canonical_csv_is_read_field_by_field(name: str) -> None:
    decode = get_codec("csv").decode
    opener = gzip.open if name.endswith(".gz") else open
    with opener(TICKS / name, "rt", encoding="utf-8", newline="") as file:
        lines = file.read().splitlines()
    assert decode(lines[0].encode()) == ()
    for line, row in zip(lines[1:], csv.DictReader(lines), strict=True):
        (trade,) = decode(line.encode())
        assert (trade.symbol, trade.ts_ns, trade.trade_id) == (
            row["symbol"],
            int(row["ts_ns"]),
            row["trade_id"],
        )
        assert (trade.price, trade.size) == (parse(row["price"]), parse(row["size"]))
        assert trade.side == SIDES[row["side"]]


@pytest.mark.parametrize(
    ("name", "trades"),
    [
        ("binance__ws_spot_trade", 1),
        ("binance__ws_spot_agg_trade", 1),
        ("binance__kline_stream_open", 0),
        ("binance__kline_stream_closed", 0),
        ("coinbase__ws_market_trades", 2),
        ("coinbase__ws_candles", 0),
        ("kraken__ws_trade_update", 2),
        ("kraken__ws_futures_trade", 1),
        ("kraken__ws_futures_trade_snapshot", 2),
        ("kraken__ws_ohlc_update", 0),
    ],
)
def test_single_payloads_are_read(name: str, trades: int) -> None:
    value = (TICKS / "venue_payloads" / f"{name}.json").read_bytes()
    assert len(get_codec(name.partition("__")[0]).decode(value)) == trades


@pytest.mark.parametrize("name", ["binance__trade_stream", "binance__agg_trade_stream"])
def test_the_invented_times_of_binances_documentation_are_out_of_range(name: str) -> None:
    value = (TICKS / "venue_payloads" / f"{name}.json").read_bytes()
    with pytest.raises(BadTick) as caught:
        get_codec("binance").decode(value)
    assert caught.value.reason == Reason.out_of_range
