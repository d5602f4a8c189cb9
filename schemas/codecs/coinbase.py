"""Coinbase's trade messages: Exchange `match` and `last_match`, Advanced Trade `market_trades`.

    {"type":"match","trade_id":280232,"side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC",
     "sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}
    {"channel":"market_trades","events":[{"type":"update","trades":[{"trade_id":"995098700","product_id":"BTC-USD",
     "price":"68900.50","size":"0.00150000","side":"BUY","time":"2026-04-07T14:30:02.789012Z"}]}]}

`side` is the maker's in both, so the aggressor did the opposite. `last_match` repeats the last trade before
the subscription. Where the trades of one event run from the newest to the oldest, they are turned round.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from schemas.checks import make_trade
from schemas.codecs.base import Codec
from schemas.codecs.times import iso_to_ns
from schemas.trade import Trade

_AGGRESSOR = {"buy": -1, "sell": 1, "BUY": -1, "SELL": 1}


class _Match(msgspec.Struct, gc=False):
    type: Literal["match", "last_match"]
    trade_id: int
    side: Literal["buy", "sell"]
    size: str
    price: str
    product_id: str
    time: str


class _MarketTrade(msgspec.Struct, gc=False):
    trade_id: str
    product_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    time: str


class _Event(msgspec.Struct, gc=False):
    trades: list[_MarketTrade]


class _MarketTrades(msgspec.Struct, gc=False):
    channel: Literal["market_trades"]
    events: list[_Event]


_match = msgspec.json.Decoder(_Match).decode
_market_trades = msgspec.json.Decoder(_MarketTrades).decode


class CoinbaseCodec(Codec):
    """Only Advanced Trade names a channel."""

    feed = "coinbase"

    def _trades(self, value: bytes) -> Sequence[Trade]:
        if b'"channel"' not in value:
            return (self._trade(_match(value)),)
        trades: list[Trade] = []
        for event in _market_trades(value).events:
            of_event = [self._trade(trade) for trade in event.trades]
            if of_event and of_event[0].ts_ns > of_event[-1].ts_ns:
                of_event.reverse()
            trades += of_event
        return trades

    def _trade(self, trade: _Match | _MarketTrade) -> Trade:
        return make_trade(
            trade.product_id,
            self.venue,
            iso_to_ns(trade.time),
            trade.price,
            trade.size,
            trade.trade_id,
            _AGGRESSOR[trade.side],
            hint="is its year right?",
        )

    def _carries_no_trade(self, value: bytes) -> bool:
        message = msgspec.json.decode(value)
        if not isinstance(message, dict):
            return False
        kinds = [message[key] for key in ("channel", "type") if isinstance(message.get(key), str)]
        return bool(kinds) and not {"match", "last_match", "market_trades"} & set(kinds)
