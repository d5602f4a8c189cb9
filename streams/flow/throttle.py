"""Acting on feedback: from events on the feedback topic to the valve, with every change said once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError

from schemas.errors import BadRecord
from schemas.feedback import Feedback, Level, decode_feedback
from schemas.rate import RateAdjustment, encode_rate
from streams.batch import Batch
from streams.flow.controller import Decision, RateController
from streams.flow.valve import Valve
from streams.producer import BarrierProducer, hint_for

log = structlog.get_logger(__name__)


class Held(NamedTuple):
    """A partition that is held back: why, and since when it is (epoch seconds)."""

    decision: Decision
    since: float


class _Said(NamedTuple):
    """What was told last of a partition, and when."""

    scale: float
    coordinator_id: str | None
    at: float
    lost: bool = False
    """Whether it did not get there."""


#: How often it is said again that feedback is too old, or that decisions cannot be told.
_TELL_S = 30.0

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.pauses = 0
        self.owned: frozenset[int] = frozenset()
        self._valve = valve
        self._controller = controller
        self._producer = producer
        self._topic = topic
        self._provider = provider
        self._clock = clock
        self.held: dict[int, Held] = {}
        self._said: dict[int, _Said] = {}
        self._undelivered: deque[tuple[int, KafkaError]] = deque()
        self._complained = self._said_old = -_TELL_S

    async def take(self, batch: Batch) -> None:
        """Take the feedback of one batch."""
        now = self._clock()
        unreadable: list[tuple[int, BadRecord]] = []
        old: Feedback | None = None
        for record in batch.records:
            try:
                feedback = decode_feedback(record.value)
                if feedback.partition != record.partition:
                    raise BadRecord(f"it speaks of partition {feedback.partition}")
            except BadRecord as exc:
                unreadable.append((record.offset, exc))
                continue
            self._controller.observe(feedback, now)
            old = feedback if feedback.ts < now - self._controller.ttl_s else None
        if old is not None:
            self._say_old(old, now)
        if unreadable:
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

    def _say_old(self, feedback: Feedback, now: float) -> None:
        """The newest there is counts no more: where clocks differ, it would be ignored without a word."""
        if time.monotonic() - self._said_old >= _TELL_S:
            self._said_old = time.monotonic()
            log.warning(
                "feedback.old",
                coordinator=feedback.coordinator_id,
                partition=feedback.partition,
                level=feedback.level.value,
                age_s=round(now - feedback.ts, 1),
                ttl_s=self._controller.ttl_s,
                consequence="it does not count",
                hint="are the clocks of both machines right? if so, this worker is behind on its topic",
            )

    async def hear(self, said: Iterable[Feedback]) -> None:
        """Take feedback that did not come through `take`."""
        now = self._clock()
        for partition in {feedback.partition for feedback in said if self._controller.observe(feedback, now)}:
            await self._decide(partition, now)

    async def refresh(self) -> None:
        """Decide again for all owned partitions, now, and tell again what did not get there."""
        now = self._clock()
        self._take_back()
        for feedback in self._controller.expired(now):
            partition = feedback.partition
            if partition not in self.owned:
                continue
            decided = self._controller.decide(partition, now)
            if feedback.level is Level.ok and decided.coordinator_id is not None:
                continue  # it has let go of the partition: another store worker has it, and speaks
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
        partition, scale = decision.partition, decision.scale
        self._valve.set(partition, scale)
        now = self._clock()
        before = self.held.pop(partition, None)
        if scale < 1:
            self.held[partition] = Held(decision, before.since if before else now)
        said = self._said.get(partition)
        # What its last owner told does not hold any more, even if nothing is held back now.
        moved = said is None or _has_moved(scale, said, now)
        if said is not None and not moved and not said.lost and not _is_by_another(decision, said, now):
            return
        self._said[partition] = _Said(scale, decision.coordinator_id, now)
        if moved and (scale < 1 or (said is not None and said.scale < 1)):
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
            self._topic,
            encode_rate(adjustment),
            key=str(partition).encode(),
            partition=partition,
            on_error=partial(self._not_delivered, partition),
        )

    def _not_delivered(self, partition: int, error: KafkaError) -> None:
        self._undelivered.append((partition, error))  # in the producer's thread

    def _take_back(self) -> None:
        """What was not delivered has not been told."""
        lost: dict[int, KafkaError] = {}
        while self._undelivered:
            partition, error = self._undelivered.popleft()
            lost[partition] = error
        for partition in lost.keys() & self._said.keys():
            self._said[partition] = self._said[partition]._replace(lost=True)
        if lost and time.monotonic() - self._complained >= _TELL_S:
            self._complained = time.monotonic()
            error = next(iter(lost.values()))
            log.warning(
                "rate.untold",
                topic=self._topic,
                partitions=sorted(lost),
                error=error.str(),
                hint=hint_for(error),
                consequence="ticks are held back as decided, but neither status nor feeds know",
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


def _has_moved(scale: float, said: _Said, now: float) -> bool:
    if scale == said.scale:
        return False
    if scale in (0, 1) or said.scale in (0, 1):
        return True
    return abs(scale - said.scale) >= _STEP and now - said.at >= _OFTEN_S


def _is_by_another(decision: Decision, said: _Said, now: float) -> bool:
    """Whether who is shown to hold a partition back is not the one who does."""
    return decision.scale < 1 and decision.coordinator_id != said.coordinator_id and now - said.at >= _OFTEN_S
