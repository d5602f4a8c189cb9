from __future__ import annotations

import pytest

from streams.flow.valve import Valve

LOG = ("ticks", 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_valve_is_open_until_it_is_told_otherwise() -> None:
    valve = Valve()
    assert valve.allowance(LOG) is None
    assert valve.scale(7) == 1
    assert valve.paused() == {}


def test_a_closed_valve_is_closed_at_every_moment() -> None:
    valve = Valve(clock := Clock())
    valve.set(1, 0)
    for clock.now in (0.0, 1.0, 3600.0):
        assert valve.allowance(LOG) == 0
    assert valve.allowance(("ticks", 0)) is None


def test_a_scale_lets_its_share_of_the_flow_through() -> None:
    valve = Valve(clock := Clock())
    consumed = 0
    for tick in range(2000):
        clock.now = tick / 100
        if tick == 1000:
            consumed = 0
            valve.set(1, 0.25)
        end = tick * 10
        allowance = valve.allowance(LOG)
        taken = 10 if allowance is None else min(allowance, end)
        consumed += taken
        valve.took(LOG, taken, end, end if allowance is None else end - 1)
    assert consumed == pytest.approx(0.25 * 1000 * 10, rel=0.05)


def test_topics_side_by_side_have_shares_of_their_own() -> None:
    valve = Valve(clock := Clock())
    rates = {"busy": 1000, "quiet": 10}
    for second in range(20):
        clock.now = float(second)
        for topic, rate in rates.items():
            valve.took((topic, 1), rate, second * rate, second * rate)
    valve.set(1, 0.5)
    allowed = dict.fromkeys(rates, 0)
    for hundredth in range(500):
        clock.now = 20 + hundredth / 100
        for topic in allowed:
            taken = valve.allowance((topic, 1)) or 0
            allowed[topic] += taken
            valve.took((topic, 1), taken, 19 * rates[topic], 0)
    assert allowed["busy"] == pytest.approx(0.5 * 1000 * 5, rel=0.1)
    assert allowed["quiet"] == pytest.approx(0.5 * 10 * 5, abs=2)


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


def test_a_partition_that_comes_back_is_not_held_to_how_it_flowed_before() -> None:
    valve = Valve(clock := Clock())
    for second in range(10):
        clock.now = float(second)
        valve.took(LOG, 1, 10**6, second)
    valve.release(1)
    clock.now = 36_000.0
    valve.set(1, 0.5)
    for second in range(10):
        clock.now = 36_000.0 + second
        valve.took(LOG, 0, 10**6 + second * 1000, 10)
    valve.allowance(LOG)
    clock.now += 0.1
    assert valve.allowance(LOG) == 250, "half a second of half of 1000 a second"


def test_releasing_opens_one_partition_only() -> None:
    valve = Valve()
    valve.set(0, 0)
    valve.set(1, 0)
    valve.release(0)
    assert valve.allowance(("ticks", 0)) is None
    assert valve.allowance(LOG) == 0
    assert valve.paused() == {1: 0.0}
