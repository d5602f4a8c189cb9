"""Acting on feedback: from events on the feedback topic to the valve, with every change said once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import structlog

from schemas.errors import BadRecord
from schemas.feedback import Feedback, Level, decode_feedback
from schemas.rate import OPERATOR, RateAdjustment, encode_rate
from streams.batch import Batch
from streams.flow.controller import Decision, RateController
from streams.flow.holds import Holds
from streams.flow.valve import Valve
from streams.producer import BarrierProducer

log = structlog.get_logger(__name__)


class Held(NamedTuple):
    """A partition that is held back: why, and since when it is (epoch seconds)."""

    decision: Decision
    since: float


class _Said(NamedTuple):
    """What was told last of a partition, and when."""

    scale: float
    at: float


#: A scale that has moved by less, or been told so recently, is not told again; that it is 0, or 1, always is.
_STEP, _OFTEN_S = 0.05, 1.0


class Throttle:
    """Turns feedback into scales on the valve, and publishes what it decided.

    Contract: only partitions this worker owns are touched. Garbage on the feedback topic is logged
    and changes nothing. `refresh` must be called regularly: it is what ends a pause whose store has
    gone silent, and what brings a newly owned partition under its store's last word.
    """

    def __init__(
        self,
        valve: Valve,
        controller: RateController,
        producer: BarrierProducer,
        topic: str,
        provider: str,
        *,
        holds: Holds | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.pauses = 0
        self.events: Counter[Level] = Counter()
        """Feedback that was read, by level."""
        self.unreadable = 0
        self.owned: frozenset[int] = frozenset()
        self._valve = valve
        self._controller = controller
        self._producer = producer
        self._topic = topic
        self._provider = provider
        self._holds = holds or Holds()
        self._clock = clock
        self.held: dict[int, Held] = {}
        self._said: dict[int, _Said] = {}

    async def take(self, batch: Batch) -> None:
        """Take the feedback of one batch."""
        now = self._clock()
        unreadable: list[tuple[int, BadRecord]] = []
        for record in batch.records:
            try:
                feedback = decode_feedback(record.value)
                if feedback.partition != record.partition:
                    raise BadRecord(f"it speaks of partition {feedback.partition}")
            except BadRecord as exc:
                unreadable.append((record.offset, exc))
                continue
            self.events[feedback.level] += 1
            self._controller.observe(feedback, now)
        if unreadable:
            self.unreadable += len(unreadable)
            offset, error = unreadable[0]
            log.warning(
                "feedback.unreadable",
                where=f"{batch.tp.topic}[{batch.tp.partition}]@{offset}",
                error=str(error),
                records=len(unreadable),
                hint="who else writes to this topic?",
            )
        batch.ack()
        await self._decide(batch.tp.partition, now)

    async def hear(self, said: Iterable[Feedback]) -> None:
        """Take feedback that did not come through `take`."""
        now = self._clock()
        for partition in {feedback.partition for feedback in said if self._controller.observe(feedback, now)}:
            await self._decide(partition, now)

    def heard(self) -> list[Feedback]:
        """What was said last of the partitions of this worker, by each who still counts."""
        return [feedback for feedback in self._controller.heard() if feedback.partition in self.owned]

    async def refresh(self) -> None:
        """Decide again for all owned partitions, now."""
        now = self._clock()
        for feedback in self._controller.expired(now):
            partition = feedback.partition
            if partition not in self.owned:
                continue
            if self._controller.decide(partition, now).coordinator_id is not None:
                continue  # another store worker has taken the partition over, and speaks
            log.warning(
                "feedback.silent",
                coordinator=feedback.coordinator_id,
                partition=feedback.partition,
                last_level=feedback.level.value,
                for_s=round(now - feedback.ts, 1),
                hint="its store worker has stopped, lost the partition, or cannot reach the broker",
            )
        for partition in self.owned:
            await self._decide(partition, now)

    def own(self, partitions: Iterable[int]) -> None:
        """Take note of the partitions this worker owns now; others are released."""
        gone = self.owned - (owned := frozenset(partitions))
        self.owned = owned
        for partition in gone:
            self._valve.release(partition)
            self._controller.forget(partition)
            self.held.pop(partition, None)
            self._said.pop(partition, None)

    async def _decide(self, partition: int, now: float) -> None:
        # Not of others: the time that they are elsewhere is no time of this scale or that.
        if partition in self.owned:
            await self._apply(self._controller.decide(partition, now))

    async def _apply(self, decision: Decision) -> None:
        if (operator := self._holds.by(decision.partition)) is not None:
            decision = replace(decision, scale=0.0, coordinator_id=f"{OPERATOR}{operator}")
        partition, scale = decision.partition, decision.scale
        self._valve.set(partition, scale)
        now = self._clock()
        before = self.held.pop(partition, None)
        if scale < 1:
            self.held[partition] = Held(decision, before.since if before else now)
        said = self._said.get(partition)
        # What its last owner told does not hold any more, even if nothing is held back now.
        if said is not None and not _is_news(scale, said, now):
            return
        self._said[partition] = _Said(scale, now)
        if scale < 1 or (said is not None and said.scale < 1):
            self._log(decision, before, now)
        adjustment = RateAdjustment(
            provider=self._provider,
            scale=scale,
            reason=decision.reason,
            ts=now,
            partition=partition,
            coordinator_id=decision.coordinator_id,
            since=self.held[partition].since if scale < 1 else None,
        )
        await self._producer.send(
            self._topic, encode_rate(adjustment), key=str(partition).encode(), partition=partition
        )

    def _log(self, decision: Decision, before: Held | None, now: float) -> None:
        if decision.scale == 0:
            self.pauses += 1
        log.info(
            "partition.paused"
            if decision.scale == 0
            else "partition.slowed"
            if decision.scale < 1
            else "partition.resumed",
            partition=decision.partition,
            scale=round(decision.scale, 3),
            reason=decision.reason.value
            if decision.coordinator_id or decision.reason is not Level.ok
            else "silent",
            coordinator=decision.coordinator_id,
            after_s=round(now - before.since, 2) if before is not None else None,
        )


def _is_news(scale: float, said: _Said, now: float) -> bool:
    if scale == said.scale:
        return False
    if scale in (0, 1) or said.scale in (0, 1):
        return True
    return abs(scale - said.scale) >= _STEP and now - said.at >= _OFTEN_S
