"""Dead letters that are replayed, as the engine meets them; what they are is told at the head of `judge`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.dead_letter import Reason
from schemas.errors import BadRecord, BadTick
from schemas.replay import REPLAYED, Replay, find_replay
from schemas.trade import Trade
from streams.bars.types import BarSpec, Record

if TYPE_CHECKING:
    from streams.bars.book import Book


def replay_of(record: Record) -> Replay | None:
    """Raises BadTick: where it is not known which of its trades have counted, none may count again."""
    try:
        return find_replay(record.headers)
    except BadRecord as bad:
        raise BadTick(Reason.malformed, f"nobody knows what it replays: {bad}") from None


def only(index: int, trades: Sequence[Trade]) -> tuple[int, Trade]:
    """The one trade that is replayed, numbered. Raises BadTick where the record has no such trade."""
    if index >= len(trades):
        raise BadTick(Reason.malformed, f"it replays trade {index}, counted from 0, and has {len(trades)}")
    return index, trades[index]


def has_counted(book: Book, identity: str, spec: BarSpec) -> bool:
    """Whether this replayed trade has counted before."""
    seen_ns = book.seen.get(identity)
    return seen_ns is not None and seen_ns >= replays_from_ns(book, spec)


def replays_from_ns(book: Book, spec: BarSpec) -> int:
    """The watermark from which on replays are remembered: what counted before it is too late to do so again."""
    return min(book.watermark_ns - (spec.dedupe_ns or 0), book.earliest_ns(spec))


def is_replayed(key: str | int) -> bool:
    """Whether this is the identity of a replayed trade, and no trade id."""
    return isinstance(key, str) and key.startswith(REPLAYED)
