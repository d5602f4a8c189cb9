"""The integration points of the ecosystem, which tests name with ``@pytest.mark.covers(point)``."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

POINTS = (
    "RateController",
    "FeedbackPublisher",
    "FeedbackEvent",
    "RateAdjustment",
    "BackpressureLevel",
    "HealthStatus",
    "event bus",
    "event bus without Redis",
    "pulse bridge",
    "registry: configuration",
    "registry: fetch",
    "registry: cache",
    "registry: expiry",
    "registry: degradation",
    "Confluent schema registry",
    "batch writes",
    "overflow",
    "retries",
    "idempotency keys",
    "sink health",
    "concurrent stores",
    "optional fields",
    "runtime status",
    "runtime health",
    "control",
    "metrics",
    "feedback loop",
    "escalation",
    "fan-out",
    "custom policies",
    "recovery",
)


def points_of(item: pytest.Item) -> list[str]:
    """What the test covers. Raises `pytest.UsageError` where that is no point of the list."""
    points = [point for marker in item.iter_markers("covers") for point in marker.args]
    for point in points:
        if point not in POINTS:
            raise pytest.UsageError(
                f"{item.nodeid} covers {point!r}, which is no point of tests/support/points.py"
            )
    return list(dict.fromkeys(points))


def check_points(items: Iterable[pytest.Item]) -> None:
    """Raise `pytest.UsageError` where a test covers what is no point of the list."""
    for item in items:
        points_of(item)
