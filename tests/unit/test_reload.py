"""Settings that are read again while a worker runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents import app as composition
from schemas.errors import ConfigError
from schemas.feedback import Feedback, Level
from streams.reload import RELOADABLE
from streams.settings import Settings, load_settings
from streams.worker import Worker

pytestmark = pytest.mark.covers("control")

Read = Callable[..., None]


@pytest.fixture
async def reading() -> tuple[Worker, Read]:
    """A worker of both roles, and what its settings are from now on."""
    now: dict[str, Any] = {}

    def read() -> Settings:
        return load_settings(store="duckdb::memory:", **now)

    def change(**settings: Any) -> None:
        now.clear()
        now.update(settings)

    return composition.worker(read(), read), change


def reload(worker: Worker, role: str) -> str:
    return worker.operator._reload(role)


def scale(worker: Worker, level: Level) -> float:
    assert worker.bars
    said = Feedback(coordinator_id="a", queue_size=5, capacity=10, level=level, ts=5.0, partition=0, epoch=1)
    return worker.bars.throttle._controller.policy.scale(said, 1.0, 0.0)


async def test_each_role_takes_what_is_its_own(reading: tuple[Worker, Read]) -> None:
    worker, change = reading
    assert worker.store
    change(scale_soft=0.25, soft=0.3, heartbeat="5s")
    assert reload(worker, "bars") == "scale_soft = 0.25, soft = 0.3"
    assert scale(worker, Level.soft) == 0.25
    assert worker.store.writer.thresholds.soft == 0.5
    assert reload(worker, "store") == "heartbeat = 5000000000, soft = 0.3"
    assert (worker.store.writer.thresholds.soft, worker.store.publisher.heartbeat_s) == (0.3, 5.0)
    assert reload(worker, "bars") == reload(worker, "store") == "nothing has changed"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale_soft": 0.25, "group": "other"}, "group cannot change while it runs, so nothing was changed"),
        ({"scale_soft": 0.25, "policy": "nowhere:Policy"}, "nowhere"),
        ({"scale_soft": 0.25, "hard": 0.2}, "thresholds must satisfy"),
    ],
)
async def test_what_cannot_be_taken_whole_changes_nothing(
    reading: tuple[Worker, Read], settings: dict[str, Any], words: str
) -> None:
    worker, change = reading
    change(**settings)
    for _ in range(2):
        with pytest.raises(ConfigError, match=words):
            reload(worker, "bars")
    assert scale(worker, Level.soft) == 0.5
    change()
    assert reload(worker, "bars") == "nothing has changed"


async def test_a_program_that_gave_its_settings_has_none_to_be_read_again() -> None:
    worker = composition.worker(load_settings(store="duckdb::memory:"))
    with pytest.raises(ConfigError, match="given to it by a program"):
        reload(worker, "bars")


def test_what_can_be_taken_are_settings_that_exist() -> None:
    assert frozenset().union(*RELOADABLE.values()) <= set(Settings.model_fields)
