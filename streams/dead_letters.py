"""Dead letters as they lie on their topic, and which of them are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas.dead_letter import HEADER, DeadLetter, Reason, decode_dead_letter, place
from schemas.errors import BadRecord

_WHERE = re.compile(r"(?:([A-Za-z0-9._-]*)\[(\d{1,9})\]|(\d{1,9}))@(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Buried:
    """A record of the dead-letter topic. `letter` is None where it is none of Tidegate's: `problem` says why."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    letter: DeadLetter | None = field(init=False)
    problem: str = field(init=False, default="")

    def __post_init__(self) -> None:
        letter, problem = None, f"not Tidegate's: it has no header {HEADER}"
        found = [value for name, value in self.headers if name == HEADER]
        if found:
            try:
                letter, problem = decode_dead_letter(found[-1]), ""
            except BadRecord as bad:
                problem = f"its header {HEADER} cannot be read: {bad}"
        object.__setattr__(self, "letter", letter)
        object.__setattr__(self, "problem", problem)

    @classmethod
    def of(cls, message: Any) -> Buried:
        """From what confluent-kafka gives."""
        kind, stamp_ms = message.timestamp()
        return cls(
            message.topic(),
            message.partition(),
            message.offset(),
            stamp_ms if kind else None,
            message.key(),
            message.value(),
            message.headers() or [],
        )

    @property
    def where(self) -> str:
        """As `Where` reads it."""
        return place(self.topic, self.partition, self.offset)

    @property
    def when_ns(self) -> int | None:
        """When it was refused, as far as is known."""
        if self.letter is not None:
            return round(self.letter.ts * 1e6) * 1000
        return None if self.timestamp_ms is None else self.timestamp_ms * 10**6


@dataclass(frozen=True, slots=True)
class Selection:
    """What dead letters are meant; every condition that is given must hold."""

    reasons: frozenset[Reason] = frozenset()
    topic: str | None = None
    """Where the refused record was."""
    partition: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def takes(self, buried: Buried) -> bool:
        """Whether this one is meant. Where something is asked that it does not say, it is not."""
        letter, when_ns = buried.letter, buried.when_ns
        if self.partition is not None and self.partition != buried.partition:
            return False
        if self.reasons and (letter is None or letter.reason not in self.reasons):
            return False
        if self.topic is not None and (letter is None or letter.topic != self.topic):
            return False
        if self.since_ns is not None and (when_ns is None or when_ns < self.since_ns):
            return False
        return self.until_ns is None or (when_ns is not None and when_ns < self.until_ns)

    @property
    def is_everything(self) -> bool:
        """Whether nothing was asked."""
        return self == Selection()


class Where(NamedTuple):
    """The place of a dead letter: TOPIC[PARTITION]@OFFSET, where the topic may be left out."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str, topic: str) -> Where:
        """`topic` is that of the dead letters. Raises ValueError with a reason for people."""
        match = _WHERE.fullmatch(text.strip())
        if match is None:
            if _WHERE.fullmatch(text.strip().rpartition("#")[0]):
                raise ValueError(
                    f"{text[:80]!r} is where a record came from; WHERE is where its dead letter is, "
                    f"such as {topic}[0]@17"
                )
            raise ValueError(f"{text[:80]!r} is no place: write {topic}[0]@17, or 0@17 for short")
        if match[1] and match[1] != topic:
            raise ValueError(f"{match[1]} is not the topic of dead letters, which is {topic}")
        return cls(topic, int(match[2] or match[3]), int(match[4]))
