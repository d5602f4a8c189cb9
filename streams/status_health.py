"""How a deployment is, as far as Kafka tells: the components of a worker's `/healthz`, seen from outside.

Not all: what a worker reads back of its state, its registry and its bridge only it can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.feedback import Level
from schemas.health import HealthComponent, HealthState
from streams.groups import Group
from streams.status import Coordinator, Status


def components(status: Status) -> list[HealthComponent]:
    """The components "broker", "consumer" and "store"."""
    return [
        HealthComponent("broker", HealthState.healthy, {"bootstrap": status.broker}),
        _consumer(status),
        _store(status.coordinators),
    ]


def _consumer(status: Status) -> HealthComponent:
    details: dict[str, str] = {}
    states = {HealthState.healthy}
    paused = [one.partition for one in status.ticks if one.hold is not None and one.hold.scale == 0]
    slowed = [one.partition for one in status.ticks if one.hold is not None and 0 < one.hold.scale < 1]
    lags = {"bars": sum(one.lag for one in status.ticks), "store": sum(status.bars_lag.values())}
    for role, group in (("bars", status.bars), ("store", status.store)):
        assigned = {place for member in group.members for place in member.owns}
        details |= {
            f"{role}.group": group.name,
            f"{role}.state": _stage(group),
            f"{role}.members": str(len(group.members)),
            f"{role}.assigned": str(len(assigned)),
            f"{role}.lag": str(lags[role]),
        }
        if not group.members:
            states.add(HealthState.unhealthy)
        elif group.rebalancing:
            states.add(HealthState.degraded)
    details |= {"bars.paused": _listed(paused), "bars.slowed": _listed(slowed)}
    for role in ("bars", "store"):
        if by := sorted({pause.actor for pause in status.pauses if pause.role == role}):
            details[f"{role}.paused_by"] = ", ".join(by)
    return HealthComponent("consumer", _worst(states), details)


def _stage(group: Group) -> str:
    if not group.members:
        return "empty"
    return "rebalancing" if group.rebalancing else "running"


def _store(found: Sequence[Coordinator]) -> HealthComponent:
    if not found:
        return HealthComponent("store", HealthState.unhealthy, {"error": "no store worker speaks"})
    full = [one.said.coordinator_id for one in found if one.said.level is Level.hard]
    details = {
        "workers": str(len(found)),
        "level": max((one.said.level for one in found), key=list(Level).index).value,
        "queue_depth": str(sum(one.said.queue_size for one in found)),
        "dropped": str(sum(one.dropped for one in found)),
    }
    if full:
        details["hard"] = ", ".join(full)
    return HealthComponent("store", HealthState.degraded if full else HealthState.healthy, details)


def _worst(states: set[HealthState]) -> HealthState:
    return next(state for state in _worst_first() if state in states)


def _worst_first() -> Iterator[HealthState]:
    return reversed(list(HealthState))


def _listed(partitions: Sequence[int]) -> str:
    return ",".join(map(str, sorted(set(partitions))))
