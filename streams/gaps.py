"""What to do when a log does not hold the position at which it is to be read on."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from faust.types import TP

from schemas.errors import RecordsLost
from streams.settings import TickTopic

log = structlog.get_logger(__name__)


class TickGaps:
    """Gaps in topics read by the bars role: an error, unless the topic's ticks may be lost.

    Called in the consumer's thread.
    """

    def __init__(self, tick_topics: Iterable[TickTopic]) -> None:
        self._lost = {tick.topic: tick.lost for tick in tick_topics}

    def leap(self, tp: TP, position: int, first: int, end: int) -> int:
        """The offset to go on at. Raises `RecordsLost`."""
        lost = self._lost.get(tp.topic)
        if lost is None:
            return end  # feedback: what it said is stale by now
        if position > end or lost == "stop":
            raise gap_error(
                tp,
                position,
                first,
                end,
                'raise the topic\'s retention.ms; with `lost = "skip"` the worker goes on without them',
            )
        log.error(
            "ticks.lost",
            partition=f"{tp.topic}[{tp.partition}]",
            count=first - position,
            first_offset=position,
            last_offset=first - 1,
            consequence="their bars are incomplete",
        )
        return first


def bars_gap(tp: TP, position: int, first: int, end: int) -> int:
    """Gaps in the bars topic are errors of the store role."""
    raise gap_error(
        tp,
        position,
        first,
        end,
        "the bars topic should be compacted, not deleted from: see `tidegate topics plan`; "
        "`kafka-consumer-groups --reset-offsets --to-earliest` goes on without them",
    )


def gap_error(tp: TP, position: int, first: int, end: int, hint: str) -> RecordsLost:
    """Says which records are gone. `first` is the first offset the log holds, `end` the one after its last."""
    where = f"{tp.topic}[{tp.partition}]"
    if position < first:
        return RecordsLost(
            f"{where}: {first - position} records were deleted before they were read: "
            f"offsets {position} to {first - 1}",
            hint=hint,
        )
    return RecordsLost(
        f"{where}: the log ends at offset {end}, but it was read up to {position} already: {position - end} "
        "records are gone from its end, or the topic was deleted and made anew",
        hint="if it was made anew, `tidegate state reset` starts it afresh",
    )
