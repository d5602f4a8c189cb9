"""How near a log is to deleting what nobody has read yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of itself a topic's partition keeps; None is all of it."""

    ms: int | None = None
    size: int | None = None
    """Bytes."""

    @classmethod
    def of(cls, config: Mapping[str, str | None]) -> Self:
        """By the settings of a topic. One that is only compacted loses no key, and so nothing that counts."""
        if "delete" not in (config.get("cleanup.policy") or "delete"):
            return cls()
        return cls(_limit(config.get("retention.ms")), _limit(config.get("retention.bytes")))

    @property
    def is_forever(self) -> bool:
        """Whether nothing is ever deleted."""
        return self.ms is None and self.size is None


def _limit(text: str | None) -> int | None:
    limit = int(text) if text else -1
    return limit if limit > 0 else None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is unread of a partition: offsets, and the age and size of the oldest record of it."""

    first: int
    end: int
    position: int
    """The first offset that is unread."""
    oldest_ms: int | None = None
    """Its timestamp; None where it has none, or nothing is unread."""
    record_bytes: int = 0

    @property
    def unread(self) -> int:
        """How many offsets."""
        return max(0, self.end - max(self.first, self.position))

    def used(self, kept: Retention, now_ms: int) -> float:
        """The share of what is kept that is between the oldest unread record and its deletion; from 1 on it goes.

        The size is an estimate. What was deleted already says that the log is as large as it may be; before that
        it is taken from the size of a record that is not compressed, and so is rather too large.
        """
        if not self.unread:
            return 0.0
        used = 0.0
        if kept.ms is not None and self.oldest_ms is not None:
            used = max(used, (now_ms - self.oldest_ms) / kept.ms)
        if kept.size is not None:
            by_share = self.unread / (self.end - self.first)
            by_size = self.unread * self.record_bytes / kept.size
            used = max(used, by_share if self.first > 0 else by_size)
        return used

    def left_s(self, kept: Retention, now_ms: int) -> float | None:
        """Seconds until the oldest unread record may be deleted for its age; None where age does not matter."""
        if not self.unread or kept.ms is None or self.oldest_ms is None:
            return None
        return (self.oldest_ms + kept.ms - now_ms) / 1000
