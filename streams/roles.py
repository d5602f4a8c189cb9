"""What the roles of a worker are made of: for those who look at them while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.health import HealthComponent
from streams.app import App
from streams.flow.feedback import FeedbackPublisher
from streams.flow.holds import Holds
from streams.flow.throttle import Throttle
from streams.flow.valve import Valve
from streams.pipeline import BarsPipeline
from streams.settings import Settings
from streams.store.writer import StoreWriter
from streams.tally import Tally


@dataclass(frozen=True, slots=True)
class BarsRole:
    """The bars app and what it is made of."""

    app: App
    pipeline: BarsPipeline
    throttle: Throttle
    valve: Valve
    holds: Holds
    apply: Callable[[Settings], None]
    """Go on by settings that were read again. Raises `ConfigError`, and then nothing has changed."""
    topics: frozenset[str]
    """The tick topics."""
    components: list[Callable[[], HealthComponent]] = field(default_factory=list)
    """The health of what it has besides."""

    def scale(self, partition: int) -> float:
        """What share of a partition's flow is let through."""
        return self.valve.scale(partition)


@dataclass(frozen=True, slots=True)
class StoreRole:
    """The store app and what it is made of."""

    app: App
    writer: StoreWriter
    publisher: FeedbackPublisher
    holds: Holds
    apply: Callable[[Settings], None]
    commit_seconds: Tally
    topics: frozenset[str]
    """The bars topic."""
    components: list[Callable[[], HealthComponent]] = field(default_factory=list)
    """The health of what it has besides."""

    def scale(self, partition: int) -> float:
        """The same as of the bars role: nobody but an operator holds bars back."""
        return 1.0 if self.holds.by(partition) is None else 0.0
