"""Tidegate's own JSON, one tick a record; `schemas.tick.Tick` is its public contract.

{"symbol":"BTCUSDT","venue":"BINANCE","ts_ns":1723161255342000000,"price":"61837.63","size":"0.02","side":"sell"}
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from schemas.checks import (
    MAX_COUNT,
    MAX_ID,
    MAX_NS,
    MIN_INT_ID,
    MIN_NS,
    check_names,
    check_ns,
    make_trade,
)
from schemas.codecs.base import Codec, text_of
from schemas.dead_letter import Reason
from schemas.errors import BadRecord, BadTick
from schemas.fixed import parse
from schemas.tick import SIDES, Tick
from schemas.trade import Trade, Trades

if TYPE_CHECKING:
    from schemas.codecs.layout import Columns, Layout
    from schemas.codecs.roster import Roster

N = TypeVar("N", str, msgspec.Raw)

_MOST_MISSES = 127


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
    """A row as nearly all are."""

    symbol: str
    ts_ns: _Ns
    price: str
    size: str
    venue: str | None = None
    trade_id: _IntId | _TextId | None = None
    side: Literal["buy", "sell"] | None = None
    recv_ns: _Ns | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_COUNT)] | None = None


_strings = msgspec.json.Decoder(_Row[str]).decode
_numbers = msgspec.json.Decoder(_Row[msgspec.Raw]).decode
_usual = msgspec.json.Decoder(_Usual).decode


class TidegateCodec(Codec):
    """Prices as strings take the fast path; JSON numbers are read as the digits they are written in."""

    feed = "tidegate"

    def __init__(self, venue: str = "") -> None:
        super().__init__(venue)
        self._layout: Layout | None = None
        self._roster: Roster | None = None
        self._misses = self._passes = 0
        """Where no batch is of one layout it costs time to try: more and more of them are passed over."""

    def read_columns(self, values: Sequence[bytes | None]) -> Columns | None:
        """See `Codec`. The layout is that of the last batch, or else of this one's first record."""
        if self._passes:
            self._passes -= 1
            return None
        columns = self._read_columns(values)
        if columns is None:
            self._passes, self._misses = self._misses // 2, min(2 * self._misses + 1, _MOST_MISSES)
        else:
            self._misses = 0
        return columns

    def _read_columns(self, values: Sequence[bytes | None]) -> Columns | None:
        # It takes its time to import: not for those who only ask for help.
        from schemas.codecs.layout import Layout, NotSo
        from schemas.codecs.roster import Roster

        roster = self._roster = self._roster or Roster(self.venue)
        known = self._layout
        try:
            if known is not None:
                return self._usable(known.columns(values, roster))
        except (NotSo, BadTick):
            pass  # the producer writes otherwise now, or one record is not like the others
        try:
            first = values[0] or b""
            _usual(first)
            self._layout = layout = Layout(first)
            return None if layout == known else self._usable(layout.columns(values, roster))
        except (NotSo, BadTick, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def decode_run(self, values: Sequence[bytes | None], start: int) -> list[_Usual]:
        """See `Codec`."""
        rows: list[_Usual] = []
        # `extend` keeps what came before the value that is refused.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            rows.extend(map(_usual, islice(values, start, None)))  # type: ignore[arg-type]
        return rows

    def columns(self, rows: Sequence[Any]) -> Trades:
        """See `Codec`."""
        ids = [row.trade_id for row in rows]
        if not "".join([i for i in ids if i.__class__ is str]).isprintable():
            raise BadTick(Reason.malformed, "a trade id cannot be used")
        try:
            prices = [parse(row.price) for row in rows]
            sizes = [parse(row.size) for row in rows]
        except ValueError as error:
            raise BadTick(Reason.not_a_number, str(error)) from None
        if min(sizes) < 0:
            raise BadTick(Reason.negative_size, "a size is negative")
        names = [(self.venue or row.venue or "", row.symbol) for row in rows]
        check_names(names)
        return Trades(
            names,
            [row.ts_ns for row in rows],
            prices,
            sizes,
            ids,
            [SIDES[row.side] for row in rows],
            [row.count or 1 for row in rows],
            [row.recv_ns for row in rows],
        )

    def _usable(self, columns: Columns) -> Columns:
        """Raises BadTick unless every trade is a good one."""
        for times in (columns.ts_ns, columns.recv_ns):
            if times is not None:
                check_ns(int(times.min()))
        if columns.count is not None and not 1 <= columns.count.min() <= columns.count.max() <= MAX_COUNT:
            raise BadTick(Reason.malformed, "a count is out of range")
        if isinstance(columns.trade_id, list):
            lengths = set(map(len, columns.trade_id))
            if not 1 <= min(lengths) <= max(lengths) <= MAX_ID or not "".join(columns.trade_id).isprintable():
                raise BadTick(Reason.malformed, "a trade id cannot be used")
        return columns

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
