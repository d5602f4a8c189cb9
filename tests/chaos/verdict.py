"""What is wrong, and around which fault."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.expected import Version
from support.oracle import Key

#: How long after its end a fault may still be the reason of an exit.
AFTERMATH_S = 30.0


@dataclass(slots=True)
class Moment:
    """A fault on the time line."""

    what: str
    kind: str
    began: float
    worker: str = ""
    """The one that it hit; empty where it was all of them."""
    ended: float | None = None
    recovered_s: float | None = None
    """From the beginning to bars of newer ticks in the store, on every partition."""

    @property
    def mended_s(self) -> float | None:
        """From when it was mended to such bars; a broker that has to start is not mended until it answers."""
        if self.recovered_s is None or self.ended is None:
            return None
        return max(0.0, self.began + self.recovered_s - self.ended)

    def may_explain(self, worker: str, at: float) -> bool:
        """Whether it may be why a worker exits."""
        return self.worker in ("", worker) and (self.ended is None or at - self.ended < AFTERMATH_S)

    def distance_s(self, at: float) -> float:
        """How far it is from an instant; 0 while it lasted."""
        return max(self.began - at, at - (self.ended or self.began), 0.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """A bar that is not as it must be."""

    where: str
    what: str
    """missing, too many or unequal"""
    key: Key
    found: Version | None
    expected: Version | None
    sent_at: float | None
    """When the last of its ticks was sent."""


def compare(
    where: str, found: Mapping[Key, Version], expected: Mapping[Key, Version], sent_ms: Mapping[Key, int]
) -> list[Difference]:
    """Every bar that differs."""
    differences = []
    for key in sorted(expected.keys() | found.keys()):
        one, other = found.get(key), expected.get(key)
        if one != other:
            what = "missing" if one is None else "too many" if other is None else "unequal"
            sent_at = sent_ms[key] / 1000 if key in sent_ms else None
            differences.append(Difference(where, what, key, one, other, sent_at))
    return differences


@dataclass
class Verdict:
    """All that was found to be wrong."""

    differences: list[Difference] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Whatever else must not be: dead letters, repeated versions, exits that nothing explains."""

    @property
    def good(self) -> bool:
        return not self.differences and not self.complaints

    def lines(self, timeline: Sequence[Moment], examples: int = 4) -> list[str]:
        """For people: what differs, by place and by the nearest fault, with examples."""
        told = []
        for (where, what), count in Counter((d.where, d.what) for d in self.differences).items():
            told.append(f"{where}: {count} bars {what}")
            some = [d for d in self.differences if (d.where, d.what) == (where, what)]
            near = Counter(_nearest(d, timeline) for d in some)
            told += [f"    {count} x sent {place}" for place, count in near.most_common(8)]
            for d in some[:examples]:
                told.append(f"    {'|'.join(map(str, d.key))}  sent {_nearest(d, timeline)}")
                told.append(f"      found    {_text(d.found)}")
                told.append(f"      expected {_text(d.expected)}")
        return [*told, *self.complaints]


def _nearest(difference: Difference, timeline: Sequence[Moment]) -> str:
    at = difference.sent_at
    if at is None:
        return "never"
    if not timeline:
        return "without any fault"
    moment = min(timeline, key=lambda m: m.distance_s(at))
    if (distance_s := moment.distance_s(at)) == 0:
        return f"during {moment.what}"
    when = "before" if at < moment.began else "after"
    return f"{'within' if distance_s <= 5 else 'more than'} 5 s {when} {moment.what}"


def _text(version: Version | None) -> str:
    if version is None:
        return "nothing"
    content = ", ".join(f"{name} {value}" for name, value in version.content._asdict().items())
    state = "final" if version.final else "not final"
    return f"{content}, last offset {version.last_offset}, revision {version.revision}, {state}"


def clock(at: float) -> str:
    """An instant for the time line."""
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.1f}"[1:]
