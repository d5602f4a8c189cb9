"""Crews of worker processes for the tests of the transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.batch_processes import Crew
from support.kafka import TestTopics


@pytest.fixture
def crew(topics: TestTopics, tmp_path: Path) -> Iterator[Crew]:
    """The workers of one consumer group on the shared Kafka; whoever still runs at the end is killed."""
    with Crew(topics.bootstrap, tmp_path, f"{topics.prefix}group") as crew:
        yield crew


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Prints a measured number, and puts it into the report."""

    def measured(what: str, value: float) -> None:
        print(f"measured: {what}: {value:.3f}")
        record_property(what, value)

    return measured
