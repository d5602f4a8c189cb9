"""A scale is that fraction of what a partition would consume, on Apache Kafka, in records a second."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.coordinator import Coordinator
from support.kafka import TestTopics
from support.load import Load
from support.wait import until
from support.workers import OWN_TOPICS, Group, Settled, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.alone]

TICKS_PER_S = 2000
INSTRUMENTS = 60
MEASURED_S = 8.0


def test_consumption_follows_the_scale(kafka: str, topics: TestTopics, tmp_path: Path) -> None:
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name)
    prefix, ticks = topics.prefix, f"{topics.prefix}ticks.v1"
    config = tmp_path / "tidegate.toml"
    config.write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\ncheckpoint = "100ms"\n'
        f'scale_soft = 0.4\nfeedback_ttl = "60s"\n[[ticks]]\ntopic = "{ticks}"\nbars = ["1s"]\n'
    )
    group = Group(kafka, f"{prefix}tidegate-bars")
    store = Coordinator(kafka, f"{prefix}feedback.v1")
    with (
        Worker(tmp_path, "bars", config, "--roles", "bars") as worker,
        Load(kafka, ticks, TICKS_PER_S, INSTRUMENTS) as load,
    ):
        wait_assigned(group, 1, ticks, [worker])

        def commit() -> tuple[list[int], float]:
            """What the group commits next, and when."""
            before = group.committed(ticks)
            until(lambda: group.committed(ticks) != before, 10, "the group commits", every_s=0.01)
            return group.committed(ticks), time.monotonic()

        def rates() -> list[float]:
            """Records a second of each partition, from one commit to another."""
            before, started = commit()
            until(lambda: time.monotonic() - started >= MEASURED_S, MEASURED_S + 1, "it was measured")
            after, ended = commit()
            return [(b - a) / (ended - started) for a, b in zip(before, after, strict=True)]

        def said(partition: int, event: str, scale: float) -> bool:
            told = [e for e in worker.events(event) if e["partition"] == partition]
            return bool(told) and told[-1]["scale"] == scale

        until(lambda: min(group.committed(ticks)) > 0, 30, "ticks are consumed")
        until(lambda: sum(group.committed(ticks)) > len(load.sent) - TICKS_PER_S, 30, "it keeps up")
        full = rates()
        assert sum(full) == pytest.approx(TICKS_PER_S, rel=0.1)

        store.say({0: "soft", 1: "soft", 2: "hard", 3: "ok"})
        until(lambda: said(2, "partition.paused", 0), 10, "2 is paused")
        until(lambda: said(1, "partition.slowed", 0.4), 10, "1 is slowed")
        until(Settled(group, ticks, {2}), 15, "2 stands still", every_s=0.2)
        for _ in range(2):
            slowed = rates()
            until(group.reaches_the_ends(ticks, [3]), 4, "the others run at full rate")
            assert slowed[0] == pytest.approx(0.4 * full[0], rel=0.1)
            assert slowed[1] == pytest.approx(0.4 * full[1], rel=0.1)
            assert slowed[2] == 0, "exactly nothing"

        store.say(dict.fromkeys(range(4), "ok"))
        # Whoever is still held back falls behind further.
        until(lambda: sum(group.committed(ticks)) > len(load.sent) - TICKS_PER_S, 30, "it has caught up")
        until(group.reaches_the_ends(ticks, range(4)), 4, "all run at full rate again")
        assert worker.stop() == 0
