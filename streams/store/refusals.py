"""Bars that do not get into the store: dead letters, and what people hear of them."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress

import structlog

from schemas.bar import Bar
from schemas.dead_letter import DeadLetter, Reason, encode_dead_letter
from schemas.errors import BadBar, BadRecord
from schemas.replay import find_replay, headers_of_dead_letter, tell_origin
from streams.batch import Record
from streams.producer import BarrierProducer

TELL_S = 30.0

log = structlog.get_logger(__name__)


class Refusals:
    """Makes dead letters. They tell of each bar; the log tells of the first of a kind."""

    def __init__(self, producer: BarrierProducer, topic: str) -> None:
        self.by_reason: Counter[Reason] = Counter()
        self._producer = producer
        self._topic = topic
        self._conflicting: set[str] = set()
        self._refused = 0
        self._told = -TELL_S

    @property
    def dead_lettered(self) -> int:
        """Bars, and records that are none."""
        return self.by_reason.total()

    async def refused(self, record: Record, error: BadBar) -> None:
        """A bar that the database refuses, whatever is tried."""
        self._refused += 1
        if time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            log.error("bar.refused", error=str(error), refused=self._refused, topic=self._topic)
        await self.bury(record, Reason.refused, str(error))

    async def conflict(self, record: Record, bar: Bar) -> None:
        """A bar whose row is stored from another partition."""
        source = f"{bar.source_topic}[{bar.source_partition}]"
        if bar.instrument not in self._conflicting:  # once an instrument
            self._conflicting.add(bar.instrument)
            log.error(
                "bar.conflict",
                instrument=bar.instrument,
                type=bar.type,
                start_ns=bar.start_ns,
                source=source,
                hint="its bars are stored from another partition: key ticks by instrument",
            )
        detail = (
            f"{bar.instrument} {bar.type} start_ns={bar.start_ns}: stored from another source than {source}"
        )
        await self.bury(record, Reason.conflict, detail)

    async def bury(self, record: Record, reason: Reason, detail: str) -> None:
        """Send one dead letter; it is durable after the producer's next barrier."""
        self.by_reason[reason] += 1
        letter = DeadLetter(
            reason=reason,
            detail=detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            ts=time.time(),
        )
        with suppress(BadRecord):  # of a header that cannot be read nothing can be told
            if (replay := find_replay(record.headers)) is not None:
                tell_origin(letter, replay)
        await self._producer.send(
            self._topic,
            record.value,
            key=record.key,
            partition=record.partition,
            headers=headers_of_dead_letter(record.headers, encode_dead_letter(letter)),
        )
