from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.feedback import Level
from streams.flow.pressure import Thresholds, next_level

T = Thresholds(soft=0.5, hard=0.8, hysteresis=0.1)
fills = st.floats(0, 2)
levels = st.sampled_from(list(Level))
SEVERITY = list(Level).index


@pytest.mark.parametrize(
    ("fill", "level"),
    [(0.0, "ok"), (0.49, "ok"), (0.5, "soft"), (0.79, "soft"), (0.8, "hard"), (1.0, "hard"), (1.5, "hard")],
)
def test_a_filling_queue_rises_through_the_levels(fill: float, level: str) -> None:
    assert next_level(Level.ok, fill, T) == level


@pytest.mark.parametrize(
    ("fill", "level"),
    [(0.79, "hard"), (0.51, "hard"), (0.5, "soft"), (0.45, "soft"), (0.41, "soft"), (0.4, "ok"), (0.0, "ok")],
)
def test_a_paused_queue_stays_paused_until_it_has_drained_to_soft(fill: float, level: str) -> None:
    assert next_level(Level.hard, fill, T) == level


@pytest.mark.parametrize(("fill", "level"), [(0.8, "hard"), (0.45, "soft"), (0.41, "soft"), (0.4, "ok")])
def test_soft_ends_below_where_it_began(fill: float, level: str) -> None:
    assert next_level(Level.soft, fill, T) == level


def test_a_queue_that_swings_around_a_threshold_does_not_flap() -> None:
    level, changes = Level.ok, 0
    for fill in [0.82, 0.78] * 50 + [0.52, 0.48] * 50:
        following = next_level(level, fill, T)
        changes += following is not level
        level = following
    assert changes == 2


@given(levels, fills)
def test_a_level_that_is_reached_holds_at_the_same_fill(level: Level, fill: float) -> None:
    reached = next_level(level, fill, T)
    assert next_level(reached, fill, T) == reached


@given(levels, fills, fills)
def test_a_fuller_queue_is_never_under_less_pressure(level: Level, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert SEVERITY(next_level(level, low, T)) <= SEVERITY(next_level(level, high, T))


@given(fills)
def test_more_pressure_before_is_never_less_pressure_after(fill: float) -> None:
    after = [SEVERITY(next_level(level, fill, T)) for level in Level]
    assert after == sorted(after)


@pytest.mark.parametrize(
    "values",
    [(0.8, 0.5, 0.1), (0.5, 0.5, 0.1), (0.5, 1.1, 0.1), (0.1, 0.8, 0.1), (0.5, 0.8, -0.1), (0.0, 0.8, 0.0)],
)
def test_thresholds_that_contradict_themselves_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="thresholds must satisfy"):
        Thresholds(*values)
