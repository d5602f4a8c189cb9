from __future__ import annotations

import pytest

from streams.flow.valve import PERIOD_S, Valve


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def share_open(valve: Valve, clock: Clock, partition: int = 0, steps: int = 1000) -> float:
    """The fraction of one period during which the partition is open."""
    start, opened = clock.now, 0
    for i in range(steps):
        clock.now = start + PERIOD_S * i / steps
        opened += valve.is_open(partition)
    return opened / steps


def test_a_valve_is_open_until_it_is_told_otherwise() -> None:
    valve = Valve()
    assert valve.is_open(7)
    assert valve.scale(7) == 1
    assert valve.paused() == {}


def test_a_closed_valve_is_closed_at_every_moment() -> None:
    valve = Valve(clock := Clock())
    valve.set(0, 0)
    assert share_open(valve, clock) == 0
    assert valve.is_open(1)


@pytest.mark.parametrize("scale", [0.1, 0.5, 0.9])
def test_a_scale_opens_the_valve_for_that_fraction_of_the_time(scale: float) -> None:
    valve = Valve(clock := Clock())
    valve.set(0, scale)
    for clock.now in (0.0, 12345.6, 1e6):
        assert share_open(valve, clock) == pytest.approx(scale, abs=0.01)


def test_setting_says_whether_it_changed_anything() -> None:
    valve = Valve()
    assert not valve.set(0, 1)
    assert valve.set(0, 0.5)
    assert not valve.set(0, 0.5)
    assert valve.set(0, 0)
    assert valve.set(0, 1)
    assert not valve.set(0, 1)


@pytest.mark.parametrize(("scale", "meant"), [(-1.0, 0.0), (1.5, 1.0)])
def test_beyond_open_is_open_and_beyond_closed_is_closed(scale: float, meant: float) -> None:
    valve = Valve()
    valve.set(0, 0.5)
    assert valve.set(0, scale)
    assert valve.scale(0) == meant
    assert not valve.set(0, scale)


def test_each_change_is_announced_after_it_has_taken_effect() -> None:
    valve = Valve()
    heard: list[dict[int, float]] = []
    valve.on_change = lambda: heard.append(valve.paused())
    valve.set(0, 0)
    valve.set(0, 0)
    valve.set(1, 0.5)
    valve.release(0)
    assert heard == [{0: 0.0}, {0: 0.0, 1: 0.5}, {1: 0.5}]


def test_releasing_opens_one_partition_only() -> None:
    valve = Valve()
    valve.set(0, 0)
    valve.set(1, 0)
    valve.release(0)
    assert valve.is_open(0)
    assert not valve.is_open(1)
    assert valve.paused() == {1: 0.0}
