"""Workers that are killed, stopped and added in mid-stream give the bars of an undisturbed run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bars import schema, stored, wait_stored
from support.kafka import TestTopics
from support.load import Load
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

TICKS_PER_S = 3000


def _kill(worker: Worker) -> None:
    worker.kill()


def _stop(worker: Worker) -> None:
    assert worker.stop() == 0


@pytest.mark.parametrize("end", [_kill, _stop], ids=["kill -9", "SIGTERM"])
def test_bars_go_on_where_they_were_when_workers_leave_and_join(
    end: Callable[[Worker], None], kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name)
    prefix, ticks_topic = topics.prefix, f"{topics.prefix}ticks.v1"
    group = Group(kafka, f"{prefix}tidegate-bars")
    numbers = itertools.count()
    with schema(postgres) as dsn:
        config = tmp_path / "tidegate.toml"
        config.write_text(
            f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\nstore = "{dsn}"\n'
            'session_timeout = "6s"\n'
            f'[[ticks]]\ntopic = "{ticks_topic}"\nbars = ["1s", "5s"]\ngrace = "1s"\nidle = "1s"\n'
        )

        def start() -> Worker:
            return Worker(tmp_path, f"worker-{next(numbers)}", config)

        with start() as first, start() as second:
            wait_assigned(group, 2, ticks_topic, [first, second])
            with Load(kafka, ticks_topic, TICKS_PER_S, instruments=20) as load:
                until(lambda: len(stored(dsn)) > 40, 30, "bars flow", every_s=0.2)
                end(first)
                wait_assigned(group, 1, ticks_topic, [second])
                progress = len(stored(dsn))
                until(lambda: len(stored(dsn)) > progress + 40, 30, "bars flow on one worker", every_s=0.2)
                with start() as third:
                    wait_assigned(group, 2, ticks_topic, [second, third])
                    end(second)
                    wait_assigned(group, 1, ticks_topic, [third])
                    progress = len(stored(dsn))
                    until(lambda: len(stored(dsn)) > progress + 40, 30, "and on the other", every_s=0.2)
                    load.stop()
                    wait_stored(dsn, load.expected(), 60)
                    assert third.stop() == 0
