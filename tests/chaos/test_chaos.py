"""A short chaos run: every telling fault once, under load, and every bar equals the oracle's."""

from __future__ import annotations

import pytest

from chaos import report
from chaos.cluster import Cluster
from chaos.faults import TELLING
from chaos.start import Options, run_on
from support import tiers

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_bar_is_right_whatever_is_killed_frozen_or_cut(delivery: str) -> None:
    options = Options(
        seed=11,
        faults=len(TELLING),
        kinds=tuple(fault.kind for fault in TELLING),
        delivery=delivery,
        ticks_per_s=1500,
        instruments=24,
    )
    with tiers.KAFKA.started(lambda: Cluster(options.setup)) as cluster:
        outcome = run_on(cluster, options, print)
    print(report.text(outcome))
    assert len(outcome.timeline) == len(TELLING)
    assert outcome.verdict.good, "\n".join(outcome.verdict.lines(outcome.timeline))
    assert outcome.compared == {"store": len(outcome.expected.bars), "bars topic": len(outcome.expected.bars)}
    assert len(outcome.expected.bars) > 500
    assert min(outcome.expected.duplicates, outcome.expected.late, outcome.garbage) > 50
    assert (outcome.bars_compacted > 0) == options.setup.compact
