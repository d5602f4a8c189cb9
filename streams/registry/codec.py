"""Ticks in Confluent's frames: any feed's codec on what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from schemas.codecs.base import Codec
from schemas.dead_letter import Reason
from schemas.errors import BadRecord, BadTick
from schemas.trade import Trade, Trades
from streams.registry.frames import Frames

if TYPE_CHECKING:
    from schemas.codecs.layout import Columns


class FramedCodec(Codec):
    """Opens each value, and leaves the rest to the codec of the feed.

    The ids in a batch must have been learnt before (`Frames.learn`): a codec asks nobody. Records stay as they
    are, so a dead letter holds the original bytes.
    """

    def __init__(self, inner: Codec, frames: Frames[bytes]) -> None:
        super().__init__(inner.venue)
        self._inner = inner
        self._frames = frames

    def decode(self, value: bytes | None) -> Sequence[Trade]:
        """See `Codec`."""
        return self._inner.decode(self._open(value) if value else value)

    def read_columns(self, values: Sequence[bytes | None]) -> Columns | None:
        """See `Codec`."""
        try:
            return self._inner.read_columns([value and self._open(value) for value in values])
        except BadTick:
            return None

    def decode_run(self, values: Sequence[bytes | None], start: int) -> Sequence[Any]:
        """See `Codec`."""
        return self._inner.decode_run(_Opened(self, values, start), 0)

    def columns(self, rows: Sequence[Any]) -> Trades:
        """See `Codec`."""
        return self._inner.columns(rows)

    def _trades(self, value: bytes) -> Sequence[Trade]:
        return self.decode(value)

    def _open(self, value: bytes) -> bytes:
        try:
            return self._frames.open(value)
        except BadRecord as exc:
            raise BadTick(Reason.malformed, str(exc)) from None


class _Opened(Sequence[bytes | None]):
    """The values from `start` on, opened when they are asked for: a run may end at any of them."""

    def __init__(self, codec: FramedCodec, values: Sequence[bytes | None], start: int) -> None:
        self._codec = codec
        self._values = values
        self._start = start

    def __len__(self) -> int:
        return len(self._values) - self._start

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes | None]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        value = self._values[self._start + at]
        try:
            return value and self._codec._open(value)
        except BadTick:
            return None  # no run takes it
