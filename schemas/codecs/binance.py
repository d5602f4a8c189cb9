"""Binance websocket events `trade` and `aggTrade`: spot, margined futures, US.

    {"e":"trade","E":1639351062244,"s":"ETHUSDT","t":705291099,"p":"4149.74000000","q":"0.43870000",
     "T":1639351062243,"m":true,"M":true}

Bare, or wrapped in `{"stream":..,"data":..}`; a recorder's receive time in ns and a space may stand in front.
`T` is the event time, in ms, or in us where the connection asked for timeUnit=MICROSECOND: no time can be
mistaken for the other unit. `m` says that the buyer is the maker, so the aggressor sells.
"""

from collections.abc import Sequence
from typing import Any, final

import msgspec

from schemas.checks import MAX_COUNT, make_trade
from schemas.codecs.base import Codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import shorten
from schemas.trade import Trade

_FIELDS = {"time": "T", "symbol": "s", "price": "p", "size": "q", "buyer_is_maker": "m", "kind": "X"}


@final
class _Trade(msgspec.Struct, gc=False, tag_field="e", tag="trade", rename={**_FIELDS, "trade_id": "t"}.get):
    time: int
    symbol: str
    trade_id: int
    price: str
    size: str
    buyer_is_maker: bool
    kind: str = "MARKET"


@final
class _AggTrade(
    msgspec.Struct,
    gc=False,
    tag_field="e",
    tag="aggTrade",
    rename={**_FIELDS, "trade_id": "a", "first": "f", "last": "l"}.get,
):
    time: int
    symbol: str
    trade_id: int
    price: str
    size: str
    first: int
    last: int
    buyer_is_maker: bool


class _Frame(msgspec.Struct, gc=False):
    stream: str
    data: _Trade | _AggTrade


_bare = msgspec.json.Decoder(_Trade | _AggTrade).decode
_frame = msgspec.json.Decoder(_Frame).decode

_MICROSECONDS = 10**14
"""From here on `T` is in us: as ms it would be the year 5138, and as us everything below is before 1974."""


class BinanceCodec(Codec):
    """Leaves out what futures publish beside market trades, as Binance's own klines do.

    Their field `X` tells: transfers of the insurance fund and deleveraging come as `trade` events too, at
    prices nobody traded at, zero included.
    """

    feed = "binance"

    def _trades(self, value: bytes) -> Sequence[Trade]:
        recv_ns = None
        if value[:1] != b"{":
            recv_ns, value = _split(value)
        event: _Trade | _AggTrade
        # Binance itself writes "e" first: the search, which costs more, is for frames and rewritten messages.
        wrapped = not value.startswith(b'{"e"') and b'"data"' in value
        event = _frame(value).data if wrapped else _bare(value)
        count = 1
        if type(event) is _AggTrade:
            count = event.last - event.first + 1
            if not 1 <= count <= MAX_COUNT:
                raise BadTick(Reason.malformed, f"f..l: {event.first}..{event.last} is no range of trades")
        elif event.kind != "MARKET":
            return ()
        time = event.time
        trade = make_trade(
            event.symbol,
            self.venue,
            time * 1_000_000 if time < _MICROSECONDS else time * 1_000,
            event.price,
            event.size,
            event.trade_id,
            -1 if event.buyer_is_maker else 1,
            count,
            recv_ns,
            hint="is T in ms, or in us?",
        )
        return (trade,)

    def _carries_no_trade(self, value: bytes) -> bool:
        message = msgspec.json.decode(_split(value)[1])
        if isinstance(message, dict) and isinstance(message.get("stream"), str):
            message = message.get("data")
        if isinstance(message, list):  # streams of all symbols, !ticker@arr
            return bool(message) and all(map(_other_event, message))
        return _other_event(message)


def _split(value: bytes) -> tuple[int | None, bytes]:
    if value[:1].isdigit():
        recv_ns, space, rest = value.partition(b" ")
        if space and recv_ns.isdigit():
            if len(recv_ns) > 19:
                raise BadTick(Reason.out_of_range, f"recv_ns: {shorten(recv_ns.decode())} is not in ns")
            return int(recv_ns), rest
    return None, value


def _other_event(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    event = message.get("e")
    if event is None:  # book tickers, partial books and answers to requests name no event
        return bool(message.keys() & {"u", "lastUpdateId", "result", "error"})
    return isinstance(event, str) and event not in ("trade", "aggTrade")
