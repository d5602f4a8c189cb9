from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.feedback import Feedback, Level
from streams.flow.policy import LOWEST, POLICIES, Policy, policy_of
from streams.flow.pressure import Thresholds, next_level
from streams.settings import Settings, load_settings


def settings(**given: Any) -> Settings:
    return load_settings(None, **given)


@functools.cache
def named(name: str) -> Policy:
    return policy_of(settings(policy=name))


def said(
    level: str = "ok", fill: float = 0.0, drain: float | None = None, arrival: float | None = None
) -> Feedback:
    return Feedback(
        coordinator_id="a",
        queue_size=round(fill * 1000),
        capacity=1000,
        level=Level(level),
        ts=1.0,
        partition=0,
        epoch=1,
        drain_rate=drain,
        arrival_rate=arrival,
    )


def test_step_has_a_scale_for_each_level() -> None:
    policy = policy_of(settings(scale_ok=0.9, scale_soft=0.3, scale_hard=0.1))
    assert [policy.scale(said(level), 1.0, 1.0) for level in Level] == [0.9, 0.3, 0.1]


def test_linear_goes_from_all_to_nothing_between_the_thresholds() -> None:
    policy = policy_of(settings(policy="linear", soft=0.5, hard=0.8, hysteresis=0.1))
    scales = [policy.scale(said("ok", fill), 1.0, 1.0) for fill in (0.0, 0.4, 0.5, 0.6, 0.8)]
    assert scales == pytest.approx([1, 1, 0.75, 0.5, 0])


def test_aimd_halves_in_a_second_of_pressure_and_adds_a_tenth_in_one_without() -> None:
    policy = policy_of(settings(policy="aimd"))
    assert policy.scale(said("soft"), 0.8, 1.0) == 0.4
    assert policy.scale(said("ok"), 0.4, 1.0) == 0.5
    assert policy.scale(said("ok"), 0.95, 1.0) == 1
    assert policy.scale(said("soft"), 0.0, 1.0) == LOWEST, "it gets up again after a pause"


@pytest.mark.parametrize("name", POLICIES)
def test_a_store_that_can_take_no_more_gets_nothing(name: str) -> None:
    """Also where its queue is empty, because it has no database."""
    for fill in (0.0, 0.7, 1.0):
        assert policy_of(settings(policy=name)).scale(said("hard", fill), 1.0, 1.0) == 0


@pytest.mark.parametrize("name", POLICIES)
def test_a_store_without_pressure_gets_all_in_the_end(name: str) -> None:
    policy, scale = named(name), 0.0
    for _ in range(30):
        scale = policy.scale(said("ok", 0.01, drain=1000.0, arrival=10.0), scale, 1.0)
    assert scale == pytest.approx(1, abs=0.01)


@given(
    st.sampled_from(sorted(POLICIES)),
    st.sampled_from(list(Level)),
    st.floats(0, 2),
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1),
    st.floats(0, 100),
)
def test_a_scale_is_between_0_and_1(
    name: str,
    level: Level,
    fill: float,
    drain: float | None,
    arrival: float | None,
    scale: float,
    elapsed: float,
) -> None:
    feedback = said(level.value, fill, drain, arrival)
    assert 0 <= named(name).scale(feedback, scale, elapsed) <= 1


@given(
    st.sampled_from(["step", "linear", "aimd"]),
    st.sampled_from(list(Level)),
    st.floats(0, 1),
    st.floats(0.1, 1),
    st.lists(st.floats(0, 3), min_size=1, max_size=20),
)
def test_it_does_not_matter_how_often_a_policy_is_asked(
    name: str, level: Level, fill: float, scale: float, steps: list[float]
) -> None:
    policy, feedback, stepped = named(name), said(level.value, fill), scale
    for step in steps:
        stepped = policy.scale(feedback, stepped, step)
    assert stepped == pytest.approx(policy.scale(feedback, scale, sum(steps)), abs=1e-6)


