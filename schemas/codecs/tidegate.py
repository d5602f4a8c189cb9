"""Tidegate's own JSON, one tick a record; `schemas.tick.Tick` is its public contract.

{"symbol":"BTCUSDT","venue":"BINANCE","ts_ns":1723161255342000000,"price":"61837.63","size":"0.02","side":"sell"}
"""

from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from schemas.checks import MAX_COUNT, make_trade
from schemas.codecs.base import Codec, text_of
from schemas.errors import BadRecord
from schemas.tick import SIDES, Tick
from schemas.trade import Trade

N = TypeVar("N", str, msgspec.Raw)


class _Row(msgspec.Struct, Generic[N], gc=False):
    symbol: str
    ts_ns: int
    price: N
    size: N
    venue: str | None = None
    trade_id: str | int | None = None
    side: Literal["buy", "sell"] | None = None
    recv_ns: int | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] | None = None


_strings = msgspec.json.Decoder(_Row[str]).decode
_numbers = msgspec.json.Decoder(_Row[msgspec.Raw]).decode


class TidegateCodec(Codec):
    """Prices as strings take the fast path; JSON numbers are read as the digits they are written in."""

    feed = "tidegate"

    def _trades(self, value: bytes) -> tuple[Trade]:
        try:
            row = _strings(value)
        except msgspec.ValidationError:
            loose = _numbers(value)
            return self._trade(loose, text_of(loose.price), text_of(loose.size))
        return self._trade(row, row.price, row.size)

    def _trade(self, row: _Row[str] | _Row[msgspec.Raw], price: str, size: str) -> tuple[Trade]:
        trade = make_trade(
            row.symbol,
            self.venue or row.venue or "",
            row.ts_ns,
            price,
            size,
            row.trade_id,
            SIDES[row.side],
            row.count or 1,
            row.recv_ns,
        )
        return (trade,)

    def _explain(self, value: bytes, error: msgspec.ValidationError) -> str:
        try:
            Tick.from_json(value)
        except BadRecord as refusal:
            return str(refusal)
        return str(error)
