"""Bars that nobody reads hold the ticks back before the broker deletes them, on Apache Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.bars import schema, wait_stored
from support.kafka import TestTopics
from support.load import Load
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

RETENTION_MS = 20_000
ALL = {0, 1, 2, 3}


def test_a_store_that_has_gone_slows_the_ticks_down_and_its_return_frees_them(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    mortal = {"cleanup_policy": "delete", "retention_ms": RETENTION_MS}
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name, **(mortal if name in ("ticks.v1", "bars.v1") else {}))
    prefix, ticks, bars = topics.prefix, f"{topics.prefix}ticks.v1", f"{topics.prefix}bars.v1"
    with schema(postgres) as dsn:
        config = tmp_path / "tidegate.toml"
        config.write_text(
            f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\nstore = "{dsn}"\n'
            f'feedback_ttl = "4s"\nsession_timeout = "6s"\n'
            f'[[ticks]]\ntopic = "{ticks}"\nbars = ["1s", "5s"]\ngrace = "1s"\nidle = "1s"\n'
        )
        store_group = Group(kafka, f"{prefix}tidegate-store")
        with (
            Worker(tmp_path, "bars", config, "--roles", "bars") as worker,
            Load(kafka, ticks, 500, 60) as load,
        ):

            def levels(pressure: str) -> set[int]:
                return {e["partition"] for e in worker.events("bars.unread") if e["pressure"] == pressure}

            with Worker(tmp_path, "store", config, "--roles", "store") as store:
                wait_assigned(store_group, 1, bars, [worker, store])
                until(lambda: min(store_group.committed(bars)) > 0, 30, "the store has committed bars")
                assert not worker.events("partition.slowed")
                assert store.stop() == 0
            until(lambda: levels("soft") == ALL, RETENTION_MS / 1000, "half of the retention is used")
            until(lambda: levels("hard") == ALL, RETENTION_MS / 1000, "most of the retention is used")
            paused = until(lambda: worker.events("partition.paused"), 10, "the ticks are paused")
            assert {entry["coordinator"] for entry in paused} == {f"lag of {prefix}tidegate-store"}
            told = next(e for e in worker.events("bars.unread") if e["pressure"] == "hard")
            assert 0 < told["deleted_in_s"] <= 0.2 * RETENTION_MS / 1000
            assert told["unread"] > 0
            near = until(
                lambda: worker.events("ticks.near_retention"), 20, "the pause is near the ticks' retention"
            )
            assert near[0]["deleted_in_s"] <= 0.5 * RETENTION_MS / 1000
            assert near[0]["partition"].startswith(ticks)
            with Worker(tmp_path, "store-2", config, "--roles", "store") as store:
                until(lambda: levels("ok") == ALL, 30, "all bars are read")
                until(
                    lambda: {e["partition"] for e in worker.events("partition.resumed")} == ALL,
                    20,
                    "ticks flow",
                )
                load.stop()
                wait_stored(dsn, load.expected(), 60)
                assert [worker.stop(), store.stop()] == [0, 0]
