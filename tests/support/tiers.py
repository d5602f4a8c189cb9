"""What a test needs besides this process, and whether the run had it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import pytest
from docker.errors import APIError

from support.containers import why_no_docker

Server = TypeVar("Server")

REQUIRED = os.environ.get("TIDEGATE_REQUIRE_KAFKA") == "1"


@dataclass(slots=True)
class Tier:
    """One kind of server that tests meet, and what became of its tests."""

    name: str
    marker: str
    fixtures: frozenset[str] = frozenset()
    given_by: str = ""  # the variable that names a server which runs already
    cure: str = "install Docker"
    server: str = ""
    missing: str = ""
    ran: int = 0
    skipped: int = 0

    def claim(self, item: pytest.Item) -> None:
        """Mark the item if it needs this tier, and does not say so itself."""
        if self.fixtures & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker(
            self.marker
        ):
            item.add_marker(self.marker)

    def count(self, report: pytest.TestReport) -> None:
        """Count a test of this tier by how it ended; its markers come with the report, from any process."""
        if self.marker not in report.keywords:
            return
        if report.skipped or (report.failed and report.when == "setup"):
            self.skipped += 1
        elif report.when == "call":
            self.ran += 1

    @contextmanager
    def started(self, run: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
        """A server in a container; where none can be made, the tier is absent."""
        if reason := why_no_docker():
            self.absent(reason)
        with ExitStack() as stack:
            try:
                server = stack.enter_context(run())
            except APIError as exc:
                self.absent(f"no container can be made: {exc.explanation}")
            yield server

    def absent(self, reason: str) -> NoReturn:
        """Skip the test that needs this tier, or fail it where the tier is required."""
        self.missing = reason
        message = f"{self.name} tier did not run: {reason}"
        if os.environ.get(self.given_by):
            pytest.skip(f"{reason}, and the test would kill the server that {self.given_by} names")
        if REQUIRED:
            pytest.fail(f"{message} (and TIDEGATE_REQUIRE_KAFKA=1 forbids to skip it)", pytrace=False)
        pytest.skip(message)

    def summary(self) -> str:
        """One line for the person who reads the end of the run."""
        if not self.ran and not self.skipped:
            return f"{self.name}: no test of it was run"
        if not self.ran:
            cure = f"; {self.cure} or set {self.given_by}" if self.given_by else ""
            return f"{self.name}: DID NOT RUN, {self.skipped} test(s): {self.missing or 'see below'}{cure}"
        skipped = f", skipped {self.skipped}" if self.skipped else ""
        return f"{self.server or self.name}: ran {self.ran} test(s){skipped}"


EMBEDDED = Tier("embedded broker", marker="embedded")
KAFKA = Tier(
    "Apache Kafka",
    marker="kafka",
    fixtures=frozenset({"kafka", "own_kafka"}),
    given_by="TIDEGATE_TEST_KAFKA",
)
POSTGRES = Tier(
    "PostgreSQL",
    marker="postgres",
    fixtures=frozenset({"postgres", "own_postgres"}),
    given_by="TIDEGATE_TEST_POSTGRES",
)
REDIS = Tier(
    "Redis",
    marker="redis",
    fixtures=frozenset({"redis", "own_redis"}),
    given_by="TIDEGATE_TEST_REDIS",
)
SCHEMA_REGISTRY = Tier(
    "schema registry",
    marker="schema_registry",
    fixtures=frozenset({"schema_registry"}),
    given_by="TIDEGATE_TEST_SCHEMA_REGISTRY",
    cure="run .ci/apicurio FOLDER and set TIDEGATE_APICURIO=FOLDER,",
)
RECORDED = Tier("recorded market data", marker="recorded")
COUNTED = Tier("instruction counts", marker="valgrind")
ALL = (EMBEDDED, KAFKA, POSTGRES, REDIS, SCHEMA_REGISTRY, RECORDED, COUNTED)
