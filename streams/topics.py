"""The names of Tidegate's own topics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """Everything that starts with one prefix."""

    prefix: str = "md."

    @property
    def bars(self) -> str:
        """Bars, compacted by instrument, bar type and start."""
        return f"{self.prefix}bars.v1"

    @property
    def dead_letters(self) -> str:
        """Records that could not be used, with their bytes."""
        return f"{self.prefix}ticks.dlq.v1"

    @property
    def state(self) -> str:
        """The changelog of open windows."""
        return f"{self.prefix}bars.state.v1"

    @property
    def feedback(self) -> str:
        """How full the stores' queues are."""
        return f"{self.prefix}feedback.v1"

    @property
    def rate(self) -> str:
        """What the rate controllers decided."""
        return f"{self.prefix}rate.v1"

    @property
    def control(self) -> str:
        """What operators ask, compacted by what it is about. One partition."""
        return f"{self.prefix}control.v1"

    @property
    def audit(self) -> str:
        """What workers answer to that."""
        return f"{self.prefix}control.audit.v1"

    def owners(self, partition: int) -> tuple[str, str]:
        """The transactional ids of whoever owns a partition: those of what they guard, whatever the group.

        The first is that of versions which had only one, so that they fence each other.
        """
        return f"{self.state}-{partition}", f"{self.state}-{partition}-b"
