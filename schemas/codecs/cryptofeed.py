"""Trades as Cryptofeed's Kafka backend writes them.

    {"exchange":"COINBASE","symbol":"BTC-USD","side":"buy","amount":1.2,"price":64342.12,"id":"23454323","type":"limit",
     "timestamp":1634865952.143,"receipt_timestamp":1634865952.2}

Times are seconds. Numbers are floats, or strings where its `numeric_type` is `str`; both are read as they are
written. `side` is the aggressor's; the venue is the exchange.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from schemas.checks import make_trade
from schemas.codecs.base import Codec, text_of
from schemas.codecs.times import seconds_to_ns
from schemas.tick import SIDES
from schemas.trade import Trade


class _Message(msgspec.Struct, gc=False):
    exchange: str
    symbol: str
    amount: msgspec.Raw
    price: msgspec.Raw
    timestamp: msgspec.Raw
    side: Literal["buy", "sell"] | None = None
    id: str | int | None = None
    receipt_timestamp: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Message).decode

# What only Cryptofeed's other channels have: books, tickers, candles, liquidations, funding, open interest.
_OTHER = {"book", "delta", "bid", "ask", "open", "quantity", "mark_price", "rate", "open_interest"}


class CryptofeedCodec(Codec):
    """Its other channels carry no trades, liquidations included: the venue reports their trades too."""

    feed = "cryptofeed"

    def _trades(self, value: bytes) -> Sequence[Trade]:
        message = _decode(value)
        receipt = text_of(message.receipt_timestamp)
        trade = make_trade(
            message.symbol,
            self.venue or message.exchange,
            seconds_to_ns(text_of(message.timestamp)),
            text_of(message.price),
            text_of(message.amount),
            message.id,
            SIDES[message.side],
            recv_ns=None if receipt == "null" else seconds_to_ns(receipt),
            hint="is timestamp in seconds?",
        )
        return (trade,)

    def _carries_no_trade(self, value: bytes) -> bool:
        message = msgspec.json.decode(value)
        return (
            isinstance(message, dict)
            and {"exchange", "symbol"} <= message.keys()
            and bool(_OTHER & message.keys())
        )
