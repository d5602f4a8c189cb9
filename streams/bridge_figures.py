"""The numbers of a bridge to core's event bus, under the names of market-data-pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from streams import metrics as m
from streams.metrics import Figure


class BridgeCounts(Protocol):
    """What a bridge counts."""

    heard: int
    """Entries of the bus, whatever is in them."""
    passed_over: int
    """Of these, those that said nothing new."""
    refused: int
    """Of these, those that could not be read."""


def of_bridge(counts: BridgeCounts, lag_s: Callable[[], float], stream: str, track: str) -> Iterator[Figure]:
    """A bridge to core's event bus; `lag_s` gives how old its last entry was when it was read."""
    for outcome, count in (
        ("success", counts.heard - counts.passed_over - counts.refused),
        ("error", counts.refused),
        ("duplicate", counts.passed_over),
    ):
        yield Figure(m.PULSE_CONSUMED, count, (stream, track, outcome))
    yield Figure(m.PULSE_LAG, lag_s() * 1000, (stream,))