class Plant:
    """A store that takes so many bars a second, behind a loop that a policy closes; bars come as ticks do."""

    CAPACITY = 1000

    def __init__(self, policy: Policy, takes: float, comes: float) -> None:
        self.policy = policy
        self.takes, self.comes = takes, comes
        self.queue, self.scale, self.level = 0.0, 1.0, Level.ok
        self.stored = 0.0
        self.arrived: list[float] = []

    def run(self, seconds: int) -> None:
        for tick in range(seconds * 10):
            came = self.comes * self.scale / 10
            self.arrived = [*self.arrived[-49:], came]
            drained = min(self.queue + came, self.takes / 10)
            self.stored += drained
            self.queue += came - drained
            fill = self.queue / self.CAPACITY
            self.level = next_level(self.level, fill, Thresholds())
            if tick % 10 == 0:
                arrival = sum(self.arrived) / len(self.arrived) * 10
                self.scale = self.policy.scale(
                    said(self.level.value, fill, self.takes, arrival), self.scale, 1.0
                )


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("slower", [1.5, 3, 10])
def test_the_store_is_kept_busy_and_its_queue_within_bounds(name: str, slower: float) -> None:
    plant = Plant(named(name), takes=100, comes=100 * slower)
    plant.run(60)
    before = plant.stored
    for _ in range(300):
        plant.run(1)
        assert plant.queue <= plant.CAPACITY + plant.comes
    assert plant.stored - before >= 0.95 * 100 * 300


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("asked_each_s", [0.1, 0.5, 1.0, 3.0])
def test_when_the_pressure_is_gone_the_partition_is_open_altogether(name: str, asked_each_s: float) -> None:
    policy, scale, asked_for_s = named(name), 0.0, 0.0
    while scale < 1:
        scale = policy.scale(said("ok", 0.0, 500.0, 100.0), scale, asked_each_s)
        asked_for_s += asked_each_s
        assert asked_for_s <= 12


def test_drain_takes_a_database_that_takes_nothing_for_what_it_is() -> None:
    policy = named("drain")
    assert policy.scale(said("soft", 0.6, drain=0.0, arrival=100.0), 1.0, 60.0) == pytest.approx(LOWEST)
    assert policy.scale(said("soft", 0.6, drain=None, arrival=100.0), 1.0, 60.0) == pytest.approx(1.0)


def test_drain_lets_through_what_the_store_takes() -> None:
    plant = Plant(policy_of(settings(policy="drain")), takes=100, comes=400)
    plant.run(120)
    scales = []
    for _ in range(100):
        plant.run(1)
        scales.append(plant.scale)
    assert sum(scales) / len(scales) == pytest.approx(0.25, rel=0.1)
    assert 0 < min(scales) <= max(scales) < 0.6, "without pauses"


OWN = """
class Half:
    def __init__(self, settings): pass
    def scale(self, feedback, scale, elapsed_s): return 0.5

class Broken(Half):
    def scale(self, feedback, scale, elapsed_s): raise KeyError("x")

class Nowhere(Half):
    def scale(self, feedback, scale, elapsed_s): return float("nan")

class Unmade:
    def __init__(self): pass

class Mute:
    def __init__(self, settings): pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_policies.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_policies", raising=False)


@pytest.mark.usefixtures("own")
def test_a_policy_of_ones_own_is_named_in_the_settings() -> None:
    assert policy_of(settings(policy="own_policies:Half")).scale(said(), 1.0, 1.0) == 0.5


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["own_policies:Broken", "own_policies:Nowhere"])
def test_where_it_fails_there_is_another_one(name: str) -> None:
    policy = policy_of(settings(policy=name))
    assert [policy.scale(said(level), 1.0, 1.0) for level in Level] == [1.0, 0.5, 0.0]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "name",
    [
        "faster",
        "own_policies",
        "no:Half",
        "own_policies:No",
        "own_policies:Unmade",
        "own_policies:Mute",
    ],
)
def test_one_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        policy_of(settings(policy=name))


def test_scales_have_the_names_of_the_ecosystem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDP_FB_SCALE_SOFT", "0.4")
    monkeypatch.setenv("MDP_FB_SCALE_HARD", "0.2")
    monkeypatch.setenv("TIDEGATE_SCALE_HARD", "0.1")
    assert dict(settings().scales) == {Level.ok: 1.0, Level.soft: 0.4, Level.hard: 0.1}


def test_other_variables_of_the_ecosystem_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDP_FB_TICKS", "not JSON")
    monkeypatch.setenv("MDP_FB_BROKER", "elsewhere:9092")
    assert settings().broker != "elsewhere:9092"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scale_soft": 1.5}, "scale_soft"),
        ({"scale_hard": 0.7}, "not rise"),
        ({"scale_ok": "nan"}, "scale_ok"),
    ],
)
def test_scales_that_make_no_sense_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings(**given)
