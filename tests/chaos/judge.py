"""The end of a run: what the log of ticks must have led to, and what is there."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chaos import expected as expecting
from chaos.cluster import GRACE_S, Cluster
from chaos.expected import Expected, Version
from chaos.flawed import GARBAGE
from chaos.readings import BarsTopic, Follower, StoreView
from chaos.slots import Exit
from chaos.verdict import Moment, Verdict, compare
from schemas.dead_letter import HEADER
from support.oracle import Key


@dataclass
class Outcome:
    """What a run led to."""

    verdict: Verdict = field(default_factory=Verdict)
    timeline: list[Moment] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    unexplained: list[Exit] = field(default_factory=list)
    starts: int = 0
    sent: int = 0
    resent: int = 0
    """Records that the log has once more: a client may repeat what a killed broker did not answer."""
    garbage: int = 0
    expected: Expected = field(default_factory=Expected)
    compared: dict[str, int] = field(default_factory=dict)
    bars_published: int = 0
    bars_offsets: int = 0
    bars_compacted: int = 0
    """Offsets up to which the broker has compacted them."""
    seconds: float = 0.0

    def recoveries(self) -> list[float]:
        """Seconds from a fault to bars of newer ticks on every partition, ascending."""
        return sorted(m.recovered_s for m in self.timeline if m.recovered_s is not None)


class Judge:
    """Compares everything, and enters it into the outcome."""

    def __init__(
        self,
        cluster: Cluster,
        outcome: Outcome,
        sent: Mapping[str, int],
        store: StoreView,
        supervise: Callable[[], None],
    ) -> None:
        self.outcome = outcome
        self._cluster = cluster
        self._sent = sent
        self._store = store
        self._supervise = supervise

    def judge(self, settle_s: float, quiet_s: float) -> None:
        """Wait until bars are right, for `settle_s` at most, or have been wrong for `quiet_s` without a change."""
        outcome, prefix = self.outcome, self._cluster.prefix
        expected = outcome.expected
        garbage = self._read_log(expected)
        topic = BarsTopic(self._cluster.kafka.address, f"{prefix}bars.v1")
        try:
            stored = self._settled(topic, settle_s, quiet_s)
            for where, bars in (("store", stored), ("bars topic", topic.read())):
                outcome.compared[where] = len(bars)
                outcome.verdict.differences += compare(where, bars, expected.bars, expected.sent_ms)
            outcome.bars_published, outcome.bars_offsets = topic.records, topic.span()
            outcome.bars_compacted = self._cluster.compacted("bars.v1")
            if self._cluster.setup.delivery == "exactly_once" and topic.repeated:
                outcome.verdict.complaints.append(
                    f"{len(topic.repeated)} versions of bars were published twice: {topic.repeated[:3]}"
                )
        finally:
            topic.close()
        self._judge_dead_letters(garbage)
        if outcome.unexplained:
            outcome.verdict.complaints.append(
                f"{len(outcome.unexplained)} exits of workers that no fault excuses:\n"
                + "\n".join(e.last_lines for e in outcome.unexplained[:3])
            )

    def _settled(self, topic: BarsTopic, settle_s: float, quiet_s: float) -> dict[Key, Version]:
        """Wait until store and topic are as they must be, or are not and do not change; gives the stored bars."""
        expected = self.outcome.expected.bars
        deadline = time.monotonic() + settle_s
        before, changed_at = (-1, -1), time.monotonic()
        while True:
            self._supervise()
            stored, published = self._store.bars(), topic.read()
            if stored == published == expected or time.monotonic() > deadline:
                return stored
            now = (sum(bar.last_offset for bar in stored.values()), topic.records)
            if now != before:
                before, changed_at = now, time.monotonic()
            elif time.monotonic() - changed_at > quiet_s:
                return stored
            time.sleep(0.5)

    def _read_log(self, expected: Expected) -> set[tuple[str, int, int]]:
        """Enter what must come of the ticks that the broker has; gives the places of the garbage."""
        garbage: set[tuple[str, int, int]] = set()
        for name, parse in (("ticks.v1", expecting.own_tick), ("ticks.spot", expecting.spot_tick)):
            topic = f"{self._cluster.prefix}{name}"
            follower = Follower(self._cluster.kafka.address, topic)
            try:
                messages = list(follower.new(120))
            finally:
                follower.close()
            resent = len(messages) - self._sent[topic]
            # What the log has once more is one more duplicate that must be found, where they are looked for.
            if resent < 0 or (resent and not self._cluster.setup.dedupe):
                raise RuntimeError(
                    f"{topic} holds {len(messages)} records of {self._sent[topic]} that were sent: "
                    "the broker or the load is at fault, and nothing can be said of the workers"
                )
            self.outcome.resent += resent
            marked = {(topic, m.partition(), m.offset()) for m in messages if _is_garbage(m)}
            ticks = (parse(m) for m in messages if (topic, m.partition(), m.offset()) not in marked)
            expecting.add_logged(expected, ticks, GRACE_S * 10**9)
            garbage |= marked
        return garbage

    def _judge_dead_letters(self, garbage: set[tuple[str, int, int]]) -> None:
        follower = Follower(self._cluster.kafka.address, f"{self._cluster.prefix}ticks.dlq.v1")
        letters: Counter[tuple[str, int, int]] = Counter()
        reasons: dict[tuple[str, int, int], str] = {}
        try:
            for message in follower.new():
                letter = json.loads(dict(message.headers() or [])[HEADER])
                place = (letter["topic"], letter["partition"], letter["offset"])
                letters[place] += 1
                reasons[place] = f"{letter['reason']}: {letter['detail']}"
        finally:
            follower.close()
        complaints = self.outcome.verdict.complaints
        if unknown := letters.keys() - garbage:
            some = [f"{place}: {reasons[place]}" for place in sorted(unknown)[:3]]
            complaints.append(f"{len(unknown)} dead letters of records that are no garbage: {some}")
        if missing := garbage - letters.keys():
            complaints.append(f"{len(missing)} records of garbage have no dead letter: {sorted(missing)[:3]}")
        twice = [place for place, count in letters.items() if count > 1]
        if self._cluster.setup.delivery == "exactly_once" and twice:
            complaints.append(f"{len(twice)} dead letters were published twice: {sorted(twice)[:3]}")


def _is_garbage(message: object) -> bool:
    return any(name == GARBAGE for name, _ in (message.headers() or []))  # type: ignore[attr-defined]
