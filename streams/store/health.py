"""How a store's writer is, in the words of market-data-pipeline's sinks, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from schemas.errors import StoreError
from schemas.feedback import Level
from schemas.health import HealthComponent, HealthState


def _nobody(seconds: float) -> None:
    """Nobody looks at how long single commits take."""


@dataclass(slots=True)
class SinkCounters:
    """What became of batches so far; a batch is the records of one partition that were fetched together."""

    batches_in: int = 0
    batches_committed: int = 0
    """Acknowledged: each bar is in the database, dead-lettered or dropped."""
    batches_failed: int = 0
    """Some bar of it is dead-lettered as the database cannot have it, or its write stopped the worker."""
    items_committed: int = 0
    """Bars that the database committed, or held already."""
    commits: int = 0
    """Transactions."""
    commit_seconds: float = 0.0
    """All commits together, each from its first attempt on."""
    on_commit: Callable[[float], None] = field(default=_nobody, repr=False)
    """Called with the seconds that each one took, for those who make a histogram of them."""

    def committed(self, items: int, seconds: float) -> None:
        """A transaction has ended well."""
        self.items_committed += items
        self.commits += 1
        self.commit_seconds += seconds
        self.on_commit(seconds)


@dataclass(frozen=True, slots=True)
class SinkHealth:
    """The fields of market-data-pipeline's `SinkHealth`, at one moment."""

    connected: bool
    """The database was reached, and took the last write that it was given."""
    queue_depth: int = 0
    """Bars, where the pipeline counts batches: taken, and not yet committed."""
    in_flight_batches: int = 0
    """Batches with bars in the transaction that is under way."""
    last_commit_at: datetime | None = None
    last_error_at: datetime | None = None
    retry_count: int = 0
    detail: str = ""


def component(health: SinkHealth, error: StoreError | None, level: Level) -> HealthComponent:
    """The same as a part of a worker: unhealthy where people must mend something, degraded where it waits."""
    state = HealthState.healthy
    if error is not None and not error.retriable:
        state = HealthState.unhealthy
    elif not health.connected or level is Level.hard:
        state = HealthState.degraded
    details = {
        "connected": str(health.connected).lower(),
        "queue_depth": str(health.queue_depth),
        "in_flight_batches": str(health.in_flight_batches),
        "level": level.value,
        "retry_count": str(health.retry_count),
        "detail": health.detail,
    }
    for name, at in (("last_commit_at", health.last_commit_at), ("last_error_at", health.last_error_at)):
        if at is not None:
            details[name] = at.isoformat()
    if error is not None:
        details["error"] = str(error)
    return HealthComponent("store", state, details)
