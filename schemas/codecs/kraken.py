"""Kraken's trade messages: websocket v2, websocket v1, and futures.

    {"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,
     "ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"}]}
    [337,[["5541.20000","0.15850568","1534614057.321597","s","l",""]],"trade","XBT/USD"]
    {"feed":"trade","product_id":"PI_XBTUSD","uid":"05af..","side":"sell","type":"fill","seq":653355,
     "time":1612266317519,"qty":15000,"price":34969.5}

`side` is the taker's in all of them. v1 gives no trade ids, so its repetitions cannot be recognised. Futures
list the newest trade of a `trade_snapshot` first: it is turned round. Numbers are read as they are written.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from schemas.checks import make_trade
from schemas.codecs.base import Codec, text_of
from schemas.codecs.times import iso_to_ns, seconds_to_ns
from schemas.trade import Trade

_SIDES = {"buy": 1, "sell": -1, "b": 1, "s": -1}


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]
    price: msgspec.Raw
    qty: msgspec.Raw
    trade_id: int
    timestamp: str


class _Message(msgspec.Struct, gc=False):
    channel: Literal["trade"]
    type: Literal["update", "snapshot"]
    data: list[_Trade]


class _V1Trade(msgspec.Struct, gc=False, array_like=True):
    price: str
    volume: str
    time: str
    side: Literal["b", "s"]


class _V1Message(msgspec.Struct, gc=False, array_like=True):
    channel_id: int
    trades: list[_V1Trade]
    channel: Literal["trade"]
    pair: str


class _FuturesTrade(msgspec.Struct, gc=False, tag_field="feed", tag="trade"):
    product_id: str
    uid: str
    side: Literal["buy", "sell"]
    time: int
    qty: msgspec.Raw
    price: msgspec.Raw


class _FuturesSnapshot(msgspec.Struct, gc=False, tag_field="feed", tag="trade_snapshot"):
    product_id: str
    trades: list[_FuturesTrade]


_v2 = msgspec.json.Decoder(_Message).decode
_v1 = msgspec.json.Decoder(_V1Message).decode
_futures = msgspec.json.Decoder(_FuturesTrade | _FuturesSnapshot).decode


class KrakenCodec(Codec):
    """Only v1 sends arrays, and only futures name a feed."""

    feed = "kraken"

    def _trades(self, value: bytes) -> Sequence[Trade]:
        if value.lstrip().startswith(b"["):
            message = _v1(value)
            return [self._v1_trade(message.pair, trade) for trade in message.trades]
        if b'"feed"' in value:
            futures = _futures(value)
            if isinstance(futures, _FuturesSnapshot):
                return [self._futures_trade(trade) for trade in reversed(futures.trades)]
            return (self._futures_trade(futures),)
        return [self._v2_trade(trade) for trade in _v2(value).data]

    def _v2_trade(self, trade: _Trade) -> Trade:
        return make_trade(
            trade.symbol,
            self.venue,
            iso_to_ns(trade.timestamp),
            text_of(trade.price),
            text_of(trade.qty),
            trade.trade_id,
            _SIDES[trade.side],
            hint="is its year right?",
        )

    def _v1_trade(self, pair: str, trade: _V1Trade) -> Trade:
        return make_trade(
            pair,
            self.venue,
            seconds_to_ns(trade.time),
            trade.price,
            trade.volume,
            None,
            _SIDES[trade.side],
            hint="is time in seconds?",
        )

    def _futures_trade(self, trade: _FuturesTrade) -> Trade:
        return make_trade(
            trade.product_id,
            self.venue,
            trade.time * 1_000_000,
            text_of(trade.price),
            text_of(trade.qty),
            trade.uid,
            _SIDES[trade.side],
            hint="is time in ms?",
        )

    def _carries_no_trade(self, value: bytes) -> bool:
        message: Any = msgspec.json.decode(value)
        if isinstance(message, list):  # v1: [channelID, data.., channelName, pair]
            return len(message) > 3 and isinstance(message[-2], str) and message[-2] != "trade"
        if not isinstance(message, dict):
            return False
        # Heartbeats, and answers to requests: {"event":"subscribed","feed":"trade"}, {"method":"subscribe"}.
        if isinstance(message.get("event"), str) or isinstance(message.get("method"), str):
            return True
        kind = message.get("channel", message.get("feed"))
        return isinstance(kind, str) and kind not in ("trade", "trade_snapshot")
