"""The cost of a tick, as a count: a hot path that quietly grows fails here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from perf import count
from support import tiers

AGREED = count.Cost(10.0, 65_000, "Python 3.11.0, msgspec 0.22.0")


@dataclass
class Case:
    """A cost and what is to be said of it."""

    yardsticks: float
    said: tuple[str, ...]


@pytest.mark.valgrind
def test_a_tick_costs_the_instructions_that_were_recorded() -> None:
    if reason := count.why_not():
        tiers.COUNTED.absent(reason)
    agreed = count.recorded()
    if agreed is None:
        pytest.skip(f"nothing is recorded for Python {count.PYTHON}")
    wrong = count.verdict(count.measure(), agreed)
    assert wrong is None, wrong


@pytest.mark.parametrize("yardsticks", [9.1, 10.0, 10.9])
def test_a_cost_within_the_margin_passes(yardsticks: float) -> None:
    assert count.verdict(_cost(yardsticks), AGREED) is None


@pytest.mark.parametrize(
    "case",
    [Case(11.2, ("12% more", "say so in the commit", count.RECORD)), Case(8.5, ("15% less", count.RECORD))],
)
def test_a_cost_that_moved_says_how_far_and_what_to_do(case: Case) -> None:
    said = count.verdict(_cost(case.yardsticks), AGREED)
    assert said is not None
    assert [part for part in case.said if part not in said] == []


def _cost(yardsticks: float) -> count.Cost:
    return count.Cost(yardsticks, 65_000, "another build")
