"""Brokers and databases for tests, and a summary that says which of them the run really met.

Where a tier cannot run, its tests skip and say why; with ``TIDEGATE_REQUIRE_KAFKA=1`` they fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from support import alone, tiers
from support.kafka import Kafka, TestTopics, running_kafka, running_mortal_kafka
from support.points import check_points
from support.postgres import Postgres, running_postgres
from support.redis_server import Redis, running_redis
from support.schema_registry import running_registry, why_none


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of the Apache Kafka that the run's tests share."""
    if given := os.environ.get("TIDEGATE_TEST_KAFKA"):
        tiers.KAFKA.server = f"Apache Kafka at {given}"
        yield given
        return
    with tiers.KAFKA.started(running_kafka) as broker:
        tiers.KAFKA.server = f"Apache Kafka {broker.version} (container, {broker.image})"
        yield broker.address


@pytest.fixture
def own_kafka() -> Iterator[Kafka]:
    """An Apache Kafka of the test's own, to be killed and started again. Needs Docker."""
    with tiers.KAFKA.started(running_mortal_kafka) as broker:
        yield broker


@pytest.fixture
def topics(kafka: str) -> TestTopics:
    """Creates topics on the shared Kafka under a prefix that only this test has."""
    return TestTopics(kafka)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """DSN of the PostgreSQL that the run's tests share."""
    if given := os.environ.get("TIDEGATE_TEST_POSTGRES"):
        tiers.POSTGRES.server = "PostgreSQL at TIDEGATE_TEST_POSTGRES"
        yield given
        return
    with tiers.POSTGRES.started(running_postgres) as server:
        tiers.POSTGRES.server = f"PostgreSQL {server.version} (container, {server.image})"
        yield server.dsn


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to be killed and started again. Needs Docker."""
    with tiers.POSTGRES.started(running_postgres) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """URL of the Redis that the run's tests share."""
    if given := os.environ.get("TIDEGATE_TEST_REDIS"):
        tiers.REDIS.server = "Redis at TIDEGATE_TEST_REDIS"
        yield given
        return
    with tiers.REDIS.started(running_redis) as server:
        tiers.REDIS.server = f"Redis {server.version} (container, {server.image})"
        yield server.url


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis of the test's own, to be killed and started again. Needs Docker."""
    with tiers.REDIS.started(running_redis) as server:
        yield server


@pytest.fixture(scope="session")
def schema_registry() -> Iterator[str]:
    """URL of the registry with Confluent's API that the run's tests share; each has subjects of its own."""
    tier = tiers.SCHEMA_REGISTRY
    if given := os.environ.get("TIDEGATE_TEST_SCHEMA_REGISTRY"):
        tier.server = f"schema registry at {given}"
        yield given
        return
    if reason := why_none():
        tier.absent(reason)
    with running_registry() as url:
        tier.server = "Apicurio Registry (a Java process)"
        yield url


def pytest_configure(config: pytest.Config) -> None:
    alone.register(config)


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.option.markexpr:  # only who asks for them gets them, whatever else is asked for
        left_out = [item for item in items if item.get_closest_marker("slow")]
        if left_out:
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)
    check_points(items)
    for item in items:
        for tier in tiers.ALL:
            tier.claim(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for tier in tiers.ALL:
        tier.count(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # one process of several
        output["tiers"] = [(tier.server, tier.missing) for tier in tiers.ALL]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn which servers another process has met."""
    for tier, (server, missing) in zip(
        tiers.ALL, getattr(node, "workeroutput", {}).get("tiers", ()), strict=False
    ):
        tier.server, tier.missing = tier.server or server, tier.missing or missing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("tiers")
    for tier in tiers.ALL:
        terminalreporter.line(tier.summary())
