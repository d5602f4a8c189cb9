"""The parts of a worker as health tells of them. Reads attributes only: it waits for nobody, and asks nobody.

A part that keeps the worker from being ready says why in its detail `not_ready`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from schemas.health import HealthComponent, HealthState
from streams.app import App
from streams.owned import owned
from streams.roles import BarsRole, StoreRole

#: What was applied is durable after a checkpoint, once a second or so; after so long something is wrong.
_SLOW_CHECKPOINT_S = 10.0


def consumer_health(roles: Mapping[str, BarsRole | StoreRole]) -> HealthComponent:
    """The component "consumer": assigned, lag and paused, as `ROLE.assigned` and so on. Paused is healthy."""
    details: dict[str, str] = {}
    state, not_ready = HealthState.healthy, []
    for name, role in roles.items():
        app, here = role.app, list(owned(role))
        details |= {
            f"{name}.group": str(app.conf.id),
            f"{name}.state": (stage := _stage(app)),
            f"{name}.assigned": str(len(here)),
            f"{name}.lag": str(sum(one.lag or 0 for one in here)),
            f"{name}.paused": _listed(one.tp.partition for one in here if one.scale == 0),
            f"{name}.slowed": _listed(one.tp.partition for one in here if 0 < one.scale < 1),
        }
        if by := {who for one in here if (who := role.holds.by(one.tp.partition)) is not None}:
            details[f"{name}.paused_by"] = ", ".join(sorted(by))
        if stage != "running":
            state = HealthState.unhealthy if stage == "crashed" else HealthState.degraded
            not_ready.append(f"{name} is {stage}")
    if not_ready:
        details["not_ready"] = "; ".join(not_ready)
    return HealthComponent("consumer", state, details)


def _stage(app: App) -> str:
    if app.crashed:
        return "crashed"
    if app.leaving:
        return "draining"
    return "running" if app.joined else "joining"


def state_health(role: BarsRole, now: float | None = None) -> HealthComponent:
    """The component "state": what is read back at a take-over, and whether checkpoints succeed."""
    pipeline = role.pipeline
    waits_s = (time.monotonic() if now is None else now) - since if (since := pipeline.waits_since()) else 0.0
    details = {
        "recovering": _listed(pipeline.recovering()),
        "checkpoints": str(sum(pipeline.checkpoint_seconds.counts)),
        "waits_s": f"{waits_s:.1f}",
        "lanes_lost": str(pipeline.lanes_lost),
    }
    if not role.app.joined:
        details["not_ready"] = "the state of the first partitions has not been read"
        return HealthComponent("state", HealthState.degraded, details)
    if waits_s > _SLOW_CHECKPOINT_S:
        details["error"] = f"nothing was made durable for {waits_s:.0f} s: the transaction hangs"
        return HealthComponent("state", HealthState.degraded, details)
    return HealthComponent("state", HealthState.healthy, details)


def _listed(partitions: Iterable[int]) -> str:
    return ",".join(map(str, sorted(set(partitions))))
