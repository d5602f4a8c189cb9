"""Ticks in Kafka, bars in market-data-store's table: whole worker processes, one of them killed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.store.survey import needed
from support.bars import execute, schema
from support.cli import tidegate
from support.ecosystem import OHLCV, OhlcvKey, ohlcv_now
from support.kafka import TestTopics
from support.oracle import Content, Key
from support.scene import Scene
from support.wait import until
from support.workers import wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.end_to_end]

TICKS_PER_S = 800
NAME = "loop_of_market_data_store"


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    """The URL of a store of market-data-store, without tables."""
    with schema(postgres) as dsn:
        yield OHLCV.format(dsn=f"{dsn}&application_name={NAME}")


def _projected(expected: dict[Key, Content]) -> dict[OhlcvKey, tuple[float, ...]]:
    found = {}
    for (instrument, kind, start_ns), content in expected.items():
        venue, _, symbol = instrument.rpartition(":")
        found[venue or "tidegate", symbol.upper(), kind, start_ns] = tuple(map(float, content[:5]))
    return found


@pytest.mark.covers("batch writes")
@pytest.mark.covers("concurrent stores")
@pytest.mark.covers("retries")
def test_the_ecosystems_table_equals_an_independent_computation_whatever_happens_to_a_worker(
    kafka: str, topics: TestTopics, url: str, tmp_path: Path
) -> None:
    scene = Scene(kafka, topics, url, tmp_path)
    with scene.worker("untold", "store") as untold:
        assert untold.process.wait(30) == 1
        said = untold.log.read_text()
        assert "tidegate_bars: there is no such table" in said
        assert "tidegate store init" in said
        assert "Traceback" not in said
    assert tidegate("store", "init", "--config", str(scene.config), cwd=tmp_path).returncode == 0
    with (
        scene.worker("bars", "bars") as bars,
        scene.worker("first", "store") as first,
        scene.worker("second", "store") as second,
    ):
        workers = [bars, first, second]
        topic = f"{scene.prefix}bars.v1"
        wait_assigned(scene.bars_group, 1, scene.ticks, workers)
        wait_assigned(scene.store_group, 2, topic, workers)
        with scene.load(TICKS_PER_S, instruments=20) as load:
            until(lambda: len(ohlcv_now(url)) > 20, 40, "bars are stored", every_s=0.3)
            ended = (
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'"
            )
            assert len(execute(needed(url)[0].replace(NAME, "judge"), ended)) == 2
            first.kill()
            reached = len(ohlcv_now(url))
            until(lambda: len(ohlcv_now(url)) > reached + 20, 60, "the other goes on", every_s=0.3)
        expected = _projected(load.expected())
        until(lambda: ohlcv_now(url) == expected, 60, "the rows equal the oracle's", every_s=0.5)
        exact = execute(needed(url)[0], "SELECT count(*) FROM tidegate_bars")
        assert exact[0][0] == len(expected)
        assert [bars.stop(), second.stop()] == [0, 0]
    for worker in (bars, second):
        assert '"logger": "datastore' not in worker.log.read_text()
        assert "Wrote " not in worker.log.read_text()
