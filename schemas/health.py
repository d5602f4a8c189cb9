"""How a worker is: the shape of market-data-core's `HealthStatus`, without needing that package."""

from enum import StrEnum

import msgspec


class HealthState(StrEnum):
    """From well to useless."""

    healthy = "healthy"
    degraded = "degraded"
    """It works, but not as it should; nothing is lost."""
    unhealthy = "unhealthy"


class HealthComponent(msgspec.Struct, frozen=True):
    """One part of a worker."""

    name: str
    state: HealthState
    details: dict[str, str] = {}


class HealthStatus(msgspec.Struct, frozen=True):
    """A worker as a whole, at one moment: as bad as its worst part."""

    service: str
    state: HealthState
    components: list[HealthComponent]
    version: str
    ts: float
    """Seconds since the epoch."""


_WORST_FIRST = (HealthState.unhealthy, HealthState.degraded)


def worst(components: list[HealthComponent]) -> HealthState:
    """The state of the whole; healthy where there is nothing."""
    states = {component.state for component in components}
    return next((state for state in _WORST_FIRST if state in states), HealthState.healthy)


def not_ready(status: HealthStatus) -> list[str]:
    """Why a worker is not ready, a line a part, which says so in its detail `not_ready`; nothing where it is."""
    return [
        f"{part.name}: {part.details['not_ready']}"
        for part in status.components
        if "not_ready" in part.details
    ]
