"""From feedback to scales: what each partition may consume, decided from the latest of each store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from schemas.feedback import Feedback, Level
from streams.flow.policy import Policy

_SEVERITY = {Level.ok: 0, Level.soft: 1, Level.hard: 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """What one partition may consume, and whose feedback decided it."""

    partition: int
    scale: float
    reason: Level
    coordinator_id: str | None


class _Heard(NamedTuple):
    """Feedback, and the moment it counts from: its own, or when it came, if its clock is ahead of ours."""

    feedback: Feedback
    at: float


class RateController:
    """Keeps the latest feedback of every (partition, coordinator); the worst live one decides.

    A function of the set of latest feedback: duplicates and reordering change nothing, because
    feedback that is not newer than what is held (by epoch, then ts, then level) is ignored. A
    coordinator silent for `ttl_s` no longer counts, so no pause outlives the store that asked for it.
    The worst is the one for which `policy` gives the lowest scale, or which asks for that scale itself.
    """

    def __init__(self, policy: Policy, ttl_s: float = 10.0) -> None:
        self.ttl_s = ttl_s
        self.policy = policy
        self._latest: dict[int, dict[str, _Heard]] = {}
        self._decided: dict[int, tuple[float, float]] = {}
        """The scale that was decided last, and when."""

    def observe(self, feedback: Feedback, now: float) -> bool:
        """Take one feedback event; False if it is out of date. `now` is epoch seconds."""
        if feedback.ts < now - self.ttl_s:
            return False
        of_partition = self._latest.setdefault(feedback.partition, {})
        held = of_partition.get(feedback.coordinator_id)
        if held is not None and _order(feedback) <= _order(held.feedback):
            return False
        of_partition[feedback.coordinator_id] = _Heard(feedback, min(feedback.ts, now))
        return True

    def decide(self, partition: int, now: float) -> Decision:
        """The decision for a partition at `now` (epoch seconds), from who is live then."""
        scale, since = self._decided.get(partition, (1.0, now))
        decision = Decision(partition, 1.0, Level.ok, None)
        order: tuple[float, ...] = ()
        for feedback, at in self._upto(partition, now).values():
            if at < now - self.ttl_s:
                continue
            asked = self._asked(feedback, scale, max(0.0, now - since))
            # Of those who ask for the same it is always the same one: who it is, is told.
            worse = -asked, _SEVERITY[feedback.level]
            if (worse, feedback.coordinator_id) > (order, decision.coordinator_id or ""):
                order = worse
                decision = Decision(partition, asked, feedback.level, feedback.coordinator_id)
        self._decided[partition] = decision.scale, now
        return decision

    def _upto(self, partition: int, now: float) -> dict[str, _Heard]:
        """What was heard, never later than now: a clock that is set back must not prolong a pause."""
        of_partition = self._latest.get(partition, {})
        for coordinator_id, heard in of_partition.items():
            if heard.at > now:
                of_partition[coordinator_id] = heard._replace(at=now)
        return of_partition

    def _asked(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        asked = feedback.scale
        if asked is None:
            asked = self.policy.scale(feedback, scale, elapsed_s)
        return 1.0 if asked >= 1 else max(0.0, asked)

    def heard(self) -> Iterator[Feedback]:
        """The last word of each coordinator about each partition."""
        for of_partition in self._latest.values():
            for heard in of_partition.values():
                yield heard.feedback

    def expired(self, now: float) -> list[Feedback]:
        """Forget and return the last words of coordinators that have gone silent."""
        gone = []
        for partition in self._latest:
            of_partition = self._upto(partition, now)
            for coordinator_id, heard in list(of_partition.items()):
                if heard.at < now - self.ttl_s:
                    gone.append(of_partition.pop(coordinator_id).feedback)
        return gone

    def forget(self, partition: int) -> None:
        """Drop what is known of a partition that belongs to another worker now."""
        self._latest.pop(partition, None)
        self._decided.pop(partition, None)


def _order(feedback: Feedback) -> tuple[int, float, int]:
    return feedback.epoch, feedback.ts, _SEVERITY[feedback.level]
