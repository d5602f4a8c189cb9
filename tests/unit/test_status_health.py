"""How a deployment is, seen from Kafka."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.feedback import Feedback, Level
from schemas.health import HealthState, worst
from streams.groups import Group, GroupMember
from streams.status import Coordinator, Hold, Status, TickPartition
from streams.status_health import components

pytestmark = pytest.mark.covers("HealthStatus")

MEMBER = GroupMember("id-123456", "host", frozenset({("ticks", 0), ("ticks", 1)}))


def status(**changes: Any) -> Status:
    hold = Hold(0.0, Level.hard, 5.0, "db", 5.0)
    ticks = [TickPartition("ticks", 0, 7, MEMBER, hold), TickPartition("ticks", 1, 1, MEMBER, None)]
    fields: dict[str, Any] = {
        "bars": Group("g-bars", (MEMBER,)),
        "store": Group("g-store", (MEMBER,)),
        "ticks": ticks,
        "coordinators": [said(Level.ok)],
    }
    return Status(**{"broker": "b:1", "at": 10.0, **fields, **changes})


def said(level: Level) -> Coordinator:
    event = Feedback(
        coordinator_id="db", queue_size=5, capacity=10, level=level, ts=9.0, partition=0, epoch=1
    )
    return Coordinator((0,), event, 1.0)


def test_a_deployment_at_work_is_healthy_also_where_it_is_held_back() -> None:
    found = {part.name: part for part in components(status())}
    assert list(found) == ["broker", "consumer", "store"]
    assert {part.state for part in found.values()} == {HealthState.healthy}
    details = found["consumer"].details
    assert (details["bars.lag"], details["bars.paused"], details["bars.assigned"]) == ("8", "0", "2")


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"coordinators": [said(Level.ok), said(Level.hard)]}, HealthState.degraded),
        ({"bars": Group("g-bars", (MEMBER,), rebalancing=True)}, HealthState.degraded),
        ({"bars": Group("g-bars")}, HealthState.unhealthy),
        ({"store": Group("g-store")}, HealthState.unhealthy),
        ({"coordinators": []}, HealthState.unhealthy),
    ],
)
def test_it_is_as_ill_as_its_worst_part(changes: dict[str, Any], state: HealthState) -> None:
    assert worst(components(status(**changes))) is state
