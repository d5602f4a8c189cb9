"""Tidegate's own JSON, one tick a record; `schemas.tick.Tick` is its public contract.

{"symbol":"BTCUSDT","venue":"BINANCE","ts_ns":1723161255342000000,"price":"61837.63","size":"0.02","side":"sell"}
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Annotated, Generic, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from schemas.checks import (
    MAX_COUNT,
    MAX_ID,
    MAX_NS,
    MIN_INT_ID,
    MIN_NS,
    check_symbol,
    check_venue,
    make_trade,
)
from schemas.codecs.base import Codec, text_of
from schemas.errors import BadRecord, BadTick
from schemas.fixed import parse
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
    count: Annotated[int, Meta(ge=1, le=MAX_COUNT)] | None = None


# Narrower than what is allowed: the rest is judged one by one.
_IntId = Annotated[int, Meta(ge=MIN_INT_ID, le=2**63 - 1)]
_TextId = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
_Ns = Annotated[int, Meta(ge=MIN_NS, le=MAX_NS)]


class _Usual(msgspec.Struct, gc=False):
    """A row as nearly all are. With its numbers parsed it is a trade: no object more a tick."""

    symbol: str
    ts_ns: _Ns
    price: str
    size: str
    venue: str | None = ""
    trade_id: _IntId | _TextId | None = None
    side: Literal["buy", "sell"] | None = None
    recv_ns: _Ns | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_COUNT)] | None = 1


_strings = msgspec.json.Decoder(_Row[str]).decode
_numbers = msgspec.json.Decoder(_Row[msgspec.Raw]).decode
_usual = msgspec.json.Decoder(_Usual).decode


class TidegateCodec(Codec):
    """Prices as strings take the fast path; JSON numbers are read as the digits they are written in."""

    feed = "tidegate"

    def decode_run(self, values: Sequence[bytes | None], start: int) -> list[Trade]:
        """See `Codec`: pass by pass, most of them in C."""
        rows: list[_Usual] = []
        # `extend` keeps what came before the value that is refused.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            rows.extend(map(_usual, islice(values, start, None)))  # type: ignore[arg-type]
        trades = cast("list[Trade]", rows)
        del trades[_parse_numbers(rows) :]
        own_venue = self.venue
        if own_venue or None in {trade.venue for trade in trades}:
            for trade in trades:
                trade.venue = own_venue or trade.venue or ""
        if None in {trade.count for trade in trades}:
            for trade in trades:
                trade.count = trade.count or 1
        if not _are_usable(trades):
            del trades[next(at for at, trade in enumerate(trades) if not _are_usable([trade])) :]
        return trades

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


def _parse_numbers(rows: list[_Usual]) -> int:
    """Put numbers for texts, up to the first row whose texts are not; gives how many rows that makes."""
    for at, row in enumerate(rows):
        try:
            row.price = parse(row.price)  # type: ignore[assignment]
            row.size = size = parse(row.size)  # type: ignore[assignment]
        except ValueError:
            return at
        if size < 0:  # type: ignore[operator]
            return at
        row.side = SIDES[row.side]  # type: ignore[assignment]
    return len(rows)


def _are_usable(trades: list[Trade]) -> bool:
    """Whether what `_usual` does not check, names and ids that are text, is as it must be."""
    try:
        for symbol in {trade.symbol for trade in trades}:
            check_symbol(symbol)
        for venue in {trade.venue for trade in trades}:
            check_venue(venue)
    except BadTick:
        return False
    return "".join([i for trade in trades if (i := trade.trade_id).__class__ is str]).isprintable()  # type: ignore[misc]
