"""One line of Tidegate's canonical CSV as the record's value, without quoting.

    symbol,ts_ns,recv_ns,price,size,trade_id,side,cond
    BTCUSDT,1723161255342000000,1723161254087896568,61837.63,0.02,3735683259,sell,

`recv_ns`, `trade_id` and `side` may be empty; `cond`, the venue's conditions, is not read and may hold
commas. A header line carries no trade.
"""

from collections.abc import Sequence

from schemas.checks import make_trade
from schemas.codecs.base import Codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import shorten
from schemas.trade import Trade

COLUMNS = "symbol,ts_ns,recv_ns,price,size,trade_id,side,cond"

_SIDES = {"buy": 1, "sell": -1, "": 0}


class CsvCodec(Codec):
    """The file's own order of columns, always; one line a record."""

    feed = "csv"

    def _trades(self, value: bytes) -> Sequence[Trade]:
        line = value.decode().rstrip("\r\n")
        if line == COLUMNS:
            return ()
        fields = line.split(",", 7)
        if len(fields) != 8 or "\n" in line:
            raise BadTick(Reason.malformed, f"{shorten(line)} is not one line of {COLUMNS}")
        symbol, ts_ns, recv_ns, price, size, trade_id, side, _ = fields
        if side not in _SIDES:
            raise BadTick(Reason.malformed, f"side: {shorten(side)} is neither buy nor sell")
        trade = make_trade(
            symbol,
            self.venue,
            _integer(ts_ns, "ts_ns"),
            price,
            size,
            trade_id or None,
            _SIDES[side],
            recv_ns=_integer(recv_ns, "recv_ns") if recv_ns else None,
        )
        return (trade,)


def _integer(text: str, field: str) -> int:
    if not (text.isdigit() and text.isascii() and len(text) < 20):
        raise BadTick(Reason.not_a_number, f"{field}: {shorten(text)} is not a time in ns")
    return int(text)
