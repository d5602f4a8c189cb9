"""From feedback to scales: what each partition may consume, decided from the latest of each store."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.feedback import Feedback, Level

#: Fraction of the unthrottled consumption at each level.
SCALES = {Level.ok: 1.0, Level.soft: 0.5, Level.hard: 0.0}

_SEVERITY = {Level.ok: 0, Level.soft: 1, Level.hard: 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """What one partition may consume, and whose feedback decided it."""

    partition: int
    scale: float
    reason: Level
    coordinator_id: str | None


class RateController:
    """Keeps the latest feedback of every (partition, coordinator); the worst live one decides.

    A function of the set of latest feedback: duplicates and reordering change nothing, because
    feedback that is not newer than what is held (by epoch, then ts) is ignored. A coordinator
    silent for `ttl_s` no longer counts, so no pause outlives the store that asked for it.
    """

    def __init__(self, ttl_s: float = 10.0) -> None:
        self.ttl_s = ttl_s
        self._latest: dict[int, dict[str, Feedback]] = {}

    def observe(self, feedback: Feedback, now: float) -> bool:
        """Take one feedback event; False if it is out of date. `now` is epoch seconds."""
        if feedback.ts < now - self.ttl_s:
            return False
        of_partition = self._latest.setdefault(feedback.partition, {})
        held = of_partition.get(feedback.coordinator_id)
        if held is not None and (feedback.epoch, feedback.ts) <= (held.epoch, held.ts):
            return False
        of_partition[feedback.coordinator_id] = feedback
        return True

    def decide(self, partition: int, now: float) -> Decision:
        """The decision for a partition at `now` (epoch seconds), from who is live then."""
        live = [f for f in self._latest.get(partition, {}).values() if f.ts >= now - self.ttl_s]
        if not live:
            return Decision(partition, SCALES[Level.ok], Level.ok, None)
        worst = max(live, key=lambda f: (_SEVERITY[f.level], f.ts, f.coordinator_id))
        return Decision(partition, SCALES[worst.level], worst.level, worst.coordinator_id)

    def expired(self, now: float) -> list[Feedback]:
        """Forget and return the last words of coordinators that have gone silent."""
        gone = []
        for of_partition in self._latest.values():
            for coordinator_id, feedback in list(of_partition.items()):
                if feedback.ts < now - self.ttl_s:
                    gone.append(of_partition.pop(coordinator_id))
        return gone

    def forget(self, partition: int) -> None:
        """Drop what is known of a partition that belongs to another worker now."""
        self._latest.pop(partition, None)
