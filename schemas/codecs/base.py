"""What a codec is: the bytes of one record in, the trades in it out.

    codec = get_codec("binance", venue="BINANCE")
    for trade in codec.decode(record.value): ...

A codec judges each record by itself: no state, no clock, no order. An empty result is a message of the feed
that carries no trade. Everything else that is no trade raises BadTick, and nothing else is ever raised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from schemas.checks import check_venue
from schemas.dead_letter import Reason
from schemas.errors import BadTick, ConfigError
from schemas.trade import Trade, Trades

if TYPE_CHECKING:
    from schemas.codecs.layout import Columns


class Codec(ABC):
    """One feed's messages. `venue` is the configured one: it names what the messages leave open."""

    feed: ClassVar[str]

    def __init__(self, venue: str = "") -> None:
        try:
            self.venue = check_venue(venue)
        except BadTick as error:
            raise ConfigError(error.detail) from None

    def decode(self, value: bytes | None) -> Sequence[Trade]:
        """The trades of one record; raises BadTick, and nothing else, whatever the bytes."""
        if not value:
            raise BadTick(Reason.empty, "the record has no value")
        try:
            try:
                return self._trades(value)
            except msgspec.ValidationError as error:
                if self._carries_no_trade(value):
                    return ()
                raise BadTick(Reason.malformed, self._explain(value, error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadTick(Reason.malformed, str(error)) from None

    def read_columns(self, values: Sequence[bytes | None]) -> Columns | None:
        """All records at once, where each is exactly one good trade and the feed can do so; else None."""
        return None

    def decode_run(self, values: Sequence[bytes | None], start: int) -> Sequence[Any]:
        """The records from `start` on, up to the first that is anything but one trade, as `columns` takes them.

        A feed that can do many at a time faster than one by one does it here; others give none, and `decode`
        is asked.
        """
        return ()

    def columns(self, rows: Sequence[Any]) -> Trades:
        """Rows of `decode_run`. Raises BadTick if one of them is no good trade: `decode` tells why.

        Rows are records, unless a feed has some of its own kind.
        """
        trades = Trades.none()
        for row in rows:
            for trade in self.decode(row):
                trades.append(trade)
        return trades

    @abstractmethod
    def _trades(self, value: bytes) -> Sequence[Trade]:
        """The hot path. A msgspec.ValidationError means that the value is JSON of another shape."""

    def _carries_no_trade(self, value: bytes) -> bool:
        """Whether JSON of another shape is still a message that this feed sends."""
        return False

    def _explain(self, value: bytes, error: msgspec.ValidationError) -> str:
        """Why it is no trade, for people."""
        return str(error)


def text_of(raw: msgspec.Raw) -> str:
    """A number exactly as written, or a string: for feeds that write prices as either."""
    text = bytes(raw)
    return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()
