"""Ticks that count in no bar: why, in words, and their dead letters."""

from __future__ import annotations

from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import BadTick
from schemas.fixed import render
from schemas.replay import Replay, tell_origin
from streams.bars.types import SECOND, Record


def refusal(
    topic: str,
    partition: int,
    record: Record,
    index: int,
    bad: BadTick,
    now_ns: int,
    replay: Replay | None,
) -> DeadLetter:
    """The dead letter of trade `index` of a record, or of all of it; that of a replay names the origin."""
    stamp_ms = record.timestamp
    letter = DeadLetter(
        reason=bad.reason,
        detail=bad.detail,
        topic=topic,
        partition=partition,
        offset=record.offset,
        index=index,
        timestamp_ms=None if stamp_ms is None or stamp_ms < 0 else stamp_ms,
        ts=now_ns / SECOND,
    )
    if replay is not None:
        tell_origin(letter, replay)
    return letter


def future(ts_ns: int, received_ns: int | None, max_future_ns: int) -> BadTick:
    """A tick dated further ahead of its receipt than allowed."""
    if received_ns is None:
        detail = "neither the tick nor its record says when it was received, so its date cannot be trusted"
    else:
        ahead = _seconds(ts_ns - received_ns)
        detail = f"dated {ahead} ahead of its receipt, {_seconds(max_future_ns)} are allowed"
    return BadTick(Reason.future, detail)


def late_tick(ts_ns: int, watermark_ns: int, floor_ns: int) -> BadTick:
    """A tick that is too late to count."""
    behind, allowed = _seconds(watermark_ns - ts_ns), _seconds(watermark_ns - floor_ns)
    return BadTick(Reason.late, f"{behind} behind the instrument's newest tick, {allowed} are allowed")


def _seconds(ns: int) -> str:
    return f"{render(ns, 9)} s"
