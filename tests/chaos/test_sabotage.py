"""The harness finds what it is for: workers without one of their guarantees make bars that differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from chaos import report
from chaos.cluster import Cluster, Setup
from chaos.faults import Fault, Freeze, Kill, StallDatabase
from chaos.judge import Outcome
from chaos.run import Run
from chaos.schedule import UNTIL_RECOVERED, Step
from chaos.start import Options, load_of
from support import tiers

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

#: Another worker takes its place, so that one can see that an intact one passes: TIDEGATE_SABOTAGE=nothing.
INSTEAD = os.environ.get("TIDEGATE_SABOTAGE")


def _run(
    break_: str, faults: Sequence[tuple[type[Fault], int, float]], *, dedupe: bool = True, settings: str = ""
) -> Outcome:
    """Faults are (class, worker, seconds), one right after the other."""
    program = (str(Path(__file__).with_name("broken.py")), INSTEAD or break_)
    setup = Setup(dedupe=dedupe, program=program, settings=settings)
    steps = [
        Step(number, fault.kind, worker, lasts_s, gap_s=0.5, hurry=number > 1)
        for number, (fault, worker, lasts_s) in enumerate(faults, 1)
    ]
    with tiers.KAFKA.started(lambda: Cluster(setup)) as cluster:
        load = load_of(cluster, Options(seed=5, ticks_per_s=1000, recorded_per_s=0, instruments=24))
        outcome = Run(cluster, load, steps, say=print, quiet_s=4).go()
    print(report.text(outcome))
    return outcome


def _differing(outcome: Outcome) -> set[tuple[str, str]]:
    return {(d.where, d.what) for d in outcome.verdict.differences}


def test_offsets_that_are_committed_before_the_bars_lose_ticks() -> None:
    outcome = _run("offsets_first", [(Kill, 0, 0.0), (Kill, 1, 0.0)])
    assert ("store", "unequal") in _differing(outcome)


def test_state_without_its_offset_counts_ticks_twice() -> None:
    outcome = _run("no_offset_guard", [(Kill, 0, 0.0), (Kill, 1, 0.0)], dedupe=False)
    unequal = [d for d in outcome.verdict.differences if d.found and d.expected and d.where == "store"]
    assert any(d.found.content.volume > d.expected.content.volume for d in unequal if d.found and d.expected)


def test_faust_s_own_pause_loses_what_it_had_fetched() -> None:
    settings = 'queue_capacity = 20\nwrite_batch = 5\nheartbeat = "200ms"\n'
    outcome = _run("stock_pause", [(StallDatabase, 0, 4.0), (StallDatabase, 1, 4.0)], settings=settings)
    assert ("store", "unequal") in _differing(outcome)


def test_an_owner_that_is_not_fenced_publishes_old_bars_over_new_ones() -> None:
    outcome = _run("no_fence", [(Freeze, 0, UNTIL_RECOVERED)])
    assert ("bars topic", "unequal") in _differing(outcome)
