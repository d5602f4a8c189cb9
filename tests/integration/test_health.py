"""What workers answer about themselves, while they start, wait and leave, and while their servers are away."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from market_data_core.telemetry import HealthStatus

from support.cli import assert_one_clear_line, tidegate
from support.kafka import TestTopics
from support.ops_site import OpsSite, ops_site
from support.probing import quickly
from support.wait import until

pytestmark = [pytest.mark.kafka, pytest.mark.end_to_end, pytest.mark.covers("HealthStatus")]


@pytest.fixture
def site(topics: TestTopics, tmp_path: Path) -> OpsSite:
    """On DuckDB."""
    return OpsSite(topics, f"duckdb:{tmp_path / 'bars.duckdb'}", tmp_path)


@pytest.fixture
def behind_a_proxy(topics: TestTopics, postgres: str, tmp_path: Path) -> Iterator[OpsSite]:
    """On PostgreSQL, that can be stalled and cut off."""
    with ops_site(topics, postgres, tmp_path) as site:
        yield site


def test_a_worker_is_ready_when_it_has_its_partitions_and_says_so_in_the_words_of_core(site: OpsSite) -> None:
    with site.worker() as worker:
        probe = site.probe(worker)
        status, first = probe.health("/readyz")
        assert status == 503, "it has only just begun"
        assert first["state"] == "degraded"
        assert probe.health()[0] == 200
        until(lambda: probe.ready, 60, "it is ready")
        until(lambda: probe.part("consumer")["bars.assigned"] == "4", 20, "it has the partitions")

        body = HealthStatus.model_validate_json(probe.get("/healthz")[1])
        assert (body.service, body.state) == ("tidegate", "healthy")
        assert [part.name for part in body.components] == ["broker", "consumer", "state", "store"]
        assert abs(body.ts - time.time()) < 60
        consumer = probe.part("consumer")
        assert (consumer["bars.state"], consumer["store.assigned"], consumer["bars.paused"]) == (
            "running",
            "4",
            "",
        )
        assert worker.stop() == 0


def test_a_paused_partition_is_ready_and_says_what_is_paused(site: OpsSite) -> None:
    with site.worker(roles="bars") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready, 60, "it is ready")

        def paused() -> bool:
            site.say("hard", 2)
            return probe.part("consumer")["bars.paused"] == "2"

        until(paused, 20, "it says that it is paused")
        status, _ = quickly(probe, "/readyz")
        assert status == 200
        assert quickly(probe, "/metrics")[0] == 200
        assert probe.part("consumer")["state"] == "healthy"


@pytest.mark.postgres
@pytest.mark.covers("sink health")
def test_a_database_that_hangs_or_is_away_degrades_and_holds_up_no_answer(behind_a_proxy: OpsSite) -> None:
    site = behind_a_proxy
    assert site.database
    with site.worker(queue_capacity=20, write_batch=10) as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready, 60, "it is ready")
        site.tick(0)
        site.tick(3)
        until(lambda: probe.metrics()["tidegate_store_bars_written_total",] == 1, 30, "a bar is stored")
        assert probe.part("store")["state"] == "healthy"

        site.database.stall()
        for second in range(4, 40):
            site.tick(second)

        def hard() -> bool:
            assert quickly(probe, "/metrics")[0] == 200
            return probe.part("store")["state"] == "degraded"

        until(hard, 30, "its queue is full")
        for path in ("/healthz", "/readyz", "/metrics"):
            assert quickly(probe, path)[0] == 200

        site.database.cut()
        until(lambda: "error" in probe.part("store"), 60, "it says that the database is away")
        status, body = probe.health("/readyz")
        assert (status, body["state"]) == (200, "degraded")
        assert probe.metrics()["tidegate_store_up",] == 0

        # A worker that is told to stop drains for three seconds here, and takes no more work meanwhile.
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: not probe.ready, 3, "it is draining", every_s=0.01)
        status, body = probe.health()
        assert status == 200
        [consumer] = (part for part in body["components"] if part["name"] == "consumer")
        assert "draining" in consumer["details"]["not_ready"]
        assert worker.process.wait(30) == 0


def test_a_port_in_use_ends_the_second_worker_with_a_clear_word(site: OpsSite) -> None:
    with site.worker("first", roles="bars") as first:
        probe = site.probe(first)
        address = probe.url.removeprefix("http://")
        done = tidegate(
            *(
                "worker",
                "--roles",
                "bars",
                "--config",
                site.config("second"),
                "--http",
                address,
                "--log-level",
            ),
            "ERROR",
            cwd=site.folder,
        )
        assert_one_clear_line(done, f"http {address}: the port is in use", "port 0")
        assert probe.health()[0] == 200


def test_without_an_address_nothing_listens(site: OpsSite) -> None:
    with site.worker("silent", roles="bars", http="") as worker:
        found: list[dict[str, Any]] = until(lambda: worker.events("worker.started"), 60, "it has started")
        assert found
        assert worker.events("http.listening") == []
