"""Which fault comes when: a function of the seed alone."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: A fault that lasts until the others do without whom it hit.
UNTIL_RECOVERED = math.inf


@dataclass(frozen=True, slots=True)
class Kind:
    """What there is to know of a fault before it happens."""

    name: str
    resource: str
    """What it takes away: worker, more (the extra worker), link, broker, database or storage."""
    lasts_s: tuple[float, float] = (0.0, 0.0)

    @property
    def of_one_worker(self) -> bool:
        """Whether it hits one worker, and not all of them."""
        return self.resource in ("worker", "link", "storage")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of the schedule."""

    number: int
    kind: Kind
    worker: int
    """The worker that it hits, from 0, or -1."""
    lasts_s: float
    gap_s: float
    """How long after the system has recovered from the last fault, or after the last fault began."""
    hurry: bool
    """It does not wait for the system to recover: it hits while the last fault does."""

    def __str__(self) -> str:
        where = f" of worker {self.worker + 1}" if self.kind.of_one_worker else ""
        lasts = f" for {self.lasts_s:.1f} s" if 0 < self.lasts_s < UNTIL_RECOVERED else ""
        return f"#{self.number} {self.kind.name}{where}{lasts}"


def schedule(
    seed: int, faults: int, kinds: Sequence[Kind], *, workers: int = 3, hurry: float = 0.25
) -> list[Step]:
    """So many faults; every kind comes as often as any other, in an order and at times that the seed decides.

    `hurry` is the share of those that do not wait until the system has recovered from the one before. They
    hit something else than it does: a broker that is dead cannot be killed.
    """
    rng = random.Random(seed)
    steps: list[Step] = []
    bag: list[Kind] = []
    for number in range(1, faults + 1):
        if not bag:
            bag = list(kinds)
            rng.shuffle(bag)
        kind = bag.pop()
        hurried = bool(steps) and rng.random() < hurry and not _collide(kind, steps)
        steps.append(
            Step(
                number,
                kind,
                rng.randrange(workers) if kind.of_one_worker else -1,
                round(rng.uniform(*kind.lasts_s), 1),
                round(rng.uniform(0.5, 3.0), 1),
                hurried,
            )
        )
    return steps


def _collide(kind: Kind, steps: Sequence[Step]) -> bool:
    """Whether a fault takes away what one that may still last does."""
    for step in reversed(steps):
        if step.kind.resource == kind.resource:
            return True
        if not step.hurry:
            return False
    return False


def counted(steps: Sequence[Step]) -> Mapping[str, int]:
    """How many there are of each kind."""
    names = sorted({step.kind.name for step in steps})
    return {name: sum(step.kind.name == name for step in steps) for name in names}
